//! What the review looks entries up by: the tables of `migrations/0002_review.sql`, and the cells as `0004_archive.sql` has them.
//!
//! They follow from the stored bodies alone ([`Stamp::read`]), never from what a caller meant to write, so that commits,
//! [`rebuild`] and [`Check`] cannot disagree. They are made anew in two cases only: after the migrations that add or change
//! them, and when the operator accepts a break. In every other case a difference is a problem that verification names; nothing mends it
//! unseen.
//!
//! A block is stored when an entry of the next one is. The newest one is counted in memory, so that a commit writes no more
//! than its entries but once in 512 of them.
//!
//! `audit_block.cells` holds, integers with the least byte first: u16 number of names; for each u16 length ‖ UTF-8; then the cells
//! of 22 bytes: i32 hour since 1970 UTC ‖ u16 kind ‖ u16 outcome ‖ u16 app ‖ u16 profile ‖ u16 project ‖ u16 count ‖ u16 first ‖ u16 last
//! ‖ u16 uses. `uses` is the sum of [`Stamp::uses`]; 512 entries of 64 uses fit.
//! A field is 0 where it is absent, else the place of its name from 1; `first` and `last` count from the first number of the
//! block. Names and cells stand in the order in which the entries first have them, so that the same entries give the same bytes.

use crate::archive::Archive;
use crate::db::{self, Raw, Value};
use crate::error::StoreError;
use crate::store::{put, stored_u64};
use keyward_core::audit::Stamp;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Executor, query_with};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Sequence numbers of a block.
const BLOCK: i64 = 512;

/// The hour of an entry whose time cannot be read.
pub(crate) const UNDATED: i32 = i32::MIN;

/// Longest name that a block keeps whole, in bytes, so that a block stays small whatever its entries hold.
const NAME_MAX_BYTES: usize = 512;

/// Key in `meta` that asks for the tables to be made anew.
pub(crate) const META_UNINDEXED: &str = "audit.unindexed";

/// Rows of one statement: at most 32,766 parameters go into one.
pub(crate) const ROWS_MAX: usize = 1000;

/// Entries that are read at a time while the tables are made anew.
const STEP: u32 = 4096;

const CELL_BYTES: usize = 22;

/// Block of a sequence number.
pub(crate) fn block_of(seq: i64) -> i64 {
    seq.div_euclid(BLOCK)
}

/// First sequence number of a block.
pub(crate) fn first_of(block: i64) -> i64 {
    block.saturating_mul(BLOCK)
}

/// Last sequence number of a block.
pub(crate) fn last_of(block: i64) -> i64 {
    first_of(block).saturating_add(BLOCK - 1)
}

/// Hour of a time in microseconds since 1970 UTC. Never [`UNDATED`].
pub(crate) fn hour_of(at_us: i64) -> i32 {
    i32::try_from(at_us.div_euclid(3_600_000_000)).unwrap_or(if at_us < 0 { UNDATED + 1 } else { i32::MAX })
}

/// A name as a block keeps it: of a long one the beginning, a NUL, and 128 bits of its SHA-256 in hexadecimal.
pub(crate) fn kept(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_MAX_BYTES {
        return Cow::Borrowed(name);
    }
    let beginning = &name[..name.floor_char_boundary(NAME_MAX_BYTES / 2)];
    Cow::Owned(format!("{beginning}\0{}", hex::encode(&Sha256::digest(name)[..16])))
}

/// Whether a name is kept whole.
pub(crate) fn is_whole(kept: &str) -> bool {
    !kept.contains('\0')
}

/// Entries of a block with the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Hours since 1970 UTC, or [`UNDATED`].
    pub(crate) hour: i32,
    /// Kind, outcome, app, profile, project: 0 where it is absent, else the place of the name from 1.
    pub(crate) names: [u16; 5],
    pub(crate) count: u16,
    /// Places in the block.
    pub(crate) first: u16,
    pub(crate) last: u16,
    /// Uses that they stand for.
    pub(crate) uses: u16,
}

