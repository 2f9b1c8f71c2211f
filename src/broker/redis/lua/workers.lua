-- The workers on the list.
-- KEYS: registry
-- ARGV: now
-- returns per worker: { id, lease until, its card }
local found = {}
local leases = redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
for n = 1, #leases, 2 do
    found[#found + 1] = { leases[n], tonumber(leases[n + 1]), redis.call('HGET', WORKERS, leases[n]) or '' }
end
return found
