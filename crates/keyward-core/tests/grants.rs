//! Random lives of grants and approvals, beside a model that is a flat list and says the rules once more: nothing is delivered
//! without a live grant that matches, nothing after its end, and no count of uses is exceeded.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keyward_core::{
    AppScope, Approval, ApprovalId, ApprovalKind, Approvals, Ask, Asked, Asker, Boot, Decision, DeliveryMode,
    FileState, Grant, GrantId, Grants, Moment, Name, Now, ProcessId, Program, Question, Refused, Span, Term, Wall,
    reloaded,
};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
/// The wall clock where a life begins, in milliseconds since 1970.
const BEGIN: i64 = 1_800_000_000_000;

/// A request, in small numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wish {
    profile: u8,
    /// 0: a tool, 1: another file under its path, 2: an interpreter with a script, 3: with another, 4: without one.
    program: u8,
    launcher: Option<u8>,
    project: u8,
    /// 0: env, 1: file, 2: gateway.
    delivery: u8,
    /// Which of the live runs it is asked from, if there is one.
    outer: Option<u8>,
    asker: u32,
    reserved: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Request(Wish),
    Give { wish: Wish, app: u8, anywhere: bool, life: u64, uses: Option<u32> },
    Answer { card: u8, digest_off: bool, decision: u8 },
    Withdraw(u8),
    Revoke(u8),
    Exit(u8),
    Pass(u64),
    SetWall(i64),
    Lock(bool),
    Restart,
    Reboot { down: u64, set_wall: i64 },
    ChangeProfile(u8),
}

fn wish() -> impl Strategy<Value = Wish> {
    let asked = (0..2_u8, 0..5_u8, prop::option::weighted(0.2, 0..2_u8), 0..2_u8);
    (asked, 0..3_u8, prop::option::weighted(0.3, 0..4_u8), 1..5_u32, prop::bool::weighted(0.2)).prop_map(
        |((profile, program, launcher, project), delivery, outer, asker, reserved)| Wish {
            profile,
            program,
            launcher,
            project,
            delivery,
            outer,
            asker,
            reserved,
        },
    )
}

fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..5 * SECOND,
        Just(799),
        Just(800),
        Just(60 * SECOND),
        Just(119_999),
        Just(120 * SECOND),
        Just(300 * SECOND - 1),
        Just(HOUR),
        0..30 * HOUR,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let life = prop_oneof![Just(1), Just(60), Just(3_600), Just(86_400), 1..90_000_u64];
    prop_oneof![
        12 => wish().prop_map(Step::Request),
        4 => (wish(), 0..3_u8, any::<bool>(), life, prop::option::of(0..4_u32))
            .prop_map(|(wish, app, anywhere, life, uses)| Step::Give { wish, app, anywhere, life, uses }),
        6 => (0..4_u8, prop::bool::weighted(0.1), 0..4_u8)
            .prop_map(|(card, digest_off, decision)| Step::Answer { card, digest_off, decision }),
        1 => (0..4_u8).prop_map(Step::Withdraw),
        1 => (0..8_u8).prop_map(Step::Revoke),
        1 => (0..4_u8).prop_map(Step::Exit),
        5 => pause().prop_map(Step::Pass),
        1 => (-30..30_i64).prop_map(|hours| Step::SetWall(hours * 3_600_000)),
        1 => prop::bool::weighted(0.3).prop_map(Step::Lock),
        1 => Just(Step::Restart),
        1 => (0..30 * HOUR, prop_oneof![3 => Just(0), 1 => -100_000_000..100_000_000_i64])
            .prop_map(|(down, set_wall)| Step::Reboot { down, set_wall }),
        1 => (0..2_u8).prop_map(Step::ChangeProfile),
    ]
}

// What the broker does with the types, in miniature.

fn profile(n: u8) -> Name {
    Name::parse(&format!("profile{n}")).unwrap()
}

fn program(n: u8) -> Program {
    let (path, inode, script) = match n {
        0 => ("/bin/tool", 1, None),
        1 => ("/bin/tool", 2, None),
        2 => ("/usr/bin/python3", 3, Some("/p/x.py")),
        3 => ("/usr/bin/python3", 3, Some("/p/y.py")),
        _ => ("/usr/bin/python3", 3, None),
    };
    Program { path: path.to_owned(), file: Some((1, inode, 1)), script: script.map(str::to_owned) }
}

