//! `keyward vault`: keys, slots, backups.

use super::Outcome;
use super::init::show_recovery;
use crate::args::Context;
use crate::broker::{Broker, warn};
use crate::input::ProofArgs;
use crate::out;
use crate::table::table;
use clap::ValueEnum;
use keyward_api::{
    BackupRequest, Proof, RecoveryAnswer, RekeyAnswer, RekeyRequest, RestoreRequest, SlotAddRequest, SlotKind, SlotMsg,
    SlotRemoveRequest, UnlockAnswer,
};
use keyward_diag::{Code, Fault, plain};
use std::path::{Path, PathBuf};

/// Change the keys of the vault, keep copies of it
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Replace the vault key and the passphrase
    ///
    /// With --passphrase-stdin or --passphrase-fd the first line is the current passphrase and the second one the new.
    Rekey {
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// List, add and remove what opens the vault
    #[command(subcommand)]
    Slot(Slot),
    /// Write a consistent copy of the vault into one file
    Backup {
        /// File to write; there must be none
        file: PathBuf,
    },
    /// Put a backup in place
    ///
    /// Asks for the passphrase that the backup was made under.
    Restore {
        /// File that `vault backup` wrote
        file: PathBuf,
        /// Put it in the place of a vault that is there; that one is moved aside
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        proof: ProofArgs,
    },
}

/// List, add and remove what opens the vault
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Slot {
    /// List what opens the vault
    List,
    /// Add something that opens the vault
    Add {
        /// What to add
        kind: NewSlot,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Remove something that opens the vault
    Remove {
        /// Id of the slot, or its kind
        slot: String,
        #[command(flatten)]
        proof: ProofArgs,
    },
}

/// Kinds of slots that can be added.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NewSlot {
    /// A key in the keyring of the operating system: any program you run can then open the vault and rewrite the log
    Keyring,
    /// A recovery key, printed once
    Recovery,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Rekey { proof } => rekey(context, &proof),
            Self::Slot(Slot::List) => list(context),
            Self::Slot(Slot::Add { kind, proof }) => add(context, kind, &proof),
            Self::Slot(Slot::Remove { slot, proof }) => remove(context, slot, &proof),
            Self::Backup { file } => backup(context, &file),
            Self::Restore { file, replace, proof } => restore(context, &file, replace, &proof),
        }
    }
}

fn rekey(context: &Context, proof: &ProofArgs) -> Outcome {
    let places = keyward_api::place::Places::current()?;
    let (proof, new_passphrase) = proof.proof_and_new(context, &places)?;
    // EXPOSE: compared for the person who typed both.
    let same = matches!(&proof, Proof::Passphrase(old) if old.expose(|a| new_passphrase.expose(|b| a == b)));
    let request = RekeyRequest { proof, new_passphrase };
    let answer: RekeyAnswer = Broker::open(context)?.unlocked(|client| client.post("/v1/vault/rekey", &request))?;
    let (made, before, copies) = if same {
        (
            "the vault has a new key, and its passphrase is the one that it had",
            "backups made before open with it too; if it leaked, take another one and replace the secrets as well",
            "under the same passphrase",
        )
    } else {
        (
            "the vault has a new key and a new passphrase",
            "backups made before still open with the old one; if it leaked, replace the secrets as well",
            "still under the old passphrase",
        )
    };
    out::say(made);
    out::say(before);
    for copy in &answer.older_copies {
        out::say(&plain(&format!("{copies}: {copy}"), 400));
    }
    if context.json {
        out::json(&answer)?;
    }
    Ok(0)
}

fn list(context: &Context) -> Outcome {
    let slots: Vec<SlotMsg> = Broker::open(context)?.unlocked(|client| client.get("/v1/vault/slots"))?;
    if context.json {
        out::json(&slots)?;
        return Ok(0);
    }
    let rows: Vec<_> = slots.into_iter().map(|s| vec![s.slot, kind_word(s.kind).to_owned(), s.about]).collect();
    out::text(&table(&["slot", "kind", "opened by"], &rows))?;
    Ok(0)
}

fn add(context: &Context, kind: NewSlot, proof: &ProofArgs) -> Outcome {
    let kind = match kind {
        NewSlot::Keyring => {
            out::say(
                "any program you run can then open the vault and rewrite the log; this protects a stolen disk only",
            );
            SlotKind::Keyring
        }
        NewSlot::Recovery => SlotKind::Recovery,
    };
    let places = keyward_api::place::Places::current()?;
    let request = SlotAddRequest { kind, proof: proof.proof(context, &places)? };
    let answer: RecoveryAnswer = Broker::open(context)?.unlocked(|client| client.post("/v1/vault/slots", &request))?;
    out::say(&format!("the {} slot is added", kind_word(kind)));
    show_recovery(context, &answer)
}

fn remove(context: &Context, slot: String, proof: &ProofArgs) -> Outcome {
    let places = keyward_api::place::Places::current()?;
    let request = SlotRemoveRequest { slot, proof: proof.proof(context, &places)? };
    Broker::open(context)?.unlocked(|client| client.post::<_, ()>("/v1/vault/slots/remove", &request))?;
    out::say("the slot is removed");
    Ok(0)
}

fn backup(context: &Context, file: &Path) -> Outcome {
    let request = BackupRequest { path: absolute(file)? };
    Broker::open(context)?.unlocked(|client| client.post::<_, ()>("/v1/vault/backup", &request))?;
    out::say("the backup is written; it opens with the passphrase of today, also after a later `vault rekey`");
    Ok(0)
}

fn restore(context: &Context, file: &Path, replace: bool, proof: &ProofArgs) -> Outcome {
    let path = absolute(file)?;
    readable(file)?;
    let mut broker = Broker::open(context)?;
    let there = broker.places().data.join("vault.slots").exists();
    if there && !replace {
        let fault = Fault::new(Code::VaultExists).help("add --replace to move it aside");
        return Err(fault.into());
    }
    let (proof, present) = match there {
        true => proof.proof_and_present(context, broker.places())?,
        false => (proof.proof(context, broker.places())?, None),
    };
    let request = RestoreRequest { path, proof, replace, present };
    let answer: UnlockAnswer = broker.client().post("/v1/vault/restore", &request)?;
    out::say("the backup is in place and open");
    warn(&answer);
    if context.json {
        out::json(&answer)?;
    }
    Ok(0)
}

/// Looks whether there is such a file, before anybody is asked for its passphrase.
fn readable(file: &Path) -> Result<(), Fault> {
    let unusable = |why: String| Fault::new(Code::FileUnreadable).cause(format!("{}: {why}", file.display()));
    let found = std::fs::metadata(file).map_err(|e| unusable(e.to_string()))?;
    if !found.is_file() {
        return Err(unusable("it is no file".to_owned()));
    }
    std::fs::File::open(file).map(drop).map_err(|e| unusable(e.to_string()))
}

fn kind_word(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Passphrase => "passphrase",
        SlotKind::Keyring => "keyring",
        SlotKind::Recovery => "recovery",
    }
}

/// The path as the broker, which has another working folder, must see it.
fn absolute(file: &Path) -> Result<String, Fault> {
    let full = std::path::absolute(file)
        .map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", file.display())))?;
    full.into_os_string()
        .into_string()
        .map_err(|path| Fault::new(Code::FileUnreadable).cause(format!("{} is not UTF-8", path.to_string_lossy())))
}
