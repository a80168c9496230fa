//! Who a peer is, from facts that the kernel vouches for and from what a person has proven, and what it may do.
//!
//! Never reads a fact and never believes a peer: the broker reads them from the kernel and calls [`role`] for each request.

use crate::Boot;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start)
    }
}

/// What a process bears from its start on and cannot put off: its hard limit of file locks (`RLIMIT_LOCKS`).
///
/// The kernel has not enforced that limit since Linux 2.4.25 (setrlimit(2)). Every child inherits it, also one that
/// `clone(CLONE_PARENT)` puts beside its maker instead of below it; a process without `CAP_SYS_RESOURCE` can lower it and never
/// raise it. `keyward run` lowers it by one before the program begins, so that no process of a run can pass for a child that
/// the shell made by itself. It takes away and gives nothing. Any process of the user can lower that of another one, the
/// person's shell too (prlimit(2)), so two that bear the same are not told apart by it: what counts is to bear more than any
/// run was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

impl Mark {
    /// What a run bears at most whose process bore this when it asked.
    #[must_use]
    pub fn of_run(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The root process of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root<R> {
    /// The process.
    pub process: ProcessId,
    /// Its run.
    pub run: R,
}

/// The runs, as far as roles depend on them.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a, R> {
    /// The roots of those that live.
    pub roots: &'a [Root<R>],
    /// The highest mark that any run of this boot was given, one that has ended too: processes of it may live on. `None`
    /// where there was no run yet.
    pub mark: Option<Mark>,
}

impl<R> Runs<'_, R> {
    /// Whether what bears this mark may be a process of a run.
    pub fn may_bear(&self, mark: Mark) -> bool {
        // Below a mark of 0 there is none for a run.
        mark.0 == 0 || self.mark.is_some_and(|given| mark <= given)
    }
}

/// Where a peer stands among processes, as the kernel vouches for it. What cannot be read makes no such value: it counts
/// against the peer.
#[derive(Debug, Clone, Copy)]
pub struct Lineage<'a> {
    /// The process, pinned.
    pub process: ProcessId,
    /// Its chain of parents, nearest first.
    pub parents: &'a [ProcessId],
    /// What it bears; `None` where that is hidden.
    pub mark: Option<Mark>,
    /// Which connection the request came on, unique in this broker process.
    pub connection: u64,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<R> {
    /// Nothing but status, init and unlock: the vault was not opened since the broker started, so the runs are not known.
    None,
    /// Below the root of a run, or the root itself: what that run holds. Wins over every proof.
    InsideRun(R),
    /// Any other process of the user: looks, adds, takes away, asks.
    Requester,
    /// A direct child of the shell from which a person has unlocked.
    Shell,
    /// The connection on which a person has proven the passphrase.
    Operator,
}

/// What persons have proven and not lost since: the connections of operators and the shells that were unlocked from.
///
/// Never decides by itself: [`role`] does, which puts runs first. Holds no secret.
#[derive(Debug, Default)]
pub struct Proofs {
    operators: BTreeMap<u64, Boot>,
    shells: BTreeMap<ProcessId, (Boot, Mark)>,
}

impl Proofs {
    /// How long a connection stays that of an operator without a request on it.
    pub const IDLE: Duration = Duration::from_secs(15 * 60);
    /// How long a shell keeps what an unlock gave it.
    pub const SHELL: Duration = Duration::from_secs(15 * 60);
    /// Most connections of operators, and most shells, at once; the one that would end first makes room.
    pub const MAX: usize = 64;

    /// Records that a person has proven the passphrase or the recovery key on the connection of `peer`, and gives the
    /// moment at which that ends if nothing is asked. Gives `None`, and records nothing, inside a run.
    ///
    /// Call it after the runs were loaded. Never call it for what the keyring has opened.
    pub fn operator<R: Copy>(&mut self, peer: Lineage<'_>, runs: Runs<'_, R>, now: Boot) -> Option<Boot> {
        if run_of(peer, runs).is_some() {
            return None;
        }
        let until = now.after(Self::IDLE);
        keep(&mut self.operators, peer.connection, until, |until| *until);
        Some(until)
    }

