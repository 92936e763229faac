-- $1 key, $2 up to when the allowance is used up
update escala.job_limit set next_turn = $2 where key = $1
