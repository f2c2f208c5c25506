drop table usage, activity;
