//! The open vault: making, opening, committing, reading.

use crate::anchor::{self, AnchorWriter};
use crate::archive::{Archive, Segment as ArchiveSegment};
use crate::db;
use crate::error::StoreError;
use crate::fault::fault;
use crate::index::{self, Block, META_UNINDEXED, ROWS_MAX};
use crate::model::{Changes, Grant, Health, Item, ItemInfo, Launcher, Link, Profile, Run, Write};
use crate::paths::{Paths, VaultLock, create_private, load_slots, publish, remove_if_there, save_slots, sync_folder};
use keyward_core::audit::{BODY_MAX_BYTES, Draft, Head, Problem, ProblemKind, Segment, Verifier, body, compare_anchor};
use keyward_crypto::{
    ANCHOR_SLOT_BYTES, Anchor, AnchorFile, AnchorKey, ArchiveKey, ChainKey, ExportError, ExportKey, ItemRef, SealError,
    SlotFile, VaultKey, make_array, open, seal,
};
use keyward_secret::{Key32, SecretBytes};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Connection, Executor, FromRow, Row, query_with};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// Kind and name of the sealed Ed25519 seed with which exports are signed.
pub(crate) const EXPORT_KEY: (&str, &str) = ("export-key", "export");

pub(crate) const META_ID: &str = "vault.id";
pub(crate) const META_EPOCH: &str = "vault.epoch";
/// The problems that were found and not accepted, as JSON; empty where there are none.
pub(crate) const META_BROKEN: &str = "audit.broken";
/// Former audit keys: `audit.former.` and the last sequence number, in 20 digits; sealed under the audit key.
pub(crate) const META_FORMER: &str = "audit.former.";

/// Links that are checked when the vault is opened.
const TAIL: u64 = 1000;

/// An open vault: one connection, one writer. All methods take `&self`; share it in an `Arc`. The keys that it holds are
/// wiped when the last handle goes.
#[derive(Debug)]
pub struct Store {
    pub(crate) inner: Arc<Mutex<Inner>>,
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) paths: Paths,
    pub(crate) keys: Arc<Keys>,
    /// Held while entries are moved into the archive, or must stay where they are.
    pub(crate) moving: Arc<Mutex<()>>,
}

/// What the log needs, and no more: the seal key is never here.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) vault_id: [u8; 16],
    pub(crate) chain: ChainKey,
    pub(crate) former: Vec<Segment>,
    pub(crate) anchor: Arc<AnchorKey>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    conn: Option<SqliteConnection>,
    path: PathBuf,
    unusable: &'static str,
    pub(crate) head: Head,
    pub(crate) epoch: u64,
    /// `None` while the log is broken: the anchor stays as it is, as evidence.
    pub(crate) anchor: Option<AnchorWriter>,
    /// Device and inode of the database when it was opened.
    file: (u64, u64),
    pub(crate) remembered: Vec<Problem>,
    /// The lookup block of the newest entry; counted anew where it is not here.
    newest: Option<Block>,
    pub(crate) archive: Archive,
}

