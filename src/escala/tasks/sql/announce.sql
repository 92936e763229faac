-- $1 queues
select pg_notify('escala_jobs', queue) from unnest($1::text[]) as queue
