-- $1 task names. A job counts as waiting only if it is due.
select count(*) filter (where state = 'waiting') as waiting,
       count(*) filter (where state = 'running') as running,
       coalesce(extract(epoch from now() - min(run_at) filter (where state = 'waiting')), 0)::float8 as oldest_seconds
from escala.job
where task = any($1::text[]) and (state = 'running' or (state = 'waiting' and run_at <= now()))
