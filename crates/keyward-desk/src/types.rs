//! What goes between the web view and its host, besides the types of the LocalAPI. None of it can hold a secret.

use keyward_api::{DeliveryMode, LauncherMsg, ProfileMsg, RunMsg, SlotKind, StatusAnswer};
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
    /// Something changed in the broker: `vault`, `run`, `lease`, `audit`, `profile`, `launcher`, `settings`, `exchange`, or `reset`
    /// when events were missed and everything must be read anew.
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
