-- $1 owner, $2 ids, $3 attempts, $4 progress, $5 messages
update escala.job as job set progress = given.progress, message = given.message
from unnest($2::uuid[], $3::integer[], $4::real[], $5::text[]) as given (id, attempt, progress, message)
where job.id = given.id and job.attempt = given.attempt and job.owner = $1 and job.state = 'running'
