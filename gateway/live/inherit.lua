-- Takes over calls of a replica that has not renewed its lease: whoever runs this has them from now on, so that one that
-- dies in the middle of it leaves them to the next. They hold no budget any more.
--
-- KEYS: 1 all replicas, 2 the calls of the dead one, 3 those of the one that asks, 4 the lease of the dead one.
-- ARGV: 1 the dead one, 2 what records of calls begin with, 3 how many at most.
-- Answers {how many there were, then for each call that has not ended: {call, target, caller, method, trace, age in ms}}.
if redis.call('EXISTS', KEYS[4]) == 1 then
    return {0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local calls = redis.call('SRANDMEMBER', KEYS[2], ARGV[3])
local found = {#calls}
for _, call in ipairs(calls) do
    local record = ARGV[2] .. call
    local was = redis.call('HMGET', record, 'ended', 'target', 'caller', 'method', 'trace', 'began')
    if was[2] and not was[1] then
        redis.call('SMOVE', KEYS[2], KEYS[3], call)
        redis.call('HSET', record, 'reserved', 0)
        table.insert(found, {call, was[2], was[3], was[4], was[5], math.max(0, math.floor(now - was[6]))})
    else
        redis.call('SREM', KEYS[2], call)
    end
end
if #calls == 0 then
    redis.call('SREM', KEYS[1], ARGV[1])
end
return found
