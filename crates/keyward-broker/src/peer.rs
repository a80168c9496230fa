//! Who is on the other end of a connection, by kernel facts.
//!
//! A peer is pinned by pidfd when its connection is accepted; its facts are read while it is pinned and count only if
//! it lived until all were read. Never believes what a peer says of itself, and never decides what a peer may do.
//! Called by the socket server, once per request; read by whoever decides.

use crate::platform::{is_alive, mark, peer_credentials, peer_pin, process};
use keyward_core::{Mark, ProcessId};
use keyward_diag::{Code, Fault};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest chain of parents that is followed.
pub const PARENTS_MAX: usize = 64;

/// Times that a chain of parents is read when it changes meanwhile.
const READINGS_MAX: usize = 8;

/// A process on a connection, as of one request.
#[derive(Debug, Clone)]
pub struct Peer {
    connection: u64,
    uid: u32,
    process: ProcessId,
    pidfd: Arc<OwnedFd>,
    facts: Option<Facts>,
}

/// What was read about a peer when its request came in.
#[derive(Debug, Clone)]
struct Facts {
    parents: Vec<ProcessId>,
    mark: Option<Mark>,
    exe: Option<Executable>,
    cwd: Option<PathBuf>,
}

/// The program of a process, from `/proc/PID/exe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// Path as the kernel shows it; ends with ` (deleted)` when the file was removed or replaced.
    pub path: PathBuf,
    /// Device of the file.
    pub device: u64,
    /// Inode of the file.
    pub inode: u64,
}

/// Why a connection is closed before a byte of it is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// It belongs to another user.
    #[error("the peer belongs to another user")]
    OtherUser,
    /// It ended, or lies outside of the broker's pid namespace.
    #[error("the peer cannot be pinned")]
    NotPinned,
    /// The kernel cannot pin peers (before 6.5).
    #[error("this kernel cannot pin the peer of a socket")]
    Kernel,
}

impl PeerError {
    /// The fault of the table.
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::OtherUser | Self::NotPinned => Code::PeerRefused,
            Self::Kernel => Code::PlatformUnsupported,
        };
        Fault::new(code).cause(self)
    }
}

impl Peer {
    /// Pins the process that connected `socket`. Reads no byte of it, and no fact beyond user, pid and start time.
    ///
    /// # Errors
    /// Each one closes the connection.
    pub fn pin(socket: &impl AsFd, connection: u64) -> Result<Self, PeerError> {
        let credentials = peer_credentials(socket).map_err(|_| PeerError::NotPinned)?;
        if credentials.uid != rustix::process::getuid().as_raw() {
            return Err(PeerError::OtherUser);
        }
        let pidfd = peer_pin(socket).map_err(|e| match e.kind() == std::io::ErrorKind::Unsupported {
            true => PeerError::Kernel,
            false => PeerError::NotPinned,
        })?;
        let found = process(credentials.pid).map_err(|_| PeerError::NotPinned)?;
        if credentials.pid == 0 || !is_alive(&pidfd) {
            return Err(PeerError::NotPinned);
        }
        Ok(Self { connection, uid: credentials.uid, process: found.id, pidfd: Arc::new(pidfd), facts: None })
    }

    /// The same peer with facts as of this moment. Facts that cannot be read, or not while it lives, are none.
    #[must_use]
    pub fn refresh(&self) -> Self {
        let facts = self.read();
        Self { facts: facts.filter(|_| self.is_alive()), ..self.clone() }
    }

    /// Which connection, unique in this broker process: what a person proved on one connection holds on no other.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// User id, always that of the broker.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Process id and start time, pinned.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// The chain of parents, nearest first. Ends with PID 1, or with the last one inside of the broker's pid namespace.
    ///
    /// # Errors
    /// [`Code::PeerRefused`] when it could not be read: such a peer has no role, never that of a peer without parents.
    pub fn parents(&self) -> Result<&[ProcessId], Fault> {
        let refused = || Fault::new(Code::PeerRefused).cause("its chain of parents cannot be read");
        self.facts.as_ref().map(|f| f.parents.as_slice()).ok_or_else(refused)
    }

