-- $1 the maximum number of keys
delete from escala.unique_job where key in (
    select key from escala.unique_job as held
    where until <= now() and not exists (select from escala.job where job.id = held.job)
    limit $1
    for update skip locked
)
