//! The LocalAPI server: HTTP/1.1 over the inherited Unix socket.
//!
//! Accepts, pins the peer, reads one request at a time within bounds and deadlines, hands it to the [`Handler`] with
//! the peer's facts as of that request, and writes the answer. Bytes that another process than the pinned peer has
//! sent, and messages that carry descriptors, close the connection. Never knows a route, never decides, and never logs
//! a path, a body or a header. Called by the worker; the handler is the composition root.
//!
//! A request is dropped where it stands when its peer ends or hangs up: a handler does what must not be torn in a task
//! of its own.

use crate::peer::{Peer, PeerError};
use crate::platform::{pollable, receive};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keyward_api::{API_VERSION, BODY_MAX_BYTES, VERSION_HEADER};
use keyward_core::ProcessId;
use keyward_diag::{Code, Fault};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use zeroize::Zeroizing;

/// Longest request head, in bytes.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Most header fields of a request.
const FIELDS_MAX: usize = 64;
/// Connections in all.
const CONNECTIONS_MAX: usize = 256;
/// Connections of one process.
const PER_PROCESS_MAX: usize = 16;
/// From the first byte of a head to its last.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// From the end of the head to the end of the body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// From the end of the body to the answer; longer than a person may take to decide.
const ANSWER_TIME: Duration = Duration::from_secs(150);
/// A peer that takes no byte for this long is dropped.
const STALL_TIME: Duration = Duration::from_secs(10);
/// From accept to the first byte of the first request.
const FIRST_TIME: Duration = Duration::from_secs(60);
/// Between two requests; longer than an operator may idle.
const IDLE_TIME: Duration = Duration::from_secs(20 * 60);
/// From the start of a clean stop to the first byte of a request of somebody who has connected before.
const LAST_TIME: Duration = Duration::from_millis(200);
/// What is under way at a clean stop may take this long.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// One request of a pinned peer.
#[derive(Debug)]
pub struct Request {
    /// Who asks, with facts that were read after the head and before the body of this request.
    pub peer: Arc<Peer>,
    /// Method.
    pub method: Method,
    /// Path and query, as sent.
    pub path: String,
    /// `Last-Event-ID` of a client that resumes a stream (HTML living standard, server-sent events).
    pub last_event_id: Option<String>,
    /// At most [`BODY_MAX_BYTES`]; wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

/// What is sent back.
#[derive(Debug)]
pub enum Answer {
    /// A JSON document; wiped once it is written.
    Json {
        /// HTTP status.
        status: u16,
        /// The document.
        body: Zeroizing<Vec<u8>>,
    },
    /// 200 with bytes as they come, until the sender is dropped. The queue is the handler's: one that is full means a
    /// slow reader.
    Stream {
        /// `Content-Type`.
        content_type: &'static str,
        /// The bytes; each piece is sent at once.
        body: mpsc::Receiver<Bytes>,
    },
    /// 204.
    Empty,
    /// The fault as JSON, with the status of its exit class.
    Fault(Fault),
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    /// One request of a pinned peer. Dropped where it stands when the peer ends or hangs up.
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send;

    /// The connection of `peer` has closed. Called once for each connection that asked anything.
    fn closed(&self, peer: &Peer);

    /// A clean stop begins: ends streams and answers requests that wait for something, so that the connections drain.
    fn stopping(&self);
}

/// All open connections. A handle: clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Open>,
    /// The roots of live runs.
    roots: HashSet<ProcessId>,
}

#[derive(Debug)]
struct Open {
    peer: Peer,
    close: Arc<Notify>,
    /// A whole request other than a stream is under way.
    busy: bool,
    /// When it was accepted, or answered last.
    since: Instant,
    /// A person has proven the passphrase on it.
    proven: bool,
    /// Whose it is, once that was needed.
    asker: Option<ProcessId>,
}

impl Connections {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes the connections of process `pid`, except `keep`: for a process that becomes the root of a run, `keep` is
    /// the connection on which it asked for that.
    pub fn close_all_of(&self, pid: u32, keep: Option<u64>) {
        for (connection, open) in &self.table().open {
            if open.peer.process().pid == pid && Some(*connection) != keep {
                open.close.notify_one();
            }
        }
    }

    /// Counts the connections of all processes below this one together from here on: it is the root of a run.
    pub fn run_began(&self, root: ProcessId) {
        self.table().roots.insert(root);
    }

    /// Counts what is left below this process by itself again: its run is over.
    pub fn run_over(&self, root: ProcessId) {
        self.table().roots.remove(&root);
    }

