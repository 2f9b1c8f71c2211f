-- Moves a job aside whose record nobody can read.
-- KEYS: queue
-- ARGV: now, id, why
-- returns: 1
local s = find(ARGV[2])
if s then
    leave(ARGV[2], s)
end
quarantine(ARGV[2], ARGV[3])
flush()
announce('j')
return 1
