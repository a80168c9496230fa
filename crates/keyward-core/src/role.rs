//! Who a peer is, from facts that the kernel vouches for.

use std::fmt;

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

/// The root process of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root<R> {
    /// The process.
    pub process: ProcessId,
    /// Its run.
    pub run: R,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<R> {
    /// Nothing but status, init and unlock: the vault was not opened since the broker started, so the runs are not known.
    None,
    /// Below the root of a run, or the root itself: what that run holds.
    InsideRun(R),
    /// Any other process of the user.
    Requester,
}

/// Decides the role of a peer. Called anew for each request, since a process can move below a run between two.
///
/// `own` is the peer and `parents` the chain above it, nearest first. `opened`: the vault was opened since the broker
/// started. The nearest run counts where runs are nested.
pub fn role<R: Copy>(own: ProcessId, parents: &[ProcessId], roots: &[Root<R>], opened: bool) -> Role<R> {
    if !opened {
        return Role::None;
    }
    let inside = std::iter::once(&own).chain(parents).find_map(|p| roots.iter().find(|r| r.process == *p));
    inside.map_or(Role::Requester, |root| Role::InsideRun(root.run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(pid: u32, start: u64) -> ProcessId {
        ProcessId { pid, start }
    }

    #[test]
    fn roles_follow_the_table() {
        let roots = [Root { process: p(10, 5), run: 'a' }, Root { process: p(20, 9), run: 'b' }];
        let init = p(1, 0);
        for (own, parents, opened, want) in [
            (p(50, 7), vec![p(2, 1), init], true, Role::Requester),
            (p(50, 7), vec![p(10, 5), p(2, 1), init], true, Role::InsideRun('a')),
            (p(10, 5), vec![p(2, 1), init], true, Role::InsideRun('a')),
            // The number of a root, but a later process.
            (p(10, 6), vec![p(2, 1), init], true, Role::Requester),
            (p(50, 7), vec![p(10, 6), init], true, Role::Requester),
            // Nested: the inner run counts.
            (p(50, 7), vec![p(20, 9), p(10, 5), init], true, Role::InsideRun('b')),
            (p(50, 7), vec![p(10, 5), init], false, Role::None),
            (p(50, 7), vec![init], false, Role::None),
        ] {
            assert_eq!(role(own, &parents, &roots, opened), want, "{own} under {parents:?}");
        }
    }
}
