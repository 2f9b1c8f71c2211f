-- What people do to one job.
-- KEYS: queue
-- ARGV: now, id, verb (cancel, retry, delete), keep (µs, of a job that is cancelled)
-- returns: { -1 no such job, -2 its record cannot be read, else the state that it was in; 1 when the verb was done, 0 when
--          its state forbids it or there was nothing to do; for the mark of a running job: its worker and token }
local id, verb, keep = ARGV[2], ARGV[3], ARGV[4]
local s = find(id)
if s == nil then
    return { -1, 0 }
elseif not s then
    return { -2, 0 }
end
local was, terminal = s.state, s.state >= SUCCEEDED
if verb == 'cancel' then
    if was == RUNNING then
        if s.cancel == 0 then
            s.cancel = 1
            redis.call('HSET', STATES, id, pack_state(s))
            announce('j')
        end
        return { was, 1, s.worker, s.token }
    elseif terminal then
        return { was, 0 }
    end
    conclude(id, s, CANCELLED, 0, '', '', keep)
    flush()
    announce('j')
elseif verb == 'retry' then
    if was ~= FAILED and was ~= CANCELLED then
        return { was, 0 }
    end
    if s.worker ~= '' then
        archive(id, s, s.outcome, s.version, s.state == FAILED and s.text or '', s.finished)
    end
    leave(id, s)
    s.state, s.attempt, s.run_at, s.suspect, s.charged, s.uncharged, s.worker, s.token, s.outcome, s.started,
        s.finished, s.reason, s.text = QUEUED, 0, now, 0, 0, 0, '', NO_TOKEN, 0, 0, 0, '', ''
    push(removed, PROGRESS, id)
    enter(id, s)
    flush()
    announce('wj')
else
    if was == RUNNING then
        return { was, 0 }
    end
    leave(id, s)
    forget(id)
    flush()
    announce('j')
end
return { was, 1 }
