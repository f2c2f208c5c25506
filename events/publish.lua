-- Publishes one event: into the journal if it is kept, and to every process that listens. Answers its id, or the
-- journal's last id for one that is not kept, or '' for one that this publisher has published before.
-- KEYS: journal, the publisher's last sequence. ARGV: channel, sequence, keep (1 or 0), length of the journal, frame.
local seen = redis.call('GET', KEYS[2])
if seen and tonumber(seen) >= tonumber(ARGV[2]) then
    return ''
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', 3600)
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = newest[1] and newest[1][1] or '0-0'
if ARGV[3] == '1' then
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'p', prev, 'f', ARGV[5])
    redis.call('PUBLISH', ARGV[1], '1 ' .. id .. ' ' .. prev .. ' ' .. ARGV[5])
    return id
end
redis.call('PUBLISH', ARGV[1], '1 - ' .. prev .. ' ' .. ARGV[5])
return prev
