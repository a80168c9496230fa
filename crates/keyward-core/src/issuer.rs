//! The port to the issuers, and what one makes.

use crate::{KindSpec, Profile, Wall};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What an issuer made. In memory only.
pub struct Credential {
    /// The bytes.
    pub token: SecretBytes,
    /// Life from the moment of receipt; `None` when it does not end by itself.
    pub life: Option<Duration>,
    /// Scope, where the issuer says one.
    pub scope: Option<String>,
    /// What may be shown and recorded about the exchange, by name: the request id, claims of the assertion.
    pub facts: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("life", &self.life).finish_non_exhaustive()
    }
}

/// All that an issuer needs for one exchange: the profile and the secrets that it names, by name.
pub struct Order {
    /// The profile.
    pub profile: Profile,
    /// The stored secrets that the profile refers to.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// The assertion that a requester supplied, for an identity source that cannot be read from here.
    pub supplied: Option<SecretBytes>,
    /// The memory of assertions that may be presented once.
    pub once: Arc<dyn Once>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("profile", &self.profile.name).finish_non_exhaustive()
    }
}

/// Remembers assertions that may be presented once, for longer than this process lives.
pub trait Once: Send + Sync {
    /// Records durably that an assertion is about to be presented, and says whether it never was before. `digest` names it
    /// without telling it; from `until` on it need not be remembered.
    ///
    /// # Errors
    /// The reason why it could not be recorded; then it must not be presented.
    fn present(&self, digest: [u8; 32], until: Wall) -> Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + '_>>;

    /// Takes that back: it is certain that the assertion was not sent.
    ///
    /// # Errors
    /// The reason why it could not be taken back; the assertion counts as presented then.
    fn withdraw(&self, digest: [u8; 32]) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + '_>>;
}

/// What a failure asks of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may pass by itself; not to be tried again before the time that the issuer named, if it named one.
    Passing(Option<Duration>),
    /// The issuer refused what it was given: trying again without a change is pointless.
    Refused,
    /// The identity source has no assertion that was not presented before. Nothing was sent.
    NoAssertion,
}

/// Why no credential was made. Causes never quote what the issuer printed or answered where that could hold a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{fault}")]
pub struct IssueError {
    /// The words.
    pub fault: Fault,
    /// What it asks of the next try.
    pub failure: Failure,
}

impl IssueError {
    /// A failure that may pass by itself, with one cause.
    pub fn passing(code: Code, cause: impl fmt::Display) -> Self {
        Self { fault: Fault::new(code).cause(cause), failure: Failure::Passing(None) }
    }

    /// A failure that stays until something changes, with one cause.
    pub fn refused(code: Code, cause: impl fmt::Display) -> Self {
        Self { fault: Fault::new(code).cause(cause), failure: Failure::Refused }
    }
}

/// An exchange under way.
pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Credential, IssueError>> + Send + 'a>>;

/// A look at what stands beside the credentials under way.
pub type Beside<'a> = Pin<Box<dyn Future<Output = BTreeMap<&'static str, String>> + Send + 'a>>;

/// A look at an identity source under way.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Option<[u8; 32]>> + Send + 'a>>;

/// What became of taking a credential back at its issuer.
#[derive(Debug, Clone)]
pub enum Revocation {
    /// The issuer has ended it.
    Done,
    /// It cannot be taken back, for the reason in these words, which go on after "it".
    Impossible(String),
    /// It could be taken back, and was not. It counts as live.
    Failed(Fault),
}

impl Revocation {
    /// Of an issuer that takes nothing back.
    pub fn impossible(credential: &Credential) -> Self {
        let why = match credential.life {
            Some(_) => "ends by itself, and its issuer takes nothing back before",
            None => "does not end by itself: revoke it at its issuer",
        };
        Self::Impossible(why.to_owned())
    }
}

/// A revocation under way.
pub type Revoking<'a> = Pin<Box<dyn Future<Output = Revocation> + Send + 'a>>;

/// A kind of source that makes credentials. Stateless: caching, single flight and retries are the broker's.
pub trait Issuer: Send + Sync {
    /// Its description.
    fn spec(&self) -> &'static KindSpec;

    /// Makes one credential, within the time that the profile allows.
    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a>;

    /// Whether `issue` asks something outside of the vault, so that its answer is worth keeping and renewing.
    fn exchanges(&self) -> bool {
        true
    }

    /// What files of this machine say about settings that the profile leaves out, by the name of the field: a region, a
    /// project. It is written into the profile when that is stored, so that where requests go stands there. Asks no host; what
    /// cannot be read says nothing.
    fn beside<'a>(&'a self, _order: &'a Order) -> Beside<'a> {
        Box::pin(std::future::ready(BTreeMap::new()))
    }

    /// A digest of what the identity source holds, where looking at it costs nothing and asks nobody: when it changes, an
    /// exchange that was refused is worth another try.
    fn look<'a>(&'a self, _order: &'a Order) -> Looking<'a> {
        Box::pin(std::future::ready(None))
    }

    /// Ends a credential that `issue` made for the same profile, within the time that the profile allows. An issuer that
    /// can takes it back at once and for all who hold it; the others say why they cannot.
    fn revoke<'a>(&'a self, _order: &'a Order, credential: &'a Credential) -> Revoking<'a> {
        Box::pin(std::future::ready(Revocation::impossible(credential)))
    }
}
