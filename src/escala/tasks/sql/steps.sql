-- $1 job
select name, result::text from escala.job_step where job = $1
