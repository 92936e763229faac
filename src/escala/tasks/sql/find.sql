select id, task, queue, -rank as priority, arguments,
       case when state in ('suspect', 'blocked') then 'waiting' else state end as state, attempt, progress, message,
       null::json as result, error, enqueued_at, started_at, null::timestamptz as finished_at,
       array[]::text[] as files, subject, run_at
from escala.job where id = $1
union all
select id, task, queue, -rank, arguments, state, attempt, case state when 'succeeded' then 1 else 0 end, message,
       result, error, enqueued_at, started_at, finished_at,
       array(select name from escala.job_file where job = finished_job.id order by name), subject, null
from escala.finished_job where id = $1
limit 1
