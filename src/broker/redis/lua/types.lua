-- Every known type.
-- KEYS: registry
-- ARGV: now
-- returns: the live versions as JSON; per live worker { id, loaded (name, loaded_at and version, …), refused cards }
local live = {}
local types = redis.call('HGETALL', TYPES)
for n = 1, #types, 2 do
    live[#live + 1] = redis.call('HGET', VERSIONS, types[n] .. ' ' .. types[n + 1]:sub(9)) or ''
end
local workers = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '(' .. now, '+inf')) do
    workers[#workers + 1] = { worker, redis.call('HGETALL', LOADED .. worker), redis.call('HVALS', REFUSED .. worker) }
end
return { live, workers }
