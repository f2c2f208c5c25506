drop index calls_message;
alter table calls drop column message_key, drop column message_words;
