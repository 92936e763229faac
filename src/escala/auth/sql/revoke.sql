-- $4 is this machine's time. Tokens are issued with that clock, and it may be ahead of PostgreSQL's.
insert into escala.revocation (kind, value, expires_at, revoked_at)
values ($1, $2, to_timestamp($3), greatest(now(), to_timestamp($4)))
on conflict (kind, value) do update
set revoked_at = excluded.revoked_at, expires_at = greatest(escala.revocation.expires_at, excluded.expires_at)
