-- Says which types a worker has loaded now, and which versions it refused. The lists replace those before.
-- KEYS: registry
-- ARGV: now, worker, how many types, per type: name, version, version it replaced or '', keep of failed jobs (µs), the type as
--       JSON; then per refused version: name, its card as JSON
-- returns: 0 when there is no such worker, else 1
local worker, types = ARGV[2], tonumber(ARGV[3])
if not redis.call('ZSCORE', LEASES, worker) then
    return 0
end
local function pairs_of(key)
    local flat, map = redis.call('HGETALL', key), {}
    for n = 1, #flat, 2 do
        map[flat[n]] = flat[n + 1]
    end
    return map
end
local before, changed = pairs_of(LOADED .. worker), false
local at = 4
for _ = 1, types do
    local name, version, replaced, keep, text = unpack(ARGV, at, at + 4)
    at = at + 5
    local had = before[name]
    before[name] = nil
    if not had or had:sub(9) ~= version then
        changed = true
        local new = redis.call('HSETNX', VERSIONS, name .. ' ' .. version, text) == 1
        local live = redis.call('HGET', TYPES, name)
        -- An edit that is taken back is live again.
        if new or not live or (replaced ~= '' and live:sub(9) == replaced) then
            redis.call('HSET', TYPES, name, struct.pack('>I8', keep) .. version)
        end
        redis.call('HSET', LOADED .. worker, name, struct.pack('>I8', now) .. version)
    end
end
for name in pairs(before) do
    changed = true
    redis.call('HDEL', LOADED .. worker, name)
end
local refused = pairs_of(REFUSED .. worker)
for n = at, #ARGV, 2 do
    if refused[ARGV[n]] ~= ARGV[n + 1] then
        changed = true
        redis.call('HSET', REFUSED .. worker, ARGV[n], ARGV[n + 1])
    end
    refused[ARGV[n]] = nil
end
for name in pairs(refused) do
    changed = true
    redis.call('HDEL', REFUSED .. worker, name)
end
if changed then
    redis.call('PUBLISH', WAKE, 'twj')
end
return 1
