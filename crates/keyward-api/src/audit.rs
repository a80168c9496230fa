//! Routes under `/v1/audit`: review, verify, export.

use crate::Proof;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Query of `GET /v1/audit`. All filters must hold at once. An app, profile or project must be the whole of that field; an empty
/// one finds the entries without it.
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
    /// Text that the entry contains as it is stored (canonical JSON), upper or lower case, 1 to 200 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
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
    /// There are more in that direction, or they were not looked at yet.
    pub more: bool,
    /// A search for `text` stopped after this entry so that others are not kept waiting: go on from here with `before` or
    /// `after`. Absent where everything in that direction was looked at, or where the page is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_to: Option<u64>,
    /// Number of the newest entry of the log.
    pub head: u64,
}

/// Query of `GET /v1/audit/summary`, whose filters are those of [`AuditQuery`] without `run` and `text`, and of `GET /v1/apps`,
/// which takes no `kind`, `outcome` and `bars`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditSummaryQuery {
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
    /// Not before this time. Widened to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time. Widened to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// At most so many bars, 1 to 500; 120 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bars: Option<u32>,
}

/// One bar of the histogram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BarMsg {
    /// Where it begins.
    pub at: String,
    /// Entries with outcome `ok`.
    pub ok: u64,
    /// Entries with outcome `refused`.
    pub refused: u64,
    /// Entries with outcome `failed`.
    pub failed: u64,
}

/// A name that entries carry, and how many do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountMsg {
    /// The name.
    pub name: String,
    /// Entries with it.
    pub count: u64,
}

/// Answer of `GET /v1/audit/summary`: how the entries that match lie in time, and which names there are to filter by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AuditSummary {
    /// Entries that match.
    pub total: u64,
    /// Entries in the whole log.
    pub entries: u64,
    /// Width of a bar, in seconds: whole hours.
    pub bar_s: u64,
    /// Bars from the oldest to the newest, empty ones included; none where nothing matches.
    pub bars: Vec<BarMsg>,
    /// Apps of the whole log, most entries first, at most 200; so the other lists. Names over 512 bytes are left out.
    pub apps: Vec<CountMsg>,
    /// Profiles.
    pub profiles: Vec<CountMsg>,
    /// Project folders.
    pub projects: Vec<CountMsg>,
    /// Kinds.
    pub kinds: Vec<CountMsg>,
}

/// When something happened, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpanMsg {
    /// How often.
    pub count: u64,
    /// The first time.
    pub first_at: String,
    /// The last time.
    pub last_at: String,
}

/// What one app had of one profile: a cell of `GET /v1/apps`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AppUseMsg {
    /// App.
    pub app: String,
    /// Profile.
    pub profile: String,
    /// Deliveries: the app held the credential from then on.
    pub held: Option<SpanMsg>,
    /// Uses that Keyward saw: each one that went through it.
    pub used: Option<SpanMsg>,
    /// It was delivered in a way that hides its uses (`env`, `file`).
    pub unseen: bool,
    /// Leases that are live at this moment.
    pub live: u32,
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

/// Query of `GET /v1/audit/verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditVerifyQuery {
    /// Whether every page of the file is checked too, for which commits wait (seconds for a gigabyte); when absent, it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<bool>,
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
