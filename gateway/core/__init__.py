"""Rules: plain functions and frozen values; no await, no clock, no I/O; no library but orjson."""