impl Store {
    /// Makes a vault and leaves it open. `slots` was made by [`SlotFile::create`] with `key`; `entry` becomes the first entry
    /// of the log (kind `vault.initialised`) and names the public export key in its detail `export_key`. The export key itself
    /// is sealed as the item `export` of kind `export-key`.
    ///
    /// Everything is written under other names first; writing `vault.slots` is the commit point, so that an interrupted
    /// call leaves no vault, and the next one clears what it left.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub async fn create(lock: &VaultLock, slots: &SlotFile, key: &VaultKey, entry: Draft) -> Result<Self, StoreError> {
        let paths = lock.paths();
        match load_slots(paths) {
            Err(StoreError::Absent(_)) => {}
            Ok(_) => return Err(StoreError::Exists(paths.data.clone())),
            Err(e) => return Err(e),
        }
        let staged = stage_new(paths, slots, key, entry).await;
        if staged.is_err() {
            clear_staged(paths)?;
        }
        staged?;
        save_slots(lock, slots)?;
        Ok(Self::open(lock, slots, key).await?.0)
    }

    /// Opens the vault, finishes an interrupted rekey or restore, migrates, checks the last 1000 links and compares head and
    /// anchor. A broken log is reported and remembered; the vault opens all the same.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] (wrong key or damaged file), [`StoreError::SchemaNewer`], [`StoreError::SchemaChanged`],
    /// [`StoreError::Io`].
    pub async fn open(lock: &VaultLock, slots: &SlotFile, key: &VaultKey) -> Result<(Self, Health), StoreError> {
        let paths = lock.paths().clone();
        let db_key = key.derive_db();
        finish_staged(&paths, &db_key).await?;
        drop(db_key);
        let mut inner = Inner::open(&paths.db(), &slots.vault_id(), key).await?;
        let keys = inner.keys(&slots.vault_id(), key).await?;
        let verdict = inner.compare(&paths, &keys).await?;
        let mut problems = inner.check_tail(&keys).await?;
        problems.extend(verdict.problem);
        if slots.epoch() > inner.epoch {
            problems.push(Problem::new(inner.head.seq, ProblemKind::AnchorOtherEpoch));
        }
        problems.retain(|p| !p.accepted);
        let broken = inner.remember(problems).await;
        if !broken {
            inner.anchor = AnchorWriter::open(&paths.anchor(), Arc::clone(&keys.anchor))?;
            // A file that stays is in nobody's way, and is tried again.
            if let Err(e) = inner.sweep_archive().await {
                tracing::warn!(error = %e, "what an interrupted step left in the archive could not be removed");
            }
        }
        let health = if broken {
            Health::Broken { problems: inner.remembered.clone() }
        } else {
            Health::Sound { past_anchor: verdict.past_anchor }
        };
        let broken = Arc::new(AtomicBool::new(broken));
        let inner = Arc::new(Mutex::new(inner));
        Ok((Self { inner, broken, paths, keys: Arc::new(keys), moving: Arc::default() }, health))
    }

    /// Writes changes and their entries in one transaction, durable on return; then moves the anchor (without fsync, see
    /// [`Store::sync_anchor`]). Returns the sequence numbers of the entries. Goes on to its end when the caller stops
    /// waiting. On an error nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::Unrecorded`], [`StoreError::EntryTooLong`], [`StoreError::NameTaken`], [`StoreError::Reserved`],
    /// [`StoreError::DiskFull`], [`StoreError::Damaged`], [`StoreError::Unusable`].
    pub async fn commit(&self, changes: Changes) -> Result<Vec<u64>, StoreError> {
        let own = |write: &Write| matches!(write, Write::PutMeta(key, _) if key.starts_with("vault.") || key.starts_with("audit."));
        if changes.writes.iter().any(own) {
            return Err(StoreError::Reserved);
        }
        let (inner, keys) = (Arc::clone(&self.inner), Arc::clone(&self.keys));
        // A task of its own, so that a caller who goes away cannot stop between the database and the cached head.
        let task = tokio::spawn(async move { inner.lock().await.commit(&keys, &changes).await });
        task.await.unwrap_or(Err(StoreError::Unusable("a commit did not end")))
    }

    /// Makes the anchor durable; for a timer and for lock. Does nothing while the log is broken.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn sync_anchor(&self) -> Result<(), StoreError> {
        self.inner.lock().await.sync_anchor()
    }

    /// Whether a break was found and not accepted. Deliveries must be refused while it is so.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// End of the log.
    pub async fn head(&self) -> Head {
        self.inner.lock().await.head
    }

    /// Keyed digest of an argument list under the audit key.
    pub fn args_digest<A: AsRef<[u8]>>(&self, argv: &[A]) -> [u8; 32] {
        self.keys.chain.args_digest(argv)
    }

    /// The items of a kind, by name, without their envelopes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Unusable`].
    pub async fn items(&self, kind: &str) -> Result<Vec<ItemInfo>, StoreError> {
        let mut inner = self.inner.lock().await;
        let found = sqlx::query_as(
            "SELECT id, kind, name, generation, created_at, updated_at FROM item WHERE kind = ?1 ORDER BY name",
        );
        Ok(found.bind(kind).fetch_all(inner.conn()?).await?)
    }

    /// One item with its envelope.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn item(&self, kind: &str, name: &str) -> Result<Option<Item>, StoreError> {
        let mut inner = self.inner.lock().await;
        let found = sqlx::query_as("SELECT * FROM item WHERE kind = ?1 AND name = ?2").bind(kind).bind(name);
        Ok(found.fetch_optional(inner.conn()?).await?)
    }

    /// The private export key, opened with the seal key of the vault.
    ///
    /// # Errors
    /// [`StoreError::Seal`] where it is missing or does not open; as [`Store::items`].
    pub async fn export_key(&self, seal_key: &Key32) -> Result<ExportKey, StoreError> {
        let item = self.item(EXPORT_KEY.0, EXPORT_KEY.1).await?.ok_or(SealError::Damaged)?;
        let seed = open(seal_key, &item.info.as_ref(), &item.sealed)?;
        Ok(ExportKey::from_seed(&seed).map_err(|_| SealError::Damaged)?)
    }

    /// All profiles, by name.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        let mut inner = self.inner.lock().await;
        Ok(sqlx::query_as("SELECT * FROM profile ORDER BY name").fetch_all(inner.conn()?).await?)
    }

    /// One profile.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn profile(&self, name: &str) -> Result<Option<Profile>, StoreError> {
        let mut inner = self.inner.lock().await;
        Ok(sqlx::query_as("SELECT * FROM profile WHERE name = ?1").bind(name).fetch_optional(inner.conn()?).await?)
    }

    /// All launchers, by name.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn launchers(&self) -> Result<Vec<Launcher>, StoreError> {
        let mut inner = self.inner.lock().await;
        Ok(sqlx::query_as("SELECT * FROM launcher ORDER BY name").fetch_all(inner.conn()?).await?)
    }

    /// The run table.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let mut inner = self.inner.lock().await;
        Ok(sqlx::query_as("SELECT * FROM run ORDER BY id").fetch_all(inner.conn()?).await?)
    }

    /// All grants.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let mut inner = self.inner.lock().await;
        Ok(sqlx::query_as("SELECT * FROM grant ORDER BY id").fetch_all(inner.conn()?).await?)
    }

    /// A value that was stored by [`Write::PutMeta`].
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.lock().await.meta(key).await
    }

    /// One entry.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn entry(&self, seq: u64) -> Result<Option<Link>, StoreError> {
        self.inner.lock().await.link(seq).await
    }

    /// An anchor of the present end of the log for a place besides the anchor file: the layout of that file, with one slot.
    /// `None` while the log is broken, since an anchor never moves over a break.
    pub async fn second_anchor(&self) -> Option<Vec<u8>> {
        let inner = self.inner.lock().await;
        let anchor = Anchor { vault: self.keys.vault_id, epoch: inner.epoch, seq: inner.head.seq, mac: inner.head.mac };
        let bytes = [vec![0; ANCHOR_SLOT_BYTES], self.keys.anchor.encode(1, &anchor).to_vec()].concat();
        (!self.is_broken()).then_some(bytes)
    }

    /// Compares the log with an anchor of [`Store::second_anchor`] from an earlier time. One that does not match is remembered
    /// as a break. Gives false for one that says nothing: of an earlier epoch (a break was accepted or a backup restored since
    /// it was written), or not readable under this key (the vault was rekeyed or restored since; it is no better than one
    /// that was removed).
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn check_second_anchor(&self, bytes: &[u8]) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock().await;
        let found = self.keys.anchor.newest(bytes);
        match &found {
            AnchorFile::Found { anchor, .. } if anchor.epoch >= inner.epoch => {}
            AnchorFile::Found { .. } | AnchorFile::Damaged => return Ok(false),
        }
        let verdict = inner.compare_with(Some(found), &self.keys).await?;
        let Some(problem) = verdict.problem else { return Ok(true) };
        inner.remember(vec![problem]).await;
        self.broken.store(true, Ordering::Release);
        Ok(true)
    }

    /// Moves the write-ahead log into the database, makes the anchor durable and closes. Every later call gives
    /// [`StoreError::Unusable`]. A second call does nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`]; it is closed all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let synced = inner.sync_anchor();
        inner.close("it is closed").await?;
        synced
    }
}