impl Cell {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.hour.to_le_bytes());
        for n in self.names.iter().chain(&[self.count, self.first, self.last, self.uses]) {
            to.extend(n.to_le_bytes());
        }
    }

    fn read(bytes: &[u8; CELL_BYTES]) -> Self {
        let [h0, h1, h2, h3, ..] = *bytes;
        let word = |at: usize| u16::from_le_bytes([bytes[4 + 2 * at], bytes[5 + 2 * at]]);
        Self {
            hour: i32::from_le_bytes([h0, h1, h2, h3]),
            names: [0, 1, 2, 3, 4].map(word),
            count: word(5),
            first: word(6),
            last: word(7),
            uses: word(8),
        }
    }
}

/// The cells of a block as they are stored.
#[derive(Debug, Clone)]
pub(crate) struct Cells<'b> {
    block: i64,
    /// The names: the first has place 1.
    pub(crate) names: Vec<&'b str>,
    cells: &'b [u8],
}

impl<'b> Cells<'b> {
    /// Reads them; `None` where they are not of that layout.
    pub(crate) fn read(block: i64, bytes: &'b [u8]) -> Option<Self> {
        let (count, mut rest) = bytes.split_first_chunk()?;
        let mut names = Vec::with_capacity(usize::from(u16::from_le_bytes(*count)));
        for _ in 0..u16::from_le_bytes(*count) {
            let (len, after) = rest.split_first_chunk()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            names.push(str::from_utf8(name).ok()?);
            rest = after;
        }
        rest.len().is_multiple_of(CELL_BYTES).then_some(Self { block, names, cells: rest })
    }

    /// The place of a name, from 1.
    pub(crate) fn place(&self, name: &str) -> Option<u16> {
        let at = self.names.iter().position(|known| *known == name)?;
        u16::try_from(at + 1).ok()
    }

    /// The name at a place.
    pub(crate) fn name(&self, place: u16) -> Option<&'b str> {
        self.names.get(usize::from(place).checked_sub(1)?).copied()
    }

    /// The first and the last sequence number of a cell.
    pub(crate) fn range(&self, cell: &Cell) -> (i64, i64) {
        let at = |place: u16| first_of(self.block).saturating_add(i64::from(place));
        (at(cell.first), at(cell.last))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Cell> + use<'b> {
        self.cells.as_chunks().0.iter().map(Cell::read)
    }
}

/// How many entries there are of a run, and between which sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    count: i64,
    first: i64,
    last: i64,
}

/// A block to which entries are added.
#[derive(Debug, Default)]
pub(crate) struct Block {
    number: i64,
    names: Vec<Box<str>>,
    places: HashMap<Box<str>, u16>,
    cells: Vec<Cell>,
    /// Where in `cells` the cell of an hour and names is.
    at: HashMap<(i32, [u16; 5]), usize>,
    runs: HashMap<Box<str>, Span>,
}

impl Block {
    fn new(number: i64) -> Self {
        Self { number, ..Self::default() }
    }

    /// The newest block of a log that ends at `head`, counted from its entries.
    pub(crate) fn newest(db: &mut Raw<'_>, head: u64) -> Result<Self, StoreError> {
        let mut block = Self::new(block_of(stored_u64(head)));
        db.links(first_of(block.number), u32::MAX, |link| block.push(link.seq, &Stamp::read(link.body)))?;
        Ok(block)
    }

    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    fn place(&mut self, name: &str) -> u16 {
        if name.is_empty() {
            return 0;
        }
        let name = kept(name);
        if let Some(place) = self.places.get(&*name) {
            return *place;
        }
        self.names.push(name.as_ref().into());
        let place = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.places.insert(name.as_ref().into(), place);
        place
    }

