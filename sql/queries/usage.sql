-- name: today
select calls, input_tokens, output_tokens from usage
 where workspace_id = %(workspace_id)s and day = (now() at time zone 'utc')::date;
