-- Holds what else there is of jobs against the jobs.
-- KEYS: queue
-- ARGV: now, 1 to repair, which (logs, past, progress: a cursor follows; log, files: ids of jobs follow)
-- returns: the next cursor ('0': the end); ids of those whose job is not there
local repair, which = ARGV[2] == '1', ARGV[3]
local cursor, ids = '0', {}
local hash = ({ logs = LOGS, past = PAST, progress = PROGRESS })[which]
if hash then
    local answer = redis.call('HSCAN', hash, ARGV[4], 'COUNT', 100)
    cursor = answer[1]
    for n = 1, #answer[2], 2 do
        ids[#ids + 1] = answer[2][n]
    end
else
    for n = 4, #ARGV do
        ids[#ids + 1] = ARGV[n]
    end
end
local gone = {}
for _, id in ipairs(ids) do
    local key = (which == 'log' and LOG or FILES) .. id
    if redis.call('HEXISTS', JOBS, id) == 0 and (hash or redis.call('EXISTS', key) == 1) then
        gone[#gone + 1] = id
        if repair then
            if hash then
                redis.call('HDEL', hash, id)
            else
                redis.call('UNLINK', key)
            end
        end
    end
end
return { cursor, gone }
