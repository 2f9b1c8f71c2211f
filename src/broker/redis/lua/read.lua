-- Jobs, whole.
-- KEYS: queue
-- ARGV: now, ids
-- returns: 1 when the queue is paused, else 0; per job {} when it is not there, else { input record, state record or '', history or
--          '', progress or '', its files' cards }
local jobs = {}
for n = 2, #ARGV do
    local id = ARGV[n]
    local record = redis.call('HGET', JOBS, id)
    if record then
        jobs[n - 1] = { record, redis.call('HGET', STATES, id) or '', redis.call('HGET', PAST, id) or '',
            redis.call('HGET', PROGRESS, id) or '', redis.call('HVALS', FILES .. id) }
    else
        jobs[n - 1] = {}
    end
end
return { redis.call('HEXISTS', QUEUE, 'paused'), jobs }
