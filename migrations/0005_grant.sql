-- Grants: what a person allowed. The body is the broker's and holds no secret.
CREATE TABLE grant (
    id   BLOB PRIMARY KEY NOT NULL, -- 5 bytes
    body TEXT NOT NULL
) STRICT;
