insert into escala.job (task, arguments, retries, run_at)
values ($1, $2, $3, now() + make_interval(secs => $4))
returning id