impl Inner {
    /// Opens a database file of this vault, under whatever name it has at the moment. No anchor yet.
    pub(crate) async fn open(path: &Path, vault_id: &[u8; 16], key: &VaultKey) -> Result<Self, StoreError> {
        let meta = fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => StoreError::Damaged("it is missing".to_owned()),
            _ => StoreError::io("reading", path, e),
        })?;
        // SQLite would take a file without a whole page for a new one, and write into it. A page that is cut off is noticed only
        // once it is read; a write-ahead log may still hold it.
        let logged = beside(path).iter().any(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
        if meta.len() < db::PAGE_BYTES || (meta.len() % db::PAGE_BYTES > 0 && !logged) {
            return Err(StoreError::Damaged("it is cut off".to_owned()));
        }
        let mut conn = db::connect(path, &key.derive_db()).await?;
        // Without its tables it would be made anew, empty, by the migrations.
        let tables = conn.fetch_one("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").await?;
        if tables.try_get::<i64, _>(0)? == 0 {
            return Err(StoreError::Damaged("it is empty".to_owned()));
        }
        db::migrate(&mut conn).await?;
        let folder = path.with_file_name(Paths::ARCHIVE);
        let archive = Archive::load(&mut conn, folder, ArchiveKey::new(key.derive_archive())).await?;
        let mut inner = Self {
            conn: Some(conn),
            path: path.to_owned(),
            unusable: "it is closed",
            head: Head::empty(vault_id),
            epoch: 0,
            anchor: None,
            file: (meta.dev(), meta.ino()),
            remembered: Vec::new(),
            newest: None,
            archive,
        };
        if inner.meta(META_ID).await?.as_deref() != Some(vault_id) {
            return Err(StoreError::Damaged("it belongs to another vault".to_owned()));
        }
        let epoch = inner.meta(META_EPOCH).await?.and_then(|bytes| bytes.try_into().ok());
        inner.epoch = epoch.map(u64::from_be_bytes).ok_or_else(|| StoreError::Damaged("it has no epoch".to_owned()))?;
        let broken = inner.meta(META_BROKEN).await?.unwrap_or_default();
        inner.remembered = serde_json::from_slice(&broken).unwrap_or_default();
        if let Some(head) = inner.stored_head().await? {
            inner.head = head;
        }
        if inner.meta(META_UNINDEXED).await?.is_some() {
            inner.rebuild_index().await?;
        }
        Ok(inner)
    }

    /// The keys of the log, former ones included.
    pub(crate) async fn keys(&mut self, vault_id: &[u8; 16], key: &VaultKey) -> Result<Keys, StoreError> {
        let audit = key.derive_audit();
        let mut former = Vec::new();
        for (upto, bytes) in self.former_keys(&audit).await? {
            former.push(Segment { upto, key: ChainKey::new(&former_key(&bytes)?) });
        }
        let anchor = Arc::new(AnchorKey::new(&key.derive_anchor()));
        Ok(Keys { vault_id: *vault_id, chain: ChainKey::new(&audit), former, anchor })
    }

    /// The former audit keys, in rising order of their last entry.
    pub(crate) async fn former_keys(&mut self, audit: &Key32) -> Result<Vec<(u64, SecretBytes)>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM meta WHERE key LIKE 'audit.former.%' ORDER BY key");
        let rows = rows.fetch_all(self.conn()?).await?;
        let mut keys = Vec::new();
        for row in rows {
            let (name, sealed): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            let upto: u64 = name[META_FORMER.len()..].parse().map_err(|_| SealError::Damaged)?;
            keys.push((upto, open(audit, &former_ref(upto), &sealed)?));
        }
        Ok(keys)
    }

    pub(crate) fn conn(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.conn.as_mut().ok_or(StoreError::Unusable(self.unusable))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file of this name is still the one that was opened.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file)
    }

    pub(crate) async fn close(&mut self, why: &'static str) -> Result<(), StoreError> {
        self.anchor = None;
        self.unusable = why;
        let Some(mut conn) = self.conn.take() else { return Ok(()) };
        let moved = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
        conn.close().await?;
        moved?;
        Ok(())
    }

    pub(crate) async fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.conn()?.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(())
    }

    pub(crate) fn sync_anchor(&mut self) -> Result<(), StoreError> {
        match &mut self.anchor {
            Some(anchor) => anchor.sync(),
            None => Ok(()),
        }
    }

    pub(crate) async fn meta(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query("SELECT value FROM meta WHERE key = ?1").bind(key).fetch_optional(self.conn()?).await?;
        Ok(found.map(|row| row.try_get(0)).transpose()?)
    }

    pub(crate) async fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        put_meta(self.conn()?, key, value).await
    }

    async fn stored_head(&mut self) -> Result<Option<Head>, StoreError> {
        let last: Option<Link> = sqlx::query_as("SELECT seq, prev, mac, body FROM audit ORDER BY seq DESC LIMIT 1")
            .fetch_optional(self.conn()?)
            .await?;
        Ok(last.map(|link| Head { seq: link.seq, mac: link.mac.try_into().unwrap_or_default() }))
    }

    /// Compares the end of the log with the anchor file.
    pub(crate) async fn compare(
        &mut self,
        paths: &Paths,
        keys: &Keys,
    ) -> Result<keyward_core::audit::AnchorVerdict, StoreError> {
        let file = anchor::read(&paths.anchor())?.map(|bytes| keys.anchor.newest(&bytes));
        self.compare_with(file, keys).await
    }

    async fn compare_with(
        &mut self,
        file: Option<keyward_crypto::AnchorFile>,
        keys: &Keys,
    ) -> Result<keyward_core::audit::AnchorVerdict, StoreError> {
        let at_anchor = match &file {
            Some(keyward_crypto::AnchorFile::Found { anchor, .. }) if anchor.seq == 0 => {
                Some(Head::empty(&keys.vault_id).mac)
            }
            Some(keyward_crypto::AnchorFile::Found { anchor, .. }) => {
                self.link(anchor.seq).await?.and_then(|link| link.mac.try_into().ok())
            }
            Some(keyward_crypto::AnchorFile::Damaged) | None => None,
        };
        Ok(compare_anchor(file.as_ref(), &keys.vault_id, self.epoch, self.head, at_anchor))
    }

    async fn check_tail(&mut self, keys: &Keys) -> Result<Vec<Problem>, StoreError> {
        let before = self.head.seq.saturating_sub(TAIL);
        let start = if before == 0 {
            Head::empty(&keys.vault_id)
        } else {
            match self.link(before).await? {
                Some(link) => Head { seq: before, mac: link.mac.try_into().unwrap_or_default() },
                // The number is missing: the gap shows when the next one is pushed.
                None => Head { seq: before - 1, mac: [0; 32] },
            }
        };
        let mut verifier = Verifier::new(start, &keys.former, &keys.chain);
        db::raw(self.conn()?).await?.links(stored_u64(start.seq) + 1, u32::MAX, |link| {
            let _ = verifier.push(u64::try_from(link.seq).unwrap_or(0), link.prev, link.mac, link.body);
        })?;
        Ok(verifier.finish().problems)
    }

    /// Adds problems to those remembered, and says whether there are any. What cannot be written is remembered in memory.
    pub(crate) async fn remember(&mut self, problems: Vec<Problem>) -> bool {
        let before = self.remembered.len();
        for problem in problems {
            if !self.remembered.iter().any(|known| known.is_same(&problem))
                && self.remembered.len() < keyward_core::audit::PROBLEMS_MAX
            {
                self.remembered.push(problem);
            }
        }
        if self.remembered.len() > before {
            self.anchor = None;
            let text = serde_json::to_vec(&self.remembered).unwrap_or_default();
            if let Err(e) = self.put_meta(META_BROKEN, &text).await {
                tracing::warn!(error = %e, "a break of the log could not be written down");
            }
        }
        !self.remembered.is_empty()
    }

    pub(crate) async fn commit(&mut self, keys: &Keys, changes: &Changes) -> Result<Vec<u64>, StoreError> {
        self.commit_moving(keys, changes, None).await
    }

    /// Commits, and in the same transaction puts the checkpoint of a segment in place of its entries.
    pub(crate) async fn commit_moving(
        &mut self,
        keys: &Keys,
        changes: &Changes,
        moved: Option<&ArchiveSegment>,
    ) -> Result<Vec<u64>, StoreError> {
        if changes.entries.is_empty() {
            return Err(StoreError::Unrecorded);
        }
        self.conn()?;
        if !self.is_in_place() {
            return Err(StoreError::Damaged("its file was replaced while it was open".to_owned()));
        }
        if let Some(anchor) = &mut self.anchor {
            anchor.catch_up()?;
        }
        fault("commit.before");
        let mut head = self.head;
        let mut links = Vec::with_capacity(changes.entries.len());
        for draft in &changes.entries {
            let (seq, prev) = (head.seq + 1, head.mac);
            let body = body(seq, draft);
            if body.len() > BODY_MAX_BYTES {
                return Err(StoreError::EntryTooLong(body.len()));
            }
            head = Head { seq, mac: keys.chain.mac(seq, &prev, &body) };
            links.push(Link { seq, prev: prev.to_vec(), mac: head.mac.to_vec(), body });
        }
        let written = async {
            // Not there until it is written.
            let mut newest = self.take_newest().await?;
            let finished = index::count(&mut newest, links.iter().map(|link| (stored_u64(link.seq), &link.body[..])));
            write_all(self.conn()?, &changes.writes, moved, &links, &finished).await?;
            Ok(newest)
        };
        match written.await {
            Ok(newest) => self.newest = Some(newest),
            Err(e) => {
                self.roll_back().await;
                return Err(e);
            }
        }
        self.head = head;
        fault("commit.after");
        if let Some(anchor) = &mut self.anchor {
            anchor.advance(head);
        }
        fault("anchor.after");
        Ok(links.iter().map(|link| link.seq).collect())
    }

    async fn take_newest(&mut self) -> Result<Block, StoreError> {
        match self.newest.take() {
            Some(newest) => Ok(newest),
            None => {
                let head = self.head.seq;
                Block::newest(&mut db::raw(self.conn()?).await?, head)
            }
        }
    }

    /// The database, with the archive beside it.
    pub(crate) async fn sources(&mut self) -> Result<(db::Raw<'_>, &Archive), StoreError> {
        let conn = self.conn.as_mut().ok_or(StoreError::Unusable(self.unusable))?;
        Ok((db::raw(conn).await?, &self.archive))
    }

    /// Removes what an archive step, a rekey or a restore that was cut short left in the archive.
    async fn sweep_archive(&mut self) -> Result<(), StoreError> {
        let (mut db, archive) = self.sources().await?;
        archive.sweep(&mut db)
    }

    /// The database, with the lookup block of the newest entry, which is not in it.
    pub(crate) async fn lookup(&mut self) -> Result<(db::Raw<'_>, &Block), StoreError> {
        let newest = self.take_newest().await?;
        let newest = &*self.newest.insert(newest);
        let conn = self.conn.as_mut().ok_or(StoreError::Unusable(self.unusable))?;
        Ok((db::raw(conn).await?, newest))
    }

    /// Makes what the review looks up anew from the entries.
    pub(crate) async fn rebuild_index(&mut self) -> Result<(), StoreError> {
        let conn = self.conn.as_mut().ok_or(StoreError::Unusable(self.unusable))?;
        let done = index::rebuild(conn, &self.archive).await;
        if done.is_err() {
            self.roll_back().await;
        }
        self.newest = None;
        done
    }

    /// Makes sure that a failed transaction left nothing; closes the store where that is not sure.
    async fn roll_back(&mut self) {
        let unchanged = async {
            let conn = self.conn()?;
            if !db::is_idle(conn).await? {
                conn.execute("ROLLBACK").await?;
            }
            let idle = db::is_idle(conn).await?;
            let head = self.stored_head().await?;
            Ok::<_, StoreError>(idle && head.is_none_or(|head| head == self.head))
        };
        if !matches!(unchanged.await, Ok(true)) {
            tracing::error!("the extent of a failed commit is unknown; the vault must be opened anew");
            self.anchor = None;
            self.unusable = "the extent of a failed commit is unknown";
            self.conn = None;
        }
    }
}

