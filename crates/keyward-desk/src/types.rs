//! What goes between the web view and its host, besides the types of the LocalAPI. None of it can hold a secret.

use keyward_api::{ApprovalMsg, Decision, DeliveryMode, LauncherMsg, ProfileMsg, RunMsg, SlotKind, StatusAnswer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something by its name: a profile, a stored secret, a launcher.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// How a command ended that asks the person in a native prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// It was done; false when the person closed the prompt.
    pub done: bool,
    /// What the person should know about it, in sentences; usually empty.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Everything that Now, Runs and the tray show, taken at one moment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Overview {
    /// The broker's clock when it was taken.
    pub now: String,
    /// Status.
    pub status: StatusAnswer,
    /// Live runs.
    pub runs: Vec<RunMsg>,
    /// Profiles; empty while the vault is not open.
    pub profiles: Vec<ProfileMsg>,
    /// Launchers, last launched first; empty while the vault is not open.
    pub launchers: Vec<LauncherMsg>,
    /// Requests that wait for a person, oldest first.
    pub approvals: Vec<ApprovalMsg>,
}

/// A request that waits, or waited, for a person.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalNamed {
    /// Its id.
    pub id: String,
}

/// What the card window shows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CardView {
    /// The broker's clock.
    pub now: String,
    /// Colours.
    pub theme: Theme,
    /// Home folder of the user, which is written as `~`.
    pub home: Option<String>,
    /// The request that the window was opened for.
    pub approval: ApprovalMsg,
    /// Other requests that wait.
    pub others: usize,
}

/// An answer on a card.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalReply {
    /// Id of the request that the window was opened for; any other is refused.
    pub id: String,
    /// `digest` of what was shown.
    pub digest: String,
    /// The answer.
    pub decision: Decision,
    /// Seconds for `project`; an hour when absent.
    pub for_s: Option<u64>,
}

/// A grant by its id.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantNamed {
    /// Its id.
    pub grant: String,
}

/// A grant as the editor holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantDraft {
    /// Profile.
    pub profile: String,
    /// Absolute path of the program; absent for any.
    pub program: Option<String>,
    /// Absolute path of the script that the program runs, where it is an interpreter.
    pub script: Option<String>,
    /// Launcher; excludes `program`.
    pub launcher: Option<String>,
    /// Absolute path of the project folder; absent for anywhere.
    pub project: Option<String>,
    /// The weakest delivery.
    pub weakest: DeliveryMode,
    /// Seconds, 60 to 86,400.
    pub for_s: u64,
    /// Deliveries; absent for no limit.
    pub uses: Option<u32>,
}

/// A grant to give, or to change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantSave {
    /// The grant.
    pub draft: GrantDraft,
    /// Change the grant of this id.
    pub replace: Option<String>,
}

/// The identity source of a draft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityDraft {
    /// Its kind.
    pub kind: String,
    /// Its fields, as in the profile file.
    pub fields: Map<String, Value>,
}

/// A profile as the editor holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileDraft {
    /// Name of the profile.
    pub name: String,
    /// Kind of its issuer.
    pub issuer: String,
    /// Fields of the issuer, as in the profile file.
    pub fields: Map<String, Value>,
    /// Identity source, for an issuer that takes an assertion.
    pub identity: Option<IdentityDraft>,
    /// Delivery; absent means the strongest there is.
    pub delivery: Option<DeliveryMode>,
    /// Variables that carry the credential; empty means the issuer's usual ones.
    pub variables: Vec<String>,
    /// Longest life of a lease (`1h`); absent means the longest allowed.
    pub max_ttl: Option<String>,
    /// The calls that the gateway lets through, each as `METHOD /path`; empty means all that its list for the API allows.
    pub only: Vec<String>,
    /// The gateway lets calls of containers in, which are not in the tree of the run.
    pub containers: bool,
    /// The passphrase is asked for at each use.
    pub confirm: bool,
    /// Where the gateway stops and asks.
    pub fence: FenceDraft,
}

/// Limits of a profile, for each lease; what is absent or empty has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FenceDraft {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Requests.
    pub requests: Option<u64>,
    /// Models that may be asked, with `*` for any letters.
    pub models: Vec<String>,
    /// US dollars, by the usage that the answers of the provider tell.
    pub usd: Option<f64>,
}

/// A profile to store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileSave {
    /// The profile.
    pub draft: ProfileDraft,
    /// Change the profile of this name; the person is asked for the passphrase.
    pub replace: bool,
}

/// A way to get a credential from a provider.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MethodTile {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// Kind of the issuer.
    pub issuer: String,
    /// Fields that are set already.
    #[serde(default)]
    pub preset: Map<String, Value>,
    /// Fields of the issuer that the editor asks for; the rest stand under "more".
    pub asks: Vec<String>,
    /// Kinds of identity sources that fit; empty where none is needed.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Variables that a new draft delivers in; empty means the usual ones. Where the issuer is `static` and no provider is
    /// preset there are no usual ones, and the editor asks for a name.
    #[serde(default)]
    pub variables: Vec<String>,
}