fn delivery(n: u8) -> DeliveryMode {
    [DeliveryMode::Env, DeliveryMode::File, DeliveryMode::Gateway].into_iter().nth(n.into()).unwrap()
}

fn project(n: u8) -> String {
    format!("/p{n}")
}

/// What is equal for requests that a person could not tell from each other.
fn digest(wish: &Wish, outer: Option<u32>) -> [u8; 32] {
    let mut digest = [0; 32];
    let Wish { profile, program, launcher, project, delivery, .. } = *wish;
    let parts = [profile, program, launcher.map_or(0, |l| l + 1), project, delivery];
    let outer = outer.map_or([0; 4], |run| (run + 1).to_be_bytes());
    digest.iter_mut().zip(parts.into_iter().chain(outer)).for_each(|(to, from)| *to = from);
    digest
}

/// A stored grant: plain values, as a database has them.
struct Row {
    id: [u8; 5],
    span: u8,
    app: u8,
    path: Option<String>,
    file: Option<FileState>,
    script: Option<String>,
    launcher: Option<([u8; 16], Option<FileState>)>,
    project: Option<String>,
    profile: String,
    weakest: u8,
    boot_id: [u8; 16],
    boot_us: u64,
    wall_us: i64,
    life_us: u64,
    uses_left: Option<u32>,
    run: Option<u32>,
    request: Option<[u8; 32]>,
    created_us: i64,
    allowed: u64,
    last_allowed_us: Option<i64>,
}

fn store(grant: &Grant<u32>) -> Row {
    let (app, program, launcher) = match &grant.app {
        AppScope::Any => (0, None, None),
        AppScope::Program(program) => (1, Some(program), None),
        AppScope::Launcher(id, file) => (2, None, Some((*id, *file))),
    };
    let from = grant.term.from();
    Row {
        id: grant.id.0,
        span: [Span::Once, Span::Run, Span::Standing]
            .iter()
            .position(|s| *s == grant.span)
            .unwrap()
            .try_into()
            .unwrap(),
        app,
        path: program.map(|p| p.path.clone()),
        file: program.and_then(|p| p.file),
        script: program.and_then(|p| p.script.clone()),
        launcher,
        project: grant.project.clone(),
        profile: grant.profile.to_string(),
        weakest: (0..3).find(|n| delivery(*n) == grant.weakest).unwrap(),
        boot_id: from.boot_id,
        boot_us: from.boot.0.as_micros().try_into().unwrap(),
        wall_us: from.wall.0,
        life_us: grant.term.life().as_micros().try_into().unwrap(),
        uses_left: grant.uses_left,
        run: grant.run,
        request: grant.request,
        created_us: grant.created.0,
        allowed: grant.allowed,
        last_allowed_us: grant.last_allowed.map(|w| w.0),
    }
}

fn load(row: Row) -> Grant<u32> {
    let boot = Boot(Duration::from_micros(row.boot_us));
    let from = Moment { boot_id: row.boot_id, boot, wall: Wall(row.wall_us) };
    Grant {
        id: GrantId(row.id),
        span: [Span::Once, Span::Run, Span::Standing].into_iter().nth(row.span.into()).unwrap(),
        app: match row.app {
            0 => AppScope::Any,
            1 => AppScope::Program(Program { path: row.path.unwrap(), file: row.file, script: row.script }),
            _ => {
                let (id, file) = row.launcher.unwrap();
                AppScope::Launcher(id, file)
            }
        },
        project: row.project,
        profile: Name::parse(&row.profile).unwrap(),
        weakest: delivery(row.weakest),
        term: Term::new(from, Duration::from_micros(row.life_us)).unwrap(),
        uses_left: row.uses_left,
        run: row.run,
        request: row.request,
        created: Wall(row.created_us),
        allowed: row.allowed,
        last_allowed: row.last_allowed_us.map(Wall),
    }
}

// The model.

