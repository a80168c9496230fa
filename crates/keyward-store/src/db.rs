//! The connection to SQLCipher: keying, pragmas, errors, and the few calls that sqlx has no words for.
//!
//! The raw key goes in through `sqlite3_key_v2` in the form `x'…'` (64 hexadecimal digits, no second derivation) from a buffer
//! which is wiped: a `PRAGMA key` would leave copies in logs and on the heap. One connection per file, with the lock of the
//! file held for its whole life (`locking_mode=EXCLUSIVE`, so that write-ahead logging needs no shared memory file).
#![expect(unsafe_code, reason = "keying and row stepping have no safe interface")]

use crate::error::StoreError;
use crate::model::Link;
use keyward_secret::Key32;
use libsqlite3_sys as ffi;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{LockedSqliteHandle, SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row, SqlSafeStr};
use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::path::Path;
use zeroize::Zeroize;

/// Page size of SQLCipher 4.
pub(crate) const PAGE_BYTES: u64 = 4096;

const SCHEMA: &[(i64, &str, &str)] = &[
    (1, "init", include_str!("../../../migrations/0001_init.sql")),
    (2, "review", include_str!("../../../migrations/0002_review.sql")),
    (3, "launcher", include_str!("../../../migrations/0003_launcher.sql")),
    (4, "archive", include_str!("../../../migrations/0004_archive.sql")),
    (5, "grant", include_str!("../../../migrations/0005_grant.sql")),
    (6, "run", include_str!("../../../migrations/0006_run.sql")),
];

/// Opens an existing, perhaps empty, file for writing.
pub(crate) async fn connect(path: &Path, key: &Key32) -> Result<SqliteConnection, StoreError> {
    let mut conn = keyed(SqliteConnectOptions::new().filename(path), key).await?;
    conn.execute(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -2000; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = ON;
         PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
    )
    .await?;
    probe(&mut conn).await?;
    #[cfg(feature = "fault-points")]
    points(&mut conn).await?;
    Ok(conn)
}

/// The points inside of a transaction: when an entry of the log was written, and when all was but is not committed.
#[cfg(feature = "fault-points")]
async fn points(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut handle = conn.lock_handle().await?;
    handle.set_update_hook(|row| {
        if row.table == "audit" {
            crate::fault::fault("commit.mid");
        }
    });
    handle.set_commit_hook(|| {
        crate::fault::fault("commit.entries");
        true
    });
    Ok(())
}

/// Whether a file opens under this key. Leaves no file behind and changes nothing.
pub(crate) async fn opens(path: &Path, key: &Key32) -> bool {
    let Ok(mut conn) = keyed(SqliteConnectOptions::new().filename(path).immutable(true), key).await else {
        return false;
    };
    let opened = probe(&mut conn).await.is_ok();
    opened & conn.close().await.is_ok()
}

/// Encrypts a file anew under another key, in place. A crash in the middle leaves it unusable: for copies only.
pub(crate) async fn rekey(path: &Path, old: &Key32, new: &Key32) -> Result<(), StoreError> {
    let mut conn = keyed(SqliteConnectOptions::new().filename(path), old).await?;
    // Without a write-ahead log there is no second file whose pages stay under the old key.
    conn.execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE").await?;
    probe(&mut conn).await?;
    set_key(&mut conn, new, ffi::sqlite3_rekey_v2).await?;
    probe(&mut conn).await?;
    Ok(conn.close().await?)
}

