-- Takes workers off the list, for ever: one that stops by itself, or all whose lease is over.
-- KEYS: registry
-- ARGV: now, worker or '', how long the ids of those that are gone are remembered (µs)
-- returns: those that went; those that live
local dead
if ARGV[2] ~= '' then
    dead = redis.call('ZSCORE', LEASES, ARGV[2]) and { ARGV[2] } or {}
else
    dead = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 1000)
end
local had_types = 0
for _, worker in ipairs(dead) do
    redis.call('ZREM', LEASES, worker)
    redis.call('ZADD', GONE, now, worker)
    redis.call('HDEL', WORKERS, worker)
    redis.call('DEL', MARKS .. worker)
    had_types = had_types + redis.call('DEL', LOADED .. worker, REFUSED .. worker)
end
redis.call('ZREMRANGEBYSCORE', GONE, '-inf', now - tonumber(ARGV[3]))
if had_types > 0 then
    redis.call('PUBLISH', WAKE, 'twj')
end
return { dead, redis.call('ZRANGE', LEASES, 0, -1) }
