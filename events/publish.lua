-- Publishes a batch of events in order: into the journal those that are kept, and all to every process that listens.
-- What this publisher has published before is passed over, so that a batch whose answer was lost can be sent again.
-- A batch that was tried, and whose publisher is forgotten here, may have been heard before what it left was lost: it is
-- part of that loss, which is told in its place; nobody gets it twice.
-- It is done in whole or not at all: only the first write of a script can be refused. Answers the journal's last id.
-- KEYS: journal, the publisher's last sequence, the server that the journal knows.
-- ARGV: channel, length of the journal, this server's run id, the gap to write where the server is another one, the gap
--       to write where entries are gone, the last id that this publisher knows of, sequence of the first event, that of
--       the last one which was tried before (0: none); then for each event: keep (1 or 0), frame.
local head = 8
local day_s = 86400
local leap_ms = 10000
local first = tonumber(ARGV[7])
local last = first + (#ARGV - head) / 2 - 1
local stored = redis.call('GET', KEYS[2])
local seen = tonumber(stored or 0)
local from = math.max(first, seen + 1)
if not stored or seen < first - 1 then
    from = math.max(from, tonumber(ARGV[8]) + 1)
end
-- Refused for want of memory, this write is: before anything has been published that would be published again.
redis.call('SET', KEYS[2], seen, 'EX', day_s)
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = newest[1] and newest[1][1] or '0-0'

local function parts(id)
    local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(sequence)
end

local function is_before(one, other)
    local ms, sequence = parts(one)
    local other_ms, other_sequence = parts(other)
    return ms < other_ms or (ms == other_ms and sequence < other_sequence)
end

local function add(id, frame)
    local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], id, 'p', prev, 'f', frame)
    if type(added) == 'table' then
        return nil, added.err
    end
    return added, nil
end

local function publish(keep, frame, at)
    local id, refused = '-', nil
    if keep then
        id, refused = add(at or '*', frame)
        if refused and at then -- entries that were deleted had later ids still
            id, refused = add('*', frame)
        end
        if refused then
            error(refused)
        end
    end
    redis.call('PUBLISH', ARGV[1], '1 ' .. id .. ' ' .. prev .. ' ' .. frame)
    prev = keep and id or prev
end

-- An id later than any that was given to what is gone, by a clock that may have been fast and to entries that this
-- publisher may not have heard of yet: an id must never name two events.
local function later()
    local now = redis.call('TIME')
    return string.format('%.0f-0', math.max(tonumber(now[1]) * 1000, parts(prev), (parts(ARGV[6]))) + leap_ms)
end

-- Another server than the one that wrote the journal (a restart, a replica that was promoted) may have missed entries,
-- and nobody can tell: so it is said. A journal that ends before what this publisher knows of it has lost some.
local known = redis.call('GET', KEYS[3])
if known ~= ARGV[3] then
    if known or newest[1] then
        publish(true, ARGV[4], later())
    end
    redis.call('SET', KEYS[3], ARGV[3])
end
if is_before(prev, ARGV[6]) then
    publish(true, ARGV[5], later())
end
for sequence = from, last do
    local at = head + 2 * (sequence - first) + 1
    publish(ARGV[at] == '1', ARGV[at + 1])
end
redis.call('SET', KEYS[2], math.max(last, seen), 'EX', day_s)
return prev
