-- `now`: µs since 1970 by the server's clock. A test may pass its own as ARGV[1]; everybody else passes ''.
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
