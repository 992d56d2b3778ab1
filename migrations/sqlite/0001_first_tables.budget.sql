-- What is written often and may lose its last moments when the power fails (never when the process dies).

CREATE TABLE document (
    kind    TEXT    NOT NULL,
    shard   INTEGER NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, shard, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE index_entry (
    name   TEXT    NOT NULL,
    shard  INTEGER NOT NULL,
    member TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (name, shard, member)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX index_entry_by_time ON index_entry (name, shard, at, member);

CREATE TABLE scratch (
    key     TEXT    NOT NULL PRIMARY KEY,
    value   BLOB    NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX scratch_by_expiry ON scratch (expires);
