drop trigger tokens_revoked on tokens;
drop trigger tokens_changed on tokens;
drop table login_codes, sessions cascade;
create or replace function note_token_change() returns trigger language plpgsql as $$
begin
    insert into changes (kind, key) values ('token', encode(coalesce(new.hash, old.hash), 'hex'));
    return null;
end $$;
create trigger tokens_changed after insert or update or delete on tokens
    for each row execute function note_token_change();
drop function note_session_change;
delete from changes where kind = 'session';
alter table changes drop constraint changes_kind_check;
alter table changes add constraint changes_kind_check check (kind in ('workspace', 'token'));
delete from tokens where workspace_id is null;
alter table tokens drop column last_used_at;
alter table tokens drop column name;
alter table tokens alter column workspace_id set not null;
