//! Finding the broker, and starting it.
//!
//! At most one client of a user starts a broker at a time (a lock in the socket folder); the others wait and use it.
//! Whether a broker may serve is decided by the broker, under a lock of its own.

use crate::Start;
use crate::trust::server_uid;
use crate::wire::Wire;
use keyward_api::place::{BROKER_PROGRAM, BROKER_READY, Places, trusted_program};
use keyward_diag::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as join, socket_with};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A listening broker whose queue is full is given this long.
const QUEUE_TIME: Duration = Duration::from_secs(10);
/// A broker that starts may have to wait for an old one that is ending.
const START_TIME: Duration = Duration::from_secs(30);
/// Between two looks at a lock or a socket.
const GLANCE: Duration = Duration::from_millis(2);
/// Longest line that a broker says about its start.
const WORD_MAX_BYTES: u64 = 64 * 1024;

/// A connection to the broker of `places`, whose owner was checked.
pub(crate) fn connect(places: &Places, start: Start) -> Result<Wire, Fault> {
    if places.check_runtime()?
        && let Some(wire) = try_connect(places)?
    {
        return Ok(wire);
    }
    match start {
        Start::Never => Err(Fault::new(Code::BrokerUnreachable).cause("no broker runs")),
        Start::IfNeeded => start_one(places),
    }
}

/// `None` when nobody listens.
fn try_connect(places: &Places) -> Result<Option<Wire>, Fault> {
    let fault = |e: Errno| Fault::new(Code::BrokerUnreachable).cause(std::io::Error::from(e));
    let address = SocketAddrUnix::new(&places.socket).map_err(fault)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(fault)?;
    set_socket_timeout(&socket, Timeout::Send, Some(QUEUE_TIME)).map_err(fault)?;
    loop {
        match join(&socket, &address) {
            Ok(()) => break,
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                return Err(Fault::new(Code::Busy).cause("the broker takes no connection"));
            }
            Err(e) => return Err(fault(e)),
        }
    }
    let uid = server_uid(&socket).map_err(|e| Fault::new(Code::BrokerUnreachable).cause(e))?;
    if uid != places.uid() {
        return Err(Fault::new(Code::BrokerSocket).cause(format!("the server belongs to user {uid}")));
    }
    Wire::new(UnixStream::from(socket)).map(Some).map_err(|e| e.fault())
}

fn start_one(places: &Places) -> Result<Wire, Fault> {
    places.make_runtime()?;
    let until = Instant::now() + START_TIME;
    let _lock = lock(places, until)?;
    if let Some(wire) = try_connect(places)? {
        return Ok(wire);
    }
    spawn(places, until)?;
    // A broker that ended between its word and this connection is started anew by the next call, not here in a circle.
    loop {
        if let Some(wire) = try_connect(places)? {
            return Ok(wire);
        }
        if Instant::now() >= until {
            return Err(Fault::new(Code::BrokerStart).cause("it said that it serves, and nobody listens"));
        }
        std::thread::sleep(GLANCE);
    }
}

fn lock(places: &Places, until: Instant) -> Result<OwnedFd, Fault> {
    let path = places.runtime.join("start.lock");
    let fault =
        |e: Errno| Fault::new(Code::BrokerStart).cause(format!("{}: {}", path.display(), std::io::Error::from(e)));
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(fault)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(GLANCE),
            Err(Errno::WOULDBLOCK) => {
                return Err(Fault::new(Code::BrokerStart).cause("another client takes too long to start it"));
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(fault(e)),
        }
    }
}

/// Starts the broker that lies beside this program, and waits for its word.
fn spawn(places: &Places, until: Instant) -> Result<(), Fault> {
    let fault = |cause: String| Fault::new(Code::BrokerStart).cause(cause);
    let own = std::fs::read_link("/proc/self/exe").map_err(|e| fault(format!("/proc/self/exe: {e}")))?;
    let program = trusted_program(&own.with_file_name(BROKER_PROGRAM), places.uid())?;
    let mut command = Command::new(&program);
    command.arg0(BROKER_PROGRAM).arg("--detach").env_clear().envs(places.variables().iter().cloned()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| fault(format!("{}: {e}", program.display())))?;
    let word = match child.stdout.take() {
        Some(stdout) => read_word(stdout, until)?,
        None => String::new(),
    };
    // It has left its first process behind, so that the broker is nobody's child: this one has ended or ends at once.
    let _ = child.wait();
    let word = word.trim_end();
    if word == BROKER_READY {
        return Ok(());
    }
    if word.is_empty() {
        return Err(
            fault("it ended before it was ready".to_owned()).help("its log says why: broker.log in the state folder")
        );
    }
    Err(serde_json::from_str(word).unwrap_or_else(|_| fault("what it said is not understood".to_owned())))
}

/// The first line, or what there was before the end.
fn read_word(mut from: ChildStdout, until: Instant) -> Result<String, Fault> {
    let fault = |cause: &str| Fault::new(Code::BrokerStart).cause(cause);
    let mut word = Vec::new();
    while !word.ends_with(b"\n") && (word.len() as u64) < WORD_MAX_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        let wait =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Err(fault("it was not ready in time")),
            Ok(_) => {
                let mut piece = [0; 4096];
                match from.read(&mut piece) {
                    Ok(0) => break,
                    Ok(bytes) => word.extend_from_slice(&piece[..bytes]),
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return Err(fault("its words cannot be read")),
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return Err(fault("its words cannot be waited for")),
        }
    }
    Ok(String::from_utf8_lossy(&word).into_owned())
}
