delete from calls where kind = 'delegation';
drop index calls_task_key, calls_delegations, calls_pending, calls_delegation_expiry, calls_out, calls_lease;
alter table calls drop column summary, drop column task_key, drop column result_id, drop column told;
