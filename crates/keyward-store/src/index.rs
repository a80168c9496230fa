//! What the review looks entries up by: the tables of `migrations/0002_review.sql`.
//!
//! They follow from the stored bodies alone ([`Stamp::read`]), never from what a caller meant to write, so that commits,
//! [`rebuild`] and [`Check`] cannot disagree. They are made anew in two cases only: after the migration that adds them, and
//! when the operator accepts a break. In every other case a difference is a problem that verification names; nothing mends it
//! unseen.
//!
//! `audit_block.cells` holds, integers with the least byte first: u16 number of names; for each u16 length ‖ UTF-8; then the cells
//! of 20 bytes: i32 hour since 1970 UTC ‖ u16 kind ‖ u16 outcome ‖ u16 app ‖ u16 profile ‖ u16 project ‖ u16 count ‖ u16 first ‖ u16 last.
//! A field is 0 where it is absent, else the place of its name from 1; `first` and `last` count from the first number of the
//! block. Names and cells stand in the order in which the entries first have them, so that the same entries give the same bytes.

use crate::db::{self, Value};
use crate::error::StoreError;
use crate::store::put;
use keyward_core::audit::Stamp;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Executor, query_with};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Sequence numbers of a block.
const BLOCK: i64 = 512;

/// The hour of an entry whose time cannot be read.
pub(crate) const UNDATED: i32 = i32::MIN;

/// Names are cut to so many bytes, so that a block stays small whatever its entries hold.
const NAME_MAX_BYTES: usize = 512;

/// A name of so many bytes or fewer is whole: a cut one lacks at most three for the sake of its last character.
pub(crate) const WHOLE_MAX_BYTES: usize = NAME_MAX_BYTES - 4;

/// Key in `meta` that asks for the tables to be made anew.
pub(crate) const META_UNINDEXED: &str = "audit.unindexed";

/// Rows of one statement: at most 32,766 parameters go into one.
pub(crate) const ROWS_MAX: usize = 1000;

/// Entries that are read at a time while the tables are made anew.
const STEP: u32 = 4096;

const CELL_BYTES: usize = 20;

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

/// A name as a block keeps it.
pub(crate) fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX_BYTES)]
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
}

impl Cell {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.hour.to_le_bytes());
        for n in self.names.iter().chain(&[self.count, self.first, self.last]) {
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
    /// The runs, since they were last taken.
    runs: HashMap<Box<str>, Span>,
}

