//! `GET /v1/status`: what is going on, in one answer. Readable by every process of the user.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the vault can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VaultState {
    /// No vault has been made in this home.
    Absent,
    /// The keys are not in memory, or were wiped by the auto-lock.
    Locked,
    /// The keys are in memory.
    Unlocked,
}

/// The vault, as status shows it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VaultStatus {
    /// Whether the vault can be used.
    pub state: VaultState,
    /// Locked by itself: live leases go on until the end of their grants, and no new one is issued.
    pub auto_locked: bool,
    /// The log does not match its anchor: nothing is delivered until the break is accepted.
    pub audit_broken: bool,
    /// Seconds until the auto-lock, while it is armed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_lock_in_s: Option<u64>,
}

/// The broker process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BrokerStatus {
    /// Process id of the broker. SIGTERM stops it cleanly.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StatusAnswer {
    /// Version of the broker.
    pub version: String,
    /// The vault.
    pub vault: VaultStatus,
    /// The broker; absent when the command line found none and started none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerStatus>,
    /// Live runs.
    pub runs: u32,
    /// Live leases.
    pub leases: u32,
    /// URL of the gateway on this machine, `http://127.0.0.1:PORT`; absent where no broker answered. It serves the programs of
    /// runs and nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The folder with all that this broker keeps.
    pub home: String,
    /// The clock of the broker at the answer, RFC 3339 with microseconds: what times of other answers are counted against.
    /// Absent where no broker answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}
