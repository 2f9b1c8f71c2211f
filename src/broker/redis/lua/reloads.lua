-- The last request to look at the scripts again, and which one each worker has done.
-- KEYS: registry
-- ARGV: now
-- returns: { number of the request, { worker, number, … } }
local found = {}
for _, worker in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    found[#found + 1] = worker
    found[#found + 1] = tonumber(redis.call('HGET', RELOADS, worker) or '0')
end
return { tonumber(redis.call('HGET', RELOADS, '') or '0'), found }
