-- Stores new jobs, all or none. An id that exists is left as it is.
-- KEYS: queue
-- ARGV: now, then per job: id, delay (µs), the rest of its input record
-- returns per job { 1, state, created_at, run_at } when it was created, 0 instead of 1 when it was there already, { 2 } when
--         what was there cannot be read
local rank = tonumber(redis.call('HGET', QUEUE, 'rank')) or 0
local answers, fresh_lines, stored = {}, {}, false
for n = 2, #ARGV, 3 do
    local id, delay, rest = ARGV[n], tonumber(ARGV[n + 1]), ARGV[n + 2]
    -- The rank is the order of creation: unique in a queue and growing, whatever the clock does.
    local mine = math.max(now, rank + 1)
    local created = math.max(now, mine - 4294967295)
    local record = struct.pack('>BI7I4', 1, created, mine - created) .. rest
    if redis.call('HSETNX', JOBS, id, record) == 1 then
        rank, stored = mine, true
        local state, run_at = QUEUED, created
        local prio, length = rest:byte(1), rest:byte(8)
        local name = rest:sub(9, 8 + length)
        if delay == 0 then
            push(fresh_lines, prio .. 'f' .. name, struct.pack('>I8', mine) .. id)
            count(name, QUEUED, 1)
        else
            local s = fresh(record)
            state, run_at = SCHEDULED, now + delay
            s.state, s.run_at = state, run_at
            enter(id, s)
        end
        answers[#answers + 1] = { 1, state, created, run_at }
    else
        local s, there = find(id), redis.call('HGET', JOBS, id)
        answers[#answers + 1] = s and #there > 8 and { 0, s.state, struct.unpack('>I7', there, 2), s.run_at } or { 2 }
    end
end
if stored then
    for line, entries in pairs(fresh_lines) do
        each_chunk(entries, 'RPUSH', LINE .. line)
        redis.call('ZADD', HEADS, 'NX', struct.unpack('>I8', entries[1]) - STEP * tonumber(line:sub(1, 1)), line)
    end
    redis.call('HSET', QUEUE, 'rank', rank)
    flush()
    announce('wj')
end
return answers
