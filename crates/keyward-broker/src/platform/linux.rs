//! Linux: pidfds, `/proc` and `SCM_CREDENTIALS`. Needs kernel 6.5 (`SO_PEERPIDFD`); exit codes need 6.15.
#![expect(unsafe_code, reason = "socket options, ancillary data and the pidfd ioctl have no safe interface that fits")]

use keyward_core::{Boot, FileState, Mark, Now, ProcessId, Wall};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::io::{self, Read};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// The process itself.
    pub id: ProcessId,
    /// Its parent; 0 for PID 1 and for a process whose parent is outside of the pid namespace.
    pub parent: u32,
    /// Its session; 0 where the leader of that is outside of the pid namespace.
    pub session: u32,
}

/// Reads start time and parent of `pid`. The caller pins the process, or reads twice, to know that the number was not
/// reused in between.
///
/// # Errors
/// `NotFound` when there is no such process; `InvalidData` when the file is not as proc_pid_stat(5) says.
pub fn process(pid: u32) -> io::Result<Process> {
    // One read: the kernel writes the line whole, and it is read for each ancestor of each request. Name and fields
    // take less than half of the room.
    let mut line = [0; 1024];
    let length = std::fs::File::open(format!("/proc/{pid}/stat"))?.read(&mut line)?;
    parse_stat(pid, &line[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The program name in field 2 may hold anything, closing brackets and line ends included: fields are counted after the
/// last bracket.
fn parse_stat(pid: u32, text: &[u8]) -> Option<Process> {
    let after = text.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(text.get(after..)?).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    Some(Process { id: ProcessId { pid, start }, parent, session })
}

/// What the process bears (see [`Mark`]). `None` when it has ended, or has other ids than this one (prlimit(2)).
pub fn mark(pid: u32) -> Option<Mark> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one limit, and no other is set.
    let done = unsafe { libc::prlimit64(pid.cast_signed(), libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    (done == 0 && pid != 0).then_some(Mark(limit.rlim_max))
}

/// Pins the process `id`, if it is still the one of that start time.
pub fn pin(id: ProcessId) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(id.pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let same = process(id.pid).is_ok_and(|p| p.id == id);
    (same && is_alive(&pidfd)).then_some(pidfd)
}

/// Whether the process of a pidfd has not ended yet. While it lives its pid is not reused.
pub fn is_alive(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(rustix::io::Errno::INTR) => {}
            answer => return answer == Ok(0),
        }
    }
}

/// Who connected a socket, in the numbers of the broker's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id; 0 for a process outside of the broker's pid namespace.
    pub pid: u32,
    /// User id.
    pub uid: u32,
}

/// Who connected the socket (`SO_PEERCRED`, unix(7)).
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    option(socket.as_fd().as_raw_fd(), libc::SO_PEERCRED, &mut found)?;
    Ok(Credentials { pid: u32::try_from(found.pid).unwrap_or(0), uid: found.uid })
}

/// A pidfd of the process that connected the socket (`SO_PEERPIDFD`), close-on-exec.
///
/// # Errors
/// `Unsupported` on a kernel before 6.5; `NotFound` when the process is gone.
pub fn peer_pin(socket: &impl AsFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: i32 = 77;
    let mut fd: RawFd = -1;
    option(socket.as_fd().as_raw_fd(), SO_PEERPIDFD, &mut fd).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::ErrorKind::Unsupported.into(),
        Some(libc::ESRCH | libc::ENODATA | libc::EINVAL) => io::ErrorKind::NotFound.into(),
        _ => e,
    })?;
    if fd < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads one option of `SOL_SOCKET`. `T` is the C type of the option: plain integers without padding or rules.
