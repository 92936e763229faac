-- $1 owner, $2 ids, $3 attempts, $4 states, $5 results, $6 errors (null: the one of the attempt before), $7 messages
with done as (
    delete from escala.job using unnest($2::uuid[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
        as given (id, attempt, state, result, error, message)
    where job.id = given.id and job.attempt = given.attempt and job.owner = $1 and job.state = 'running'
    returning job.*, given.state as outcome, given.result, given.error as fault, given.message as last_message
)
insert into escala.finished_job
    (id, task, queue, rank, arguments, state, attempt, failures, crashes, retries, message, result, error, enqueued_at,
     started_at, subject, trace, limit_key, limit_most, keep, delete_at)
select id, task, queue, rank, arguments, outcome, attempt, failures + (outcome = 'failed')::integer, crashes, retries,
    last_message, result::json, coalesce(fault, error), enqueued_at, started_at, subject, trace, limit_key, limit_most,
    keep, now() + keep
from done
returning id
