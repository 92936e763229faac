-- $1 subject, $2 states, $3 queue, $4 task, $5 since, $6 until, $7 the id before which to look, $8 the maximum number
-- of jobs; null where it does not matter. Ids are in the order of time.
select id, task, queue, priority, state, attempt, progress, message, error, enqueued_at, run_at, started_at,
       finished_at, subject
from (
    (select id, task, queue, -rank as priority, case when state in ('suspect', 'blocked') then 'waiting' else state end as state, attempt,
            progress, message, error, enqueued_at, run_at, started_at, null::timestamptz as finished_at, subject
     from escala.job
     where ($1::text is null or subject = $1)
         and ($2::text[] is null or (case when state in ('suspect', 'blocked') then 'waiting' else state end) = any($2))
         and ($3::text is null or queue = $3) and ($4::text is null or task = $4)
         and ($5::timestamptz is null or enqueued_at >= $5) and ($6::timestamptz is null or enqueued_at < $6)
         and ($7::uuid is null or id < $7)
     order by id desc limit $8)
    union all
    (select id, task, queue, -rank, state, attempt, case state when 'succeeded' then 1 else 0 end, message, error,
            enqueued_at, null, started_at, finished_at, subject
     from escala.finished_job
     where ($1::text is null or subject = $1) and ($2::text[] is null or state = any($2))
         and ($3::text is null or queue = $3) and ($4::text is null or task = $4)
         and ($5::timestamptz is null or enqueued_at >= $5) and ($6::timestamptz is null or enqueued_at < $6)
         and ($7::uuid is null or id < $7)
     order by id desc limit $8)
) as found
order by id desc limit $8
