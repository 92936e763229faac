-- $1 task, $2 a tick. Returns a row if the tick is new. The first time, a task only begins to be followed.
insert into escala.cron as known (task, last_tick) values ($1, $2)
on conflict (task) do update set last_tick = excluded.last_tick where known.last_tick < excluded.last_tick
returning true
