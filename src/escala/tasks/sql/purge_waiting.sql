-- $1 queue, $2 task, $3 states, $4 the maximum number of jobs; null where it does not matter
delete from escala.job where id in (
    select id from escala.job
    where state in ('waiting', 'scheduled', 'suspect', 'blocked') and ($1::text is null or queue = $1)
        and ($2::text is null or task = $2)
        and (case when state in ('suspect', 'blocked') then 'waiting' else state end) = any($3::text[])
    limit $4
    for update skip locked
)
returning true
