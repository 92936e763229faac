-- $1 node, $2 process id
-- Ends the lease of a process whose death was seen.
delete from escala.worker where node = $1 and pid = $2 returning owner
