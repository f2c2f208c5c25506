-- A message whose call waits, told to a Redis that may have forgotten it. What it knows of that message counts, but for a
-- call after which the next one may be made: the ledger has that next one.
--
-- KEYS: 1 the claim. ARGV: 1 the call's id, 2 what it says, 3 how long to keep the claim (ms).
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[1], 'again') ~= '1' then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'call', ARGV[1], 'words', ARGV[2], 'replica', '', 'again', 'waits')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
