-- What a queue counts of itself, with a mark that is another one after any claim, end or new job. With the mark of before, and
-- only if it is still that: sets the counts.
-- KEYS: queue
-- ARGV: now, mark or '', how many counts, state and name, number, …; how many workers, worker, number, …; bytes
-- returns: the mark; counts (state and name, number, …); runs (worker, number, …); bytes of ended jobs; 1 when they were set
local function sorted(key)
    local flat, pairs_of = redis.call('HGETALL', key), {}
    for n = 1, #flat, 2 do
        pairs_of[#pairs_of + 1] = flat[n] .. '=' .. flat[n + 1]
    end
    table.sort(pairs_of)
    return table.concat(pairs_of, ' ')
end
local kept = redis.call('HMGET', QUEUE, 'rank', 'bytes')
local mark = redis.sha1hex(table.concat({ kept[1] or '', kept[2] or '', sorted(COUNTS), sorted(BUSY), sorted(CLAIMS),
    redis.call('HLEN', JOBS), redis.call('HLEN', STATES) }, ' '))
local set = 0
if ARGV[2] ~= '' and ARGV[2] == mark then
    set = 1
    local at = 3
    for _, key in ipairs({ COUNTS, BUSY }) do
        local count = tonumber(ARGV[at])
        redis.call('DEL', key)
        for n = at + 1, at + 2 * count, 2 do
            redis.call('HSET', key, ARGV[n], ARGV[n + 1])
        end
        at = at + 1 + 2 * count
    end
    redis.call('HSET', QUEUE, 'bytes', ARGV[at])
end
return { mark, redis.call('HGETALL', COUNTS), redis.call('HGETALL', BUSY), tonumber(kept[2]) or 0, set }
