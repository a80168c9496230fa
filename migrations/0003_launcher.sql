-- Launchers: saved commands with the profiles that they run with. The body is the broker's and holds no secret.
CREATE TABLE launcher (
    id          BLOB PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL UNIQUE,
    body        TEXT NOT NULL,
    created_at  INTEGER NOT NULL, -- µs since 1970 UTC
    updated_at  INTEGER NOT NULL,
    launched_at INTEGER           -- the last launch; NULL before the first
) STRICT;
