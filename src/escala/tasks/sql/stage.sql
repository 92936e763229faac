-- $1 the maximum number of jobs
-- Lets the scheduled jobs wait that are due.
with due as (
    select id from escala.job
    where state = 'scheduled' and run_at <= now()
    order by run_at
    limit $1
    for update skip locked
), staged as (
    update escala.job set state = 'waiting' where id = any(array(select id from due)) returning queue
)
select pg_notify('escala_jobs', queue) from staged group by queue
