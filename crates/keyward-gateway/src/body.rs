//! Bodies on their way through: frame by frame, counted, never gathered.
//!
//! Called by `forward`. A body never changes what it carries, but for trailers, from which credentials are taken both ways.

use crate::Authority;
use crate::echo::Echo;
use crate::forward::{Cut, Use, is_credential};
use crate::guard::Malformed;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use keyward_diag::{Code, Fault};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

/// The body of a request to an API.
pub(crate) enum Sending {
    /// Bytes that are here: none at all, or what is sent a second time, or what was signed.
    Pieces(VecDeque<Bytes>),
    /// As it comes from the client.
    Passing(Incoming, Arc<Passed>),
}

/// What has passed of the body of a request.
#[derive(Default)]
pub(crate) struct Passed {
    bytes: AtomicU64,
    /// Why it came no further, where the client is to blame.
    broke: OnceLock<Fault>,
    aside: Mutex<Option<Aside>>,
}

/// A copy of a body, for a second try. The pieces share memory with what is being sent.
struct Aside {
    pieces: VecDeque<Bytes>,
    missing: u64,
    /// Its share of the room that all such bodies have; given back on drop.
    _room: OwnedSemaphorePermit,
}

impl Passed {
    /// Counts a body, and keeps a copy of its `length` bytes as they pass.
    pub(crate) fn keeping(length: u64, room: OwnedSemaphorePermit) -> Self {
        let aside = Aside { pieces: VecDeque::new(), missing: length, _room: room };
        Self { aside: Mutex::new(Some(aside)), ..Self::default() }
    }

    /// A body that is here whole.
    pub(crate) fn gathered(pieces: VecDeque<Bytes>, room: OwnedSemaphorePermit) -> Self {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let aside = Aside { pieces, missing: 0, _room: room };
        Self { bytes: AtomicU64::new(bytes), aside: Mutex::new(Some(aside)), ..Self::default() }
    }

    /// Bytes that have left.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the client is told whose body came no further.
    pub(crate) fn broke(&self) -> Option<&Fault> {
        self.broke.get()
    }

    /// Ends the keeping, and gives the copy if it is whole.
    pub(crate) fn take(&self) -> Option<VecDeque<Bytes>> {
        self.aside().take().filter(|aside| aside.missing == 0).map(|aside| aside.pieces)
    }

    fn aside(&self) -> MutexGuard<'_, Option<Aside>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the body of a request breaks off: it is malformed, or the client went away.
pub(crate) fn broken_off(error: &hyper::Error) -> Fault {
    let held = error.source().and_then(|e| e.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    let malformed = held.and_then(|e| e.downcast_ref::<Malformed>());
    Fault::new(Code::GatewayRequest).cause(malformed.map_or("its body breaks off", |malformed| malformed.0))
}

impl Body for Sending {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Passing(body, passed) => {
                let mut polled = Pin::new(body).poll_frame(context);
                if let Poll::Ready(Some(Err(e))) = &polled {
                    passed.broke.get_or_init(|| broken_off(e));
                }
                if let Poll::Ready(Some(Ok(frame))) = &mut polled {
                    if let Some(data) = frame.data_ref() {
                        passed.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                        if let Some(aside) = &mut *passed.aside() {
                            aside.missing = aside.missing.saturating_sub(data.len() as u64);
                            aside.pieces.push_back(data.clone());
                        }
                    } else if let Some(trailers) = frame.trailers_mut() {
                        let taken: Vec<_> = trailers.keys().filter(|name| is_credential(name)).cloned().collect();
                        for name in taken {
                            trailers.remove(name);
                        }
                    }
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces(pieces) => pieces.is_empty(),
            Self::Passing(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Passing(body, _) => body.size_hint(),
        }
    }
}

/// The body of an answer to a client.
pub(crate) enum Answer<A: Authority> {
    /// One of ours.
    Ours(Option<Bytes>),
    /// As it comes from the API.
    Passing {
        /// What comes.
        body: Incoming,
        /// The use that ends with it.
        r#use: Use<A>,
        /// What is taken out of its trailers.
        echo: Echo,
        /// Resolves when what is under way is to be cut.
        cut: Cut,
    },
}

/// Why the body of an answer breaks off.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The credential was taken back.
    Cut,
    /// The upstream broke off.
    Upstream(hyper::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the credential was taken back"),
            Self::Upstream(e) => write!(f, "the upstream broke off: {e}"),
        }
    }
}

impl std::error::Error for Broken {}

impl<A: Authority> Body for Answer<A> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Ours(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing { body, r#use, echo, cut } => {
                // Asked first each time, so that the task is woken by it even while the client takes nothing.
                if cut.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Some(Err(Broken::Cut)));
                }
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Some(Ok(mut frame))) => {
                        if let Some(trailers) = frame.trailers_mut() {
                            echo.clear(trailers);
                        }
                        if let Some(data) = frame.data_ref() {
                            r#use.received(data);
                        }
                        // Whoever writes the answer asks no further when it has all that was promised, or trailers.
                        if frame.is_trailers() || body.is_end_stream() {
                            r#use.whole();
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Poll::Ready(Some(Err(e))) => {
                        r#use.broken();
                        Poll::Ready(Some(Err(Broken::Upstream(e))))
                    }
                    Poll::Ready(None) => {
                        r#use.whole();
                        Poll::Ready(None)
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(bytes) => bytes.is_none(),
            Self::Passing { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passing { body, .. } => body.size_hint(),
        }
    }
}
