//! One file that holds a whole vault, and the way back.
//!
//! Layout: `keyward backup 1\n` ‖ u64be(length of the slot file) ‖ slot file ‖ u64be(length of the database) ‖ database ‖
//! SHA-256 of everything before. The database is as encrypted as it is in its place. The digest finds accidents; edits are
//! found by the MACs inside.
//!
//! A restore stages the database and a new anchor like a rekey does, keeps the vault that is there in a folder
//! `replaced-…` (a vault whose rekey was cut short included), and commits by replacing the slot file. (With the same vault
//! key, the next open already takes a staged database up.) It opens a new epoch and records `vault.restored`.

use crate::anchor;
use crate::db;
use crate::error::StoreError;
use crate::fault::fault;
use crate::model::{Changes, Restored, Write};
use crate::paths::{Paths, VaultLock, create_private, load_slots, save_slots, stage, sync_folder};
use crate::store::{Inner, META_EPOCH, Store, beside, clear_draft, clear_staged, finish_staged, seal_stage};
use keyward_core::audit::{PeerFacts, restored};
use keyward_crypto::{Anchor, AnchorFile, AnchorKey, SLOTS_MAX_BYTES, SlotFile, VaultKey};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8] = b"keyward backup 1\n";
const DIGEST_BYTES: u64 = 32;

/// How the names of folders begin that hold a vault which a restore replaced.
pub(crate) const REPLACED: &str = "replaced-";

/// Epochs that no key vouches for count up to here only, so that a forged one cannot use all of them up.
const UNVERIFIED_EPOCH_MAX: u64 = 1 << 32;

impl Store {
    /// Writes the vault into one file of mode 0600, which must not exist. Commits wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Io`] (where the file exists too), [`StoreError::DiskFull`].
    pub async fn backup(&self, slots: &SlotFile, file: &Path) -> Result<(), StoreError> {
        let mut inner = Arc::clone(&self.inner).lock_owned().await;
        inner.checkpoint().await?;
        let (slots, file) = (slots.to_bytes(), file.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            if file.symlink_metadata().is_ok() {
                return Err(StoreError::io("writing", file, io::ErrorKind::AlreadyExists.into()));
            }
            let staged = stage(&file, |to| write(&mut Hashing { to, hash: Sha256::new() }, &slots, inner.path()))?;
            let placed = place(&staged, &file).and_then(|()| match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            });
            placed.map_err(|e| {
                let _ = fs::remove_file(&staged);
                StoreError::io("writing", file, e)
            })
        });
        task.await.unwrap_or(Err(StoreError::Unusable("a backup did not end")))
    }
}

/// Passes everything on and digests it.
struct Hashing<'f> {
    to: &'f mut File,
    hash: Sha256,
}

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn write(out: &mut Hashing<'_>, slots: &[u8], db: &Path) -> io::Result<()> {
    let db = File::open(db)?;
    let len = db.metadata()?.len();
    out.write_all(MAGIC)?;
    out.write_all(&(slots.len() as u64).to_be_bytes())?;
    out.write_all(slots)?;
    out.write_all(&len.to_be_bytes())?;
    if io::copy(&mut db.take(len), out)? != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let digest = out.hash.clone().finalize();
    out.to.write_all(&digest)
}

/// Renames without ever replacing a file.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.symlink_metadata().is_err() => fs::rename(from, to),
        other => Ok(other?),
    }
}

/// A backup file that was read and whose digest is right.
#[derive(Debug)]
pub struct Backup {
    slots: SlotFile,
    path: PathBuf,
    file: File,
    db_at: u64,
    db_bytes: u64,
}

