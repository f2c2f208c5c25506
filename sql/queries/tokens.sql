-- name: lock_workspace
-- Serialises minting for one workspace, so that the limit of live tokens is exact.
select id from workspaces where id = %(workspace_id)s and status <> 'removed' for update;

-- name: lock_organisation
-- The same for the organisation's own.
select pg_advisory_xact_lock(hashtext('a2a-gateway:organisation-tokens'));

-- name: create
insert into tokens (workspace_id, hash, prefix, name)
values (%(workspace_id)s, %(hash)s, %(prefix)s, %(name)s) returning id;

-- name: count_live
select count(*) as live from tokens
 where workspace_id is not distinct from %(workspace_id)s and revoked_at is null;

-- name: list_live
select id, prefix, name, created_at, last_used_at from tokens
 where workspace_id is not distinct from %(workspace_id)s and revoked_at is null
 order by created_at, id;

-- name: revoke
update tokens set revoked_at = now()
 where id = %(id)s and workspace_id is not distinct from %(workspace_id)s and revoked_at is null
returning hash;

-- name: find_owner
-- The one question that decides for everybody: whose token is this, if it may still be used?
select t.id, t.workspace_id from tokens t left join workspaces w on w.id = t.workspace_id
 where t.hash = %(hash)s and t.revoked_at is null and (t.workspace_id is null or w.status <> 'removed');

-- name: note_used
update tokens set last_used_at = now() where hash = any(%(hashes)s::bytea[]);