    /// Keeps a connection on which a person has proven the passphrase as long as any other one can make room.
    pub fn proven(&self, connection: u64) {
        if let Some(open) = self.table().open.get_mut(&connection) {
            open.proven = true;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        let mut table = self.table();
        table.last += 1;
        table.last
    }

    /// Closes every connection but one, which proves nothing any more: after a lock nothing that was answered stays in a
    /// buffer.
    pub fn close_all_but(&self, keep: Option<u64>) {
        for (connection, open) in &mut self.table().open {
            open.proven = false;
            if Some(*connection) != keep {
                open.close.notify_one();
            }
        }
    }

    /// A whole request has come on a connection, or was answered.
    fn busy(&self, connection: u64, busy: bool) {
        if let Some(open) = self.table().open.get_mut(&connection) {
            open.busy = busy;
            open.since = if busy { open.since } else { Instant::now() };
        }
    }

    /// Enters a connection, or not when its process has too many. When there are too many in all, another one makes room:
    /// processes that hold connections, or never finish a request, cannot keep a person from locking.
    fn enter(&self, peer: &Peer) -> Option<Entered> {
        let mut table = self.table();
        let of_process = table.open.values().filter(|o| o.peer.process().pid == peer.process().pid).count();
        if of_process >= PER_PROCESS_MAX {
            return None;
        }
        if table.open.len() >= CONNECTIONS_MAX {
            let first = table.first_to_go(peer)?;
            let gone = table.open.remove(&first)?;
            gone.close.notify_one();
        }
        let close = Arc::new(Notify::new());
        let open = Open {
            peer: peer.clone(),
            close: Arc::clone(&close),
            busy: false,
            since: Instant::now(),
            proven: false,
            asker: None,
        };
        table.open.insert(peer.connection(), open);
        Some(Entered { connections: self.clone(), connection: peer.connection(), close })
    }
}

impl Table {
    /// The connection that makes room for a newcomer: of those without a whole request under way one of the asker that has
    /// most, and of these the one that was answered, or accepted, the longest time ago. One that is in use, or that a person
    /// has proven the passphrase on, goes after all others, and only for an asker that has fewer.
    fn first_to_go(&mut self, newcomer: &Peer) -> Option<u64> {
        let Self { open, roots, .. } = self;
        let mut held: HashMap<ProcessId, usize> = HashMap::new();
        for open in open.values_mut() {
            let asker = *open.asker.get_or_insert_with(|| asker(&open.peer, roots));
            *held.entry(asker).or_default() += 1;
        }
        let has = |asker: Option<ProcessId>| asker.and_then(|asker| held.get(&asker)).copied().unwrap_or_default();
        let own = has(Some(asker(newcomer, roots)));
        let can_go = |open: &&Open| !(open.busy || open.proven) || has(open.asker) > own;
        let rank = |open: &Open| (open.proven, open.busy, Reverse(has(open.asker)), open.since);
        let others = open.iter().filter(|(_, open)| can_go(open));
        others.min_by_key(|(connection, open)| (rank(open), **connection)).map(|(connection, _)| *connection)
    }
}

/// Whose connection it is: of the outermost run that the peer lies in, else of the process that has started it.
fn asker(peer: &Peer, roots: &HashSet<ProcessId>) -> ProcessId {
    let peer = peer.refresh();
    let parents = peer.parents().unwrap_or_default();
    let outermost = parents.iter().rev().chain([&peer.process()]).find(|process| roots.contains(process)).copied();
    let started_by = parents.first().filter(|parent| parent.pid > 1).copied();
    outermost.or(started_by).unwrap_or_else(|| peer.process())
}

/// Leaves the table on drop.
struct Entered {
    connections: Connections,
    connection: u64,
    close: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.connection);
    }
}

