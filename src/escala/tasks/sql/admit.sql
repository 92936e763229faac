-- $1 owner, $2 key, $3 ids of claimed jobs. The key is locked.
-- As many are admitted as may run beside those that do; the others are blocked. Returns the admitted ones.
with running as (
    select count(*) as number from escala.job where limit_key = $2 and state = 'running' and admitted
), chosen as (
    select id, row_number() over (order by rank, run_at, seq) + running.number <= limit_most as fits
    from escala.job, running
    where id = any($3::uuid[]) and owner = $1 and state = 'running'
)
update escala.job as job
set admitted = chosen.fits, state = case when chosen.fits then 'running' else 'blocked' end,
    owner = case when chosen.fits then owner end, attempt = attempt - (not chosen.fits)::integer
from chosen
where job.id = chosen.id
returning case when chosen.fits then job.id end as admitted
