-- $1 owners whose leases have ended, $2 the number of crashes after which a job is not tried again
-- Any job of a process that died may have killed it. So each is tried again in a process of its own, and only one that
-- ends that process is charged with a crash.
with lost as (
    select id, crashes + alone::integer as crashes, queue from escala.job
    where state = 'running' and owner::text = any($1::uuid[]::text[])
    for update
), again as (
    update escala.job as job
    set state = 'suspect', owner = null, crashes = lost.crashes,
        error = 'the worker process ended, or was cut off, during attempt ' || attempt
    from lost where job.id = lost.id and lost.crashes < $2
    returning job.id, job.queue
), poison as (
    delete from escala.job as job using lost where job.id = lost.id and lost.crashes >= $2 returning job.*
), recorded as (
    insert into escala.finished_job
        (id, task, queue, rank, arguments, state, attempt, failures, crashes, retries, message, error, enqueued_at,
         started_at, subject, trace, limit_key, limit_most, keep, delete_at)
    select id, task, queue, rank, arguments, 'failed', attempt, failures, $2, retries, message,
        'set aside: it ended ' || $2 || ' processes that ran nothing else', enqueued_at, started_at, subject, trace, limit_key, limit_most,
        keep, now() + keep
    from poison
    returning id
)
select id, true as again, pg_notify('escala_jobs', queue) from again union all select id, false, null from recorded