/// Serves until `stop` resolves, then what is already connected, for at most 5 s. `stop` removes the socket file, so
/// that nobody connects to a server that is about to end; whoever had connected before is still answered.
///
/// `listener` must be a listening Unix stream socket, with `SO_PASSCRED` set before anyone could connect: bytes that
/// were sent into its queue without it name no sender, and close their connection.
///
/// # Errors
/// When the listener cannot be used at all. A connection that fails ends by itself.
pub async fn serve<H: Handler>(
    listener: OwnedFd,
    handler: Arc<H>,
    connections: Connections,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    rustix::net::sockopt::set_socket_passcred(&listener, true)?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    let listener = pollable(listener, Interest::READABLE)?;
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = tasks.join_next() => {}
            guard = listener.readable() => {
                let mut guard = guard?;
                match accept(listener.get_ref()) {
                    Ok(socket) => {
                        let run = connection(socket, Arc::clone(&handler), connections.clone(), stopped.clone());
                        tasks.spawn(run);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => {}
                    Err(e) => {
                        // Out of descriptors or memory: connections that end will free some.
                        tracing::warn!(target: "keyward::server", errno = e.raw_os_error(), "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }
    handler.stopping();
    while let Ok(socket) = accept(listener.get_ref()) {
        tasks.spawn(connection(socket, Arc::clone(&handler), connections.clone(), stopped.clone()));
    }
    drop(listener);
    stopping.send_replace(true);
    let until = Instant::now() + DRAIN_TIME;
    while let Ok(Some(_)) = timeout_at(until, tasks.join_next()).await {}
    Ok(())
}

fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::net::{SocketFlags, accept_with};
    let socket = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // Inherited from the listener already, except by what was queued before the listener had it.
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    Ok(socket)
}

async fn connection<H: Handler>(
    socket: OwnedFd,
    handler: Arc<H>,
    connections: Connections,
    mut stopped: watch::Receiver<bool>,
) {
    let number = connections.next();
    let peer = match Peer::pin(&socket, number) {
        Ok(peer) => peer,
        Err(e @ (PeerError::OtherUser | PeerError::NotPinned | PeerError::Kernel)) => {
            tracing::warn!(target: "keyward::server", connection = number, "refused: {e}");
            return;
        }
    };
    let Some(entered) = connections.enter(&peer) else {
        tracing::warn!(target: "keyward::server", "{peer} refused: too many connections");
        refuse_busy(&socket);
        return;
    };
    let phase = Phase::new();
    let (Ok(stream), Ok(Ok(gone))) =
        (Stream::new(socket, &peer, phase.clone()), peer.pidfd().map(|fd| pollable(fd, Interest::READABLE)))
    else {
        return;
    };
    let asked: Arc<Mutex<Option<Arc<Peer>>>> = Arc::default();
    let service = service_fn(|request: HttpRequest<Incoming>| {
        phase.set(None);
        let fresh = Arc::new(peer.refresh());
        let (handler, phase, connections) = (Arc::clone(&handler), phase.clone(), connections.clone());
        let asked = Arc::clone(&asked);
        async move {
            let answer = match read(request, fresh).await {
                Ok(request) => {
                    // What never ends was never asked: its end is no work for anybody.
                    *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&request.peer));
                    connections.busy(number, true);
                    let answer = timeout(ANSWER_TIME, handler.handle(request)).await;
                    answer.unwrap_or_else(|_| Fault::new(Code::Busy).cause("no answer in time").into())
                }
                Err(fault) => fault.into(),
            };
            connections.busy(number, false);
            if !matches!(answer, Answer::Stream { .. }) {
                phase.set(Some(IDLE_TIME));
            }
            Ok::<_, Infallible>(response(answer))
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_buf_size(HEAD_MAX_BYTES).max_headers(FIELDS_MAX);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    {
        let mut serving = pin!(serving);
        let mut deadline = pin!(sleep_until(phase.at()));
        let mut close = pin!(entered.close.notified());
        let mut ended = pin!(gone.readable());
        let mut stop = pin!(stopped.wait_for(|s| *s));
        let (mut stopping, mut graceful) = (false, false);
        poll_fn(|cx| {
            if close.as_mut().poll(cx).is_ready() || ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                phase.hurry();
            }
            loop {
                if serving.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // One that has connected and not asked yet may still do so; HTTP would close it at once.
                if graceful || !stopping || asked.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    break;
                }
                graceful = true;
                serving.as_mut().graceful_shutdown();
            }
            // Only polling the connection moves the phase, so the deadline is right after each poll.
            if deadline.deadline() != phase.at() {
                deadline.as_mut().reset(phase.at());
            }
            deadline.as_mut().poll(cx)
        })
        .await;
    }
    drop(entered);
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(peer) = asked {
        handler.closed(&peer);
    }
}

/// Says `busy` in so many bytes; what cannot be written at once is not written.
fn refuse_busy(socket: &OwnedFd) {
    let body = serde_json::to_vec(&Fault::new(Code::Busy).cause("too many connections")).unwrap_or_default();
    let mut text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend(body);
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(socket, &text, flags);
}

/// Reads a request to its end.
async fn read(request: HttpRequest<Incoming>, peer: Arc<Peer>) -> Result<Request, Fault> {
    let (head, body) = request.into_parts();
    if let Some(version) = head.headers.get(VERSION_HEADER)
        && version.as_bytes() != API_VERSION.to_string().as_bytes()
    {
        let cause = format!("the client and the broker ({API_VERSION}) speak different versions of the LocalAPI");
        return Err(Fault::new(Code::BrokerVersion).cause(cause));
    }
    let late = |_| Fault::new(Code::RequestInvalid).cause("the body took too long");
    let body = timeout(BODY_TIME, collect(body)).await.map_err(late)??;
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let last_event_id = head.headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(Request { peer, method: head.method, path, last_event_id, body })
}

async fn collect(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let hint = body.size_hint();
    if hint.lower() > BODY_MAX_BYTES as u64 {
        return Err(Code::RequestTooLarge.into());
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = hint.exact().and_then(|n| usize::try_from(n).ok()).unwrap_or(BODY_MAX_BYTES);
    let mut all = Zeroizing::new(Vec::with_capacity(room));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::new(Code::RequestInvalid).cause("the body ended early"))?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > BODY_MAX_BYTES {
                return Err(Code::RequestTooLarge.into());
            }
            all.extend_from_slice(data);
        }
    }
    Ok(all)
}

fn response(answer: Answer) -> Response<Outgoing> {
    let (status, content_type, body, close) = match answer {
        Answer::Json { status, body } => (status, "application/json", Outgoing::whole(body), false),
        Answer::Stream { content_type, body } => (200, content_type, Outgoing::Pieces(body), false),
        Answer::Empty => (204, "", Outgoing::Whole(None), false),
        Answer::Fault(fault) => {
            let body = Zeroizing::new(serde_json::to_vec(&fault).unwrap_or_default());
            (status_of(fault.code), "application/json", Outgoing::whole(body), fault.code == Code::RequestTooLarge)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// HTTP status of a fault, by its exit class; clients decide by the code in the body.
fn status_of(code: Code) -> u16 {
    match (code, code.exit()) {
        (Code::RequestTooLarge, _) => 413,
        (_, 3) => 423,
        (_, 4) => 403,
        (_, 5) => 409,
        (_, 6) => 503,
        (_, 7 | 70) => 500,
        _ => 400,
    }
}

/// The body of an answer.
enum Outgoing {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Outgoing {
    /// Keeps the wiping owner of the bytes until they are written.
    fn whole(body: Zeroizing<Vec<u8>>) -> Self {
        Self::Whole(Some(Bytes::from_owner(body)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Pieces(queue) => queue.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// When the connection is dropped if nothing more happens.
#[derive(Debug, Clone)]
struct Phase(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    until: Instant,
    /// No byte of the next head has come yet.
    idle: bool,
}

impl Phase {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State { until: Instant::now() + FIRST_TIME, idle: true })))
    }

    /// Waits for the next head, or (`None`) lets a request take the time that its own deadlines allow.
    fn set(&self, idle: Option<Duration>) {
        // Far enough to never be reached, near enough not to overflow.
        const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
        *self.state() = State { until: Instant::now() + idle.unwrap_or(NEVER), idle: idle.is_some() };
    }

    /// A byte has come: the head that it begins must end soon.
    fn byte(&self) {
        let mut state = self.state();
        if state.idle {
            *state = State { until: Instant::now() + HEAD_TIME, idle: false };
        }
    }

    /// At a clean stop: who has connected and not begun to ask may still do so, but soon.
    fn hurry(&self) {
        let mut state = self.state();
        if state.idle {
            state.until = state.until.min(Instant::now() + LAST_TIME);
        }
    }

    fn at(&self) -> Instant {
        self.state().until
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that hears its pinned peer alone.
struct Stream {
    socket: AsyncFd<OwnedFd>,
    peer: Peer,
    phase: Phase,
    /// Set while the peer takes no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    fn new(socket: OwnedFd, peer: &Peer, phase: Phase) -> io::Result<Self> {
        Ok(Self {
            socket: pollable(socket, Interest::READABLE | Interest::WRITABLE)?,
            peer: peer.clone(),
            phase,
            stalled: None,
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            let received = match receive(self.socket.get_ref(), buf.initialize_unfilled()) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Poll::Ready(Err(e)),
            };
            if received.bytes == 0 && !received.extras {
                return Poll::Ready(Ok(()));
            }
            let from_peer = received.sender.is_some_and(|s| s.pid == self.peer.process().pid);
            // Only while the peer lives does its pid mean the peer.
            if received.extras || !from_peer || !self.peer.is_alive() {
                tracing::warn!(target: "keyward::server", "{} closed: foreign message", self.peer);
                return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
            }
            self.phase.byte();
            buf.advance(received.bytes);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        use rustix::net::{SendFlags, send};
        if !self.peer.is_alive() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while let Poll::Ready(guard) = self.socket.poll_write_ready(cx) {
            let mut guard = guard?;
            match send(self.socket.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.stalled = None;
                    return Poll::Ready(Ok(sent));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIME)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
