-- $1 owner, $2 seconds of lease, $3 node, $4 process id, $5 replica, $6 queues, $7 tasks
insert into escala.worker (owner, lease_until, node, pid, replica, queues, tasks)
values ($1, now() + make_interval(secs => $2), $3, $4, $5, $6, $7::text::json)
