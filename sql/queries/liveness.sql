-- name: record
-- One statement for a batch of beats, one a workspace; ages are seconds before now, so that no replica's clock counts.
-- What was spent stays as it was when a beat does not say: it bounds a budget.
insert into liveness as l (workspace_id, last_heartbeat_at, last_sign_at, active_tasks, current_task, error_rate,
                           sample_error, uptime_seconds, monthly_spend, monthly_spend_of, runtime_state)
select b.workspace_id, now() - make_interval(secs => b.age_s),
       case when b.sign_age_s is not null then now() - make_interval(secs => b.sign_age_s) end,
       coalesce(b.active_tasks, 0), b.current_task, coalesce(b.error_rate, 0), b.sample_error,
       coalesce(b.uptime_seconds, 0), coalesce(b.monthly_spend, k.monthly_spend, 0),
       case when b.monthly_spend is null then k.monthly_spend_of
            else date_trunc('month', now() at time zone 'utc')::date end,
       b.runtime_state
  from jsonb_to_recordset(%(beats)s) as b (
           workspace_id uuid, age_s double precision, sign_age_s double precision, active_tasks integer,
           current_task text, error_rate double precision, sample_error text, uptime_seconds bigint,
           monthly_spend bigint, runtime_state text)
  join workspaces w on w.id = b.workspace_id and w.status <> 'removed'
  left join liveness k on k.workspace_id = b.workspace_id
 order by b.workspace_id
on conflict (workspace_id) do update
   set last_heartbeat_at = greatest(l.last_heartbeat_at, excluded.last_heartbeat_at),
       last_sign_at      = greatest(l.last_sign_at, excluded.last_sign_at),
       (active_tasks, current_task, error_rate, sample_error, uptime_seconds, monthly_spend, monthly_spend_of,
        runtime_state) = (
           -- a batch of another replica may have brought a newer beat before
           select n.active_tasks, n.current_task, n.error_rate, n.sample_error, n.uptime_seconds, n.monthly_spend,
                  n.monthly_spend_of, n.runtime_state
             from (select excluded.* union all select l.*) n
            order by n.last_heartbeat_at desc nulls last limit 1);

-- name: touch
-- A sign of life that is no heartbeat: a register, an update of the card.
insert into liveness as l (workspace_id, last_heartbeat_at, last_sign_at) values (%(workspace_id)s, now(), now())
on conflict (workspace_id) do update set last_heartbeat_at = now(), last_sign_at = now();

-- name: wait
-- Who waits for another one has shown life when it began to (age_s ago), and whenever that one has.
insert into liveness as l (workspace_id, last_sign_at)
select w.caller_id, max(greatest(now() - make_interval(secs => w.age_s), t.last_sign_at))
  from jsonb_to_recordset(%(waits)s) as w (caller_id uuid, target_id uuid, age_s double precision)
  join workspaces c on c.id = w.caller_id and c.status <> 'removed'
  left join liveness t on t.workspace_id = w.target_id
 group by w.caller_id
 order by w.caller_id
on conflict (workspace_id) do update set last_sign_at = greatest(l.last_sign_at, excluded.last_sign_at);

-- name: silence
-- How long these workspaces have been silent, in seconds, as far as the database knows.
select workspace_id, extract(epoch from now() - last_sign_at)::double precision as silent_s
  from liveness where workspace_id = any(%(ids)s::uuid[]) and last_sign_at is not null;

-- name: sign
-- These have shown life just now, each by an event of its own.
insert into liveness as l (workspace_id, last_sign_at)
select w.id, now() from workspaces w where w.id = any(%(ids)s::uuid[]) and w.status <> 'removed' order by w.id
on conflict (workspace_id) do update set last_sign_at = greatest(l.last_sign_at, excluded.last_sign_at);
