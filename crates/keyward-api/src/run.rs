//! Routes under `/v1/runs`, `/v1/token` and `/v1/revoke`: the main job.

use keyward_secret::{SecretText, secret_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a credential reaches a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// A variable of the child holds the credential.
    Env,
    /// A variable of the child holds the path of a private memory-backed file, kept fresh while the run lives.
    File,
    /// Variables of the child hold the address of the gateway and a token of the run; the credential stays with the broker.
    Gateway,
}

impl DeliveryMode {
    /// The word for it in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Gateway => "gateway",
        }
    }
}

/// The program that a run is about to become.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandMsg {
    /// Absolute path of the program that will be exec'd.
    pub path: String,
    /// Arguments after the program's name. Recorded as a keyed digest, never as they are.
    pub args: Vec<String>,
    /// Folder that the run belongs to: the root of the repository around the working folder, or that folder itself.
    pub project: String,
}

/// Body of `POST /v1/runs`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Profiles by name; empty means the only one there is.
    pub profiles: Vec<String>,
    /// The program.
    pub command: CommandMsg,
    /// Names (never contents) of the variables in the caller's environment.
    pub variables: Vec<String>,
    /// Delivery instead of the profiles' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<DeliveryMode>,
    /// Longest life of the leases, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Why, in the words of the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Say what would happen; issue, record and deliver nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Run a program that has rights of another user or capabilities.
    #[serde(default)]
    pub allow_privileged: bool,
    /// Assertions that only the caller has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertions: Vec<crate::SuppliedAssertion>,
    /// Launcher that is started. Its command, arguments, folder and profiles must be those of the request; the run then has
    /// its name as app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// Wait for a person, at most 120 s, where nobody has granted it; otherwise the answer is `approval.needed` at once.
    #[serde(default)]
    pub wait: bool,
    /// Nobody is at hand to type a passphrase: where one is needed and not given, a person is asked by a card.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattended: bool,
    /// Proof of the person, for a profile that asks for it at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<crate::Proof>,
    /// What the project asks for. Its profiles stand instead of `profiles`, which is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_file: Option<crate::ProjectFileMsg>,
}

/// A variable that the child must have.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SetVariable {
    /// Name of the variable.
    pub name: String,
    /// What it holds.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub secret: SecretText,
}

/// A variable that the child must not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnsetVariable {
    /// Name of the variable.
    pub name: String,
    /// Profile whose credential it would shadow.
    pub profile: String,
    /// What it is, in words.
    pub why: String,
}

/// What one profile gives to the child, without the credential.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PlanMsg {
    /// Profile.
    pub profile: String,
    /// Kind of its issuer.
    pub issuer: String,
    /// How the credential reaches the child.
    pub delivery: DeliveryMode,
    /// Who chose the delivery: `profile`, `--deliver`, or `strongest` where nobody did and it is the best that works.
    pub chosen_by: String,
    /// Why it is not a stronger one, where the program is the reason; a sentence without a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Variables that will be set.
    pub variables: Vec<String>,
    /// What this delivery gives away, in words.
    pub gives_away: String,
    /// The next weaker delivery that would work as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<WeakerMsg>,
    /// Host, with its port, that the gateway sends the requests to; absent with other deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Longest life of the lease, in seconds.
    pub ttl_s: u64,
    /// Limits that the gateway keeps for the lease, in words; empty without a fence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fence: Vec<String>,
    /// The profile asks for the passphrase at each use.
    #[serde(default)]
    pub confirm: bool,
}

/// A delivery that would work, and is not the one that was chosen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WeakerMsg {
    /// How the credential would reach the child.
    pub delivery: DeliveryMode,
    /// What it would give away, in words.
    pub gives_away: String,
}

/// What was delivered for one profile.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeliveredMsg {
    /// Lease that holds it.
    pub lease: String,
    /// Profile.
    pub profile: String,
    /// How.
    pub delivery: DeliveryMode,
    /// Variables that were set.
    pub variables: Vec<String>,
    /// When the lease ends.
    pub expires_at: String,
}

/// Answer of `POST /v1/runs`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunAnswer {
    /// Id of the run; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// What each profile gives.
    pub plan: Vec<PlanMsg>,
    /// What was delivered; empty for a dry run.
    pub delivered: Vec<DeliveredMsg>,
    /// Variables to set before exec; empty for a dry run.
    pub set: Vec<SetVariable>,
    /// Variables to remove before exec, because they would win over the credential.
    pub unset: Vec<UnsetVariable>,
    /// Arguments to put before those of the command, for a program that takes the gateway's address by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What the project's `keyward.toml` asked for, where the request came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectRunMsg>,
}