/// Writes everything in one transaction, which travels as one query of several statements: each query costs two switches between
/// threads. A statement that fails leaves the transaction open, and none behind it is begun.
async fn write_all(
    conn: &mut SqliteConnection,
    writes: &[Write],
    moved: Option<&ArchiveSegment>,
    links: &[Link],
    finished: &[Block],
) -> Result<(), StoreError> {
    let mut sql = "BEGIN IMMEDIATE".to_owned();
    let mut arguments = SqliteArguments::default();
    for write in writes {
        sql.push(';');
        sql.push_str(apply(write, &mut arguments)?);
    }
    if let Some(segment) = moved {
        sql.push_str(";DELETE FROM audit WHERE seq BETWEEN ? AND ?");
        put(&mut arguments, segment.first)?;
        put(&mut arguments, segment.last)?;
        index::insert(&mut sql, ArchiveSegment::ROW, 8, 1);
        segment.put(&mut arguments)?;
    }
    for links in links.chunks(ROWS_MAX) {
        index::insert(&mut sql, "audit (seq, body, prev, mac)", 4, links.len());
        for link in links {
            put(&mut arguments, stored_u64(link.seq))?;
            put(&mut arguments, &link.body[..])?;
            put(&mut arguments, &link.prev[..])?;
            put(&mut arguments, &link.mac[..])?;
        }
    }
    index::store(finished, &mut sql, &mut arguments)?;
    sql.push_str(";COMMIT");
    query_with(AssertSqlSafe(sql), arguments).execute(conn).await?;
    Ok(())
}

