-- $1 job, $2 attempt, $3 owner, $4 name, $5 result
-- Returns a row if the attempt still has the job.
with mine as (
    select id from escala.job where id = $1 and attempt = $2 and owner = $3 and state = 'running' for key share
)
insert into escala.job_step (job, name, result)
select id, $4::text, $5::text::json from mine
returning true
