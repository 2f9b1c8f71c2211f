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

-- Most runs succeed or fail. For them the new record is cut from the old one, and the lists are kept at hand from run to run
-- as long as name and keep stay the same: this is most of what Redis does for a job.
local ZERO, NOTHING, FINISHED = ('\0'):rep(7), '\0\0', struct.pack('>I8', now)
local straight, gone, stored = 0, {}, {}
local same = {}

local function settle()
    if same.name then
        count(same.name, RUNNING, -same.count)
        count(same.name, same.state, same.count)
        busy[same.worker] = (busy[same.worker] or 0) - same.count
    end
end

local function switch(state, name, worker, keep)
    settle()
    indexed[state][name] = indexed[state][name] or {}
    endings[keep] = endings[keep] or {}
    same = { state = state, name = name, worker = worker, keep = keep, count = 0, index = indexed[state][name],
        endings = endings[keep] }
    same.indexed, same.ended = #same.index, #same.endings
end

local function conclude_run(id, raw, state, outcome, text, version, keep)
    local rank, bytes = struct.unpack('>I7I5', raw, 53)
    local name_end = 71 + raw:byte(71)
    local worker_end = name_end + 1 + raw:byte(name_end + 1)
    local name, worker = raw:sub(72, name_end), raw:sub(name_end + 2, worker_end)
    if version == '' then
        version = raw:sub(worker_end + 2, worker_end + 1 + raw:byte(worker_end + 1))
    end
    local ended = bytes + #text
    local record = table.concat({ string.char(1, state, 0, raw:byte(4), outcome), raw:sub(6, 38), ZERO,
        struct.pack('>I7I7I5I5', now, rank, bytes, ended), raw:sub(70, worker_end), string.char(#version), version, NOTHING,
        text })
    if name ~= same.name or state ~= same.state or keep ~= same.keep or worker ~= same.worker then
        switch(state, name, worker, keep)
    end
    local n, m = same.indexed, same.ended + 1
    same.count, same.indexed, same.ended = same.count + 1, n + 2, m
    same.index[n + 1], same.index[n + 2] = rank, id
    same.endings[m] = FINISHED .. id
    straight = straight + 1
    gone[straight] = id
    stored[2 * straight - 1], stored[2 * straight] = id, record
    ended_bytes = ended_bytes + ended
end

for n, id in ipairs(ids) do
    local at = 2 + (n - 1) * 8
    local raw, kind = states[n], ARGV[at + 2]
    if not raw or done[id] then
        answers[n] = 0
    elseif (kind == 's' or kind == 'f') and raw:byte(1) == 1 and raw:byte(2) == RUNNING
        and raw:sub(17, 24) == ARGV[at + 1] then
        local state = kind == 's' and SUCCEEDED or FAILED
        local ok = pcall(conclude_run, id, raw, state, state - 2, ARGV[at + 6], ARGV[at + 5], ARGV[at + 3])
        answers[n], done[id] = ok and 1 or 2, ok or nil
    else
        local s = read_state(raw)
        local keep, delay, version, text, reason =
            ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
        if not s then
            answers[n] = 2
        elseif s.token ~= ARGV[at + 1] then
            answers[n] = 0
        elseif s.state ~= RUNNING then
            answers[n] = 3
        else
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
            -- The lists at hand may have grown.
            settle()
            same = {}
        end
    end
end
settle()
if next(done) then
    each_chunk(stored, 'HSET', STATES)
    each_chunk(gone, 'ZREM', ACTIVE)
    flush()
    announce(again and 'wj' or 'j')
end
return answers
