//! Whose connection it is: the process of a run that holds the client's end of a socket.
//!
//! The kernel tells user and inode of the client's socket (sock_diag(7)); the inode is then looked for among the descriptors
//! of the run's processes, and nowhere else as long as all of them can be read. Reads `/proc`; never follows a descriptor,
//! never signals anything, and keeps only numbers. Called by `server` at accept and by `forward` at the first request of a
//! connection, the latter on a thread that may wait.

use crate::{Caller, Connection};
use keyward_core::ProcessId;
use keyward_diag::plain;
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old the list of a run's processes may be before it is made anew for a socket that is found in it.
const TREE_TIME: Duration = Duration::from_millis(100);
/// A run of which nothing was asked for so long is forgotten.
const FORGET_TIME: Duration = Duration::from_secs(60);
/// How often a socket is looked for: a process may change its parent while the list is made.
const TRIES: usize = 2;

/// The socket at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    /// User who made it.
    pub(crate) uid: u32,
    /// Inode; 0 when nobody holds it any more.
    pub(crate) inode: u32,
}

/// A netlink socket of the kernel's socket monitor.
pub(crate) struct Monitor(Mutex<(OwnedFd, u32)>);

impl Monitor {
    /// Opens one, and tries it on a listening socket of its own: nothing is connected.
    ///
    /// # Errors
    /// Those of socket(2) and of [`Monitor::ask`]: the kernel has no socket monitor, or a filter forbids it.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
        let monitor = Self(Mutex::new((fd, 0)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        monitor.ask(listener.local_addr()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        Ok(monitor)
    }

    /// Asks for the client's end of a connection from `peer` to `local`. Takes microseconds: the kernel answers while it is
    /// asked.
    ///
    /// # Errors
    /// `NotFound` when there is no such socket; `InvalidData` when the answer is not as sock_diag(7) says.
    pub(crate) fn ask(&self, peer: SocketAddr, local: SocketAddr) -> io::Result<Socket> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (fd, sequence) = &mut *held;
        *sequence = sequence.wrapping_add(1);
        send(&*fd, &question(*sequence, peer, local)?, SendFlags::empty())?;
        let mut answer = [0; 512];
        loop {
            let length = match recv(&*fd, &mut answer, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?.0,
            };
            // An answer to an earlier question, whose asker gave up, is passed over.
            if let Some(found) = read_answer(&answer[..length], *sequence, peer, local) {
                return found;
            }
        }
    }
}

const HEAD_BYTES: usize = 16;
const QUESTION_BYTES: usize = HEAD_BYTES + 56;
const ANSWER_BYTES: usize = HEAD_BYTES + 72;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;

/// `struct nlmsghdr` and `struct inet_diag_req_v2` for one TCP socket, as its owner sees it: `peer` is its own address.
fn question(sequence: u32, peer: SocketAddr, local: SocketAddr) -> io::Result<[u8; QUESTION_BYTES]> {
    let mut bytes = [0; QUESTION_BYTES];
    bytes[0..4].copy_from_slice(&(QUESTION_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&1u16.to_ne_bytes()); // NLM_F_REQUEST
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[16] = 2; // AF_INET
    bytes[17] = 6; // IPPROTO_TCP
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes()); // every state
    bytes[24..60].copy_from_slice(&ends(peer, local)?);
    bytes[64..72].copy_from_slice(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    Ok(bytes)
}

/// The first 36 bytes of `struct inet_diag_sockid`: both ports and both addresses, in network order.
fn ends(source: SocketAddr, destination: SocketAddr) -> io::Result<[u8; 36]> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let mut bytes = [0; 36];
    bytes[0..2].copy_from_slice(&source.port().to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&from.octets());
    bytes[20..24].copy_from_slice(&to.octets());
    Ok(bytes)
}

/// Reads `struct inet_diag_msg`, or the error in its place. `None` for the answer to another question.
fn read_answer(bytes: &[u8], sequence: u32, peer: SocketAddr, local: SocketAddr) -> Option<io::Result<Socket>> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    if word(8)? != sequence {
        return None;
    }
    if kind == NLMSG_ERROR {
        let error = word(HEAD_BYTES).map_or(0, |n| (n as i32).wrapping_neg());
        return Some(Err(io::Error::from_raw_os_error(error)));
    }
    let same = ends(peer, local).is_ok_and(|ends| bytes.get(20..56) == Some(&ends));
    if kind != SOCK_DIAG_BY_FAMILY || bytes.len() < ANSWER_BYTES || !same {
        return Some(Err(io::ErrorKind::InvalidData.into()));
    }
    Some(Ok(Socket { uid: word(HEAD_BYTES + 64)?, inode: word(HEAD_BYTES + 68)? }))
}