impl Block {
    fn new(number: i64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Goes on with a stored block. What cannot be read counts for nothing: verification finds it.
    async fn load(conn: &mut SqliteConnection, number: i64) -> Result<Self, StoreError> {
        let mut block = Self::new(number);
        db::scan(conn, c"SELECT cells FROM audit_block WHERE block = ?1", &[Value::Int(number)], |row| {
            if let Some(cells) = Cells::read(number, row.blob(0)) {
                block.cells = cells.iter().collect();
                block.names = cells.names.iter().map(|name| (*name).into()).collect();
            }
            ControlFlow::Break(())
        })
        .await?;
        block.at = block.cells.iter().enumerate().map(|(at, cell)| ((cell.hour, cell.names), at)).collect();
        block.places = block.names.iter().cloned().zip(1..).collect();
        Ok(block)
    }

    fn place(&mut self, name: &str) -> u16 {
        let name = cut(name);
        if name.is_empty() {
            return 0;
        }
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        self.names.push(name.into());
        let place = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.places.insert(name.into(), place);
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
        } else {
            self.cells.push(Cell { hour, names, count: 1, first: at, last: at });
        }
        if let Some(span) = self.runs.get_mut(&*stamp.run) {
            span.count += 1;
            span.last = seq;
        } else if !stamp.run.is_empty() {
            self.runs.insert(stamp.run.as_ref().into(), Span { count: 1, first: seq, last: seq });
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
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

/// Entries that are about to be stored, by block.
#[derive(Debug, Default)]
pub(crate) struct Pending(Vec<Block>);

impl Pending {
    /// Counts entries in the order of their numbers. `open` is the block of the entry before them, where it is in memory.
    pub(crate) async fn of<'b>(
        conn: &mut SqliteConnection,
        open: Option<Block>,
        entries: impl Iterator<Item = (i64, &'b [u8])>,
    ) -> Result<Self, StoreError> {
        let mut blocks: Vec<Block> = open.into_iter().collect();
        for (seq, body) in entries {
            let number = block_of(seq);
            if blocks.last().is_none_or(|block| block.number != number) {
                blocks.push(Block::load(conn, number).await?);
            }
            if let Some(block) = blocks.last_mut() {
                block.push(seq, &Stamp::read(body));
            }
        }
        Ok(Self(blocks))
    }

    /// Adds the statements that store them, and their arguments.
    pub(crate) fn write(&mut self, sql: &mut String, arguments: &mut SqliteArguments) -> Result<(), StoreError> {
        for blocks in self.0.chunks(ROWS_MAX) {
            insert(sql, "audit_block (block, cells)", 2, blocks.len());
            sql.push_str(" ON CONFLICT (block) DO UPDATE SET cells = excluded.cells");
            for block in blocks {
                put(arguments, block.number)?;
                put(arguments, block.to_bytes())?;
            }
        }
        let runs = self.0.iter_mut().flat_map(|block| block.runs.drain().map(|run| (block.number, run)));
        let runs: Vec<_> = runs.collect();
        for runs in runs.chunks(ROWS_MAX) {
            insert(sql, "audit_run (run, block, count, first, last)", 5, runs.len());
            sql.push_str(
                " ON CONFLICT (run, block) DO UPDATE SET count = count + excluded.count, last = excluded.last",
            );
            for (block, (run, span)) in runs {
                put(arguments, &**run)?;
                put(arguments, *block)?;
                put(arguments, span.count)?;
                put(arguments, span.first)?;
                put(arguments, span.last)?;
            }
        }
        Ok(())
    }

    /// The block to which the next entry is added, once all are stored.
    pub(crate) fn into_open(mut self) -> Option<Block> {
        self.0.pop()
    }
}

/// Makes the tables anew from the entries, in one transaction.
pub(crate) async fn rebuild(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    conn.execute("BEGIN IMMEDIATE; DELETE FROM audit_block; DELETE FROM audit_run").await?;
    let (mut blocks, mut next) = (Vec::<Block>::new(), i64::MIN);
    loop {
        let mut seen = 0;
        let last = db::scan_links(conn, next, STEP, |link| {
            seen += 1;
            let number = block_of(link.seq);
            if blocks.last().is_none_or(|block| block.number != number) {
                blocks.push(Block::new(number));
            }
            if let Some(block) = blocks.last_mut() {
                block.push(link.seq, &Stamp::read(link.body));
            }
        })
        .await?;
        let more = last.filter(|_| seen == STEP);
        let open = more.and_then(|_| blocks.pop());
        if !blocks.is_empty() {
            let (mut sql, mut arguments) = (String::new(), SqliteArguments::default());
            Pending(std::mem::take(&mut blocks)).write(&mut sql, &mut arguments)?;
            query_with(AssertSqlSafe(sql), arguments).persistent(false).execute(&mut *conn).await?;
        }
        blocks.extend(open);
        match more {
            Some(last) => next = last.saturating_add(1),
            None => break,
        }
        tokio::task::yield_now().await;
    }
    sqlx::query("DELETE FROM meta WHERE key = ?1").bind(META_UNINDEXED).execute(&mut *conn).await?;
    conn.execute("COMMIT").await?;
    Ok(())
}

/// Compares the tables with the entries, block by block while these are read.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// Blocks that are not compared yet; entries are added to the last one.
    blocks: Vec<Block>,
    compared: (i64, i64),
    /// First sequence number of the first block that differs.
    wrong: Option<i64>,
}

impl Check {
    /// Counts an entry. They come in the order of their numbers.
    pub(crate) fn push(&mut self, seq: i64, stamp: &Stamp<'_>) {
        let number = block_of(seq);
        if self.blocks.last().is_none_or(|block| block.number != number) {
            self.blocks.push(Block::new(number));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(seq, stamp);
        }
    }

    /// Compares the blocks to which no entry is added any more.
    pub(crate) async fn compare(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        let open = self.blocks.pop();
        for block in std::mem::take(&mut self.blocks) {
            self.compare_block(conn, &block).await?;
        }
        self.blocks.extend(open);
        Ok(())
    }

    /// Compares the rest, and gives the number of the entry from which on the tables differ.
    pub(crate) async fn finish(mut self, conn: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
        for block in std::mem::take(&mut self.blocks) {
            self.compare_block(conn, &block).await?;
        }
        // Rows of blocks or runs without entries.
        let sql = c"SELECT (SELECT count(*) FROM audit_block), (SELECT count(*) FROM audit_run)";
        db::scan(conn, sql, &[], |row| {
            if (row.int(0), row.int(1)) != self.compared {
                self.wrong.get_or_insert(1);
            }
            ControlFlow::Break(())
        })
        .await?;
        Ok(self.wrong)
    }

    async fn compare_block(&mut self, conn: &mut SqliteConnection, block: &Block) -> Result<(), StoreError> {
        let mut same = false;
        db::scan(conn, c"SELECT cells FROM audit_block WHERE block = ?1", &[Value::Int(block.number)], |row| {
            self.compared.0 += 1;
            same = row.blob(0) == block.to_bytes();
            ControlFlow::Break(())
        })
        .await?;
        let asked = serde_json::to_string(&block.runs.keys().collect::<Vec<_>>()).unwrap_or_default();
        let sql = c"SELECT r.run, r.count, r.first, r.last FROM json_each(?1) AS j
                    JOIN audit_run AS r ON r.run = j.value AND r.block = ?2";
        let mut found = 0;
        db::scan(conn, sql, &[Value::Text(&asked), Value::Int(block.number)], |row| {
            found += 1;
            let span = Span { count: row.int(1), first: row.int(2), last: row.int(3) };
            same &= block.runs.get(row.text(0)) == Some(&span);
            ControlFlow::Continue(())
        })
        .await?;
        self.compared.1 += i64::try_from(found).unwrap_or(i64::MAX);
        if !same || found != block.runs.len() {
            self.wrong.get_or_insert(first_of(block.number).max(1));
        }
        Ok(())
    }
}
