-- Which of some types a live worker has.
-- KEYS: registry
-- ARGV: now, names
-- returns per name: 1 or 0
local workers = redis.call('ZRANGEBYSCORE', LEASES, '(' .. now, '+inf')
local answers = {}
for n = 2, #ARGV do
    answers[n - 1] = 0
    for _, worker in ipairs(workers) do
        if redis.call('HEXISTS', LOADED .. worker, ARGV[n]) == 1 then
            answers[n - 1] = 1
            break
        end
    end
end
return answers
