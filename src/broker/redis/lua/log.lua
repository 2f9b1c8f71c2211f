-- Appends lines to the log of one run; the oldest ones go when it gets too long.
-- KEYS: queue
-- ARGV: now, id, token, most bytes of a log, lines that were thrown away before, then the lines
-- returns: 1, or 0 when it is not its current run
local id, max_bytes = ARGV[2], tonumber(ARGV[4])
local s = find(id)
if not s or s.state ~= RUNNING or s.token ~= ARGV[3] then
    return 0
end
local key = LOG .. id
local last, bytes, dropped = 0, 0, 0
local head = redis.call('HGET', LOGS, id)
if head then
    last, bytes, dropped = struct.unpack('>I7I7I7', head)
end
local before = bytes
local given = {}
for n = 6, #ARGV do
    given[#given + 1] = ARGV[n]
    bytes = bytes + #ARGV[n]
end
last = last + #given
each_chunk(given, 'RPUSH', key)
while bytes > max_bytes do
    local oldest = redis.call('LPOP', key)
    if not oldest then
        break
    end
    bytes = bytes - #oldest
    dropped = dropped + 1
end
redis.call('HSET', LOGS, id, struct.pack('>I7I7I7', last, bytes, dropped + tonumber(ARGV[5])))
s.bytes = math.max(0, s.bytes + bytes - before)
redis.call('HSET', STATES, id, pack_state(s))
announce('j')
return 1
