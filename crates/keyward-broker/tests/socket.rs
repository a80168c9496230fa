//! The socket server against hostile peers: other users, lent connections, descriptors, floods, and clients that dawdle.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyward_broker::peer::Peer;
use keyward_broker::server::{Answer, Connections, Handler, Request, serve};
use keyward_diag::{Code, Fault};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use zeroize::Zeroizing;

/// Answers with what it was asked, and keeps count.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
    closed: AtomicUsize,
    stopping: Notify,
    streams: Mutex<Vec<mpsc::Sender<bytes::Bytes>>>,
}

impl Handler for Echo {
    async fn handle(&self, request: Request) -> Answer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match request.path.as_str() {
            "/wait" => {
                self.stopping.notified().await;
                Answer::Empty
            }
            "/never" => std::future::pending().await,
            "/large" => Answer::Json { status: 200, body: Zeroizing::new(vec![b'x'; 4 << 20]) },
            "/locked" => Fault::new(Code::VaultLocked).into(),
            "/events" => {
                let (send, body) = mpsc::channel(4);
                send.send(format!("last {:?}\n", request.last_event_id).into()).await.unwrap();
                self.streams.lock().unwrap().push(send);
                Answer::Stream { content_type: "text/event-stream", body }
            }
            path => {
                let parents: Vec<_> = request.peer.parents().unwrap().iter().map(|p| p.pid).collect();
                let body = serde_json::json!({
                    "method": request.method.as_str(), "path": path, "bytes": request.body.len(),
                    "pid": request.peer.process().pid, "parents": parents, "connection": request.peer.connection(),
                });
                Answer::Json { status: 200, body: Zeroizing::new(body.to_string().into_bytes()) }
            }
        }
    }

    fn closed(&self, _peer: &Peer) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn stopping(&self) {
        self.stopping.notify_waiters();
        self.streams.lock().unwrap().clear();
    }
}

/// A server on a thread of its own, stopped and removed at the end.
struct Server {
    folder: PathBuf,
    echo: Arc<Echo>,
    connections: Connections,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::start_after(|_| {})
    }

    /// Runs `before` when clients can connect and nobody serves yet.
    fn start_after(before: impl FnOnce(&Path)) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("keyward-socket-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Open to all, so that the check of the peer is what refuses another user, and not the file system.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::sockopt::set_socket_passcred(&listener, true).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        before(&path);
        let (echo, connections) = (Arc::new(Echo::default()), Connections::new());
        let (stop, stopped) = oneshot::channel();
        let (for_echo, for_connections) = (Arc::clone(&echo), connections.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stop = async move {
                let _ = stopped.await;
                let _ = std::fs::remove_file(path);
            };
            runtime.block_on(serve(OwnedFd::from(listener), for_echo, for_connections, stop)).unwrap();
        });
        Self { folder, echo, connections, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("s")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn asked(&self) -> usize {
        self.echo.asked.load(Ordering::SeqCst)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

/// Reads one answer: the head, and a body by its length.
fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            Ok(_) => return String::from_utf8(text).unwrap(),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return String::from_utf8(text).unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length =
        head.to_ascii_lowercase().split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Whether the server has closed without a word.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(bytes) => bytes == 0,
        Err(e) => matches!(e.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
    }
}

/// Runs one of the `as_child` roles below in a process of its own.
fn child(role: &str, socket: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["as_child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("KEYWARD_TEST_ROLE", role).env("KEYWARD_TEST_SOCKET", socket).stderr(Stdio::inherit());
    command
}

/// Not a test: what the other tests run in processes of their own.
#[test]
#[ignore = "run by the other tests"]
#[expect(clippy::zombie_processes, reason = "the process ends before the one to which it lends its connection")]
fn as_child() {
    let (Ok(role), Some(socket)) = (std::env::var("KEYWARD_TEST_ROLE"), std::env::var_os("KEYWARD_TEST_SOCKET")) else {
        return;
    };
    let mut stream = UnixStream::connect(socket).unwrap();
    match role.as_str() {
        "ask" => {
            let _ = stream.write_all(HELLO);
            println_raw(&format!("answer<{}>", answer(&mut stream)));
        }
        "lend" => {
            stream.write_all(HELLO).unwrap();
            assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
            // Ends when the socket ends, and holds the pipe to the test until then.
            Command::new("cat").stdin(OwnedFd::from(stream)).stdout(Stdio::inherit()).spawn().unwrap();
        }
        other => panic!("{other}"),
    }
}

fn println_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).unwrap();
}

