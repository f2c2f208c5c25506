create unique index activity_cursor on activity (workspace_id, seq desc);
drop index activity_place;
drop table calls;
alter table activity drop column metadata;
