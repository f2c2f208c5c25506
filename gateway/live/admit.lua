-- Whether a request may go on, decided in one turn for all replicas: its rate, and if it is a call the depth of its
-- chain, the deadline it inherits, whether it is the same as an earlier one and the budget of its target; and if it may,
-- the record that it is under way.
--
-- KEYS: 1 bucket, 2 the call, 3 the call that it says it serves, 4 and the one that its trace says; 5 what its target
-- serves in this trace, 6 spend of the month, 7 what is reserved, by replica, 8 the calls of this replica, 9 the claim. ""
-- where there is none; a claim without a call is only looked at.
-- ARGV: 1 requests (0: as many as it likes) in 2 milliseconds; and for a call: 3 replica, 4 caller, 5 target,
-- 6 its own limit in ms (-1: none), 7 how long to keep its record without one, 8 the deepest chain, 9 its id, 10 its
-- trace, 11 its method, 12 what a replica's lease is called, 13 what it says and 14 how long to keep a claim after the
-- record (ms); and with a budget, in millionths of a cent: 15 limit, 16 spent by our prices as the database knows, 17 as
-- the workspace reports, 18 the least to reserve (-1: nothing at all), 19 how long to keep the month (ms).
-- Answers {verdict, remaining, ms until full, ms until the next, depth, ms that the call served has left (-1: none),
-- reserved}, and of an earlier call {.., id, what it says, "running", "waits", "lost" or "ended", again, status, headers, body}.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

-- The rate: a bucket kept as the one moment at which it will be full again.
local requests, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local remaining, full_in = 0, 0
if requests > 0 then
    local each = period / requests
    local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + each
    full_in = full_at - now
    if full_in > period then
        return {'rate', 0, math.ceil(full_in - each), math.ceil(full_in - period), 0, -1, 0}
    end
    redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_in))
    remaining = math.floor((period - full_in) / each + 1e-6)
end
local claim = KEYS[9] or ''
if KEYS[2] == '' and claim == '' then
    return {'yes', remaining, math.ceil(full_in), 0, 0, -1, 0}
end

-- The chain: only a call to the caller itself can be the one that it serves.
local depth, left = 1, -1
local caller = ARGV[4]
local before = redis.call('HGET', KEYS[2], 'depth')
if before then
    depth = tonumber(before) -- it has waited, and is as deep as it was: those above it may be forgotten by now
elseif caller ~= '' then
    local above, ends
    if KEYS[3] ~= '' then
        local served = redis.call('HMGET', KEYS[3], 'target', 'depth', 'ends', 'ended')
        if served[1] == caller and served[2] then
            above, ends = served[2], served[4] and -1 or served[3]
        end
    end
    if not above and KEYS[4] ~= '' then
        local served = redis.call('GET', KEYS[4])
        if served then
            above, ends = string.match(served, '^%S+ (%d+) (%S+)$')
        end
    end
    if above then
        depth = above + 1
        if tonumber(ends) >= 0 then
            left = math.max(0, ends - now)
        end
    end
    if depth > tonumber(ARGV[8]) then
        return {'deep', remaining, math.ceil(full_in), 0, depth, -1, 0}
    end
end

-- The claim: only one call has it. One after which others may be made is there for those that have waited for it.
if claim ~= '' then
    local was = redis.call('HMGET', claim, 'call', 'words', 'replica', 'again', 'status', 'headers', 'body')
    if was[1] and not (was[4] == '1' and KEYS[2] ~= '') then
        local stage = 'ended'
        if not was[4] then
            local lives = was[3] == ARGV[3] or redis.call('EXISTS', ARGV[12] .. was[3]) == 1
            stage = lives and 'running' or 'lost'
        elseif was[4] == 'waits' then
            stage = 'waits'
        end
        return {'same', remaining, math.ceil(full_in), 0, depth, math.floor(left), 0,
                was[1], was[2], stage, was[4] or '', was[5] or '', was[6] or '', was[7] or ''}
    end
    if KEYS[2] == '' then
        return {'yes', remaining, math.ceil(full_in), 0, 0, -1, 0}
    end
end

-- The budget: what is spent, and what calls under way may still spend; a call that is alone may always be made.
local reserved = 0
if ARGV[15] then
    local limit = tonumber(ARGV[15])
    local known = redis.call('HMGET', KEYS[6], 'spent', 'typical')
    local priced = math.max(tonumber(known[1] or 0), tonumber(ARGV[16]))
    local spent = math.max(priced, tonumber(ARGV[17]))
    reserved = tonumber(ARGV[18]) < 0 and 0 or math.max(tonumber(known[2] or 0), tonumber(ARGV[18]))
    local others = 0
    local by_replica = redis.call('HGETALL', KEYS[7])
    for at = 1, #by_replica, 2 do
        if by_replica[at] == ARGV[3] or redis.call('EXISTS', ARGV[12] .. by_replica[at]) == 1 then
            others = others + by_replica[at + 1]
        else
            redis.call('HDEL', KEYS[7], by_replica[at])
        end
    end
    if spent >= limit or (reserved > 0 and others > 0 and spent + others + reserved > limit) then
        return {'spent', remaining, math.ceil(full_in), 0, depth, -1, 0}
    end
    redis.call('HSET', KEYS[6], 'spent', string.format('%.0f', priced))
    redis.call('PEXPIRE', KEYS[6], ARGV[19])
    if reserved > 0 then
        redis.call('HINCRBY', KEYS[7], ARGV[3], string.format('%.0f', reserved))
        redis.call('PEXPIRE', KEYS[7], ARGV[19])
    end
end

local limit = tonumber(ARGV[6])
if left >= 0 and (limit < 0 or left < limit) then
    limit = left
end
local ends, keep = '-1', ARGV[7]
if limit >= 0 then
    ends, keep = string.format('%.0f', now + limit), math.ceil(limit) + 60000
end
redis.call('HDEL', KEYS[2], 'ended')
redis.call('HSET', KEYS[2], 'target', ARGV[5], 'caller', caller, 'replica', ARGV[3], 'depth', depth, 'ends', ends,
           'reserved', string.format('%.0f', reserved), 'trace', ARGV[10], 'method', ARGV[11],
           'began', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[2], keep)
if KEYS[8] ~= '' then
    redis.call('SADD', KEYS[8], ARGV[9])
    redis.call('PEXPIRE', KEYS[8], math.max(tonumber(ARGV[7]), tonumber(keep)))
end
-- Several calls to one target in one trace: what it starts may take as long as the longest of them.
local other = redis.call('GET', KEYS[5])
if other then
    local call, until_ = string.match(other, '^(%S+) %d+ (%S+)$')
    if call ~= KEYS[2] and redis.call('HEXISTS', call, 'ended') == 0 and redis.call('EXISTS', call) == 1 then
        ends = (ends == '-1' or until_ == '-1') and '-1' or string.format('%.0f', math.max(tonumber(ends), tonumber(until_)))
        keep = math.max(tonumber(keep), redis.call('PTTL', KEYS[5]))
    end
end
redis.call('SET', KEYS[5], string.format('%s %d %s', KEYS[2], depth, ends), 'PX', keep)
if claim ~= '' then
    redis.call('DEL', claim)
    redis.call('HSET', claim, 'call', ARGV[9], 'words', ARGV[13], 'replica', ARGV[3])
    redis.call('PEXPIRE', claim, keep + ARGV[14])
end
return {'yes', remaining, math.ceil(full_in), 0, depth, math.floor(left), reserved}
