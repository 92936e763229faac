-- $1 ids, $2 tasks, $3 queues, $4 ranks, $5 arguments, $6 retries, $7 moments at which they are due (null: now),
-- $8 seconds after which they are due, $9 seconds within which they must begin (null: any time), $10 seconds that they
-- are kept, $11 who enqueues them, $12 traceparents, $13 keys of which $14 at most so many run at a time (null: any)
-- Jobs of the future are announced, too: a worker notes when the next one is due.
with given as (
    select *, coalesce(at, now() + make_interval(secs => after)) as run_at
    from unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::integer[], $7::timestamptz[],
                $8::float8[], $9::float8[], $10::float8[], $11::text[], $12::text[], $13::text[], $14::integer[])
        as given (id, task, queue, rank, arguments, retries, at, after, within, keep, subject, trace, limit_key,
                  limit_most)
), added as (
    insert into escala.job
        (id, task, queue, rank, arguments, retries, run_at, expires_at, keep, state, subject, trace, limit_key,
         limit_most)
    select id, task, queue, rank, arguments::json, retries, run_at, run_at + make_interval(secs => within),
        make_interval(secs => keep), case when run_at <= now() then 'waiting' else 'scheduled' end, subject, trace,
        limit_key, limit_most
    from given
)
select pg_notify(channel, queue)
from (select distinct case when run_at <= now() then 'escala_jobs' else 'escala_scheduled' end as channel, queue
      from given) as announced
