-- Holds the set of keeps against the lists of ended jobs that there are.
-- KEYS: queue
-- ARGV: now, 1 to repair, keeps of which there was a list
-- returns: those whose list is there and that are not in the set
local wrong = {}
for n = 3, #ARGV do
    local keep = ARGV[n]
    if redis.call('EXISTS', ENDED .. keep) == 1 and redis.call('SISMEMBER', KEEPS, keep) == 0 then
        wrong[#wrong + 1] = keep
        if ARGV[2] == '1' then
            redis.call('SADD', KEEPS, keep)
        end
    end
end
return wrong
