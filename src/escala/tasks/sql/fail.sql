-- $1 owner, $2 id, $3 attempt, $4 error
with finished as (
    delete from escala.job
    where id = $2 and attempt = $3 and owner = $1 and state = 'running'
    returning *
)
insert into escala.finished_job (id, task, arguments, state, attempt, message, error, enqueued_at, started_at)
select id, task, arguments, 'failed', attempt, message, $4, enqueued_at, started_at from finished
returning id
