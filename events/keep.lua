-- Keeps the whole of a payload that is too large for the journal, for a while, and lets go of the oldest when all of them
-- together take too much. Answers 1, or 0 if it was kept before: a batch is sent again when its answer was lost.
-- KEYS: the whole, the list of those that are kept (name and size, oldest first), the sum of their sizes.
-- ARGV: the bytes, seconds to keep them, bytes that all may take together.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local size, most = #ARGV[1], tonumber(ARGV[3])
local kept = tonumber(redis.call('GET', KEYS[3]) or 0) + size
while kept > most do
    local oldest = redis.call('LPOP', KEYS[2])
    if not oldest then
        kept = size
        break
    end
    local name, bytes = string.match(oldest, '^(.*) (%d+)$')
    redis.call('DEL', name)
    kept = kept - tonumber(bytes)
end
redis.call('RPUSH', KEYS[2], KEYS[1] .. ' ' .. size) -- first: what is not in the list would never be counted
redis.call('SET', KEYS[3], kept)
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
-- both go with the last of what they count
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
return 1
