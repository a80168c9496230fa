//! The port to the issuers, and what one makes.

use crate::{KindSpec, Profile};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// What an issuer made. In memory only.
pub struct Credential {
    /// The bytes.
    pub token: SecretBytes,
    /// Life from the moment of receipt; `None` when it does not end by itself.
    pub life: Option<Duration>,
    /// Scope, where the issuer says one.
    pub scope: Option<String>,
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
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("profile", &self.profile.name).finish_non_exhaustive()
    }
}

/// Why no credential was made. Causes never quote what the issuer printed or answered where that could hold a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {cause}")]
pub struct IssueError {
    /// Names the class: [`Code::IssuerFailed`], [`Code::IssuerTimeout`], [`Code::IssuerAnswer`], [`Code::SecretUnknown`].
    pub code: Code,
    /// One sentence.
    pub cause: String,
    /// Trying again without a change is pointless.
    pub permanent: bool,
}

impl IssueError {
    /// The words of the error.
    pub fn fault(&self) -> Fault {
        Fault::new(self.code).cause(&self.cause)
    }
}

/// An exchange under way.
pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Credential, IssueError>> + Send + 'a>>;

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
}
