-- name: list_declared
-- The feeds of workspaces whose agent may be there; of these, or of all (null).
select w.id, w.events_url, w.events_declared_at,
       coalesce((w.runtime_metadata #> '{capabilities,feed_pinned}') = 'true'::jsonb, false) as pinned,
       coalesce(f.state = 'gave_up', false) as gave_up
  from workspaces w left join feeds f on f.workspace_id = w.id
 where w.events_url is not null and w.status = any(%(statuses)s)
   and (%(ids)s::uuid[] is null or w.id = any(%(ids)s::uuid[]));

-- name: want
-- Written when there is something to say: of many that want the same, each a turn, few write.
insert into feeds as f (workspace_id, wanted_until)
select w.id, now() + make_interval(secs => %(linger_s)s) from workspaces w
 where w.id = any(%(ids)s::uuid[]) and w.events_url is not null
 order by w.id
on conflict (workspace_id) do update set wanted_until = excluded.wanted_until
 where f.wanted_until < excluded.wanted_until - make_interval(secs => %(linger_s)s / 4);

-- name: claim
-- Whoever comes first has it alone until its lease runs out.
with free as (
    select f.workspace_id, w.events_url, w.events_declared_at, w.inbound_secret,
           case when f.url = w.events_url then f.last_event_id end as last_event_id
      from feeds f join workspaces w on w.id = f.workspace_id
     where w.events_url is not null and w.status = any(%(statuses)s)
       and f.wanted_until >= now()
       and (f.lease_until is null or f.lease_until < now())
       and (f.not_before is null or f.not_before <= now() or f.declared_at is distinct from w.events_declared_at)
       and f.workspace_id <> all(%(besides)s::uuid[])
     order by f.workspace_id
     limit %(limit)s
       for update of f skip locked
)
update feeds f
   set holder = %(holder)s, lease_until = now() + make_interval(secs => %(lease_s)s), url = free.events_url,
       declared_at = free.events_declared_at, last_event_id = free.last_event_id, not_before = null,
       state = 'connecting', reason = null, since = now()
  from free
 where f.workspace_id = free.workspace_id
returning f.workspace_id, f.url, f.declared_at, f.last_event_id, free.inbound_secret;

-- name: renew
-- A lease that has run out is renewed, too, while nobody else has taken it.
update feeds f
   set lease_until = now() + make_interval(secs => %(lease_s)s),
       since = case when f.state = r.state and f.reason is not distinct from r.reason then f.since else now() end,
       state = r.state, reason = r.reason, last_event_id = r.last_event_id, events = f.events + r.events
  from jsonb_to_recordset(%(reports)s) as r (
           workspace_id uuid, state text, reason text, last_event_id text, events bigint)
 where f.workspace_id = r.workspace_id and f.holder = %(holder)s
returning f.workspace_id, f.wanted_until >= now() as wanted;

-- name: release
update feeds f
   set holder = null, lease_until = null, since = now(), state = r.state, reason = r.reason,
       last_event_id = r.last_event_id, events = f.events + r.events,
       not_before = now() + make_interval(secs => r.rests_s)
  from jsonb_to_recordset(%(reports)s) as r (
           workspace_id uuid, state text, reason text, last_event_id text, events bigint, rests_s double precision)
 where f.workspace_id = r.workspace_id and f.holder = %(holder)s;
