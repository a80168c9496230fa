//! Requests that wait for a person, and their answers.
//!
//! Holds who asked, a digest over what is shown, and what the broker keeps beside it; never a secret. Never renders, never
//! asks and never delivers. Bounded in everything, since whoever asks chooses how often. Called by the broker.

use crate::grant::{read_id, write_id};
use crate::{Boot, Name, Now, ProcessId};
use keyward_diag::{Code, Fault};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Id of an approval: 40 random bits, shown as 8 characters of Crockford's base 32. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(pub [u8; 5]);

impl ApprovalId {
    /// Reads the 8 characters, in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        read_id(text).map(Self)
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_id(self.0))
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalKind {
    /// A program wants to start with credentials.
    Run,
    /// A program wants one credential, or a run wants more than it holds.
    Token,
    /// A run has come to a fence of its profile.
    Fence,
    /// A grant for a run ends soon.
    Extend,
}

impl ApprovalKind {
    /// Whether a peer has asked; the broker itself asks the others, about a run that is there.
    fn of_peer(self) -> bool {
        matches!(self, Self::Run | Self::Token)
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// No.
    Deny,
    /// One delivery.
    Once,
    /// As long as the run lives.
    Run,
    /// This app in this project, for a time.
    Project,
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalState {
    /// It waits for a person.
    Open,
    /// A person said yes, in this way.
    Allowed(Decision),
    /// A person said no.
    Denied,
    /// Nobody answered in time, which is a no.
    Unanswered,
    /// All who asked are gone, it was asked anew in another form, or the vault was locked.
    Withdrawn,
}

/// Who asks, as far as places are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<R> {
    /// A process outside of runs: the one that a person would name, not a client that it starts anew for each request.
    Process(ProcessId),
    /// A run, whatever inside it asks.
    Run(R),
}

/// A request for a person. `T` is what the broker keeps with it: the card as it is shown.
#[derive(Debug, Clone)]
pub struct Question<R, T> {
    /// Random id, not one of those that are remembered.
    pub id: ApprovalId,
    /// What it is about.
    pub kind: ApprovalKind,
    /// Who asks.
    pub asker: Asker<R>,
    /// The peer is a shell or an operator, for which the last places are kept.
    pub reserved: bool,
    /// App: path of the program with its script, or the launcher.
    pub app: String,
    /// Project folder.
    pub project: String,
    /// Profiles, at least one.
    pub profiles: Vec<Name>,
    /// SHA-256 over all that a person decides by.
    pub digest: [u8; 32],
    /// Answers that make sense, besides no.
    pub choices: Vec<Decision>,
    /// What the broker keeps with it.
    pub body: T,
}

impl<R: Eq, T> Question<R, T> {
    /// Whether `older` ends when this one is asked: one requester has one open request for a profile. What the broker asks
    /// about a run ends no other, since calls wait for each.
    fn replaces(&self, older: &Self) -> bool {
        self.kind.of_peer()
            && older.kind.of_peer()
            && self.asker == older.asker
            && self.profiles.iter().any(|profile| older.profiles.contains(profile))
    }
}

/// A request with where it stands.
#[derive(Debug, Clone)]
pub struct Approval<R, T> {
    /// What was asked.
    pub question: Question<R, T>,
    /// Where it stands.
    pub state: ApprovalState,
    /// Requests with these very facts.
    pub merged: u32,
    /// When it was asked first. What is shown of it never changes (another request is another one of these), so an answer
    /// that allows comes at least [`Approvals::UNREAD`] later.
    pub asked: Now,
    /// When no answer becomes a no.
    pub until: Boot,
    /// When it was over, if it is.
    pub over: Option<Now>,
}

/// What became of a request for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It waits as one of its own. Older ones of the same requester for one of these profiles are withdrawn by it: a
    /// requester has one open request for a profile.
    New {
        /// Those that are withdrawn.
        replaced: Vec<ApprovalId>,
    },
    /// The same waits already, with this count of requests.
    Merged {
        /// The one that waits.
        id: ApprovalId,
        /// Requests with these very facts.
        count: u32,
    },
    /// A person has just said no to the same app, project and profile: nothing is shown before this moment.
    CoolingDown(Boot),
    /// Too many wait, or too many of this requester.
    Full,
}

