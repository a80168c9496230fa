#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
//! The gateway over real sockets: raw bytes on both sides, so that nothing of a library hides what is on the wire.

use super::Gateway;
use crate::upstream::Connections;
use crate::{
    Admitted, Authority, Began, Caller, Denial, End, EndReason, Ended, Held, Placement, Route, RunToken, Slot, Upstream,
};
use keyward_core::{Attempt, Credential, Fence, ProcessId};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use uuid::Uuid;

mod callers;
mod calls;
mod fences;
mod streams;

/// Longer than anything here takes; a test that waits for this fails.
const LONG: Duration = Duration::from_secs(30);
const TOKEN: &str = "kwr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "kwr_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// What the authority of a test was told.
#[derive(Debug, Clone)]
enum Told {
    Began(Began),
    Ended(End),
    Denied(Denial),
}

/// An authority with one lease, whose credential is `secret-N` in edition N.
struct Fake {
    admitted: Mutex<Result<Admitted, Fault>>,
    ended: watch::Sender<Option<Ended>>,
    edition: AtomicU64,
    /// An edition that was refused is replaced by another.
    renews: AtomicBool,
    logs: AtomicBool,
    told: Mutex<Vec<Told>>,
    changed: watch::Sender<usize>,
    credential: Mutex<Option<Vec<u8>>>,
    /// What came to the fence: models as sent and as named, or a call and nothing.
    fenced: Mutex<Vec<Option<(String, String)>>>,
    /// What the fence answers, once it does.
    allows: watch::Sender<Option<Result<(), Fault>>>,
}

impl Authority for Fake {
    async fn admit(&self, token: RunToken) -> Result<Admitted, Fault> {
        if RunToken::of(TOKEN.as_bytes()) != Some(token) {
            return Err(Fault::new(Code::GatewayToken));
        }
        self.admitted.lock().unwrap().clone()
    }

    async fn fence(&self, _lease: Uuid, attempt: Attempt<'_>) -> Result<Slot, Fault> {
        self.fenced.lock().unwrap().push(match attempt {
            Attempt::Request => None,
            Attempt::Model(model) => Some((model.sent.to_owned(), model.name.to_owned())),
            Attempt::Call(call) => Some((call.to_owned(), String::new())),
        });
        let mut allows = self.allows.subscribe();
        let answer = allows.wait_for(Option::is_some).await.unwrap().clone();
        answer.unwrap().map(|()| None)
    }

    async fn credential(&self, _lease: Uuid, refused: Option<u64>) -> Result<Held, Fault> {
        if refused == Some(self.edition.load(Ordering::SeqCst)) && self.renews.load(Ordering::SeqCst) {
            self.edition.fetch_add(1, Ordering::SeqCst);
        }
        let edition = self.edition.load(Ordering::SeqCst);
        let token = self.credential.lock().unwrap().clone().unwrap_or_else(|| format!("secret-{edition}").into_bytes());
        let token = SecretBytes::new(token).unwrap();
        let credential = Credential { token, life: None, scope: None, facts: BTreeMap::new() };
        Ok(Held { credential: Arc::new(credential), edition })
    }

    fn began(&self, began: Began) -> Result<u64, Fault> {
        if !self.logs.load(Ordering::SeqCst) {
            return Err(Fault::new(Code::AuditUnavailable));
        }
        self.tell(Told::Began(began));
        Ok(7)
    }

    fn ended(&self, number: u64, end: End) {
        assert_eq!(number, 7);
        self.tell(Told::Ended(end));
    }

    fn denied(&self, denial: Denial) {
        self.tell(Told::Denied(denial));
    }
}

impl Fake {
    fn tell(&self, told: Told) {
        let mut all = self.told.lock().unwrap();
        all.push(told);
        self.changed.send_replace(all.len());
    }

    /// All that was told, once that is `count` things.
    async fn told(&self, count: usize) -> Vec<Told> {
        let mut changed = self.changed.subscribe();
        timeout(LONG, changed.wait_for(|told| *told >= count)).await.unwrap().unwrap();
        let told = self.told.lock().unwrap().clone();
        assert_eq!(told.len(), count, "{told:?}");
        told
    }

    /// The only use, which has ended.
    async fn used(&self) -> (Began, End) {
        match <[Told; 2]>::try_from(self.told(2).await) {
            Ok([Told::Began(began), Told::Ended(end)]) => (began, end),
            other => panic!("{other:?}"),
        }
    }

    /// The only refusal.
    async fn denied(&self) -> Denial {
        match <[Told; 1]>::try_from(self.told(1).await) {
            Ok([Told::Denied(denial)]) => denial,
            other => panic!("{other:?}"),
        }
    }
}