/// Applies the migrations that are missing.
pub(crate) async fn migrate(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let known = SCHEMA.iter().map(|(version, name, sql)| {
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    match Migrator::with_migrations(known.collect()).run_direct(None, conn, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(StoreError::SchemaNewer(version)),
        Err(MigrateError::VersionMismatch(version) | MigrateError::Dirty(version)) => {
            Err(StoreError::SchemaChanged(version))
        }
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => Err(e.into()),
        Err(e) => Err(StoreError::Database(e.to_string())),
    }
}

/// Whether no transaction is open.
pub(crate) async fn is_idle(conn: &mut SqliteConnection) -> Result<bool, StoreError> {
    let mut raw = raw(conn).await?;
    let db = raw.0.as_raw_handle().as_ptr();
    // SAFETY: the handle is valid and the worker thread is locked out while `raw` lives.
    Ok(unsafe { ffi::sqlite3_get_autocommit(db) } != 0)
}

/// A parameter of [`Raw::scan`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'v> {
    Int(i64),
    Text(&'v str),
}

/// The current row of a statement, lent for the time of a call. Columns count from 0; one of another type reads as 0 or empty.
#[derive(Clone, Copy)]
pub(crate) struct RawRow<'r> {
    stmt: *mut ffi::sqlite3_stmt,
    lent: PhantomData<&'r ()>,
}

impl<'r> RawRow<'r> {
    pub(crate) fn int(self, at: c_int) -> i64 {
        // SAFETY: the statement stands on a row while this value lives, as [`Raw::scan`] alone makes it.
        unsafe { ffi::sqlite3_column_int64(self.stmt, at) }
    }

    pub(crate) fn blob(self, at: c_int) -> &'r [u8] {
        // SAFETY: as above; the bytes live until the next step, which the row cannot outlive. A null pointer comes with length 0.
        unsafe {
            let start = ffi::sqlite3_column_blob(self.stmt, at).cast::<u8>();
            let len = usize::try_from(ffi::sqlite3_column_bytes(self.stmt, at)).unwrap_or(0);
            if start.is_null() { &[] } else { std::slice::from_raw_parts(start, len) }
        }
    }

    pub(crate) fn text(self, at: c_int) -> &'r str {
        std::str::from_utf8(self.blob(at)).unwrap_or_default()
    }
}

/// The database while the worker thread of the connection is locked out: statements are stepped on the calling thread, since
/// decoding rows through the worker takes several times as long. Others wait, so hold it for milliseconds only.
pub(crate) struct Raw<'c>(LockedSqliteHandle<'c>);

/// Locks the worker thread out.
pub(crate) async fn raw(conn: &mut SqliteConnection) -> Result<Raw<'_>, StoreError> {
    // Each lock is a command in a bounded queue, which the worker takes out only while it holds the lock itself. The answer to
    // a ping shows that the queue is empty: a caller who is quicker than the worker would fill it, and both wait for ever.
    conn.ping().await?;
    Ok(Raw(conn.lock_handle().await?))
}