    fn push(&mut self, seq: i64, stamp: &Stamp<'_>) {
        let at = u16::try_from(seq - first_of(self.number)).unwrap_or(u16::MAX);
        let hour = stamp.at_us().map_or(UNDATED, hour_of);
        let names = [&stamp.kind, &stamp.outcome, &stamp.app, &stamp.profile, &stamp.project];
        let names = names.map(|name| self.place(name));
        let next = self.cells.len();
        let place = *self.at.entry((hour, names)).or_insert(next);
        if let Some(cell) = self.cells.get_mut(place) {
            cell.count = cell.count.saturating_add(1);
            cell.last = at;
            cell.uses = cell.uses.saturating_add(stamp.uses);
        } else {
            self.cells.push(Cell { hour, names, count: 1, first: at, last: at, uses: stamp.uses });
        }
        if let Some(span) = self.runs.get_mut(&*stamp.run) {
            span.count += 1;
            span.last = seq;
        } else if !stamp.run.is_empty() {
            self.runs.insert(stamp.run.as_ref().into(), Span { count: 1, first: seq, last: seq });
        }
    }

    /// As it is stored.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.names.len() * 24 + self.cells.len() * CELL_BYTES);
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        bytes.extend(short(self.names.len()));
        for name in &self.names {
            bytes.extend(short(name.len()));
            bytes.extend(name.as_bytes());
        }
        for cell in &self.cells {
            cell.write(&mut bytes);
        }
        bytes
    }
}

/// Adds a statement that inserts so many rows.
pub(crate) fn insert(sql: &mut String, into: &str, columns: usize, rows: usize) {
    if !sql.is_empty() {
        sql.push(';');
    }
    sql.push_str("INSERT INTO ");
    sql.push_str(into);
    for row in 0..rows {
        sql.push_str(if row == 0 { " VALUES (?" } else { ", (?" });
        for _ in 1..columns {
            sql.push_str(", ?");
        }
        sql.push(')');
    }
}

/// Counts entries that are about to be stored, in the order of their numbers, and gives the blocks that they finish. `newest` is
/// the block of the entry before them, and becomes that of the last one.
pub(crate) fn count<'b>(newest: &mut Block, entries: impl Iterator<Item = (i64, &'b [u8])>) -> Vec<Block> {
    let mut finished = Vec::new();
    for (seq, body) in entries {
        let number = block_of(seq);
        if newest.number != number {
            finished.push(std::mem::replace(newest, Block::new(number)));
        }
        newest.push(seq, &Stamp::read(body));
    }
    finished
}

/// Adds the statements that store blocks, and their arguments.
pub(crate) fn store(finished: &[Block], sql: &mut String, arguments: &mut SqliteArguments) -> Result<(), StoreError> {
    for blocks in finished.chunks(ROWS_MAX) {
        insert(sql, "audit_block (block, cells)", 2, blocks.len());
        sql.push_str(" ON CONFLICT (block) DO UPDATE SET cells = excluded.cells");
        for block in blocks {
            put(arguments, block.number)?;
            put(arguments, block.to_bytes())?;
        }
    }
    let runs = finished.iter().flat_map(|block| block.runs.iter().map(|run| (block.number, run)));
    let mut runs: Vec<_> = runs.collect();
    // Rows that stand beside each other are written one after the other.
    runs.sort_unstable_by_key(|(_, (run, _))| *run);
    for runs in runs.chunks(ROWS_MAX) {
        insert(sql, "audit_run (run, block, count, first, last)", 5, runs.len());
        sql.push_str(
            " ON CONFLICT (run, block) DO UPDATE SET count = excluded.count, first = excluded.first, last = excluded.last",
        );
        for (block, (run, span)) in runs {
            put(arguments, &***run)?;
            put(arguments, *block)?;
            put(arguments, span.count)?;
            put(arguments, span.first)?;
            put(arguments, span.last)?;
        }
    }
    Ok(())
}

