-- $1 owner, $2 queues, $3 the maximum number of jobs
with alive as (
    select from escala.worker where owner = $1 for key share
), due as (
    select job.id
    from alive, unnest($2::text[]) as turn (queue)
    cross join lateral (
        select id from escala.job
        where state = 'suspect' and job.queue = turn.queue
        order by job.run_at, job.seq
        limit $3
        for update skip locked
    ) as job
    where not exists (select from escala.paused_queue where name = turn.queue)
    limit $3
)
update escala.job as job
set state = 'running', owner = $1, attempt = attempt + 1, started_at = now(), progress = 0, message = '',
    alone = true, cancelled = false, admitted = false
where job.id = any(array(select id from due))  -- as an array: however many, by the index
returning job.id, job.task, job.arguments::text, job.attempt, job.failures, job.retries, job.trace,
    job.expires_at <= now() as expired, job.queue, job.rank, job.run_at, job.seq,
    job.limit_key, job.limit_most, job.paid
