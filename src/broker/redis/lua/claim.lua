-- Takes the first jobs in line.
-- KEYS: queue
-- ARGV: now, worker, ticket, limit, whether a suspect may be among them (1 or 0), the tokens of the runs (8 bytes
--       each, `limit` of them), then the names that the worker lacks
-- returns: id, input record and state record of each run; µs until the next scheduled job is due (-1: none); 1 when there is more
--          to look through
local worker, ticket, limit, suspect, tokens = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
-- How many places in line one call looks at beyond `limit`: jobs that were cancelled or deleted while they waited.
local SPARE = 1000
local DUE_AT_ONCE = 50

-- The same call again, because its answer was lost: the same runs again, as far as they still go on.
local last = redis.call('HGET', CLAIMS, worker)
if last and last:sub(1, #ticket) == ticket then
    local runs = {}
    for at = #ticket + 1, #last, 16 do
        local id = last:sub(at, at + 15)
        local raw = redis.call('HGET', STATES, id)
        local s = raw and read_state(raw)
        if s and s.state == RUNNING and s.worker == worker and tokens:find(s.token, 1, true) then
            runs[#runs + 1], runs[#runs + 2], runs[#runs + 3] = id, redis.call('HGET', JOBS, id), raw
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
    puts, hashes, added, removed, lines, busy, endings = {}, {}, {}, {}, {}, {}, {}
    counted, indexed = { [0] = {}, {}, {}, {}, {}, {} }, { [0] = {}, {}, {}, {}, {}, {} }
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
            return { name = line, score = tonumber(heads[heads_at + 1]), ranks = {}, ids = {}, at = 1, taken = 0, kind = kind,
                bonus = STEP * tonumber(line:sub(1, 1)), key = LINE .. line }
        end
        heads_at = heads_at + 2
    end
end

-- The places of a line, a few at a time: ranks and ids.
local function read_on(line)
    local ranks, ids = {}, {}
    local to = line.taken + math.min(limit, 200) - 1
    if line.kind == 'f' then
        for n, entry in ipairs(guarded('LRANGE', line.key, line.taken, to)) do
            local whole = #entry == 24
            ranks[n], ids[n] = whole and struct.unpack('>I8', entry) or 0, whole and entry:sub(9) or ''
        end
    else
        local found = guarded('ZRANGE', line.key, line.taken, to, 'WITHSCORES')
        for n = 1, #found / 2 do
            ranks[n], ids[n] = tonumber(found[2 * n]), found[2 * n - 1]
        end
    end
    line.ranks, line.ids, line.at = ranks, ids, 1
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

-- Takes the first places of all lines, up to `wanted`: their ids, ranks and lines.
local function next_places(wanted)
    local ids, ranks, of, n = {}, {}, {}, 0
    while n < wanted do
        local line = waiting[1]
        if untouched and (not line or before(untouched, line)) then
            line = untouched
            heads_at = heads_at + 2
            untouched = next_head()
        elseif line then
            table.remove(waiting, 1)
        else
            break
        end
        if not line.ranks[line.at] then
            read_on(line)
        end
        local rank = line.ranks[line.at]
        if rank and rank - line.bonus > line.score then
            -- Its head has moved on: it waits where it now belongs.
            line.score = rank - line.bonus
            put(line)
        elseif rank then
            -- All of its places that come before every other line; of suspects one.
            local other = waiting[1]
            local bound = math.min(other and other.score or math.huge, untouched and untouched.score or math.huge)
            lines[line.name] = line
            repeat
                n = n + 1
                ids[n], ranks[n], of[n] = line.ids[line.at], rank, line
                line.at = line.at + 1
                line.taken = line.taken + 1
                rank = line.ranks[line.at]
            until n >= wanted or not rank or rank - line.bonus >= bound or line.kind == 's'
            if line.kind ~= 's' then
                put(line)
            else
                suspect = false
                for at = #waiting, 1, -1 do
                    if waiting[at].kind == 's' then
                        table.remove(waiting, at)
                    end
                end
                while untouched and untouched.kind == 's' do
                    heads_at = heads_at + 2
                    untouched = next_head()
                end
            end
        end
    end
    return ids, ranks, of
end

local runs, claimed, examined = {}, {}, 0
local active = {}
-- Jobs of one name in a row, which are counted together.
local of_name, of_count = '', 0
while #claimed < limit and examined < limit + SPARE do
    local ids, ranks, of = next_places(limit - #claimed)
    if #ids == 0 then
        break
    end
    examined = examined + #ids
    local records = redis.call('HMGET', JOBS, unpack(ids))
    local states = redis.call('HMGET', STATES, unpack(ids))
    for n, id in ipairs(ids) do
        local record, raw, line = records[n], states[n], of[n]
        local state, broken
        local k = #claimed
        local token = tokens:sub(k * 8 + 1, k * 8 + 8)
        if record and line.kind == 'f' then
            -- Only a job that is still fresh, and not one that came later under the same id.
            if not raw then
                local ok, v, created, lag, prio, timeout, name = pcall(struct.unpack, INPUT, record)
                if not ok or v ~= 1 then
                    broken = 'its input cannot be read'
                elseif created + lag == ranks[n] then
                    state = struct.pack(STATE, 1, RUNNING, 0, 0, 0, 1, 0, 0, 0, 0, token, created, now, now + timeout, 0,
                        ranks[n], #record + OVERHEAD, 0, prio, #name, name, #worker, worker, 0, '', 0, '')
                    if name ~= of_name then
                        if of_count > 0 then
                            count(of_name, QUEUED, -of_count)
                            count(of_name, RUNNING, of_count)
                        end
                        of_name, of_count = name, 0
                    end
                    of_count = of_count + 1
                end
            end
        elseif raw then
            local s = read_state(raw)
            if not s then
                broken = 'its state cannot be read'
            elseif not record then
                broken = 'its input is missing'
            elseif s.state == QUEUED then
                push(removed, PROGRESS, id)
                count(s.name, QUEUED, -1)
                count(s.name, RUNNING, 1)
                s.state, s.attempt, s.worker, s.token, s.started = RUNNING, s.attempt + 1, worker, token, now
                s.deadline = now + struct.unpack('>I6', record, 14)
                s.outcome, s.finished, s.version, s.reason, s.text = 0, 0, '', '', ''
                state = pack_state(s)
            end
        end
        if broken then
            quarantine(id, broken)
            count(line.name:sub(3), QUEUED, -1)
        elseif state then
            claimed[k + 1] = id
            local at = 2 * k
            puts[at + 1], puts[at + 2] = id, state
            active[at + 1], active[at + 2] = ranks[n], id
            at = 3 * k
            runs[at + 1], runs[at + 2], runs[at + 3] = id, record, state
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
if of_count > 0 then
    count(of_name, QUEUED, -of_count)
    count(of_name, RUNNING, of_count)
end
if #claimed > 0 then
    added[ACTIVE] = active
    busy[worker] = #claimed
    redis.call('HSET', CLAIMS, worker, ticket .. table.concat(claimed))
end
flush()
if promoted > 0 then
    announce('wj')
elseif #claimed > 0 then
    announce('j')
end
local more = #claimed < limit and (examined >= limit + SPARE or promoted == DUE_AT_ONCE)
if #claimed < limit and not more then
    listen('w')
end
local due = next_due()
return { runs, due >= 0 and math.max(0, due - now) or -1, more and 1 or 0 }
