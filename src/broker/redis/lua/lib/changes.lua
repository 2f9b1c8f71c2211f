-- Changes of jobs are collected here and written at the end by `flush`, with one command per key.
local PAST_KEPT = 100
local PAST_BYTES = 150
-- Arguments of one command, far below what Lua's stack holds.
local CHUNK = 2000
local puts, hashes, added, removed, lines, busy, endings = {}, {}, {}, {}, {}, {}, {}
-- By state, then by name: a key is only made once per name and call.
local counted, indexed = { [0] = {}, {}, {}, {}, {}, {} }, { [0] = {}, {}, {}, {}, {}, {} }
local ended_bytes = 0

local function push(lists, key, a, b)
    local list = lists[key]
    if not list then
        list = {}
        lists[key] = list
    end
    list[#list + 1] = a
    if b then
        list[#list + 1] = b
    end
end

local function count(name, state, by)
    local of = counted[state]
    of[name] = (of[name] or 0) + by
end

-- A line is the queued jobs of one priority, kind and name: 'f' is a list of jobs that came in order, 'b' a sorted set of
-- jobs that came back (or became due), 's' one of suspects. The priority goes first, so that of two heads with one score
-- the older job goes first.
local function line_of(s)
    return s.prio .. (s.suspect == 1 and 's' or s.fresh and 'f' or 'b') .. s.name
end

-- Takes a job off the place where its state has it. A fresh job stays on its list: whoever comes to it sees that it has gone.
local function leave(id, s)
    count(s.name, s.state, -1)
    if s.state == RUNNING then
        push(removed, ACTIVE, id)
        busy[s.worker] = (busy[s.worker] or 0) - 1
    elseif s.state == QUEUED then
        if not s.fresh then
            local line = line_of(s)
            push(removed, LINE .. line, id)
            lines[line] = true
        end
    else
        push(removed, INDEX .. s.state .. s.name, id)
        if s.state == SCHEDULED then
            push(removed, DUE, id)
        else
            ended_bytes = ended_bytes - s.ended
            s.ended = 0
        end
    end
end

-- Puts a job where its state says.
local function enter(id, s)
    s.fresh = nil
    count(s.name, s.state, 1)
    if s.state == RUNNING then
        push(added, ACTIVE, s.rank, id)
        busy[s.worker] = (busy[s.worker] or 0) + 1
    elseif s.state == QUEUED then
        local line = line_of(s)
        push(added, LINE .. line, s.rank, id)
        lines[line] = true
    else
        push(indexed[s.state], s.name, s.rank, id)
        if s.state == SCHEDULED then
            push(added, DUE, s.run_at, id)
        end
    end
    puts[#puts + 1] = id
    puts[#puts + 1] = pack_state(s)
end

-- Puts the run of a job into its history.
local function archive(id, s, outcome, version, failure, finished)
    local entry = struct.pack('>BI4I7I7Bc0Bc0', outcome, s.attempt, s.started, finished, #s.worker, s.worker,
        #version, version) .. failure
    local past = (redis.call('HGET', PAST, id) or '') .. struct.pack('>I4', #entry) .. entry
    if s.past >= PAST_KEPT then
        past = past:sub(5 + struct.unpack('>I4', past))
    else
        s.past = s.past + 1
        s.bytes = s.bytes + PAST_BYTES + #failure
    end
    push(hashes, PAST, id, past)
end

-- Ends a job for good. The token stays: whoever ends the run again is told that it has ended. `text` is its result, or its error as JSON.
local function conclude(id, s, state, outcome, text, version, keep)
    leave(id, s)
    s.state, s.outcome, s.text, s.reason = state, outcome, text, ''
    if version ~= '' then
        s.version = version
    end
    s.finished, s.deadline, s.cancel = now, 0, 0
    s.ended = s.bytes + #text
    ended_bytes = ended_bytes + s.ended
    push(endings, keep, struct.pack('>I8', now) .. id)
    enter(id, s)
end

-- Ends a run and puts its job back in line, to be run at `run_at`.
local function give_back(id, s, state, outcome, attempt, run_at, reason, failure, version)
    archive(id, s, outcome, version, failure, now)
    leave(id, s)
    s.state, s.attempt, s.run_at, s.reason, s.text = state, attempt, run_at, reason, failure
    if version ~= '' then
        s.version = version
    end
    s.worker, s.deadline, s.cancel, s.started, s.outcome = '', 0, 0, 0, 0
    push(removed, PROGRESS, id)
    enter(id, s)
end

-- The first of a line has changed, or may have.
local function fix_head(line)
    local key, rank = LINE .. line, nil
    if line:sub(2, 2) == 'f' then
        local entry = guarded('LINDEX', key, 0)
        if entry then
            rank = #entry == 24 and struct.unpack('>I8', entry) or 0
        end
    else
        rank = tonumber(guarded('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    end
    if rank then
        redis.call('ZADD', HEADS, rank - STEP * tonumber(line:sub(1, 1)), line)
    else
        redis.call('ZREM', HEADS, line)
    end
end

local function each_chunk(list, command, key)
    for from = 1, #list, CHUNK do
        redis.call(command, key, unpack(list, from, math.min(from + CHUNK - 1, #list)))
    end
end

local function flush()
    each_chunk(puts, 'HSET', STATES)
    for key, list in pairs(hashes) do
        each_chunk(list, 'HSET', key)
    end
    for key, list in pairs(removed) do
        each_chunk(list, key == PROGRESS and 'HDEL' or 'ZREM', key)
    end
    for key, list in pairs(added) do
        each_chunk(list, 'ZADD', key)
    end
    for line in pairs(lines) do
        fix_head(line)
    end
    for state = SCHEDULED, CANCELLED do
        for name, by in pairs(counted[state]) do
            if by ~= 0 then
                redis.call('HINCRBY', COUNTS, state .. name, by)
            end
        end
        for name, list in pairs(indexed[state]) do
            each_chunk(list, 'ZADD', INDEX .. state .. name)
        end
    end
    for worker, by in pairs(busy) do
        if by ~= 0 and redis.call('HINCRBY', BUSY, worker, by) <= 0 then
            redis.call('HDEL', BUSY, worker)
        end
    end
    for keep, list in pairs(endings) do
        each_chunk(list, 'RPUSH', ENDED .. keep)
        redis.call('SADD', KEEPS, keep)
    end
    if quarantined > 0 then
        redis.call('HINCRBY', QUEUE, 'quarantined', quarantined)
    end
    if ended_bytes ~= 0 then
        redis.call('HINCRBY', QUEUE, 'bytes', ended_bytes)
    end
end

-- Moves up to `limit` scheduled jobs whose time has come to `queued`. Answers how many, and when the next one is due.
local function make_due(limit)
    local due = guarded('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, limit)
    if #due > 0 then
        local raws = redis.call('HMGET', STATES, unpack(due))
        for n, id in ipairs(due) do
            local s = raws[n] and read_state(raws[n])
            if s and s.state == SCHEDULED then
                leave(id, s)
                s.state, s.reason = QUEUED, ''
                enter(id, s)
            elseif raws[n] and not s then
                quarantine(id, 'its state cannot be read')
            else
                push(removed, DUE, id)
            end
        end
    end
    return #due
end

local function next_due()
    return tonumber(guarded('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]) or -1
end
