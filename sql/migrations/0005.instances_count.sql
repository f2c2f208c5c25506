-- Which events of a process waited for Redis, so that a survivor can ask whether they have arrived after all.

alter table instances
    -- under which name it publishes; empty where it does not say
    add column publisher text not null default '',
    -- how many events Redis has had of it once those that waited have arrived
    add column event_count bigint not null default 0;