impl Raw<'_> {
    /// Gives the rows of a query to `each` until it breaks; says whether it did.
    pub(crate) fn scan(
        &mut self,
        sql: &'static CStr,
        parameters: &[Value<'_>],
        mut each: impl FnMut(RawRow<'_>) -> ControlFlow<()>,
    ) -> Result<bool, StoreError> {
        let db = self.0.as_raw_handle().as_ptr();
        let mut stmt = std::ptr::null_mut();
        // SAFETY: the handle is valid and locked for the whole block; the statement is finalised before the block ends on every
        // path, SQLite copies the texts that are bound, and no row outlives the call of `each` that it is lent to.
        let (code, broke) = unsafe {
            let mut code = ffi::sqlite3_prepare_v2(db, sql.as_ptr(), -1, &raw mut stmt, std::ptr::null_mut());
            for (at, value) in (1..).zip(parameters) {
                if code == ffi::SQLITE_OK {
                    code = match value {
                        Value::Int(n) => ffi::sqlite3_bind_int64(stmt, at, *n),
                        Value::Text(text) => {
                            let len = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
                            ffi::sqlite3_bind_text(stmt, at, text.as_ptr().cast(), len, ffi::SQLITE_TRANSIENT())
                        }
                    };
                }
            }
            let mut broke = false;
            while !broke && matches!(code, ffi::SQLITE_OK | ffi::SQLITE_ROW) {
                code = ffi::sqlite3_step(stmt);
                broke = code == ffi::SQLITE_ROW && each(RawRow { stmt, lent: PhantomData }).is_break();
            }
            ffi::sqlite3_finalize(stmt);
            (code, broke)
        };
        if broke || code == ffi::SQLITE_DONE { Ok(broke) } else { Err(of_code(code, format!("SQLite code {code}"))) }
    }

    /// Gives up to `limit` entries from `first` on to `each`, in order, and returns the number of the last one.
    pub(crate) fn links(
        &mut self,
        first: i64,
        limit: u32,
        mut each: impl FnMut(RawLink<'_>),
    ) -> Result<Option<i64>, StoreError> {
        let sql = c"SELECT seq, prev, mac, body FROM audit WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
        let mut last = None;
        self.scan(sql, &[Value::Int(first), Value::Int(i64::from(limit))], |row| {
            let link = RawLink::of(row);
            last = Some(link.seq);
            each(link);
            ControlFlow::Continue(())
        })?;
        Ok(last)
    }
}

/// One stored entry, borrowed from SQLite for the time of a call, or from a piece of the archive.
pub(crate) struct RawLink<'r> {
    pub(crate) seq: i64,
    pub(crate) prev: &'r [u8],
    pub(crate) mac: &'r [u8],
    pub(crate) body: &'r [u8],
}

impl<'r> RawLink<'r> {
    /// Reads a row of `seq, prev, mac, body`.
    pub(crate) fn of(row: RawRow<'r>) -> Self {
        Self { seq: row.int(0), prev: row.blob(1), mac: row.blob(2), body: row.blob(3) }
    }

    /// A copy.
    pub(crate) fn to_link(&self) -> Link {
        Link {
            seq: u64::try_from(self.seq).unwrap_or(0),
            prev: self.prev.to_vec(),
            mac: self.mac.to_vec(),
            body: self.body.to_vec(),
        }
    }
}

async fn keyed(options: SqliteConnectOptions, key: &Key32) -> Result<SqliteConnection, StoreError> {
    let options = options.disable_statement_logging().statement_cache_capacity(40);
    let mut conn = options.connect().await?;
    // SQLCipher writes failures to standard error otherwise.
    conn.execute("PRAGMA cipher_log_level = NONE").await?;
    set_key(&mut conn, key, ffi::sqlite3_key_v2).await?;
    Ok(conn)
}

type KeyCall =
    unsafe extern "C" fn(*mut ffi::sqlite3, *const std::ffi::c_char, *const std::ffi::c_void, c_int) -> c_int;

async fn set_key(conn: &mut SqliteConnection, key: &Key32, call: KeyCall) -> Result<(), StoreError> {
    let mut locked = conn.lock_handle().await?;
    let db = locked.as_raw_handle().as_ptr();
    let mut text = [0u8; 67];
    text[..2].copy_from_slice(b"x'");
    text[66] = b'\'';
    // EXPOSE: the raw key form of SQLCipher, wiped below.
    let encoded = key.expose(|k| hex::encode_to_slice(k, &mut text[2..66]));
    // SAFETY: the handle is valid and locked; SQLCipher copies the 67 bytes before it returns.
    let code = unsafe { call(db, c"main".as_ptr(), text.as_ptr().cast(), 67) };
    text.zeroize();
    match (encoded, code) {
        (Ok(()), ffi::SQLITE_OK) => Ok(()),
        _ => Err(of_code(code, "the key was refused".to_owned())),
    }
}

/// A wrong key shows at the first read only.
async fn probe(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    conn.fetch_one("SELECT count(*) FROM sqlite_master").await?;
    Ok(())
}

/// The lines of a pragma that reports as text.
pub(crate) async fn lines(conn: &mut SqliteConnection, pragma: &'static str) -> Result<Vec<String>, StoreError> {
    let rows = conn.fetch_all(pragma).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn of_code(code: c_int, text: String) -> StoreError {
    match code & 0xff {
        ffi::SQLITE_FULL => StoreError::DiskFull,
        // SQLCipher reports a wrong key and a damaged page as any of these.
        ffi::SQLITE_NOMEM | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => StoreError::Damaged(text),
        ffi::SQLITE_BUSY => StoreError::InUse("vault.db".into()),
        _ if code == ffi::SQLITE_CONSTRAINT_UNIQUE => StoreError::NameTaken,
        _ => StoreError::Database(text),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse().ok());
        match code {
            Some(code) => of_code(code, error.to_string()),
            None => Self::Database(error.to_string()),
        }
    }
}
