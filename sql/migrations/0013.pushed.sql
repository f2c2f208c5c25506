-- Calls that are sent to their agents: a row each, written in batches after their end.

-- how such a call travelled (core/journey.py); nothing asks for its parts
alter table calls add column journey jsonb;

-- a call without a limit lasts as long as it likes
alter table calls alter column expires_at drop not null;

-- calls that have ended are kept for a time
create index calls_ended on calls (ended_at) where ended_at is not null;

-- a call that somebody calls off, for the process that has it in its hands
alter table changes drop constraint changes_kind_check;
alter table changes add constraint changes_kind_check check (kind in ('workspace', 'token', 'session', 'call'));
