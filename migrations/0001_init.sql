-- Never edited after a release: the program refuses a vault whose applied migrations differ from its own.

-- Facts of the vault (`vault.…`), of its log (`audit.…`) and of the broker.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

-- Secrets and keys, each sealed by itself; names are protected by the encryption of the whole file.
CREATE TABLE item (
    id         BLOB PRIMARY KEY NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL, -- µs since 1970 UTC
    updated_at INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    UNIQUE (kind, name)
) STRICT;

CREATE TABLE profile (
    id         BLOB PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL UNIQUE,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Live runs only; a row is removed on proof of exit.
CREATE TABLE run (
    id   BLOB PRIMARY KEY NOT NULL,
    body TEXT NOT NULL
) STRICT;

-- The log. `body` is canonical JSON; `mac` covers seq, prev and body.
CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY NOT NULL,
    body BLOB NOT NULL,
    prev BLOB NOT NULL,
    mac  BLOB NOT NULL
) STRICT;
