-- Publishes one event: into the journal if it is kept, and to every process that listens. Answers its id, or the
-- journal's last id for one that is not kept, or '' for one that this publisher has published before.
-- An event is refused when the one before it in its batch was: taken now, it would hide that one from the retry.
-- KEYS: journal, the publisher's last sequence.
-- ARGV: channel, sequence, sequence of the batch's first, keep (1 or 0), length of the journal, frame.
local seen = tonumber(redis.call('GET', KEYS[2]) or -1)
local sequence = tonumber(ARGV[2])
if seen >= sequence then
    return ''
end
if sequence ~= tonumber(ARGV[3]) and sequence ~= seen + 1 then
    return redis.error_reply('OUTOFORDER the event before this one has not been published')
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local prev = newest[1] and newest[1][1] or '0-0'
local id, answer = '-', prev
if ARGV[4] == '1' then
    id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'p', prev, 'f', ARGV[6])
    answer = id
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', 3600)
redis.call('PUBLISH', ARGV[1], '1 ' .. id .. ' ' .. prev .. ' ' .. ARGV[6])
return answer
