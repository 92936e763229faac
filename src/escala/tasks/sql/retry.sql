-- $1 id. Puts a job that failed or was cancelled back into its queue, and lets a scheduled one run at once.
with finished as (
    delete from escala.finished_job where id = $1 and state in ('failed', 'cancelled') returning *
), added as (
    insert into escala.job
        (id, task, queue, rank, arguments, retries, attempt, error, enqueued_at, keep, subject, trace, limit_key, limit_most)
    select id, task, queue, rank, arguments, retries, attempt, error, enqueued_at, keep, subject, trace, limit_key, limit_most from finished
    returning queue
), hurried as (
    update escala.job set state = 'waiting', run_at = now() where id = $1 and state = 'scheduled' returning queue
)
select pg_notify('escala_jobs', queue) from (select queue from added union all select queue from hurried) as announced