/// A gateway that serves one lease of this very process.
struct Bench {
    fake: Arc<Fake>,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Bench {
    async fn new(port: u16) -> Self {
        Self::with(port, |_| (), Connections::new()).await
    }

    async fn with(port: u16, change: impl FnOnce(&mut Admitted), upstream: Connections) -> Self {
        let (ended, told) = watch::channel(None);
        let mut admitted = Admitted {
            lease: Uuid::from_u128(9),
            root: process(std::process::id()),
            route: Route::find("generic").unwrap(),
            upstream: Arc::new(Upstream { tls: false, host: "127.0.0.1".into(), port, base: String::new() }),
            placement: Placement::Bearer,
            only: Arc::from(["* /{rest...}".to_owned()]),
            containers: false,
            fence: None,
            ended: told,
        };
        change(&mut admitted);
        let fake = Arc::new(Fake {
            admitted: Mutex::new(Ok(admitted)),
            ended,
            edition: AtomicU64::new(1),
            renews: AtomicBool::new(true),
            logs: AtomicBool::new(true),
            told: Mutex::default(),
            changed: watch::channel(0).0,
            credential: Mutex::default(),
            fenced: Mutex::default(),
            allows: watch::channel(Some(Ok(()))).0,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = Arc::new(Gateway::with(fake.clone(), upstream).unwrap());
        let (stop, stopping) = oneshot::channel();
        let served = tokio::spawn(gateway.serve(listener, async { drop(stopping.await) }));
        Self { fake, port, stop: Some(stop), served }
    }

    async fn client(&self) -> Wire<TcpStream> {
        Wire::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    /// A request with the run token and these lines besides.
    fn request(&self, line: &str, fields: &[&str], body: &str) -> String {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!(
            "{line} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\r\n{body}",
            self.port
        )
    }

    /// Sends a request on a connection of its own and reads the answer.
    async fn ask(&self, line: &str, fields: &[&str], body: &str) -> Message {
        self.ask_raw(&self.request(line, fields, body)).await
    }

    async fn ask_raw(&self, request: &str) -> Message {
        let mut client = self.client().await;
        client.send(request).await;
        client.message().await.unwrap()
    }
}

/// A listening upstream; each test answers as it wants.
struct Server(TcpListener);

impl Server {
    async fn new() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self(listener), port)
    }

    async fn accept(&self) -> Wire<TcpStream> {
        Wire::new(timeout(LONG, self.0.accept()).await.unwrap().unwrap().0)
    }

    /// Answers every request with 200 and `ok`, and gives what came.
    fn answering(self, answer: &'static str) -> mpsc::Receiver<Message> {
        let (came, coming) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let mut wire = self.accept().await;
                let came = came.clone();
                tokio::spawn(async move {
                    while let Some(message) = wire.message().await {
                        drop(came.send(message).await);
                        wire.send(answer).await;
                    }
                });
            }
        });
        coming
    }
}

/// A message as it came, body without framing.
#[derive(Debug)]
struct Message {
    first: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: String,
}

impl Message {
    fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(other, _)| other == name);
        let value = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice in {self:?}");
        value
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One end of a connection.
struct Wire<S> {
    stream: S,
    held: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn new(stream: S) -> Self {
        Self { stream, held: Vec::new() }
    }

    async fn send(&mut self, text: impl AsRef<[u8]>) {
        timeout(LONG, self.stream.write_all(text.as_ref())).await.unwrap().unwrap();
    }

    /// More bytes; `false` at the end, or when the connection broke.
    async fn more(&mut self) -> bool {
        let read = timeout(LONG, self.stream.read_buf(&mut self.held)).await;
        matches!(read.unwrap(), Ok(length) if length > 0)
    }

    /// What comes up to and with `end`; `None` when the connection ends before.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.held.windows(end.len()).position(|window| window == end.as_bytes()) {
                return Some(String::from_utf8(self.held.drain(..at + end.len()).collect()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.held.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.held.drain(..length).collect())
    }

    /// Everything up to the end of the connection.
    async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.held)
    }

    async fn head(&mut self) -> Option<Message> {
        let head = self.until("\r\n\r\n").await?;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Some(Message { first, fields, body: Vec::new(), trailers: String::new() })
    }

    /// A chunk; empty at the last one, which is followed by trailers or an empty line.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.until("\r\n").await?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return Some(Vec::new());
        }
        let chunk = self.exactly(size).await?;
        self.exactly(2).await?;
        Some(chunk)
    }

    async fn message(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        if message.field("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
            loop {
                let line = self.until("\r\n").await?;
                if line == "\r\n" {
                    return Some(message);
                }
                message.trailers += &line;
            }
        }
        let length = message.field("content-length").map_or(0, |length| length.parse().unwrap());
        message.body = self.exactly(length).await?;
        Some(message)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn process(pid: u32) -> ProcessId {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    ProcessId { pid, start }
}
