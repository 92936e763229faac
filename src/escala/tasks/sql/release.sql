-- $1 owner, $2 ids
-- Returns the unfinished jobs of a stopping worker to the queue. This counts neither as a failure nor as a crash.
update escala.job
set state = 'waiting', owner = null, lease_until = null
where owner = $1 and id = any($2::uuid[]) and state = 'running'
returning id
