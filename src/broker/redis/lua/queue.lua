-- How a queue stands.
-- KEYS: queue
-- ARGV: now
-- returns: 1 when it is paused, else 0; counts (state and name, number, …); since when the first in line is ready (-1: none
--          waits); jobs quarantined; now; runs of each worker (worker, number, …)
local LOOK = 100
local since = -1
local heads = redis.call('ZRANGE', HEADS, 0, 0)
if heads[1] then
    local line = heads[1]
    local key = LINE .. line
    if line:sub(2, 2) == 'f' then
        -- The first ones may be gone.
        for _, entry in ipairs(redis.call('LRANGE', key, 0, LOOK - 1)) do
            local id = entry:sub(9)
            local record = redis.call('HGET', JOBS, id)
            if record and redis.call('HEXISTS', STATES, id) == 0 then
                since = struct.unpack('>I7', record, 2)
                break
            end
        end
    else
        local s = find(redis.call('ZRANGE', key, 0, 0)[1])
        since = s and s.run_at or -1
    end
end
local kept = redis.call('HMGET', QUEUE, 'paused', 'quarantined')
return { kept[1] and 1 or 0, redis.call('HGETALL', COUNTS), since, tonumber(kept[2]) or 0, now, redis.call('HGETALL', BUSY) }
