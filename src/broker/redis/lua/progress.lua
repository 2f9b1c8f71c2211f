-- Notes how far a run is.
-- KEYS: queue
-- ARGV: now, id, token, the progress as JSON
-- returns: 1, or 0 when it is not its current run
local s = find(ARGV[2])
if not s or s.state ~= RUNNING or s.token ~= ARGV[3] then
    return 0
end
redis.call('HSET', PROGRESS, ARGV[2], ARGV[4])
announce('j')
return 1
