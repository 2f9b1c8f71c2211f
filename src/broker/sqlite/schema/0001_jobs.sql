-- Times and durations are microseconds, ids 16 bytes, states the numbers of `row.rs`.
-- No foreign keys: every write goes through the verbs, which keep the tables together.

CREATE TABLE queues (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    paused      INTEGER NOT NULL DEFAULT 0,
    -- Sum of jobs.ended_bytes of this queue.
    ended_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE names (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- Where a job stands. Small and rewritten at every change; what was submitted is in `inputs`.
CREATE TABLE jobs (
    seq          INTEGER PRIMARY KEY,
    v            INTEGER NOT NULL,               -- version of this record
    id           BLOB    NOT NULL UNIQUE,
    queue        INTEGER NOT NULL,
    name         INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    score        INTEGER NOT NULL,
    suspect      INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    run_at       INTEGER NOT NULL,               -- due, or ready since
    timeout      INTEGER NOT NULL,
    attempt      INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    lost         INTEGER NOT NULL DEFAULT 0,
    charged      INTEGER NOT NULL DEFAULT 0,
    uncharged    INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL,               -- of the input, the log and archived attempts
    ended_bytes  INTEGER NOT NULL DEFAULT 0,     -- of the whole, once it has ended
    -- The run under way, or the last one of an ended job; earlier ones are in `attempts`.
    worker       TEXT    NOT NULL DEFAULT '',
    token        INTEGER NOT NULL DEFAULT 0,
    deadline     INTEGER NOT NULL DEFAULT 0,
    cancel       INTEGER NOT NULL DEFAULT 0,
    outcome      INTEGER,
    started_at   INTEGER,
    finished_at  INTEGER,
    expires      INTEGER,
    version      TEXT,
    reason       TEXT,
    progress     TEXT,
    result       TEXT,
    error        TEXT
) STRICT;

-- The line of each queue, per type, so that a type nobody has is stepped over.
CREATE INDEX queued    ON jobs (queue, suspect, name, score) WHERE state = 1;
CREATE INDEX scheduled ON jobs (queue, run_at) WHERE state = 0;
CREATE INDEX running   ON jobs (worker, deadline) WHERE state = 2;
CREATE INDEX marked    ON jobs (worker) WHERE cancel = 1;
CREATE INDEX expiring  ON jobs (expires) WHERE expires IS NOT NULL;
CREATE INDEX ended     ON jobs (queue, finished_at) WHERE state >= 3;
-- Every list by queue, name and state is a merge of runs of this one.
CREATE INDEX listed    ON jobs (queue, name, state);

-- What was submitted; never changes.
CREATE TABLE inputs (
    seq          INTEGER PRIMARY KEY,
    payload      TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    tags         TEXT,
    checked_with TEXT,
    parent       BLOB,
    depth        INTEGER NOT NULL
) STRICT;

-- How many jobs there are; changed with them, once per commit.
CREATE TABLE counts (
    queue INTEGER NOT NULL,
    name  INTEGER NOT NULL,
    state INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (queue, name, state)
) STRICT, WITHOUT ROWID;

-- Runs before the one in `jobs`.
CREATE TABLE attempts (
    job         INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    worker      TEXT    NOT NULL,
    version     TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome     INTEGER NOT NULL,
    error       TEXT,
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
    job  INTEGER NOT NULL,
    name TEXT    NOT NULL,
    info TEXT    NOT NULL,
    PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
    job     INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    time    INTEGER NOT NULL,
    level   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    message TEXT    NOT NULL,
    fields  TEXT,
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_heads (
    job     INTEGER PRIMARY KEY,
    last    INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    dropped INTEGER NOT NULL
) STRICT;

CREATE TABLE keys (
    key     TEXT    PRIMARY KEY,
    job     BLOB    NOT NULL,
    hash    BLOB    NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_expiring ON keys (expires);

-- A worker that left or was swept stays here for a while, so that its id never comes back to life.
CREATE TABLE workers (
    id          TEXT    PRIMARY KEY,
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    gone        INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE types (
    name INTEGER PRIMARY KEY,
    live TEXT    NOT NULL,
    keep INTEGER NOT NULL                        -- of the live version, for jobs that end without a worker
) STRICT;

CREATE TABLE type_versions (
    name     INTEGER NOT NULL,
    version  TEXT    NOT NULL,
    job_type TEXT    NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE loaded (
    worker    TEXT    NOT NULL,
    name      INTEGER NOT NULL,
    version   TEXT    NOT NULL,
    loaded_at INTEGER NOT NULL,
    PRIMARY KEY (worker, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE refused (
    worker TEXT NOT NULL,
    name   TEXT NOT NULL,
    info   TEXT NOT NULL,
    PRIMARY KEY (worker, name)
) STRICT, WITHOUT ROWID;

-- Records that could not be read, as JSON, for a look by hand.
CREATE TABLE quarantine (
    at     INTEGER NOT NULL,
    why    TEXT    NOT NULL,
    record TEXT    NOT NULL
) STRICT;

CREATE TABLE pinged (at INTEGER NOT NULL) STRICT;
INSERT INTO pinged VALUES (0);
