-- Seconds until the next scheduled job is due; null if there is none.
select extract(epoch from min(run_at) - now())::float8 from escala.job where state = 'scheduled'
