-- Pauses or resumes a queue.
-- KEYS: queue
-- ARGV: now, 1 or 0
-- returns: 1
local paused = redis.call('HEXISTS', QUEUE, 'paused')
if ARGV[2] == '1' and paused == 0 then
    redis.call('HSET', QUEUE, 'paused', 1)
    announce('wj')
elseif ARGV[2] == '0' and paused == 1 then
    redis.call('HDEL', QUEUE, 'paused')
    announce('wj')
end
return 1