#[test]
fn a_peer_is_known_by_the_kernel_and_told_so() {
    let server = Server::start();
    let out = child("ask", &server.path()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let json = text.split("\r\n\r\n").nth(1).unwrap().split('>').next().unwrap();
    let said: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(said["path"], "/hello");
    let parents: Vec<u64> = said["parents"].as_array().unwrap().iter().map(|p| p.as_u64().unwrap()).collect();
    assert_eq!(parents[0], u64::from(std::process::id()), "{parents:?}");
    assert!(said["pid"].as_u64().unwrap() != parents[0]);
}

#[test]
fn who_came_before_the_server_is_served() {
    let mut early = None;
    let _server = Server::start_after(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(HELLO).unwrap();
        early = Some(stream);
    });
    assert!(answer(&mut early.unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn another_user_is_closed_before_a_byte_is_read() {
    if !rustix::process::getuid().is_root() {
        println_raw("SKIPPED: acting as another user needs root; run this test as root");
        return;
    }
    let server = Server::start();
    let mut other = child("ask", &server.path());
    // The test program may lie where nobody else can go: it is reached by its open file.
    let text = String::from_utf8(other.uid(65534).gid(65534).output().unwrap().stdout).unwrap();
    assert!(text.contains("answer<>"), "{text}");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_request_of_another_process_on_a_lent_connection_closes_it() {
    for first in [b"".as_slice(), HELLO, &HELLO[..20]] {
        let server = Server::start();
        let mut stream = server.connect();
        stream.write_all(first).unwrap();
        if first == HELLO {
            assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
        }
        let rest = if first.len() == 20 { &HELLO[20..] } else { HELLO };
        let mut lent = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(stream.try_clone().unwrap()))
            .spawn()
            .unwrap();
        lent.stdin.take().unwrap().write_all(rest).unwrap();
        lent.wait().unwrap();
        assert!(is_closed(&mut stream));
        assert_eq!(server.asked(), usize::from(first == HELLO), "only what the peer itself sent was answered");
    }
}

#[test]
fn a_connection_ends_with_its_peer_whoever_holds_it() {
    let server = Server::start();
    // Ends only when `cat`, which holds the connection of a process that has ended, sees its end.
    let (send, end) = std::sync::mpsc::channel();
    let mut lender = child("lend", &server.path());
    std::thread::spawn(move || send.send(lender.output().unwrap().status.success()));
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
    assert_eq!((server.asked(), server.echo.closed.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn descriptors_close_the_connection_and_are_closed() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let server = Server::start();
    let mut stream = server.connect();
    let (mut read, write) = std::io::pipe().unwrap();
    {
        let fds = [write.as_fd(); 40];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&stream, &[IoSlice::new(HELLO)], &mut control, SendFlags::empty()).unwrap();
    }
    drop(write);
    assert!(is_closed(&mut stream));
    assert_eq!(read.read(&mut [0]).unwrap(), 0, "no write end is open any more");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_process_has_sixteen_connections_and_is_told_when_it_wants_more() {
    let server = Server::start();
    let mut open: Vec<_> = (0..16).map(|_| server.connect()).collect();
    for stream in &mut open {
        stream.write_all(HELLO).unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 200"));
    }
    let mut more = server.connect();
    let busy = answer(&mut more);
    assert!(busy.starts_with("HTTP/1.1 503") && busy.contains("broker.busy"), "{busy}");
    // Another process has a quota of its own.
    let out = child("ask", &server.path()).output().unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().contains("HTTP/1.1 200"));
    let asked = server.asked();
    drop(open);
    // The server sees the ends in its own time.
    while server.echo.closed.load(Ordering::SeqCst) < asked {
        std::thread::yield_now();
    }
    let mut again = server.connect();
    again.write_all(HELLO).unwrap();
    assert!(answer(&mut again).starts_with("HTTP/1.1 200"));
}

#[test]
fn connections_of_a_process_are_closed_except_one() {
    let server = Server::start();
    let mut open: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let mut numbers = Vec::new();
    for stream in &mut open {
        stream.write_all(HELLO).unwrap();
        let text = answer(stream);
        let said: serde_json::Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        numbers.push(said["connection"].as_u64().unwrap());
    }
    server.connections.close_all_of(std::process::id() + 1, None);
    server.connections.close_all_of(std::process::id(), Some(numbers[1]));
    assert!(is_closed(&mut open[0]) && is_closed(&mut open[2]));
    open[1].write_all(HELLO).unwrap();
    assert!(answer(&mut open[1]).starts_with("HTTP/1.1 200"));
}

#[test]
fn bodies_and_heads_have_bounds() {
    let server = Server::start();
    let length = |n: usize| format!("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: {n}\r\n\r\n").into_bytes();
    let mut stream = server.connect();
    stream.write_all(&length(65_536)).unwrap();
    stream.write_all(&vec![b'x'; 65_536]).unwrap();
    assert!(answer(&mut stream).contains("\"bytes\":65536"));
    for claimed in [65_537, usize::MAX / 2] {
        let mut stream = server.connect();
        stream.write_all(&length(claimed)).unwrap();
        let text = answer(&mut stream);
        assert!(text.starts_with("HTTP/1.1 413") && text.contains("request.too_large"), "{text}");
        assert!(is_closed(&mut stream));
    }
    let mut stream = server.connect();
    stream.write_all(b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..5 {
        let _ = stream
            .write_all(b"4000\r\n")
            .and_then(|()| stream.write_all(&[b'x'; 0x4000]))
            .and_then(|()| stream.write_all(b"\r\n"));
    }
    assert!(answer(&mut stream).starts_with("HTTP/1.1 413"));
    let mut stream = server.connect();
    let _ = stream.write_all(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(17 * 1024)).as_bytes());
    let text = answer(&mut stream);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    let mut stream = server.connect();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)).as_bytes());
    let text = answer(&mut stream);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    assert_eq!(server.asked(), 1);
}

#[test]
fn the_body_is_asked_for_after_the_facts_were_read() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n").unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 100"));
    assert_eq!(server.asked(), 0);
    stream.write_all(b"{}").unwrap();
    assert!(answer(&mut stream).contains("\"bytes\":2"));
}

