delete from calls where kind = 'queued';
drop index calls_queue, calls_queue_lane, calls_queue_expiry, calls_queue_age, calls_queue_sent, calls_queue_lease;
alter table calls
    drop column priority, drop column lane, drop column turn, drop column outgoing, drop column not_before,
    drop column busy, drop column claim, drop column last_error, drop column answer_status,
    drop column answer_headers;
