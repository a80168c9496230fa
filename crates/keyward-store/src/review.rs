//! Reading the log: pages, searches, and what it says as a whole.
//!
//! One connection serves everybody, so that all work here is done in slices of a few milliseconds, between which others have
//! their turn. Filters are looked up in the tables of [`crate::index`], which say in which blocks an entry that matches can be;
//! whether one does is decided by its body alone. Archived entries are read piece by piece; a piece that does not open is left
//! out, as a row that is missing is. Never checks links: that is [`Store::verify`].

use crate::archive::{Archive, Opened};
use crate::db::{self, Raw, RawLink, Value};
use crate::error::StoreError;
use crate::index::{Cell, Cells, UNDATED, block_of, first_of, hour_of, is_whole, kept, last_of};
use crate::model::{ByOutcome, Filter, Found, Link, Order, Page, Summary, Use};
use crate::store::{Store, stored_u64};
use keyward_core::audit::{Kind, Outcome, Stamp};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long others wait for a slice.
const SLICE: Duration = Duration::from_millis(10);

/// Entries between two looks at the time.
const LOOK: u32 = 16;

/// Most names of each sort in a summary.
const NAMES_MAX: usize = 200;

/// Most pairs of app and profile.
const USES_MAX: usize = 1000;

impl Store {
    /// One page of entries. Never checks links; a body that is no JSON matches no filter but the text.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn entries(&self, page: Page, filter: &Filter) -> Result<Vec<Link>, StoreError> {
        Ok(self.search(page, filter, Duration::MAX).await?.links)
    }

    /// As [`Store::entries`], but stops when it kept the store busy for longer than `patience`. However short that is, some
    /// entries are looked at, so that a caller who goes on from [`Found::looked_to`] comes to the end.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn search(&self, page: Page, filter: &Filter, patience: Duration) -> Result<Found, StoreError> {
        let mut search = Search::new(page, filter);
        let (mut head, mut spent) = (None, Duration::ZERO);
        loop {
            let mut inner = self.inner.lock().await;
            let begin = Instant::now();
            let head = *head.get_or_insert(inner.head.seq);
            let newest = block_of(stored_u64(inner.head.seq));
            let (mut db, archive) = inner.sources().await?;
            let done = search.slice(&mut db, archive, newest, begin + SLICE)?;
            drop(db);
            drop(inner);
            spent += begin.elapsed();
            if done || spent > patience {
                let looked_to = if done { None } else { Some(search.looked_to()) };
                return Ok(Found { links: search.links, looked_to, head });
            }
            tokio::task::yield_now().await;
        }
    }

    /// What the log says as a whole. Times count by the hour; `run` and `text` of the filter do not count. A name that is longer
    /// than 512 bytes is counted, and not listed.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn summary(&self, filter: &Filter) -> Result<Summary, StoreError> {
        let mut summary = Summary::default();
        let mut hours: BTreeMap<i32, ByOutcome> = BTreeMap::new();
        let mut totals: [HashMap<Box<str>, u64>; 4] = Default::default();
        self.each_block(|cells| {
            let covers = Wanted::of(cells, filter);
            let outcomes = [Outcome::Ok, Outcome::Refused, Outcome::Failed].map(|outcome| cells.place(outcome.name()));
            let mut counts = vec![[0_u64; 4]; cells.names.len() + 1];
            for cell in cells.iter() {
                let count = u64::from(cell.count);
                summary.entries += count;
                let [kind, outcome, app, profile, project] = cell.names;
                for (sort, place) in [app, profile, project, kind].into_iter().enumerate() {
                    if let Some(counts) = counts.get_mut(usize::from(place)) {
                        counts[sort] += count;
                    }
                }
                if !covers.as_ref().is_some_and(|wanted| wanted.covers(&cell)) {
                    continue;
                }
                summary.total += count;
                if cell.hour != UNDATED {
                    let hour = hours.entry(cell.hour).or_default();
                    match outcomes.iter().position(|place| *place == Some(outcome)) {
                        Some(0) => hour.ok += count,
                        Some(1) => hour.refused += count,
                        Some(2) => hour.failed += count,
                        _ => {}
                    }
                }
            }
            let listed = cells.names.iter().zip(&counts[1..]).filter(|(name, _)| is_whole(name));
            for (name, counts) in listed {
                for (totals, count) in totals.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
                    match totals.get_mut(*name) {
                        Some(total) => *total += count,
                        None => drop(totals.insert((*name).into(), *count)),
                    }
                }
            }
        })
        .await?;
        summary.hours = hours.into_iter().map(|(hour, counts)| (i64::from(hour), counts)).collect();
        [summary.apps, summary.profiles, summary.projects, summary.kinds] = totals.map(|totals| {
            let mut list: Vec<(String, u64)> = totals.into_iter().map(|(name, n)| (name.into(), n)).collect();
            list.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
            list.truncate(NAMES_MAX);
            list
        });
        Ok(summary)
    }

    /// How often, and when first and last, each app and profile share an entry of one of `kinds` with outcome `ok`, and how many
    /// uses these entries stand for; the last ones first, at most 1000. Times count by the hour; `run` and `text` of the filter do not count.
    ///
    /// # Errors
    /// As [`Store::items`].
    pub async fn uses(&self, kinds: &[Kind], filter: &Filter) -> Result<Vec<Use>, StoreError> {
        let mut found: HashMap<(Kind, String, String), Sums> = HashMap::new();
        self.each_block(|cells| {
            let Some(wanted) = Wanted::of(cells, filter) else { return };
            let ok = cells.place(Outcome::Ok.name());
            let places: Vec<_> = kinds.iter().map(|kind| (*kind, cells.place(kind.name()))).collect();
            for cell in cells.iter() {
                let [kind, outcome, app, profile, _] = cell.names;
                if let Some((kind, _)) = places.iter().find(|(_, place)| *place == Some(kind))
                    && ok == Some(outcome)
                    && wanted.covers(&cell)
                    && let (Some(app), Some(profile)) = (cells.name(app), cells.name(profile))
                {
                    let (first, last) = cells.range(&cell);
                    let pair = (*kind, app.to_owned(), profile.to_owned());
                    let sums = found.entry(pair).or_insert(Sums { count: 0, uses: 0, first, last });
                    sums.count += u64::from(cell.count);
                    sums.uses += u64::from(cell.uses);
                    sums.last = last.max(sums.last);
                }
            }
        })
        .await?;
        let mut pairs: Vec<_> = found.into_iter().collect();
        pairs.sort_unstable_by_key(|(_, sums)| std::cmp::Reverse(sums.last));
        pairs.truncate(USES_MAX);
        let seqs: Vec<i64> = pairs.iter().flat_map(|(_, sums)| [sums.first, sums.last]).collect();
        let times = self.times_of(&seqs).await?;
        let uses = pairs.into_iter().filter_map(|((kind, app, profile), Sums { count, uses, first, last })| {
            let (first_at, last_at) = (times.get(&first)?.clone(), times.get(&last)?.clone());
            Some(Use { kind, app, profile, count, uses, first_at, last_at })
        });
        Ok(uses.collect())
    }

    /// The times of entries, as they stand there.
    async fn times_of(&self, seqs: &[i64]) -> Result<HashMap<i64, String>, StoreError> {
        let mut times = HashMap::new();
        let asked = serde_json::to_string(seqs).unwrap_or_default();
        let sql = c"SELECT seq, body FROM audit WHERE seq IN (SELECT value FROM json_each(?1))";
        db::raw(self.inner.lock().await.conn()?).await?.scan(sql, &[Value::Text(&asked)], |row| {
            times.insert(row.int(0), Stamp::read(row.blob(1)).at.into_owned());
            ControlFlow::Continue(())
        })?;
        let mut archived: Vec<i64> = seqs.iter().copied().filter(|seq| !times.contains_key(seq)).collect();
        archived.sort_unstable();
        let mut archived = &archived[..];
        while let Some(seq) = archived.first() {
            let inner = self.inner.lock().await;
            // Numbers that lie in one piece are looked for in it together.
            let Some((segment, piece)) = inner.archive.piece(*seq, Order::OldestFirst) else { break };
            let (here, later) = archived.split_at(archived.partition_point(|seq| *seq <= piece.last));
            if let Opened::Entries(entries) = inner.archive.open(segment, piece)? {
                for link in entries.links().iter().filter(|link| here.binary_search(&link.seq).is_ok()) {
                    times.insert(link.seq, Stamp::read(link.body).at.into_owned());
                }
            }
            drop(inner);
            archived = later;
            tokio::task::yield_now().await;
        }
        Ok(times)
    }

    /// Gives the cells of every block to `each`, oldest first; a block that is not understood is left out.
    async fn each_block(&self, mut each: impl FnMut(&Cells<'_>)) -> Result<(), StoreError> {
        let sql = c"SELECT block, cells FROM audit_block WHERE block > ?1 AND block < ?2 ORDER BY block";
        let mut done = i64::MIN;
        loop {
            let mut inner = self.inner.lock().await;
            let end = Instant::now() + SLICE;
            let (mut db, newest) = inner.lookup().await?;
            let parameters = [Value::Int(done), Value::Int(newest.number())];
            let broke = db.scan(sql, &parameters, |row| {
                done = row.int(0);
                if let Some(cells) = Cells::read(done, row.blob(1)) {
                    each(&cells);
                }
                if Instant::now() > end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if !broke {
                if let Some(cells) = Cells::read(newest.number(), &newest.to_bytes()) {
                    each(&cells);
                }
                return Ok(());
            }
            drop(db);
            drop(inner);
            tokio::task::yield_now().await;
        }
    }
}

/// The entries of a kind, an app and a profile: how many, their uses, and the numbers of the first and the last one.
struct Sums {
    count: u64,
    uses: u64,
    first: i64,
    last: i64,
}

/// A filter in the places of a block.
struct Wanted {
    kinds: Option<Vec<u16>>,
    /// Outcome, app, profile, project.
    names: [Option<u16>; 4],
    hours: Option<(i32, i32)>,
}

impl Wanted {
    /// `None` where no entry of the block can match.
    fn of(cells: &Cells<'_>, filter: &Filter) -> Option<Self> {
        let texts = [filter.outcome.map(Outcome::name), filter.app.as_deref(), filter.profile.as_deref()];
        let [outcome, app, profile] = texts;
        let mut names = [None; 4];
        for (place, text) in names.iter_mut().zip([outcome, app, profile, filter.project.as_deref()]) {
            if let Some(text) = text {
                *place = Some(if text.is_empty() { 0 } else { cells.place(&kept(text))? });
            }
        }
        let kinds = filter.kind.as_ref().map(|kind| {
            let places = cells.names.iter().zip(1..).filter(|(name, _)| is_of_kind(name, kind));
            places.map(|(_, place)| place).collect::<Vec<u16>>()
        });
        if kinds.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let hours = (filter.since_us.is_some() || filter.until_us.is_some()).then(|| {
            let last = filter.until_us.map_or(i32::MAX, |until| hour_of(until.saturating_sub(1)));
            (filter.since_us.map_or(UNDATED + 1, hour_of), last)
        });
        Some(Self { kinds, names, hours })
    }

    fn covers(&self, cell: &Cell) -> bool {
        let [kind, names @ ..] = cell.names;
        self.hours.is_none_or(|(first, last)| (first..=last).contains(&cell.hour))
            && self.names.iter().zip(names).all(|(wanted, name)| wanted.is_none_or(|wanted| wanted == name))
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// Whether a kind is the one that is asked for, or of its family.
fn is_of_kind(name: &str, asked: &str) -> bool {
    name.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A range without a number.
const NOTHING: (i64, i64) = (i64::MAX, i64::MIN);

/// A search under way.
struct Search<'f> {
    filter: &'f Filter,
    needle: Option<Needle>,
    order: Order,
    limit: usize,
    /// What the tables were not asked about yet, both ends included; nothing where the first is past the second.
    rest: (i64, i64),
    /// What is to be read, in the order of reading, both ends included.
    ranges: VecDeque<(i64, i64)>,
    links: Vec<Link>,
}

impl<'f> Search<'f> {
    fn new(page: Page, filter: &'f Filter) -> Self {
        let first = page.after.map_or(i64::MIN, |seq| stored_u64(seq).saturating_add(1));
        let last = page.before.map_or(i64::MAX, |seq| stored_u64(seq).saturating_sub(1));
        Self {
            filter,
            needle: filter.text.as_deref().map(Needle::new),
            order: page.order,
            limit: usize::try_from(page.limit).unwrap_or(usize::MAX),
            rest: (first, last),
            ranges: VecDeque::new(),
            links: Vec::new(),
        }
    }

    /// Goes on until `end`; says whether all is found.
    fn slice(&mut self, db: &mut Raw<'_>, archive: &Archive, newest: i64, end: Instant) -> Result<bool, StoreError> {
        while self.links.len() < self.limit {
            if self.ranges.is_empty() {
                if self.rest.0 > self.rest.1 {
                    return Ok(true);
                }
                self.look_up(db, newest, end)?;
            }
            self.read(db, archive, end)?;
            if Instant::now() > end {
                break;
            }
        }
        Ok(self.links.len() >= self.limit || (self.ranges.is_empty() && self.rest.0 > self.rest.1))
    }

    /// Finds the next ranges that may hold what is missing. Nothing is stored of the newest block, which is read whole.
    fn look_up(&mut self, db: &mut Raw<'_>, newest: i64, end: Instant) -> Result<(), StoreError> {
        let (first, last) = self.rest;
        let Filter { app, profile, project, run, kind, outcome, since_us, until_us, text: _ } = self.filter;
        let named = [app, profile, project, run, kind].iter().any(|name| name.is_some()) || outcome.is_some();
        if !named && since_us.is_none() && until_us.is_none() {
            self.ranges.push_back(self.rest);
            self.rest = NOTHING;
            return Ok(());
        }
        let in_newest = (first.max(first_of(newest)), last);
        if self.order == Order::NewestFirst && in_newest.0 <= last {
            self.ranges.push_back(in_newest);
            self.rest = (first, in_newest.0.saturating_sub(1));
            return Ok(());
        }
        let sql = match (run.is_some(), self.order) {
            (true, Order::OldestFirst) => {
                c"SELECT block, count, first, last FROM audit_run WHERE run = ?3 AND block BETWEEN ?1 AND ?2 ORDER BY block"
            }
            (true, Order::NewestFirst) => {
                c"SELECT block, count, first, last FROM audit_run WHERE run = ?3 AND block BETWEEN ?1 AND ?2 ORDER BY block DESC"
            }
            (false, Order::OldestFirst) => {
                c"SELECT block, cells FROM audit_block WHERE block BETWEEN ?1 AND ?2 ORDER BY block"
            }
            (false, Order::NewestFirst) => {
                c"SELECT block, cells FROM audit_block WHERE block BETWEEN ?1 AND ?2 ORDER BY block DESC"
            }
        };
        let mut parameters = vec![Value::Int(block_of(first)), Value::Int(block_of(last).min(newest - 1))];
        parameters.extend(run.as_deref().map(Value::Text));
        let missing = u64::try_from(self.limit - self.links.len()).unwrap_or(u64::MAX);
        let (mut at, mut expected) = (0, 0);
        let broke = db.scan(sql, &parameters, |row| {
            at = row.int(0);
            let found = if run.is_some() {
                Some((row.int(1).unsigned_abs(), row.int(2), row.int(3)))
            } else {
                self.in_block(at, row.blob(1))
            };
            if let Some((count, from, to)) = found
                && from.max(first) <= to.min(last)
            {
                self.ranges.push_back((from.max(first), to.min(last)));
                expected += count;
            }
            if expected >= missing || Instant::now() > end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.rest = match self.order {
            Order::OldestFirst if broke => (last_of(at).saturating_add(1), last),
            Order::NewestFirst if broke => (first, first_of(at).saturating_sub(1)),
            Order::OldestFirst | Order::NewestFirst => NOTHING,
        };
        if self.order == Order::OldestFirst && !broke && in_newest.0 <= last {
            self.ranges.push_back(in_newest);
        }
        Ok(())
    }

    /// How many entries of a block may match, and between which numbers they lie. One that is not understood hides nothing.
    fn in_block(&self, block: i64, cells: &[u8]) -> Option<(u64, i64, i64)> {
        let Some(cells) = Cells::read(block, cells) else { return Some((1, first_of(block), last_of(block))) };
        let wanted = Wanted::of(&cells, self.filter)?;
        let matching = cells.iter().filter(|cell| wanted.covers(cell));
        matching.fold(None, |found, cell| {
            let (first, last) = cells.range(&cell);
            let (count, from, to) = found.unwrap_or((0, first, last));
            Some((count + u64::from(cell.count), from.min(first), to.max(last)))
        })
    }

    /// Reads the ranges that are known.
    fn read(&mut self, db: &mut Raw<'_>, archive: &Archive, end: Instant) -> Result<(), StoreError> {
        let next = archive.next();
        while let Some((first, last)) = self.ranges.pop_front() {
            if first < next && last >= next {
                let (old, new) = ((first, next - 1), (next, last));
                let [now, after] = if self.order == Order::OldestFirst { [old, new] } else { [new, old] };
                self.ranges.push_front(after);
                self.ranges.push_front(now);
                continue;
            }
            if last < next {
                self.read_archived(archive, (first, last))?;
                if self.links.len() >= self.limit || Instant::now() > end {
                    return Ok(());
                }
                continue;
            }
            let sql = match self.order {
                Order::OldestFirst => {
                    c"SELECT seq, prev, mac, body FROM audit WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq ASC"
                }
                Order::NewestFirst => {
                    c"SELECT seq, prev, mac, body FROM audit WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq DESC"
                }
            };
            let (mut left, mut looked) = ((first, last), 0);
            let broke = db.scan(sql, &[Value::Int(first), Value::Int(last)], |row| {
                let link = RawLink::of(row);
                left = match self.order {
                    Order::OldestFirst => (link.seq.saturating_add(1), last),
                    Order::NewestFirst => (first, link.seq.saturating_sub(1)),
                };
                if matches(self.filter, self.needle.as_ref(), link.body) {
                    self.links.push(link.to_link());
                }
                looked += 1;
                let late = looked % LOOK == 0 && Instant::now() > end;
                if late || self.links.len() >= self.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if broke {
                if left.0 <= left.1 {
                    self.ranges.push_front(left);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the next piece of the archive in a range.
    fn read_archived(&mut self, archive: &Archive, (first, last): (i64, i64)) -> Result<(), StoreError> {
        let begin = if self.order == Order::OldestFirst { first } else { last };
        let Some((segment, piece)) = archive.piece(begin, self.order) else { return Ok(()) };
        let mut left = match self.order {
            Order::OldestFirst => (piece.last.saturating_add(1), last),
            Order::NewestFirst => (first, piece.first.saturating_sub(1)),
        };
        if piece.first <= last
            && piece.last >= first
            && let Opened::Entries(entries) = archive.open(segment, piece)?
        {
            let mut links = entries.links();
            if self.order == Order::NewestFirst {
                links.reverse();
            }
            for link in links.iter().filter(|link| (first..=last).contains(&link.seq)) {
                if self.links.len() >= self.limit {
                    left = if self.order == Order::OldestFirst { (link.seq, last) } else { (first, link.seq) };
                    break;
                }
                if matches(self.filter, self.needle.as_ref(), link.body) {
                    self.links.push(link.to_link());
                }
            }
        }
        if left.0 <= left.1 {
            self.ranges.push_front(left);
        }
        Ok(())
    }

    /// The last entry of which it is known whether it matches, and that this holds for all before it.
    fn looked_to(&self) -> u64 {
        let (first, last) = self.ranges.front().copied().unwrap_or(self.rest);
        let seq = match self.order {
            Order::OldestFirst => first.saturating_sub(1),
            Order::NewestFirst => last.saturating_add(1),
        };
        u64::try_from(seq).unwrap_or(0)
    }
}

/// A text that is searched for without regard to case.
enum Needle {
    /// In lower case.
    Ascii(Vec<u8>),
    /// In lower case.
    Wide(String),
}

impl Needle {
    fn new(text: &str) -> Self {
        if text.is_ascii() {
            Self::Ascii(text.to_ascii_lowercase().into_bytes())
        } else {
            Self::Wide(text.to_lowercase())
        }
    }

    fn is_in(&self, body: &[u8]) -> bool {
        match self {
            Self::Ascii(needle) => {
                let Some(first) = needle.first() else { return true };
                let starts = body.len().checked_sub(needle.len()).map_or(0, |last| last + 1);
                let same = |at| body.get(at..at + needle.len()).is_some_and(|part| part.eq_ignore_ascii_case(needle));
                (0..starts).any(|at| body[at].to_ascii_lowercase() == *first && same(at))
            }
            Self::Wide(needle) => String::from_utf8_lossy(body).to_lowercase().contains(needle),
        }
    }
}

/// Whether an entry is one that is asked for.
fn matches(filter: &Filter, needle: Option<&Needle>, body: &[u8]) -> bool {
    if needle.is_some_and(|needle| !needle.is_in(body)) {
        return false;
    }
    let Filter { app, profile, project, run, kind, outcome, since_us, until_us, text: _ } = filter;
    let texts = [app, profile, project, run, kind];
    if texts.iter().all(|text| text.is_none()) && outcome.is_none() && since_us.is_none() && until_us.is_none() {
        return true;
    }
    let stamp = Stamp::read(body);
    let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    is(app, &stamp.app)
        && is(profile, &stamp.profile)
        && is(project, &stamp.project)
        && is(run, &stamp.run)
        && kind.as_ref().is_none_or(|asked| is_of_kind(&stamp.kind, asked))
        && outcome.is_none_or(|outcome| outcome.name() == stamp.outcome)
        && ((since_us.is_none() && until_us.is_none())
            || stamp
                .at_us()
                .is_some_and(|at| since_us.is_none_or(|since| at >= since) && until_us.is_none_or(|until| at < until)))
}
