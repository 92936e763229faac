-- $1 seconds
delete from escala.finished_job
where id in (
    select id from escala.finished_job where finished_at < now() - make_interval(secs => $1) limit 1000
)
