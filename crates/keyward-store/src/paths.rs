//! Folders and files of a vault: where they lie, who may read them, how they are replaced.

use crate::error::StoreError;
use crate::fault::fault;
use keyward_crypto::{SLOTS_MAX_BYTES, SlotFile};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folders of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Holds `vault.db`, `vault.slots`, `vault.lock` and `archive`.
    pub data: PathBuf,
    /// Holds `anchor`.
    pub state: PathBuf,
}

impl Paths {
    pub(crate) const ARCHIVE: &str = "archive";

    /// The database.
    pub fn db(&self) -> PathBuf {
        self.data.join("vault.db")
    }

    /// The slot file.
    pub fn slots(&self) -> PathBuf {
        self.data.join("vault.slots")
    }

    /// The anchor file.
    pub fn anchor(&self) -> PathBuf {
        self.state.join("anchor")
    }

    /// The folder of the archive segments.
    pub fn archive(&self) -> PathBuf {
        self.data.join(Self::ARCHIVE)
    }

    /// Whether there is a vault: the slot file is written last, so that an interrupted `create` leaves none.
    pub fn vault_exists(&self) -> bool {
        self.slots().exists()
    }

    /// Makes both folders with mode 0700 where they are missing, and checks them.
    ///
    /// # Errors
    /// [`StoreError::Folder`], [`StoreError::Io`].
    pub fn prepare(&self) -> Result<(), StoreError> {
        for folder in [&self.data, &self.state] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| StoreError::io("making", folder, e))?;
            check_folder(folder)?;
        }
        Ok(())
    }

    pub(crate) fn db_next(&self) -> PathBuf {
        self.data.join("vault.db.new")
    }

    pub(crate) fn db_draft(&self) -> PathBuf {
        self.data.join("vault.db.draft")
    }

    pub(crate) fn anchor_next(&self) -> PathBuf {
        self.state.join("anchor.new")
    }
}

/// Refuses a folder of the vault that is not ours or that group or others can reach. A symbolic link is followed: its target
/// is judged.
///
/// # Errors
/// [`StoreError::Folder`] with the `chmod` that mends it, [`StoreError::Io`].
pub fn check_folder(folder: &Path) -> Result<(), StoreError> {
    let real = fs::canonicalize(folder).map_err(|e| StoreError::io("reading", folder, e))?;
    let meta = fs::metadata(&real).map_err(|e| StoreError::io("reading", folder, e))?;
    let shown = real.display();
    if !meta.is_dir() {
        return Err(StoreError::Folder(format!("{shown} is not a folder")));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(StoreError::Folder(format!("{shown} belongs to user {}", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(StoreError::Folder(format!("{shown} has mode {mode:04o}: run `chmod 700 {shown}`")));
    }
    Ok(())
}

/// The right to write a vault, held by one process at a time: an advisory lock on `vault.lock`, given up on drop or death.
/// Keep it for as long as a [`crate::Store`] is open.
#[derive(Debug)]
pub struct VaultLock {
    paths: Paths,
    _file: File,
}

impl VaultLock {
    /// Makes the folders where they are missing, checks them, and takes the lock without waiting.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Folder`], [`StoreError::Io`].
    pub fn acquire(paths: &Paths) -> Result<Self, StoreError> {
        paths.prepare()?;
        let path = paths.data.join("vault.lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|e| StoreError::io("opening", &path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { paths: paths.clone(), _file: file }),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => Err(StoreError::InUse(path)),
            Err(e) => Err(StoreError::io("locking", &path, e.into())),
        }
    }

    /// The folders that it guards.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// Reads the slot file. Needs no lock: the file is only ever replaced as a whole.
///
/// # Errors
/// [`StoreError::Absent`] where there is no vault; a `vault.db` without a slot file is [`StoreError::Slots`].
pub fn load_slots(paths: &Paths) -> Result<SlotFile, StoreError> {
    let path = paths.slots();
    match read_bounded(&path, SLOTS_MAX_BYTES as u64 + 1) {
        Ok(bytes) => Ok(SlotFile::parse(&bytes)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound && paths.db().exists() => {
            Err(StoreError::Slots(keyward_crypto::SlotError::Damaged("it is missing")))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::Absent(paths.data.clone())),
        Err(e) => Err(StoreError::io("reading", path, e)),
    }
}

/// Replaces the slot file: temporary file with mode 0600, fsync, rename, fsync of the folder. After a crash either the old
/// or the new one is there, whole.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::DiskFull`].
pub fn save_slots(lock: &VaultLock, slots: &SlotFile) -> Result<(), StoreError> {
    let path = lock.paths.slots();
    let staged = stage(&path, |file| file.write_all(&slots.to_bytes()))?;
    fault("slots.tmp");
    publish(&staged, &path)?;
    fault("slots.renamed");
    Ok(())
}

/// Writes a private temporary file beside `path` and fsyncs it.
pub(crate) fn stage(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<PathBuf, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let staged = PathBuf::from(name);
    let write = || -> io::Result<()> {
        remove_if_there(&staged)?;
        let mut file = create_private(&staged)?;
        fill(&mut file)?;
        file.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&staged);
        StoreError::io("writing", path, e)
    })?;
    Ok(staged)
}

/// Renames and makes the new name durable.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("replacing", to, e))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::io("syncing", folder, e))
}

/// A new file of mode 0600; one that exists, or a link in its place, is an error.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