    /// What it bears and cannot put off. `None` when that is hidden.
    pub fn mark(&self) -> Option<Mark> {
        self.facts.as_ref()?.mark
    }

    /// The program it runs: evidence only. `None` when it is hidden, as that of a non-dumpable process.
    pub fn executable(&self) -> Option<&Executable> {
        self.facts.as_ref()?.exe.as_ref()
    }

    /// Path of the program it runs: evidence only.
    pub fn exe(&self) -> Option<&Path> {
        self.executable().map(|e| e.path.as_path())
    }

    /// Its working folder: evidence only. `None` when it is hidden.
    pub fn cwd(&self) -> Option<&Path> {
        self.facts.as_ref()?.cwd.as_deref()
    }

    /// The same peer with the program and the working folder that an earlier request of this process showed, where they are
    /// hidden by this time: a client hides itself before it reads an answer.
    #[must_use]
    pub fn recalling(&self, earlier: &Self) -> Self {
        let mut peer = self.clone();
        if let (true, Some(facts), Some(shown)) = (self.process == earlier.process, &mut peer.facts, &earlier.facts) {
            facts.exe = facts.exe.take().or_else(|| shown.exe.clone());
            facts.cwd = facts.cwd.take().or_else(|| shown.cwd.clone());
        }
        peer
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        is_alive(&self.pidfd)
    }

    /// A descriptor of its own that stands for the process, to watch it beyond the connection.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn pidfd(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    fn read(&self) -> Option<Facts> {
        let parents = parents(self.process, &|pid| process(pid).ok().map(|p| (p.id, p.parent)))?;
        let link = |name: &str| std::fs::read_link(format!("/proc/{}/{name}", self.process.pid)).ok();
        let exe = link("exe").and_then(|path| {
            let meta = std::fs::metadata(format!("/proc/{}/exe", self.process.pid)).ok()?;
            Some(Executable { path, device: meta.dev(), inode: meta.ino() })
        });
        Some(Facts { parents, mark: mark(self.process.pid), exe, cwd: link("cwd") })
    }
}

impl fmt::Display for Peer {
    /// Ids only, fit for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {} of pid {}", self.connection, self.process.pid)
    }
}

