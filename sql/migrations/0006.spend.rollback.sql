drop function spend_of(uuid);
alter table liveness drop column monthly_spend_of;
alter table usage drop column millionths;