/// A provider in the profile editor.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProviderTile {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What its credentials open, in one line.
    pub about: String,
    /// Ways to get one, best first.
    pub methods: Vec<MethodTile>,
}

/// A launcher as the editor holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LauncherDraft {
    /// Name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working folder; absent means the home folder.
    pub folder: Option<String>,
    /// Profiles.
    pub profiles: Vec<String>,
    /// The program needs a terminal.
    pub terminal: bool,
}

/// A launcher to store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LauncherSave {
    /// The launcher.
    pub draft: LauncherDraft,
    /// Change the launcher of this name; the person is asked for the passphrase.
    pub replace: Option<String>,
    /// Seconds, 60 to 86,400, for which its starts are allowed without asking; absent leaves that as it is.
    pub allow_s: Option<u64>,
}

/// An agent that is installed on this machine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentMsg {
    /// Its id.
    pub id: String,
    /// Its name: `Claude Code`.
    pub name: String,
    /// Absolute path of its program.
    pub path: String,
    /// Arguments that a launcher gives it.
    pub args: Vec<String>,
    /// It needs a terminal.
    pub terminal: bool,
    /// Providers whose credentials it takes, by the id of their tile.
    pub providers: Vec<String>,
}

/// A credential that lies on this machine outside of the vault.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LoginMsg {
    /// Its id in this list.
    pub id: String,
    /// What it is: `GitHub token of gh`.
    pub name: String,
    /// Where it lies: file and line, or the variable.
    pub place: String,
    /// Provider, by the id of its tile.
    pub provider: String,
    /// Name for the profile that would be made of it.
    pub suggested: String,
    /// Keyward can take it into the vault; false where it can only say what to do, in `advice`.
    pub adoptable: bool,
    /// What to do with it, in one sentence.
    pub advice: String,
}

/// A login to take into the vault.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginAdopt {
    /// Its id in the list.
    pub id: String,
    /// Name of the profile.
    pub profile: String,
}

/// One entry of the log by its number.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntryQuery {
    /// Its number.
    pub seq: u64,
}

/// Where an export went.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// The file; absent when the person closed a prompt.
    pub path: Option<String>,
    /// Entries in it.
    pub entries: u64,
}

/// Why a break of the log is accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakReason {
    /// The reason; recorded.
    pub reason: String,
}

/// A slot to add.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotAdd {
    /// Its kind.
    pub kind: SlotKind,
}

/// A slot to remove.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotNamed {
    /// Id of the slot, or its kind.
    pub slot: String,
}

/// Which notifications are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationSettings {
    /// A request waits for the person.
    pub approval_needed: bool,
    /// A credential in use ends soon and is not renewed by itself.
    pub expires_soon: bool,
    /// A renewal failed.
    pub refresh_failed: bool,
    /// The log does not verify.
    pub chain_broken: bool,
}

/// Colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system.
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// All settings of the screen of that name. As a request: the settings from then on; a changed `auto_lock_s` asks for the
/// passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsView {
    /// Seconds until the auto-lock; absent while the broker cannot be asked.
    pub auto_lock_s: Option<u64>,
    /// Notifications.
    pub notifications: NotificationSettings,
    /// Keyward starts when the user logs in.
    pub start_at_login: bool,
    /// Colours.
    pub theme: Theme,
}

/// A screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Screen {
    /// Live credentials.
    Now,
    /// Past and live runs.
    Runs,
    /// Profiles and their editor.
    Profiles,
    /// Which credential each app used.
    Apps,
    /// The log.
    Audit,
    /// Requests that wait for the person, and what was answered.
    Approvals,
    /// What is allowed without asking.
    Grants,
    /// Launchers.
    Launchers,
    /// Settings.
    Settings,
}

/// Whether the broker answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// It does.
    pub up: bool,
    /// Why not, as an error with `code`, `message`, `causes` and `help`.
    pub fault: Option<Value>,
}

/// What the host tells the web view unasked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum DeskEvent {
    /// Something changed in the broker: `vault`, `run`, `lease`, `audit`, `profile`, `launcher`, `settings`, `exchange`,
    /// `approval`, `grant`, or `reset` when events were missed and everything must be read anew.
    Broker {
        /// Kind of the event.
        name: String,
        /// Ids and states.
        data: Value,
    },
    /// The connection came or went.
    Connection(Connection),
    /// Show a screen, as the tray or a notification asked.
    Show {
        /// Which one.
        screen: Screen,
        /// What to show on it: the name of a profile or run, if any.
        about: Option<String>,
    },
}