    /// Records that a person has unlocked or made the vault by passphrase or recovery key through `peer`, a client that was
    /// started from a shell, and gives the moment at which the shell loses it. Gives `None`, and records nothing, inside a
    /// run, for a parent that is PID 1, for a peer whose parent or mark is not known, and for one that bears what a process
    /// of a run may bear.
    ///
    /// Call it after the runs were loaded. Never call it for what the keyring has opened, nor for the desktop, whose parent
    /// is the session that starts everything else.
    pub fn shell<R: Copy>(&mut self, peer: Lineage<'_>, runs: Runs<'_, R>, now: Boot) -> Option<Boot> {
        let parent = *peer.parents.first()?;
        let mark = peer.mark.filter(|mark| !runs.may_bear(*mark))?;
        if parent.pid <= 1 || run_of(peer, runs).is_some() {
            return None;
        }
        let until = now.after(Self::SHELL);
        // The client has inherited what the shell bears.
        keep(&mut self.shells, parent, (until, mark), |(until, _)| *until);
        Some(until)
    }

    /// Notes a request on a connection: that of an operator stays so for another 15 minutes. Does nothing for one that is
    /// none, or is none any more.
    pub fn heard(&mut self, connection: u64, now: Boot) {
        if let Some(until) = self.operators.get_mut(&connection).filter(|until| now < **until) {
            *until = now.after(Self::IDLE);
        }
    }

    /// Forgets a connection that has closed.
    pub fn closed(&mut self, connection: u64) {
        self.operators.remove(&connection);
    }

    /// Forgets all: the vault was locked, by whatever.
    pub fn locked(&mut self) {
        *self = Self::default();
    }

    /// When the rights end that [`role`] has found for `peer`, if nothing renews them.
    pub fn until<R>(&self, role: Role<R>, peer: Lineage<'_>) -> Option<Boot> {
        match role {
            Role::Operator => self.operators.get(&peer.connection).copied(),
            Role::Shell => peer.parents.first().and_then(|parent| self.shells.get(parent)).map(|(until, _)| *until),
            Role::None | Role::InsideRun(_) | Role::Requester => None,
        }
    }

    /// Whether a peer that was started from a shell which a person has unlocked from is no [`Role::Shell`] for nothing but
    /// what it bears. It may be a process of a run, or somebody has lowered what the person's shell bears.
    pub fn is_marked<R>(&self, peer: Lineage<'_>, runs: Runs<'_, R>, now: Boot) -> bool {
        self.shell_mark(peer, now).is_some_and(|mark| !is_of_shell(peer, mark, runs))
    }

    /// What the client bore that unlocked from the shell of a peer.
    fn shell_mark(&self, peer: Lineage<'_>, now: Boot) -> Option<Mark> {
        let found = peer.parents.first().and_then(|parent| self.shells.get(parent));
        found.filter(|(until, _)| now < *until).map(|(_, mark)| *mark)
    }
}

/// Whether a child of a shell bears what that shell gives its own children, and no process of a run can bear.
fn is_of_shell<R>(peer: Lineage<'_>, shell: Mark, runs: Runs<'_, R>) -> bool {
    peer.mark == Some(shell) && !runs.may_bear(shell)
}

/// Puts a proof in place; where there are too many, those that end first make room.
fn keep<K: Copy + Ord, V>(proofs: &mut BTreeMap<K, V>, key: K, proof: V, until: fn(&V) -> Boot) {
    proofs.insert(key, proof);
    while proofs.len() > Proofs::MAX
        && let Some(first) = proofs.iter().min_by_key(|(_, proof)| until(proof)).map(|(key, _)| *key)
    {
        proofs.remove(&first);
    }
}

/// The nearest run that a peer is the root of or lies below of.
fn run_of<R: Copy>(peer: Lineage<'_>, runs: Runs<'_, R>) -> Option<R> {
    let chain = std::iter::once(&peer.process).chain(peer.parents);
    chain.filter_map(|p| runs.roots.iter().find(|r| r.process == *p)).map(|r| r.run).next()
}

/// Decides the role of a peer. Called anew for each request, since a process can move below a run between two, and a proof
/// can end.
///
/// `opened`: the vault was opened since the broker started. The nearest run counts where runs are nested.
pub fn role<R: Copy>(peer: Lineage<'_>, runs: Runs<'_, R>, proofs: &Proofs, opened: bool, now: Boot) -> Role<R> {
    if !opened {
        return Role::None;
    }
    if let Some(run) = run_of(peer, runs) {
        return Role::InsideRun(run);
    }
    if proofs.operators.get(&peer.connection).is_some_and(|until| now < *until) {
        Role::Operator
    // A process of a run can be put beside the run, as a child of the shell. It bears what no child of the shell's own does.
    } else if proofs.shell_mark(peer, now).is_some_and(|mark| is_of_shell(peer, mark, runs)) {
        Role::Shell
    } else {
        Role::Requester
    }
}

