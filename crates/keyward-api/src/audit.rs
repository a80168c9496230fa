//! Routes under `/v1/audit`: review, verify, export.

use crate::Proof;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Query of `GET /v1/audit`. All filters must hold at once; text filters compare whole words of the entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Entries below this number, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Entries above this number, oldest first. Not together with `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many entries, 1 to 1,000; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// App.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Project folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Kind, or its first part (`lease`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// One entry: its body as it was written, and its place in the chain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntryMsg {
    /// Number, from 1 without gaps.
    pub seq: u64,
    /// The entry, canonical JSON (RFC 8785) as the chain covers it.
    pub entry: serde_json::Value,
    /// MAC of the entry before, in hex.
    pub prev: String,
    /// MAC of this entry, in hex.
    pub mac: String,
}

/// Answer of `GET /v1/audit`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// Entries in the order that was asked for.
    pub entries: Vec<AuditEntryMsg>,
    /// There are more in that direction.
    pub more: bool,
    /// Number of the newest entry of the log.
    pub head: u64,
}

/// The newest entry.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HeadMsg {
    /// Number.
    pub seq: u64,
    /// MAC, in hex.
    pub mac: String,
}

/// The anchor, as verify saw it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AnchorMsg {
    /// `ok`, `missing`, `damaged`, `behind`, `ahead` or `other`.
    pub state: String,
    /// Entry that it names.
    pub seq: Option<u64>,
    /// Anchors that were compared: `file`, `keyring`.
    pub seen: Vec<String>,
}

/// Something that does not verify.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProblemMsg {
    /// Entry, or the number at which one should stand.
    pub seq: u64,
    /// What is wrong.
    pub kind: String,
    /// The operator accepted it by `audit accept-break`.
    pub accepted: bool,
}

/// A restore: entries that the log once had and that the restored copy lacks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct GapMsg {
    /// Entry that records the restore.
    pub seq: u64,
    /// Last entry of the restored copy.
    pub from: u64,
    /// Entry that the anchor named before the restore.
    pub anchor_seq: Option<u64>,
}

/// Answer of `GET /v1/audit/verify`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VerifyAnswer {
    /// Every entry verifies, or what does not was accepted.
    pub ok: bool,
    /// Entries that were read.
    pub entries: u64,
    /// The newest entry; absent for an empty log.
    pub head: Option<HeadMsg>,
    /// The anchor.
    pub anchor: AnchorMsg,
    /// What does not verify.
    pub problems: Vec<ProblemMsg>,
    /// Restores.
    pub gaps: Vec<GapMsg>,
    /// Limits of this check, in words.
    pub notes: Vec<String>,
}

/// Body of `POST /v1/audit/export`. The answer is JSON Lines: entries, oldest first, then one trailer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Filters; `before`, `after` and `limit` are ignored.
    #[serde(default)]
    pub query: AuditQuery,
    /// Proof of the person.
    pub proof: Proof,
}

/// Body of `POST /v1/audit/accept-break`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptBreakRequest {
    /// Why the break is accepted; recorded.
    pub reason: String,
    /// Proof of the person.
    pub proof: Proof,
}
