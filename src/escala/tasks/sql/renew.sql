-- $1 owner, $2 seconds of lease
update escala.worker set lease_until = now() + make_interval(secs => $2) where owner = $1 returning true
