-- Holds some jobs against the places where they must be. What is read and mended of a job is one moment.
-- KEYS: queue
-- ARGV: now, 1 to repair, what to go through (jobs, states), cursor
-- returns: the next cursor ('0': the end); faults (id, place, what, …); jobs (id, state and name, of a running one its worker, of
--          an ended one finished_at, else its line; bytes of an ended one, …)
local repair, cursor = ARGV[2] == '1', ARGV[4]
local faults, jobs = {}, {}
local function found(id, place, what)
    for _, part in ipairs({ id, place, what }) do
        faults[#faults + 1] = part
    end
end
local function aside(id, s, place, what)
    found(id, place, what)
    if repair then
        if s then
            leave(id, s)
        end
        quarantine(id, what)
    end
end

if ARGV[3] == 'states' then
    local answer = redis.call('HSCAN', STATES, cursor, 'COUNT', 100)
    for n = 1, #answer[2], 2 do
        local id = answer[2][n]
        if redis.call('HEXISTS', JOBS, id) == 0 then
            aside(id, read_state(answer[2][n + 1]), 'jobs', 'its input is missing')
        end
    end
    cursor = answer[1]
else
    local answer = redis.call('HSCAN', JOBS, cursor, 'COUNT', 32)
    for n = 1, #answer[2], 2 do
        local id, record = answer[2][n], answer[2][n + 1]
        local raw = redis.call('HGET', STATES, id)
        local input = read_fresh(record)
        local s
        if raw then
            s = read_state(raw)
        else
            s = input
        end
        if #id ~= 16 then
            found(id, 'jobs', 'its id has not 16 bytes')
            if repair then
                quarantine(id, 'its id has not 16 bytes')
            end
        elseif not input then
            aside(id, s, 'jobs', 'its input cannot be read')
        elseif not s then
            aside(id, nil, 'states', 'its state cannot be read')
        else
            check_places(id, s, repair, faults)
            local more = ''
            if s.state == RUNNING then
                more = s.worker
            elseif s.state == QUEUED then
                more = line_of(s)
            elseif s.state ~= SCHEDULED then
                more = struct.pack('>I8', s.finished)
            end
            for _, part in ipairs({ id, s.state .. s.name, more, s.ended }) do
                jobs[#jobs + 1] = part
            end
        end
    end
    cursor = answer[1]
end
if repair and #faults > 0 then
    flush()
    announce('wj')
end
return { cursor, faults, jobs }
