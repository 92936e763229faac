-- $1 key, $2 id of the new job, $3 seconds during which no second one is made
-- Returns the id if the key is free: its period is over, and its job has finished.
insert into escala.unique_job as held (key, job, until)
values (cast($1 as text), cast($2 as uuid), now() + make_interval(secs => cast($3 as float8)))
on conflict (key) do update set job = excluded.job, until = excluded.until
where held.until <= now() and not exists (select from escala.job where job.id = held.job)
returning job
