-- name: record
-- A batch of rows and the usage they report, together and once: a batch sent again after a lost reply counts nothing twice.
with given as (
    select r.* from jsonb_to_recordset(%(rows)s) as r (
        id uuid, workspace_id uuid, call_id uuid, activity_type text, source_id uuid, target_id uuid, method text,
        summary text, status text, duration_ms bigint, error_detail text, request_body jsonb, response_body jsonb,
        age_s double precision, calls bigint, input_tokens bigint, output_tokens bigint,
        millionths bigint)
      join workspaces w on w.id = r.workspace_id
), written as (
    insert into activity (id, workspace_id, call_id, activity_type, source_id, target_id, method, summary, status,
                          duration_ms, error_detail, request_body, response_body, created_at)
    select id, workspace_id, call_id, activity_type, source_id, target_id, method, summary, status,
           duration_ms, error_detail, request_body, response_body, now() - make_interval(secs => age_s)
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
