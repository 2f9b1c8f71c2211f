-- Moves a job that cannot be read aside, as it is, so that it never stops the others. Its places in indexes that only its
-- record would tell stay; readers pass over them and `doctor --fsck --repair` clears them.
local quarantined = 0

local function quarantine(id, why)
    local record, state = redis.call('HGET', JOBS, id) or '', redis.call('HGET', STATES, id) or ''
    redis.call('HSET', BAD, id, cmsgpack.pack({ now, why, record, state }))
    redis.call('HDEL', JOBS, id)
    redis.call('HDEL', STATES, id)
    redis.call('ZREM', ACTIVE, id)
    redis.call('ZREM', DUE, id)
    quarantined = quarantined + 1
end

-- Moves a key aside that is not of its type. Answers what the command answers otherwise.
local function guarded(command, key, ...)
    local answer = redis.pcall(command, key, ...)
    if type(answer) ~= 'table' or not answer.err then
        return answer
    end
    if not answer.err:find('WRONGTYPE', 1, true) then
        error(answer.err)
    end
    redis.call('RENAME', key, BAD .. ':' .. now .. key)
    quarantined = quarantined + 1
    return redis.call(command, key, ...)
end
