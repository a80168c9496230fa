-- What the review looks entries up by, instead of reading every body. It follows from `audit` alone, and is compared with it by
-- verification. A block is 512 sequence numbers (seq / 512); it is written in the transaction that makes the first entry of the
-- next one, so that there is nothing about the newest.

-- The cells of each block: how many entries of an hour have the same fields, and between which sequence numbers they lie. The
-- layout is told in `keyward-store/src/index.rs`.
CREATE TABLE audit_block (
    block INTEGER PRIMARY KEY NOT NULL,
    cells BLOB NOT NULL
) STRICT;

-- In which blocks a run has entries, and between which sequence numbers.
CREATE TABLE audit_run (
    run   TEXT NOT NULL,
    block INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    PRIMARY KEY (run, block)
) STRICT, WITHOUT ROWID;

-- While this is there, the tables above are made anew when the vault is opened.
INSERT INTO meta (key, value) VALUES ('audit.unindexed', x'');
