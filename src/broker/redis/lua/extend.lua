-- Gives a run more time.
-- KEYS: queue
-- ARGV: now, id, token, timeout (µs)
-- returns: 1, or 0 when it is not its current run
local s = find(ARGV[2])
if not s or s.state ~= RUNNING or s.token ~= ARGV[3] then
    return 0
end
s.deadline = now + tonumber(ARGV[4])
redis.call('HSET', STATES, ARGV[2], pack_state(s))
return 1
