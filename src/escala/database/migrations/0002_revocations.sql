-- Tokens that the gateway refuses although their signature and times are valid. A row is needed only until the last
-- token that it concerns has expired.
create table escala.revocation (
    kind       text        not null check (kind in ('token', 'user')),
    value      text        not null,           -- the token's jti, or the user's sub
    revoked_at timestamptz not null default now(),
    expires_at timestamptz not null,
    primary key (kind, value)
);
create index revocation_expires_at on escala.revocation (expires_at);
