-- name: lock_workspace
-- Serialises minting for one workspace, so that the limit of live tokens is exact.
select id from workspaces where id = %(workspace_id)s and status <> 'removed' for update;

-- name: create
insert into tokens (workspace_id, hash, prefix) values (%(workspace_id)s, %(hash)s, %(prefix)s) returning id;

-- name: count_live
select count(*) as live from tokens where workspace_id = %(workspace_id)s and revoked_at is null;

-- name: find_owner
-- The one question that decides for everybody: whose token is this, if it may still be used?
select t.workspace_id from tokens t join workspaces w on w.id = t.workspace_id
 where t.hash = %(hash)s and t.revoked_at is null and w.status <> 'removed';