/// The chain of parents of `of`.
///
/// A number could be reused between the reading of a child, which names it, and of the process that has it. That one
/// would have started after its supposed child, while a true parent started before: also a subreaper, which is an
/// ancestor. Where both started in the same clock tick, the child is read once more: it names the same number only if
/// that is its parent.
fn parents(of: ProcessId, look: &dyn Fn(u32) -> Option<(ProcessId, u32)>) -> Option<Vec<ProcessId>> {
    (0..READINGS_MAX).find_map(|_| {
        let mut chain = Vec::new();
        let (mut child, mut next) = look(of.pid).filter(|(own, _)| *own == of)?;
        while next != 0 {
            let (id, parent) = look(next).filter(|_| chain.len() < PARENTS_MAX)?;
            if id.start >= child.start && look(child.pid) != Some((child, next)) {
                return None;
            }
            chain.push(id);
            (child, next) = (id, if id.pid == 1 { 0 } else { parent });
        }
        Some(chain)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::cell::Cell;
    use std::os::unix::net::UnixStream;

    fn id(pid: u32) -> ProcessId {
        ProcessId { pid, start: u64::from(pid) * 10 }
    }

    #[test]
    fn a_chain_ends_at_pid_1_or_at_the_border_of_the_namespace() {
        let look = |pid: u32| Some((id(pid), pid - 1));
        assert_eq!(parents(id(4), &look).unwrap(), [id(3), id(2), id(1)]);
        let border = |pid: u32| Some((id(pid), if pid == 3 { 0 } else { pid - 1 }));
        assert_eq!(parents(id(4), &border).unwrap(), [id(3)]);
        assert_eq!(parents(id(1), &|pid| Some((id(pid), 0))).unwrap(), []);
    }

    #[test]
    fn a_chain_that_is_hidden_endless_or_of_another_process_is_none() {
        assert!(parents(id(4), &|pid| (pid != 2).then(|| (id(pid), pid - 1))).is_none(), "hidden parent");
        assert!(parents(id(4), &|pid| Some((id(pid), pid + 1))).is_none(), "endless");
        assert!(parents(id(500), &|pid| Some((id(pid), pid - 1))).is_none(), "longer than the bound");
        assert!(parents(id(66), &|pid| Some((id(pid), pid - 1))).is_none(), "65 parents");
        assert_eq!(parents(id(65), &|pid| Some((id(pid), pid - 1))).unwrap().len(), PARENTS_MAX);
        let later = |pid: u32| Some((ProcessId { pid, start: 1 }, 1));
        assert!(parents(id(4), &later).is_none(), "the number was reused");
    }

    #[test]
    fn a_chain_that_changes_while_it_is_read_is_read_again() {
        let calls = Cell::new(0);
        let look = |pid: u32| {
            calls.set(calls.get() + 1);
            // The parent 3 is gone when it is looked for, and the peer has fallen to 2.
            match (pid, calls.get()) {
                (3, _) => None,
                (4, 1) => Some((id(4), 3)),
                (4, _) => Some((id(4), 2)),
                _ => Some((id(pid), pid - 1)),
            }
        };
        assert_eq!(parents(id(4), &look).unwrap(), [id(2), id(1)]);
    }

    #[test]
    fn a_reused_number_is_no_parent() {
        let later = ProcessId { pid: 3, start: 40 };
        for start in [40, 41, 900] {
            let reused = ProcessId { start, ..later };
            let calls = Cell::new(0);
            let look = |pid: u32| {
                calls.set(calls.get() + 1);
                match (pid, calls.get()) {
                    (4, 1) => Some((id(4), 3)),
                    (4, _) => Some((id(4), 1)),
                    (3, _) => Some((reused, 1)),
                    _ => Some((id(pid), 0)),
                }
            };
            assert_eq!(parents(id(4), &look).unwrap(), [id(1)], "start {start}");
        }
        // In the same tick, and still named by its child: the parent.
        let look = |pid: u32| if pid == 3 { Some((later, 1)) } else { Some((id(pid), pid - 1)) };
        assert_eq!(parents(id(4), &look).unwrap(), [later, id(1)]);
    }

    #[test]
    fn this_process_is_pinned_with_its_facts() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::pin(&ours, 7).unwrap();
        assert_eq!((peer.connection(), peer.process().pid), (7, std::process::id()));
        assert_eq!(peer.parents().unwrap_err().code, Code::PeerRefused, "no fact before the first request");
        let peer = peer.refresh();
        assert_eq!(peer.parents().unwrap()[0].pid, std::os::unix::process::parent_id());
        let exe = std::env::current_exe().unwrap();
        let meta = std::fs::metadata(&exe).unwrap();
        assert_eq!(peer.executable(), Some(&Executable { path: exe, device: meta.dev(), inode: meta.ino() }));
        assert_eq!(peer.cwd(), std::env::current_dir().ok().as_deref());
        let facts = Facts { exe: None, cwd: None, ..peer.facts.clone().unwrap() };
        let hidden = Peer { facts: Some(facts), connection: 8, ..peer.clone() };
        let recalled = hidden.recalling(&peer);
        assert_eq!((recalled.executable(), recalled.cwd(), recalled.connection()), (peer.executable(), peer.cwd(), 8));
        let later = Peer { process: id(7), ..hidden };
        assert_eq!(
            (later.recalling(&peer).executable(), later.recalling(&peer).cwd()),
            (None, None),
            "another process"
        );
    }
}
