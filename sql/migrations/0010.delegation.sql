-- Delegations: calls that one workspace leaves to the gateway, which are written before they are promised. A release that
-- does not know of them leaves those alone that were never sent.

alter table calls
    -- how the task begins, for people
    add column summary   text,
    -- the word under which its source asks for it once, however often it asks
    add column task_key  text,
    -- the row of its result in the history of its source: one id, so one row, whoever writes it
    add column result_id uuid,
    -- what its source says of a delegation that it has sent itself
    add column told      text;

create unique index calls_task_key on calls (caller_id, task_key)
    where task_key is not null and state in ('pending', 'dispatched', 'streaming', 'parked', 'queued', 'completed', 'interrupted');
create index calls_delegations on calls (caller_id, seq desc) where kind = 'delegation';
create index calls_pending on calls (workspace_id, seq) where state = 'pending';
create index calls_delegation_expiry on calls (expires_at)
    where kind = 'delegation' and state in ('pending', 'parked', 'dispatched');

-- what some process has out, whatever its kind; they stand beside calls_queue_sent and calls_queue_lease, which the
-- release before this one needs
create index calls_out on calls (workspace_id) where state = 'dispatched' and claim is not null;
create index calls_lease on calls (lease_until) where state = 'dispatched' and claim is not null;
