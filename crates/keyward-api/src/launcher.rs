//! Routes under `/v1/launchers` and `/v1/settings`.

use crate::Proof;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A launcher: a saved command with the profiles that it runs with. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LauncherMsg {
    /// Name, as the tray shows it: 1 to 60 characters, none that controls or that nobody sees; unique whatever the case of
    /// its letters. In a path it stands as [`crate::part`] writes it.
    pub name: String,
    /// Program, by absolute path or as found in `PATH`, and its arguments. Stored as it is: no place for a secret.
    pub command: Vec<String>,
    /// Absolute path of the working folder; absent means the home folder of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Profiles by name, 1 to 16.
    pub profiles: Vec<String>,
    /// The program needs a terminal.
    pub terminal: bool,
    /// When it was added.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it was last launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<String>,
}

/// Body of `POST /v1/launchers` and `PUT /v1/launchers/{name}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LauncherPutRequest {
    /// Name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Profiles.
    pub profiles: Vec<String>,
    /// The program needs a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Proof of the person; needed to change a launcher, since a click on it would start something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Body of `POST /v1/launchers/{name}/expect`: a launch is about to be made in a new process, perhaps by a terminal emulator.
/// The first run within ten seconds with the launcher's command, folder and executable is taken for it, once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchExpectRequest {
    /// Absolute path of the program, as it was found.
    pub path: String,
    /// The person asked for it in the operator's window: on the connection of an operator the run needs no other grant.
    #[serde(default)]
    pub by_operator: bool,
}

/// Answer of `POST /v1/launchers/{name}/expect`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LaunchExpectAnswer {
    /// Until when a run is waited for.
    pub until: String,
}

/// Answer of `GET /v1/settings`: the settings that the broker keeps in `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsMsg {
    /// Seconds without an action of the person after which the vault locks itself, 60 to 86,400.
    pub auto_lock_s: u64,
}

/// Body of `PUT /v1/settings`. Takes effect at once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPutRequest {
    /// As in [`SettingsMsg`].
    pub auto_lock_s: u64,
    /// Proof of the person, since a longer time weakens the vault.
    pub proof: Proof,
}
