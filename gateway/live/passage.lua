-- What of a stream's journal comes behind an event: no more than so many bytes, but one entry if there is one.
--
-- XRANGE alone counts entries, which may be long: a reader would fetch all there are to take the first few.
--
-- KEYS: 1 the journal. ARGV: 1 the number of the event, 2 bytes, 3 how many entries at most.
local found, size, after, count = {}, 0, ARGV[1] .. '-0', 1
local bytes, most = tonumber(ARGV[2]), tonumber(ARGV[3])
while true do
    local entries = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', count)
    for _, entry in ipairs(entries) do
        size = size + #entry[2][2]
        if #found == most or (size > bytes and #found > 0) then
            return found
        end
        found[#found + 1] = entry
        after = entry[1]
    end
    if #entries < count then
        return found
    end
    count = math.min(2 * count, 32)
end
