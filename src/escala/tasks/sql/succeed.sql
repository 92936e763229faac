-- $1 owner, $2 ids, $3 attempts, $4 results
-- Does what finish.sql does, for successes that have nothing to say.
with done as (
    delete from escala.job using unnest($2::uuid[], $3::integer[], $4::text[]) as given (id, attempt, result)
    where job.id = given.id and job.attempt = given.attempt and job.owner = $1 and job.state = 'running'
    returning job.*, given.result
)
insert into escala.finished_job
    (id, task, queue, rank, arguments, state, attempt, failures, crashes, retries, message, result, error, enqueued_at,
     started_at, subject, trace, limit_key, limit_most, keep, delete_at)
select id, task, queue, rank, arguments, 'succeeded', attempt, failures, crashes, retries, '', result::json, error,
    enqueued_at, started_at, subject, trace, limit_key, limit_most, keep, now() + keep
from done
returning id
