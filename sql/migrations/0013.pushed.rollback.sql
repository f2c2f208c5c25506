delete from changes where kind = 'call';
alter table changes drop constraint changes_kind_check;
alter table changes add constraint changes_kind_check check (kind in ('workspace', 'token', 'session'));
drop index calls_ended;
delete from calls where kind = 'push';
alter table calls alter column expires_at set not null;
alter table calls drop column journey;