impl Backup {
    /// Reads and checks a backup file. Only the slot file is kept in memory.
    ///
    /// # Errors
    /// [`StoreError::Backup`], [`StoreError::Slots`], [`StoreError::Io`].
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let mut file = File::open(path).map_err(|e| StoreError::io("reading", path, e))?;
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::Backup("it is cut off"),
            _ => StoreError::io("reading", path, e),
        };
        let total = file.metadata().map_err(io)?.len();
        let mut magic = vec![0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(io)?;
        if magic != MAGIC {
            return Err(StoreError::Backup("it does not begin as a backup does"));
        }
        let slots_bytes = read_u64(&mut file).map_err(io)?;
        if slots_bytes > SLOTS_MAX_BYTES as u64 {
            return Err(StoreError::Backup("its slot file is too long"));
        }
        let mut slots = Vec::new();
        (&mut file).take(slots_bytes).read_to_end(&mut slots).map_err(io)?;
        let db_bytes = read_u64(&mut file).map_err(io)?;
        let db_at = file.stream_position().map_err(io)?;
        if db_at.checked_add(db_bytes).and_then(|n| n.checked_add(DIGEST_BYTES)) != Some(total) {
            return Err(StoreError::Backup("its length is not the one it names"));
        }
        file.rewind().map_err(io)?;
        let mut hash = Sha256::new();
        let mut rest = BufReader::with_capacity(64 * 1024, (&mut file).take(total - DIGEST_BYTES));
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match rest.read(&mut chunk).map_err(io)? {
                0 => break,
                n => hash.update(&chunk[..n]),
            }
        }
        let mut digest = [0; DIGEST_BYTES as usize];
        file.read_exact(&mut digest).map_err(io)?;
        if hash.finalize()[..] != digest {
            return Err(StoreError::Backup("its digest does not match"));
        }
        Ok(Self { slots: SlotFile::parse(&slots)?, path: path.to_owned(), file, db_at, db_bytes })
    }

    /// The slot file of the backup; open it with the passphrase of that time.
    pub fn slots(&self) -> &SlotFile {
        &self.slots
    }

    fn extract(&self, to: &Path) -> Result<(), StoreError> {
        let copy = || {
            let mut from = &self.file;
            from.seek(SeekFrom::Start(self.db_at))?;
            io::copy(&mut from.take(self.db_bytes), &mut create_private(to)?)
        };
        match copy() {
            Ok(n) if n == self.db_bytes => Ok(()),
            Ok(_) => Err(StoreError::Backup("it is cut off")),
            Err(e) => Err(StoreError::io("copying", &self.path, e)),
        }
    }
}

