//! Archive segments: old entries in sealed files outside of the database.
//!
//! A segment holds the oldest entries that the database held when it was made, byte for byte, in the order of their numbers. Its
//! file `FIRST.LAST.ID` in the folder `archive` is a row of pieces of [`keyward_crypto::SegmentKey`], one after the other. The
//! plaintext of a piece is, for each entry: i64be seq ‖ u32be length ‖ prev ‖ u32be length ‖ mac ‖ u32be length ‖ body. Its row in
//! `audit_archive`, the checkpoint, says for each piece i64be first seq ‖ u32be length of the sealed piece; `seal` is
//! [`keyward_crypto::ChainKey::checkpoint`] over i64be first ‖ i64be last and, each after its u64be length: prev, mac, id, pieces, digest.
//!
//! | Step | A crash after it leaves |
//! |---|---|
//! | 1. write the file, fsync it and the folder | a file that no checkpoint names: it is removed at the next open |
//! | 2. one transaction: the checkpoint, the entry `audit.archived`, the entries leave the database | the segment |
//!
//! A file that no checkpoint names is removed only where the vault holds the entries that its name tells; any other one is
//! evidence. Nothing here decides whether entries are genuine: that is [`Store::verify`]. Called by the timer of the broker.

use crate::db::{self, Raw, RawLink, Value};
use crate::error::StoreError;
use crate::fault::fault;
use crate::index;
use crate::model::{Changes, Link, Order};
use crate::paths::{create_private, sync_folder};
use crate::store::{Inner, Store, put, stored_u64};
use keyward_core::audit::{Draft, Kind, ProblemKind};
use keyward_crypto::{ArchiveKey, ChainKey, make_array};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Executor, FromRow, Row, query_with};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries that stay in the database whatever the caller says: more than are looked at without verification.
const KEEP_MIN: u64 = 1024;

/// Plaintext after which a piece ends.
const PIECE_BYTES: usize = 64 * 1024;

/// A piece in a checkpoint: its first number and its length.
const PIECE_RECORD: usize = 12;

/// The archive segments of a vault.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
    key: Arc<ArchiveKey>,
    /// By rising numbers.
    pub(crate) segments: Vec<Segment>,
}

/// A checkpoint, as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) prev: Vec<u8>,
    pub(crate) mac: Vec<u8>,
    id: Vec<u8>,
    pieces: Vec<u8>,
    digest: Vec<u8>,
    seal: Vec<u8>,
}

/// Where a piece of a segment lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    place: usize,
    at: u64,
    bytes: u32,
    /// Numbers of the first entry, and of the last one that can be in it.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// What came of opening a piece.
pub(crate) enum Opened {
    /// It opened.
    Entries(Entries),
    /// It did not; the kind says why.
    Lost(ProblemKind),
}

/// A piece as it lies in the file, and its plaintext.
pub(crate) struct Entries {
    pub(crate) sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl Segment {
    /// Its table and columns, in the order of [`Segment::put`].
    pub(crate) const ROW: &str = "audit_archive (first, last, prev, mac, id, pieces, digest, seal)";

    /// Name of the file.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}.{}", self.first, self.last, hex::encode(&self.id))
    }

    /// The pieces; none where the checkpoint is not of that layout.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let (records, rest) = self.pieces.as_chunks::<PIECE_RECORD>();
        let mut found: Vec<Piece> = Vec::with_capacity(records.len());
        let mut at = 0;
        for (place, record) in records.iter().enumerate() {
            let [a, b, c, d, e, f, g, h, len @ ..] = *record;
            let first = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
            if let Some(before) = found.last_mut() {
                before.last = first.saturating_sub(1);
            }
            let bytes = u32::from_be_bytes(len);
            found.push(Piece { place, at, bytes, first, last: self.last });
            at += u64::from(bytes);
        }
        let rise = found.is_sorted_by(|one, next| one.first < next.first)
            && found.first().is_some_and(|piece| piece.first == self.first)
            && found.last().is_some_and(|piece| piece.first <= self.last);
        if rest.is_empty() && rise { found } else { Vec::new() }
    }

    /// Whether the checkpoint is one that was written under this audit key.
    pub(crate) fn is_sealed(&self, chain: &ChainKey) -> bool {
        self.seal_of(chain)[..] == self.seal
    }

    /// Whether these are the bytes of the file.
    pub(crate) fn has_digest(&self, hash: Sha256) -> bool {
        hash.finalize()[..] == self.digest
    }

    fn seal_of(&self, chain: &ChainKey) -> [u8; 32] {
        let mut bytes = [self.first.to_be_bytes(), self.last.to_be_bytes()].concat();
        for part in [&self.prev, &self.mac, &self.id, &self.pieces, &self.digest] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        chain.checkpoint(&bytes)
    }

    /// Adds the values of its row, in the order of the columns.
    pub(crate) fn put(&self, arguments: &mut SqliteArguments) -> Result<(), StoreError> {
        put(arguments, self.first)?;
        put(arguments, self.last)?;
        for part in [&self.prev, &self.mac, &self.id, &self.pieces, &self.digest, &self.seal] {
            put(arguments, &part[..])?;
        }
        Ok(())
    }
}

