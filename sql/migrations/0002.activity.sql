-- What happened, for people: one row a happening; and what it used, one row a workspace and day.

create table activity (
    id            uuid primary key,
    seq           bigint generated always as identity,
    xid           xid8 not null default pg_current_xact_id(),
    workspace_id  uuid not null references workspaces (id) on delete cascade,
    call_id       uuid,
    activity_type text not null check (activity_type in (
                      'a2a_send', 'a2a_receive', 'task_update', 'agent_log',
                      'skill_promotion', 'memory_write', 'error')),
    source_id     uuid,
    target_id     uuid,
    method        text,
    summary       text,
    status        text,
    duration_ms   bigint,
    error_detail  text,
    -- views for people: NUL stripped, numbers as doubles, cut when long
    request_body  jsonb,
    response_body jsonb,
    created_at    timestamptz not null default now()
);

create unique index activity_cursor on activity (workspace_id, seq desc);

create table usage (
    workspace_id  uuid not null references workspaces (id) on delete cascade,
    day           date not null,
    calls         bigint not null default 0,
    input_tokens  bigint not null default 0,
    output_tokens bigint not null default 0,
    primary key (workspace_id, day)
);