pub(crate) fn put<'q, T: sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite>>(
    arguments: &mut SqliteArguments,
    value: T,
) -> Result<(), StoreError> {
    arguments.add(value).map_err(|e| StoreError::Database(e.to_string()))
}

/// The statement of a change, whose arguments are added. Parameters have no numbers, since numbers count over the whole query.
fn apply(write: &Write, arguments: &mut SqliteArguments) -> Result<&'static str, StoreError> {
    match write {
        Write::PutItem(Item { info, sealed }) => {
            put(arguments, &info.id[..])?;
            put(arguments, &*info.kind)?;
            put(arguments, &*info.name)?;
            put(arguments, stored_u64(info.generation))?;
            put(arguments, info.created_us)?;
            put(arguments, info.updated_us)?;
            put(arguments, &sealed[..])?;
            Ok("INSERT INTO item (id, kind, name, generation, created_at, updated_at, sealed) VALUES (?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name, generation = excluded.generation,
                created_at = excluded.created_at, updated_at = excluded.updated_at, sealed = excluded.sealed")
        }
        Write::RemoveItem(id) => {
            put(arguments, &id[..])?;
            Ok("DELETE FROM item WHERE id = ?")
        }
        Write::PutProfile(p) => {
            put(arguments, &p.id[..])?;
            put(arguments, &*p.name)?;
            put(arguments, &*p.body)?;
            put(arguments, p.created_us)?;
            put(arguments, p.updated_us)?;
            Ok("INSERT INTO profile (id, name, body, created_at, updated_at) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body,
                created_at = excluded.created_at, updated_at = excluded.updated_at")
        }
        Write::RemoveProfile(id) => {
            put(arguments, &id[..])?;
            Ok("DELETE FROM profile WHERE id = ?")
        }
        Write::PutLauncher(l) => {
            put(arguments, &l.id[..])?;
            put(arguments, &*l.name)?;
            put(arguments, &*l.body)?;
            put(arguments, l.created_us)?;
            put(arguments, l.updated_us)?;
            put(arguments, l.launched_us)?;
            Ok("INSERT INTO launcher (id, name, body, created_at, updated_at, launched_at) VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body,
                created_at = excluded.created_at, updated_at = excluded.updated_at, launched_at = excluded.launched_at")
        }
        Write::RemoveLauncher(id) => {
            put(arguments, &id[..])?;
            Ok("DELETE FROM launcher WHERE id = ?")
        }
        Write::PutRun(run) => {
            put(arguments, &run.id[..])?;
            put(arguments, &*run.body)?;
            Ok("INSERT INTO run (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
        }
        Write::RemoveRun(id) => {
            put(arguments, &id[..])?;
            Ok("DELETE FROM run WHERE id = ?")
        }
        Write::PutGrant(grant) => {
            put(arguments, &grant.id[..])?;
            put(arguments, &*grant.body)?;
            Ok("INSERT INTO grant (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
        }
        Write::RemoveGrant(id) => {
            put(arguments, &id[..])?;
            Ok("DELETE FROM grant WHERE id = ?")
        }
        Write::PutMeta(key, value) => {
            put(arguments, &**key)?;
            put(arguments, &value[..])?;
            Ok(PUT_META)
        }
    }
}

const PUT_META: &str =
    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

async fn put_meta(conn: &mut SqliteConnection, key: &str, value: &[u8]) -> Result<(), StoreError> {
    sqlx::query(PUT_META).bind(key).bind(value).execute(conn).await?;
    Ok(())
}

/// SQLite holds signed numbers; sequence numbers and generations never come near 2^63.
pub(crate) fn stored_u64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the envelope of a former audit key belongs to.
pub(crate) fn former_ref(upto: u64) -> ItemRef<'static> {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&upto.to_be_bytes());
    ItemRef { id, generation: 1, kind: "audit-key" }
}

fn former_key(bytes: &SecretBytes) -> Result<Key32, SealError> {
    Key32::try_make(|page| {
        // EXPOSE: copied into the page of the key.
        bytes.expose(|b| {
            if b.len() == page.len() {
                page.copy_from_slice(b);
                Ok(())
            } else {
                Err(SealError::Damaged)
            }
        })
    })
}

impl ItemInfo {
    /// What the envelope of this item belongs to.
    pub fn as_ref(&self) -> ItemRef<'_> {
        ItemRef { id: self.id, generation: self.generation, kind: &self.kind }
    }
}

/// Writes a new vault under other names: `vault.db.new` and `anchor.new`.
async fn stage_new(paths: &Paths, slots: &SlotFile, key: &VaultKey, entry: Draft) -> Result<(), StoreError> {
    clear_staged(paths)?;
    let draft = paths.db_draft();
    create_private(&draft).map_err(|e| StoreError::io("making", &draft, e))?;
    let mut conn = db::connect(&draft, &key.derive_db()).await?;
    db::migrate(&mut conn).await?;
    put_meta(&mut conn, META_ID, &slots.vault_id()).await?;
    put_meta(&mut conn, META_EPOCH, &slots.epoch().to_be_bytes()).await?;
    conn.close().await?;
    let export = ExportKey::make().and_then(|key| Ok((key.public(), key.seed()?)));
    let (public, seed) = export.map_err(|e| match e {
        ExportError::Random(e) => StoreError::Random(e),
        _ => StoreError::Seal(SealError::Damaged),
    })?;
    let info = ItemInfo {
        id: make_array()?,
        kind: EXPORT_KEY.0.to_owned(),
        name: EXPORT_KEY.1.to_owned(),
        generation: 1,
        created_us: entry.at_us,
        updated_us: entry.at_us,
    };
    let sealed = seal(&key.derive_seal(), &info.as_ref(), &seed)?;
    let entry = entry.detail("export_key", public.to_string());
    let changes = Changes { writes: vec![Write::PutItem(Item { info, sealed })], entries: vec![entry] };
    let mut inner = Inner::open(&draft, &slots.vault_id(), key).await?;
    let keys = inner.keys(&slots.vault_id(), key).await?;
    inner.commit(&keys, &changes).await?;
    let head = inner.head;
    inner.close("it is staged").await?;
    fault("create.db");
    let anchor = Anchor { vault: slots.vault_id(), epoch: slots.epoch(), seq: head.seq, mac: head.mac };
    seal_stage(paths, &keys.anchor, &anchor)?;
    fault("create.anchor");
    Ok(())
}

/// Makes a finished draft durable and ready: from here on, a slot file that opens it makes it the vault.
pub(crate) fn seal_stage(paths: &Paths, key: &AnchorKey, anchor: &Anchor) -> Result<(), StoreError> {
    let next = paths.anchor_next();
    publish(&anchor::stage_first(&next, key, anchor)?, &next)?;
    let draft = paths.db_draft();
    let synced = fs::File::open(&draft).and_then(|file| file.sync_all());
    synced.map_err(|e| StoreError::io("syncing", &draft, e))?;
    publish(&draft, &paths.db_next())
}

/// Removes what an interrupted create, rekey or restore left before its commit point.
pub(crate) fn clear_staged(paths: &Paths) -> Result<(), StoreError> {
    clear_draft(paths)?;
    let next = paths.db_next();
    remove(beside(&next).into_iter().chain([next, paths.anchor_next()]))
}

/// Removes an unfinished draft.
pub(crate) fn clear_draft(paths: &Paths) -> Result<(), StoreError> {
    let draft = paths.db_draft();
    remove(beside(&draft).into_iter().chain([draft]))
}

fn remove(files: impl IntoIterator<Item = PathBuf>) -> Result<(), StoreError> {
    for path in files {
        remove_if_there(&path).map_err(|e| StoreError::io("removing", &path, e))?;
    }
    Ok(())
}

/// Finishes a create, rekey or restore that passed its commit point (the slot file opens the staged database), or clears
/// one that did not.
pub(crate) async fn finish_staged(paths: &Paths, db_key: &Key32) -> Result<(), StoreError> {
    let next = paths.db_next();
    if !next.exists() {
        return clear_staged(paths);
    }
    if !db::opens(&next, db_key).await {
        if paths.db().exists() && db::opens(&paths.db(), db_key).await {
            return clear_staged(paths);
        }
        return Err(StoreError::Damaged("neither it nor its successor opens".to_owned()));
    }
    // The log of the old file must not be read into the new one.
    remove(beside(&paths.db()))?;
    if paths.anchor_next().exists() {
        publish(&paths.anchor_next(), &paths.anchor())?;
    }
    fault("finish.anchor");
    publish(&next, &paths.db())?;
    sync_folder(&paths.data)
}

/// The files that SQLite keeps beside a database.
pub(crate) fn beside(db: &Path) -> Vec<PathBuf> {
    let with = |suffix: &str| {
        let mut name = db.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    vec![with("-wal"), with("-shm"), with("-journal")]
}

impl<'r> FromRow<'r, SqliteRow> for ItemInfo {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: id_of(row)?,
            kind: row.try_get("kind")?,
            name: row.try_get("name")?,
            generation: row.try_get::<i64, _>("generation")?.cast_unsigned(),
            created_us: row.try_get("created_at")?,
            updated_us: row.try_get("updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Item {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self { info: ItemInfo::from_row(row)?, sealed: row.try_get("sealed")? })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Profile {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: id_of(row)?,
            name: row.try_get("name")?,
            body: row.try_get("body")?,
            created_us: row.try_get("created_at")?,
            updated_us: row.try_get("updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Launcher {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: id_of(row)?,
            name: row.try_get("name")?,
            body: row.try_get("body")?,
            created_us: row.try_get("created_at")?,
            updated_us: row.try_get("updated_at")?,
            launched_us: row.try_get("launched_at")?,
        })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Run {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self { id: id_of(row)?, body: row.try_get("body")? })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Grant {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self { id: id_of(row)?, body: row.try_get("body")? })
    }
}

impl<'r> FromRow<'r, SqliteRow> for Link {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: u64::try_from(row.try_get::<i64, _>("seq")?).unwrap_or(0),
            prev: row.try_get("prev")?,
            mac: row.try_get("mac")?,
            body: row.try_get("body")?,
        })
    }
}

fn id_of<const N: usize>(row: &SqliteRow) -> Result<[u8; N], sqlx::Error> {
    let id: &[u8] = row.try_get("id")?;
    let source = || format!("not {N} bytes").into();
    id.try_into().map_err(|_| sqlx::Error::ColumnDecode { index: "id".to_owned(), source: source() })
}
