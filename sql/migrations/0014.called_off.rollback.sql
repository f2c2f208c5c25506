drop index calls_called_off;
alter table calls drop column called_off_at;
