-- Adds a file to a job's list, or replaces the one with its name.
-- KEYS: queue
-- ARGV: now, id, token, name, the file's card as JSON
-- returns: 1, or 0 when it is not its current run
local s = find(ARGV[2])
if not s or s.state ~= RUNNING or s.token ~= ARGV[3] then
    return 0
end
redis.call('HSET', FILES .. ARGV[2], ARGV[4], ARGV[5])
announce('j')
return 1
