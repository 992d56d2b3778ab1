-- Times and positions are microseconds since the epoch. Hashes, lookup keys, generations and fences use all 64 bits and
-- are stored as the signed integer of the same bits.

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

-- Numbers are never used twice, so that what is left of a dropped snapshot cannot be taken for a new one's.
CREATE TABLE snapshot (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    account    TEXT    NOT NULL,
    stream     TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    fence      INTEGER NOT NULL,
    ready      INTEGER NOT NULL,
    watermark  INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    progress   BLOB    NOT NULL,
    committed  INTEGER NOT NULL,
    fresh      INTEGER NOT NULL,
    UNIQUE (account, stream)
) STRICT;

-- Snapshots whose rows wait to be deleted in small pieces.
CREATE TABLE dropped_snapshot (
    number INTEGER PRIMARY KEY
) STRICT;

-- Finished JSON in the order in which pages are read.
CREATE TABLE body (
    snapshot INTEGER NOT NULL,
    position INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    json     BLOB    NOT NULL,
    PRIMARY KEY (snapshot, position)
) STRICT, WITHOUT ROWID;

-- What is known of an id. Position 0 is a tombstone. `keys`: eight bytes a lookup key.
CREATE TABLE record (
    snapshot INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    position INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    observed INTEGER NOT NULL,
    hash     INTEGER NOT NULL,
    keys     BLOB    NOT NULL,
    PRIMARY KEY (snapshot, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tombstone ON record (snapshot, observed) WHERE position = 0;

CREATE TABLE lookup (
    snapshot INTEGER NOT NULL,
    key      INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    PRIMARY KEY (snapshot, key, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE dirty (
    account TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    mark    INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX dirty_by_mark ON dirty (account, mark);

-- The highest mark ever given, over all accounts: a number is not used again after its id was cleared.
CREATE TABLE dirty_mark (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO dirty_mark (one, last) VALUES (1, 0);
