-- name: park
-- No row: the message has a call already, the workspace's inbox is full, or the workspace is gone. Whoever writes at the
-- same moment may put it one over.
insert into calls (id, kind, state, workspace_id, caller_id, method, body, message_key, message_words, waits_until,
                   expires_at)
select %(id)s, %(kind)s, %(state)s, w.id, %(caller_id)s, %(method)s, %(body)s,
       decode(%(key)s, 'hex'), decode(%(words)s, 'hex'), now() + make_interval(secs => %(waits_s)s), now() + make_interval(secs => %(lives_s)s)
  from workspaces w
 where w.id = %(workspace_id)s and w.status <> 'removed'
   and not exists (select from calls c where c.workspace_id = w.id and c.state = 'parked'
                    order by c.seq offset %(room)s - 1 limit 1)
    on conflict (message_key) where message_key is not null do nothing
returning id;

-- name: find_same
-- The call that a message has: whether it says the same, and whether the same message may be a new call by now. One that
-- was called off has certainly not been taken as long as nobody had it.
select *, message_words = decode(%(words)s, 'hex') as same_words,
       coalesce(ending = any(%(undelivered)s) or (ending = any(%(called_off)s) and dispatched_at is null)
                or ended_at <= now() - make_interval(secs => %(kept_s)s), false) as over
  from calls
 where message_key = decode(%(key)s, 'hex');

-- name: forget_message
update calls set message_key = null where id = %(id)s;

-- name: list_waiting
-- The messages whose calls wait for busy agents or have been sent after they had, in one order, from a place on.
select id, encode(message_key, 'hex') as key, encode(message_words, 'hex') as words, expires_at,
       greatest(0, extract(epoch from expires_at - now()))::float8 as left_s
  from ((select id, message_key, message_words, expires_at from calls
          where state = 'queued' and message_key is not null
            and expires_at >= %(expires_at)s and (expires_at, id) > (%(expires_at)s, %(id)s)
          order by expires_at, id limit %(limit)s)
        union all
        (select id, message_key, message_words, expires_at from calls
          where state = 'dispatched' and kind = 'queued' and message_key is not null
            and expires_at >= %(expires_at)s and (expires_at, id) > (%(expires_at)s, %(id)s)
          order by expires_at, id limit %(limit)s)) living
 order by expires_at, id limit %(limit)s;

-- name: list_ledgered
-- Those whose end is written here, or will be, whatever becomes of the process that had them.
select id, greatest(0, extract(epoch from expires_at - now()))::float8 as left_s from calls
 where id = any(%(ids)s::uuid[]);

-- name: stay
-- One more caller stays for the answer.
update calls set waits_until = greatest(waits_until, now() + make_interval(secs => %(waits_s)s))
 where id = %(id)s and ended_at is null;

-- name: take
-- The oldest messages that nobody has, up to a number of bytes but one at least, for as long as the lease lasts. Who
-- takes at the same moment gets others.
with free as materialized (
    select id, seq, octet_length(body) as bytes from calls
     where workspace_id = %(workspace_id)s and state = 'parked' and expires_at > now()
       and (lease_until is null or lease_until <= now())
     order by seq limit %(limit)s
       for update skip locked
), chosen as (
    select id from (select id, sum(bytes) over (order by seq) - bytes as before from free) f
     where before < %(limit_bytes)s
)
update calls c
   set lease_until = now() + make_interval(secs => %(lease_s)s), attempts = attempts + 1,
       dispatched_at = coalesce(dispatched_at, now())
  from chosen
 where c.id = chosen.id
returning c.*;

-- name: next_free
-- In how many seconds the first lease on a message of this workspace runs out; null if there is none.
select extract(epoch from min(lease_until) - now())::float8 as next_s from calls
 where workspace_id = %(workspace_id)s and state = 'parked' and expires_at > now();

-- name: keep
-- The agent still works on it: the lease begins anew.
update calls set lease_until = now() + make_interval(secs => %(lease_s)s)
 where id = %(id)s and workspace_id = %(workspace_id)s and kind = any(%(kinds)s) and state = any(%(sources)s)
   and claim is null
returning id;

-- name: receive
-- The agent has it for good, and its caller waits for the answer: as long as it said, or whatever time a delegation has.
-- No row: nobody waits, or it is not in the inbox.
update calls set state = %(to)s, lease_until = null, dispatched_at = coalesce(dispatched_at, now())
 where id = %(id)s and workspace_id = %(workspace_id)s and state = any(%(sources)s)
   and (waits_until > now() or kind = 'delegation')
returning *;

-- name: end
-- The one end of a call; no row: it has ended already, or may not end so, or a process has sent it and waits for its end.
update calls set state = %(to)s, ending = %(ending)s, answer = %(answer)s, ended_at = now(), lease_until = null
 where id = %(id)s and workspace_id = %(workspace_id)s and kind = any(%(kinds)s) and state = any(%(sources)s)
   and claim is null
returning *;

-- name: end_overdue
-- Those in one state whose time is over; replicas that look at the same moment get others.
with chosen as materialized (
    select id from calls where state = %(state)s and kind = 'parked' and expires_at <= now()
     order by expires_at limit %(limit)s
       for update skip locked
)
update calls c set state = %(to)s, ending = %(ending)s, ended_at = now(), lease_until = null
  from chosen where c.id = chosen.id and c.state = any(%(sources)s)
returning c.*;

-- name: find
select * from calls where id = %(id)s and workspace_id = %(workspace_id)s;

-- name: call_off
-- It is not taken again, and whoever has it is told. To the other processes, and of a call that has ended, it means
-- nothing.
with marked as (
    update calls set called_off_at = coalesce(called_off_at, now())
     where id = %(id)s and workspace_id = %(workspace_id)s and outgoing is not null and ended_at is null
    returning id
)
insert into changes (kind, key) select 'call', id from marked;

-- name: forget_old
-- Those that ended longer ago than this; replicas that look at the same moment take away others.
delete from calls where id in (
       select id from calls where ended_at <= now() - make_interval(secs => %(kept_s)s)
        order by ended_at limit %(limit)s
          for update skip locked)
returning id;
