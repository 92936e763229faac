-- $1 owner, $2 ids, $3 attempts, $4 seconds until the next attempt, $5 errors, $6 whether the attempt failed
-- Puts jobs back into the queue.
with again as (
    update escala.job as job
    set state = 'scheduled', owner = null, error = given.error, failures = failures + given.failed::integer, paid = false,
        run_at = now() + make_interval(secs => given.pause)
    from unnest($2::uuid[], $3::integer[], $4::float8[], $5::text[], $6::boolean[])
        as given (id, attempt, pause, error, failed)
    where job.id = given.id and job.attempt = given.attempt and job.owner = $1 and job.state = 'running'
    returning job.id, job.queue
)
select id, pg_notify('escala_scheduled', queue) from again