#[test]
fn versions_faults_and_nonsense_have_their_answers() {
    let server = Server::start();
    for (head, want, code) in [
        ("GET /a HTTP/1.1\r\nhost: x\r\nkeyward-api: 1\r\n\r\n", "HTTP/1.1 200", "\"path\":\"/a\""),
        ("GET /a HTTP/1.1\r\nhost: x\r\nkeyward-api: 2\r\n\r\n", "HTTP/1.1 409", "broker.version"),
        ("GET /locked HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 423", "vault.locked"),
        ("\u{1}\u{2}\r\n\r\n", "HTTP/1.1 400", ""),
        ("GET /a HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 400", ""),
    ] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let text = answer(&mut stream);
        assert!(text.starts_with(want) && text.contains(code), "{head:?}: {text}");
    }
}

#[test]
fn a_clean_stop_answers_whoever_has_connected() {
    let mut server = Server::start();
    let mut waiting = server.connect();
    waiting.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut events = server.connect();
    events.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\nlast-event-id: 7\r\n\r\n").unwrap();
    assert!(answer(&mut events).contains("text/event-stream"));
    while server.asked() < 2 {
        std::thread::yield_now();
    }
    let mut queued = server.connect();
    queued.write_all(HELLO).unwrap();
    let mut idle = server.connect();
    server.stop();
    assert!(answer(&mut waiting).starts_with("HTTP/1.1 204"));
    assert!(answer(&mut queued).starts_with("HTTP/1.1 200"));
    assert!(is_closed(&mut idle));
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("last Some(\"7\")") && rest.ends_with("0\r\n\r\n"), "{rest:?}");
    assert!(UnixStream::connect(server.path()).is_err());
}

/// A server and a client on one runtime whose clock runs ahead whenever both wait: deadlines pass without waiting for them.
async fn ahead(text: &[u8]) -> (Duration, String) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let path = std::env::temp_dir().join(format!(
        "keyward-ahead-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::SeqCst)
    ));
    let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let echo = Arc::new(Echo::default());
    let (serving, stop) = (Arc::clone(&echo), std::future::pending());
    let server = tokio::spawn(async move { serve(listener, serving, Connections::new(), stop).await });
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    std::fs::remove_file(path).unwrap();
    stream.write_all(text).await.unwrap();
    let start = tokio::time::Instant::now();
    let mut all = Vec::new();
    if text.starts_with(b"GET /large") {
        // Takes nothing until the server has given up.
        while echo.closed.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let after = start.elapsed();
    let _ = stream.read_to_end(&mut all).await;
    server.abort();
    (after.max(start.elapsed().min(Duration::from_secs(3600))), String::from_utf8(all).unwrap())
}

#[tokio::test(start_paused = true)]
async fn who_dawdles_is_dropped() {
    // (what is sent, seconds until the end, answer)
    for (text, seconds, want) in [
        (b"".as_slice(), 60, ""),
        (b"G", 5, ""),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b", 5, ""),
        (b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nabc", 10, "request.invalid"),
        (b"GET /never HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 150, "broker.busy"),
        (b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n", 1200, "HTTP/1.1 200"),
        (b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n", 10, "HTTP/1.1 200"),
    ] {
        let (after, answer) = ahead(text).await;
        let name = String::from_utf8_lossy(text);
        assert!(after.as_secs().abs_diff(seconds) <= 1, "{name:?} ended after {after:?}");
        assert!(answer.contains(want) && answer.is_empty() == want.is_empty(), "{name:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_does_not_wait_for_who_has_nothing_to_ask() {
    let path = std::env::temp_dir().join(format!("keyward-idle-{}", std::process::id()));
    let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let _idle = tokio::net::UnixStream::connect(&path).await.unwrap();
    std::fs::remove_file(path).unwrap();
    let start = tokio::time::Instant::now();
    serve(listener, Arc::new(Echo::default()), Connections::new(), std::future::ready(())).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
