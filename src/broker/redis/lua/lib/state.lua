-- A job is two records: its input (`JOBS`, never changed: see `codec.rs`) and its state (`STATES`). A job that is fresh,
-- queued and never claimed has no state record: nothing but its input and its place in line.
local SCHEDULED, QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = 0, 1, 2, 3, 4, 5
-- Outcomes are stored plus one; 0 is none.
local RELEASED, LOST, CANCEL_OUTCOME = 4, 5, 6
local NO_TOKEN = ('\0'):rep(8)
-- A minute per step of priority, µs.
local STEP = 60000000
-- What a record needs besides its texts, roughly: its places in the indexes.
local OVERHEAD = 300
local INPUT = '>BI7I4BI6Bc0'
local STATE = '>BBBBBI4I4BBBc8I7I7I7I7I7I5I5BBc0Bc0Bc0I2c0'

local function pack_state(s)
    return struct.pack(STATE, 1, s.state, s.cancel, s.suspect, s.outcome, s.attempt, s.lost, s.charged, s.uncharged,
        s.past, s.token, s.run_at, s.started, s.deadline, s.finished, s.rank, s.bytes, s.ended, s.prio,
        #s.name, s.name, #s.worker, s.worker, #s.version, s.version, #s.reason, s.reason) .. s.text
end

local function unpack_state(raw)
    local s, v, at = {}, nil, nil
    v, s.state, s.cancel, s.suspect, s.outcome, s.attempt, s.lost, s.charged, s.uncharged, s.past, s.token, s.run_at,
        s.started, s.deadline, s.finished, s.rank, s.bytes, s.ended, s.prio, s.name, s.worker, s.version, s.reason, at =
        struct.unpack(STATE, raw)
    if v ~= 1 or s.state > CANCELLED then
        error('unknown record')
    end
    s.text = raw:sub(at)
    return s
end

-- The state of a job that has no state record.
local function fresh(record)
    local v, created, lag, prio, _, name = struct.unpack(INPUT, record)
    if v ~= 1 then
        error('unknown record')
    end
    return {
        fresh = true, state = QUEUED, cancel = 0, suspect = 0, outcome = 0, attempt = 0, lost = 0, charged = 0,
        uncharged = 0, past = 0, token = NO_TOKEN, run_at = created, started = 0, deadline = 0, finished = 0,
        rank = created + lag, bytes = #record + OVERHEAD, ended = 0, prio = prio, name = name, worker = '',
        version = '', reason = '', text = '',
    }
end

-- Each answers nil for a record that cannot be read.
local function read_state(raw)
    local ok, s = pcall(unpack_state, raw)
    return ok and s or nil
end

local function read_fresh(record)
    local ok, s = pcall(fresh, record)
    return ok and s or nil
end

-- The state of a job: nil when there is none, false when its record cannot be read.
local function find(id)
    local raw = redis.call('HGET', STATES, id)
    if raw then
        return read_state(raw) or false
    end
    local record = redis.call('HGET', JOBS, id)
    if record then
        return read_fresh(record) or false
    end
    return nil
end
