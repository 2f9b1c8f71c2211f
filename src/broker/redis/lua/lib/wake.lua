-- Tells who waits that something has changed. A topic is announced once and is quiet then, until somebody has looked
-- (a claim that found too little, or `listen`), so a busy queue sends next to nothing.
local function announce(topics)
    local quiet = redis.call('HGET', QUEUE, 'quiet') or ''
    local fresh = ''
    for topic in topics:gmatch('.') do
        if not quiet:find(topic, 1, true) then
            fresh = fresh .. topic
        end
    end
    if fresh ~= '' then
        redis.call('HSET', QUEUE, 'quiet', quiet .. fresh)
        redis.call('PUBLISH', WAKE, fresh .. ' ' .. NAME)
    end
end

-- The topics that were quiet and are no longer.
local function listen(topics)
    local quiet = redis.call('HGET', QUEUE, 'quiet') or ''
    local rest, heard = '', ''
    for topic in quiet:gmatch('.') do
        if topics:find(topic, 1, true) then
            heard = heard .. topic
        else
            rest = rest .. topic
        end
    end
    if heard ~= '' then
        redis.call('HSET', QUEUE, 'quiet', rest)
    end
    return heard
end
