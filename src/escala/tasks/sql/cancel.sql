-- $1 id. A job that waits is finished at once; the worker of a running one is told.
with target as (
    select id, state from escala.job where id = $1 for update
), asked as (
    update escala.job set cancelled = true from target
    where job.id = target.id and target.state = 'running'
    returning job.id
), taken as (
    delete from escala.job using target where job.id = target.id and target.state <> 'running' returning job.*
), recorded as (
    insert into escala.finished_job
        (id, task, queue, rank, arguments, state, attempt, failures, crashes, retries, message, error, enqueued_at,
         started_at, subject, trace, limit_key, limit_most, keep, delete_at)
    select id, task, queue, rank, arguments, 'cancelled', attempt, failures, crashes, retries, message,
        'it was cancelled before it ran', enqueued_at, started_at, subject, trace, limit_key, limit_most, keep, now() + keep
    from taken
    returning id
)
select 'cancelled' as outcome, null as announced from recorded
union all
select 'asked', pg_notify('escala_cancelled', id::text)::text from asked
