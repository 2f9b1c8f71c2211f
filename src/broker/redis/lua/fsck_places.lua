-- Holds the places in one sorted set against the jobs that they name.
-- KEYS: queue
-- ARGV: now, 1 to repair, which (running, due, index:…, line:…), cursor
-- returns: the next cursor ('0': the end); faults (id, what, …)
local repair, which = ARGV[2] == '1', ARGV[3]
local key = ({ running = ACTIVE, due = DUE })[which] or (QUEUE .. ':' .. which)
local answer = redis.call('ZSCAN', key, ARGV[4], 'COUNT', 100)
local faults, gone = {}, {}
for n = 1, #answer[2], 2 do
    local id = answer[2][n]
    local raw = redis.call('HGET', STATES, id)
    local s = raw and read_state(raw)
    local belongs = false
    if s and redis.call('HEXISTS', JOBS, id) == 1 then
        for _, place in ipairs(places_of(s)) do
            belongs = belongs or place[1] == key
        end
    end
    -- A state that cannot be read is told of with its job.
    if not belongs and not (raw and not s) then
        faults[#faults + 1] = id
        faults[#faults + 1] = s and 'a job that is not there by its state' or 'no such job'
        gone[#gone + 1] = id
    end
end
if repair and #gone > 0 then
    each_chunk(gone, 'ZREM', key)
    if which:sub(1, 5) == 'line:' then
        fix_head(which:sub(6))
    end
    announce('j')
end
return { answer[1], faults }
