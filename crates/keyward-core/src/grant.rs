//! Grants: what a person has allowed ahead of the next request, and which of them a request goes by.
//!
//! Holds no secret, reads no clock and no file, and asks nobody: moments, ids and the numbers of files are arguments. A
//! grant gives nothing by itself: the broker delivers, after it has found and taken one. Called by the broker.

use crate::{Boot, DeliveryMode, Name, Wall, interpreter};
use std::cmp::Reverse;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Longest path of a program, script or project, in bytes: what a run may have.
const PATH_MAX_BYTES: usize = 2048;

/// Letters of Crockford's base 32, without I, L, O and U.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Forty bits as 8 characters of Crockford's base 32.
pub(crate) fn write_id(id: [u8; 5]) -> String {
    let bits = id.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..8).rev().filter_map(|n| LETTERS.get((bits >> (5 * n) & 31) as usize)).map(|b| char::from(*b)).collect()
}

/// Reads what [`write_id`] wrote: in either case, with `I` and `L` for 1 and `O` for 0 as Crockford has it.
pub(crate) fn read_id(text: &str) -> Option<[u8; 5]> {
    if text.len() != 8 {
        return None;
    }
    let mut bits = 0_u64;
    for byte in text.bytes() {
        let letter = match byte.to_ascii_uppercase() {
            b'I' | b'L' => b'1',
            b'O' => b'0',
            other => other,
        };
        bits = bits << 5 | LETTERS.iter().position(|b| *b == letter)? as u64;
    }
    let [_, _, _, id @ ..] = bits.to_be_bytes();
    Some(id)
}

/// Id of a grant: 40 random bits, shown as 8 characters of Crockford's base 32. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub [u8; 5]);

impl GrantId {
    /// Reads the 8 characters, in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        read_id(text).map(Self)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_id(self.0))
    }
}

/// A moment on both clocks, with the boot that the first of them belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The kernel's id of this boot (`/proc/sys/kernel/random/boot_id`). Where it cannot be read, there is no moment, and
    /// with it no grant.
    pub boot_id: [u8; 16],
    /// Decides within the boot.
    pub boot: Boot,
    /// Decides after a reboot, and is shown.
    pub wall: Wall,
}

/// A file as the kernel tells it from any other, and from itself before it was written: device, inode, and time of its last
/// change in nanoseconds since 1970.
pub type FileState = (u64, u64, i64);

/// A program that is about to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Absolute path.
    pub path: String,
    /// Its file. A grant without it holds for whatever lies at the path; a request without it matches no grant that has it.
    pub file: Option<FileState>,
    /// Absolute path of the script, where the program is an interpreter that was given one.
    pub script: Option<String>,
}

/// Which app a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppScope {
    /// Any.
    Any,
    /// A program, with its script where it is an interpreter.
    Program(Program),
    /// The starts of a launcher, by its id, with the file of its program. Without a file it holds for whatever the launcher
    /// starts.
    Launcher([u8; 16], Option<FileState>),
}

/// How long a grant holds, apart from its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// One delivery.
    Once,
    /// One run: the first that takes it, or the one from inside of which it was asked.
    Run,
    /// Until its term is over.
    Standing,
}

/// From when until when a grant holds: never longer than a day, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    from: Moment,
    life: Duration,
}

impl Term {
    /// What a grant gets whose maker says nothing.
    pub const USUAL: Duration = Duration::from_secs(3600);
    /// The longest.
    pub const CEILING: Duration = Duration::from_secs(24 * 3600);
    /// How long a yes waits for the request that it answers, where that one has not waited.
    pub const CLAIM: Duration = Duration::from_secs(5 * 60);

    /// A term that begins at `from`. Reading a stored one is the same call, so a row cannot lift the ceiling either.
    ///
    /// # Errors
    /// One sentence, for a life of nothing or of more than [`Term::CEILING`].
    pub fn new(from: Moment, life: Duration) -> Result<Self, String> {
        if life.is_zero() || life > Self::CEILING {
            return Err("a grant holds for some time, and for at most 24 hours".to_owned());
        }
        Ok(Self { from, life })
    }

    /// When it began; after a reboot, when it was taken over.
    pub fn from(&self) -> Moment {
        self.from
    }

    /// How long it is.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// When it ends, on the clock of its boot.
    pub fn until(&self) -> Boot {
        self.from.boot.after(self.life)
    }

    /// When it ends by the wall clock: what is shown.
    pub fn until_wall(&self) -> Wall {
        self.from.wall.after(self.life)
    }

    /// Whether it holds. The wall clock has no say within a boot, and a term of another boot never holds: see [`reloaded`].
    pub fn holds(&self, now: &Moment) -> bool {
        self.from.boot_id == now.boot_id && self.from.boot <= now.boot && now.boot < self.until()
    }

    /// The rest of it in another boot, by the wall clock; `None` where nothing is left, or the clock lies before the term.
    fn carried(&self, now: Moment) -> Option<Self> {
        let left = u64::try_from(self.until_wall().0.checked_sub(now.wall.0)?).ok().map(Duration::from_micros)?;
        (now.wall >= self.from.wall && !left.is_zero()).then_some(Self { from: now, life: left })
    }
}