impl<'r> FromRow<'r, SqliteRow> for Segment {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            first: row.try_get("first")?,
            last: row.try_get("last")?,
            prev: row.try_get("prev")?,
            mac: row.try_get("mac")?,
            id: row.try_get("id")?,
            pieces: row.try_get("pieces")?,
            digest: row.try_get("digest")?,
            seal: row.try_get("seal")?,
        })
    }
}

impl Entries {
    /// The entries, in the order of their numbers. What is not of that layout ends the list: only the holder of the key writes it.
    pub(crate) fn links(&self) -> Vec<RawLink<'_>> {
        let mut links = Vec::new();
        let mut rest = &self.plain[..];
        while let Some((link, after)) = decode(rest) {
            links.push(link);
            rest = after;
        }
        links
    }
}

fn decode(bytes: &[u8]) -> Option<(RawLink<'_>, &[u8])> {
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (len, rest) = bytes.split_first_chunk()?;
        rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
    }
    let (seq, rest) = bytes.split_first_chunk()?;
    let (prev, rest) = part(rest)?;
    let (mac, rest) = part(rest)?;
    let (body, rest) = part(rest)?;
    Some((RawLink { seq: i64::from_be_bytes(*seq), prev, mac, body }, rest))
}

fn encode(link: &RawLink<'_>, to: &mut Vec<u8>) {
    to.extend(link.seq.to_be_bytes());
    for part in [link.prev, link.mac, link.body] {
        to.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        to.extend(part);
    }
}

impl Archive {
    /// The segments that the database names.
    pub(crate) async fn load(
        conn: &mut SqliteConnection,
        folder: PathBuf,
        key: ArchiveKey,
    ) -> Result<Self, StoreError> {
        let segments = sqlx::query_as("SELECT * FROM audit_archive ORDER BY first").fetch_all(conn).await?;
        Ok(Self { folder, key: Arc::new(key), segments })
    }

    /// Puts other checkpoints in place of all that a database of its own has.
    pub(crate) async fn replace(conn: &mut SqliteConnection, segments: &[Segment]) -> Result<(), StoreError> {
        conn.execute("BEGIN IMMEDIATE; DELETE FROM audit_archive").await?;
        for segment in segments {
            let (mut sql, mut arguments) = (String::new(), SqliteArguments::default());
            index::insert(&mut sql, Segment::ROW, 8, 1);
            segment.put(&mut arguments)?;
            query_with(AssertSqlSafe(sql), arguments).execute(&mut *conn).await?;
        }
        conn.execute("COMMIT").await?;
        Ok(())
    }

    /// The first number that is not archived; less than all others where nothing is.
    pub(crate) fn next(&self) -> i64 {
        self.segments.last().map_or(i64::MIN, |segment| segment.last.saturating_add(1))
    }

