//! Issuers: one module for each kind of source that makes credentials; and identity sources, from which
//! some of them get an assertion.
//!
//! To add one: write a file beside the others with a type that implements [`keyward_core::Issuer`], and add its line to
//! [`ISSUERS`]. Profiles, `profile kinds`, the cache and the log need nothing else. An issuer never caches, never retries and
//! never records: the broker does. Called by the broker.

mod answer;
mod aws;
mod command;
mod entra;
mod explain;
mod federation;
mod google;
mod http;
mod identity;
mod json;
mod jwt;
mod oauth;
mod own_file;
mod program;
#[cfg(test)]
mod stage;
mod static_secret;
mod turn;
mod walk;

use keyward_core::{FieldSpec, Issuer, KindSpec, Shape};

/// All issuers of this version.
pub const ISSUERS: &[&dyn Issuer] = &[
    &federation::Federation,
    &static_secret::StaticSecret,
    &command::Command,
    &aws::Aws,
    &google::ServiceAccount,
    &google::AuthorizedUser,
    &google::Adc,
    &entra::Entra,
];

/// The description of each kind of issuer, then of each kind of identity source.
pub fn kinds() -> Vec<&'static KindSpec> {
    let sources = identity::IDENTITIES.iter().map(|source| source.spec());
    ISSUERS.iter().map(|issuer| issuer.spec()).chain(sources).collect()
}

/// The issuer of a kind.
pub fn find(kind: &str) -> Option<&'static dyn Issuer> {
    ISSUERS.iter().copied().find(|issuer| issuer.spec().kind == kind)
}

/// Whether these bytes are a JWT of the form that the issuers take as an assertion, with or without white space around it:
/// three parts in base64url, of which the first two are JSON objects, at most 16 KiB. Never checks the signature or the dates.
///
/// # Errors
/// What it is instead, in words that go on after "it": never a part of it.
pub fn check_assertion(bytes: &[u8]) -> Result<(), String> {
    jwt::Assertion::read(bytes).map(drop)
}

/// A field that must be a reference to a stored secret.
const fn secret_field(name: &'static str, required: bool, about: &'static str) -> FieldSpec {
    FieldSpec { name, shape: Shape::Text, required, secret: true, about }
}

/// A field that is no reference to a secret.
const fn field(name: &'static str, shape: Shape, required: bool, about: &'static str) -> FieldSpec {
    FieldSpec { name, shape, required, secret: false, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_assertion_is_told_and_not_quoted() {
        assert_eq!(check_assertion(format!("{}\n", stage::assertion("")).as_bytes()), Ok(()));
        assert_eq!(check_assertion(b"SEKRIT"), Err("has 1 of the three parts of a JWT".to_owned()));
    }
}
