-- Appends lines to the log of one run; the oldest ones go when it gets too long. What came before adds nothing again.
-- KEYS: queue
-- ARGV: now, id, token, most bytes of a log, lines of the run before these, lines that were thrown away, then the lines
-- returns: 1, or 0 when it is not its current run
local id, token, max_bytes = ARGV[2], ARGV[3], tonumber(ARGV[4])
local first, thrown, count = tonumber(ARGV[5]), tonumber(ARGV[6]), #ARGV - 6
local s = find(id)
if not s or s.state ~= RUNNING or s.token ~= token then
    return 0
end
local key = LOG .. id
local last, bytes, dropped, run, taken = 0, 0, 0, nil, 0
local head = redis.call('HGET', LOGS, id)
if head then
    last, bytes, dropped, run, taken = struct.unpack('>I7I7I7c8I7', head)
end
if run ~= token then
    taken = 0
end
-- The batch stands for its lines and then for those that were thrown away.
local known = math.max(0, taken - first)
local known_lines = math.min(known, count)
local before = bytes
local given = {}
for n = 7 + known_lines, #ARGV do
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
dropped = dropped + math.max(0, thrown - (known - known_lines))
taken = math.max(taken, first + count + thrown)
redis.call('HSET', LOGS, id, struct.pack('>I7I7I7c8I7', last, bytes, dropped, token, taken))
s.bytes = math.max(0, s.bytes + bytes - before)
redis.call('HSET', STATES, id, pack_state(s))
announce('j')
return 1
