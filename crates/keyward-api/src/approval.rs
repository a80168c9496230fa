//! Routes under `/v1/me`, `/v1/operator`, `/v1/approvals` and `/v1/grants`: who asks, what waits for a person, what was allowed.

use crate::{DeliveryMode, Proof};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a peer may do, as the broker decides it for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleMsg {
    /// Nothing: the vault was not opened since the broker started.
    None,
    /// What its run was granted.
    Inside,
    /// Look, add, take away, ask.
    Requester,
    /// A direct child of the shell that unlocked: runs, changes and takes away without asking again.
    Shell,
    /// The connection on which a person has proven the passphrase.
    Operator,
}

/// Answer of `GET /v1/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeAnswer {
    /// What the caller may do at this moment.
    pub role: RoleMsg,
    /// The run that the caller is inside of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When its rights as shell or operator end if nothing renews them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Answer of `POST /v1/operator`, which makes the connection that of an operator until it closes, the vault locks, or it has
/// asked nothing for 15 minutes. Refused inside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperatorAnswer {
    /// When it ends if nothing is asked meanwhile.
    pub until: String,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalKind {
    /// A program wants to start with credentials.
    Run,
    /// A program wants one credential for a helper protocol, or a run wants more than it holds.
    Token,
    /// A run has come to a fence of its profile.
    Fence,
    /// A grant for a run ends soon.
    Extend,
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalState {
    /// It waits for a person.
    Open,
    /// A person said yes.
    Allowed,
    /// A person said no.
    Denied,
    /// Nobody answered in 120 s, which is a no.
    Unanswered,
    /// All who asked are gone, or the vault was locked.
    Withdrawn,
}

/// A process in the chain of parents of a requester, from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessMsg {
    /// Process id.
    pub pid: u32,
    /// Name of its program; `?` where the kernel hides it.
    pub name: String,
}

/// One profile of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WantedMsg {
    /// Profile.
    pub profile: String,
    /// Kind of its issuer.
    pub issuer: String,
    /// What the credential opens, in words: host, scope, calls, limits.
    pub reach: Vec<String>,
    /// How it would be delivered.
    pub delivery: DeliveryMode,
    /// What this delivery gives away, in words.
    pub gives_away: String,
    /// Seconds for which it is asked.
    pub ttl_s: u64,
    /// The profile asks for the passphrase at each use.
    pub confirm: bool,
    /// How often requests of the same app, project and profile were allowed and denied, as the log tells it.
    pub allowed_before: u64,
    /// See `allowed_before`.
    pub denied_before: u64,
}

/// A request that waits, or waited, for a person. Every text is escaped and bounded by the broker: no control or
/// bidirectional character, no line break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalMsg {
    /// Id: 8 characters of Crockford's base 32, unique among those that the broker remembers.
    pub id: String,
    /// What it is about.
    pub kind: ApprovalKind,
    /// Where it stands.
    pub state: ApprovalState,
    /// The request that took its place: the same asker wanted the same in another form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// SHA-256 in hex over everything a person decides by; an answer must carry it.
    pub digest: String,
    /// The question in one sentence.
    pub question: String,
    /// The app as the user knows it.
    pub app: String,
    /// Absolute path of the program that would run; empty for a request of a run that is there.
    pub program: String,
    /// The kernel has shown that the asking process is that program; otherwise it is what the requester says.
    pub verified: bool,
    /// Launcher, when it is the start of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// The asking process and its parents, nearest first.
    pub chain: Vec<ProcessMsg>,
    /// Run from inside of which it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_run: Option<String>,
    /// App of that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_app: Option<String>,
    /// Project folder.
    pub project: String,
    /// Branch of the project, read from its `.git/HEAD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The command line. Said by the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why. Said by the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Names of the fields above that the requester said and the kernel did not.
    pub said: Vec<String>,
    /// Profiles.
    pub wanted: Vec<WantedMsg>,
    /// What changed in `keyward.toml` since it was last allowed, as lines that begin with `+`, `-` or a space; absent where
    /// nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_change: Option<Vec<String>>,
    /// Requests with these very facts.
    pub merged: u32,
    /// When it was asked first.
    pub asked_at: String,
    /// When what is shown changed last; an answer within 800 ms of it is refused.
    pub changed_at: String,
    /// When no answer becomes a no.
    pub until: String,
    /// Answers that make sense for it, besides `deny`.
    pub choices: Vec<Decision>,
    /// Allowing it takes the passphrase even on the connection of an operator.
    pub confirm: bool,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// No. Needs no proof.
    Deny,
    /// One delivery.
    Once,
    /// As long as the run lives, at most 24 hours.
    Run,
    /// This app in this project, for a time.
    Project,
}

/// Body of `POST /v1/approvals/{id}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalAnswerRequest {
    /// `digest` of what was shown.
    pub digest: String,
    /// The answer.
    pub decision: Decision,
    /// Seconds for `project`: 60 to 86,400; 3,600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// Proof of the person; needed to allow, except on the connection of an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// How long a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GrantSpan {
    /// For one delivery.
    Once,
    /// For one run.
    Run,
    /// Until its time is up.
    Standing,
}

/// A recorded yes. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrantMsg {
    /// Id: 8 characters of Crockford's base 32.
    pub grant: String,
    /// How long it holds.
    pub span: GrantSpan,
    /// Profile.
    pub profile: String,
    /// Absolute path of the program; absent for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Script, where the program is an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// App of the request, where it holds for an equal request alone; `?` where the broker has forgotten that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_to: Option<String>,
    /// Launcher, where the grant is for its starts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// Project folder; absent for anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The weakest delivery that it allows.
    pub weakest: DeliveryMode,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub until: String,
    /// Deliveries that are left; absent for no limit. 0 for one that is used up: it allows nothing, and is told until it would
    /// have ended, the vault is locked or the broker stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Deliveries that it has allowed.
    pub allowed: u64,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_allowed_at: Option<String>,
}

/// Body of `POST /v1/grants` and `PUT /v1/grants/{id}`. A change replaces the whole grant and takes the same proof; what was
/// allowed before it stays counted.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantPutRequest {
    /// Profile.
    pub profile: String,
    /// Absolute path of the program; absent for any. An interpreter needs `script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Absolute path of the script that the interpreter runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Launcher; excludes `program`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// Absolute path of the project folder; absent for anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The weakest delivery; `env` (all) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakest: Option<DeliveryMode>,
    /// Seconds, 60 to 86,400; 3,600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// Deliveries, at least 1; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Proof of the person; needed except on the connection of an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What of a project goes with a request: its `keyward.toml`, as the client has read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFileMsg {
    /// Absolute path of the file.
    pub path: String,
    /// Its whole text, at most 16 KiB. The broker acts on these bytes and on no others.
    pub text: String,
    /// Which `[run.NAME]` of it; absent for the one that the file names as `default`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// SHA-256 in hex of the text that a person was shown as a difference and said yes to, in this terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<String>,
}
