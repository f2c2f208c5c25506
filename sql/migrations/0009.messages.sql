-- Who sends one message twice has made one call: which message of whom it is, and what it says (core/claims.py).
-- A call gives its key up when the same message may be a new call.
alter table calls
    add column message_key   bytea,
    add column message_words bytea;

create unique index calls_message on calls (message_key) where message_key is not null;
