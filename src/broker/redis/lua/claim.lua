-- Takes the first jobs in line.
-- KEYS: queue
-- ARGV: now, worker, ticket, limit, whether a suspect may be among them (1 or 0), the tokens of the runs (8 bytes
--       each, `limit` of them), then the names that the worker lacks
-- returns: per run { id, input record, state record }; µs until the next scheduled job is due (-1: none); 1 when there is more
--          to look through
local worker, ticket, limit, suspect, tokens = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
-- How many places in line one call looks at beyond `limit`: jobs that were cancelled or deleted while they waited.
local SPARE = 1000
local DUE_AT_ONCE = 200

-- The same call again, because its answer was lost: the same runs again, as far as they still go on.
local last = redis.call('HGET', CLAIMS, worker)
if last and last:sub(1, #ticket) == ticket then
    local runs = {}
    for at = #ticket + 1, #last, 16 do
        local id = last:sub(at, at + 15)
        local raw = redis.call('HGET', STATES, id)
        local s = raw and read_state(raw)
        if s and s.state == RUNNING and s.worker == worker and tokens:find(s.token, 1, true) then
            runs[#runs + 1] = { id, redis.call('HGET', JOBS, id), raw }
        end
    end
    return { runs, -1, 0 }
end
if redis.call('HGET', QUEUE, 'paused') then
    return { {}, -1, 0 }
end
local promoted = make_due(DUE_AT_ONCE)
if promoted > 0 then
    flush()
    puts, hashes, counted, added, removed, lines, busy, endings = {}, {}, {}, {}, {}, {}, {}, {}
end

local lacking = {}
for n = 7, #ARGV do
    lacking[ARGV[n]] = true
end

local function before(a, b)
    return a.score < b.score or (a.score == b.score and a.name < b.name)
end

-- The lines in the order of their heads, read a few at a time.
local heads, heads_at, heads_read = {}, 1, 0
local function next_head()
    while true do
        local line = heads[heads_at]
        if not line then
            if heads_read % 64 ~= 0 then
                return nil
            end
            heads, heads_at = redis.call('ZRANGE', HEADS, heads_read, heads_read + 63, 'WITHSCORES'), 1
            if #heads == 0 then
                return nil
            end
            heads_read = heads_read + #heads / 2
            line = heads[1]
        end
        local kind = line:sub(2, 2)
        if not lacking[line:sub(3)] and (suspect or kind ~= 's') then
            return { name = line, score = tonumber(heads[heads_at + 1]), entries = {}, at = 1, taken = 0, kind = kind,
                bonus = STEP * tonumber(line:sub(1, 1)), key = LINE .. line }
        end
        heads_at = heads_at + 2
    end
end

-- The next place of a line: rank and id. Reads a few ahead.
local function peek(line)
    if line.at > #line.entries then
        local wanted = math.min(limit, 200)
        line.entries, line.at = {}, 1
        if line.kind == 'f' then
            for _, entry in ipairs(guarded('LRANGE', line.key, line.taken, line.taken + wanted - 1)) do
                local whole = #entry == 24
                push(line, 'entries', whole and struct.unpack('>I8', entry) or 0, whole and entry:sub(9) or '')
            end
        else
            local found = guarded('ZRANGE', line.key, line.taken, line.taken + wanted - 1, 'WITHSCORES')
            for n = 1, #found, 2 do
                push(line, 'entries', tonumber(found[n + 1]), found[n])
            end
        end
    end
    return line.entries[line.at], line.entries[line.at + 1]
end

-- Lines that were begun, in the order of their next places; and the first one that was not.
local waiting, untouched = {}, next_head()

local function put(line)
    local at = 1
    while waiting[at] and before(waiting[at], line) do
        at = at + 1
    end
    table.insert(waiting, at, line)
end

-- The first place of all lines.
local function next_place()
    while true do
        local line = waiting[1]
        if untouched and (not line or before(untouched, line)) then
            line = untouched
            heads_at = heads_at + 2
            untouched = next_head()
        elseif line then
            table.remove(waiting, 1)
        else
            return nil
        end
        local rank, id = peek(line)
        if rank and rank - line.bonus > line.score then
            -- Its head has moved on: it waits where it now belongs.
            line.score = rank - line.bonus
            put(line)
        elseif rank then
            line.at = line.at + 2
            line.taken = line.taken + 1
            lines[line.name] = line
            put(line)
            return rank, id, line
        end
    end
end

local runs, ids, examined = {}, {}, 0
while #runs < limit and examined < limit + SPARE do
    local batch, places = {}, {}
    while #batch < limit - #runs do
        local rank, id, line = next_place()
        if not rank then
            break
        end
        batch[#batch + 1] = id
        places[#places + 1] = { rank, line }
        if line.kind == 's' then
            -- One suspect at most: the lines of the others are closed.
            suspect = false
            for n = #waiting, 1, -1 do
                if waiting[n].kind == 's' then
                    table.remove(waiting, n)
                end
            end
            while untouched and untouched.kind == 's' do
                heads_at = heads_at + 2
                untouched = next_head()
            end
        end
    end
    if #batch == 0 then
        break
    end
    examined = examined + #batch
    local records = redis.call('HMGET', JOBS, unpack(batch))
    local states = redis.call('HMGET', STATES, unpack(batch))
    for n, id in ipairs(batch) do
        local record, raw, rank, line = records[n], states[n], places[n][1], places[n][2]
        local s, broken
        if record and line.kind == 'f' then
            -- Only a job that is still fresh, and not one that came later under the same id.
            s = not raw and read_fresh(record)
            if not raw and not s then
                broken = 'its input cannot be read'
            elseif s and s.rank ~= rank then
                s = nil
            end
        elseif raw then
            s = read_state(raw)
            if not s then
                broken = 'its state cannot be read'
            elseif not record then
                s, broken = nil, 'its input is missing'
            elseif s.state ~= QUEUED then
                s = nil
            end
        end
        if broken then
            quarantine(id, broken)
            count(line.name:sub(3), QUEUED, -1)
        elseif s then
            if not s.fresh then
                push(removed, PROGRESS, id)
            end
            count(s.name, QUEUED, -1)
            s.state, s.attempt, s.worker, s.token, s.started = RUNNING, s.attempt + 1, worker,
                tokens:sub(#runs * 8 + 1, #runs * 8 + 8), now
            s.deadline = now + struct.unpack('>I6', record, 14)
            s.outcome, s.finished, s.version, s.reason, s.text = 0, 0, '', '', ''
            enter(id, s)
            ids[#ids + 1] = id
            runs[#runs + 1] = { id, record, puts[#puts] }
        end
    end
end

for name, line in pairs(lines) do
    if line.kind == 'f' then
        redis.call('LTRIM', line.key, line.taken, -1)
    else
        redis.call('ZREMRANGEBYRANK', line.key, 0, line.taken - 1)
    end
end
flush()
if #runs > 0 then
    redis.call('HSET', CLAIMS, worker, ticket .. table.concat(ids))
end
if promoted > 0 then
    announce('wj')
elseif #runs > 0 then
    announce('j')
end
local more = #runs < limit and (examined >= limit + SPARE or promoted == DUE_AT_ONCE)
if #runs < limit and not more then
    listen('w')
end
local due = next_due()
return { runs, due >= 0 and math.max(0, due - now) or -1, more and 1 or 0 }