/// Why an answer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such request is remembered.
    #[error("no request has this id")]
    Unknown,
    /// It is answered, out of time or withdrawn.
    #[error("nobody waits for an answer to it")]
    Over,
    /// The digest is that of something else.
    #[error("the answer is to something else than what is asked")]
    Changed,
    /// It allows, less than 800 ms after what is shown changed.
    #[error("it changed less than 800 ms before the answer")]
    Early,
    /// The decision is not among the choices.
    #[error("this answer is not one of the choices of the request")]
    Choice,
}

impl Refused {
    /// The words of the error.
    pub fn fault(self) -> Fault {
        let code = match self {
            Self::Unknown => Code::ApprovalUnknown,
            Self::Over => Code::ApprovalOver,
            Self::Changed => Code::ApprovalChanged,
            Self::Early => Code::ApprovalEarly,
            Self::Choice => Code::RequestInvalid,
        };
        Fault::new(code).cause(self)
    }
}

/// Requests that wait for a person, and the last hundred that did.
#[derive(Debug)]
pub struct Approvals<R, T> {
    open: Vec<Approval<R, T>>,
    /// The latest first.
    past: VecDeque<Approval<R, T>>,
    denied: VecDeque<Denied>,
}

/// A no that still holds.
#[derive(Debug)]
struct Denied {
    app: String,
    project: String,
    profile: Name,
    until: Boot,
}

impl Denied {
    fn covers<R, T>(&self, question: &Question<R, T>) -> bool {
        self.app == question.app && self.project == question.project && question.profiles.contains(&self.profile)
    }
}

impl<R, T> Default for Approvals<R, T> {
    fn default() -> Self {
        Self { open: Vec::new(), past: VecDeque::new(), denied: VecDeque::new() }
    }
}

impl<R: Copy + Eq, T> Approvals<R, T> {
    /// How long a request waits for its answer.
    pub const PATIENCE: Duration = Duration::from_secs(120);
    /// How long what is shown cannot be allowed yet.
    pub const UNREAD: Duration = Duration::from_millis(800);
    /// How long a no holds for the same app, project and profile.
    pub const COOLING: Duration = Duration::from_secs(60);
    /// Most that wait at once.
    pub const OPEN_MAX: usize = 16;
    /// Most of one requester.
    pub const OPEN_OF_ONE: usize = 4;
    /// Places that are kept for shells and operators.
    pub const KEPT: usize = 4;
    /// Requests that are over and remembered.
    pub const PAST_MAX: usize = 100;
    /// Times no that are remembered: anybody can say no, so the oldest make room.
    const DENIED_MAX: usize = 256;

    /// Asks. Call [`Approvals::unanswered`] before: what is out of time keeps its place until then, and merges with nothing.
    ///
    /// [`Asked::Full`] is the answer, too, where the id is remembered already.
    pub fn ask(&mut self, question: Question<R, T>, now: Now) -> Asked {
        let waits = |a: &&mut Approval<R, T>| a.question.digest == question.digest && now.boot < a.until;
        if let Some(same) = self.open.iter_mut().find(waits) {
            same.merged = same.merged.saturating_add(1);
            return Asked::Merged { id: same.question.id, count: same.merged };
        }
        let of_peer = question.kind.of_peer();
        let cooling = self.denied.iter().filter(|no| of_peer && now.boot < no.until && no.covers(&question));
        if let Some(until) = cooling.map(|no| no.until).max() {
            return Asked::CoolingDown(until);
        }
        let replaced: Vec<_> =
            self.open.iter().map(|a| &a.question).filter(|q| question.replaces(q)).map(|q| q.id).collect();
        let own = self.open.iter().filter(|a| a.question.asker == question.asker).count() - replaced.len();
        let places = if question.reserved { Self::OPEN_MAX } else { Self::OPEN_MAX - Self::KEPT };
        if own >= Self::OPEN_OF_ONE || self.open.len() - replaced.len() >= places || self.get(question.id).is_some() {
            return Asked::Full;
        }
        for id in &replaced {
            self.end(*id, ApprovalState::Withdrawn, now);
        }
        let until = now.boot.after(Self::PATIENCE);
        let state = ApprovalState::Open;
        self.open.push(Approval { question, state, merged: 1, asked: now, until, over: None });
        Asked::New { replaced }
    }

