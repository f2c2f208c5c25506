-- Calls that somebody calls off while a process has them. A release that does not know of it sends such a call once more,
-- where its process has died before it sent it.

-- since when nobody wants it: whoever gets it back does not send it any more
alter table calls add column called_off_at timestamptz;

-- those of them that have not ended
create index calls_called_off on calls (called_off_at) where called_off_at is not null and ended_at is null;
