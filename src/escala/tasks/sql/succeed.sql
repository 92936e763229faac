-- $1 owner, $2 id, $3 attempt, $4 result, $5 message, $6 file names, $7 media types, $8 contents
with finished as (
    delete from escala.job
    where id = $2 and attempt = $3 and owner = $1 and state = 'running'
    returning *
), recorded as (
    insert into escala.finished_job
        (id, task, arguments, state, attempt, message, result, error, enqueued_at, started_at)
    select id, task, arguments, 'succeeded', attempt, $5, $4, error, enqueued_at, started_at from finished
    returning id
), filed as (
    insert into escala.job_file (job, name, media_type, content)
    select recorded.id, file.name, file.media_type, file.content
    from recorded, unnest($6::text[], $7::text[], $8::bytea[]) as file (name, media_type, content)
)
select id from recorded
