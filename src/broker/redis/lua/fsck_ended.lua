-- Ended jobs that no list of expiring ones was seen to have. They had ended before the lists were read, and stand at the tail when
-- they end: who is still the same has no place.
-- KEYS: queue
-- ARGV: now, 1 to repair, keep (µs), then per job: id, finished_at (8 bytes)
-- returns: ids of those without a place
local wrong = {}
for n = 4, #ARGV, 2 do
    local id = ARGV[n]
    local raw = redis.call('HGET', STATES, id)
    local s = raw and read_state(raw)
    if s and s.state >= SUCCEEDED and struct.pack('>I8', s.finished) == ARGV[n + 1] then
        wrong[#wrong + 1] = id
        if ARGV[2] == '1' then
            push(endings, ARGV[3], ARGV[n + 1] .. id)
        end
    end
end
flush()
return wrong