    /// Answers. A no has to be to what was shown, too, but can come at once.
    ///
    /// # Errors
    /// Why the answer is refused; nothing is changed then.
    pub fn answer(
        &mut self,
        id: ApprovalId,
        digest: [u8; 32],
        decision: Decision,
        now: Now,
    ) -> Result<&Approval<R, T>, Refused> {
        let Some(open) = self.open.iter().find(|a| a.question.id == id) else {
            return Err(if self.get(id).is_some() { Refused::Over } else { Refused::Unknown });
        };
        if now.boot >= open.until {
            return Err(Refused::Over);
        }
        if open.question.digest != digest {
            return Err(Refused::Changed);
        }
        let state = if decision == Decision::Deny {
            let question = &open.question;
            let no = |profile: &Name| Denied {
                app: question.app.clone(),
                project: question.project.clone(),
                profile: profile.clone(),
                until: now.boot.after(Self::COOLING),
            };
            self.denied.retain(|no| now.boot < no.until);
            // What the broker asks about one run says nothing of another.
            self.denied.extend(question.profiles.iter().filter(|_| question.kind.of_peer()).map(no));
            let excess = self.denied.len().saturating_sub(Self::DENIED_MAX);
            self.denied.drain(..excess);
            ApprovalState::Denied
        } else {
            if !open.question.choices.contains(&decision) {
                return Err(Refused::Choice);
            }
            if now.boot.since(open.asked.boot) < Self::UNREAD {
                return Err(Refused::Early);
            }
            ApprovalState::Allowed(decision)
        };
        self.end(id, state, now).ok_or(Refused::Unknown)
    }

    /// Says no in place of those who have not answered in time, and gives them.
    pub fn unanswered(&mut self, now: Now) -> Vec<ApprovalId> {
        let over: Vec<_> = self.open.iter().filter(|a| a.until <= now.boot).map(|a| a.question.id).collect();
        for id in &over {
            self.end(*id, ApprovalState::Unanswered, now);
        }
        over
    }

    /// When [`Approvals::unanswered`] has something to do.
    pub fn next_due(&self) -> Option<Boot> {
        self.open.iter().map(|a| a.until).min()
    }

    /// Ends an open request without an answer: all who waited for it are gone. Whether it was open.
    pub fn withdraw(&mut self, id: ApprovalId, now: Now) -> bool {
        self.end(id, ApprovalState::Withdrawn, now).is_some()
    }

    /// Ends the open requests that are for `which`, and gives them.
    pub fn withdraw_where(&mut self, now: Now, mut which: impl FnMut(&Question<R, T>) -> bool) -> Vec<ApprovalId> {
        let over: Vec<_> = self.open.iter().map(|a| &a.question).filter(|q| which(q)).map(|q| q.id).collect();
        for id in &over {
            self.end(*id, ApprovalState::Withdrawn, now);
        }
        over
    }

    /// A request that is remembered.
    pub fn get(&self, id: ApprovalId) -> Option<&Approval<R, T>> {
        self.iter().find(|a| a.question.id == id)
    }

