-- Removes every trace of a job but its places in indexes.
local function forget(id)
    redis.call('HDEL', JOBS, id)
    redis.call('HDEL', STATES, id)
    redis.call('HDEL', PAST, id)
    redis.call('HDEL', PROGRESS, id)
    redis.call('HDEL', LOGS, id)
    redis.call('UNLINK', LOG .. id, FILES .. id)
end