/// A yes as the rules have it, flat.
#[derive(Debug, Clone)]
struct Yes {
    id: GrantId,
    once: bool,
    of_run: bool,
    run: Option<u32>,
    profile: u8,
    /// 0: any, 1: the program, 2: the launcher.
    app: u8,
    program: u8,
    launcher: Option<u8>,
    project: Option<u8>,
    weakest: u8,
    request: Option<[u8; 32]>,
    /// Ends, in milliseconds: on the clock of this boot, by the wall, and for a run that has not come.
    ends: i64,
    ends_wall: i64,
    claim: i64,
    begun_wall: i64,
    uses: Option<u32>,
    used: u32,
}

impl Yes {
    fn is_live(&self, boot: i64) -> bool {
        boot < self.ends
            && !(self.of_run && self.run.is_none() && boot >= self.claim)
            && self.uses.is_none_or(|n| self.used < n)
    }

    fn is_for(&self, wish: &Wish, outer: Option<u32>) -> bool {
        let app = match self.app {
            0 => true,
            1 => self.program == wish.program,
            _ => {
                let same = program(self.program).file == program(wish.program).file;
                wish.launcher.is_some() && self.launcher == wish.launcher && same
            }
        };
        app && self.profile == wish.profile
            && self.run == outer
            && self.project.is_none_or(|p| p == wish.project)
            && wish.delivery >= self.weakest
            && self.request.is_none_or(|r| r == digest(wish, outer))
    }

    /// Place in the order run, once, project, launcher, app, any.
    fn order(&self) -> u8 {
        match (self.of_run, self.once, self.project, self.app) {
            (true, ..) => 0,
            (_, true, ..) => 1,
            (_, _, Some(_), _) => 2,
            (_, _, _, 2) => 3,
            (_, _, _, 1) => 4,
            _ => 5,
        }
    }
}

#[derive(Debug, Clone)]
struct Card {
    id: ApprovalId,
    wish: Wish,
    outer: Option<u32>,
    asked: i64,
    open: bool,
}

#[derive(Default)]
struct Model {
    given: Vec<Yes>,
    cards: Vec<Card>,
    /// App, project, profile, and when it was.
    denied: Vec<(String, u8, u8, i64)>,
}

// Both, side by side.

struct World {
    boot_number: u8,
    boot: u64,
    wall: i64,
    last_audit: Option<i64>,
    locked: bool,
    runs: Vec<u32>,
    next: u32,
    grants: Grants<u32>,
    approvals: Approvals<u32, ()>,
    model: Model,
}

fn app_of(wish: &Wish) -> String {
    match wish.launcher {
        Some(n) => format!("launcher {n}"),
        None => format!("{:?}", program(wish.program)),
    }
}

fn choices(wish: &Wish, outer: Option<u32>) -> Vec<Decision> {
    let standing = outer.is_none() && wish.program != 4;
    let mut all = vec![Decision::Once, Decision::Run];
    all.extend(standing.then_some(Decision::Project));
    all
}

impl World {
    fn new() -> Self {
        Self {
            boot_number: 0,
            boot: 50 * SECOND,
            wall: BEGIN,
            last_audit: None,
            locked: false,
            runs: Vec::new(),
            next: 0,
            grants: Grants::default(),
            approvals: Approvals::default(),
            model: Model::default(),
        }
    }

    fn now(&self) -> Now {
        Now { boot: Boot(Duration::from_millis(self.boot)), wall: Wall(self.wall * 1_000) }
    }

    fn moment(&self) -> Moment {
        let Now { boot, wall } = self.now();
        Moment { boot_id: [self.boot_number; 16], boot, wall }
    }

    fn clock(&self) -> i64 {
        self.boot.try_into().unwrap()
    }

    fn fresh(&mut self) -> [u8; 5] {
        self.next += 1;
        let [a, b, c, d] = self.next.to_be_bytes();
        [0, a, b, c, d]
    }

