//! The parent: holds the listening sockets and the single-instance lock, and starts the worker anew after a crash.
//!
//! Small on purpose: no runtime, no key, no credential, no byte of any client. A crashed worker leaves clients waiting
//! in the queues of the sockets, which its successor serves; the port of the gateway never comes free meanwhile, so that
//! nobody else can bind it and be taken for the gateway. Whoever kills the parent alone takes nothing away: the
//! worker goes on, with the lock and the socket that it has inherited, since ending would take every agent's
//! credentials for no gain; it is only not started anew. Called by `main`; the worker takes over by [`Inherited`].

use keyward_api::place::{BROKER_PROGRAM, BROKER_READY, Places};
use keyward_broker::platform::{StopSignals, fork};
use keyward_diag::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Argument that makes this program the worker.
pub(crate) const SERVE: &str = "--serve";
/// Argument that lets the parent leave its starter: nobody's child, in a session of its own.
pub(crate) const DETACH: &str = "--detach";
/// A new broker waits this long for an old one that is ending.
const LOCK_TIME: Duration = Duration::from_secs(25);
/// Between two looks at the lock.
const GLANCE: Duration = Duration::from_millis(5);
/// First pause after a crash; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after a crash.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// Crashes within [`CRASH_SPAN`] after which the parent gives up.
const CRASHES_MOST: usize = 10;
/// See [`CRASHES_MOST`].
const CRASH_SPAN: Duration = Duration::from_secs(60);
/// A worker that was asked to stop and does not is killed after this.
const STOP_TIME: Duration = Duration::from_secs(20);
/// Longest line that a worker says about its start.
const WORD_MAX_BYTES: usize = 64 * 1024;
/// The socket under its first name: it is listening and private before it gets the name that clients know.
const SOCKET_DRAFT: &str = ".s";
/// The single-instance lock, held by parent and worker alike.
const LOCK: &str = "broker.lock";

/// Runs the parent until the worker has stopped, or until it turns out that another broker serves already.
///
/// Says `ready` on standard output once a broker serves.
///
/// # Errors
/// [`Code::BrokerSocket`] for a folder or socket that is not ours alone, [`Code::BrokerStart`] when no broker could be
/// started, or the fault that the first worker ended with.
pub(crate) fn parent() -> Result<(), Fault> {
    let places = Places::current()?;
    places.make_runtime()?;
    std::env::set_current_dir("/").map_err(|e| start_fault("/", &e))?;
    let signals = StopSignals::take().map_err(|e| start_fault("signals", &e))?;
    let Some(lock) = lock(&places, &signals)? else { return Ok(()) };
    let listener = bind(&places)?;
    // The address as it is handed out, and no name of it: a name is looked up in a file that others write.
    let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| start_fault("127.0.0.1", &e))?;
    Parent { places, signals, lock, listener, gateway, crashes: Crashes::default(), said: false }.run()
}

/// Which process one is after [`detach`].
pub(crate) enum Fork {
    /// The first one, which ends at once.
    Starter,
    /// The second one, which goes on.
    Broker,
}

/// Leaves the starter: a broker that stayed the child of a client would become a child of the program which that client
/// executes, and its terminal's signals would reach it.
///
/// # Errors
/// [`Code::BrokerStart`] when there are too many processes.
pub(crate) fn detach() -> Result<Fork, Fault> {
    if !fork().map_err(|e| start_fault("fork", &e))? {
        return Ok(Fork::Starter);
    }
    rustix::process::setsid().map_err(|e| start_fault("setsid", &e.into()))?;
    Ok(Fork::Broker)
}

/// The lock, or `None` when another broker serves or a signal asked to stop.
fn lock(places: &Places, signals: &StopSignals) -> Result<Option<File>, Fault> {
    let path = places.runtime.join(LOCK);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| start_fault(LOCK, &e.into()))?;
    let until = Instant::now() + LOCK_TIME;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(File::from(file))),
            Err(Errno::WOULDBLOCK) => {}
            Err(e) => return Err(start_fault(LOCK, &e.into())),
        }
        if UnixStream::connect(&places.socket).is_ok() {
            say(BROKER_READY.as_bytes());
            return Ok(None);
        }
        if Instant::now() >= until {
            return Err(Fault::new(Code::BrokerStart).cause("another broker holds the lock and does not answer"));
        }
        if wait(&mut [PollFd::new(signals, PollFlags::IN)], Some(GLANCE)) {
            return Ok(None);
        }
    }
}

