-- $1 owner, $2 id, $3 attempt, $4 error, $5 the number of crashes after which a job is not tried again
-- Charges a job with the end of the process that ran it alone.
update escala.job
set state = 'suspect', owner = null, crashes = crashes + 1, error = $4
where id = $2 and attempt = $3 and owner = $1 and state = 'running' and crashes + 1 < $5
returning id
