-- Holds the heads of lines against the lines.
-- KEYS: queue
-- ARGV: now, 1 to repair, lines
-- returns: those whose head is not that of the line
local wrong = {}
for n = 3, #ARGV do
    local line = ARGV[n]
    local key, rank = LINE .. line, nil
    if line:sub(2, 2) == 'f' then
        local entry = redis.call('LINDEX', key, 0)
        rank = entry and (#entry == 24 and struct.unpack('>I8', entry) or 0)
    else
        rank = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    end
    local head = tonumber(redis.call('ZSCORE', HEADS, line))
    if head ~= (rank and rank - STEP * (tonumber(line:sub(1, 1)) or 0) or nil) then
        wrong[#wrong + 1] = line
        if ARGV[2] == '1' then
            if tonumber(line:sub(1, 1)) then
                fix_head(line)
            else
                redis.call('ZREM', HEADS, line)
            end
        end
    end
end
if ARGV[2] == '1' and #wrong > 0 then
    announce('w')
end
return wrong
