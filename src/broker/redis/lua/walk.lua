-- Looks through the running jobs for those that may be lost. Changes nothing but places that name no running job.
-- KEYS: queue
-- ARGV: now, the rank to go on after, how many to look at, how far over its time a run may be (µs), then the live workers
-- returns: the rank of the last one looked at ('' at the end); per candidate { id, token, worker, 1 when it is over its time };
--          how many were quarantined
local after, limit, overdue = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local alive = {}
for n = 5, #ARGV do
    alive[ARGV[n]] = true
end
local places = guarded('ZRANGEBYSCORE', ACTIVE, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local found, last = {}, ''
if #places == limit * 2 then
    last = places[#places]
end
for n = 1, #places, 2 do
    local id = places[n]
    local raw = redis.call('HGET', STATES, id)
    local s = raw and read_state(raw)
    if raw and not s then
        quarantine(id, 'its state cannot be read')
    elseif not s or s.state ~= RUNNING then
        push(removed, ACTIVE, id)
        if not raw then
            quarantine(id, 'running without a state')
        end
    elseif redis.call('HEXISTS', JOBS, id) == 0 then
        leave(id, s)
        quarantine(id, 'its input is missing')
    else
        local over = s.deadline + overdue <= now
        if over or not alive[s.worker] then
            found[#found + 1] = { id, s.token, s.worker, over and 1 or 0 }
        end
    end
end
local aside = quarantined
if aside > 0 or next(removed) then
    flush()
end
return { last, found, aside }
