-- $1 jobs, as a JSON array of objects: at is the moment at which a job is due (null: now), after the seconds after which
-- it is due, within those in which it must begin (null: any time), keep those that it is kept
-- One parameter of text serves the connections of other libraries, too. Jobs of the future are announced as well: a
-- worker notes when the next one is due.
with given as (
    select *, coalesce(at, now() + make_interval(secs => after)) as run_at
    from json_to_recordset(cast($1 as text)::json)
        as given (id uuid, task text, queue text, rank smallint, arguments text, retries integer, at timestamptz,
                  after float8, within float8, keep float8, subject text, trace text, limit_key text,
                  limit_most integer)
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
