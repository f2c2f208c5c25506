-- name: renew
insert into instances (id, lease_until, unpublished, publisher, event_count)
values (%(id)s, now() + make_interval(secs => %(lease_s)s), %(unpublished)s, %(publisher)s, %(count)s)
on conflict (id) do update set
    lease_until = excluded.lease_until,
    unpublished = excluded.unpublished,
    publisher   = excluded.publisher,
    event_count = excluded.event_count;

-- name: leave
delete from instances where id = %(id)s;

-- name: find_alive
select publisher from instances where publisher = any(%(publishers)s) and lease_until >= now();

-- name: bury
-- Each dead process is buried by one survivor.
with dead as materialized (
    select id from instances where lease_until < now() for update skip locked
)
delete from instances i using dead where i.id = dead.id
returning i.id, i.unpublished, i.publisher, i.event_count;
