-- Tokens of the organisation, sessions of browsers, and the codes of one-time links.

-- A token without a workspace is the organisation's: one deployment is one organisation.
alter table tokens alter column workspace_id drop not null;
alter table tokens add column name text check (length(name) between 1 and 200);
-- written in batches, a minute late
alter table tokens add column last_used_at timestamptz;

create table sessions (
    id         uuid primary key default gen_random_uuid(),
    -- SHA-256 of what the cookie holds
    hash       bytea not null unique check (length(hash) = 32),
    -- what it was opened with, and ends with: an organisation's token, or the operator's (its SHA-256)
    token_id   uuid references tokens (id) on delete cascade,
    admin_hash bytea,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at   timestamptz,
    check ((token_id is null) <> (admin_hash is null))
);

create index sessions_token on sessions (token_id) where token_id is not null;
create index sessions_expiry on sessions (expires_at);

-- What `a2a-gateway login` prints; each opens one session of the operator.
create table login_codes (
    hash       bytea primary key check (length(hash) = 32),
    admin_hash bytea not null,
    expires_at timestamptz not null,
    used_at    timestamptz
);

alter table changes drop constraint changes_kind_check;
alter table changes add constraint changes_kind_check check (kind in ('workspace', 'token', 'session'));

create function note_session_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('session', encode(coalesce(new.hash, old.hash), 'hex'));
    return null;
end $$;

create trigger sessions_changed after insert or update or delete on sessions
    for each row execute function note_session_change();

-- The sessions that a token opened end with it.
create or replace function note_token_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('token', encode(coalesce(new.hash, old.hash), 'hex'));
    if tg_op = 'UPDATE' then
        insert into changes (kind, key) select 'session', encode(hash, 'hex') from sessions where token_id = new.id;
    end if;
    return null;
end $$;

-- That a token was used is no change of what it may do.
drop trigger tokens_changed on tokens;
create trigger tokens_changed after insert or delete on tokens
    for each row execute function note_token_change();
create trigger tokens_revoked after update on tokens
    for each row when (old.revoked_at is distinct from new.revoked_at
                       or old.workspace_id is distinct from new.workspace_id or old.hash is distinct from new.hash)
    execute function note_token_change();