    /// The files, with their names.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.segments.iter().map(|segment| (segment.name(), self.file(segment)))
    }

    fn file(&self, segment: &Segment) -> PathBuf {
        self.folder.join(segment.name())
    }

    /// The piece that may hold a number, or else the next one in a direction.
    pub(crate) fn piece(&self, seq: i64, order: Order) -> Option<(&Segment, Piece)> {
        match order {
            Order::OldestFirst => {
                let from = self.segments.partition_point(|segment| segment.last < seq);
                let piece = |segment: &Segment| segment.pieces().into_iter().find(|piece| piece.last >= seq);
                self.segments[from..].iter().find_map(|segment| Some((segment, piece(segment)?)))
            }
            Order::NewestFirst => {
                let upto = self.segments.partition_point(|segment| segment.first <= seq);
                let piece = |segment: &Segment| segment.pieces().into_iter().rfind(|piece| piece.first <= seq);
                self.segments[..upto].iter().rev().find_map(|segment| Some((segment, piece(segment)?)))
            }
        }
    }

    /// Opens one piece.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file is there and cannot be read.
    pub(crate) fn open(&self, segment: &Segment, piece: Piece) -> Result<Opened, StoreError> {
        let path = self.file(segment);
        let mut sealed = vec![0; usize::try_from(piece.bytes).unwrap_or(usize::MAX).min(1 << 30)];
        let read = no_link(&path).and_then(|file| file.read_exact_at(&mut sealed, piece.at));
        match read {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Opened::Lost(ProblemKind::ArchiveMissing)),
            Err(e) if is_no_file(&e) => return Ok(Opened::Lost(ProblemKind::ArchiveMismatch)),
            Err(e) => return Err(StoreError::io("reading", path, e)),
        }
        let id = <[u8; 16]>::try_from(&segment.id[..]).unwrap_or_default();
        match self.key.segment(id).open(piece.place as u64, &sealed) {
            Ok(plain) => Ok(Opened::Entries(Entries { sealed, plain })),
            Err(_) => Ok(Opened::Lost(ProblemKind::ArchiveMismatch)),
        }
    }

    /// Whether the file of a segment is as long as its checkpoint says; true where there is none.
    pub(crate) fn has_length(&self, segment: &Segment) -> bool {
        let bytes: u64 = segment.pieces().iter().map(|piece| u64::from(piece.bytes)).sum();
        fs::symlink_metadata(self.file(segment)).map_or(true, |meta| meta.len() == bytes)
    }

    /// One archived entry; `None` where there is none, or where its piece does not open.
    pub(crate) fn link(&self, seq: i64) -> Result<Option<Link>, StoreError> {
        let Some((segment, piece)) = self.piece(seq, Order::OldestFirst) else { return Ok(None) };
        let Opened::Entries(entries) = self.open(segment, piece)? else { return Ok(None) };
        Ok(entries.links().iter().find(|link| link.seq == seq).map(RawLink::to_link))
    }

    /// Gives the entries of a segment to `each`, in the order of their numbers. A piece that does not open is left out.
    pub(crate) fn each(&self, segment: &Segment, mut each: impl FnMut(&RawLink<'_>)) -> Result<(), StoreError> {
        for piece in segment.pieces() {
            if let Opened::Entries(entries) = self.open(segment, piece)? {
                entries.links().iter().for_each(&mut each);
            }
        }
        Ok(())
    }

    /// Removes the files that no checkpoint names, where the vault holds the entries that their names tell.
    pub(crate) fn sweep(&self, db: &mut Raw<'_>) -> Result<(), StoreError> {
        let io = |e| StoreError::io("reading", &self.folder, e);
        let found = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(io)?,
        };
        for file in found {
            let file = file.map_err(io)?;
            let Some(name) = file.file_name().to_str().map(str::to_owned) else { continue };
            if self.segments.iter().any(|segment| segment.name() == name) {
                continue;
            }
            let whole = numbers(&name);
            let held = whole.map(|(first, last)| self.holds(db, first, last)).transpose()?;
            // A name of a restore that was cut short, whose backup is there.
            if held == Some(true) || name.ends_with(".tmp") {
                fs::remove_file(file.path()).map_err(|e| StoreError::io("removing", file.path(), e))?;
            }
        }
        Ok(())
    }

    /// Whether all entries with these numbers are in segments or in the database.
    fn holds(&self, db: &mut Raw<'_>, first: i64, last: i64) -> Result<bool, StoreError> {
        let mut next = first;
        for segment in self.segments.iter().filter(|segment| self.file(segment).exists()) {
            if (segment.first..=segment.last).contains(&next) {
                next = segment.last.saturating_add(1);
            }
        }
        let (mut count, wanted) = (0, last.saturating_sub(next).saturating_add(1));
        db.scan(
            c"SELECT count(*) FROM audit WHERE seq BETWEEN ?1 AND ?2",
            &[Value::Int(next), Value::Int(last)],
            |row| {
                count = row.int(0);
                ControlFlow::Break(())
            },
        )?;
        Ok(next > last || count == wanted)
    }

    /// Seals every segment anew under other keys, in files of other names, and gives their checkpoints. A segment whose file
    /// is missing goes on missing; one that is not what its checkpoint says, but opens, gets a checkpoint that does not match either.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where a file does not open; [`StoreError::Io`], [`StoreError::DiskFull`].
    pub(crate) fn reseal(
        &self,
        from: &ChainKey,
        to: &ArchiveKey,
        chain: &ChainKey,
    ) -> Result<Vec<Segment>, StoreError> {
        let mut resealed = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            if !self.file(segment).exists() {
                let mut same = segment.clone();
                same.seal = same.seal_of(chain).to_vec();
                resealed.push(same);
                continue;
            }
            let damaged = || {
                let name = self.file(segment);
                StoreError::Damaged(format!("{} does not open: move it away to go on without it", name.display()))
            };
            let (mut file, mut hash) =
                (SegmentFile::begin(&self.folder, segment.first, segment.last, to)?, Sha256::new());
            let pieces = segment.pieces();
            if pieces.is_empty() {
                return Err(damaged());
            }
            for piece in pieces {
                let Opened::Entries(entries) = self.open(segment, piece)? else { return Err(damaged()) };
                hash.update(&entries.sealed);
                file.push(piece.first, &entries.plain)?;
            }
            let whole = segment.is_sealed(from) && self.has_length(segment) && segment.has_digest(hash);
            let mut other = file.finish(segment.prev.clone(), segment.mac.clone(), chain)?;
            if !whole {
                other.digest.clear();
                other.seal = other.seal_of(chain).to_vec();
            }
            resealed.push(other);
        }
        if !resealed.is_empty() {
            sync_folder(&self.folder)?;
        }
        Ok(resealed)
    }
}

