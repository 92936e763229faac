-- $1 seconds that a finished job is kept; deletes at most 1000 jobs
delete from escala.finished_job
where id in (
    select id from escala.finished_job where finished_at < now() - make_interval(secs => $1) limit 1000
)