    fn outer(&self, wish: &Wish) -> Option<u32> {
        wish.outer.and_then(|n| self.runs.get(usize::from(n))).copied()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request(wish) => self.request(wish),
            Step::Give { wish, app, anywhere, life, uses } => self.give(wish, *app, *anywhere, *life, *uses),
            Step::Answer { card, digest_off, decision } => self.answer(*card, *digest_off, *decision),
            Step::Withdraw(n) => {
                let now = (self.now(), self.clock());
                if let Some(card) = self.model.cards.iter_mut().rev().nth(usize::from(*n)) {
                    // Whether or not time is up, it is open until somebody ends it.
                    assert_eq!(self.approvals.withdraw(card.id, now.0), card.open);
                    card.open = false;
                }
            }
            Step::Revoke(n) => {
                if let Some(id) = self.model.given.get(usize::from(*n)).map(|yes| yes.id) {
                    self.grants.remove(id);
                    self.model.given.retain(|yes| yes.id != id);
                }
            }
            Step::Exit(n) => {
                if let Some(run) = self.runs.get(usize::from(*n)).copied() {
                    self.runs.retain(|other| *other != run);
                    self.grants.of_run(run).into_iter().for_each(|id| assert!(self.grants.remove(id).is_some()));
                    self.model.given.retain(|yes| yes.run != Some(run));
                }
            }
            Step::Pass(ms) => {
                self.boot += ms;
                self.wall += i64::try_from(*ms).unwrap();
            }
            Step::SetWall(by) => self.wall += by,
            Step::Lock(locked) => {
                self.locked = *locked;
                if self.locked {
                    self.approvals.withdraw_where(self.now(), |_| true);
                    self.model.cards.iter_mut().for_each(|card| card.open = false);
                }
            }
            Step::Restart => self.restart(),
            Step::Reboot { down, set_wall } => {
                self.boot_number = self.boot_number.wrapping_add(1);
                self.boot = 20 * SECOND;
                self.wall += i64::try_from(*down).unwrap() + set_wall;
                self.runs.clear();
                let (wall, boot) = (self.wall, self.clock());
                let set_back = self.last_audit.is_some_and(|last| wall < last);
                self.model
                    .given
                    .retain(|yes| !set_back && !yes.of_run && wall >= yes.begun_wall && wall < yes.ends_wall);
                for yes in &mut self.model.given {
                    yes.ends = boot + (yes.ends_wall - wall);
                    yes.begun_wall = wall;
                }
                self.restart();
            }
            Step::ChangeProfile(n) => {
                for id in self.grants.of_profile(&profile(*n)) {
                    self.grants.remove(id);
                }
                self.model.given.retain(|yes| yes.profile != *n);
            }
        }
        self.ends();
    }

    fn request(&mut self, wish: &Wish) {
        if self.locked {
            return;
        }
        let (outer, clock, now) = (self.outer(wish), self.clock(), self.now());
        let (profile, program, project) = (profile(wish.profile), program(wish.program), project(wish.project));
        let request = digest(wish, outer);
        let ask = Ask {
            profile: &profile,
            program: &program,
            launcher: wish.launcher.map(|n| [n; 16]),
            project: &project,
            delivery: delivery(wish.delivery),
            outer,
            request,
        };
        let found = self.grants.find(&ask, &self.moment());
        let fit: Vec<&Yes> = self.model.given.iter().filter(|y| y.is_live(clock) && y.is_for(wish, outer)).collect();
        let Some(id) = found else {
            assert!(fit.is_empty(), "{fit:?} was not found for {wish:?}");
            return self.ask(wish, outer, request, now);
        };
        let taken_by_model = fit.iter().find(|y| y.id == id);
        let order = taken_by_model.map(|y| y.order());
        assert!(order.is_some(), "{id} delivered {wish:?} and is not among {fit:?}");
        assert_eq!(order, fit.iter().map(|y| y.order()).min(), "{id} is not the narrowest of {fit:?}");
        let run = self.next;
        let taken = self.grants.take(id, Some(run), &self.moment()).unwrap();
        self.runs.push(run);
        self.next += 1;
        self.last_audit = Some(self.wall);
        let yes = self.model.given.iter_mut().find(|y| y.id == id).unwrap();
        yes.used += 1;
        if yes.of_run {
            yes.run = yes.run.or(Some(run));
        }
        assert!(yes.uses.is_none_or(|uses| yes.used <= uses), "{yes:?} allowed too often");
        assert_eq!((taken.allowed, taken.run), (u64::from(yes.used), yes.run));
        self.model.given.retain(|y| y.uses.is_none_or(|uses| y.used < uses));
    }

    fn ask(&mut self, wish: &Wish, outer: Option<u32>, digest_of: [u8; 32], now: Now) {
        let clock = self.clock();
        let due = self.approvals.unanswered(now);
        for card in self.model.cards.iter_mut().filter(|c| c.open && clock >= c.asked + 120_000) {
            assert!(due.contains(&card.id));
            card.open = false;
        }
        let id = ApprovalId(self.fresh());
        let told = self.approvals.ask(
            Question {
                id,
                kind: ApprovalKind::Run,
                asker: asker(wish, outer),
                reserved: wish.reserved,
                app: app_of(wish),
                project: project(wish.project),
                profiles: vec![profile(wish.profile)],
                digest: digest_of,
                choices: choices(wish, outer),
                body: (),
            },
            now,
        );
        let model = &mut self.model;
        let same = |c: &&Card| c.open && digest(&c.wish, c.outer) == digest_of;
        let no = |(app, project, profile, at): &&(String, u8, u8, i64)| {
            *app == app_of(wish) && *project == wish.project && *profile == wish.profile && clock < at + 60_000
        };
        if let Some(card) = model.cards.iter().find(same) {
            assert!(matches!(told, Asked::Merged { id, .. } if id == card.id), "{told:?}");
            return;
        }
        if model.denied.iter().any(|d| no(&d)) {
            assert!(matches!(told, Asked::CoolingDown(_)), "{told:?}");
            return;
        }
        let own = |c: &Card| c.open && asker(&c.wish, c.outer) == asker(wish, outer);
        let replaced: Vec<_> =
            model.cards.iter().filter(|c| own(c) && c.wish.profile == wish.profile).map(|c| c.id).collect();
        let left =
            |of: &dyn Fn(&Card) -> bool| model.cards.iter().filter(|c| of(c) && !replaced.contains(&c.id)).count();
        let full = left(&own) >= 4 || left(&|c| c.open) >= if wish.reserved { 16 } else { 12 };
        if full {
            assert_eq!(told, Asked::Full);
            return;
        }
        model.cards.iter_mut().filter(|c| replaced.contains(&c.id)).for_each(|c| c.open = false);
        assert_eq!(told, Asked::New { replaced });
        model.cards.push(Card { id, wish: *wish, outer, asked: clock, open: true });
    }

    fn answer(&mut self, n: u8, digest_off: bool, decision: u8) {
        let (clock, now) = (self.clock(), self.now());
        let Some(card) = self.model.cards.iter().rev().nth(n.into()).cloned() else { return };
        let mut given = digest(&card.wish, card.outer);
        given[31] ^= u8::from(digest_off);
        let decision = [Decision::Deny, Decision::Once, Decision::Run, Decision::Project]
            .into_iter()
            .nth(decision.into())
            .unwrap();
        let told = self.approvals.answer(card.id, given, decision, now).map(|_| ());
        let age = clock - card.asked;
        let want = if !card.open || age >= 120_000 {
            Err(Refused::Over)
        } else if digest_off {
            Err(Refused::Changed)
        } else if decision == Decision::Deny {
            Ok(())
        } else if !choices(&card.wish, card.outer).contains(&decision) {
            Err(Refused::Choice)
        } else if age < 800 {
            Err(Refused::Early)
        } else {
            Ok(())
        };
        assert_eq!(told, want, "{decision:?} to {card:?} at {clock}");
        if want.is_err() {
            return;
        }
        self.last_audit = Some(self.wall);
        self.model.cards.iter_mut().filter(|c| c.id == card.id).for_each(|c| c.open = false);
        let wish = card.wish;
        let (app, weakest) = (if wish.launcher.is_some() { 2 } else { 1 }, wish.delivery);
        let base = Yes {
            id: GrantId(self.fresh()),
            once: false,
            of_run: false,
            run: card.outer,
            profile: wish.profile,
            app,
            program: wish.program,
            launcher: wish.launcher,
            project: Some(wish.project),
            weakest,
            request: None,
            ends: 0,
            ends_wall: 0,
            claim: 0,
            begun_wall: 0,
            uses: None,
            used: 0,
        };
        let request = Some(digest(&wish, card.outer));
        match decision {
            Decision::Deny => self.model.denied.push((app_of(&wish), wish.project, wish.profile, clock)),
            Decision::Once => self.put(Yes { once: true, uses: Some(1), request, ..base }, 300),
            // The run from inside of which it was asked may be gone by now, and its grant would match nothing.
            Decision::Run => self.put(Yes { of_run: true, ..base }, 86_400),
            Decision::Project => self.put(base, 3_600),
        }
    }

    fn give(&mut self, wish: &Wish, app: u8, anywhere: bool, life: u64, uses: Option<u32>) {
        let app = if app == 2 && wish.launcher.is_none() { 0 } else { app };
        let yes = Yes {
            id: GrantId(self.fresh()),
            once: false,
            of_run: false,
            run: None,
            profile: wish.profile,
            app,
            program: wish.program,
            launcher: wish.launcher,
            project: (!anywhere).then_some(wish.project),
            weakest: wish.delivery,
            request: None,
            ends: 0,
            ends_wall: 0,
            claim: 0,
            begun_wall: 0,
            uses,
            used: 0,
        };
        let allowed = life <= 86_400 && uses != Some(0) && !(app == 1 && wish.program == 4);
        if allowed {
            self.put(yes, life);
        } else if let Ok(term) = Term::new(self.moment(), Duration::from_secs(life)) {
            assert!(self.grants.insert(grant(&yes, term)).is_err(), "{yes:?} was taken");
        }
    }

    /// Gives a grant in both.
    fn put(&mut self, yes: Yes, life: u64) {
        let term = Term::new(self.moment(), Duration::from_secs(life)).unwrap();
        assert_eq!(self.grants.insert(grant(&yes, term)), Ok(None));
        self.last_audit = Some(self.wall);
        let (boot, wall, ms) = (self.clock(), self.wall, i64::try_from(life * SECOND).unwrap());
        self.model.given.push(Yes {
            ends: boot + ms,
            ends_wall: wall + ms,
            claim: boot + 300_000,
            begun_wall: wall,
            ..yes
        });
    }

    fn restart(&mut self) {
        let rows: Vec<Row> = self.grants.iter().map(store).collect();
        let last = self.last_audit.map(|ms| Wall(ms * 1_000));
        let (kept, _) = reloaded(rows.into_iter().map(load).collect(), self.moment(), last);
        self.grants = Grants::default();
        kept.into_iter().for_each(|grant| assert_eq!(self.grants.insert(grant), Ok(None)));
        self.approvals = Approvals::default();
        self.model.cards.clear();
        self.model.denied.clear();
    }

    /// Grants end by themselves, and those that are left are the same in both.
    fn ends(&mut self) {
        let clock = self.clock();
        let over = self.grants.expire(&self.moment());
        for grant in over {
            let yes = self.model.given.iter().find(|y| y.id == grant.id);
            assert!(yes.is_none_or(|y| !y.is_live(clock)), "{grant:?} ended too early");
        }
        self.model.given.retain(|y| y.is_live(clock));
        let mut live: Vec<_> = self.model.given.iter().map(|y| y.id).collect();
        live.sort_unstable();
        assert_eq!(self.grants.iter().map(|g| g.id).collect::<Vec<_>>(), live);
        assert!(self.grants.iter().all(|g| g.until() > self.now().boot && g.term.life() <= Term::CEILING));
        let due = self.grants.iter().map(Grant::until).min();
        assert_eq!(self.grants.next_due(), due);
        let open = |a: &&Approval<u32, ()>| a.over.is_none();
        assert!(self.approvals.iter().filter(open).count() <= 16 && self.approvals.iter().count() <= 116);
    }
}

fn asker(wish: &Wish, outer: Option<u32>) -> Asker<u32> {
    outer.map_or(Asker::Process(ProcessId { pid: wish.asker, start: 1 }), Asker::Run)
}

fn grant(yes: &Yes, term: Term) -> Grant<u32> {
    Grant {
        id: yes.id,
        span: if yes.once {
            Span::Once
        } else if yes.of_run {
            Span::Run
        } else {
            Span::Standing
        },
        app: match yes.app {
            0 => AppScope::Any,
            1 => AppScope::Program(program(yes.program)),
            _ => AppScope::Launcher([yes.launcher.unwrap(); 16], program(yes.program).file),
        },
        project: yes.project.map(project),
        profile: profile(yes.profile),
        weakest: delivery(yes.weakest),
        term,
        uses_left: yes.uses,
        run: yes.run,
        request: yes.request,
        created: term.from().wall,
        allowed: 0,
        last_allowed: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_delivered_but_by_a_live_grant(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
    }
}
