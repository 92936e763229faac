-- $1 owner, $2 ids, $3 moments. Lets claimed jobs of a task with a rate wait for their turn.
with postponed as (
    update escala.job as job
    set state = 'scheduled', owner = null, attempt = attempt - 1, paid = true, run_at = given.run_at
    from unnest($2::uuid[], $3::timestamptz[]) as given (id, run_at)
    where job.id = given.id and job.owner = $1 and job.state = 'running'
    returning job.queue
)
select pg_notify('escala_scheduled', queue) from postponed group by queue
