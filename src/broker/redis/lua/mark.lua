-- Tells a worker that one of its runs is to be cancelled.
-- KEYS: registry
-- ARGV: now, worker, job id, token and queue of the run
-- returns: 1, or 0 when there is no such worker
if not redis.call('ZSCORE', LEASES, ARGV[2]) then
    return 0
end
redis.call('HSET', MARKS .. ARGV[2], ARGV[3], ARGV[4])
redis.call('PUBLISH', WAKE, 'c')
return 1
