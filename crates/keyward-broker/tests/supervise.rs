//! The two processes of the broker: single instance, crash, clean stop, stale socket, hostile starters.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BROKER: &str = env!("CARGO_BIN_EXE_keyward-broker");

/// A home of the test alone. Its brokers are ended by their ids at its end.
struct Home {
    folder: PathBuf,
}

impl Home {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("kw-sup-{}-{number}", std::process::id()));
        for sub in ["run", "home"] {
            std::fs::create_dir_all(folder.join(sub)).unwrap();
            std::fs::set_permissions(folder.join(sub), std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        Self { folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BROKER);
        command
            .env_clear()
            .env("KEYWARD_HOME", self.folder.join("home"))
            .env("XDG_RUNTIME_DIR", self.folder.join("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Starts a broker and waits for its word.
    fn start(&self) -> (Child, String) {
        let mut child = self.command().spawn().unwrap();
        let mut word = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut word).unwrap();
        (child, word.trim_end().to_owned())
    }

    /// The folder of the socket: the only one below `keyward`.
    fn runtime(&self) -> PathBuf {
        let all = self.folder.join("run/keyward");
        std::fs::read_dir(all).unwrap().next().unwrap().unwrap().path()
    }

    fn socket(&self) -> PathBuf {
        self.runtime().join("broker.sock")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in brokers(&self.folder) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// All processes that were started for the home in `folder`.
fn brokers(folder: &Path) -> Vec<Pid> {
    let mark = folder.as_os_str().as_encoded_bytes();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(mark.len()).any(|w| w == mark)
    })
    .filter_map(Pid::from_raw)
    .collect()
}

/// Waits for something that takes its time, and fails when it does not come at all.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not happen")
}

fn worker(parent: &Child) -> Option<i32> {
    let pid = parent.id();
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_serves_privately_and_stops_cleanly_when_parent_or_worker_is_asked() {
    for ask_parent in [true, false] {
        let home = Home::new();
        let (mut parent, word) = home.start();
        assert_eq!(word, "ready");
        assert!(ask(&home.socket()).unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!((mode(&home.socket()), mode(&home.runtime())), (0o600, 0o700));
        let pid = worker(&parent).unwrap();
        send(if ask_parent { i32::try_from(parent.id()).unwrap() } else { pid }, Signal::TERM);
        assert!(parent.wait().unwrap().success());
        assert!(!home.socket().exists());
        assert!(brokers(&home.folder).is_empty());
        assert_eq!(home.start().1, "ready", "it starts again");
    }
}

#[test]
fn fifty_starts_at_once_give_one_broker() {
    let home = Home::new();
    let mut all: Vec<_> = (0..50).map(|_| home.command().spawn().unwrap()).collect();
    for child in &mut all {
        let mut word = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut word).unwrap();
        assert_eq!(word, "ready\n");
    }
    let left = until("49 ends", || {
        let left: Vec<_> = all.iter_mut().filter_map(|c| c.try_wait().unwrap().is_none().then_some(c.id())).collect();
        (left.len() == 1).then_some(left)
    });
    assert!(ask(&home.socket()).unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(brokers(&home.folder).len(), 2, "one parent and one worker");
    let ended = all.iter_mut().filter(|c| c.id() != left[0]);
    assert!(ended.into_iter().all(|c| c.wait().unwrap().success()));
    let parent = all.iter_mut().find(|c| c.id() == left[0]).unwrap();
    send(i32::try_from(parent.id()).unwrap(), Signal::TERM);
    assert!(parent.wait().unwrap().success());
}

#[test]
fn a_killed_worker_is_started_anew_and_its_queue_is_served() {
    let home = Home::new();
    let (mut parent, _) = home.start();
    let mut seen = vec![worker(&parent).unwrap()];
    // Not the signals of keys: a shell starts its background jobs with those ignored, and this test may be one.
    for signal in [Signal::KILL, Signal::ABORT, Signal::XCPU] {
        send(seen[seen.len() - 1], signal);
        // In the queue of the socket, which never closes; only what was accepted already may be cut.
        until("an answer", || ask(&home.socket()).ok().filter(|t| t.starts_with("HTTP/1.1 200")));
        let pid = until("a new worker", || worker(&parent).filter(|pid| !seen.contains(pid)));
        seen.push(pid);
    }
    assert!(parent.try_wait().unwrap().is_none());
}

#[test]
fn without_its_parent_the_worker_goes_on_and_nobody_else_can_start() {
    let home = Home::new();
    let (mut parent, _) = home.start();
    let pid = worker(&parent).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(ask(&home.socket()).unwrap().starts_with("HTTP/1.1 200"));
    let (mut second, word) = home.start();
    assert_eq!(word, "ready");
    assert!(second.wait().unwrap().success(), "it left the field to the first");
    send(pid, Signal::TERM);
    until("the end", || (!home.socket().exists()).then_some(()));
    assert_eq!(home.start().1, "ready");
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_not() {
    let home = Home::new();
    let (mut parent, _) = home.start();
    send(i32::try_from(parent.id()).unwrap(), Signal::TERM);
    parent.wait().unwrap();
    let socket = home.socket();
    drop(UnixListener::bind(&socket).unwrap());
    assert!(ask(&socket).is_err());
    let (mut parent, word) = home.start();
    assert_eq!(word, "ready");
    assert!(ask(&socket).unwrap().starts_with("HTTP/1.1 200"));
    send(i32::try_from(parent.id()).unwrap(), Signal::TERM);
    parent.wait().unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let (mut parent, word) = home.start();
    assert!(word.contains("broker.socket_untrusted"), "{word}");
    assert_eq!(parent.wait().unwrap().code(), Some(5));
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn an_open_or_squatted_folder_is_refused() {
    let home = Home::new();
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&home.folder.join("run"), 0o777);
    let (mut parent, word) = home.start();
    assert!(word.contains("broker.socket_untrusted"), "{word}");
    assert_eq!(parent.wait().unwrap().code(), Some(5));
    set(&home.folder.join("run"), 0o700);
    std::fs::create_dir(home.folder.join("run/keyward")).unwrap();
    set(&home.folder.join("run/keyward"), 0o777);
    assert!(home.start().1.contains("broker.socket_untrusted"));
    set(&home.folder.join("run/keyward"), 0o700);
    set(&home.folder.join("home"), 0o777);
    let (mut parent, word) = home.start();
    assert!(word.contains("vault.folder_unsafe"), "{word}");
    assert_eq!(parent.wait().unwrap().code(), Some(1));
}

#[test]
fn a_foreign_environment_and_foreign_descriptors_are_left_behind() {
    let home = Home::new();
    let mut command = home.command();
    let evil =
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HTTPS_PROXY", "SSL_CERT_FILE", "SQLITE_TMPDIR", "OPENSSL_CONF"];
    command.envs(evil.map(|name| (name, "/evil"))).env("TZ", "UTC");
    let mut parent = command.spawn().unwrap();
    let mut word = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut word).unwrap();
    assert_eq!(word, "ready\n");
    let pids = [i32::try_from(parent.id()).unwrap(), worker(&parent).unwrap()];
    for pid in pids {
        let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
            println_raw("SKIPPED in part: only root can read the environment of the broker");
            continue;
        };
        let environ = String::from_utf8(environ).unwrap();
        assert!(!environ.contains("/evil"), "{environ}");
        assert!(environ.contains("TZ=UTC\0") && environ.contains("PATH=/usr/local/bin:/usr/bin:/bin\0"), "{environ}");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().to_owned();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Umask:\t0077"), "{status}");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
        for fd in ["0", "1", "2"] {
            // The word goes out before its descriptor is let go.
            let target = || std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
            let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while target() != Path::new("/dev/null") {
                assert!(std::time::Instant::now() < until, "{fd} is {}", target().display());
                std::thread::yield_now();
            }
        }
    }
    send(pids[0], Signal::TERM);
    assert!(parent.wait().unwrap().success());
}

#[test]
fn the_worker_starts_for_its_parent_alone() {
    let home = Home::new();
    let out = home.command().arg("--serve").output().unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(5), 0));
    assert!(!home.folder.join("home/data").exists());
    let out = home.command().arg("--socket=/tmp/x").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8(out.stdout).unwrap().contains("\"usage\""));
}

#[test]
fn a_detached_broker_is_nobodys_child() {
    let home = Home::new();
    let mut first = home.command().arg("--detach").spawn().unwrap();
    let mut word = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut word).unwrap();
    assert_eq!(word, "ready\n");
    assert!(first.wait().unwrap().success());
    assert!(std::fs::symlink_metadata(home.socket()).unwrap().file_type().is_socket());
    for pid in brokers(&home.folder) {
        assert_ne!(session(pid), session(rustix::process::getpid()), "a session of its own");
    }
}

/// The session of a process. Zero is one that began outside of the pid namespace, which `getsid` cannot say.
fn session(pid: Pid) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(3)?.parse().ok()).unwrap()
}

fn println_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).unwrap();
}
