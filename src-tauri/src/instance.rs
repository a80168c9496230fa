//! One desktop a home: a lock in the socket folder, and a socket by which a second start opens the window of the first.
//!
//! Whoever can enter the folder (mode 0700) can open the window, and nothing else. Never deletes the lock file: two
//! programs could then hold two locks of the same name.

use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::remove_file;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a second start waits for the first one, which may be starting.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// The only desktop of this home, until it is dropped.
pub(crate) struct Instance {
    _lock: OwnedFd,
    listener: UnixListener,
    socket: PathBuf,
}

/// Takes the place of the home's desktop; `None` where another one has it.
///
/// # Errors
/// [`Code::BrokerSocket`] for a socket folder that is not ours alone, or when the files cannot be made.
pub(crate) fn take(places: &Places) -> Result<Option<Instance>, Fault> {
    places.make_runtime()?;
    let failed =
        |path: &Path, e: std::io::Error| Fault::new(Code::BrokerSocket).cause(format!("{}: {e}", path.display()));
    let lock = places.runtime.join("desk.lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let held = open(&lock, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(&lock, e.into()))?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => return Ok(None),
        Err(e) => return Err(failed(&lock, e.into())),
    }
    let socket = places.runtime.join("desk.sock");
    match remove_file(&socket) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&socket, e)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(|e| failed(&socket, e))?;
    Ok(Some(Instance { _lock: held, listener, socket }))
}

/// Asks the home's desktop to open its window.
///
/// # Errors
/// [`Code::BrokerSocket`] when it does not answer.
pub(crate) fn ask(places: &Places) -> Result<(), Fault> {
    let socket = places.runtime.join("desk.sock");
    let until = Instant::now() + PATIENCE;
    let answer = loop {
        match UnixStream::connect(&socket).and_then(|stream| request(stream, until)) {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() < until && e.kind() != ErrorKind::PermissionDenied => std::thread::sleep(PAUSE),
            Err(e) => break e,
        }
    };
    Err(Fault::new(Code::BrokerSocket)
        .cause(format!("the desktop of this home runs, and does not answer on {}: {answer}", socket.display()))
        .help("end the other keyward-desktop, then start it again"))
}

fn request(mut stream: UnixStream, until: Instant) -> std::io::Result<()> {
    stream.set_read_timeout(Some(until.saturating_duration_since(Instant::now()).max(PAUSE)))?;
    stream.write_all(b"open\n")?;
    let mut answer = [0; 3];
    stream.read_exact(&mut answer)?;
    if &answer == b"ok\n" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

impl Instance {
    /// Calls `open` for each second start, on a thread of its own.
    ///
    /// # Errors
    /// [`Code::BrokerSocket`] when the thread cannot be started.
    pub(crate) fn serve(&self, open: impl Fn() + Send + 'static) -> Result<(), Fault> {
        let failed = |e: std::io::Error| Fault::new(Code::BrokerSocket).cause(e);
        let listener = self.listener.try_clone().map_err(failed)?;
        let thread = std::thread::Builder::new().name("starts".into());
        let served = thread.spawn(move || {
            for stream in listener.incoming() {
                match stream.and_then(|stream| answer(stream, &open)) {
                    Ok(()) => {}
                    // Of descriptors, say: not at full speed.
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        });
        served.map(drop).map_err(failed)
    }
}

fn answer(mut stream: UnixStream, open: &impl Fn()) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 5];
    stream.read_exact(&mut request)?;
    if &request == b"open\n" {
        open();
        stream.write_all(b"ok\n")?;
    }
    Ok(())
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(remove_file(&self.socket));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::{DirBuilderExt as _, symlink};
    use std::sync::mpsc;

    fn places(name: &str) -> (PathBuf, Places) {
        let base = std::env::temp_dir().join(format!("keyward-desk-{}-{name}", std::process::id()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base).unwrap();
        let base = base.canonicalize().unwrap();
        let places = Places::find(
            &|n| match n {
                "XDG_RUNTIME_DIR" => Some(base.clone().into()),
                "KEYWARD_HOME" => Some(base.join("home").into()),
                _ => None,
            },
            rustix::process::getuid().as_raw(),
        );
        (base.clone(), places.unwrap())
    }

    #[test]
    fn a_second_start_opens_the_window_of_the_first_and_the_place_is_free_after_it() {
        let (base, places) = places("second");
        let first = take(&places).unwrap().unwrap();
        let (told, opened) = mpsc::channel();
        first.serve(move || told.send(()).unwrap()).unwrap();
        assert!(take(&places).unwrap().is_none());
        ask(&places).unwrap();
        opened.recv_timeout(Duration::from_secs(5)).unwrap();
        // Noise opens nothing, and the next one is heard.
        drop(UnixStream::connect(places.runtime.join("desk.sock")).unwrap().write_all(b"close"));
        ask(&places).unwrap();
        opened.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(opened.try_recv().is_err());
        drop(first);
        assert!(!places.runtime.join("desk.sock").exists());
        drop(take(&places).unwrap().unwrap());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_a_crash_left_behind_is_no_desktop_and_a_link_is_not_followed() {
        let (base, places) = places("crash");
        places.make_runtime().unwrap();
        std::fs::write(places.runtime.join("desk.sock"), "").unwrap();
        drop(take(&places).unwrap().unwrap());
        std::fs::remove_file(places.runtime.join("desk.lock")).unwrap();
        symlink(base.join("elsewhere"), places.runtime.join("desk.lock")).unwrap();
        assert!(take(&places).is_err());
        assert!(!base.join("elsewhere").exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
