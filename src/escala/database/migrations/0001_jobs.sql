-- Jobs. Unfinished and finished jobs are in separate tables, so that the table from which workers claim stays small.

create table escala.job (
    id           uuid primary key default gen_random_uuid(),
    seq          bigint generated always as identity,
    task         text not null,
    arguments    jsonb not null,
    state        text not null default 'waiting' check (state in ('waiting', 'running')),
    run_at       timestamptz not null default now(),
    attempt      integer not null default 0,    -- incremented by every claim; a write must pass it with the owner
    failures     integer not null default 0,    -- attempts that raised an exception or timed out
    retries      integer not null,              -- failures after which it is tried again
    crashes      integer not null default 0,    -- attempts whose worker process died or was cut off
    owner        uuid,                          -- identifies one start of a worker process, never a host
    lease_until  timestamptz,
    progress     real not null default 0,       -- 0 to 1
    message      text not null default '',
    error        text,                          -- of the last attempt that did not succeed
    enqueued_at  timestamptz not null default now(),
    started_at   timestamptz
) with (fillfactor = 70);

create index job_waiting on escala.job (run_at, seq) where state = 'waiting';
create index job_lease on escala.job (lease_until) where state = 'running';

create table escala.finished_job (
    id           uuid primary key,
    task         text not null,
    arguments    jsonb not null,
    state        text not null check (state in ('succeeded', 'failed')),
    attempt      integer not null,
    message      text not null,
    result       jsonb,
    error        text,
    enqueued_at  timestamptz not null,
    started_at   timestamptz,
    finished_at  timestamptz not null default now()
);

create index finished_job_age on escala.finished_job (finished_at);

create table escala.job_file (
    job         uuid not null references escala.finished_job on delete cascade,
    name        text not null,
    media_type  text not null,
    content     bytea not null,
    primary key (job, name)
);
