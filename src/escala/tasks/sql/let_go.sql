-- $1 owner, $2 the jobs that it knows of. Gives back the others: a claim whose answer did not arrive, for example because
-- the connection broke, has left them with nobody.
with left_over as (
    update escala.job
    set state = case when alone then 'suspect' else 'waiting' end, owner = null, attempt = attempt - 1
    where owner::text = $1::uuid::text and state = 'running' and id <> all($2::uuid[])
    returning id, queue
)
select id, pg_notify('escala_jobs', queue) from left_over