/// Binds the socket, mode 0600, over a stale one that nobody listens on: whoever holds the lock may.
fn bind(places: &Places) -> Result<UnixListener, Fault> {
    match places.socket.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            let cause = format!("{} is not a socket", places.socket.display());
            return Err(Fault::new(Code::BrokerSocket).cause(cause));
        }
        Ok(_) | Err(_) => {}
    }
    let draft = places.runtime.join(SOCKET_DRAFT);
    let bound = remove(&draft).and_then(|()| {
        let listener = UnixListener::bind(&draft)?;
        // Before anyone can connect: what is sent into the queue names its sender from the start.
        rustix::net::sockopt::set_socket_passcred(&listener, true)?;
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&draft, &places.socket)?;
        Ok(listener)
    });
    bound.map_err(|e| start_fault("the socket", &e))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

struct Parent {
    places: Places,
    signals: StopSignals,
    lock: File,
    listener: UnixListener,
    gateway: TcpListener,
    crashes: Crashes,
    /// The starter has been told.
    said: bool,
}

/// The crashes of late.
#[derive(Default)]
struct Crashes {
    at: VecDeque<Instant>,
    pause: Duration,
}

impl Crashes {
    /// Notes the crash at `now` of a worker that was started at `started`. How long to wait before the next one;
    /// `None`: give up.
    fn note(&mut self, started: Instant, now: Instant) -> Option<Duration> {
        self.at.push_back(now);
        self.at.retain(|at| now.duration_since(*at) < CRASH_SPAN);
        let calm = self.pause.is_zero() || now.duration_since(started) >= CRASH_SPAN;
        self.pause = if calm { PAUSE_FIRST } else { (self.pause * 2).min(PAUSE_MOST) };
        (self.at.len() < CRASHES_MOST).then_some(self.pause)
    }
}

/// How one worker ended.
enum End {
    Stopped,
    Crashed,
    /// Before it served, in its own words.
    Refused(Vec<u8>),
}

impl Parent {
    fn run(mut self) -> Result<(), Fault> {
        let done = self.serve();
        // The lock is still held, so that it is our own, left by a worker that could not remove it.
        let _ = remove(&self.places.socket);
        done
    }

    fn serve(&mut self) -> Result<(), Fault> {
        loop {
            let started = Instant::now();
            match self.one()? {
                End::Stopped => return Ok(()),
                End::Refused(word) if !self.said => {
                    return Err(serde_json::from_slice(&word).unwrap_or_else(|_| Code::BrokerStart.into()));
                }
                End::Refused(_) | End::Crashed => {}
            }
            let Some(pause) = self.crashes.note(started, Instant::now()) else {
                return Err(Fault::new(Code::BrokerStart).cause(format!("it crashed {CRASHES_MOST} times in a minute")));
            };
            if wait(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(pause)) {
                return Ok(());
            }
        }
    }

    /// Runs one worker to its end.
    fn one(&mut self) -> Result<End, Fault> {
        let (mut child, words) = self.spawn().map_err(|e| start_fault("the worker", &e))?;
        let end = self.follow(&mut child, words).map_err(|e| start_fault("the worker", &e));
        if end.is_err() {
            // Nobody watches it any more, and a second one must not meet it.
            let _ = child.kill();
            let _ = child.wait();
        }
        end
    }

