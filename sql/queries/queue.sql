-- Calls that wait for a busy agent. Their order is (priority desc, turn, seq). A call's turn is one after its lane's last
-- one, waiting or out, and no earlier than the turn that is under way: a lane with a thousand calls waits with its second
-- for everybody's first.

-- name: hold
-- No row: the message has a call already, the queue is full, or the workspace is gone. Whoever writes at the same moment
-- may put it one over.
with depth as (
    select count(*)::int as before from calls where workspace_id = %(workspace_id)s and state = 'queued'
), out as (
    select max(turn) as turn, max(turn) filter (where lane = %(lane)s) as own from calls
     where workspace_id = %(workspace_id)s and state = 'dispatched' and claim is not null
       and (kind = 'queued' or busy > 0) and priority = %(priority)s
)
insert into calls (id, kind, state, workspace_id, caller_id, method, body, message_key, message_words, priority, lane,
                   turn, outgoing, busy, last_error, not_before, expires_at)
select %(id)s, %(kind)s, %(state)s, w.id, %(caller_id)s, %(method)s, %(body)s,
       decode(%(key)s, 'hex'), decode(%(words)s, 'hex'), %(priority)s, %(lane)s,
       greatest((select c.turn + 1 from calls c
                  where c.workspace_id = w.id and c.state = 'queued' and c.lane = %(lane)s
                    and c.priority = %(priority)s
                  order by c.turn desc limit 1),
                out.own + 1,
                least((select c.turn from calls c
                        where c.workspace_id = w.id and c.state = 'queued' and c.priority = %(priority)s
                        order by c.turn limit 1),
                      out.turn),
                0),
       %(outgoing)s, 1, %(error)s, now() + make_interval(secs => %(delay_s)s),
       now() + make_interval(secs => %(lives_s)s)
  from workspaces w cross join depth cross join out
 where w.id = %(workspace_id)s and w.status <> 'removed' and depth.before < %(room)s
    on conflict (message_key) where message_key is not null do nothing
returning (select before + 1 from depth) as depth, expires_at;

-- name: claim
-- The next ones, as many as the workspace may work on besides those that are out of the queue already (a delegation that
-- never waited is not, nor is one that its agent has answered). While the first one backs off there is none, unless it
-- was the agent that was busy, and that is said to be free (eager).
-- Two statements in one turn, and so in one transaction, until whose end nobody else claims calls of this workspace: two
-- that count at once would both find room. The second one sees what whoever had the lock before has written.
select pg_advisory_xact_lock(hashtextextended('calls.queue ' || %(workspace_id)s, 0));
with first as (
    select not_before, last_error from calls
     where workspace_id = %(workspace_id)s and state = 'queued' and called_off_at is null
     order by priority desc, turn, seq limit 1
), room as (
    select least(%(limit)s, w.max_concurrent_tasks - (
               select count(*) from calls
                where workspace_id = %(workspace_id)s and state = 'dispatched' and claim is not null
                  and (kind = 'queued' or busy > 0) and id <> all(%(answered)s::uuid[]))) as places
      from workspaces w cross join first
     where w.id = %(workspace_id)s
       and (first.not_before is null or first.not_before <= now()
            or (%(eager)s and first.last_error = %(agent_busy)s))
), chosen as materialized (
    select id from calls
     where workspace_id = %(workspace_id)s and state = any(%(sources)s) and state = 'queued' and expires_at > now()
       and called_off_at is null
     order by priority desc, turn, seq
     limit greatest(0, coalesce((select places from room), 0))
       for update skip locked
)
update calls c
   set state = %(to)s, claim = gen_random_uuid(), lease_until = now() + make_interval(secs => %(lease_s)s),
       dispatched_at = null
  from chosen
 where c.id = chosen.id
returning c.*, extract(epoch from c.expires_at - now())::float8 as left_s;

-- name: mark_sent
-- It is about to go out: from now on nobody knows whether its agent has it. No row: it is not this one's any more.
update calls set dispatched_at = now()
 where id = %(id)s and claim = %(claim)s and state = 'dispatched'
returning id;

-- name: renew
update calls set lease_until = now() + make_interval(secs => %(lease_s)s)
 where id = any(%(ids)s::uuid[]) and claim = any(%(claims)s::uuid[]) and state in ('pending', 'dispatched');

-- name: put_back
-- Its agent has not got it: it takes its old place.
update calls
   set state = %(to)s, claim = null, lease_until = null, dispatched_at = null,
       not_before = now() + make_interval(secs => %(delay_s)s), busy = busy + %(busy)s,
       attempts = attempts + %(attempts)s, last_error = %(error)s
 where id = %(id)s and claim = %(claim)s and state = any(%(sources)s)
