select count(*) filter (where state = 'waiting') as waiting,
       count(*) filter (where state = 'running') as running,
       coalesce(extract(epoch from now() - min(run_at) filter (where state = 'waiting' and run_at <= now())), 0)::float8
           as oldest_seconds
from escala.job