/// Makes the tables anew from the entries, archived ones included, in one transaction.
pub(crate) async fn rebuild(conn: &mut SqliteConnection, archive: &Archive) -> Result<(), StoreError> {
    conn.execute("BEGIN IMMEDIATE; DELETE FROM audit_block; DELETE FROM audit_run").await?;
    let (mut newest, mut next) = (None::<Block>, archive.next());
    for segment in &archive.segments {
        let mut finished = Vec::new();
        archive.each(segment, |link| {
            let newest = newest.get_or_insert_with(|| Block::new(block_of(link.seq)));
            finished.extend(count(newest, std::iter::once((link.seq, link.body))));
        })?;
        write(conn, &finished).await?;
        tokio::task::yield_now().await;
    }
    loop {
        let (mut seen, mut finished) = (0, Vec::new());
        let last = db::raw(conn).await?.links(next, STEP, |link| {
            seen += 1;
            let newest = newest.get_or_insert_with(|| Block::new(block_of(link.seq)));
            finished.extend(count(newest, std::iter::once((link.seq, link.body))));
        })?;
        write(conn, &finished).await?;
        match last {
            Some(last) if seen == STEP => next = last.saturating_add(1),
            _ => break,
        }
        tokio::task::yield_now().await;
    }
    sqlx::query("DELETE FROM meta WHERE key = ?1").bind(META_UNINDEXED).execute(&mut *conn).await?;
    conn.execute("COMMIT").await?;
    Ok(())
}

async fn write(conn: &mut SqliteConnection, finished: &[Block]) -> Result<(), StoreError> {
    if finished.is_empty() {
        return Ok(());
    }
    let (mut sql, mut arguments) = (String::new(), SqliteArguments::default());
    store(finished, &mut sql, &mut arguments)?;
    query_with(AssertSqlSafe(sql), arguments).persistent(false).execute(conn).await?;
    Ok(())
}

/// Compares the tables with the entries, block by block while these are read.
#[derive(Debug, Default)]
pub(crate) struct Check {
    newest: Option<Block>,
    /// Blocks that are not compared yet.
    finished: Vec<Block>,
    /// Rows of blocks and of runs that were compared.
    compared: (i64, i64),
    /// First sequence number of the first block that differs.
    wrong: Option<i64>,
}

impl Check {
    /// Counts an entry. They come in the order of their numbers.
    pub(crate) fn push(&mut self, seq: i64, stamp: &Stamp<'_>) {
        let number = block_of(seq);
        let newest = self.newest.get_or_insert_with(|| Block::new(number));
        if newest.number != number {
            self.finished.push(std::mem::replace(newest, Block::new(number)));
        }
        newest.push(seq, stamp);
    }

    /// Compares the blocks that are finished.
    pub(crate) fn compare(&mut self, db: &mut Raw<'_>) -> Result<(), StoreError> {
        for block in std::mem::take(&mut self.finished) {
            self.compare_block(db, &block)?;
        }
        Ok(())
    }

    /// Ends the check, and gives the number of the entry from which on the tables differ.
    pub(crate) fn finish(mut self, db: &mut Raw<'_>) -> Result<Option<i64>, StoreError> {
        self.compare(db)?;
        // Rows of the newest block, or of blocks and runs without entries.
        let sql = c"SELECT (SELECT count(*) FROM audit_block), (SELECT count(*) FROM audit_run)";
        db.scan(sql, &[], |row| {
            if (row.int(0), row.int(1)) != self.compared {
                self.wrong.get_or_insert(1);
            }
            ControlFlow::Break(())
        })?;
        Ok(self.wrong)
    }

