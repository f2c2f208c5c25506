alter table instances drop column event_count, drop column publisher;
