-- $1 ids
select id, case when state in ('suspect', 'blocked') then 'waiting' else state end as state, attempt, progress, message, error
from escala.job where id = any($1::uuid[])
union all
select id, state, attempt, case state when 'succeeded' then 1 else 0 end, message, error
from escala.finished_job where id = any($1::uuid[])
