-- name: create
insert into workspaces (
    id, name, role, template, model, tier, runtime, status, url, parent_id, delivery_mode,
    max_concurrent_tasks, budget_limit, workspace_dir, workspace_access, x, y, agent_auth)
values (
    %(id)s, %(name)s, %(role)s, %(template)s, %(model)s, %(tier)s, %(runtime)s, %(status)s, %(url)s, %(parent_id)s,
    %(delivery_mode)s, %(max_concurrent_tasks)s, %(budget_limit)s, %(workspace_dir)s, %(workspace_access)s,
    %(x)s, %(y)s, %(agent_auth)s)
on conflict (id) do nothing;

-- name: find
select w.*, l.last_heartbeat_at, l.active_tasks, l.current_task, l.error_rate, l.sample_error, l.uptime_seconds,
       l.runtime_state, s.*, f.*
  from workspaces w left join liveness l on l.workspace_id = w.id cross join lateral spend_of(w.id) s
       left join feeds_shown f on f.feed_of = w.id
 where w.id = %(id)s;

-- name: list
select w.*, l.last_heartbeat_at, l.active_tasks, l.current_task, l.error_rate, l.sample_error, l.uptime_seconds,
       l.runtime_state, s.*, f.*
  from workspaces w left join liveness l on l.workspace_id = w.id cross join lateral spend_of(w.id) s
       left join feeds_shown f on f.feed_of = w.id
 where w.status <> 'removed'
 order by w.created_at, w.id;

-- name: list_parents
select id, parent_id from workspaces where status <> 'removed';

-- name: move
-- One checked move of the status table in core/workspaces.py; no row: somebody else moved it first, or it may not.
update workspaces
   set status = %(to)s, updated_at = now(), removed_at = case when %(to)s = 'removed' then now() end
 where id = %(id)s and status = any(%(sources)s)
returning id;

-- name: register
-- Keeps what a removed workspace was; the status moves by itself, by `move`.
update workspaces
   set url = coalesce(%(url)s, url), agent_card = %(agent_card)s, delivery_mode = %(delivery_mode)s,
       inbound_secret = coalesce(inbound_secret, %(inbound_secret)s), updated_at = now(),
       events_url = coalesce(%(events_url)s, events_url),
       events_declared_at = case when coalesce(%(events_url)s, events_url) is not null then now() end
 where id = %(id)s and status <> 'removed'
returning inbound_secret;

-- name: update_card
update workspaces set agent_card = %(agent_card)s, updated_at = now()
 where id = %(id)s and status <> 'removed'
returning id;

-- name: update_runtime_metadata
update workspaces set runtime_metadata = %(runtime_metadata)s, updated_at = now()
 where id = %(id)s and status <> 'removed' and runtime_metadata is distinct from %(runtime_metadata)s::jsonb
returning id;

-- name: list_children
select id, name from workspaces where parent_id = %(id)s and status <> 'removed' order by created_at, id;

-- name: list_near
-- Its parent, its children and those beside it; two roots are beside each other.
with one as (
    select id, parent_id from workspaces where id = %(id)s
), near as (
    select w.id from workspaces w join one on w.id = one.parent_id
    union
    select w.id from workspaces w join one on w.parent_id = one.id
    union
    select w.id from workspaces w join one on w.parent_id = one.parent_id
    union
    select w.id from workspaces w join one on w.parent_id is null and one.parent_id is null
)
select w.*, l.last_heartbeat_at, l.active_tasks, l.current_task, l.error_rate, l.sample_error, l.uptime_seconds,
       l.runtime_state, s.*, f.*
  from near join workspaces w using (id) left join liveness l on l.workspace_id = w.id
       cross join lateral spend_of(w.id) s left join feeds_shown f on f.feed_of = w.id
 where w.id <> %(id)s and w.status <> 'removed'
   and strpos(lower(concat_ws(chr(10), w.name, w.role)), lower(%(search)s)) > 0
 order by w.created_at, w.id
 limit %(limit)s;

-- name: lock_hierarchy
-- Until the transaction ends nobody else moves or removes: two moves that are right by themselves make a circle together.
select pg_advisory_xact_lock(hashtextextended('workspaces.parent_id', 0));

-- name: find_place
-- Where a workspace would be below this parent; `union` ends the circles of old.
with recursive above (id, parent_id) as (
    select id, parent_id from workspaces where id = %(parent_id)s
    union
    select w.id, w.parent_id from workspaces w join above on w.id = above.parent_id
), below (id, depth) as (
    select id, 1 from workspaces where id = %(id)s
    union
    select w.id, below.depth + 1 from workspaces w join below on w.parent_id = below.id
     where w.status <> 'removed' and below.depth < 100
)
select exists (select from workspaces where id = %(parent_id)s and status <> 'removed') as parent_there,
       exists (select from above where id = %(id)s) as circular,
       (select count(*) from above)::int + coalesce((select max(depth) from below), 1) as depth;

-- name: edit
-- Only what was given; null may be given, too.
update workspaces
   set name = case when 'name' = any(%(given)s) then %(name)s else name end,
       role = case when 'role' = any(%(given)s) then %(role)s else role end,
       tier = case when 'tier' = any(%(given)s) then %(tier)s else tier end,
       parent_id = case when 'parent_id' = any(%(given)s) then %(parent_id)s else parent_id end,
       collapsed = case when 'collapsed' = any(%(given)s) then %(collapsed)s else collapsed end,
       runtime = case when 'runtime' = any(%(given)s) then %(runtime)s else runtime end,
       workspace_dir = case when 'workspace_dir' = any(%(given)s) then %(workspace_dir)s else workspace_dir end,
       x = case when 'x' = any(%(given)s) then %(x)s else x end,
       y = case when 'y' = any(%(given)s) then %(y)s else y end,
       url = case when 'url' = any(%(given)s) then %(url)s else url end,
       delivery_mode = case when 'delivery_mode' = any(%(given)s) then %(delivery_mode)s else delivery_mode end,
       budget_limit = case when 'budget_limit' = any(%(given)s) then %(budget_limit)s else budget_limit end,
       max_concurrent_tasks = case when 'max_concurrent_tasks' = any(%(given)s) then %(max_concurrent_tasks)s
                                   else max_concurrent_tasks end,
       events_url = case when 'events_url' = any(%(given)s) then %(events_url)s else events_url end,
       events_declared_at = case when 'events_url' = any(%(given)s) then now() else events_declared_at end,
       updated_at = now()
 where id = %(id)s and status <> 'removed'
returning id;

-- name: remove_tree
-- `union` ends a circle; who moves a workspace below this one at the same moment waits for its row.
with recursive tree (id) as (
    select id from workspaces where id = %(id)s
    union
    select w.id from workspaces w join tree on w.parent_id = tree.id
)
update workspaces w set status = 'removed', removed_at = now(), updated_at = now()
  from tree where w.id = tree.id and w.status <> 'removed'
returning w.id, w.name;

-- name: revoke_all
update tokens set revoked_at = now() where workspace_id = any(%(ids)s::uuid[]) and revoked_at is null;
