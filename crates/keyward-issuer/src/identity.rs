//! Identity sources: where an issuer gets its assertion, one module each.
//!
//! To add one: write a file beside the others with a type that implements [`Source`], and add its line to [`IDENTITIES`].
//! A source gives away nothing that does not have the form of an assertion, and its errors never quote what it read. Called
//! by the issuers that take an assertion.

mod client_credentials;
mod command;
mod env_token;
mod file;

use crate::jwt::Assertion;
use keyward_core::{Failure, Identity, IssueError, KindSpec, Looking, Order};
use keyward_diag::{Code, Fault};
use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

/// All identity sources of this version.
pub(crate) const IDENTITIES: &[&dyn Source] =
    &[&file::File, &command::Command, &client_credentials::ClientCredentials, &env_token::EnvToken];

/// A reading under way.
pub(crate) type Reading<'a> = Pin<Box<dyn Future<Output = Result<Assertion, IssueError>> + Send + 'a>>;

/// A kind of place where assertions come from.
pub(crate) trait Source: Sync {
    /// Its description.
    fn spec(&self) -> &'static KindSpec;

    /// Gets an assertion; nothing is kept between two calls.
    fn read<'a>(&'a self, identity: &'a Identity, order: &'a Order) -> Reading<'a>;

    /// As [`keyward_core::Issuer::look`].
    fn look<'a>(&'a self, _identity: &'a Identity) -> Looking<'a> {
        Box::pin(std::future::ready(None))
    }

    /// How long it is worth to read again and again where the assertion was presented before.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
}

/// The identity source that a profile names.
///
/// # Errors
/// [`Code::ProfileInvalid`] where it names none.
pub(crate) fn of(order: &Order) -> Result<(&'static dyn Source, &Identity), IssueError> {
    let named = order.profile.identity.as_ref().and_then(|identity| {
        let source = IDENTITIES.iter().find(|source| source.spec().kind == identity.kind.kind)?;
        Some((*source, identity))
    });
    named.ok_or_else(|| IssueError::refused(Code::ProfileInvalid, "the profile names no identity source"))
}

/// There is no assertion, and nothing was sent: another look later may find one.
fn none(code: Code, cause: impl Display) -> IssueError {
    IssueError { fault: Fault::new(code).cause(cause), failure: Failure::NoAssertion }
}
