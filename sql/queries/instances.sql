-- name: renew
insert into instances (id, lease_until, unpublished)
values (%(id)s, now() + make_interval(secs => %(lease_s)s), %(unpublished)s)
on conflict (id) do update set lease_until = excluded.lease_until, unpublished = excluded.unpublished;

-- name: leave
delete from instances where id = %(id)s;

-- name: bury
-- Each dead process is buried by one survivor.
delete from instances where id in (
    select id from instances where lease_until < now() for update skip locked)
returning id, unpublished;
