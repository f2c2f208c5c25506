-- name: horizon
-- Every transaction below this has ended: what it changed is visible.
select pg_snapshot_xmin(pg_current_snapshot())::text as horizon;

-- name: list_since
-- Rows of transactions that were not known to have ended at the last look: some may come twice, none is left out.
-- One row without an id when nothing changed, for the sake of its horizon.
select c.id, c.kind, c.key, s.horizon::text as horizon
  from (select pg_snapshot_xmin(pg_current_snapshot()) as horizon) s
  left join changes c on c.xid >= %(horizon)s::xid8
 order by c.id;

-- name: forget_old
delete from changes where at < now() - interval '1 hour';

-- name: call_off
-- Whoever has this call in its hands is to end it; to the others the row means nothing.
insert into changes (kind, key) values ('call', %(call_id)s);
