-- Feeds: events that an agent serves itself, and the one process that reads them for all. A release that does not know of
-- them leaves these columns and rows alone.

alter table workspaces
    add column events_url         text,
    -- when somebody last said so: a feed that was given up is tried again after that
    add column events_declared_at timestamptz;

create index workspaces_feeds on workspaces (id) where events_url is not null;

create table feeds (
    workspace_id  uuid primary key references workspaces (id) on delete cascade,
    -- somebody wants it until then, at least
    wanted_until  timestamptz not null,
    -- the process that reads it, and for how long nobody else does
    holder        uuid,
    lease_until   timestamptz,
    -- what was declared when it was taken
    url           text,
    declared_at   timestamptz,
    state         text not null default 'stopped'
                  check (state in ('connecting', 'live', 'backoff', 'gave_up', 'stopped')),
    reason        text,
    since         timestamptz not null default now(),
    -- given up: nobody takes it before this, unless it is declared anew
    not_before    timestamptz,
    -- where whoever takes it next goes on
    last_event_id text,
    events        bigint not null default 0
) with (fillfactor = 50);

-- What people see of a feed: nobody reads one whose lease has run out.
create view feeds_shown as
select workspace_id as feed_of, reason as feed_reason, since as feed_since, events as feed_events,
       case when state <> 'gave_up' and (lease_until is null or lease_until < now()) then 'stopped' else state end
           as feed_state
  from feeds;
