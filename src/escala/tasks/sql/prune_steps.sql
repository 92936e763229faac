-- Deletes the steps of jobs that have finished.
delete from escala.job_step as step where not exists (select from escala.job where job.id = step.job)
