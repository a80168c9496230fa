//! The anchor file: read, written in place, and begun anew.

use crate::error::StoreError;
use crate::fault::fault;
use crate::paths::{read_bounded, stage};
use keyward_core::audit::Head;
use keyward_crypto::{ANCHOR_FILE_BYTES, ANCHOR_SLOT_BYTES, Anchor, AnchorFile, AnchorKey};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's bytes; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match read_bounded(path, ANCHOR_FILE_BYTES as u64 + 1) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("reading", path, e)),
    }
}

/// Writes a whole anchor file of generation 1 beside `path` and fsyncs it.
pub(crate) fn stage_first(path: &Path, key: &AnchorKey, anchor: &Anchor) -> Result<PathBuf, StoreError> {
    stage(path, |file| {
        file.write_all(&[0; ANCHOR_SLOT_BYTES])?;
        file.write_all(&key.encode(1, anchor))
    })
}

/// Moves the anchor of an open vault. Never to a lower sequence number.
#[derive(Debug)]
pub(crate) struct AnchorWriter {
    path: PathBuf,
    file: File,
    key: Arc<AnchorKey>,
    generation: u64,
    last: Anchor,
    /// Set when a write failed: the next commit must move the anchor first.
    behind: Option<Head>,
}

impl AnchorWriter {
    /// Goes on from the newest slot; `None` where the file says nothing that verifies.
    pub(crate) fn open(path: &Path, key: Arc<AnchorKey>) -> Result<Option<Self>, StoreError> {
        let bytes = read(path)?.unwrap_or_default();
        let AnchorFile::Found { generation, anchor } = key.newest(&bytes) else { return Ok(None) };
        let opened =
            OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path);
        let file = opened.map_err(|e| StoreError::io("opening", path, e))?;
        Ok(Some(Self { path: path.to_owned(), file, key, generation, last: anchor, behind: None }))
    }

    /// Moves the anchor to `head`, without fsync. A failure is kept for [`AnchorWriter::catch_up`].
    pub(crate) fn advance(&mut self, head: Head) {
        self.behind = Some(head);
        if self.write(head).is_ok() {
            self.behind = None;
        }
    }

    /// Tries again what failed last.
    pub(crate) fn catch_up(&mut self) -> Result<(), StoreError> {
        let Some(head) = self.behind else { return Ok(()) };
        self.write(head).map_err(|e| StoreError::io("writing", &self.path, e))?;
        self.behind = None;
        Ok(())
    }

    /// Makes it durable.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.catch_up()?;
        self.file.sync_data().map_err(|e| StoreError::io("syncing", &self.path, e))
    }

    fn write(&mut self, head: Head) -> io::Result<()> {
        if head.seq <= self.last.seq {
            return Ok(());
        }
        let next = Anchor { seq: head.seq, mac: head.mac, ..self.last };
        let generation = self.generation + 1;
        let slot = self.key.encode(generation, &next);
        let at = generation % 2 * ANCHOR_SLOT_BYTES as u64;
        if cfg!(feature = "fault-points") {
            self.file.write_all_at(&slot[..ANCHOR_SLOT_BYTES / 2], at)?;
            fault("anchor.mid");
        }
        self.file.write_all_at(&slot, at)?;
        (self.generation, self.last) = (generation, next);
        Ok(())
    }
}
