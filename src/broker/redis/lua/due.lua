-- Moves scheduled jobs whose time has come to `queued`, and forgets the last claims of workers that are gone.
-- KEYS: queue
-- ARGV: now, how many at most, then the live workers
-- returns: 1 when there are more, else 0
local alive = {}
for n = 3, #ARGV do
    alive[ARGV[n]] = true
end
local gone = {}
for _, worker in ipairs(redis.call('HKEYS', CLAIMS)) do
    if not alive[worker] then
        gone[#gone + 1] = worker
    end
end
if #gone > 0 then
    each_chunk(gone, 'HDEL', CLAIMS)
end
local limit = tonumber(ARGV[2])
local moved = make_due(limit)
if moved > 0 or quarantined > 0 then
    flush()
    announce('wj')
end
return moved == limit and 1 or 0
