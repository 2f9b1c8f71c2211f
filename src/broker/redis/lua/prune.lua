-- Removes ended jobs: those whose `keep` is over, or the oldest ones as long as the queue's ended jobs need too much.
-- KEYS: queue
-- ARGV: now, mode (age, or bytes), most bytes, how many at most
-- returns: the ids that were removed
local mode, most, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- Places looked at beyond `limit`: of jobs that were deleted or retried by hand.
local SPARE = 1000
local gone, looked = {}, 0
local bytes = tonumber(redis.call('HGET', QUEUE, 'bytes')) or 0

-- Jobs that end with the same `keep` end and expire in the same order: a list for each.
local keeps = {}
for _, keep in ipairs(redis.call('SMEMBERS', KEEPS)) do
    keeps[#keeps + 1] = keep
end
local function head(keep)
    local entry = guarded('LINDEX', ENDED .. keep, 0)
    if entry and #entry ~= 24 then
        return entry, 0, ''
    end
    return entry, entry and struct.unpack('>I8', entry), entry and entry:sub(9)
end
while #gone < limit and looked < limit + SPARE do
    local oldest, id, from
    for n = #keeps, 1, -1 do
        local entry, finished, job = head(keeps[n])
        if not entry then
            redis.call('SREM', KEEPS, keeps[n])
            table.remove(keeps, n)
        elseif mode == 'bytes' or finished + tonumber(keeps[n]) <= now then
            local by = mode == 'bytes' and finished or finished + tonumber(keeps[n])
            if not oldest or by < oldest then
                oldest, id, from = by, job, keeps[n]
            end
        end
    end
    if not oldest or (mode == 'bytes' and bytes + ended_bytes <= most) then
        break
    end
    looked = looked + 1
    local entry = redis.call('LPOP', ENDED .. from)
    local s = #id == 16 and find(id)
    -- A job that was retried and ended again has another place.
    if s and s.state >= SUCCEEDED and struct.pack('>I8', s.finished) == entry:sub(1, 8) then
        leave(id, s)
        forget(id)
        gone[#gone + 1] = id
    end
end
if #gone > 0 then
    flush()
    announce('j')
end
return gone
