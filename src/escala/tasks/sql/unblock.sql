-- $1 key, which is locked. Lets as many blocked jobs wait as may run.
with running as (
    select count(*) as number from (
        select from escala.job
        where limit_key = $1 and (state = 'waiting' or (state = 'running' and admitted))
        limit 1000
    ) as counted
), next as (
    select id, limit_most, row_number() over (order by rank, run_at, seq) as place
    from (select id, limit_most, rank, run_at, seq from escala.job where limit_key = $1 and state = 'blocked'
          order by rank, run_at, seq limit 1000 for update skip locked) as blocked
), freed as (
    update escala.job as job set state = 'waiting'
    from next, running
    where job.id = next.id and next.place + running.number <= next.limit_most
    returning job.queue
)
select pg_notify('escala_jobs', queue) from freed group by queue
