-- Whether another replica has taken over a call of this one: its record is there, and it is not among this one's calls.
--
-- KEYS: 1 the call, 2 the calls of this replica. ARGV: 1 the call's id.
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
    return 1
end
return 0