/// What was seen of the runs, a moment ago.
#[derive(Default)]
pub(crate) struct Trees(Mutex<HashMap<ProcessId, Tree>>);

/// One run.
struct Tree {
    /// Its root and what is below it, the root first.
    members: Vec<ProcessId>,
    /// When the list was begun.
    listed: Instant,
    /// When the descriptors were begun to be read.
    read: Instant,
    /// Sockets and who holds each: how many, and the first.
    holders: HashMap<u32, (u32, ProcessId)>,
    /// Some process would not show its descriptors.
    hidden: bool,
}

impl Trees {
    /// Which process of the run of `root` holds the client's end of a connection; `None` when none does. A process that does
    /// not show its descriptors to its own user may be the one: if no other process of the system holds the socket, the
    /// answer is [`Caller::Unknown`].
    ///
    /// Waits for `/proc`, and for others who ask: one look serves all who `asked` before it began.
    pub(crate) fn caller(&self, root: ProcessId, connection: Connection, asked: Instant) -> Option<Caller> {
        if connection.inode == 0 {
            return None;
        }
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|other, tree| *other == root || tree.read.elapsed() < FORGET_TIME);
        for listings in 0..=TRIES {
            // A list that was made for this very question is not too old, however long it took on a busy machine.
            let is_young = |tree: &&mut Tree| listings > 0 || tree.listed.elapsed() < TREE_TIME;
            if let Some(tree) = trees.get_mut(&root).filter(is_young) {
                if tree.read < asked && tree.holder(connection.inode).is_none() {
                    tree.look();
                }
                if let Some(caller) = tree.holder(connection.inode) {
                    return Some(caller);
                }
            }
            if listings < TRIES {
                trees.insert(root, Tree::list(root)?);
            }
        }
        let tree = trees.get(&root)?;
        (tree.hidden && !held_elsewhere(&tree.members, connection.inode)).then_some(Caller::Unknown)
    }
}

impl Tree {
    /// Lists the processes at and below `root`, and what they hold. `None` when the root is gone.
    fn list(root: ProcessId) -> Option<Self> {
        let listed = Instant::now();
        let mut below: HashMap<u32, Vec<ProcessId>> = HashMap::new();
        let mut found = false;
        for pid in pids() {
            let Some((id, parent)) = process(pid) else { continue };
            found |= id == root;
            below.entry(parent).or_default().push(id);
        }
        if !found {
            return None;
        }
        let mut members = vec![root];
        let mut at = 0;
        while let Some(member) = members.get(at) {
            members.extend(below.remove(&member.pid).unwrap_or_default());
            at += 1;
        }
        let mut tree = Self { members, listed, read: listed, holders: HashMap::new(), hidden: false };
        tree.look();
        Some(tree)
    }

    /// Reads the descriptors of all members.
    fn look(&mut self) {
        self.read = Instant::now();
        self.holders.clear();
        self.hidden = false;
        for member in &self.members {
            let mut seen = HashSet::new();
            match sockets(member.pid, |inode| {
                seen.insert(inode);
            }) {
                // A number that another process has by now says nothing of the member.
                Ok(()) if process(member.pid).is_some_and(|(id, _)| id == *member) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.hidden = true;
                    continue;
                }
                _ => continue,
            }
            for inode in seen {
                self.holders.entry(inode).and_modify(|(holders, _)| *holders += 1).or_insert((1, *member));
            }
        }
    }

    fn holder(&self, inode: u32) -> Option<Caller> {
        self.holders.get(&inode).map(|(holders, first)| match holders {
            1 => Caller::Exact(*first),
            holders => Caller::OneOf(*holders, *first),
        })
    }
}

