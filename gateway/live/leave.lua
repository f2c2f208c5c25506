-- A call is over: its record stays for a while, so that what it has started is known to be below it; what was reserved
-- for it is free again, and what it cost is spent; who makes the same call gets its answer. Safe to repeat.
--
-- KEYS: 1 the call, 2 what its target serves in this trace, 3 spend of the month, 4 what is reserved ("" without budget),
-- 5 the calls of this replica, 6 its claim ("" without one).
-- ARGV: 1 replica, 2 cost (millionths of a cent), 3 how long to keep the record and 4 the month (ms), 5 the call's id;
-- and with a claim: 6 what it says, 7 how long to keep the claim (ms), 8 whether the next such call is made (1 or 0;
-- "waits": it has not ended, and the ledger has it), 9 status (0: the answer is not kept), 10 headers, 11 body.
redis.call('SREM', KEYS[5], ARGV[5])
if KEYS[6] ~= '' then
    local was = redis.call('HMGET', KEYS[6], 'call', 'again')
    -- Redis may have been away when the call began; and this may be told twice, the second time without the answer.
    local open = not was[2] or was[2] == 'waits'
    if (was[1] == ARGV[5] and open) or (not was[1] and ARGV[8] ~= '1') then
        redis.call('HSET', KEYS[6], 'call', ARGV[5], 'words', ARGV[6], 'replica', ARGV[1], 'again', ARGV[8])
        if ARGV[9] ~= '0' then
            redis.call('HSET', KEYS[6], 'status', ARGV[9], 'headers', ARGV[10], 'body', ARGV[11])
        end
        redis.call('PEXPIRE', KEYS[6], ARGV[7])
    end
end
local was = redis.call('HMGET', KEYS[1], 'ended', 'reserved', 'depth')
if was[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'ended', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local serving = redis.call('GET', KEYS[2])
if serving and string.match(serving, '^%S+') == KEYS[1] then
    redis.call('SET', KEYS[2], string.format('%s %d -1', KEYS[1], was[3] or 1), 'PX', ARGV[3])
end
if KEYS[3] ~= '' then
    local cost = tonumber(ARGV[2])
    if cost > 0 then
        local typical = tonumber(redis.call('HGET', KEYS[3], 'typical') or 0)
        local spent = tonumber(redis.call('HGET', KEYS[3], 'spent') or 0)
        redis.call('HSET', KEYS[3], 'spent', string.format('%.0f', math.min(spent + cost, 9e15)),
                   'typical', string.format('%.0f', math.max(cost, typical * 0.9)))
        redis.call('PEXPIRE', KEYS[3], ARGV[4])
    end
    local reserved = tonumber(was[2] or 0)
    if reserved > 0 and redis.call('HINCRBY', KEYS[4], ARGV[1], string.format('%.0f', -reserved)) <= 0 then
        redis.call('HDEL', KEYS[4], ARGV[1])
    end
end
return 1
