-- Queues, priorities, scheduled jobs, and leases that belong to a worker process instead of a job.

alter table escala.job
    alter column arguments type json using arguments::json,  -- kept as written: jsonb changes numbers and order
    drop constraint job_state_check,
    add column queue      text not null default 'default',
    add column rank       smallint not null default 0,  -- the negative of the priority: the lowest rank runs first
    add column expires_at timestamptz,                  -- a job that has not begun by then is not run any more
    add column keep       interval not null default '7 days',  -- how long it is kept once it has finished
    add column alone      boolean not null default false,      -- whether the running attempt has a process of its own
    add column cancelled  boolean not null default false,      -- whether the running attempt is to be cancelled
    add column limit_key  text,                         -- at most so many jobs of one key run at a time
    add column limit_most integer,
    add column admitted   boolean not null default false,      -- whether the running attempt counts for its key
    add column paid       boolean not null default false,      -- whether it has had its turn of the task's rate
    add column subject    text,                         -- who enqueued it: `sub` of the access token
    add column trace      text,                         -- traceparent (W3C Trace Context)
    add constraint job_state_check check (state in ('scheduled', 'waiting', 'suspect', 'blocked', 'running'));

create index job_claim on escala.job (queue, rank, run_at, seq) where state = 'waiting';
create index job_suspect on escala.job (queue, run_at, seq) where state = 'suspect';
create index job_scheduled on escala.job (run_at) where state = 'scheduled';
create index job_owner on escala.job ((owner::text)) where state = 'running';  -- as text: only the rescue may use it
create index job_blocked on escala.job (limit_key, state, rank, run_at, seq) where limit_key is not null;
create index job_subject on escala.job (subject, id) where subject is not null;

-- Half of all rows are dead at any time: each job is written three times, and then deleted.
alter table escala.job set (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

alter table escala.finished_job
    alter column arguments type json using arguments::json,
    alter column result type json using result::json,
    drop constraint finished_job_state_check,
    add column queue     text not null default 'default',
    add column rank      smallint not null default 0,
    add column failures  integer not null default 0,
    add column crashes   integer not null default 0,
    add column retries   integer not null default 0,
    add column keep      interval not null default '7 days',
    add column limit_key text,
    add column limit_most integer,
    add column subject   text,
    add column trace     text,
    add column delete_at timestamptz not null default now() + interval '7 days',
    add constraint finished_job_state_check check (state in ('succeeded', 'failed', 'cancelled'));

create index finished_job_delete_at on escala.finished_job (delete_at);
create index finished_job_task on escala.finished_job (task, id);
create index finished_job_subject on escala.finished_job (subject, id) where subject is not null;
create index finished_job_unsuccessful on escala.finished_job (state, id) where state <> 'succeeded';
drop index escala.finished_job_age;

-- One start of a worker process. Its jobs are running as long as the lease lasts.
create table escala.worker (
    owner       uuid primary key,
    lease_until timestamptz not null,
    node        text not null,        -- one start of a supervisor; '' without one
    pid         integer not null,
    replica     text not null,
    queues      text[] not null,
    tasks       json not null default '{}',  -- by name, with the functions behind them
    started_at  timestamptz not null default now()
) with (fillfactor = 50);

-- Jobs that workers of the earlier version left behind are rescued when their leases end.
insert into escala.worker (owner, lease_until, node, pid, replica, queues)
select owner, max(lease_until), '', 0, '', array[]::text[] from escala.job where state = 'running' group by owner;

-- Locked while jobs of a key are admitted, or of a task with a rate.
create table escala.job_limit (
    key       text primary key,
    next_turn timestamptz not null default 'epoch'  -- of a rate: when its allowance is used up to
) with (fillfactor = 50);

-- No second job of a key is made as long as the first has not finished, or until a moment.
create table escala.unique_job (
    key    text primary key,
    job    uuid not null,
    until  timestamptz not null
);

-- What the steps of unfinished jobs returned. A later attempt does not repeat them.
create table escala.job_step (
    job     uuid not null,
    name    text not null,
    result  json,
    primary key (job, name)
);

create table escala.cron (
    task      text primary key,
    last_tick timestamptz not null
);

create table escala.paused_queue (
    name      text primary key,
    paused_at timestamptz not null default now()
);