    fn compare_block(&mut self, db: &mut Raw<'_>, block: &Block) -> Result<(), StoreError> {
        let mut same = false;
        db.scan(c"SELECT cells FROM audit_block WHERE block = ?1", &[Value::Int(block.number)], |row| {
            self.compared.0 += 1;
            same = row.blob(0) == block.to_bytes();
            ControlFlow::Break(())
        })?;
        let asked = serde_json::to_string(&block.runs.keys().collect::<Vec<_>>()).unwrap_or_default();
        let sql = c"SELECT r.run, r.count, r.first, r.last FROM json_each(?1) AS j
                    JOIN audit_run AS r ON r.run = j.value AND r.block = ?2";
        let mut found = 0;
        db.scan(sql, &[Value::Text(&asked), Value::Int(block.number)], |row| {
            found += 1;
            let span = Span { count: row.int(1), first: row.int(2), last: row.int(3) };
            same &= block.runs.get(row.text(0)) == Some(&span);
            ControlFlow::Continue(())
        })?;
        self.compared.1 += i64::try_from(found).unwrap_or(i64::MAX);
        if !same || found != block.runs.len() {
            self.wrong.get_or_insert(first_of(block.number).max(1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let mut block = Block::new(3);
        let long = "é".repeat(300);
        for (n, app) in ["codex", "", &long, "codex"].into_iter().enumerate() {
            let body = format!(
                "{{\"seq\":1,\"kind\":\"run.started\",\"outcome\":\"ok\",\"app\":\"{app}\",\"at\":\"2026-11-21T0{}:04:05.123456Z\"}}",
                n / 2
            );
            block.push(first_of(3) + n as i64, &Stamp::read(body.as_bytes()));
        }
        block.push(last_of(3), &Stamp::read(b"no entry"));
        for (n, count) in [(4, "64"), (5, "0"), (6, "3")] {
            let body =
                format!("{{\"seq\":1,\"kind\":\"credential.used\",\"detail\":{{\"count\":{count},\"uses\":[]}}}}");
            block.push(first_of(3) + n, &Stamp::read(body.as_bytes()));
        }
        block
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let bytes = block().to_bytes();
        let Some(cells) = Cells::read(3, &bytes) else { unreachable!("it was written just so") };
        let seen: Vec<_> =
            cells.iter().map(|c| (c.hour, c.count, c.uses, cells.range(&c), cells.name(c.names[2]))).collect();
        let (hour, long) = (498_672, kept(&"é".repeat(300)).into_owned());
        assert_eq!(
            seen,
            [
                (hour, 1, 0, (1536, 1536), Some("codex")),
                (hour, 1, 0, (1537, 1537), None),
                (hour + 1, 1, 0, (1538, 1538), Some(&*long)),
                (hour + 1, 1, 0, (1539, 1539), Some("codex")),
                (UNDATED, 1, 0, (2047, 2047), None),
                (UNDATED, 3, 68, (1540, 1542), None),
            ]
        );
        assert_eq!((cells.place("codex"), cells.place("code"), cells.name(9)), (Some(3), None, None));
        assert!(long.len() < NAME_MAX_BYTES && !is_whole(&long) && is_whole("codex"));
        assert_ne!(kept(&format!("{}a", "é".repeat(300))), kept(&format!("{}b", "é".repeat(300))));
    }

    #[test]
    fn bytes_that_nobody_wrote_are_refused_or_read_without_harm() {
        let bytes = block().to_bytes();
        let harmless = |bytes: &[u8]| {
            if let Some(cells) = Cells::read(i64::MAX, bytes) {
                for cell in cells.iter() {
                    let _ = (cells.range(&cell), cell.names.map(|place| cells.name(place)));
                }
            }
        };
        for at in 0..bytes.len() {
            harmless(&bytes[..at]);
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                harmless(&bad);
            }
        }
        assert!(Cells::read(0, b"").is_none() && Cells::read(0, &[255; 40]).is_none());
    }

    #[test]
    fn hours_of_any_time_differ_from_no_time() {
        assert_eq!((hour_of(0), hour_of(-1), hour_of(3_600_000_000)), (0, -1, 1));
        assert!(hour_of(i64::MIN) > UNDATED && hour_of(i64::MAX) > 0);
    }
}
