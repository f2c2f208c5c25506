-- The processes that are running: each renews its row; one that stops doing so is buried by a survivor.

create table instances (
    id          uuid primary key,
    lease_until timestamptz not null,
    -- whether events of this process were waiting for Redis when it last said something
    unpublished boolean not null default false,
    started_at  timestamptz not null default now()
);