/// What a request would do, as far as roles tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// See what the broker is, the caller's own role and its runs.
    Status,
    /// Open, make, restore or lock the vault, stop the broker, see what can be seen of it while it is closed.
    Open,
    /// See names, states and the log.
    Look,
    /// Add a secret, profile or launcher that was not there; test and renew.
    Add,
    /// Remove a secret, profile or launcher.
    Remove,
    /// What takes the passphrase each time: reveal, export, keys, settings, and changes of what is there.
    Change,
    /// End or give back what the caller's own run holds.
    GiveBack,
    /// Take back what others hold, say no to a request, revoke a grant.
    TakeBack,
    /// Have a credential delivered: `run` and `token`.
    Deliver,
    /// Prove on the connection that a person is there.
    Prove,
    /// Say yes to a request, make or change a grant.
    Decide,
}

/// Whether a role may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// It may.
    Yes,
    /// By a live grant, else after a person said yes.
    Ask,
    /// With a proof of the person in this very request.
    Proof,
    /// It may not, whatever is proven.
    No,
}

/// What a role may do at all: the table of the roles.
pub fn may<R>(role: &Role<R>, act: Act) -> May {
    match (role, act) {
        (Role::None, Act::Status | Act::Open) => May::Yes,
        (Role::None, _) => May::No,
        (Role::InsideRun(_), Act::Status | Act::GiveBack) => May::Yes,
        (Role::InsideRun(_), Act::Deliver) => May::Ask,
        (Role::InsideRun(_), _) => May::No,
        (_, Act::Status | Act::Open | Act::Look | Act::Add | Act::GiveBack | Act::TakeBack) => May::Yes,
        (_, Act::Change | Act::Prove) => May::Proof,
        (Role::Requester, Act::Deliver) => May::Ask,
        (Role::Requester, Act::Remove) => May::Proof,
        (Role::Requester | Role::Shell, Act::Decide) => May::Proof,
        (Role::Shell | Role::Operator, Act::Deliver | Act::Remove) | (Role::Operator, Act::Decide) => May::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(pid: u32, start: u64) -> ProcessId {
        ProcessId { pid, start }
    }

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    const INIT: ProcessId = ProcessId { pid: 1, start: 0 };
    const ROOTS: [Root<char>; 2] = [
        Root { process: ProcessId { pid: 10, start: 5 }, run: 'a' },
        Root { process: ProcessId { pid: 20, start: 9 }, run: 'b' },
    ];

    const RUNS: Runs<'_, char> = Runs { roots: &ROOTS, mark: Some(Mark(8)) };
    const NO_RUNS: Runs<'_, char> = Runs { roots: &[], mark: None };

    fn facts(process: ProcessId, parents: &[ProcessId]) -> Lineage<'_> {
        Lineage { process, parents, mark: Some(Mark(9)), connection: 1 }
    }

    #[test]
    fn runs_win_over_everything() {
        // The chain of parents of the peer, itself first; a proof on its connection and one of its parent change nothing
        // inside a run.
        for (chain, want) in [
            (vec![p(50, 7), p(2, 1), INIT], None),
            (vec![p(50, 7), p(10, 5), p(2, 1), INIT], Some('a')),
            (vec![p(50, 7), p(60, 7), p(10, 5), INIT], Some('a')),
            (vec![p(10, 5), p(2, 1), INIT], Some('a')),
            // The number of a root, but another process.
            (vec![p(10, 6), p(2, 1), INIT], None),
            (vec![p(50, 7), p(10, 6), INIT], None),
            // Nested: the inner run counts.
            (vec![p(50, 7), p(20, 9), p(10, 5), INIT], Some('b')),
            // Where PID 1 or nothing is above it.
            (vec![p(10, 5), INIT], Some('a')),
            (vec![p(10, 5)], Some('a')),
        ] {
            let [own, parents @ ..] = chain.as_slice() else { continue };
            let peer = facts(*own, parents);
            let mut proofs = Proofs::default();
            assert_eq!(
                role(peer, RUNS, &proofs, true, at(0)),
                want.map_or(Role::Requester, Role::InsideRun),
                "{chain:?}"
            );
            assert_eq!(role(peer, RUNS, &proofs, false, at(0)), Role::None, "{chain:?}");
            // What was proven before the run began, as by a shell that becomes the run.
            let proven = proofs.operator(peer, NO_RUNS, at(0)).and(proofs.shell(peer, NO_RUNS, at(0)));
            let shell = parents.first().is_some_and(|parent| *parent != INIT);
            assert_eq!(proven, shell.then_some(at(900)), "{chain:?}");
            assert_eq!(
                role(peer, RUNS, &proofs, true, at(0)),
                want.map_or(Role::Operator, Role::InsideRun),
                "{chain:?}"
            );
            assert_eq!(role(peer, RUNS, &proofs, false, at(0)), Role::None, "{chain:?}");
            // Inside a run nothing is proven.
            let mut inside = Proofs::default();
            let refused = inside.operator(peer, RUNS, at(0)).is_none() && inside.shell(peer, RUNS, at(0)).is_none();
            assert_eq!(refused, want.is_some(), "{chain:?}");
        }
    }

    #[test]
    fn an_operator_is_one_connection_until_it_closes_idles_or_the_vault_locks() {
        let parents = [p(40, 1), INIT];
        let peer = facts(p(50, 7), &parents);
        let other = Lineage { connection: 2, ..peer };
        let of = |proofs: &Proofs, peer, now| role(peer, RUNS, proofs, true, at(now));
        let mut proofs = Proofs::default();
        assert_eq!(proofs.operator(peer, RUNS, at(100)), Some(at(1_000)));
        // Not another connection of the same process, nor its child's.
        for (who, now, want) in [
            (peer, 100, Role::Operator),
            (peer, 999, Role::Operator),
            (peer, 1_000, Role::Requester),
            (other, 100, Role::Requester),
        ] {
            assert_eq!(of(&proofs, who, now), want, "{who:?} at {now}");
        }
        assert_eq!(proofs.until(of(&proofs, peer, 100), peer), Some(at(1_000)));
        // Requests on it renew it, those on others do not, and what is over stays so.
        proofs.heard(2, at(900));
        assert_eq!(of(&proofs, peer, 1_000), Role::Requester);
        proofs.heard(1, at(900));
        assert_eq!((of(&proofs, peer, 1_799), of(&proofs, peer, 1_800)), (Role::Operator, Role::Requester));
        proofs.heard(1, at(1_800));
        assert_eq!(of(&proofs, peer, 1_800), Role::Requester);
        assert_eq!(of(&proofs, other, 900), Role::Requester);
        for end in [|proofs: &mut Proofs| proofs.closed(1), Proofs::locked] {
            proofs.operator(peer, RUNS, at(0));
            assert_eq!(of(&proofs, peer, 1), Role::Operator);
            end(&mut proofs);
            proofs.heard(1, at(1));
            assert_eq!(of(&proofs, peer, 1), Role::Requester);
        }
    }

    #[test]
    fn a_shell_gives_its_direct_children_what_an_unlock_gave_it() {
        let (shell, terminal) = (p(40, 3), p(30, 2));
        let parents = [shell, terminal, INIT];
        let client = facts(p(50, 7), &parents);
        let mut proofs = Proofs::default();
        assert_eq!(proofs.shell(client, RUNS, at(0)), Some(at(900)));
        // What the keyring opens, and a proof on a connection, record no shell.
        let mut none = Proofs::default();
        none.operator(Lineage { connection: 9, ..client }, RUNS, at(0));
        let mut locked = Proofs::default();
        locked.shell(client, RUNS, at(0));
        locked.locked();
        for (name, proofs, process, parents, now, want) in [
            ("a later client of it", &proofs, p(51, 8), vec![shell, terminal, INIT], 899, Role::Shell),
            ("out of time", &proofs, p(51, 8), vec![shell, terminal, INIT], 900, Role::Requester),
            ("itself", &proofs, shell, vec![terminal, INIT], 1, Role::Requester),
            ("a grandchild", &proofs, p(52, 8), vec![p(51, 8), shell, terminal, INIT], 1, Role::Requester),
            ("a sibling", &proofs, p(41, 3), vec![terminal, INIT], 1, Role::Requester),
            ("an orphan of it", &proofs, p(51, 8), vec![INIT], 1, Role::Requester),
            ("its number, used again", &proofs, p(51, 8), vec![p(40, 4), terminal, INIT], 1, Role::Requester),
            ("under a run in it", &proofs, p(51, 8), vec![p(10, 5), shell, INIT], 1, Role::InsideRun('a')),
            ("the shell inside a run", &proofs, p(51, 8), vec![shell, p(10, 5), INIT], 1, Role::InsideRun('a')),
            ("no parents known", &proofs, p(51, 8), vec![], 1, Role::Requester),
            ("opened by the keyring", &none, p(51, 8), vec![shell, terminal, INIT], 1, Role::Requester),
            ("locked since", &locked, p(51, 8), vec![shell, terminal, INIT], 1, Role::Requester),
        ] {
            assert_eq!(role(facts(process, &parents), RUNS, proofs, true, at(now)), want, "{name}");
        }
        // Put beside its run as a child of the shell, it bears the mark of the run.
        for mark in [None, Some(Mark(8)), Some(Mark(0)), Some(Mark(10))] {
            let beside = Lineage { mark, ..facts(p(51, 8), &parents) };
            assert_eq!(role(beside, RUNS, &proofs, true, at(1)), Role::Requester, "{mark:?}");
        }
        for mark in [None, Some(Mark(0))] {
            assert_eq!(Proofs::default().shell(Lineage { mark, ..client }, RUNS, at(0)), None, "{mark:?}");
        }
        // Somebody has lowered what the shell bears to what a run was given, before or after the person unlocked; or a run was
        // given as much since.
        for (mark, given) in [(8, 8), (7, 8), (1, 8), (9, 9), (9, u64::MAX), (0, 0)] {
            let (peer, runs) = (Lineage { mark: Some(Mark(mark)), ..client }, Runs { mark: Some(Mark(given)), ..RUNS });
            assert_eq!(Proofs::default().shell(peer, runs, at(0)), None, "{mark} where a run was given {given}");
            let mut before = Proofs::default();
            before.shell(peer, Runs { mark: None, ..RUNS }, at(0));
            assert_eq!(role(peer, runs, &before, true, at(1)), Role::Requester, "{mark} where a run was given {given}");
            assert_eq!(before.is_marked(peer, runs, at(1)), mark > 0);
            assert!(!before.is_marked(peer, runs, at(900)));
        }
        assert!(!proofs.is_marked(client, RUNS, at(1)));
        assert!(proofs.is_marked(Lineage { mark: Some(Mark(8)), ..client }, RUNS, at(1)));
        assert_eq!((Mark(9).of_run(), Mark(0).of_run()), (Mark(8), Mark(0)));
        assert_eq!(proofs.until(Role::<char>::Shell, client), Some(at(900)));
        assert_eq!(proofs.until(Role::<char>::Requester, client), None);
        // The shell becomes a run itself (`exec keyward run`).
        let root = [Root { process: shell, run: 'c' }];
        assert_eq!(role(client, Runs { roots: &root, ..RUNS }, &proofs, true, at(1)), Role::InsideRun('c'));
        // Never PID 1, never inside a run, never a parent that is not known.
        for parents in [vec![INIT], vec![], vec![p(10, 5), INIT], vec![shell, p(20, 9), INIT]] {
            let mut proofs = Proofs::default();
            assert_eq!(proofs.shell(facts(p(50, 7), &parents), RUNS, at(0)), None, "{parents:?}");
            let found = role(facts(p(50, 7), &parents), RUNS, &proofs, true, at(0));
            assert_ne!(found, Role::Shell, "{parents:?}");
        }
    }

    #[test]
    fn proofs_are_bounded_and_the_one_that_ends_first_makes_room() {
        let mut proofs = Proofs::default();
        for n in 0..100 {
            let parents = [p(1_000, n)];
            proofs.operator(
                Lineage { process: p(5, 5), parents: &parents, mark: Some(Mark(9)), connection: n },
                RUNS,
                at(n),
            );
            proofs.shell(
                Lineage { process: p(5, 5), parents: &parents, mark: Some(Mark(9)), connection: n },
                RUNS,
                at(n),
            );
        }
        assert_eq!((proofs.operators.len(), proofs.shells.len()), (Proofs::MAX, Proofs::MAX));
        assert!(proofs.operators.contains_key(&99) && !proofs.operators.contains_key(&35));
    }

    #[test]
    fn what_a_role_may_is_this_table() {
        use Act as A;
        use May::{Ask, No, Proof, Yes};
        for (act, none, inside, requester, shell, operator) in [
            (A::Status, Yes, Yes, Yes, Yes, Yes),
            (A::Open, Yes, No, Yes, Yes, Yes),
            (A::Look, No, No, Yes, Yes, Yes),
            (A::Add, No, No, Yes, Yes, Yes),
            (A::Remove, No, No, Proof, Yes, Yes),
            (A::Change, No, No, Proof, Proof, Proof),
            (A::GiveBack, No, Yes, Yes, Yes, Yes),
            (A::TakeBack, No, No, Yes, Yes, Yes),
            (A::Deliver, No, Ask, Ask, Yes, Yes),
            (A::Prove, No, No, Proof, Proof, Proof),
            (A::Decide, No, No, Proof, Proof, Yes),
        ] {
            let roles = [Role::None, Role::InsideRun('a'), Role::Requester, Role::Shell, Role::Operator];
            assert_eq!(roles.map(|role| may(&role, act)), [none, inside, requester, shell, operator], "{act:?}");
        }
    }
}
