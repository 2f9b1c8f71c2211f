-- Ends runs, each on its own.
-- KEYS: queue
-- ARGV: now, then per run: id, token, end (s succeeded, f failed, r retry, b released, c cancelled), keep (µs), delay (µs),
--       script version or '', text (result, or error as JSON), reason
-- returns per run: 1 ended, 0 not its current run, 2 its record cannot be read, 3 this token has ended it before
local ids = {}
for n = 2, #ARGV, 8 do
    ids[#ids + 1] = ARGV[n]
end
local states, answers, done = redis.call('HMGET', STATES, unpack(ids)), {}, {}
local again = false
for n, id in ipairs(ids) do
    local at = 2 + (n - 1) * 8
    local raw, kind = states[n], ARGV[at + 2]
    if raw and not done[id] and raw:byte(1) == 1 and raw:byte(2) == RUNNING and raw:sub(17, 24) == ARGV[at + 1]
        and (kind == 's' or kind == 'f') then
        local ok = pcall(conclude_run, id, raw, kind == 's' and SUCCEEDED or FAILED, kind == 's' and 1 or 2, ARGV[at + 6],
            ARGV[at + 5], ARGV[at + 3])
        answers[n], done[id] = ok and 1 or 2, ok or nil
        raw = nil
    end
    local s = raw and read_state(raw)
    if answers[n] then
        -- said already
    elseif raw and not s then
        answers[n] = 2
    elseif not s or done[id] or s.token ~= ARGV[at + 1] then
        answers[n] = 0
    elseif s.state ~= RUNNING then
        answers[n] = 3
    else
        local keep, delay, version, text, reason =
            ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
        answers[n], done[id] = 1, true
        if kind == 'c' or s.cancel == 1 then
            conclude(id, s, CANCELLED, CANCEL_OUTCOME, '', version, keep)
        elseif kind == 'r' then
            local why = 'attempt ' .. s.attempt .. ' failed ' .. reason
            give_back(id, s, SCHEDULED, 3, s.attempt, now + delay, why, text, version)
            again = true
        else
            local state = delay == 0 and QUEUED or SCHEDULED
            give_back(id, s, state, RELEASED, s.attempt - 1, now + delay, reason, '', version)
            again = true
        end
    end
end
if next(done) then
    flush()
    announce(again and 'wj' or 'j')
end
return answers
