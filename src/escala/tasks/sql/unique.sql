-- $1 key, $2 id of the new job, $3 seconds during which no second one is made
-- Returns the id if the key is free: its period is over, and its job has finished.
insert into escala.unique_job as held (key, job, until)
values ($1, $2, now() + make_interval(secs => $3))
on conflict (key) do update set job = excluded.job, until = excluded.until
where held.until <= now() and not exists (select from escala.job where job.id = held.job)
returning job