fn read_u64(file: &mut File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// Puts a backup in place of the vault. `key` was opened from [`Backup::slots`]. The vault must be closed. One that is there
/// is kept in a folder beside the new one when `replace` is set, never deleted; without it the call fails.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::Damaged`], [`StoreError::DiskFull`], [`StoreError::Io`]. The vault that was there
/// is then still in its place.
pub async fn restore(
    lock: &VaultLock,
    backup: &Backup,
    key: &VaultKey,
    at_us: i64,
    replace: bool,
    peer: Option<PeerFacts>,
) -> Result<Restored, StoreError> {
    let paths = lock.paths();
    let there = paths.vault_exists() || paths.db().exists();
    if there && !replace {
        return Err(StoreError::Exists(paths.data.clone()));
    }
    let drafted = draft_backup(paths, backup, key, at_us, peer).await;
    if drafted.is_err() {
        clear_draft(paths)?;
    }
    let (restored, slots, anchor) = drafted?;
    // Before the draft gets the name of a successor: where the vault key is the same, the next open would take it.
    let moved_to = if there { Some(keep_aside(paths, at_us)?) } else { None };
    fault("restore.kept");
    let committed = seal_stage(paths, &AnchorKey::new(&key.derive_anchor()), &anchor).and_then(|()| {
        fault("restore.staged");
        save_slots(lock, &slots)
    });
    if committed.is_err() {
        clear_staged(paths)?;
    }
    committed?;
    finish_staged(paths, &key.derive_db()).await?;
    Ok(Restored { moved_to, ..restored })
}

/// Makes `vault.db.draft` from the backup, in a new epoch and with the entry that says so.
async fn draft_backup(
    paths: &Paths,
    backup: &Backup,
    key: &VaultKey,
    at_us: i64,
    peer: Option<PeerFacts>,
) -> Result<(Restored, SlotFile, Anchor), StoreError> {
    let vault_id = backup.slots.vault_id();
    clear_draft(paths)?;
    let db_key = key.derive_db();
    backup.extract(&paths.db_draft())?;
    let mut draft = Inner::open(&paths.db_draft(), &vault_id, &db_key).await?;
    let keys = draft.keys(&vault_id, key).await?;
    let (anchor, anchor_verified) = seen_anchor(paths, &vault_id, &keys.anchor)?;
    let here = load_slots(paths).ok().filter(|slots| slots.vault_id() == vault_id);
    let here = here.map_or(0, |slots| slots.epoch().min(UNVERIFIED_EPOCH_MAX));
    let epoch = draft.epoch.max(backup.slots.epoch()).max(anchor.map_or(0, |a| a.epoch)).max(here) + 1;
    let from = draft.head.seq;
    let anchor_seq = anchor.map_or(0, |a| a.seq);
    let mut entry = restored(at_us, from, anchor_seq, anchor_verified, epoch);
    entry.peer = peer;
    let writes = vec![Write::PutMeta(META_EPOCH.to_owned(), epoch.to_be_bytes().to_vec())];
    draft.commit(&keys, &Changes { writes, entries: vec![entry] }).await?;
    let head = draft.head;
    draft.close("it is staged").await?;
    if !db::opens(&paths.db_draft(), &db_key).await {
        return Err(StoreError::Backup("its database does not open again"));
    }
    let slots = backup.slots.clone().with_epoch(key, epoch)?;
    let anchor = Anchor { vault: vault_id, epoch, seq: head.seq, mac: head.mac };
    Ok((Restored { from, anchor_seq, epoch, moved_to: None }, slots, anchor))
}

/// The anchor that is there, and whether the key of the backup vouches for it: after a rekey it does not.
fn seen_anchor(paths: &Paths, vault: &[u8; 16], key: &AnchorKey) -> Result<(Option<Anchor>, bool), StoreError> {
    let Some(bytes) = anchor::read(&paths.anchor())? else { return Ok((None, false)) };
    match key.newest(&bytes) {
        AnchorFile::Found { anchor, .. } => Ok((Some(anchor), true)),
        AnchorFile::Damaged => {
            let said = AnchorFile::unverified(&bytes).filter(|a| a.vault == *vault && a.epoch <= UNVERIFIED_EPOCH_MAX);
            Ok((said, false))
        }
    }
}

/// Keeps the files of the vault that is there in a new folder. They stay in their places too, until the commit point.
fn keep_aside(paths: &Paths, at_us: i64) -> Result<PathBuf, StoreError> {
    let folder = paths.data.join(format!("{REPLACED}{at_us}"));
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|e| StoreError::io("making", &folder, e))?;
    let mut files = vec![paths.slots(), paths.anchor(), paths.anchor_next()];
    for db in [paths.db(), paths.db_next()] {
        files.extend(beside(&db));
        files.push(db);
    }
    for from in files {
        let Some(name) = from.file_name() else { continue };
        let to = folder.join(name);
        let copy = || {
            let mut copied = create_private(&to)?;
            io::copy(&mut File::open(&from)?, &mut copied)?;
            copied.sync_all()
        };
        // Only a database is large; it is never written again once its successor is in place.
        let large = from == paths.db() || from == paths.db_next();
        let kept = match File::open(&from) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            _ if large => fs::hard_link(&from, &to).or_else(|_| copy()),
            _ => copy(),
        };
        kept.map_err(|e| StoreError::io("keeping", &from, e))?;
    }
    sync_folder(&folder)?;
    sync_folder(&paths.data)?;
    Ok(folder)
}
