-- Whether a worker has a live lease.
-- KEYS: registry
-- ARGV: now, worker
-- returns: µs that its lease still lasts; 0 when it has none
local ends = tonumber(redis.call('ZSCORE', LEASES, ARGV[2]))
return ends and math.max(0, ends - now) or 0
