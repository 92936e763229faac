-- $1 the number at which counting stops
select
    (select count(*) from (
        select from escala.job where state in ('waiting', 'suspect') and run_at <= now() limit $1) as counted) as waiting,
    (select count(*) from (select from escala.job where state = 'running' limit $1) as counted) as running,
    coalesce(extract(epoch from now() - (
        select min(first.run_at) from (
            with recursive name as (
                (select queue from escala.job where state = 'waiting' order by queue limit 1)
                union all
                select (select queue from escala.job where state = 'waiting' and queue > name.queue order by queue limit 1)
                from name where name.queue is not null
            )
            select queue from name where queue is not null) as q
        cross join lateral (
            select run_at from escala.job where state = 'waiting' and job.queue = q.queue and run_at <= now()
            order by rank, run_at, seq limit 1) as first)), 0)::float8 as oldest_seconds
