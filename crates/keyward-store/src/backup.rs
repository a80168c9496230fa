//! One file that holds a whole vault, and the way back.
//!
//! Layout: `keyward backup 1\n` ‖ u64be(length of the slot file) ‖ slot file ‖ u64be(length of the database) ‖ database ‖
//! SHA-256 of everything before. A vault with archive segments has `keyward backup 2\n` instead, and before the digest
//! u64be(number of segments) ‖ for each u64be(length) ‖ name ‖ u64be(length) ‖ file. The database and the segments are as
//! encrypted as they are in their places. The digest finds accidents; edits are found by the MACs inside.
//!
//! A restore stages the database and a new anchor like a rekey does, puts the segments beside those that are there, keeps the vault that is there in a folder
//! `replaced-…` (a vault whose rekey was cut short included), and commits by replacing the slot file. (With the same vault
//! key, the next open already takes a staged database up.) It opens a new epoch and records `vault.restored`.

use crate::anchor;
use crate::archive::{is_name, make_folder};
use crate::db;
use crate::error::StoreError;
use crate::fault::fault;
use crate::model::{Changes, Restored, Write};
use crate::paths::{Paths, VaultLock, create_private, load_slots, publish, save_slots, stage, sync_folder};
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

const MAGIC: &[u8; 17] = b"keyward backup 1\n";
const MAGIC_ARCHIVE: &[u8; 17] = b"keyward backup 2\n";
const DIGEST_BYTES: u64 = 32;

/// How the names of folders begin that hold a vault which a restore replaced.
pub(crate) const REPLACED: &str = "replaced-";

/// Epochs that no key vouches for count up to here only, so that a forged one cannot use all of them up.
const UNVERIFIED_EPOCH_MAX: u64 = 1 << 32;

