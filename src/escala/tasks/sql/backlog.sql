-- $1 queues, $2 the number at which counting stops
select
    (select count(*) from (
        select from unnest($1::text[]) as q (name) cross join lateral
            (select from escala.job where state = 'waiting' and queue = q.name and run_at <= now() limit $2) as each
        limit $2) as counted)
    + (select count(*) from (
        select from escala.job where state = 'suspect' and queue = any($1::text[]) limit $2) as counted) as waiting,
    (select count(*) from (
        select from escala.job where state = 'running' and queue = any($1::text[]) limit $2) as counted) as running,
    coalesce(extract(epoch from now() - (
        select min(first.run_at) from unnest($1::text[]) as q (name) cross join lateral (
            select run_at from escala.job where state = 'waiting' and queue = q.name and run_at <= now()
            order by rank, run_at, seq limit 1) as first)), 0)::float8 as oldest_seconds
