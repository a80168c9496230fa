//! Routes under `/v1/vault`: make, open, close, change and keep the vault.

use keyward_secret::{SecretText, secret_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a person shows to prove that the vault is theirs: the passphrase or the recovery key, exactly one of them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The passphrase.
    Passphrase(
        #[serde(serialize_with = "secret_text::serialize")]
        #[schemars(with = "String")]
        SecretText,
    ),
    /// The recovery key, an age identity (`AGE-SECRET-KEY-1…`).
    Recovery(
        #[serde(serialize_with = "secret_text::serialize")]
        #[schemars(with = "String")]
        SecretText,
    ),
}

/// Body of `POST /v1/vault/init`. The vault is left unlocked.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// The new passphrase.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub passphrase: SecretText,
    /// Also make a recovery key.
    #[serde(default)]
    pub recovery: bool,
}

/// Answer where a recovery key may have been made. It is in no other answer and kept nowhere.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryAnswer {
    /// The recovery key, if one was made.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_secret", default)]
    #[schemars(with = "Option<String>")]
    pub recovery_key: Option<SecretText>,
}

/// Body of `POST /v1/vault/unlock`: a proof, or the keyring slot.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// A person's proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Open with the key in the operating system's keyring.
    #[serde(default)]
    pub keyring: bool,
}

/// Answer of `POST /v1/vault/unlock`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnlockAnswer {
    /// Runs that were found alive after a restart of the broker and are watched again.
    pub resumed_runs: u32,
    /// What could not be watched or what is broken, in words; empty when all is well.
    pub warnings: Vec<String>,
}

/// A run that lost its credentials.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LostRun {
    /// Id of the run.
    pub run: String,
    /// Its app.
    pub app: String,
    /// Its process.
    pub pid: u32,
    /// Profiles whose credentials were taken back.
    pub profiles: Vec<String>,
    /// What could not be taken back, in words.
    pub remains: Vec<String>,
}

/// Answer of `POST /v1/vault/lock`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LockAnswer {
    /// Runs that were alive, and what each lost.
    pub runs: Vec<LostRun>,
}

/// Body of `POST /v1/vault/rekey`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RekeyRequest {
    /// Proof of the person.
    pub proof: Proof,
    /// The passphrase from then on.
    #[serde(serialize_with = "secret_text::serialize")]
    #[schemars(with = "String")]
    pub new_passphrase: SecretText,
}

/// Answer of `POST /v1/vault/rekey`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RekeyAnswer {
    /// Copies of the vault that are known and that keep the old passphrase. Rotate the secrets if it leaked.
    pub older_copies: Vec<String>,
}

/// Kind of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// Opened by the passphrase. There is always exactly one.
    Passphrase,
    /// Opened by a key in the operating system's keyring.
    Keyring,
    /// Opened by the recovery key.
    Recovery,
}

/// A slot, as the list shows it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SlotMsg {
    /// Id of the slot.
    pub slot: String,
    /// Its kind.
    pub kind: SlotKind,
    /// What opens it, in words.
    pub about: String,
}

/// Body of `POST /v1/vault/slots`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotAddRequest {
    /// Kind of the new slot: keyring or recovery.
    pub kind: SlotKind,
    /// Proof of the person.
    pub proof: Proof,
}

/// Body of `POST /v1/vault/slots/remove`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotRemoveRequest {
    /// Id of the slot, or its kind.
    pub slot: String,
    /// Proof of the person.
    pub proof: Proof,
}

/// Body of `POST /v1/vault/backup`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// Absolute path of the file to write; must not exist.
    pub path: String,
}

/// Body of `POST /v1/vault/restore`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Absolute path of the backup.
    pub path: String,
    /// Proof of the person, for the backup's own slots.
    pub proof: Proof,
    /// Put it in the place of a vault that is there; that one is moved aside.
    #[serde(default)]
    pub replace: bool,
    /// Proof of the person for the vault that is there, where it differs from the backup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Proof>,
}

fn some_secret<S: serde::Serializer>(text: &Option<SecretText>, s: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => secret_text::serialize(text, s),
        None => s.serialize_none(),
    }
}