impl Store {
    /// Writes the vault into one file of mode 0600, which must not exist. Commits wait while the database is copied, and not while
    /// archive segments are. One whose file is missing is left out.
    ///
    /// # Errors
    /// [`StoreError::Io`] (where the file exists too), [`StoreError::DiskFull`].
    pub async fn backup(&self, slots: &SlotFile, file: &Path) -> Result<(), StoreError> {
        let still = Arc::clone(&self.moving).lock_owned().await;
        let mut inner = Arc::clone(&self.inner).lock_owned().await;
        inner.checkpoint().await?;
        let (slots, file) = (slots.to_bytes(), file.to_owned());
        let segments: Vec<_> = inner.archive.files().filter(|(_, path)| path.exists()).collect();
        let task = tokio::task::spawn_blocking(move || {
            if file.symlink_metadata().is_ok() {
                return Err(StoreError::io("writing", file, io::ErrorKind::AlreadyExists.into()));
            }
            let _still = still;
            let staged = stage(&file, |to| {
                let mut out = Hashing { to, hash: Sha256::new() };
                out.write_all(if segments.is_empty() { MAGIC } else { MAGIC_ARCHIVE })?;
                out.part(&slots)?;
                out.file(inner.path())?;
                drop(inner);
                if !segments.is_empty() {
                    out.write_all(&(segments.len() as u64).to_be_bytes())?;
                }
                for (name, path) in &segments {
                    out.part(name.as_bytes())?;
                    out.file(path)?;
                }
                let digest = out.hash.finalize();
                out.to.write_all(&digest)
            })?;
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

impl Hashing<'_> {
    /// Writes a length and so many bytes.
    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(&(bytes.len() as u64).to_be_bytes())?;
        self.write_all(bytes)
    }

    /// Writes the length of a file and its bytes.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        self.write_all(&len.to_be_bytes())?;
        if io::copy(&mut file.take(len), self)? != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
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
    db: Part,
    segments: Vec<(String, Part)>,
}

/// A part of a backup file.
#[derive(Debug, Clone, Copy)]
struct Part {
    at: u64,
    bytes: u64,
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
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(io)?;
        if magic != *MAGIC && magic != *MAGIC_ARCHIVE {
            return Err(StoreError::Backup("it does not begin as a backup does"));
        }
        let short = |file: &mut File, most: u64, what: &'static str| {
            let bytes = read_u64(file).map_err(io)?;
            if bytes > most {
                return Err(StoreError::Backup(what));
            }
            let mut part = Vec::new();
            file.take(bytes).read_to_end(&mut part).map_err(io)?;
            Ok(part)
        };
        let slots = short(&mut file, SLOTS_MAX_BYTES as u64, "its slot file is too long")?;
        let long = |file: &mut File| {
            let bytes = read_u64(file).map_err(io)?;
            let at = file.stream_position().map_err(io)?;
            match at.checked_add(bytes).filter(|end| *end <= total) {
                Some(end) => file.seek(SeekFrom::Start(end)).map_err(io).map(|_| Part { at, bytes }),
                None => Err(StoreError::Backup("its length is not the one it names")),
            }
        };
        let db = long(&mut file)?;
        let mut segments = Vec::new();
        if magic == *MAGIC_ARCHIVE {
            for _ in 0..read_u64(&mut file).map_err(io)? {
                let name = short(&mut file, 80, "the name of a segment is too long")?;
                let name = String::from_utf8(name).ok().filter(|name| is_name(name));
                let name = name.ok_or(StoreError::Backup("a segment has another name than segments have"))?;
                segments.push((name, long(&mut file)?));
            }
        }
        if file.stream_position().map_err(io)?.checked_add(DIGEST_BYTES) != Some(total) {
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
        Ok(Self { slots: SlotFile::parse(&slots)?, path: path.to_owned(), file, db, segments })
    }

    /// The slot file of the backup; open it with the passphrase of that time.
    pub fn slots(&self) -> &SlotFile {
        &self.slots
    }

    fn extract(&self, part: Part, to: &mut File) -> io::Result<()> {
        let mut from = &self.file;
        from.seek(SeekFrom::Start(part.at))?;
        if io::copy(&mut from.take(part.bytes), to)? != part.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn extract_db(&self, to: &Path) -> Result<(), StoreError> {
        let copied = create_private(to).and_then(|mut to| self.extract(self.db, &mut to));
        copied.map_err(|e| StoreError::io("copying", &self.path, e))
    }

    /// Puts the archive segments in their folder; one of the same name is replaced.
    fn extract_archive(&self, folder: &Path) -> Result<(), StoreError> {
        if !self.segments.is_empty() {
            make_folder(folder)?;
        }
        for (name, part) in &self.segments {
            let path = folder.join(name);
            publish(&stage(&path, |to| self.extract(*part, to))?, &path)?;
        }
        Ok(())
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
    let staged = backup.extract_archive(&paths.archive()).and_then(|()| {
        fault("restore.archived");
        seal_stage(paths, &AnchorKey::new(&key.derive_anchor()), &anchor)
    });
    let committed = staged.and_then(|()| {
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
    backup.extract_db(&paths.db_draft())?;
    let mut draft = Inner::open(&paths.db_draft(), &vault_id, key).await?;
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
    let archive = paths.archive();
    if let Ok(segments) = fs::read_dir(&archive) {
        make_folder(&folder.join(Paths::ARCHIVE))?;
        files.extend(segments.flatten().map(|segment| segment.path()));
    }
    for from in files {
        let Some(name) = from.file_name() else { continue };
        let archived = from.parent() == Some(&archive);
        let to = if archived { folder.join(Paths::ARCHIVE).join(name) } else { folder.join(name) };
        let copy = || {
            let mut copied = create_private(&to)?;
            io::copy(&mut File::open(&from)?, &mut copied)?;
            copied.sync_all()
        };
        // Only databases and segments are large. A database is never written again once its successor is in place, a segment
        // never at all.
        let large = archived || from == paths.db() || from == paths.db_next();
        let kept = match File::open(&from) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            _ if large => fs::hard_link(&from, &to).or_else(|_| copy()),
            _ => copy(),
        };
        kept.map_err(|e| StoreError::io("keeping", &from, e))?;
    }
    if archive.exists() {
        sync_folder(&folder.join(Paths::ARCHIVE))?;
    }
    sync_folder(&folder)?;
    sync_folder(&paths.data)?;
    Ok(folder)
}
