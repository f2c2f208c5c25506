-- Workspaces, their tokens, their signs of life, and the list of changes that caches read.

create table workspaces (
    id                   uuid primary key default gen_random_uuid(),
    name                 text not null check (length(name) between 1 and 200),
    role                 text,
    template             text,
    model                text,
    tier                 integer not null default 1,
    -- 'external' is the one value with a meaning here: an agent that nobody of ours starts
    runtime              text not null default '',
    status               text not null check (status in (
                             'provisioning', 'online', 'degraded', 'offline', 'awaiting_agent',
                             'failed', 'paused', 'hibernating', 'hibernated', 'removed')),
    url                  text,
    agent_card           jsonb,
    parent_id            uuid references workspaces (id),
    delivery_mode        text check (delivery_mode in ('push', 'poll')),
    max_concurrent_tasks integer not null default 1 check (max_concurrent_tasks > 0),
    -- money is integer cents; null: no limit
    budget_limit         bigint check (budget_limit >= 0),
    workspace_dir        text,
    workspace_access     text,
    x                    double precision not null default 0,
    y                    double precision not null default 0,
    collapsed            boolean not null default false,
    -- what the runtime said of itself: {"capabilities": {...}, "idle_timeout_seconds": n}
    runtime_metadata     jsonb not null default '{}',
    -- sealed with the key of GATEWAY_SECRETS_KEY_FILE
    agent_auth           bytea,
    inbound_secret       bytea,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    removed_at           timestamptz,
    check ((status = 'removed') = (removed_at is not null))
);

create index workspaces_parent on workspaces (parent_id) where parent_id is not null;

-- One narrow row a workspace, rewritten by every batch of heartbeats; the half-empty pages keep the updates in place.
create table liveness (
    workspace_id      uuid primary key references workspaces (id) on delete cascade,
    last_heartbeat_at timestamptz,
    -- the last thing that counts as life: a heartbeat that is not wedged, a register, an update of the card
    last_sign_at      timestamptz,
    active_tasks      integer not null default 0,
    current_task      text,
    error_rate        double precision not null default 0,
    sample_error      text,
    uptime_seconds    bigint not null default 0,
    monthly_spend     bigint not null default 0,
    runtime_state     text
) with (fillfactor = 50);

create table tokens (
    id           uuid primary key default gen_random_uuid(),
    workspace_id uuid not null references workspaces (id) on delete cascade,
    -- SHA-256 of the token; the token itself is shown once and kept nowhere
    hash         bytea not null unique check (length(hash) = 32),
    prefix       text not null,
    created_at   timestamptz not null default now(),
    revoked_at   timestamptz
);

create index tokens_live on tokens (workspace_id) where revoked_at is null;

-- What caches must forget. Written by triggers, in the transaction that changes the row, so no writer can forget it.
create table changes (
    id   bigint generated always as identity primary key,
    xid  xid8 not null default pg_current_xact_id(),
    kind text not null check (kind in ('workspace', 'token')),
    key  text not null,
    at   timestamptz not null default now()
);

create index changes_xid on changes (xid);

create function note_workspace_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('workspace', coalesce(new.id, old.id)::text);
    -- a removed workspace takes its tokens with it
    if tg_op = 'DELETE' or (tg_op = 'UPDATE' and new.status = 'removed' and old.status <> 'removed') then
        insert into changes (kind, key) select 'token', encode(hash, 'hex') from tokens where workspace_id = old.id;
    end if;
    return null;
end $$;

create trigger workspaces_changed after insert or update or delete on workspaces
    for each row execute function note_workspace_change();

create function note_spend_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('workspace', new.workspace_id::text);
    return null;
end $$;

create trigger liveness_spend_changed after update on liveness
    for each row when (old.monthly_spend is distinct from new.monthly_spend) execute function note_spend_change();

create trigger liveness_spend_began after insert on liveness
    for each row when (new.monthly_spend > 0) execute function note_spend_change();

create function note_token_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('token', encode(coalesce(new.hash, old.hash), 'hex'));
    return null;
end $$;

create trigger tokens_changed after insert or update or delete on tokens
    for each row execute function note_token_change();
