-- Gives back runs whose worker is gone, or that are over their time.
-- KEYS: queue
-- ARGV: now, keep (µs, of a job that fails here), mode (lost, or retired: its worker said goodbye), then per run: id, token,
--       whether it is charged (1 or 0)
-- returns per run: 0 not its current run, 1 given back or cancelled, 2 failed for good, 3 quarantined
local MAX_CHARGED, MAX_UNCHARGED = 3, 5
local keep, mode = ARGV[2], ARGV[3]
local answers, done = {}, false
for n = 4, #ARGV, 3 do
    local id, token, charged = ARGV[n], ARGV[n + 1], ARGV[n + 2] == '1'
    local raw = redis.call('HGET', STATES, id)
    local s = raw and read_state(raw)
    local answer = 0
    if raw and not s then
        quarantine(id, 'its state cannot be read')
        answer, done = 3, true
    elseif s and s.state == RUNNING and s.token == token then
        answer, done = 1, true
        s.token = NO_TOKEN
        if mode == 'retired' then
            if s.cancel == 1 then
                conclude(id, s, CANCELLED, CANCEL_OUTCOME, '', '', keep)
            else
                give_back(id, s, QUEUED, RELEASED, s.attempt - 1, now, 'its worker stopped', '', '')
            end
        else
            local was_suspect = s.suspect
            s.lost = s.lost + 1
            if charged or was_suspect == 1 then
                s.charged = s.charged + 1
            else
                s.uncharged = s.uncharged + 1
            end
            if s.cancel == 1 then
                conclude(id, s, CANCELLED, LOST, '', '', keep)
            elseif s.charged >= MAX_CHARGED then
                local failure = '{"kind":"worker_lost","message":"a worker died ' .. s.charged ..
                    ' times while it ran this job","retryable":false}'
                conclude(id, s, FAILED, LOST, failure, '', keep)
                answer = 2
            else
                if s.uncharged >= MAX_UNCHARGED then
                    s.suspect = 1
                end
                give_back(id, s, QUEUED, LOST, s.attempt - 1, now, 'its worker was lost', '', '')
            end
        end
    end
    answers[#answers + 1] = answer
end
if done then
    flush()
    announce('wj')
end
return answers
