-- $1 owner, $2 ids, $3 attempts, $4 whether the attempt began
-- Returns the unfinished jobs of a stopping worker to the queue. This counts neither as a failure nor as a crash.
with released as (
    update escala.job as job
    set state = case when alone then 'suspect' else 'waiting' end, owner = null,
        attempt = job.attempt - (not given.began)::integer
    from unnest($2::uuid[], $3::integer[], $4::boolean[]) as given (id, attempt, began)
    where job.id = given.id and job.attempt = given.attempt and job.owner = $1 and job.state = 'running'
    returning job.id, job.queue
)
select id, pg_notify('escala_jobs', queue) from released
