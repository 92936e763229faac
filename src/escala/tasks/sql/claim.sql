-- $1 owner, $2 queues in the order of their turn, $3 $4 $5 for each queue the rank, moment and number after which to
-- look (what is before was taken already), $6 the maximum number of jobs
-- The row of the worker is locked: nobody can end its lease between this statement and its commit.
with alive as (
    select from escala.worker where owner = $1 for key share
), due as (
    select job.id
    from alive, unnest($2::text[], $3::smallint[], $4::timestamptz[], $5::bigint[]) as turn (queue, rank, run_at, seq)
    cross join lateral (
        select id from escala.job
        where state = 'waiting' and job.queue = turn.queue and run_at <= now()
            and (job.rank, job.run_at, job.seq) > (turn.rank, turn.run_at, turn.seq)
        order by job.rank, job.run_at, job.seq
        limit $6
        for update skip locked
    ) as job
    where not exists (select from escala.paused_queue where name = turn.queue)
    limit $6
)
update escala.job as job
set state = 'running', owner = $1, attempt = attempt + 1, started_at = now(), progress = 0, message = '',
    alone = false, cancelled = false, admitted = false
where job.id = any(array(select id from due))  -- as an array: however many, by the index
returning job.id, job.task, job.arguments::text, job.attempt, job.failures, job.retries, job.trace,
    job.expires_at <= now() as expired, job.queue, job.rank, job.run_at, job.seq,
    job.limit_key, job.limit_most, job.paid