    /// Those that wait, the oldest first, then those that are over, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Approval<R, T>> {
        self.open.iter().chain(&self.past)
    }

    /// Moves an open request to those that are over.
    fn end(&mut self, id: ApprovalId, state: ApprovalState, now: Now) -> Option<&Approval<R, T>> {
        let at = self.open.iter().position(|a| a.question.id == id)?;
        let over = self.open.remove(at);
        self.past.push_front(Approval { state, over: Some(now), ..over });
        self.past.truncate(Self::PAST_MAX);
        self.past.front()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::Wall;

    type Cards = Approvals<char, &'static str>;

    fn at(ms: u64) -> Now {
        let since = Duration::from_millis(ms);
        Now { boot: Boot(since), wall: Wall(1_800_000_000_000_000).after(since) }
    }

    fn id(n: u32) -> ApprovalId {
        let [a, b, c, d] = n.to_be_bytes();
        ApprovalId([0, a, b, c, d])
    }

    fn process(n: u32) -> Asker<char> {
        Asker::Process(ProcessId { pid: n, start: 1 })
    }

    /// A request of process `n` that differs from any other number's.
    fn question(n: u32) -> Question<char, &'static str> {
        Question {
            id: id(n),
            kind: ApprovalKind::Run,
            asker: process(n),
            reserved: false,
            app: format!("/bin/app{n}"),
            project: "/p".to_owned(),
            profiles: vec![Name::parse("claude").unwrap()],
            digest: digest(n),
            choices: vec![Decision::Once, Decision::Run],
            body: "card",
        }
    }

    fn digest(n: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
        digest
    }

    fn new() -> Asked {
        Asked::New { replaced: Vec::new() }
    }

    fn states(cards: &Cards) -> Vec<(ApprovalId, ApprovalState)> {
        cards.iter().map(|a| (a.question.id, a.state)).collect()
    }

    #[test]
    fn equal_requests_are_one_and_later_ones_do_not_keep_it_from_its_end() {
        let mut cards = Cards::default();
        assert_eq!(cards.ask(question(1), at(0)), new());
        for n in 2..=50 {
            let again = Question { id: id(n), asker: process(n), digest: digest(1), ..question(1) };
            assert_eq!(cards.ask(again, at(u64::from(n))), Asked::Merged { id: id(1), count: n });
        }
        let card = cards.get(id(1)).unwrap();
        assert_eq!((card.merged, card.asked, card.until, card.over), (50, at(0), at(120_000).boot, None));
        assert!(cards.get(id(2)).is_none());
        assert_eq!(cards.next_due(), Some(at(120_000).boot));
        assert_eq!(cards.unanswered(at(119_999)), []);
        // What is out of time merges with nothing and cannot be answered, whether or not anybody has looked.
        let late = Question { id: id(60), asker: process(60), ..question(1) };
        assert_eq!(cards.ask(late, at(120_000)), new());
        assert_eq!(cards.answer(id(1), digest(1), Decision::Once, at(120_000)).unwrap_err(), Refused::Over);
        assert_eq!(cards.unanswered(at(120_000)), [id(1)]);
        assert_eq!(states(&cards), [(id(60), ApprovalState::Open), (id(1), ApprovalState::Unanswered)]);
    }

    #[test]
    fn an_answer_is_to_what_was_shown_and_not_sooner_than_anybody_reads() {
        for (digest_of, decision, ms, want) in [
            (1, Decision::Once, 800, Ok(ApprovalState::Allowed(Decision::Once))),
            (1, Decision::Run, 119_999, Ok(ApprovalState::Allowed(Decision::Run))),
            (1, Decision::Once, 799, Err(Refused::Early)),
            (1, Decision::Once, 0, Err(Refused::Early)),
            (1, Decision::Once, 120_000, Err(Refused::Over)),
            (1, Decision::Project, 800, Err(Refused::Choice)),
            (2, Decision::Once, 800, Err(Refused::Changed)),
            (2, Decision::Deny, 800, Err(Refused::Changed)),
            (1, Decision::Deny, 0, Ok(ApprovalState::Denied)),
            (1, Decision::Deny, 120_000, Err(Refused::Over)),
        ] {
            let mut cards = Cards::default();
            cards.ask(question(1), at(0));
            let told = cards.answer(id(1), digest(digest_of), decision, at(ms)).map(|a| (a.state, a.over));
            assert_eq!(told, want.map(|state| (state, Some(at(ms)))), "{decision:?} at {ms}");
            assert_eq!(cards.open.is_empty(), want.is_ok(), "a refused answer changes nothing");
        }
        let mut cards = Cards::default();
        cards.ask(question(1), at(0));
        assert_eq!(cards.answer(id(2), digest(1), Decision::Once, at(900)).unwrap_err(), Refused::Unknown);
        assert!(cards.answer(id(1), digest(1), Decision::Once, at(900)).is_ok());
        // Once answered, neither again nor otherwise, and a replay of it to the next request meets another digest or a
        // card that has not been there for long.
        for decision in [Decision::Once, Decision::Deny] {
            assert_eq!(cards.answer(id(1), digest(1), decision, at(900)).unwrap_err(), Refused::Over);
        }
        cards.ask(Question { id: id(3), ..question(1) }, at(1_000));
        assert_eq!(cards.answer(id(1), digest(1), Decision::Once, at(2_000)).unwrap_err(), Refused::Over);
        assert_eq!(cards.answer(id(3), digest(1), Decision::Once, at(1_700)).unwrap_err(), Refused::Early);
        for (refused, code) in [
            (Refused::Unknown, Code::ApprovalUnknown),
            (Refused::Over, Code::ApprovalOver),
            (Refused::Changed, Code::ApprovalChanged),
            (Refused::Early, Code::ApprovalEarly),
            (Refused::Choice, Code::RequestInvalid),
        ] {
            assert_eq!(refused.fault().code, code);
        }
    }

    #[test]
    fn a_requester_has_one_open_request_for_a_profile() {
        let profiles = |names: &[&str]| names.iter().map(|n| Name::parse(n).unwrap()).collect::<Vec<_>>();
        let of = |n, kind, asker, names: &[&str]| Question { kind, asker, profiles: profiles(names), ..question(n) };
        let (run, token, fence) = (ApprovalKind::Run, ApprovalKind::Token, ApprovalKind::Fence);
        let mut cards = Cards::default();
        assert_eq!(cards.ask(of(1, run, process(1), &["a"]), at(0)), new());
        assert_eq!(cards.ask(of(2, token, process(1), &["b", "c"]), at(1)), new());
        assert_eq!(cards.ask(of(3, run, process(2), &["a"]), at(2)), new(), "another requester");
        let replaced = vec![id(1), id(2)];
        assert_eq!(cards.ask(of(4, token, process(1), &["c", "a"]), at(3)), Asked::New { replaced });
        assert_eq!(cards.get(id(1)).map(|a| (a.state, a.over)), Some((ApprovalState::Withdrawn, Some(at(3)))));
        assert_eq!(cards.answer(id(2), digest(2), Decision::Once, at(900)).unwrap_err(), Refused::Over);
        // A card that takes the place of another cannot be allowed by a click that was meant for that one.
        assert_eq!(cards.answer(id(4), digest(4), Decision::Once, at(802)).unwrap_err(), Refused::Early);
        assert!(cards.answer(id(4), digest(4), Decision::Once, at(803)).is_ok());
        // What the broker asks about a run neither ends what the run asks nor what it asks itself.
        let outer = Asker::Run('r');
        assert_eq!(cards.ask(of(5, fence, outer, &["a"]), at(4)), new());
        assert_eq!(cards.ask(of(6, fence, outer, &["a"]), at(5)), new());
        assert_eq!(cards.ask(of(7, token, outer, &["a"]), at(6)), new());
        assert_eq!(cards.ask(of(8, run, outer, &["a"]), at(7)), Asked::New { replaced: vec![id(7)] });
    }

    #[test]
    fn a_no_holds_for_a_minute() {
        let mut cards = Cards::default();
        cards.ask(question(1), at(0));
        assert!(cards.answer(id(1), digest(1), Decision::Deny, at(1_000)).is_ok());
        let anew = |n| Question { app: "/bin/app1".to_owned(), ..question(n) };
        let others = Name::parse("pg").unwrap();
        let both = vec![others.clone(), question(1).profiles.remove(0)];
        let until = at(61_000).boot;
        for (name, question, now, want) in [
            ("the same", anew(2), 1_001, Asked::CoolingDown(until)),
            ("of another process", Question { asker: process(9), ..anew(2) }, 60_999, Asked::CoolingDown(until)),
            ("for a token", Question { kind: ApprovalKind::Token, ..anew(2) }, 1_001, Asked::CoolingDown(until)),
            ("with one profile more", Question { profiles: both, ..anew(2) }, 1_001, Asked::CoolingDown(until)),
            ("of a shell", Question { reserved: true, ..anew(2) }, 1_001, Asked::CoolingDown(until)),
            ("another app", question(2), 1_001, new()),
            ("another project", Question { project: "/q".to_owned(), ..anew(3) }, 1_001, new()),
            ("another profile", Question { profiles: vec![others], ..anew(4) }, 1_001, new()),
            ("a fence", Question { kind: ApprovalKind::Fence, ..anew(5) }, 1_001, new()),
            ("a minute later", anew(6), 61_000, new()),
        ] {
            assert_eq!(cards.ask(question, at(now)), want, "{name}");
        }
        // A no at one fence is none at another, nor in another run.
        let fence = |n| Question { kind: ApprovalKind::Fence, app: "/bin/fenced".to_owned(), ..question(n) };
        assert_eq!(cards.ask(fence(7), at(1_001)), new());
        assert!(cards.answer(id(7), digest(7), Decision::Deny, at(1_002)).is_ok());
        assert_eq!(cards.ask(fence(8), at(1_003)), new());
        // Whoever says no to itself in a loop fills nothing.
        for n in 100..1_000 {
            assert_eq!(cards.ask(question(n), at(2_000)), new());
            assert!(cards.answer(id(n), digest(n), Decision::Deny, at(2_000)).is_ok());
        }
        assert_eq!((cards.denied.len(), cards.past.len()), (Cards::DENIED_MAX, Cards::PAST_MAX));
        assert!(matches!(cards.ask(Question { id: id(5_000), ..question(999) }, at(2_001)), Asked::CoolingDown(_)));
    }

    #[test]
    fn places_are_few_and_the_last_are_kept() {
        let mut cards = Cards::default();
        let own =
            |n| Question { profiles: vec![Name::parse(&format!("p{n}")).unwrap()], asker: process(1), ..question(n) };
        (0..4).for_each(|n| assert_eq!(cards.ask(own(n), at(0)), new()));
        assert_eq!(cards.ask(own(4), at(0)), Asked::Full, "four of one requester");
        assert_eq!(cards.ask(Question { reserved: true, ..own(4) }, at(0)), Asked::Full);
        let replaced = vec![id(0)];
        let instead = Question { profiles: own(0).profiles, ..own(5) };
        assert_eq!(cards.ask(instead, at(0)), Asked::New { replaced }, "in the place of its own");
        (10..18).for_each(|n| assert_eq!(cards.ask(question(n), at(0)), new()));
        assert_eq!(cards.ask(question(18), at(0)), Asked::Full, "twelve of requesters");
        assert!(matches!(cards.ask(Question { id: id(999), ..question(17) }, at(0)), Asked::Merged { .. }));
        let instead = Question { asker: process(17), ..question(19) };
        assert_eq!(cards.ask(instead, at(0)), Asked::New { replaced: vec![id(17)] }, "in its place among the twelve");
        let reserved = |n| Question { reserved: true, ..question(n) };
        (20..24).for_each(|n| assert_eq!(cards.ask(reserved(n), at(0)), new()));
        assert_eq!(cards.ask(reserved(24), at(0)), Asked::Full, "sixteen in all");
        assert_eq!(cards.open.len(), Cards::OPEN_MAX);
        // Places come back with an answer, an end and a withdrawal.
        assert!(cards.withdraw(id(20), at(1)) && !cards.withdraw(id(20), at(1)) && !cards.withdraw(id(77), at(1)));
        assert_eq!(cards.ask(reserved(25), at(1)), new());
        assert_eq!(cards.withdraw_where(at(2), |q| q.reserved), [id(21), id(22), id(23), id(25)]);
        assert_eq!(cards.ask(question(26), at(2)), Asked::Full);
        assert_eq!(cards.unanswered(at(120_000)).len(), 12);
        assert_eq!(cards.ask(question(26), at(120_000)), new());
        assert_eq!(cards.ask(Question { id: id(26), ..question(27) }, at(120_000)), Asked::Full, "an id that is there");
    }

    #[test]
    fn the_last_hundred_are_remembered() {
        let mut cards = Cards::default();
        for n in 0..150 {
            assert_eq!(cards.ask(question(n), at(u64::from(n))), new());
            cards.withdraw(id(n), at(u64::from(n)));
        }
        let ids: Vec<_> = cards.iter().map(|a| a.question.id).collect();
        assert_eq!(ids, (50..150).rev().map(id).collect::<Vec<_>>());
        assert_eq!(cards.answer(id(49), digest(49), Decision::Deny, at(0)).unwrap_err(), Refused::Unknown);
        assert_eq!(cards.answer(id(50), digest(50), Decision::Deny, at(0)).unwrap_err(), Refused::Over);
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        assert_eq!(ApprovalId::parse(&id(77).to_string().to_lowercase()), Some(id(77)));
        assert_eq!(ApprovalId::parse("approve"), None);
    }
}
