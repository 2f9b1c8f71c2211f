-- Reserves an idempotency key, or tells who has it.
-- KEYS: idempotency key
-- ARGV: now, the reservation, how long it holds (µs)
-- returns: the reservation that holds
local kept = redis.call('GET', KEY)
if kept and #kept > 8 and struct.unpack('>I8', kept) > now then
    return kept:sub(9)
end
local ttl = tonumber(ARGV[3])
redis.call('SET', KEY, struct.pack('>I8', now + ttl) .. ARGV[2], 'PX', math.ceil(ttl / 1000))
return ARGV[2]