fn option<T>(socket: RawFd, name: i32, value: &mut T) -> io::Result<()> {
    let mut length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for `length` bytes, and every bit pattern is a value of the C types used here.
    let answer = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, name, (&raw mut *value).cast(), &raw mut length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One read of a stream socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes read; 0 at the end of the stream.
    pub bytes: usize,
    /// Who sent them, by `SCM_CREDENTIALS`; `None` when the kernel did not say.
    pub sender: Option<Credentials>,
    /// The message carried descriptors or other things than credentials; descriptors are closed already.
    pub extras: bool,
}

/// Reads bytes of one sender from a socket that has `SO_PASSCRED` set; the kernel never joins bytes of two senders into
/// one read then (unix(7)). Never blocks.
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` when there is nothing to read.
pub fn receive(socket: &impl AsFd, into: &mut [u8]) -> io::Result<Received> {
    // Room for credentials and the most descriptors that one message can carry (SCM_MAX_FD, 253).
    const ROOM: usize = 1200;
    #[repr(C, align(8))]
    struct Control([MaybeUninit<u8>; ROOM]);
    let mut control = Control([MaybeUninit::uninit(); ROOM]);
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: a message header of zeros is valid: all pointers null, all lengths 0.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.0.as_mut_ptr().cast();
    head.msg_controllen = ROOM;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to live buffers of the lengths it states.
    let answer = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut head, flags) };
    let bytes = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
    let mut received = Received { bytes, sender: None, extras: head.msg_flags & libc::MSG_CTRUNC != 0 };
    // SAFETY: the kernel has filled `msg_controllen` bytes with whole messages, and the macros stay inside of them; the
    // payload is read unaligned and only as far as its header says.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&raw const head);
        while let Some(message) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            let length = message.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    let sender = data.cast::<libc::ucred>().read_unaligned();
                    let pid = u32::try_from(sender.pid).unwrap_or(0);
                    received.sender = Some(Credentials { pid, uid: sender.uid });
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    received.extras = true;
                    for n in 0..length / size_of::<RawFd>() {
                        drop(OwnedFd::from_raw_fd(data.cast::<RawFd>().add(n).read_unaligned()));
                    }
                }
                _ => received.extras = true,
            }
            at = libc::CMSG_NXTHDR(&raw const head, at);
        }
    }
    Ok(received)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

/// Watches one process that need not be a child.
///
/// Never reaps it and never signals it. Dropping a future of this type loses nothing.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches the process of `pidfd`. Needs a Tokio runtime with I/O.
    ///
    /// # Errors
    /// When the descriptor cannot be polled.
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        pollable(pidfd, Interest::READABLE).map(Self)
    }

    /// Resolves once the process has ended, at once when it already has: the moment to take back what it holds.
    pub async fn ended(&self) {
        while is_alive(self.0.get_ref()) {
            match self.0.readable().await {
                Ok(mut guard) if is_alive(self.0.get_ref()) => guard.clear_ready(),
                Ok(_) => return,
                // Without the reactor nothing arrives any more: the caller is shutting down.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// How the process ended. The kernel tells it once the parent has collected the child: waits for that up to 5 s
    /// after the end. `None` when the parent did not, and on a kernel before 6.15.
    pub async fn exit(&self) -> Option<Exit> {
        const PATIENCE: Duration = Duration::from_secs(5);
        const GLANCE: Duration = Duration::from_millis(100);
        self.ended().await;
        let until = Instant::now() + PATIENCE;
        loop {
            match exit_of(self.0.get_ref()) {
                Ok(Some(exit)) => return Some(exit),
                Ok(None) if Instant::now() < until => {}
                Ok(None) | Err(_) => return None,
            }
            // The hang-up at the collection is a new event; the glance covers kernels that do not send it.
            let next = tokio::time::timeout_at(until.min(Instant::now() + GLANCE), async {
                if let Ok(mut guard) = self.0.readable().await {
                    guard.clear_ready();
                }
                self.0.readable().await.map(drop)
            });
            drop(next.await);
        }
    }

    /// Whether the process has not ended yet.
    pub fn is_alive(&self) -> bool {
        is_alive(self.0.get_ref())
    }
}

/// `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` of linux/pidfd.h. `Ok(None)`: not collected yet.
fn exit_of(pidfd: &OwnedFd) -> io::Result<Option<Exit>> {
    /// `struct pidfd_info`, first version: 64 bytes.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    let request = (3 << 30) | ((size_of::<Info>() as u64) << 16) | (0xFF << 8) | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the size in the request is that of `Info`, which the kernel fills with integers.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as libc::Ioctl, &raw mut info) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if info.mask & EXIT == 0 {
        return Ok(None);
    }
    let status = info.exit_code;
    let exit = if libc::WIFEXITED(status) {
        u8::try_from(libc::WEXITSTATUS(status)).map(Exit::Code)
    } else {
        u8::try_from(libc::WTERMSIG(status)).map(Exit::Signal)
    };
    exit.map(Some).map_err(io::Error::other)
}

/// Both clocks: time since boot with suspend included, which decides, and wall time, which is shown.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = Wall(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX));
    Now { boot: Boot(since(clock_gettime(ClockId::Boottime))), wall }
}

/// How long this boot has spent suspended. It grows by the length of each suspend: whoever sees it grow knows that the
/// machine slept.
pub fn time_in_suspend() -> Duration {
    // The clock that stands still in suspend is read last, so that the difference never grows by the time between.
    let boot = since(clock_gettime(ClockId::Boottime));
    boot.saturating_sub(since(clock_gettime(ClockId::Monotonic)))
}

/// A timer on the clock that runs through suspend: what fell due meanwhile rings at once after it.
#[derive(Debug)]
pub struct BootTimer(AsyncFd<OwnedFd>);

impl BootTimer {
    /// Makes a timer. Needs a Tokio runtime with I/O.
    ///
    /// # Errors
    /// Those of timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        pollable(timer, Interest::READABLE).map(Self)
    }

    /// Resolves at `due`, at once when that has passed; never with `None`. One sleeper at a time: a second call
    /// replaces the time of the first.
    pub async fn sleep_until(&self, due: Option<Boot>) {
        let Some(Boot(due)) = due else { return std::future::pending().await };
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            if now().boot.0 >= due {
                return;
            }
            let seconds = i64::try_from(due.as_secs()).unwrap_or(i64::MAX);
            let at = Itimerspec {
                it_interval: none,
                it_value: Timespec { tv_sec: seconds, tv_nsec: due.subsec_nanos().max(1).into() },
            };
            if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &at).is_err() {
                return std::future::pending().await;
            }
            match self.0.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// One byte of the kernel's generator, for jitter and numbering; keys are made elsewhere.
pub fn random_byte() -> u8 {
    let mut byte = [0];
    while rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty()).is_err() {}
    byte[0]
}

/// Enters a descriptor into the reactor of the current Tokio runtime.
///
/// # Errors
/// When the descriptor cannot be polled.
pub(crate) fn pollable(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is registered, which never gives it away mutably: it stays
    // open, and the same, until that value is dropped and leaves the reactor.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

fn since(t: Timespec) -> Duration {
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// Names this boot: a UUID that the kernel makes at each start.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    // It does not change while this process lives.
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id.clone());
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(BOOT_ID.get_or_init(|| id).clone())
}

/// The file of the program that a process runs, with the time of its last change; `None` when it cannot be told. Asks no
/// file system, which may not answer: the kernel knows it of a program that runs.
pub fn executable(pid: u32) -> Option<FileState> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    let path = format!("/proc/{pid}/exe");
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO | StatxFlags::CTIME).ok()?;
    let changed = found.stx_ctime.tv_sec.saturating_mul(1_000_000_000).saturating_add(found.stx_ctime.tv_nsec.into());
    Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino, changed))
}

/// Path of the program that a process runs; `None` when it cannot be told, and for a process that has ended.
pub fn program_path(id: ProcessId) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{}/exe", id.pid)).ok()?;
    // Read after the link: the number may have been given to another one in between.
    process(id.pid).is_ok_and(|p| p.id == id).then(|| keyward_diag::plain(&path.to_string_lossy(), 4096))
}

/// Name that a process of another user goes by, from `/proc/PID/status`; `None` for one of this user, which chooses that name
/// itself, and for a process that has ended.
pub fn foreign_name(id: ProcessId) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", id.pid)).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let uid: u32 = field("Uid:\t")?.split('\t').next()?.parse().ok()?;
    let name = field("Name:\t")?.to_owned();
    let foreign = uid != rustix::process::getuid().as_raw();
    (foreign && process(id.pid).is_ok_and(|p| p.id == id)).then_some(name)
}

/// Name that the kernel gave a process when it began its program: the first 15 bytes of the name of the file, unless the
/// process has changed it.
pub fn task_name(id: ProcessId) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", id.pid)).ok()?;
    process(id.pid).is_ok_and(|p| p.id == id).then(|| name.trim_end_matches('\n').to_owned())
}

/// Whether a process lies in the session of its parent (setsid(2)); false where that cannot be told. Where the leader is outside
/// of the pid namespace the number is 0 for both: a child that had begun another session would have one.
pub fn in_session_of_parent(child: ProcessId, parent: ProcessId) -> bool {
    let session = |id: ProcessId| process(id.pid).ok().filter(|p| p.id == id).map(|p| p.session);
    session(child).is_some_and(|own| session(parent) == Some(own))
}

/// Arguments of a process, without the name that stands before them; `None` when they cannot be read whole. A process can
/// change what stands there.
pub fn arguments(id: ProcessId) -> Option<Vec<Vec<u8>>> {
    const MAX_BYTES: u64 = 256 * 1024;
    let mut line = Vec::new();
    let file = std::fs::File::open(format!("/proc/{}/cmdline", id.pid)).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut line).ok()?;
    if line.pop() != Some(0) || !process(id.pid).is_ok_and(|p| p.id == id) {
        return None;
    }
    Some(line.split(|byte| *byte == 0).skip(1).map(<[u8]>::to_vec).collect())
}

/// Resident memory of this process in bytes; 0 when `/proc` cannot be read.
pub fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Gives back the signal handling of a fresh process: nothing blocked, and children are waited for. A starter that
/// ignores SIGCHLD or blocks SIGTERM would otherwise pass that on. Runs before any thread is made.
pub fn reset_signals() {
    // SAFETY: an action and a set of zeros are valid; both calls only change this process.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Goes on as a second process. `true` in the new one. Runs before any thread is made.
///
/// # Errors
/// Those of fork(2).
pub fn fork() -> io::Result<bool> {
    // SAFETY: this process has one thread, so that no lock is held and nothing is half done in the copy.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(true),
        _ => Ok(false),
    }
}

/// Closes all descriptors above standard error. Runs first in the process, when none of them is ours.
///
/// # Errors
/// Those of close_range(2).
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing in this process has opened a descriptor yet, so none is taken from an owner.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Write end of the pipe that the signal handler tells.
static STOP_PIPE: AtomicI32 = AtomicI32::new(-1);

/// SIGTERM, SIGINT and SIGHUP as a descriptor that becomes readable: for the parent, which has no runtime.
///
/// May be made once in a process. Reset by exec, so that a child has the signals as usual.
#[derive(Debug)]
pub struct StopSignals {
    read: OwnedFd,
    _write: OwnedFd,
}

impl StopSignals {
    /// Takes the three signals over.
    ///
    /// # Errors
    /// Those of pipe2(2) and sigaction(2).
    pub fn take() -> io::Result<Self> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        STOP_PIPE.store(write.as_raw_fd(), Ordering::Release);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: an action of zeros is valid; the handler only loads an atomic and calls write(2), which
            // signal-safety(7) lists.
            let answer = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = tell as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            };
            if answer != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { read, _write: write })
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.read.as_fd()
    }
}

extern "C" fn tell(_signal: libc::c_int) {
    let pipe = STOP_PIPE.load(Ordering::Acquire);
    // SAFETY: write(2) of one byte from a static; errno is put back for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(pipe, b"!".as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::process::{Child, Command, Stdio};

    fn shell(line: &str) -> (Child, OwnedFd) {
        let child = Command::new("/bin/sh").args(["-c", line]).stdin(Stdio::piped()).spawn().unwrap();
        let id = process(child.id()).unwrap().id;
        (child, pin(id).unwrap())
    }

    #[test]
    fn a_program_name_cannot_forge_its_fields() {
        let tail = "S 7 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        for name in
            ["(sh)", "(a b)", "(x) S 1 1 1 0 -1 1 0 0 0 0 0 0 0 0 20 0 1 0 1 (y)", "()\n)", "((((", "(\u{1F980})"]
        {
            let text =
                format!("9 {}{tail}", if name.ends_with(')') { format!("{name} ") } else { format!("{name}) ") });
            let p = parse_stat(9, text.as_bytes()).unwrap();
            assert_eq!((p.parent, p.id.start), (7, 4242), "{name}");
        }
        for bad in ["", "9 (sh", "9 (sh) S", "9 (sh) S x 1 1", "9 (sh) S 7 1 1 0 -1 1 0 0 0 0 0 0 0 0 20 0 1 0"] {
            assert_eq!(parse_stat(9, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_stat(9, b"9 (\xff\xfe) S 7 1 1 0 -1 1 0 0 0 0 0 0 0 0 20 0 1 0 5 ").unwrap().id.start, 5);
    }

    #[test]
    fn a_pin_is_of_one_process_and_of_no_later_one() {
        let (mut child, pidfd) = shell("read x");
        let id = process(child.id()).unwrap().id;
        assert!(is_alive(&pidfd));
        assert_eq!(process(child.id()).unwrap().parent, std::process::id());
        assert!(pin(ProcessId { start: id.start + 1, ..id }).is_none(), "another start time");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(&pidfd) && pin(id).is_none());
    }

    #[tokio::test]
    async fn codes_and_signals_are_seen_once_the_parent_has_collected_them() {
        for (line, want) in [
            ("read x; exit 0", Exit::Code(0)),
            ("read x; exit 3", Exit::Code(3)),
            ("read x; exit 255", Exit::Code(255)),
            ("read x; kill -9 $$", Exit::Signal(9)),
            ("read x; kill -15 $$", Exit::Signal(15)),
        ] {
            let (mut child, pidfd) = shell(line);
            let watch = Watch::new(pidfd).unwrap();
            assert!(watch.is_alive());
            drop(child.stdin.take());
            watch.ended().await;
            assert!(!watch.is_alive());
            let waiting = tokio::spawn(async move { watch.exit().await });
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
            assert_eq!(waiting.await.unwrap(), Some(want), "{line}");
        }
    }

    #[tokio::test]
    async fn a_timer_rings_at_its_time_and_never_without_one() {
        let timer = BootTimer::new().unwrap();
        timer.sleep_until(Some(Boot(Duration::ZERO))).await;
        let due = now().boot.after(Duration::from_millis(20));
        timer.sleep_until(Some(due)).await;
        assert!(now().boot >= due);
        let never = timer.sleep_until(None);
        assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
        timer.sleep_until(Some(now().boot.after(Duration::from_millis(5)))).await;
    }

    #[test]
    fn clocks_and_memory_are_read() {
        let at = now();
        assert!(at.boot.0 > Duration::ZERO && at.wall.0 > 1_700_000_000_000_000);
        assert!(time_in_suspend() < at.boot.0 && now().boot >= at.boot);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(rss_bytes() > 100_000);
    }
}