/// Opens a file of ours; a link in its place is an error.
fn no_link(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// Whether a file of ours was cut off, or is something else.
fn is_no_file(e: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, UnexpectedEof};
    matches!(e.kind(), UnexpectedEof | IsADirectory) || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// The numbers in the name of a segment file.
fn numbers(name: &str) -> Option<(i64, i64)> {
    let mut parts = name.splitn(3, '.');
    let (first, last, id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    (first <= last && id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some((first, last))
}

/// Whether a name is one that a segment file can have.
pub(crate) fn is_name(name: &str) -> bool {
    numbers(name).is_some()
}

/// Makes the folder of the segments where it is missing.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| StoreError::io("making", folder, e))
}

/// The file of a segment while it is written. One that is not finished is removed on drop.
struct SegmentFile {
    path: PathBuf,
    file: File,
    key: keyward_crypto::SegmentKey,
    hash: Sha256,
    finished: bool,
    segment: Segment,
}

impl SegmentFile {
    fn begin(folder: &Path, first: i64, last: i64, key: &ArchiveKey) -> Result<Self, StoreError> {
        let id: [u8; 16] = make_array()?;
        let (prev, mac, pieces, digest, seal) = Default::default();
        let segment = Segment { first, last, prev, mac, id: id.to_vec(), pieces, digest, seal };
        let path = folder.join(segment.name());
        let file = create_private(&path).map_err(|e| StoreError::io("making", &path, e))?;
        Ok(Self { path, file, key: key.segment(id), hash: Sha256::new(), finished: false, segment })
    }

    /// Adds a piece of entries from `first` on.
    fn push(&mut self, first: i64, plain: &[u8]) -> Result<(), StoreError> {
        let sealed = self.key.seal((self.segment.pieces.len() / PIECE_RECORD) as u64, plain)?;
        self.segment.pieces.extend(first.to_be_bytes());
        self.segment.pieces.extend(u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.hash.update(&sealed);
        self.file.write_all(&sealed).map_err(|e| StoreError::io("writing", &self.path, e))
    }

    /// Makes the file durable, its name not yet.
    fn finish(mut self, prev: Vec<u8>, mac: Vec<u8>, chain: &ChainKey) -> Result<Segment, StoreError> {
        self.file.sync_all().map_err(|e| StoreError::io("syncing", &self.path, e))?;
        let mut segment = self.segment.clone();
        (segment.prev, segment.mac, segment.digest) = (prev, mac, self.hash.clone().finalize().to_vec());
        segment.seal = segment.seal_of(chain).to_vec();
        self.finished = true;
        Ok(segment)
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// Moves the oldest `entries` entries into an archive segment, where more than `keep` newer ones are in the database (never
    /// fewer than 1024 stay there), and records that. Says whether it did; call it again as long as it does. Commits wait for a
    /// few milliseconds at a time, and for the deletion of the entries at the end. Does nothing while the log is broken or is
    /// being verified, or another step goes on. On an error nothing was moved.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`], those of [`Store::commit`].
    pub async fn archive_step(&self, at_us: i64, keep: u64, entries: u32) -> Result<bool, StoreError> {
        if self.is_broken() || entries == 0 {
            return Ok(false);
        }
        let Ok(turn) = Arc::clone(&self.moving).try_lock_owned() else { return Ok(false) };
        let mut inner = self.inner.lock().await;
        let oldest = inner.archive.next();
        let newest = stored_u64(inner.head.seq.saturating_sub(keep.max(KEEP_MIN)));
        let (mut first, mut last) = (None, None);
        let sql = c"SELECT seq FROM audit WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT 1 OFFSET ?3";
        for (found, offset) in [(&mut first, 0), (&mut last, i64::from(entries) - 1)] {
            let parameters = [Value::Int(oldest), Value::Int(newest), Value::Int(offset)];
            db::raw(inner.conn()?).await?.scan(sql, &parameters, |row| {
                *found = Some(row.int(0));
                ControlFlow::Break(())
            })?;
        }
        let (folder, key) = (inner.archive.folder.clone(), Arc::clone(&inner.archive.key));
        drop(inner);
        let (Some(first), Some(last)) = (first, last) else { return Ok(false) };
        make_folder(&folder)?;
        let mut file = SegmentFile::begin(&folder, first, last, &key)?;
        let (mut next, mut prev, mut mac) = (Some(first), None, Vec::new());
        while let Some(from) = next {
            let (mut plain, mut begin) = (Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8), from);
            let mut inner = self.inner.lock().await;
            let sql = c"SELECT seq, prev, mac, body FROM audit WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
            let more = db::raw(inner.conn()?).await?.scan(sql, &[Value::Int(from), Value::Int(last)], |row| {
                let link = RawLink::of(row);
                if plain.is_empty() {
                    begin = link.seq;
                }
                prev.get_or_insert_with(|| link.prev.to_vec());
                mac.clear();
                mac.extend(link.mac);
                next = link.seq.checked_add(1).filter(|next| *next <= last);
                encode(&link, &mut plain);
                if plain.len() >= PIECE_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            drop(inner);
            if !plain.is_empty() {
                file.push(begin, &plain)?;
            }
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        let keys = Arc::clone(&self.keys);
        let written = tokio::task::spawn_blocking(move || {
            let segment = file.finish(prev.unwrap_or_default(), mac, &keys.chain)?;
            sync_folder(&folder)?;
            if let Some(data) = folder.parent() {
                sync_folder(data)?;
            }
            Ok(segment)
        });
        let segment = written.await.unwrap_or(Err(StoreError::Unusable("a segment was not written")))?;
        fault("archive.written");
        let (inner, keys) = (Arc::clone(&self.inner), Arc::clone(&self.keys));
        // A task of its own, as a commit is.
        let task = tokio::spawn(async move {
            let _turn = turn;
            let mut inner = inner.lock().await;
            let path = inner.archive.file(&segment);
            let entry = Draft::new(at_us, Kind::AuditArchived)
                .detail("first", segment.first)
                .detail("last", segment.last)
                .detail("digest", hex::encode(&segment.digest));
            let moved = inner.commit_moving(&keys, &Changes::record(vec![entry]), Some(&segment)).await;
            match moved {
                Ok(_) => inner.archive.segments.push(segment),
                // Where it is not sure what was written, the next open finds out.
                Err(_) if inner.conn().is_err() => {}
                Err(_) => drop(fs::remove_file(path)),
            }
            moved.map(|_| true)
        });
        task.await.unwrap_or(Err(StoreError::Unusable("a segment was not moved")))
    }
}

impl Inner {
    /// One entry, wherever it lies.
    pub(crate) async fn link(&mut self, seq: u64) -> Result<Option<Link>, StoreError> {
        let found = sqlx::query_as("SELECT seq, prev, mac, body FROM audit WHERE seq = ?1").bind(stored_u64(seq));
        match found.fetch_optional(self.conn()?).await? {
            Some(link) => Ok(Some(link)),
            None => self.archive.link(stored_u64(seq)),
        }
    }
}
