//! Routes under `/v1/profiles`, `/v1/kinds` and `/v1/secrets`.

use crate::{DeliveryMode, Proof};
use keyward_secret::{SecretText, secret_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A profile. Never holds a secret: secrets are named, not quoted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProfileMsg {
    /// Name of the profile.
    pub name: String,
    /// Kind of its issuer.
    pub issuer: String,
    /// How its credential reaches a child.
    pub delivery: DeliveryMode,
    /// Variables that it sets in a child.
    pub variables: Vec<String>,
    /// Longest life of a lease, in seconds.
    pub max_ttl_s: u64,
    /// Kind of its identity source, for an issuer that takes an assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Variable of the caller that holds the assertion, where the identity source is one that only callers can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_variable: Option<String>,
    /// The last exchange since the broker started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exchange: Option<ExchangeMsg>,
    /// The credential that the broker holds at the moment, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldMsg>,
    /// Live leases.
    pub leases: u32,
    /// The profile as a file: what `profile add --from` takes.
    pub toml: String,
    /// When it was added.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// The life of a credential in the memory of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldMsg {
    /// When it was received.
    pub received_at: String,
    /// When it is renewed, if it is in use then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// When it ends; absent when it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// Answer of `POST /v1/profiles/{name}/renew`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RenewAnswer {
    /// When the credential ends; absent when it does not end by itself.
    pub expires_at: Option<String>,
    /// Live leases that have it.
    pub renewed: u32,
    /// Live leases that keep what they had: a variable cannot be renewed, and a file could not be written.
    pub unchanged: u32,
}

/// Body of `POST /v1/profiles` and `PUT /v1/profiles/{name}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfilePutRequest {
    /// Name of the profile.
    pub name: String,
    /// The profile as a file.
    pub toml: String,
    /// Proof of the person; needed to change a profile, since that may change where its credential goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// An exchange with an issuer, without the credential.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeMsg {
    /// When it ended.
    pub at: String,
    /// A credential was made.
    pub ok: bool,
    /// Name of the error, where none was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Scope of the credential, where the issuer says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Life of the credential in seconds at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// What may be shown about it: `request_id`, `assertion_subject`, ….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// An assertion out of a variable of the caller, for a profile whose identity source is `env-token`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuppliedAssertion {
    /// Name of the variable.
    pub variable: String,
    /// What it holds.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub assertion: SecretText,
}

/// Body of `POST /v1/profiles/{name}/test`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileTestRequest {
    /// Assertions that only the caller has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertions: Vec<SuppliedAssertion>,
}

/// Answer of `POST /v1/profiles/{name}/test`: what a real exchange gave, never the bytes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProfileTestAnswer {
    /// A credential was made.
    pub ok: bool,
    /// Kind of the issuer.
    pub kind: String,
    /// Scope of the credential, where the issuer says one.
    pub scope: Option<String>,
    /// Life of the credential in seconds; absent when it does not end by itself.
    pub expires_in_s: Option<u64>,
    /// What may be shown about the exchange: `request_id`, `assertion_subject`, ….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// A field of an issuer or identity source.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FieldMsg {
    /// Name, as it stands in the profile file.
    pub name: String,
    /// A profile without it is refused.
    pub required: bool,
    /// Takes a reference to a stored secret.
    pub secret: bool,
    /// What it is, in one line.
    pub about: String,
    /// Shape of its content: `text`, `duration`, `choice`, `program` (a list of texts), `variables` (a table of texts), `identity`,
    /// `url`, `path`, `variable`, `uuid` or `id`.
    #[serde(default)]
    pub shape: String,
    /// Words that it may be: all there are for a `choice`, those besides an identifier for an `id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What an `id` begins with: `fdrl_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
}

/// An issuer or identity source that this version has.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct KindMsg {
    /// Name, as it stands in the profile file.
    pub kind: String,
    /// `issuer` or `identity`.
    pub role: String,
    /// What it is, in one line.
    pub about: String,
    /// Its fields.
    pub fields: Vec<FieldMsg>,
}

/// A stored secret, by name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SecretMsg {
    /// Name of the secret.
    pub name: String,
    /// When it was first stored.
    pub created_at: String,
    /// When it was last stored.
    pub updated_at: String,
    /// How many times it was stored; part of its seal.
    pub generation: u64,
}

/// Body of `PUT /v1/secrets/{name}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretPutRequest {
    /// The secret, as text or in base64.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub secret: SecretText,
    /// The text above is base64 (RFC 4648 section 4, padded) of bytes that are not UTF-8.
    #[serde(default)]
    pub base64: bool,
    /// Refuse when there is such a secret already.
    #[serde(default)]
    pub only_new: bool,
}

/// Answer of `POST /v1/secrets/{name}/reveal`. The request is a [`Proof`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SecretRevealAnswer {
    /// The secret, as text or in base64.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub secret: SecretText,
    /// The text above is base64.
    pub base64: bool,
}