/// Whether a process that is not of these holds the socket.
fn held_elsewhere(members: &[ProcessId], inode: u32) -> bool {
    let inside: HashSet<u32> = members.iter().map(|member| member.pid).collect();
    pids().filter(|pid| !inside.contains(pid)).any(|pid| {
        let mut held = false;
        drop(sockets(pid, |found| held |= found == inode));
        held
    })
}

/// All processes that there are.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Who a process is, and its parent (proc_pid_stat(5)).
fn process(pid: u32) -> Option<(ProcessId, u32)> {
    // One read gives the line whole. The name in field 2 may hold anything: fields are counted after the last bracket.
    let mut line = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
    let after = line[..length].iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(line.get(after..length)?).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((ProcessId { pid, start }, parent))
}

/// Path of the program of who called (proc_pid_exe(5)), printable and at most 4096 characters; `None` when it cannot be
/// read, and for a process that has ended.
pub(crate) fn program(caller: Caller) -> Option<Arc<str>> {
    let (Caller::Exact(id) | Caller::OneOf(_, id)) = caller else { return None };
    let path = fs::read_link(format!("/proc/{}/exe", id.pid)).ok()?;
    // Read after the link: the number may have been given to another one in between.
    process(id.pid).is_some_and(|(now, _)| now == id).then(|| plain(&path.to_string_lossy(), 4096).into())
}

/// Tells the inode of each socket that a process holds (proc_pid_fd(5)).
fn sockets(pid: u32, mut tell: impl FnMut(u32)) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut entries = Dir::read_from(&folder)?;
    // `socket:[` and an inode; a longer link is none of a socket.
    let mut link = [MaybeUninit::uninit(); 32];
    while let Some(Ok(entry)) = entries.read() {
        let Ok((link, _)) = readlinkat_raw(&folder, entry.file_name(), &mut link) else { continue };
        let inode = link.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(inode) = inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
            tell(inode);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::net::TcpStream;

    const SEQUENCE: u32 = 5;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An answer as the kernel makes it, to the question for these ends.
    fn made(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
        let mut bytes = vec![0; ANSWER_BYTES];
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
        bytes[20..56].copy_from_slice(&ends(peer, local).unwrap());
        bytes[80..84].copy_from_slice(&1000u32.to_ne_bytes());
        bytes[84..88].copy_from_slice(&77u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_answer_counts_for_its_own_question_only() {
        let (peer, local) = (address("127.0.0.1:40000"), address("127.0.0.1:9"));
        let good = made(peer, local);
        let read = |bytes: &[u8], peer| read_answer(bytes, SEQUENCE, peer, local);
        assert_eq!(read(&good, peer).unwrap().unwrap(), Socket { uid: 1000, inode: 77 });
        for length in 0..good.len() {
            assert!(!matches!(read(&good[..length], peer), Some(Ok(_))), "{length}");
        }
        assert!(read(&good, address("127.0.0.1:40001")).unwrap().is_err());
        assert!(read_answer(&good, SEQUENCE + 1, peer, local).is_none());
        let mut error = good.clone();
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(read(&error, peer).unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
        error[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(read(&error, peer).unwrap().is_err());
    }

    #[test]
    fn the_kernel_tells_the_clients_end_and_not_the_other() {
        let monitor = Monitor::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, local) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let found = monitor.ask(peer, local).unwrap();
        let mut mine = HashSet::new();
        sockets(std::process::id(), |inode| {
            mine.insert(inode);
        })
        .unwrap();
        assert!(mine.contains(&found.inode), "{found:?}");
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        let (server, _) = listener.accept().unwrap();
        assert_ne!(monitor.ask(local, peer).unwrap().inode, found.inode);
        drop((client, server));
        assert!(!monitor.ask(peer, local).is_ok_and(|gone| gone.inode == found.inode));
        assert!(monitor.ask(address("[::1]:1"), local).is_err());
    }
}