    /// The worker gets the listener as standard input, a socket for its first word as standard output and the lock as
    /// standard error: three descriptors that every child has, so that nothing else need be inherited. The listener of the
    /// gateway lies in the queue of the second.
    fn spawn(&self) -> io::Result<(Child, File)> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(BROKER_PROGRAM).arg(SERVE).env_clear().envs(self.places.variables().iter().cloned());
        #[cfg(feature = "fault-points")]
        if let Some(file) = std::env::var_os("KEYWARD_FAULT_FILE") {
            command.env("KEYWARD_FAULT_FILE", file);
        }
        let (words, of_worker) = UnixStream::pair()?;
        pass(&words, &self.gateway)?;
        command.stdin(OwnedFd::from(self.listener.try_clone()?));
        command.stdout(Stdio::from(OwnedFd::from(of_worker))).stderr(self.lock.try_clone()?);
        let child = command.spawn()?;
        Ok((child, File::from(OwnedFd::from(words))))
    }

    fn follow(&mut self, child: &mut Child, words: File) -> io::Result<End> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let mut words = Some(words);
        let mut word = Vec::new();
        let mut kill_at: Option<Instant> = None;
        loop {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            if kill_at.is_none() {
                fds.push(PollFd::new(&self.signals, PollFlags::IN));
            }
            let told = fds.len();
            if let Some(words) = &words {
                fds.push(PollFd::new(words, PollFlags::IN));
            }
            let timeout = kill_at.map(|at| at.saturating_duration_since(Instant::now()));
            wait(&mut fds, timeout);
            let seen: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                pidfd_send_signal(&pidfd, Signal::KILL)?;
                kill_at = Some(Instant::now() + STOP_TIME);
            }
            if words.is_some() && seen.get(told) == Some(&true) {
                words = self.hear(words, &mut word)?;
            }
            if seen.first() == Some(&true) {
                // The last word may have come with the end.
                while words.is_some() {
                    words = self.hear(words, &mut word)?;
                }
                let status = child.wait()?;
                return Ok(match status.code() {
                    Some(0) => End::Stopped,
                    Some(_) if word.first() == Some(&b'{') => End::Refused(word),
                    // It was told to end and had to be killed: that is no crash.
                    _ if kill_at.is_some() => End::Stopped,
                    Some(_) | None => End::Crashed,
                });
            }
            if kill_at.is_none() && seen.get(1) == Some(&true) && told == 2 {
                pidfd_send_signal(&pidfd, Signal::TERM)?;
                kill_at = Some(Instant::now() + STOP_TIME);
            }
        }
    }

    /// Reads a piece of the worker's word and passes `ready` on, once. `None` at the end.
    fn hear(&mut self, words: Option<File>, word: &mut Vec<u8>) -> io::Result<Option<File>> {
        let Some(mut file) = words else { return Ok(None) };
        let mut piece = [0; 4096];
        match file.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(bytes) if word.len() + bytes <= WORD_MAX_BYTES => word.extend_from_slice(&piece[..bytes]),
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // It ended before it took what was passed to it.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(e),
        }
        if !self.said && word.trim_ascii_end() == BROKER_READY.as_bytes() {
            self.said = true;
            say(BROKER_READY.as_bytes());
        }
        Ok(Some(file))
    }
}

/// Says one line to the starter, and lets go of it.
pub(crate) fn say(line: &[u8]) {
    let mut out = io::stdout().lock();
    // A starter that is gone need not be told.
    let _ = out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Waits for any of `fds`; says whether one has something.
fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    let timeout = timeout
        .map(|t| Timespec { tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX), tv_nsec: t.subsec_nanos().into() });
    // An interrupted wait is one that saw nothing: the caller looks again.
    poll(fds, timeout.as_ref()).is_ok_and(|n| n > 0)
}

fn start_fault(what: &str, e: &io::Error) -> Fault {
    Fault::new(Code::BrokerStart).cause(format!("{what}: {e}"))
}

