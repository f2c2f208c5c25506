-- name: open
insert into sessions (hash, token_id, admin_hash, expires_at)
values (%(hash)s, %(token_id)s, %(admin_hash)s, now() + make_interval(secs => %(lasts_s)s));

-- name: find
-- Whose session is this, if it may still be used? One that a token opened ends with it.
select s.admin_hash, extract(epoch from s.expires_at - now())::float8 as left_s
  from sessions s left join tokens t on t.id = s.token_id
 where s.hash = %(hash)s and s.ended_at is null and s.expires_at > now()
   and (s.token_id is null or (t.revoked_at is null and t.workspace_id is null));

-- name: end
update sessions set ended_at = now() where hash = %(hash)s and ended_at is null;

-- name: forget_old
delete from sessions where expires_at < now() - interval '1 day';

-- name: forget_old_codes
delete from login_codes where expires_at < now() - interval '1 day';

-- name: create_code
insert into login_codes (hash, admin_hash, expires_at)
values (%(hash)s, %(admin_hash)s, now() + make_interval(secs => %(lasts_s)s));

-- name: claim_code
-- Each is good for one use, whichever replica it reaches.
update login_codes set used_at = now() where hash = %(hash)s and used_at is null and expires_at > now()
returning admin_hash;
