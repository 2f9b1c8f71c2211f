-- Whether a run is current.
-- KEYS: queue
-- ARGV: now, id, token
-- returns: 1 or 0
local s = find(ARGV[2])
return s and s.state == RUNNING and s.token == ARGV[3] and 1 or 0
