-- name: record
-- A batch of rows, the usage they report and the calls that have ended with them, together and once: a batch sent again
-- after a lost reply counts nothing twice.
with given as (
    select r.* from jsonb_to_recordset(%(rows)s) as r (
        id uuid, workspace_id uuid, call_id uuid, activity_type text, source_id uuid, target_id uuid, method text,
        summary text, status text, duration_ms bigint, error_detail text, request_body jsonb, response_body jsonb,
        metadata jsonb, age_s double precision, calls bigint, input_tokens bigint, output_tokens bigint,
        millionths bigint, call jsonb)
      join workspaces w on w.id = r.workspace_id
), kept as (
    insert into calls (id, kind, state, ending, workspace_id, caller_id, method, body, attempts, journey, created_at,
                       dispatched_at, expires_at, ended_at)
    select g.call_id, 'push', c.state, c.ending, g.workspace_id, g.source_id, coalesce(g.method, ''), '',
           (c.journey ->> 'attempts')::integer, c.journey, b.at, b.at,
           b.at + make_interval(secs => (c.journey ->> 'limit_s')::float8), now() - make_interval(secs => g.age_s)
      from given g
     cross join lateral jsonb_to_record(g.call) as c (state text, ending text, journey jsonb)
     cross join lateral (select now() - make_interval(secs => g.age_s + g.duration_ms / 1000.0) as at) b
     where g.call is not null
    on conflict (id) do nothing
), written as (
    insert into activity (id, workspace_id, call_id, activity_type, source_id, target_id, method, summary, status,
                          duration_ms, error_detail, request_body, response_body, metadata, created_at)
    select id, workspace_id, call_id, activity_type, source_id, target_id, method, summary, status,
           duration_ms, error_detail, request_body, response_body, metadata, now() - make_interval(secs => age_s)
      from given
    on conflict (id) do nothing
    returning id
)
insert into usage as u (workspace_id, day, calls, input_tokens, output_tokens, millionths)
select workspace_id, (now() at time zone 'utc')::date, sum(calls), sum(input_tokens), sum(output_tokens),
       least(coalesce(sum(millionths), 0), 9e18)::bigint
  from given join written using (id)
 where calls > 0
 group by workspace_id
 order by workspace_id
on conflict (workspace_id, day) do update
   set calls = u.calls + excluded.calls, input_tokens = u.input_tokens + excluded.input_tokens,
       output_tokens = u.output_tokens + excluded.output_tokens,
       millionths = least(u.millionths::numeric + excluded.millionths, 9e18)::bigint;

-- name: end
-- What became of the calls whose rows these are, and what they used: in the target's history a call has one row, with its
-- own id, which was counted when it was written.
with ended as (
    update activity a
       set status = r.status, summary = r.summary, duration_ms = r.duration_ms, error_detail = r.error_detail,
           response_body = r.response_body
      from jsonb_to_recordset(%(rows)s) as r (
               id uuid, status text, summary text, duration_ms bigint, error_detail text, response_body jsonb,
               input_tokens bigint, output_tokens bigint, millionths bigint)
     where a.id = r.id
    returning a.workspace_id, r.input_tokens, r.output_tokens, r.millionths
)
insert into usage as u (workspace_id, day, input_tokens, output_tokens, millionths)
select workspace_id, (now() at time zone 'utc')::date, sum(input_tokens), sum(output_tokens),
       least(coalesce(sum(millionths), 0), 9e18)::bigint
  from ended
 where input_tokens + output_tokens > 0 or millionths > 0
 group by workspace_id
 order by workspace_id
on conflict (workspace_id, day) do update
   set input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
       millionths = least(u.millionths::numeric + excluded.millionths, 9e18)::bigint;

-- name: find_cursor
-- The place of a row in its workspace's history.
select xid, seq from activity where id = %(id)s and workspace_id = %(workspace_id)s;

-- name: list_newest
-- The newest first, in the order (xid, seq), and below the oldest transaction that is still open: every row that is yet to
-- come has a higher xid than all of these. By seq alone a reader would pass over the row of a transaction that drew its
-- number early and commits late.
select a.*, w.name as peer_name
  from activity a left join workspaces w
       on w.id = nullif(case when a.source_id is distinct from a.workspace_id then a.source_id else a.target_id end,
                        a.workspace_id)
 where a.workspace_id = %(workspace_id)s and a.xid < pg_snapshot_xmin(pg_current_snapshot())
   and (%(activity_type)s::text is null or a.activity_type = %(activity_type)s)
   and (%(by_people)s::boolean is null or (a.source_id is null) = %(by_people)s)
   and (%(peer_id)s::uuid is null or a.source_id = %(peer_id)s::uuid or a.target_id = %(peer_id)s::uuid)
   and (%(since_s)s::float8 is null or a.created_at > now() - make_interval(secs => %(since_s)s))
   and (%(before)s::timestamptz is null or a.created_at < %(before)s::timestamptz)
 order by a.xid desc, a.seq desc
 limit %(limit)s;

-- name: list_since
-- Those after a place, the oldest first; what list_newest says of the order is why no row is ever passed over here.
select a.*, w.name as peer_name
  from activity a left join workspaces w
       on w.id = nullif(case when a.source_id is distinct from a.workspace_id then a.source_id else a.target_id end,
                        a.workspace_id)
 where a.workspace_id = %(workspace_id)s and (a.xid, a.seq) > (%(xid)s::xid8, %(seq)s)
   and a.xid < pg_snapshot_xmin(pg_current_snapshot())
   and (%(activity_type)s::text is null or a.activity_type = %(activity_type)s)
   and (%(by_people)s::boolean is null or (a.source_id is null) = %(by_people)s)
   and (%(peer_id)s::uuid is null or a.source_id = %(peer_id)s::uuid or a.target_id = %(peer_id)s::uuid)
   and (%(since_s)s::float8 is null or a.created_at > now() - make_interval(secs => %(since_s)s))
   and (%(before)s::timestamptz is null or a.created_at < %(before)s::timestamptz)
 order by a.xid, a.seq
 limit %(limit)s;
