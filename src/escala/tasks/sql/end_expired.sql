-- Ends the leases that have run out. A worker whose row is gone can claim and write nothing any more.
delete from escala.worker
where owner in (select owner from escala.worker where lease_until < now() for update skip locked)
returning owner
