-- $1 the number at which counting stops
with recursive name as (
    (select queue from escala.job where state = 'waiting' order by queue limit 1)
    union all
    select (select queue from escala.job where state = 'waiting' and queue > name.queue order by queue limit 1)
    from name where name.queue is not null
), known as (
    select queue from name where queue is not null
    union select name from escala.paused_queue
    union select unnest(queues) from escala.worker
)
select known.queue,
    (select count(*) from (
        select from escala.job where state = 'waiting' and job.queue = known.queue limit $1) as counted) as waiting,
    (select count(*) from (
        select from escala.job where state = 'running' and job.queue = known.queue limit $1) as counted) as running,
    (select count(*) from escala.worker where known.queue = any(queues) and lease_until > now()) as workers,
    exists (select from escala.paused_queue where paused_queue.name = known.queue) as paused
from known
where queue <> 'default' or exists (select from escala.job where state = 'waiting' and job.queue = 'default')
order by queue
