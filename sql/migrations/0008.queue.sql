-- The queue: calls that wait because their agent has said that it is busy. A release that does not know of it leaves these
-- rows alone.

alter table calls
    -- the order in which they are sent: the highest priority, then by turns, then as they came
    add column priority       smallint not null default 50,
    -- whose turn it is: calls of one lane go one after the other, lanes go by turns
    add column lane           text not null default '',
    add column turn           bigint not null default 0,
    -- how it goes out: its headers, and how long it may take
    add column outgoing       jsonb,
    -- it is not sent again before this, and how often its agent has been busy
    add column not_before     timestamptz,
    add column busy           integer not null default 0,
    -- whoever has it now; dispatched_at is null until it is about to be sent
    add column claim          uuid,
    add column last_error     text,
    -- what its caller gets beside the body in `answer`
    add column answer_status  smallint,
    add column answer_headers jsonb;

create index calls_queue on calls (workspace_id, priority desc, turn, seq) where state = 'queued';
create index calls_queue_lane on calls (workspace_id, lane, priority, turn desc) where state = 'queued';
create index calls_queue_expiry on calls (expires_at) where state = 'queued';
create index calls_queue_age on calls (created_at) where state = 'queued';
create index calls_queue_sent on calls (workspace_id) where state = 'dispatched' and kind = 'queued';
create index calls_queue_lease on calls (lease_until) where state = 'dispatched' and kind = 'queued';
