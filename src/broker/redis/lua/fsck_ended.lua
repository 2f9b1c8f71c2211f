-- Ended jobs that no list of expiring ones was seen to have. A job may have come to another list since it was looked at, so the
-- lists are searched for it once more, from the tail, where it would be.
-- KEYS: queue
-- ARGV: now, 1 to repair, keep (µs), then per job: id, finished_at (8 bytes)
-- returns: ids of those without a place
local wrong, keeps = {}, redis.call('SMEMBERS', KEEPS)
local function listed(entry)
    for _, keep in ipairs(keeps) do
        if redis.call('LPOS', ENDED .. keep, entry, 'RANK', -1) then
            return true
        end
    end
    return false
end
for n = 4, #ARGV, 2 do
    local id = ARGV[n]
    local raw = redis.call('HGET', STATES, id)
    local s = raw and read_state(raw)
    if s and s.state >= SUCCEEDED and struct.pack('>I8', s.finished) == ARGV[n + 1] and not listed(ARGV[n + 1] .. id) then
        wrong[#wrong + 1] = id
        if ARGV[2] == '1' then
            push(endings, ARGV[3], ARGV[n + 1] .. id)
        end
    end
end
flush()
return wrong
