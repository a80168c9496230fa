//! What the gateway asks of the broker: the only way in which the two know each other.

use crate::routes::Route;
use keyward_core::{Attempt, Credential, Fence, ProcessId, Usd};
pub use keyward_core::{Placement, Upstream};
use keyward_diag::Fault;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

/// SHA-256 of a run token (32 random bytes, written `kwr_` and 43 characters of base64url). The gateway hashes what a client
/// sent before anything compares it; the token itself is in no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunToken(pub [u8; 32]);

impl RunToken {
    /// What every run token begins with.
    pub const PREFIX: &str = "kwr_";
    /// Characters of base64url (RFC 4648 section 5, without padding) after the prefix.
    pub const CHARACTERS: usize = 43;

    /// The digest of a token, over all of its text; `None` for what has not the form of one.
    pub fn of(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(Self::PREFIX.as_bytes())?;
        let form = rest.len() == Self::CHARACTERS
            && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        form.then(|| Self(Sha256::digest(text).into()))
    }
}

/// A connection, as the kernel tells it at accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// A number of this process, never used twice.
    pub number: u64,
    /// The client's end.
    pub peer: SocketAddr,
    /// Inode of the client's socket, from `sock_diag` (sock_diag(7)).
    pub inode: u32,
}

/// Which process of the run made a call: the one whose descriptors hold the client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// That one alone.
    Exact(ProcessId),
    /// So many share the socket; the first of them.
    OneOf(u32, ProcessId),
    /// It could not be told: the processes of the run cannot be read, or the profile lets containers in.
    Unknown,
}

/// What a run token opens.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The lease that the token stands for.
    pub lease: Uuid,
    /// Root of the run.
    pub root: ProcessId,
    /// Which API it is: what may be called, and the shape of errors.
    pub route: &'static Route,
    /// Where requests go.
    pub upstream: Arc<Upstream>,
    /// How the credential is put on them.
    pub placement: Placement,
    /// The profile's own list, as `METHOD /path` patterns of the same form as those of a route, and what a route refuses may be
    /// named here. When not empty, nothing else may be called, but what the route has and a person allows.
    pub only: Arc<[String]>,
    /// Connections of processes that are not in the tree of the run are let in, as those of containers are not.
    pub containers: bool,
    /// Limits of the lease, which are asked for with [`Authority::fence`].
    pub fence: Option<Arc<Fence>>,
    /// Becomes something when the lease ends; a sender that is dropped without a word counts as [`Ended::Released`].
    pub ended: watch::Receiver<Option<Ended>>,
}

/// How a lease ended, for the requests that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was up: what is under way may finish.
    Expired,
    /// It was taken back, at lock too: what is under way is cut.
    Revoked,
    /// The run is over: what is under way is cut.
    Released,
}

/// A credential for one request.
#[derive(Debug, Clone)]
pub struct Held {
    /// The credential.
    pub credential: Arc<Credential>,
    /// Which one of the profile it is: another number is another credential.
    pub edition: u64,
}

/// A use, when the request is about to leave.
#[derive(Debug, Clone)]
pub struct Began {
    /// The lease.
    pub lease: Uuid,
    /// Which process called.
    pub caller: Caller,
    /// Path of its program when it was looked up, printable and at most 4096 characters; `None` where it could not be read.
    pub program: Option<Arc<str>>,
    /// Method.
    pub method: String,
    /// Host that it goes to.
    pub host: String,
    /// Path without query, as sent.
    pub path: String,
}

/// The end of a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Status of the upstream's answer, or of ours where there was none; 0 where the client got neither.
    pub status: u16,
    /// Request id of the upstream (`request-id`, `x-request-id`, `x-amzn-requestid`, `x-github-request-id`), printable
    /// ASCII, at most 128 bytes.
    pub request_id: Option<String>,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body.
    pub received: u64,
    /// From the head of the request to the end of the answer.
    pub took: Duration,
    /// Why it ended.
    pub reason: EndReason,
    /// What it cost, where the fence of the lease counts that and the call is one that costs.
    pub usd: Option<Usd>,
}

/// Why a use ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The answer was passed on whole.
    Whole,
    /// The client went away.
    Client,
    /// The upstream broke off, or could not be reached.
    Upstream,
    /// It was cut, since the credential was taken back.
    Cut,
}

/// A request that was refused and is recorded.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The lease whose token it had, where that was let in.
    pub lease: Option<Uuid>,
    /// The token that it had, which may be that of a lease that is over.
    pub token: Option<RunToken>,
    /// Why.
    pub fault: Fault,
    /// Method and path, made printable and cut to 512 bytes; empty where there were none.
    pub what: String,
}

/// A place among the calls of a lease whose cost is not known yet; given back on drop.
pub type Slot = Option<OwnedSemaphorePermit>;

/// Who decides. Implemented by the broker.
pub trait Authority: Send + Sync + 'static {
    /// What a run token opens at this moment: never for a run whose program is not verified, whose lease is over, or while
    /// the vault is locked. Asks no host.
    ///
    /// # Errors
    /// The reason, with the code that the child is told.
    fn admit(&self, token: RunToken) -> impl Future<Output = Result<Admitted, Fault>> + Send;

    /// Lets a request of a lease with a fence through, and counts it. Waits where there is no room: for a moment, or for a
    /// person who is asked, 120 s at most. What is given for one that a model answers is held as long as its answer lasts, so
    /// that not too many of unknown cost are under way at once. A request that names several models, of a lease whose fence
    /// does not count money, comes once with each of them; one that the profile's own list leaves out comes with that first,
    /// whether its lease has a fence or not.
    ///
    /// # Errors
    /// `fence.reached` when nobody allowed more; those of [`Authority::admit`] when the lease ended meanwhile.
    fn fence(&self, lease: Uuid, attempt: Attempt<'_>) -> impl Future<Output = Result<Slot, Fault>> + Send;

    /// The credential of a lease, good at this moment; `refused` is the edition that the upstream answered 401 to. One
    /// exchange serves all who ask.
    ///
    /// # Errors
    /// Those of the exchange.
    fn credential(&self, lease: Uuid, refused: Option<u64>) -> impl Future<Output = Result<Held, Fault>> + Send;

    /// Notes a use before the request leaves; it is in the log 100 ms later at the latest. Gives its number.
    ///
    /// # Errors
    /// `audit.unavailable` when the log cannot take it; then nothing leaves.
    fn began(&self, began: Began) -> Result<u64, Fault>;

    /// Notes the end of a use.
    fn ended(&self, number: u64, end: End);

    /// Notes a refusal; the same of one peer are counted, not listed.
    fn denied(&self, denial: Denial);
}
