-- $1 owner, $2 seconds of lease, $3 ids, $4 attempts, $5 progress, $6 messages
update escala.job as job
set lease_until = now() + make_interval(secs => $2), progress = held.progress, message = held.message
from unnest($3::uuid[], $4::integer[], $5::real[], $6::text[]) as held (id, attempt, progress, message)
where job.id = held.id and job.attempt = held.attempt and job.owner = $1 and job.state = 'running'
returning job.id
