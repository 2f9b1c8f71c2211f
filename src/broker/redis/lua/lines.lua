-- Lines of a job's log.
-- KEYS: queue
-- ARGV: now, id, the number of the line to go on after, how many at most
-- returns: {} when there is no such job, else { lines dropped, number of the first line given, lines }
local id, after, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('HEXISTS', JOBS, id) == 0 then
    return {}
end
local head = redis.call('HGET', LOGS, id)
if not head then
    return { 0, after + 1, {} }
end
local last, _, dropped = struct.unpack('>I7I7I7', head)
local first = last - redis.call('LLEN', LOG .. id) + 1
local from = math.max(after + 1, first)
return { dropped, from, redis.call('LRANGE', LOG .. id, from - first, from - first + limit - 1) }
