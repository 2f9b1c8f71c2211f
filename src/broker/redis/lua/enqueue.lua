-- Stores new jobs, all or none. An id that exists is left as it is.
-- KEYS: queue
-- ARGV: now, then per job: id, delay (µs), the rest of its input record
-- returns per job four numbers: 1 when it was created, 0 when it was there already, 2 when what was there cannot be read; its
--         state, created_at, run_at
local rank = tonumber(redis.call('HGET', QUEUE, 'rank')) or 0
local ids, answers, fresh_lines, records, mine = {}, {}, {}, {}, {}
for n = 2, #ARGV, 3 do
    ids[#ids + 1] = ARGV[n]
end
local there = redis.call('HMGET', JOBS, unpack(ids))
for n, id in ipairs(ids) do
    local created, state, created_at, run_at
    if there[n] then
        local s = find(id)
        if s and #there[n] > 8 then
            created, state, created_at, run_at = 0, s.state, struct.unpack('>I7', there[n], 2), s.run_at
        else
            created, state, created_at, run_at = 2, 0, 0, 0
        end
    elseif mine[id] then
        created, state, created_at, run_at = 0, unpack(mine[id])
    else
        local delay, rest = ARGV[3 * n], ARGV[3 * n + 1]
        -- The rank is the order of creation: unique in a queue and growing, whatever the clock does.
        rank = math.max(now, rank + 1)
        created, state, created_at = 1, QUEUED, math.max(now, rank - 4294967295)
        run_at = created_at
        local record = struct.pack('>BI7I4', 1, created_at, rank - created_at) .. rest
        records[#records + 1] = id
        records[#records + 1] = record
        local prio, name = rest:byte(1), rest:sub(9, 8 + rest:byte(8))
        if delay == '0' then
            push(fresh_lines, prio .. 'f' .. name, struct.pack('>I8', rank) .. id)
            count(name, QUEUED, 1)
        else
            local s = fresh(record)
            state, run_at = SCHEDULED, now + tonumber(delay)
            s.state, s.run_at = state, run_at
            enter(id, s)
        end
        mine[id] = { state, created_at, run_at }
    end
    local at = 4 * (n - 1)
    answers[at + 1], answers[at + 2], answers[at + 3], answers[at + 4] = created, state, created_at, run_at
end
if records[1] then
    each_chunk(records, 'HSET', JOBS)
    for line, entries in pairs(fresh_lines) do
        each_chunk(entries, 'RPUSH', LINE .. line)
        redis.call('ZADD', HEADS, 'NX', struct.unpack('>I8', entries[1]) - STEP * tonumber(line:sub(1, 1)), line)
    end
    redis.call('HSET', QUEUE, 'rank', rank)
    flush()
    announce('wj')
end
return answers
