//! The server side of the gateway: HTTP/1.1 on a loopback socket, one for all runs.
//!
//! Accepts connections of this user and of nobody else, reads requests within bounds, and hands each to `forward`. Cuts a
//! connection whose answer is under way when its lease is taken back, even while the client reads nothing. Never decides who
//! may have what and never logs. Called by the broker, which makes the socket.

use crate::forward::{answer, is_cut, malformed};
use crate::guard::Guard;
use crate::upstream::Connections;
use crate::whose::{Monitor, Trees, program};
use crate::{Authority, Caller, Connection, Ended};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keyward_core::ProcessId;
use rustix::process::geteuid;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Most connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// From the end of an answer, or from accept, to the end of the next head.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Most fields of a head.
const FIELDS_MAX: usize = 100;
/// What is under way at a clean stop may take this long.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// After an accept that failed, since there are no descriptors left.
const PAUSE_TIME: Duration = Duration::from_millis(50);
/// Bytes of all bodies that are kept for a second try.
const COPIES_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of all bodies that are gathered to be signed.
const GATHERING_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of all bodies that are gathered to be read at a fence, where they may wait for a person.
const FENCED_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Threads that look for a process at a time.
const LOOKS_MAX: usize = 4;

/// The gateway.
///
/// Holds connections to APIs and what was seen of the processes of runs; no credential and no token.
pub struct Gateway<A> {
    pub(crate) authority: Arc<A>,
    pub(crate) upstream: Connections,
    pub(crate) copies: Arc<Semaphore>,
    pub(crate) gathering: Arc<Semaphore>,
    pub(crate) fenced: Arc<Semaphore>,
    monitor: Monitor,
    trees: Arc<Trees>,
    looks: Semaphore,
}

impl<A> std::fmt::Debug for Gateway<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

impl<A: Authority> Gateway<A> {
    /// A gateway that asks `authority`, and trusts upstreams as the system does.
    ///
    /// # Errors
    /// When the kernel has no socket monitor (sock_diag(7)): without it nobody knows who calls.
    pub fn new(authority: Arc<A>) -> io::Result<Self> {
        Self::with(authority, Connections::new())
    }

    pub(crate) fn with(authority: Arc<A>, upstream: Connections) -> io::Result<Self> {
        Ok(Self {
            authority,
            upstream,
            copies: Arc::new(Semaphore::new(COPIES_MAX_BYTES)),
            gathering: Arc::new(Semaphore::new(GATHERING_MAX_BYTES)),
            fenced: Arc::new(Semaphore::new(FENCED_MAX_BYTES)),
            monitor: Monitor::open()?,
            trees: Arc::new(Trees::default()),
            looks: Semaphore::new(LOOKS_MAX),
        })
    }

    /// Serves a listening socket on 127.0.0.1 until `stopping` resolves; then lets what is under way take two seconds. Needs a
    /// Tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the socket is none that can be served.
    pub async fn serve(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        stopping: impl Future<Output = ()>,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let local = listener.local_addr()?;
        if !local.ip().is_loopback() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let host: Arc<str> = local.to_string().into();
        let (stop, stopped) = watch::channel(false);
        let mut open = JoinSet::new();
        let mut number = 0;
        let mut stopping = pin!(stopping);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) if open.len() < CONNECTIONS_MAX => {
                        number += 1;
                        let Some(inode) = self.inode(from, local) else { continue };
                        let peer = Peer::new(Connection { number, peer: from, inode }, host.clone());
                        open.spawn(connection(self.clone(), stream, peer, stopped.clone()));
                    }
                    Ok(_) => {}
                    Err(_) => sleep(PAUSE_TIME).await,
                },
            }
        }
        drop(listener);
        stop.send_replace(true);
        let drained = async { while open.join_next().await.is_some() {} };
        // What is left then is dropped where it stands.
        drop(timeout(DRAIN_TIME, drained).await);
        Ok(())
    }

    /// The client's socket, if it is this user's.
    fn inode(&self, from: SocketAddr, local: SocketAddr) -> Option<u32> {
        let socket = self.monitor.ask(from, local).ok()?;
        (socket.uid == geteuid().as_raw()).then_some(socket.inode)
    }

    /// Which process of the run of `root` holds the client's end of a connection, and its program.
    pub(crate) async fn look(&self, root: ProcessId, connection: Connection) -> Option<Called> {
        let asked = Instant::now();
        let _look = self.looks.acquire().await.ok()?;
        let trees = self.trees.clone();
        let look = move || trees.caller(root, connection, asked).map(|caller| (caller, program(caller)));
        tokio::task::spawn_blocking(look).await.ok()?
    }
}

/// Which process calls, and the path of its program where that could be read.
pub(crate) type Called = (Caller, Option<Arc<str>>);

/// The client's end of a connection, and what is known of it.
pub(crate) struct Peer {
    /// As the kernel told it at accept.
    pub(crate) connection: Connection,
    /// What `Host` must be.
    pub(crate) host: Arc<str>,
    caller: Mutex<Option<(ProcessId, Called)>>,
    under_way: Mutex<Option<watch::Receiver<Option<Ended>>>>,
}

impl Peer {
    fn new(connection: Connection, host: Arc<str>) -> Arc<Self> {
        Arc::new(Self { connection, host, caller: Mutex::new(None), under_way: Mutex::new(None) })
    }

    /// Who calls, if that was looked up for the run of `root`.
    pub(crate) fn caller(&self, root: ProcessId) -> Option<Called> {
        lock(&self.caller).as_ref().filter(|(of, _)| *of == root).map(|(_, called)| called.clone())
    }

    /// Keeps who calls.
    pub(crate) fn remember(&self, root: ProcessId, called: Called) {
        *lock(&self.caller) = Some((root, called));
    }

    /// Notes the lease of the answer that is being written, if one is.
    pub(crate) fn under_way(&self, ended: Option<watch::Receiver<Option<Ended>>>) {
        *lock(&self.under_way) = ended;
    }

    fn is_cut(&self) -> bool {
        lock(&self.under_way).as_ref().is_some_and(is_cut)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to its end.
async fn connection<A: Authority>(
    gateway: Arc<Gateway<A>>,
    stream: TcpStream,
    peer: Arc<Peer>,
    mut stopped: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let guard = Guard::new(stream);
    let heads = guard.heads();
    let service = service_fn(|request| {
        let (gateway, peer, head) = (&gateway, &peer, heads.next());
        async move {
            Ok::<_, Infallible>(match head {
                Ok(()) => answer(gateway, peer, request).await,
                Err(fault) => malformed(gateway, fault),
            })
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(guard), service);
    let mut serving = pin!(serving);
    let mut stopping = pin!(async move { stopped.wait_for(|stopped| *stopped).await.is_ok() });
    let mut is_stopping = false;
    poll_fn(|context| {
        // A client that takes nothing keeps the writer from asking for more, and so from seeing the cut.
        if peer.is_cut() {
            return Poll::Ready(());
        }
        if !is_stopping && stopping.as_mut().poll(context).is_ready() {
            is_stopping = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context).map(drop)
    })
    .await;
}

#[cfg(test)]
mod tests;
