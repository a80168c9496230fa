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
/// the shell made by itself. It takes away and gives nothing: a process can lower its own to whatever another one bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// The root process of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root<R> {
    /// The process.
    pub process: ProcessId,
    /// Its run.
    pub run: R,
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
    pub fn operator<R: Copy>(&mut self, peer: Lineage<'_>, roots: &[Root<R>], now: Boot) -> Option<Boot> {
        if run_of(peer, roots).is_some() {
            return None;
        }
        let until = now.after(Self::IDLE);
        keep(&mut self.operators, peer.connection, until, |until| *until);
        Some(until)
    }

    /// Records that a person has unlocked or made the vault by passphrase or recovery key through `peer`, a client that was
    /// started from a shell, and gives the moment at which the shell loses it. Gives `None`, and records nothing, inside a
    /// run, for a parent that is PID 1, and for a peer whose parent or mark is not known.
    ///
    /// Call it after the runs were loaded. Never call it for what the keyring has opened, nor for the desktop, whose parent
    /// is the session that starts everything else.
    pub fn shell<R: Copy>(&mut self, peer: Lineage<'_>, roots: &[Root<R>], now: Boot) -> Option<Boot> {
        let parent = *peer.parents.first()?;
        // Below a mark of 0 there is none for a run.
        let mark = peer.mark.filter(|mark| mark.0 > 0)?;
        if parent.pid <= 1 || run_of(peer, roots).is_some() {
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
fn run_of<R: Copy>(peer: Lineage<'_>, roots: &[Root<R>]) -> Option<R> {
    let chain = std::iter::once(&peer.process).chain(peer.parents);
    chain.filter_map(|p| roots.iter().find(|r| r.process == *p)).map(|r| r.run).next()
}

/// Decides the role of a peer. Called anew for each request, since a process can move below a run between two, and a proof
/// can end.
///
/// `opened`: the vault was opened since the broker started. The nearest run counts where runs are nested.
pub fn role<R: Copy>(peer: Lineage<'_>, roots: &[Root<R>], proofs: &Proofs, opened: bool, now: Boot) -> Role<R> {
    if !opened {
        return Role::None;
    }
    if let Some(run) = run_of(peer, roots) {
        return Role::InsideRun(run);
    }
    let shell = peer.parents.first().and_then(|parent| proofs.shells.get(parent));
    if proofs.operators.get(&peer.connection).is_some_and(|until| now < *until) {
        Role::Operator
    // A process of a run can be put beside the run, as a child of the shell. It bears what no child of the shell's own does.
    } else if shell.is_some_and(|(until, mark)| now < *until && Some(*mark) == peer.mark) {
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
                role(peer, &ROOTS, &proofs, true, at(0)),
                want.map_or(Role::Requester, Role::InsideRun),
                "{chain:?}"
            );
            assert_eq!(role(peer, &ROOTS, &proofs, false, at(0)), Role::None, "{chain:?}");
            // What was proven before the run began, as by a shell that becomes the run.
            let nothing: [Root<char>; 0] = [];
            let proven = proofs.operator(peer, &nothing, at(0)).and(proofs.shell(peer, &nothing, at(0)));
            let shell = parents.first().is_some_and(|parent| *parent != INIT);
            assert_eq!(proven, shell.then_some(at(900)), "{chain:?}");
            assert_eq!(
                role(peer, &ROOTS, &proofs, true, at(0)),
                want.map_or(Role::Operator, Role::InsideRun),
                "{chain:?}"
            );
            assert_eq!(role(peer, &ROOTS, &proofs, false, at(0)), Role::None, "{chain:?}");
            // Inside a run nothing is proven.
            let mut inside = Proofs::default();
            let refused = inside.operator(peer, &ROOTS, at(0)).is_none() && inside.shell(peer, &ROOTS, at(0)).is_none();
            assert_eq!(refused, want.is_some(), "{chain:?}");
        }
    }

    #[test]
    fn an_operator_is_one_connection_until_it_closes_idles_or_the_vault_locks() {
        let parents = [p(40, 1), INIT];
        let peer = facts(p(50, 7), &parents);
        let other = Lineage { connection: 2, ..peer };
        let of = |proofs: &Proofs, peer, now| role(peer, &ROOTS, proofs, true, at(now));
        let mut proofs = Proofs::default();
        assert_eq!(proofs.operator(peer, &ROOTS, at(100)), Some(at(1_000)));
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
            proofs.operator(peer, &ROOTS, at(0));
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
        assert_eq!(proofs.shell(client, &ROOTS, at(0)), Some(at(900)));
        // What the keyring opens, and a proof on a connection, record no shell.
        let mut none = Proofs::default();
        none.operator(Lineage { connection: 9, ..client }, &ROOTS, at(0));
        let mut locked = Proofs::default();
        locked.shell(client, &ROOTS, at(0));
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
            assert_eq!(role(facts(process, &parents), &ROOTS, proofs, true, at(now)), want, "{name}");
        }
        // Put beside its run as a child of the shell, it bears the mark of the run.
        for mark in [None, Some(Mark(8)), Some(Mark(0)), Some(Mark(10))] {
            let beside = Lineage { mark, ..facts(p(51, 8), &parents) };
            assert_eq!(role(beside, &ROOTS, &proofs, true, at(1)), Role::Requester, "{mark:?}");
        }
        for mark in [None, Some(Mark(0))] {
            assert_eq!(Proofs::default().shell(Lineage { mark, ..client }, &ROOTS, at(0)), None, "{mark:?}");
        }
        assert_eq!(proofs.until(Role::<char>::Shell, client), Some(at(900)));
        assert_eq!(proofs.until(Role::<char>::Requester, client), None);
        // The shell becomes a run itself (`exec keyward run`).
        let root = [Root { process: shell, run: 'c' }];
        assert_eq!(role(client, &root, &proofs, true, at(1)), Role::InsideRun('c'));
        // Never PID 1, never inside a run, never a parent that is not known.
        for parents in [vec![INIT], vec![], vec![p(10, 5), INIT], vec![shell, p(20, 9), INIT]] {
            let mut proofs = Proofs::default();
            assert_eq!(proofs.shell(facts(p(50, 7), &parents), &ROOTS, at(0)), None, "{parents:?}");
            let found = role(facts(p(50, 7), &parents), &ROOTS, &proofs, true, at(0));
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
                &ROOTS,
                at(n),
            );
            proofs.shell(
                Lineage { process: p(5, 5), parents: &parents, mark: Some(Mark(9)), connection: n },
                &ROOTS,
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
