-- $1 number of crashes after which a job is no longer retried (it is moved to finished_job as failed)
with lost as (
    select id from escala.job
    where state = 'running' and lease_until < now()
    for update skip locked
), again as (
    update escala.job as job
    set state = 'waiting', owner = null, lease_until = null, crashes = crashes + 1,
        error = 'the worker process ended, or was cut off, during attempt ' || attempt
    from lost where job.id = lost.id and crashes + 1 < $1
    returning job.id
), poison as (
    delete from escala.job as job
    using lost where job.id = lost.id and crashes + 1 >= $1
    returning job.*
), recorded as (
    insert into escala.finished_job (id, task, arguments, state, attempt, message, error, enqueued_at, started_at)
    select id, task, arguments, 'failed', attempt, message,
        'set aside: ' || crashes + 1 || ' worker processes ended while they ran it', enqueued_at, started_at
    from poison
    returning id
)
select id, true as again from again union all select id, false from recorded
