CREATE TABLE job (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    lane       TEXT    NOT NULL,
    due_at     INTEGER NOT NULL,            -- microseconds since the epoch
    deliveries INTEGER NOT NULL DEFAULT 0,  -- how often it was claimed
    claimed    INTEGER NOT NULL DEFAULT 0,
    body       BLOB    NOT NULL
);
CREATE INDEX job_by_due ON job (claimed, lane, due_at, seq);
CREATE TABLE dead (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    lane   TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    body   BLOB    NOT NULL
);