/// A recorded yes. Holds no secret, and delivers nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<R> {
    /// Id.
    pub id: GrantId,
    /// How long it holds, apart from its term.
    pub span: Span,
    /// App.
    pub app: AppScope,
    /// Absolute path of the project folder; `None` for anywhere.
    pub project: Option<String>,
    /// Profile.
    pub profile: Name,
    /// The weakest delivery that it allows.
    pub weakest: DeliveryMode,
    /// From when until when.
    pub term: Term,
    /// Deliveries that are left; `None` for no limit.
    pub uses_left: Option<u32>,
    /// Run from inside of which it was asked, or that has taken it. It then holds for requests from inside that run alone.
    pub run: Option<R>,
    /// Digest over what was asked, where it holds for an equal request alone.
    pub request: Option<[u8; 32]>,
    /// When it was made.
    pub created: Wall,
    /// Deliveries that it has allowed.
    pub allowed: u64,
    /// When the last of them was.
    pub last_allowed: Option<Wall>,
}

impl<R: Copy> Grant<R> {
    /// Checks the rules of a grant.
    ///
    /// # Errors
    /// One sentence that says which rule is broken.
    pub fn check(&self) -> Result<(), String> {
        let absolute = |path: &String, what: &str| {
            let ok = path.starts_with('/') && path.len() <= PATH_MAX_BYTES && !path.contains('\0');
            ok.then_some(())
                .ok_or_else(|| format!("the {what} is not an absolute path of at most {PATH_MAX_BYTES} bytes"))
        };
        self.project.iter().try_for_each(|path| absolute(path, "project"))?;
        if let AppScope::Program(program) = &self.app {
            absolute(&program.path, "program")?;
            program.script.iter().try_for_each(|path| absolute(path, "script"))?;
            match (interpreter(&program.path), &program.script) {
                (true, None) if self.span == Span::Standing => {
                    return Err("a grant to an interpreter names the script, or is for one run".to_owned());
                }
                (false, Some(_)) => return Err("the program is no interpreter, so it has no script".to_owned()),
                _ => {}
            }
        }
        match (self.span, self.uses_left) {
            (_, Some(0)) => Err("a grant allows at least one delivery".to_owned()),
            (Span::Once, Some(1)) if self.term.life <= Term::CLAIM => Ok(()),
            (Span::Once, _) => Err("a grant for one delivery has one, in 5 minutes at most".to_owned()),
            (Span::Run, Some(_)) => Err("a grant for a run has no count of deliveries".to_owned()),
            (Span::Standing, _) if self.run.is_some() => {
                Err("a grant that is asked from inside of a run is for that run".to_owned())
            }
            (Span::Run | Span::Standing, _) => Ok(()),
        }
    }

    /// When it ends: with its term, or 5 minutes after its beginning where a grant for one run waits for that run.
    pub fn until(&self) -> Boot {
        match (self.span, self.run) {
            (Span::Run, None) => self.term.until().min(self.term.from.boot.after(Term::CLAIM)),
            _ => self.term.until(),
        }
    }

    /// How long a lease under it may live, where the plan says `ttl`.
    pub fn lease_life(&self, ttl: Duration, now: Boot) -> Duration {
        ttl.min(match self.span {
            Span::Once => Term::USUAL,
            Span::Run | Span::Standing => self.term.until().since(now),
        })
    }
}

/// What is asked, as far as grants tell it apart. From the kernel and the vault, except where the broker says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a, R> {
    /// Profile.
    pub profile: &'a Name,
    /// Program that would run, or that asks.
    pub program: &'a Program,
    /// Launcher that is started, recognised as such.
    pub launcher: Option<[u8; 16]>,
    /// Project folder.
    pub project: &'a str,
    /// How the credential would be delivered; `token` counts as `env`.
    pub delivery: DeliveryMode,
    /// Run from inside of which it is asked.
    pub outer: Option<R>,
    /// Digest over what is asked: the same as in [`Grant::request`] for a request that is equal in all that a person decides
    /// by.
    pub request: [u8; 32],
}

/// All grants of the vault.
#[derive(Debug)]
pub struct Grants<R> {
    all: BTreeMap<GrantId, Grant<R>>,
    /// By what [`place`] makes of their scope, the best of each scope first, so that a request looks at few.
    places: HashMap<u64, BTreeSet<Rank>>,
    due: BTreeSet<(Boot, GrantId)>,
    /// Standing ones that are used up, the last ones last: to be shown, and for nothing else.
    spent: VecDeque<Grant<R>>,
}

impl<R> Default for Grants<R> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), places: HashMap::new(), due: BTreeSet::new(), spent: VecDeque::new() }
    }
}

/// Most grants that are used up and still shown.
const SPENT_MAX: usize = 200;

/// Where a grant stands among those that fit: the narrower and the later to end, the smaller.
type Rank = ((u8, u8), Reverse<Boot>, GrantId);

/// An app as grants have it.
#[derive(Hash)]
enum App<'a> {
    Any,
    Program(&'a str, Option<&'a str>, Option<FileState>),
    Launcher([u8; 16]),
}

/// Where grants of one scope lie. Two scopes in one place cost time and nothing else: each grant is compared as a whole.
fn place<R: Hash>(profile: &Name, project: Option<&str>, app: &App<'_>, run: Option<R>, weakest: DeliveryMode) -> u64 {
    let mut hasher = DefaultHasher::new();
    (profile, project, app, run, weakest.word()).hash(&mut hasher);
    hasher.finish()
}

