drop view feeds_shown;
drop table feeds;
drop index workspaces_feeds;
alter table workspaces drop column events_url, drop column events_declared_at;
