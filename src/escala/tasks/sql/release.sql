-- $1 owner, $2 ids: given back by a worker that stops; neither a failure nor a crash
update escala.job
set state = 'waiting', owner = null, lease_until = null
where owner = $1 and id = any($2::uuid[]) and state = 'running'
returning id