impl<R: Copy + Eq + Hash> Grant<R> {
    fn place(&self) -> u64 {
        let app = match &self.app {
            AppScope::Any => App::Any,
            AppScope::Program(program) => App::Program(&program.path, program.script.as_deref(), program.file),
            AppScope::Launcher(id, _) => App::Launcher(*id),
        };
        place(&self.profile, self.project.as_deref(), &app, self.run, self.weakest)
    }

    fn rank(&self) -> Rank {
        (self.width(), Reverse(self.until()), self.id)
    }

    /// Whether it holds at all.
    fn holds(&self, now: &Moment) -> bool {
        self.term.holds(now) && now.boot < self.until() && self.uses_left != Some(0)
    }

    /// Whether a request is one that it allows.
    fn allows(&self, ask: &Ask<'_, R>) -> bool {
        let app = match &self.app {
            AppScope::Any => true,
            AppScope::Launcher(id, file) => ask.launcher == Some(*id) && (file.is_none() || *file == ask.program.file),
            AppScope::Program(own) => {
                own.path == ask.program.path
                    && own.script == ask.program.script
                    && own.file.is_none_or(|file| ask.program.file == Some(file))
            }
        };
        app && self.profile == *ask.profile
            && self.run == ask.outer
            && ask.delivery >= self.weakest
            && self.project.as_ref().is_none_or(|project| project == ask.project)
            && self.request.is_none_or(|request| request == ask.request)
    }

    /// The narrower, the smaller.
    fn width(&self) -> (u8, u8) {
        let app = match self.app {
            AppScope::Launcher(..) => 0,
            AppScope::Program(_) => 1,
            AppScope::Any => 2,
        };
        match (self.span, &self.project) {
            (Span::Run, _) => (0, app),
            (Span::Once, _) => (1, app),
            (Span::Standing, Some(_)) => (2, app),
            (Span::Standing, None) => (3, app),
        }
    }
}

impl<R: Copy + Eq + Hash> Grants<R> {
    /// Most grants at once.
    pub const MAX: usize = 20_000;

    /// Puts a grant in place, and gives the one with the same id that it replaces.
    ///
    /// # Errors
    /// One sentence: what [`Grant::check`] says, or that there are too many.
    pub fn insert(&mut self, grant: Grant<R>) -> Result<Option<Grant<R>>, String> {
        grant.check()?;
        let before = self.remove(grant.id);
        if self.all.len() >= Self::MAX {
            return Err(format!("there are {} grants already, which is the most", Self::MAX));
        }
        self.place_in(grant);
        Ok(before)
    }

    fn place_in(&mut self, grant: Grant<R>) {
        self.places.entry(grant.place()).or_default().insert(grant.rank());
        self.due.insert((grant.until(), grant.id));
        self.all.insert(grant.id, grant);
    }

    /// Takes a grant away, also one that is used up. Gives it where it was not.
    pub fn remove(&mut self, id: GrantId) -> Option<Grant<R>> {
        self.spent.retain(|grant| grant.id != id);
        let grant = self.all.remove(&id)?;
        self.due.remove(&(grant.until(), id));
        if let Entry::Occupied(mut place) = self.places.entry(grant.place()) {
            place.get_mut().remove(&grant.rank());
            if place.get().is_empty() {
                place.remove();
            }
        }
        Some(grant)
    }

    /// A grant by its id, live or not.
    pub fn get(&self, id: GrantId) -> Option<&Grant<R>> {
        self.all.get(&id)
    }

    /// Standing grants whose deliveries were all made, at most 200, as long as they would have held. They allow
    /// nothing, and no other method gives them.
    pub fn used_up(&self, now: Boot) -> impl Iterator<Item = &Grant<R>> {
        self.spent.iter().filter(move |grant| now < grant.until())
    }

