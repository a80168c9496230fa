//! Issuers: one module per kind of source that makes credentials.
