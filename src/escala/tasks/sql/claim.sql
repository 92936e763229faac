-- $1 owner, $2 task names, $3 maximum number of jobs, $4 seconds of lease
with due as (
    select id from escala.job
    where state = 'waiting' and run_at <= now() and task = any($2::text[])
    order by run_at, seq
    limit $3
    for update skip locked
)
update escala.job as job
set state = 'running', owner = $1, attempt = attempt + 1, started_at = now(), progress = 0, message = '',
    lease_until = now() + make_interval(secs => $4)
from due
where job.id = due.id
returning job.id, job.task, job.arguments, job.attempt
