-- A call that was let in, as its record has it; nothing where there is no record, or the call was not sent to an agent.
--
-- KEYS: 1 the call.
-- Answers {target, caller, method, age in ms, how long it may take in ms (-1: no end), how it travels, how it ended}.
local was = redis.call('HMGET', KEYS[1], 'target', 'caller', 'method', 'began', 'ends', 'journey', 'ended')
if not was[1] or (was[6] or '') == '' or was[7] == '1' then
    return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local ends = tonumber(was[5])
return {was[1], was[2], was[3], math.max(0, math.floor(now - was[4])), ends < 0 and -1 or math.floor(ends - was[4]),
        was[6], was[7] or ''}
