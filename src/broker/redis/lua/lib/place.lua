-- Where a job must be, by its record and state; whether it is there; and how it gets there.

-- Every sorted set that a job which has a state record must be in: key, score, name for people.
local function places_of(s)
    if s.state == RUNNING then
        return { { ACTIVE, s.rank, 'running' } }
    elseif s.state == QUEUED then
        local line = line_of(s)
        return { { LINE .. line, s.rank, 'line:' .. line } }
    end
    local index = s.state .. s.name
    local places = { { INDEX .. index, s.rank, 'index:' .. index } }
    if s.state == SCHEDULED then
        places[2] = { DUE, s.run_at, 'due' }
    end
    return places
end

-- Whether the list of its line, which is in the order of ranks, has a fresh job.
local function listed(id, s)
    local key = LINE .. line_of(s)
    local low, high = 0, redis.call('LLEN', key) - 1
    while low <= high do
        local middle = math.floor((low + high) / 2)
        local entry = redis.call('LINDEX', key, middle)
        local rank = #entry == 24 and struct.unpack('>I8', entry) or 0
        if rank == s.rank then
            return entry:sub(9) == id
        elseif rank < s.rank then
            low = middle + 1
        else
            high = middle - 1
        end
    end
    return false
end

-- What is wrong with the places of a job, into `faults` as id, place, what. With `repair` it is put where it belongs; its
-- count stays, because its state does.
local function check_places(id, s, repair, faults)
    local function found(place, what)
        for _, part in ipairs({ id, place, what }) do
            faults[#faults + 1] = part
        end
    end
    if s.fresh then
        if listed(id, s) then
            return
        end
        found('line:' .. line_of(s), 'a queued job is not in its line')
        if not repair then
            return
        end
        -- With a state record any place in a list is void.
        s.fresh = nil
        puts[#puts + 1] = id
        puts[#puts + 1] = pack_state(s)
        push(added, LINE .. line_of(s), s.rank, id)
        lines[line_of(s)] = true
        return
    end
    for _, place in ipairs(places_of(s)) do
        local score = tonumber(redis.call('ZSCORE', place[1], id))
        if score ~= place[2] then
            found(place[3], score and 'it has another place than its own' or 'it is missing there')
            if repair then
                push(added, place[1], place[2], id)
                if s.state == QUEUED then
                    lines[line_of(s)] = true
                end
            end
        end
    end
end
