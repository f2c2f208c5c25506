-- Delegations are pending until they are sent for the first time. Afterwards they are calls like others: out with a claim
-- and a lease, or in the queue of a busy agent (queue.sql), or in an inbox (calls.sql).

-- name: create
-- No row: its key is in use, as many wait as may, or its target is gone. Whoever writes at the same moment may put it one
-- over.
insert into calls (id, kind, state, workspace_id, caller_id, method, body, priority, lane, outgoing, not_before,
                   expires_at, summary, task_key, result_id)
select %(id)s, %(kind)s, %(state)s, w.id, %(caller_id)s, %(method)s, %(body)s, %(priority)s, %(lane)s, %(outgoing)s,
       now(), now() + make_interval(secs => %(lives_s)s), %(summary)s, %(task_key)s, %(result_id)s
  from workspaces w
 where w.id = %(workspace_id)s and w.status <> 'removed'
   and (select count(*) from (select from calls c where c.workspace_id = w.id and c.state = %(state)s
                               limit %(room)s) new) < %(room)s
   and (select count(*) from (select from calls c where c.workspace_id = w.id and c.state = 'queued'
                               limit %(room)s) held) < %(room)s
    on conflict (caller_id, task_key)
       where task_key is not null and state in ('pending', 'dispatched', 'streaming', 'parked', 'queued', 'completed', 'interrupted')
       do nothing
returning id;

-- name: find_same
-- The one that has this key.
select * from calls
 where caller_id = %(caller_id)s and task_key = %(task_key)s
   and state in ('pending', 'dispatched', 'streaming', 'parked', 'queued', 'completed', 'interrupted');

-- name: record
-- One that its source has sent itself. No row: there is such an id, or its target is gone.
insert into calls (id, kind, state, workspace_id, caller_id, method, body, dispatched_at, expires_at, summary, result_id)
select %(id)s, %(kind)s, %(state)s, w.id, %(caller_id)s, %(method)s, %(body)s, now(),
       now() + make_interval(secs => %(lives_s)s), %(summary)s, %(result_id)s
  from workspaces w
 where w.id = %(workspace_id)s and w.status <> 'removed'
    on conflict (id) do nothing
returning id;

-- name: find
select * from calls where id = %(id)s and caller_id = %(caller_id)s and kind = 'delegation';

-- name: list_newest
-- Without the bodies, which are long; how an answer begins stands in the row of the result.
select c.id, c.state, c.told, c.workspace_id, c.caller_id, c.summary, c.ending, c.last_error, c.created_at,
       r.summary as preview
  from (select * from calls where caller_id = %(caller_id)s and kind = 'delegation'
         order by seq desc limit %(limit)s) c
  left join activity r on r.id = c.result_id
 order by c.seq desc;

-- name: tell
update calls set told = %(told)s
 where id = %(id)s and kind = 'delegation' and state = 'dispatched' and claim is null
returning *;

-- name: end
-- The end that somebody tells of who has it; no row: it has ended, or a process has it.
update calls
   set state = %(to)s, ending = %(ending)s, answer = %(answer)s, last_error = %(error)s, ended_at = now(),
       lease_until = null
 where id = %(id)s and kind = 'delegation' and claim is null and outgoing is null and state = any(%(sources)s)
returning *;

-- name: end_overdue
-- Those that were never sent, that nobody fetched, or of which nobody has told how they ended.
with chosen as (
    select id from calls
     where kind = 'delegation' and state in ('pending', 'parked', 'dispatched') and expires_at <= now()
       and (claim is null or state = 'pending' and lease_until <= now())
     order by expires_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now(), claim = null, lease_until = null
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: list_due
-- The workspaces for which some are to be sent now: never tried, put off until now, or left by a process that is gone.
select distinct workspace_id from calls
 where state = 'pending' and not_before <= now() and (lease_until is null or lease_until <= now())
   and expires_at > now() and called_off_at is null;

-- name: claim
-- The oldest of them. However many are out already: an agent that has no time says so itself.
with chosen as (
    select id from calls
     where workspace_id = %(workspace_id)s and state = 'pending' and not_before <= now()
       and (lease_until is null or lease_until <= now()) and expires_at > now() and called_off_at is null
     order by seq limit %(limit)s
       for update skip locked
)
update calls c set claim = gen_random_uuid(), lease_until = now() + make_interval(secs => %(lease_s)s)
  from chosen where c.id = chosen.id
returning c.*, extract(epoch from c.expires_at - now())::float8 as left_s;

-- name: mark_sent
-- It is about to go out: from now on nobody knows whether its agent has it. No row: it is not this one's any more. To say
-- it twice, since the reply was lost, changes nothing.
update calls set state = %(to)s, dispatched_at = now()
 where id = %(id)s and claim = %(claim)s and (state = any(%(sources)s) or state = %(to)s)
returning id;

-- name: put_off
-- It has not been sent: it waits for its first time on.
update calls
   set claim = null, lease_until = null, not_before = now() + make_interval(secs => %(delay_s)s),
       last_error = %(error)s
 where id = %(id)s and claim = %(claim)s and state = 'pending'
returning id;

-- name: wait
-- Its agent has not got it, and has no time: it takes a place in the queue, as if it came now (`hold` in queue.sql).
update calls c
   set state = %(to)s, claim = null, lease_until = null, dispatched_at = null,
       not_before = now() + make_interval(secs => %(delay_s)s), busy = c.busy + %(busy)s,
       attempts = c.attempts + %(attempts)s, last_error = %(error)s,
       turn = (select greatest((select o.turn + 1 from calls o
                                 where o.workspace_id = c.workspace_id and o.state = 'queued' and o.lane = c.lane
                                   and o.priority = c.priority
                                 order by o.turn desc limit 1),
                               max(out.turn) filter (where out.lane = c.lane) + 1,
                               least((select o.turn from calls o
                                       where o.workspace_id = c.workspace_id and o.state = 'queued'
                                         and o.priority = c.priority
                                       order by o.turn limit 1),
                                     max(out.turn)),
                               0)
                 from calls out
                where out.workspace_id = c.workspace_id and out.state = 'dispatched' and out.claim is not null
                  and (out.kind = 'queued' or out.busy > 0) and out.priority = c.priority and out.id <> c.id)
 where c.id = %(id)s and c.claim = %(claim)s and c.state = any(%(sources)s)
returning id;
