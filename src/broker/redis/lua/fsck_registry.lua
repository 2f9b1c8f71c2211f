-- Holds leases, cards and types against each other.
-- KEYS: registry
-- ARGV: now, 1 to repair
-- returns: faults (place, what, …)
local repair, faults = ARGV[2] == '1', {}
local function found(place, what)
    faults[#faults + 1] = place
    faults[#faults + 1] = what
end
for _, worker in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local card = redis.call('HGET', WORKERS, worker)
    if not card or #card < 15 then
        found('workers', 'the card of the worker ' .. worker .. ' is missing')
        if repair then
            redis.call('HSET', WORKERS, worker, struct.pack('>I7I4I4', now, 0, 0) .. 'unknown')
        end
    end
end
for _, worker in ipairs(redis.call('HKEYS', WORKERS)) do
    if not redis.call('ZSCORE', LEASES, worker) then
        found('workers', 'the worker ' .. worker .. ' has a card and no lease')
        if repair then
            redis.call('HDEL', WORKERS, worker)
            redis.call('DEL', MARKS .. worker, LOADED .. worker, REFUSED .. worker)
        end
    end
end
local types = redis.call('HGETALL', TYPES)
for n = 1, #types, 2 do
    local name, version = types[n], types[n + 1]:sub(9)
    if redis.call('HEXISTS', VERSIONS, name .. ' ' .. version) == 0 then
        found('types', 'the live version ' .. version .. ' of ' .. name .. ' is not known')
        if repair then
            -- Its workers make it known again when they next say what they have.
            redis.call('HDEL', TYPES, name)
            for _, worker in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
                redis.call('HDEL', LOADED .. worker, name)
            end
        end
    end
end
return faults
