-- Registers a worker, or renews its lease.
-- KEYS: registry
-- ARGV: now, worker, lease (µs), host, pid, concurrency
-- returns: 0 when it is gone for good, else 1; its cancel marks (job id, token and queue, …)
local worker = ARGV[2]
if redis.call('ZSCORE', GONE, worker) then
    return { 0, {} }
end
redis.call('ZADD', LEASES, now + tonumber(ARGV[3]), worker)
local known = redis.call('HGET', WORKERS, worker)
local started = known and struct.unpack('>I7', known) or now
redis.call('HSET', WORKERS, worker, struct.pack('>I7I4I4', started, ARGV[5], ARGV[6]) .. ARGV[4])
return { 1, redis.call('HGETALL', MARKS .. worker) }
