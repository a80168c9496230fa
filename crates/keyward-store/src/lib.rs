//! The vault on disk: SQLCipher through sqlx, the slot file and the anchor.