/// What a `keyward.toml` asks for, as the broker has read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectRunMsg {
    /// Absolute path of the file.
    pub path: String,
    /// Name of its section: `dev` of `[run.dev]`.
    pub run: String,
    /// Profiles that it asks for.
    pub profiles: Vec<String>,
    /// The profile that it expects in each variable.
    pub variables: std::collections::BTreeMap<String, String>,
    /// A person has looked at this very text. Where nobody has, only a dry run is answered.
    pub reviewed: bool,
}

/// A lease, as `ps` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LeaseMsg {
    /// Id.
    pub lease: String,
    /// Profile.
    pub profile: String,
    /// How the credential was delivered.
    pub delivery: DeliveryMode,
    /// `live`, `renew_failed`, `lapsed` (ended before there was another one), `expired`, `revoked`, `released`.
    pub state: String,
    /// When it was issued.
    pub issued_at: String,
    /// When the credential ends (renewed credentials move this), or the lease where that is sooner.
    pub expires_at: String,
    /// How often the credential was renewed.
    pub renewals: u64,
    /// Requests that the gateway sent on with the credential; absent where use cannot be seen (`env` and `file`).
    pub uses: Option<u64>,
    /// When the last of them began; absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_use_at: Option<String>,
    /// When the credential that it holds was received: the beginning of its life.
    pub received_at: String,
    /// When the credential is renewed ahead of need; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// The limit: the lease ends there whatever its credential does.
    pub limit_at: String,
    /// What happens to it next.
    pub outlook: OutlookMsg,
}

/// What happens to a lease next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutlookMsg {
    /// Which way it goes.
    pub kind: Outlook,
    /// When.
    pub at: String,
    /// Why, as the rest of a sentence without a time: `a variable cannot be renewed`.
    pub why: String,
    /// The error that stands in the way of renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When renewal is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<String>,
}

/// Which way a lease goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outlook {
    /// It is renewed in time.
    Renews,
    /// It ends by itself.
    Ends,
    /// Renewal fails; at that time the app is without a credential.
    Fails,
    /// The app is without a credential already.
    Lapsed,
}

/// A run, as `ps` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunMsg {
    /// Id.
    pub run: String,
    /// Root process.
    pub pid: u32,
    /// Program behind the run.
    pub app: String,
    /// The program was found under the process after exec.
    pub app_verified: bool,
    /// Project folder.
    pub project: String,
    /// When it started.
    pub started_at: String,
    /// Launcher that it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// Its leases.
    pub leases: Vec<LeaseMsg>,
}

/// Query of `GET /v1/runs/past`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PastRunsQuery {
    /// Runs whose end lies below this entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many, 1 to 200; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A run that is over, as the log tells it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PastRunMsg {
    /// Id.
    pub run: String,
    /// Program behind the run.
    pub app: String,
    /// The program was found under the process after exec.
    pub app_verified: bool,
    /// Project folder.
    pub project: String,
    /// When it started; absent where the log does not tell.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: String,
    /// Exit code, where it is known.
    pub exit: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Name of the error of a run whose program did not start.
    pub code: Option<String>,
    /// Profiles whose credentials it was given.
    pub profiles: Vec<String>,
    /// Uses that Keyward saw; absent where use cannot be seen.
    pub uses: Option<u64>,
    /// Entry that records its end.
    pub seq: u64,
}

/// Answer of `GET /v1/runs/past`, last ended first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PastRunsPage {
    /// The runs.
    pub runs: Vec<PastRunMsg>,
    /// There are older ones: go on with `before` of the last one's `seq`.
    pub more: bool,
}

/// Body of `POST /v1/token`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Profile.
    pub profile: String,
    /// The caller saw the credential refused: one that was made before is dropped and exchanged anew, once.
    #[serde(default)]
    pub refresh: bool,
    /// Wait for a person, as in [`RunRequest`].
    #[serde(default)]
    pub wait: bool,
    /// As in [`RunRequest`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattended: bool,
    /// Proof of the person, for a profile that asks for it at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<crate::Proof>,
    /// Why, in the words of the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Assertions that only the caller has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertions: Vec<crate::SuppliedAssertion>,
}

/// Answer of `POST /v1/token`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// The credential.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub token: SecretText,
    /// Kind of the issuer.
    pub kind: String,
    /// When it ends; absent when it does not end by itself.
    pub expires_at: Option<String>,
    /// Its life in seconds at the time of the answer.
    pub expires_in_s: Option<u64>,
}

/// Body of `POST /v1/revoke`: what to take back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevokeRequest {
    /// All leases of all runs.
    All,
    /// A run by its id, or a profile by its name.
    Target(String),
}

/// Answer of `POST /v1/revoke`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RevokeAnswer {
    /// Leases that were taken back.
    pub leases: u32,
    /// Runs that lost something, and what could not be taken back.
    pub runs: Vec<crate::LostRun>,
}
