-- Numbers a request to look at the scripts again, or notes that a worker has done one.
-- KEYS: registry
-- ARGV: now, worker or '' for a request, the number that it has done
-- returns: the number of the request; for a worker 1, 0 when there is no such worker
local worker = ARGV[2]
if worker == '' then
    for _, known in ipairs(redis.call('HKEYS', RELOADS)) do
        if known ~= '' and not redis.call('ZSCORE', LEASES, known) then
            redis.call('HDEL', RELOADS, known)
        end
    end
    redis.call('PUBLISH', WAKE, 't')
    return redis.call('HINCRBY', RELOADS, '', 1)
end
if not redis.call('ZSCORE', LEASES, worker) then
    return 0
end
if tonumber(redis.call('HGET', RELOADS, worker) or '0') < tonumber(ARGV[3]) then
    redis.call('HSET', RELOADS, worker, ARGV[3])
end
redis.call('PUBLISH', WAKE, 't')
return 1
