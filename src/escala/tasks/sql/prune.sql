-- $1 the maximum number of jobs
-- Deletes finished jobs that were kept long enough. Only one process does so at a time; the others delete nothing.
with leader as materialized (
    select pg_try_advisory_xact_lock(7305430117462002) as leads
), old as (
    select id from escala.finished_job, leader where leads and delete_at < now() limit $1
)
delete from escala.finished_job using old where finished_job.id = old.id returning true