    /// All that are not used up, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Grant<R>> {
        self.all.values()
    }

    /// The grant that a request goes by: the narrowest that holds (run, once, project, launcher, app, any), and of equals
    /// the one that ends last. Counts nothing.
    pub fn find(&self, ask: &Ask<'_, R>, now: &Moment) -> Option<GrantId> {
        let program = |file| App::Program(&ask.program.path, ask.program.script.as_deref(), file);
        let of_file = ask.program.file.map(|file| program(Some(file)));
        let apps = [Some(App::Any), Some(program(None)), of_file, ask.launcher.map(App::Launcher)];
        let weakest = [DeliveryMode::Env, DeliveryMode::File, DeliveryMode::Gateway];
        let fits = |(_, _, id): &&Rank| self.all.get(id).is_some_and(|grant| grant.holds(now) && grant.allows(ask));
        let mut best: Option<&Rank> = None;
        for app in apps.iter().flatten() {
            for project in [Some(ask.project), None] {
                for weakest in weakest.into_iter().filter(|weakest| *weakest <= ask.delivery) {
                    let place = self.places.get(&place(ask.profile, project, app, ask.outer, weakest));
                    best = best.into_iter().chain(place.into_iter().flatten().find(fits)).min();
                }
            }
        }
        best.map(|(_, _, id)| *id)
    }

    /// Counts a delivery, and binds a grant for one run that has none yet to the run `made`. Gives the grant as it is
    /// afterwards; one that is used up is seen by [`Grants::used_up`] alone from then on. `None`, and nothing counted, where it does not hold any
    /// more. [`Grants::insert`] of what [`Grants::get`] gave before undoes it.
    pub fn take(&mut self, id: GrantId, made: Option<R>, now: &Moment) -> Option<Grant<R>> {
        if !self.all.get(&id)?.holds(now) {
            return None;
        }
        let mut grant = self.remove(id)?;
        grant.uses_left = grant.uses_left.map(|left| left.saturating_sub(1));
        grant.allowed = grant.allowed.saturating_add(1);
        grant.last_allowed = Some(now.wall);
        if grant.span == Span::Run {
            grant.run = grant.run.or(made);
        }
        if grant.uses_left != Some(0) {
            self.place_in(grant.clone());
        } else if grant.span == Span::Standing {
            self.spent.push_back(grant.clone());
            if self.spent.len() > SPENT_MAX {
                self.spent.pop_front();
            }
        }
        Some(grant)
    }

    /// Removes and gives the grants whose time is over.
    pub fn expire(&mut self, now: &Moment) -> Vec<Grant<R>> {
        let over: Vec<_> = self.due.iter().take_while(|(until, _)| *until <= now.boot).map(|(_, id)| *id).collect();
        over.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// When the next one ends.
    pub fn next_due(&self) -> Option<Boot> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Grants of a profile: they end when it is changed in what it opens or how it is handed over, or removed.
    pub fn of_profile(&self, profile: &Name) -> Vec<GrantId> {
        self.which(|grant| grant.profile == *profile)
    }

    /// Grants of a launcher: they end when it is changed or removed.
    pub fn of_launcher(&self, launcher: [u8; 16]) -> Vec<GrantId> {
        self.which(|grant| matches!(grant.app, AppScope::Launcher(id, _) if id == launcher))
    }

    /// Grants that belong to a run: they end with it.
    pub fn of_run(&self, run: R) -> Vec<GrantId> {
        self.which(|grant| grant.run == Some(run))
    }

    fn which(&self, of: impl Fn(&Grant<R>) -> bool) -> Vec<GrantId> {
        self.all.values().filter(|grant| of(grant)).map(|grant| grant.id).collect()
    }
}

