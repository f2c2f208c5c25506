-- The ledger: every call whose outcome outlives its connection, written before it is acknowledged.

create table calls (
    -- the X-A2A-Call-ID, the id in the inbox, and that of the call's row in the target's history
    id            uuid primary key,
    -- the order of arrival
    seq           bigint generated always as identity,
    kind          text not null check (kind in ('push', 'parked', 'queued', 'delegation')),
    -- core/calls.py holds the table of moves; each move is one UPDATE that checks it
    state         text not null check (state in (
                      'pending', 'dispatched', 'streaming', 'parked', 'queued',
                      'completed', 'failed', 'cancelled', 'expired', 'interrupted')),
    ending        text,
    workspace_id  uuid not null references workspaces (id) on delete cascade,
    caller_id     uuid,
    method        text not null,
    -- the call and its answer, byte for byte
    body          bytea not null,
    answer        bytea,
    -- how often it was handed out or sent, and until when whoever has it now has it alone
    attempts      integer not null default 0,
    lease_until   timestamptz,
    -- how long its caller stays for the answer
    waits_until   timestamptz,
    created_at    timestamptz not null default now(),
    dispatched_at timestamptz,
    ended_at      timestamptz,
    expires_at    timestamptz not null,
    check ((ended_at is null) = (state in ('pending', 'dispatched', 'streaming', 'parked', 'queued'))),
    check ((ended_at is null) = (ending is null))
);

create index calls_inbox on calls (workspace_id, seq) where state = 'parked';
create index calls_expiry on calls (expires_at) where state in ('parked', 'dispatched') and kind = 'parked';

-- what a workspace says of a row that it has written itself
alter table activity add column metadata jsonb;

-- the order in which histories are read: (xid, seq), see sql/queries/activity.sql
create unique index activity_place on activity (workspace_id, xid, seq);
drop index activity_cursor;
