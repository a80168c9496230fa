//! Issuers: one module for each kind of source that makes credentials.
//!
//! To add one: write a file beside the others with a type that implements [`keyward_core::Issuer`], and add its line to
//! [`ISSUERS`]. Profiles, `profile kinds`, the cache and the log need nothing else. An issuer never caches, never retries and
//! never records: the broker does. Called by the broker.

mod command;
mod static_secret;

use keyward_core::{Issuer, KindSpec};

/// All issuers of this version.
pub const ISSUERS: &[&dyn Issuer] = &[&static_secret::StaticSecret, &command::Command];

/// The description of each kind.
pub fn kinds() -> Vec<&'static KindSpec> {
    ISSUERS.iter().map(|issuer| issuer.spec()).collect()
}

/// The issuer of a kind.
pub fn find(kind: &str) -> Option<&'static dyn Issuer> {
    ISSUERS.iter().copied().find(|issuer| issuer.spec().kind == kind)
}
