-- Old entries lie in archive segments: sealed files in the folder `archive`, one row each. The layout is told in
-- `keyward-store/src/archive.rs`.
CREATE TABLE audit_archive (
    first  INTEGER PRIMARY KEY NOT NULL, -- sequence number of the first entry, and of the last one
    last   INTEGER NOT NULL,
    prev   BLOB NOT NULL,                -- link of the first entry
    mac    BLOB NOT NULL,                -- MAC of the last entry
    id     BLOB NOT NULL,                -- 16 bytes, random: names the file and its key
    pieces BLOB NOT NULL,                -- what each piece of the file holds
    digest BLOB NOT NULL,                -- SHA-256 of the file
    seal   BLOB NOT NULL                 -- MAC over all of this, under the audit key
) STRICT;

-- The cells of a block count uses besides entries, so that the tables of the review are made anew when the vault is opened.
INSERT INTO meta (key, value) VALUES ('audit.unindexed', x'') ON CONFLICT (key) DO NOTHING;