/// Puts a descriptor into the queue of a socket (`SCM_RIGHTS`, unix(7)).
fn pass(socket: &UnixStream, listener: &TcpListener) -> io::Result<()> {
    let descriptors = [listener.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(socket, &[IoSlice::new(b"g")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Takes the descriptor out of the queue of a socket, if it is a listener on 127.0.0.1.
fn passed(socket: &OwnedFd) -> io::Result<TcpListener> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    // It was queued before this process began.
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let listener = TcpListener::from(descriptors.next().ok_or(io::ErrorKind::NotFound)?);
    let listens = rustix::net::sockopt::socket_acceptconn(&listener)?;
    let loopback = listener.local_addr()?.ip() == Ipv4Addr::LOCALHOST;
    if listens && loopback { Ok(listener) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// What the worker has from its parent.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The listening socket of the LocalAPI.
    pub(crate) listener: OwnedFd,
    /// The listening socket of the gateway, on 127.0.0.1.
    pub(crate) gateway: TcpListener,
    /// Where to say that it serves, or why not.
    pub(crate) word: Word,
    /// Held as long as the worker lives, also when its parent is gone.
    pub(crate) lock: OwnedFd,
}

/// The worker's first word to its parent.
#[derive(Debug)]
pub(crate) struct Word {
    socket: File,
    said: bool,
}

impl Word {
    /// It serves.
    pub(crate) fn ready(&mut self) {
        self.say(BROKER_READY.as_bytes());
    }

    /// It cannot serve. Says nothing after `ready`.
    pub(crate) fn refuse(&mut self, fault: &Fault) {
        self.say(&serde_json::to_vec(fault).unwrap_or_default());
    }

    fn say(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.said, true) {
            // A parent that is gone need not be told.
            let _ = self.socket.write_all(line).and_then(|()| self.socket.write_all(b"\n"));
        }
    }
}

impl Inherited {
    /// Takes the three descriptors over, and the one in the queue of the second, and puts `/dev/null` in their places.
    ///
    /// # Errors
    /// [`Code::BrokerStart`] when they are not what a parent passes on: a listening Unix socket of these places, a
    /// socket with a listener on 127.0.0.1 in its queue, and the lock, held.
    pub(crate) fn take(places: &Places) -> Result<Self, Fault> {
        let odd = || Fault::new(Code::BrokerStart).cause("the worker is started by its parent alone");
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        let own = |fd: &dyn AsFd| rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3).map_err(|_| odd());
        let (listener, word, lock) = (own(&input)?, own(&output)?, own(&error)?);
        let listens = rustix::net::sockopt::socket_acceptconn(&listener) == Ok(true);
        let bound = UnixListener::from(listener.try_clone().map_err(|_| odd())?).local_addr();
        let ours = bound.is_ok_and(|a| a.as_pathname() == Some(places.runtime.join(SOCKET_DRAFT).as_path()));
        let gateway = passed(&word).map_err(|_| odd())?;
        let path = places.runtime.join(LOCK).symlink_metadata().map_err(|_| odd())?;
        let same = fstat(&lock).is_ok_and(|s| (s.st_dev, s.st_ino) == (path.dev(), path.ino()));
        // Taking it again succeeds for the file description that holds it, and for no other.
        let held = same && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !(listens && ours && held) {
            return Err(odd());
        }
        let null = File::options().read(true).write(true).open("/dev/null").map_err(|_| odd())?;
        let replaced = rustix::stdio::dup2_stdin(&null)
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .and_then(|()| rustix::stdio::dup2_stderr(&null));
        replaced.map_err(|_| odd())?;
        Ok(Self { listener, gateway, word: Word { socket: File::from(word), said: false }, lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_ten_crashes_in_a_minute_are_enough() {
        let mut crashes = Crashes::default();
        let start = Instant::now();
        let pauses: Vec<_> = (0..10).map(|n| crashes.note(start, start + Duration::from_secs(n))).collect();
        let want = [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!((&pauses[..9], pauses[9]), (want.as_slice(), None));
    }

    #[test]
    fn a_worker_that_lived_a_minute_is_no_part_of_a_series() {
        let mut crashes = Crashes::default();
        let mut now = Instant::now();
        for _ in 0..30 {
            let started = now;
            now += CRASH_SPAN;
            assert_eq!(crashes.note(started, now), Some(PAUSE_FIRST));
        }
    }
}
