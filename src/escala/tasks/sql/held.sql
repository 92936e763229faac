-- $1 owner, $2 ids: those that the owner still holds, with what was asked of it
select id, attempt, cancelled from escala.job where id = any($2::uuid[]) and owner = $1 and state = 'running'