/// What is left of stored grants when the broker starts or the vault is opened: gives those that hold, and those that are
/// void.
///
/// In the boot in which a grant was made, the boot clock decides. In another one the wall clock does: its rest goes on from
/// `now` on the clock of this boot; grants of a run are void, since the run is gone; and all are where the wall clock lies
/// before the last audit entry, since somebody has set it back. What has changed by that is stored again, so that the clock
/// of this boot decides from here on.
pub fn reloaded<R: Copy>(
    stored: Vec<Grant<R>>,
    now: Moment,
    last_audit: Option<Wall>,
) -> (Vec<Grant<R>>, Vec<Grant<R>>) {
    let set_back = last_audit.is_some_and(|last| now.wall < last);
    let mut kept = Vec::new();
    let mut over = Vec::new();
    for grant in stored {
        let term = match grant.term.from.boot_id == now.boot_id {
            true => Some(grant.term),
            false if set_back || grant.span == Span::Run => None,
            false => grant.term.carried(now),
        };
        match term.filter(|term| term.holds(&now)) {
            Some(term) if now.boot < (Grant { term, ..grant.clone() }).until() => kept.push(Grant { term, ..grant }),
            _ => over.push(grant),
        }
    }
    (kept, over)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { boot_id: [1; 16], boot: Boot(Duration::from_secs(seconds)), wall: wall(seconds) }
    }

    fn wall(seconds: u64) -> Wall {
        Wall(1_800_000_000_000_000).after(Duration::from_secs(seconds))
    }

    fn id(n: u8) -> GrantId {
        GrantId([n; 5])
    }

    fn name(name: &str) -> Name {
        Name::parse(name).unwrap()
    }

    fn program(path: &str) -> Program {
        Program { path: path.to_owned(), file: Some((1, 2, 3)), script: None }
    }

    fn hours(n: u64) -> Duration {
        Duration::from_secs(3600 * n)
    }

    fn grant(n: u8) -> Grant<char> {
        Grant {
            id: id(n),
            span: Span::Standing,
            app: AppScope::Any,
            project: None,
            profile: name("claude"),
            weakest: DeliveryMode::Env,
            term: Term::new(at(0), Term::USUAL).unwrap(),
            uses_left: None,
            run: None,
            request: None,
            created: wall(0),
            allowed: 0,
            last_allowed: None,
        }
    }

    fn once(n: u8) -> Grant<char> {
        let term = Term::new(at(0), Term::CLAIM).unwrap();
        Grant { span: Span::Once, term, uses_left: Some(1), ..grant(n) }
    }

    fn for_run(n: u8, run: Option<char>) -> Grant<char> {
        Grant { span: Span::Run, run, ..grant(n) }
    }

    fn all(grants: impl IntoIterator<Item = Grant<char>>) -> Grants<char> {
        let mut all = Grants::default();
        grants.into_iter().for_each(|grant| assert_eq!(all.insert(grant), Ok(None)));
        all
    }

    type Change = for<'a> fn(&mut Ask<'a, char>);

    /// What `then` makes of a request for `claude` in `/p` by `/bin/tool` as a variable, changed by `change`.
    fn asked<T>(change: impl FnOnce(&mut Ask<'_, char>), then: impl FnOnce(&Ask<'_, char>) -> T) -> T {
        let (profile, program) = (name("claude"), program("/bin/tool"));
        let mut ask = Ask {
            profile: &profile,
            program: &program,
            launcher: None,
            project: "/p",
            delivery: DeliveryMode::Env,
            outer: None,
            request: [0; 32],
        };
        change(&mut ask);
        then(&ask)
    }

    fn found(grants: &Grants<char>, now: u64, change: impl FnOnce(&mut Ask<'_, char>)) -> Option<GrantId> {
        asked(change, |ask| grants.find(ask, &at(now)))
    }

    #[test]
    fn ids_are_written_and_read_as_crockford_has_it() {
        for (bytes, text) in [
            ([0; 5], "00000000"),
            ([255; 5], "ZZZZZZZZ"),
            ([0, 0, 0, 0, 1], "00000001"),
            ([0, 0, 0, 0, 32], "00000010"),
            ([0x08, 0x86, 0x42, 0x98, 0xe8], "12345678"),
        ] {
            let written = GrantId(bytes).to_string();
            assert_eq!(written, text);
            assert_eq!(GrantId::parse(&written), Some(GrantId(bytes)));
            assert_eq!(GrantId::parse(&written.to_lowercase()), Some(GrantId(bytes)));
        }
        assert_eq!(GrantId::parse("oOiIlL00"), GrantId::parse("00111100"));
        for text in
            ["", "0000000", "000000000", "0000000U", "0000000-", "0000000 ", "é000000", "00000é0", "\0\0\0\0\0\0\0\0"]
        {
            assert_eq!(GrantId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_term_is_never_longer_than_a_day() {
        for (life, ok) in [
            (Duration::ZERO, false),
            (Duration::from_micros(1), true),
            (hours(24), true),
            (hours(24) + Duration::from_nanos(1), false),
            (Duration::MAX, false),
        ] {
            assert_eq!(Term::new(at(5), life).is_ok(), ok, "{life:?}");
        }
        let term = Term::new(at(5), hours(1)).unwrap();
        assert_eq!((term.until(), term.until_wall()), (at(3_605).boot, wall(3_605)));
    }

    #[test]
    fn within_a_boot_the_boot_clock_decides() {
        let term = Term::new(at(100), hours(1)).unwrap();
        for (now, holds) in [
            (at(99), false),
            (at(100), true),
            (at(3_699), true),
            (at(3_700), false),
            (Moment { wall: Wall(0), ..at(200) }, true),
            (Moment { wall: wall(1_000_000), ..at(200) }, true),
            (Moment { wall: wall(200), ..at(4_000) }, false),
            (Moment { boot_id: [2; 16], ..at(200) }, false),
        ] {
            assert_eq!(term.holds(&now), holds, "{now:?}");
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_decides_and_one_that_was_set_back_voids_all() {
        let other = |boot: u64, at: u64| Moment { boot_id: [2; 16], boot: self::at(boot).boot, wall: wall(at) };
        let begun = Grant { term: Term::new(at(100), hours(1)).unwrap(), ..grant(1) };
        for (name, stored, now, last, left) in [
            ("as it was", begun.clone(), at(200), Some(150), Some(3_500)),
            (
                "the wall set back within the boot",
                begun.clone(),
                Moment { wall: wall(0), ..at(200) },
                Some(150),
                Some(3_500),
            ),
            ("over within the boot", begun.clone(), at(3_700), Some(150), None),
            ("a boot clock before its own", begun.clone(), at(50), None, None),
            ("rebooted", begun.clone(), other(10, 200), Some(150), Some(3_500)),
            ("rebooted, at the very entry", begun.clone(), other(10, 200), Some(200), Some(3_500)),
            ("rebooted, a longer boot", begun.clone(), other(1_000_000, 200), Some(150), Some(3_500)),
            ("rebooted too late", begun.clone(), other(10, 3_700), Some(150), None),
            ("rebooted, the wall before the last entry", begun.clone(), other(10, 149), Some(150), None),
            ("rebooted, the wall before the grant", begun.clone(), other(10, 99), None, None),
            ("rebooted, far ahead", begun.clone(), Moment { wall: Wall(i64::MAX), ..other(1, 0) }, Some(150), None),
            ("rebooted, far back", begun.clone(), Moment { wall: Wall(i64::MIN), ..other(1, 0) }, None, None),
            ("a run's, as it was", for_run(1, Some('a')), at(200), None, Some(3_400)),
            ("a run's, rebooted", for_run(1, Some('a')), other(10, 200), None, None),
            ("of a run that never came", for_run(1, None), at(300), None, None),
            ("of a run to come", for_run(1, None), at(299), None, Some(3_301)),
        ] {
            let (kept, over) = reloaded(vec![stored.clone()], now, last.map(wall));
            assert_eq!(kept.len() + over.len(), 1, "{name}");
            assert_eq!(kept.first().map(|grant| grant.term.until().since(now.boot).as_secs()), left, "{name}");
            assert_eq!(over.first().cloned(), left.is_none().then_some(stored), "{name}");
            assert!(kept.iter().all(|grant| grant.term.holds(&now) && grant.term.life() <= Term::CEILING), "{name}");
        }
        // Twice rebooted is no longer than once.
        let (once, _) = reloaded(vec![begun], other(10, 1_000), None);
        let (twice, _) = reloaded(once.clone(), Moment { boot_id: [3; 16], ..other(5, 2_000) }, None);
        assert_eq!(once.iter().chain(&twice).map(|g| g.term.until_wall()).collect::<Vec<_>>(), [wall(3_700); 2]);
    }

    #[test]
    fn a_grant_follows_the_rules() {
        let rule = |change: &dyn Fn(&mut Grant<char>)| {
            let mut grant = grant(1);
            change(&mut grant);
            grant.check().is_ok()
        };
        let to = |path: &str, script: Option<&str>| {
            AppScope::Program(Program { script: script.map(str::to_owned), ..program(path) })
        };
        let long = format!("/{}", "x".repeat(2048));
        for (app, standing, run) in [
            (to("/bin/tool", None), true, true),
            (to("tool", None), false, false),
            (to("", None), false, false),
            (to("/bin/to\0ol", None), false, false),
            (to(&long, None), false, false),
            (to("/bin/tool", Some("/p/x.py")), false, false),
            (to("/usr/bin/python3.13", Some("/p/x.py")), true, true),
            (to("/usr/bin/python3.13", Some("x.py")), false, false),
            (to("/usr/bin/python3.13", None), false, true),
            (to("/bin/bash", None), false, true),
            (to("/usr/bin/env", None), false, true),
            (AppScope::Launcher([7; 16], None), true, true),
        ] {
            assert_eq!(rule(&|g| g.app = app.clone()), standing, "{app:?}");
            assert_eq!(rule(&|g| (g.app, g.span) = (app.clone(), Span::Run)), run, "{app:?}");
        }
        for (project, ok) in [("/p", true), ("p", false), ("", false), ("/p\0", false), (&long, false)] {
            assert_eq!(rule(&|g| g.project = Some(project.to_owned())), ok, "{project:?}");
        }
        for (span, uses, life, run, ok) in [
            (Span::Standing, None, 3_600, None, true),
            (Span::Standing, Some(7), 3_600, None, true),
            (Span::Standing, Some(0), 3_600, None, false),
            (Span::Standing, None, 3_600, Some('a'), false),
            (Span::Once, Some(1), 300, None, true),
            (Span::Once, Some(1), 300, Some('a'), true),
            (Span::Once, Some(1), 301, None, false),
            (Span::Once, Some(2), 300, None, false),
            (Span::Once, None, 300, None, false),
            (Span::Run, None, 86_400, Some('a'), true),
            (Span::Run, Some(1), 3_600, None, false),
        ] {
            let term = Term::new(at(0), Duration::from_secs(life)).unwrap();
            let told = rule(&|g| (g.span, g.uses_left, g.term, g.run) = (span, uses, term, run));
            assert_eq!(told, ok, "{span:?} {uses:?} {life} {run:?}");
        }
        let mut none = Grants::default();
        assert!(none.insert(Grant { uses_left: Some(0), ..grant(1) }).is_err() && none.iter().next().is_none());
    }

    #[test]
    fn a_grant_allows_its_app_project_profile_and_delivery_and_nothing_else() {
        let other = [program("/bin/other"), Program { file: Some((1, 2, 4)), ..program("/bin/tool") }];
        let unknown = Program { file: None, ..program("/bin/tool") };
        let script = Program { script: Some("/p/x.py".to_owned()), ..program("/bin/tool") };
        let tool = AppScope::Program(program("/bin/tool"));
        let by_path = AppScope::Program(unknown.clone());
        let gateway: Change = |ask| ask.delivery = DeliveryMode::Gateway;
        let file: Change = |ask| ask.delivery = DeliveryMode::File;
        let launched: Change = |ask| ask.launcher = Some([7; 16]);
        let launcher_of = |file| AppScope::Launcher([7; 16], file);
        let relaunched: Change = |ask| ask.launcher = Some([8; 16]);
        let elsewhere: Change = |ask| ask.project = "/p/";
        let inside: Change = |ask| ask.outer = Some('a');
        let inside_other: Change = |ask| ask.outer = Some('b');
        let equal: Change = |ask| ask.request = [9; 32];
        let same: Change = |_| ();
        let g = grant(1);
        for (name, grant, change, allows) in [
            ("any", g.clone(), same, true),
            ("any, launched", g.clone(), launched, true),
            ("any, elsewhere", g.clone(), elsewhere, true),
            ("any, inside a run", g.clone(), inside, false),
            ("program", Grant { app: tool.clone(), ..g.clone() }, same, true),
            ("program, launched", Grant { app: tool.clone(), ..g.clone() }, launched, true),
            ("launcher", Grant { app: AppScope::Launcher([7; 16], None), ..g.clone() }, launched, true),
            ("another launcher", Grant { app: AppScope::Launcher([7; 16], None), ..g.clone() }, relaunched, false),
            ("launcher, same file", Grant { app: launcher_of(Some((1, 2, 3))), ..g.clone() }, launched, true),
            ("launcher, file written since", Grant { app: launcher_of(Some((1, 2, 4))), ..g.clone() }, launched, false),
            ("launcher, another file", Grant { app: launcher_of(Some((1, 9, 3))), ..g.clone() }, launched, false),
            ("no launcher", Grant { app: AppScope::Launcher([7; 16], None), ..g.clone() }, same, false),
            ("project", Grant { project: Some("/p".to_owned()), ..g.clone() }, same, true),
            ("another project", Grant { project: Some("/p".to_owned()), ..g.clone() }, elsewhere, false),
            ("another profile", Grant { profile: self::name("claude2"), ..g.clone() }, same, false),
            ("gateway alone", Grant { weakest: DeliveryMode::Gateway, ..g.clone() }, gateway, true),
            ("gateway alone, file", Grant { weakest: DeliveryMode::Gateway, ..g.clone() }, file, false),
            ("gateway alone, env", Grant { weakest: DeliveryMode::Gateway, ..g.clone() }, same, false),
            ("file, gateway", Grant { weakest: DeliveryMode::File, ..g.clone() }, gateway, true),
            ("file, env", Grant { weakest: DeliveryMode::File, ..g.clone() }, same, false),
            ("run, from inside", for_run(1, Some('a')), inside, true),
            ("run, from inside another", for_run(1, Some('a')), inside_other, false),
            ("run, from outside", for_run(1, Some('a')), same, false),
            ("run to come", for_run(1, None), same, true),
            ("run to come, from inside", for_run(1, None), inside, false),
            ("equal", Grant { request: Some([9; 32]), ..once(1) }, equal, true),
            ("not equal", Grant { request: Some([9; 32]), ..once(1) }, same, false),
        ] {
            assert_eq!(found(&all([grant.clone()]), 1, change).is_some(), allows, "{name}");
            // Where a grant lies is no reason to trust it.
            assert_eq!(asked(change, |ask| grant.allows(ask)), allows, "{name}");
        }
        let both = [Grant { app: tool, ..g.clone() }, Grant { app: by_path, ..g.clone() }];
        for (program, of_file, of_path) in [
            (&program("/bin/tool"), true, true),
            (&other[0], false, false),
            // Another file under the same path, one that was written to, and one that nobody could look at.
            (&other[1], false, true),
            (&unknown, false, true),
            (&script, false, false),
        ] {
            let given = both.each_ref().map(|grant| {
                asked(
                    |_| (),
                    |ask| {
                        let ask = Ask { program, ..*ask };
                        (all([grant.clone()]).find(&ask, &at(1)).is_some(), grant.allows(&ask))
                    },
                )
            });
            assert_eq!(given, [(of_file, of_file), (of_path, of_path)], "{program:?}");
        }
    }

    #[test]
    fn the_narrowest_is_taken_and_of_equals_the_one_that_ends_last() {
        let long = Term::new(at(0), hours(2)).unwrap();
        let project = Some("/p".to_owned());
        let (tool, launcher) = (AppScope::Program(program("/bin/tool")), AppScope::Launcher([7; 16], None));
        // From the narrowest to the widest.
        let order = [
            for_run(30, None),
            once(29),
            Grant { app: launcher.clone(), project: project.clone(), ..grant(28) },
            Grant { app: tool.clone(), project: project.clone(), ..grant(27) },
            Grant { project, ..grant(26) },
            Grant { app: launcher, ..grant(25) },
            Grant { app: tool, ..grant(24) },
            Grant { term: long, ..grant(23) },
            grant(2),
            grant(3),
        ];
        let mut grants = all(order.clone());
        for narrowest in order {
            assert_eq!(found(&grants, 1, |ask| ask.launcher = Some([7; 16])), Some(narrowest.id));
            grants.remove(narrowest.id);
        }
        assert_eq!(found(&grants, 1, |_| ()), None);
        assert!(grants.places.is_empty() && grants.due.is_empty());
    }

    #[test]
    fn uses_are_counted_and_never_exceeded() {
        let mut grants = all([Grant { uses_left: Some(2), ..grant(1) }, once(2)]);
        let before = grants.get(id(2)).cloned().unwrap();
        let taken = grants.take(id(2), Some('a'), &at(1)).unwrap();
        assert_eq!((taken.uses_left, taken.allowed, taken.last_allowed, taken.run), (Some(0), 1, Some(wall(1)), None));
        assert!(grants.get(id(2)).is_none() && grants.take(id(2), None, &at(1)).is_none());
        // What could not be recorded is undone.
        assert_eq!(grants.insert(before.clone()), Ok(None));
        assert_eq!(found(&grants, 1, |_| ()), Some(id(2)));
        assert_eq!(grants.take(id(2), None, &at(300)), None, "out of time");
        assert_eq!(grants.get(id(2)), Some(&before), "and nothing counted");
        assert_eq!(grants.take(id(1), None, &at(1)).map(|g| (g.uses_left, g.allowed)), Some((Some(1), 1)));
        assert_eq!(grants.take(id(1), None, &at(2)).map(|g| (g.uses_left, g.allowed)), Some((Some(0), 2)));
        assert_eq!(grants.take(id(1), None, &at(2)), None);
        let mut endless = all([grant(1)]);
        (1..=100).for_each(|n| assert_eq!(endless.take(id(1), None, &at(n)).map(|g| g.allowed), Some(n)));
    }

    #[test]
    fn what_is_used_up_is_shown_until_it_would_have_ended_and_allows_nothing() {
        let mut grants = all([Grant { uses_left: Some(1), ..grant(1) }, once(2)]);
        let before = grants.get(id(1)).cloned().unwrap();
        assert!(grants.take(id(1), None, &at(1)).is_some() && grants.take(id(2), None, &at(1)).is_some());
        let shown = |grants: &Grants<char>, now: u64| {
            grants.used_up(at(now).boot).map(|g| (g.id, g.allowed)).collect::<Vec<_>>()
        };
        assert_eq!((shown(&grants, 3_599), shown(&grants, 3_600)), (vec![(id(1), 1)], vec![]));
        assert!(grants.iter().next().is_none() && grants.get(id(1)).is_none() && grants.next_due().is_none());
        assert_eq!((found(&grants, 2, |_| ()), grants.take(id(1), None, &at(2))), (None, None));
        // What could not be recorded was no use.
        assert_eq!(grants.insert(before), Ok(None));
        assert_eq!((shown(&grants, 2), found(&grants, 2, |_| ())), (vec![], Some(id(1))));
        grants.take(id(1), None, &at(2));
        assert_eq!((grants.remove(id(1)), shown(&grants, 2)), (None, vec![]), "taken off the list");
        for n in 0..=u8::MAX {
            grants.insert(Grant { uses_left: Some(1), ..grant(n) }).unwrap();
            grants.take(id(n), None, &at(3));
        }
        assert_eq!((shown(&grants, 3).len(), shown(&grants, 3).last()), (SPENT_MAX, Some(&(id(u8::MAX), 1))));
    }

    #[test]
    fn a_grant_for_a_run_waits_five_minutes_for_it_and_is_its_own_then() {
        let mut grants = all([for_run(1, None), for_run(2, Some('b'))]);
        assert_eq!(grants.next_due(), Some(at(300).boot));
        assert_eq!(grants.take(id(1), Some('a'), &at(299)).and_then(|g| g.run), Some('a'));
        assert_eq!(grants.next_due(), Some(at(3_600).boot));
        assert_eq!(found(&grants, 300, |_| ()), None, "it is no other run's");
        assert_eq!(found(&grants, 3_599, |ask| ask.outer = Some('a')), Some(id(1)));
        assert_eq!(grants.take(id(1), Some('c'), &at(301)).map(|g| (g.run, g.allowed)), Some((Some('a'), 2)));
        assert_eq!((grants.of_run('a'), grants.of_run('b'), grants.of_run('c')), (vec![id(1)], vec![id(2)], vec![]));
        let mut late = all([for_run(1, None)]);
        assert_eq!((found(&late, 300, |_| ()), late.take(id(1), Some('a'), &at(300))), (None, None));
        assert_eq!(late.expire(&at(300)).len(), 1);
    }

    #[test]
    fn grants_end_by_themselves_and_with_what_they_are_for() {
        let mut grants = all([
            once(1),
            grant(2),
            Grant { term: Term::new(at(0), hours(24)).unwrap(), ..grant(3) },
            Grant { profile: name("pg"), app: AppScope::Launcher([7; 16], None), ..grant(4) },
        ]);
        let mut expired = |now| grants.expire(&at(now)).into_iter().map(|g| g.id).collect::<Vec<_>>();
        for (now, ids) in
            [(0, vec![]), (299, vec![]), (300, vec![id(1)]), (3_600, vec![id(2), id(4)]), (86_399, vec![])]
        {
            assert_eq!(expired(now), ids, "{now}");
        }
        assert_eq!(grants.next_due(), Some(at(86_400).boot));
        // A change takes the place of what it changes, its end included.
        let before = grants.get(id(3)).cloned();
        assert_eq!(grants.insert(Grant { allowed: 5, ..grant(3) }), Ok(before));
        assert_eq!((grants.next_due(), grants.iter().count()), (Some(at(3_600).boot), 1));
        let grants = all([grant(1), Grant { profile: name("pg"), app: AppScope::Launcher([7; 16], None), ..grant(4) }]);
        assert_eq!((grants.of_profile(&name("pg")), grants.of_profile(&name("p"))), (vec![id(4)], vec![]));
        assert_eq!((grants.of_launcher([7; 16]), grants.of_launcher([8; 16])), (vec![id(4)], vec![]));
    }

    #[test]
    fn a_lease_ends_no_later_than_its_grant() {
        for (grant, ttl, now, life) in [
            (once(1), hours(24), 299, 3_600),
            (once(1), Duration::from_secs(60), 299, 60),
            (grant(1), hours(24), 600, 3_000),
            (grant(1), Duration::from_secs(60), 600, 60),
            (grant(1), hours(24), 4_000, 0),
            (for_run(1, Some('a')), hours(24), 600, 3_000),
        ] {
            assert_eq!(grant.lease_life(ttl, at(now).boot).as_secs(), life, "{grant:?}");
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let mut grants = Grants::default();
        let numbered = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            Grant { id: GrantId([0, a, b, c, d]), project: Some(format!("/{n}")), ..grant(1) }
        };
        for n in 0..20_000 {
            assert_eq!(grants.insert(numbered(n)), Ok(None));
        }
        assert!(grants.insert(numbered(20_000)).is_err());
        assert!(
            grants.insert(numbered(19_999)).is_ok_and(|before| before.is_some()),
            "one that is there can be changed"
        );
        assert_eq!(grants.iter().count(), Grants::<char>::MAX);
    }
}
