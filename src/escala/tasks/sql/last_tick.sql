-- $1 task. Returns the moment of the database, and the task's latest tick; null if it is new.
select now(), (select last_tick from escala.cron where task = $1)
