-- Ids of jobs, newest first.
-- KEYS: queue
-- ARGV: now, the rank to go on below, how many at most, a state (its number) or '', a name or ''
-- returns: 1 when there are no more, else 0; rank, id, rank, id, … (a job that has left its line may be among them)
local below, limit, state, name = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]

-- Places of each source, newest first, a few at a time.
local sources = {}
if state == '' or state == '1' then
    for _, line in ipairs(redis.call('ZRANGE', HEADS, 0, -1)) do
        if name == '' or line:sub(3) == name then
            sources[#sources + 1] = { key = LINE .. line, list = line:sub(2, 2) == 'f' }
        end
    end
end
if state == '' or state == '2' then
    sources[#sources + 1] = { key = ACTIVE }
end
local counts = redis.call('HGETALL', COUNTS)
for n = 1, #counts, 2 do
    local of, kind = counts[n], counts[n]:sub(1, 1)
    if kind ~= '1' and kind ~= '2' and tonumber(counts[n + 1]) > 0 and (state == '' or state == kind)
        and (name == '' or of:sub(2) == name) then
        sources[#sources + 1] = { key = INDEX .. of }
    end
end
local ahead = math.max(8, math.min(limit, math.ceil(4 * limit / #sources)))

local function rank_at(key, index)
    local entry = redis.call('LINDEX', key, index)
    return #entry == 24 and struct.unpack('>I8', entry) or 0
end

-- The last place of a list whose rank is below `below`. Lists are in the order of ranks.
local function last_below(key)
    local low, high = 0, redis.call('LLEN', key)
    if high == 0 or rank_at(key, high - 1) < below then
        return high - 1
    end
    while low < high do
        local middle = math.floor((low + high) / 2)
        if rank_at(key, middle) < below then
            low = middle + 1
        else
            high = middle
        end
    end
    return low - 1
end

local found = {}
-- Reads on in a source. Answers the rank down to which all of it is known.
local function read(source)
    if source.over then
        return -1
    end
    local lowest
    if source.list then
        source.last = source.last or last_below(source.key)
        local from = math.max(0, source.last - ahead + 1)
        local entries = source.last >= 0 and redis.call('LRANGE', source.key, from, source.last) or {}
        for n = #entries, 1, -1 do
            if #entries[n] == 24 then
                lowest = struct.unpack('>I8', entries[n])
                found[#found + 1] = { lowest, entries[n]:sub(9) }
            end
        end
        source.last = from - 1
        source.over = from == 0
    else
        local places = redis.call('ZREVRANGEBYSCORE', source.key, '(' .. (source.below or ARGV[2]), '-inf', 'WITHSCORES',
            'LIMIT', 0, ahead)
        for n = 1, #places, 2 do
            lowest = tonumber(places[n + 1])
            found[#found + 1] = { lowest, places[n] }
        end
        source.below = places[#places]
        source.over = #places < 2 * ahead
    end
    source.known = source.over and -1 or lowest
    return source.known
end

for _, source in ipairs(sources) do
    read(source)
end
while true do
    -- Down to `sure` every place of every source is known.
    local sure, behind = -1, nil
    for _, source in ipairs(sources) do
        if source.known > sure then
            sure, behind = source.known, source
        end
    end
    table.sort(found, function(a, b) return a[1] > b[1] end)
    local enough = 0
    while enough < limit and found[enough + 1] and found[enough + 1][1] >= sure do
        enough = enough + 1
    end
    if enough >= limit or not behind then
        local answer, last = {}, nil
        for n = 1, enough do
            if found[n][1] ~= last then
                last = found[n][1]
                answer[#answer + 1] = last
                answer[#answer + 1] = found[n][2]
            end
        end
        return { (behind or enough < #found) and 0 or 1, answer }
    end
    for _, source in ipairs(sources) do
        if source.known == sure then
            read(source)
        end
    end
end