returning id;

-- name: end
-- The one end of a call that was sent, or may not be sent any more.
update calls
   set state = %(to)s, ending = %(ending)s, answer = %(answer)s, answer_status = %(status)s,
       answer_headers = %(headers)s, last_error = %(error)s, attempts = attempts + %(attempts)s, ended_at = now(),
       claim = null, lease_until = null
 where id = %(id)s and claim = %(claim)s and state = any(%(sources)s)
returning *;

-- name: end_overdue
-- Those that have waited for as long as they may.
with chosen as materialized (
    select id from calls where state = 'queued' and expires_at <= now()
     order by expires_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now()
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: end_stale
-- Those that came longer ago than this.
with chosen as materialized (
    select id from calls where state = 'queued' and created_at <= now() - make_interval(secs => %(older_s)s)
     order by created_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now()
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: end_stale_of_one
-- The same, of those that wait for one workspace.
with chosen as materialized (
    select id from calls
     where workspace_id = %(workspace_id)s and state = 'queued'
       and created_at <= now() - make_interval(secs => %(older_s)s)
     order by created_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now()
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: end_called_off
-- Those that nobody wants and nobody has: they have come back, or their process is gone and did not send them.
with chosen as materialized (
    select id from calls
     where called_off_at is not null and ended_at is null
       and (claim is null or (lease_until <= now() and dispatched_at is null))
     order by called_off_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now(), claim = null, lease_until = null
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: end_lost
-- Those that were sent by a process that has not been heard of since: nobody knows what their agent has done.
with chosen as materialized (
    select id from calls
     where state = 'dispatched' and claim is not null and lease_until <= now() and dispatched_at is not null
     order by lease_until limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now(), claim = null, lease_until = null
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: free_lost
-- Those that such a process had, and certainly did not send.
with chosen as materialized (
    select id from calls
     where state = 'dispatched' and claim is not null and lease_until <= now() and dispatched_at is null
       and called_off_at is null
     order by lease_until limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, claim = null, lease_until = null
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.workspace_id;

-- name: list_waiting
-- The workspaces for which calls wait, one step of the index each, and whether the first of each may be sent now.
with recursive waiting (workspace_id) as (
    (select workspace_id from calls where state = 'queued' order by workspace_id limit 1)
    union all
    select (select c.workspace_id from calls c where c.state = 'queued' and c.workspace_id > waiting.workspace_id
             order by c.workspace_id limit 1)
      from waiting where waiting.workspace_id is not null
)
select waiting.workspace_id, coalesce(first.not_before <= now(), true) as due
  from waiting cross join lateral (
       select c.not_before from calls c
        where c.workspace_id = waiting.workspace_id and c.state = 'queued'
        order by c.priority desc, c.turn, c.seq limit 1) first;

-- name: position
-- How many wait before it, and itself; no row: it does not wait.
select (select count(*)::int from calls o
         where o.workspace_id = c.workspace_id and o.state = 'queued'
           and (o.priority > c.priority or (o.priority = c.priority and (o.turn, o.seq) <= (c.turn, c.seq)))) as position
  from calls c where c.id = %(id)s and c.workspace_id = %(workspace_id)s and c.state = 'queued';

-- name: list_line
-- What waits for a workspace and what is out of its queue, in one order, after a place. The bodies stay where they are.
select * from (
    (select id, kind, state, caller_id, method, priority, turn, seq, attempts, busy, last_error, created_at,
            dispatched_at, expires_at, extract(epoch from now() - created_at)::float8 as age_s,
            (row_number() over (order by priority desc, turn, seq)
             + (select count(*) from calls o
                 where o.workspace_id = %(workspace_id)s and o.state = 'queued' and o.priority >= %(priority)s
                   and (o.priority > %(priority)s or (o.turn, o.seq) <= (%(turn)s, %(seq)s))))::int as position
       from calls
      where workspace_id = %(workspace_id)s and state = 'queued' and priority <= %(priority)s
        and (priority < %(priority)s or (turn, seq) > (%(turn)s, %(seq)s))
      order by priority desc, turn, seq limit %(limit)s)
    union all
    (select id, kind, state, caller_id, method, priority, turn, seq, attempts, busy, last_error, created_at,
            dispatched_at, expires_at, extract(epoch from now() - created_at)::float8, null
       from calls
      where workspace_id = %(workspace_id)s and state = 'dispatched' and claim is not null
        and (kind = 'queued' or busy > 0) and priority <= %(priority)s
        and (priority < %(priority)s or (turn, seq) > (%(turn)s, %(seq)s))
      order by priority desc, turn, seq limit %(limit)s)) line
 order by priority desc, turn, seq limit %(limit)s;
