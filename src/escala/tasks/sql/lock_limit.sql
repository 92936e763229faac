-- $1 key. Returns the moment of the database, and up to when the allowance of a rate is used up.
insert into escala.job_limit as held (key) values ($1)
on conflict (key) do update set next_turn = held.next_turn
returning clock_timestamp() as now, next_turn
