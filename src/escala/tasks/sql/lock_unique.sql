-- $1 key. Until the end of the transaction nobody else makes a job of this key; the next statement sees what others did.
select pg_advisory_xact_lock(hashtextextended('escala unique ' || cast($1 as text), 0))
