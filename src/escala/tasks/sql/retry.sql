-- $1 owner, $2 id, $3 attempt, $4 error
-- Puts a failed job back into the queue, with a longer delay after each failure, as long as it has retries left.
update escala.job
set state = 'waiting', owner = null, lease_until = null, error = $4, failures = failures + 1,
    run_at = now() + make_interval(secs => least(300, power(2, failures)) * (0.75 + random() / 2))
where id = $2 and attempt = $3 and owner = $1 and state = 'running' and failures < retries
returning id
