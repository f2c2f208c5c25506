-- Publishes a batch of events in order: into the journal those that are kept, and all to every process that listens.
-- What this publisher has published before is passed over, so that a batch whose answer was lost can be sent again.
-- It is done in whole or not at all: only the first write of a script can be refused. Answers the journal's last id.
-- KEYS: journal, the publisher's last sequence, the server that the journal knows.
-- ARGV: channel, length of the journal, this server's run id, the frame of a gap, sequence of the first event;
--       then for each event: keep (1 or 0), frame.
local head = 5
local first = tonumber(ARGV[5])
local last = first + (#ARGV - head) / 2 - 1
local seen = tonumber(redis.call('GET', KEYS[2]) or 0)
-- Refused for want of memory, this write is: before anything has been published that would be published again.
redis.call('SET', KEYS[2], seen, 'EX', 3600)
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = newest[1] and newest[1][1] or '0-0'

local function publish(keep, frame)
    local id = keep and redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'p', prev, 'f', frame) or '-'
    redis.call('PUBLISH', ARGV[1], '1 ' .. id .. ' ' .. prev .. ' ' .. frame)
    prev = keep and id or prev
end

-- Another server than the one that wrote the journal (a restart, a replica that was promoted, an emptied one) may have
-- missed entries, and nobody can tell: so it is said. One that knows nobody is new, unless this is not my first batch.
local known = redis.call('GET', KEYS[3])
if known ~= ARGV[3] then
    if known or newest[1] or first > 1 then
        publish(true, ARGV[4])
    end
    redis.call('SET', KEYS[3], ARGV[3])
end
for sequence = math.max(first, seen + 1), last do
    local at = head + 2 * (sequence - first) + 1
    publish(ARGV[at] == '1', ARGV[at + 1])
end
redis.call('SET', KEYS[2], math.max(last, seen), 'EX', 3600)
return prev
