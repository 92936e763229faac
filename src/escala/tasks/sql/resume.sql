with resumed as (delete from escala.paused_queue where name = $1 returning name)
select pg_notify('escala_jobs', name) from resumed
