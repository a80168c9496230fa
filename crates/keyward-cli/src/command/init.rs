//! `keyward init`.

use super::Outcome;
use crate::args::Context;
use crate::broker::Broker;
use crate::input::{PassphraseArgs, with_new_passphrase};
use crate::out;
use keyward_api::place::Places;
use keyward_api::{InitRequest, RecoveryAnswer};
use keyward_diag::{Code, Fault};

/// Make the vault and leave it unlocked
///
/// Asks for a new passphrase twice in a terminal.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also make a recovery key and print it; it is shown once and kept nowhere
    #[arg(long)]
    recovery: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let places = Places::current()?;
        if places.data.join("vault.slots").exists() {
            return Err(Fault::new(Code::VaultExists).cause(format!("it is in {}", places.data.display())).into());
        }
        let recovery = self.recovery;
        let answer: RecoveryAnswer = with_new_passphrase(context, &self.passphrase, |passphrase| {
            Broker::open(context)?.client().post("/v1/vault/init", &InitRequest { passphrase, recovery })
        })?;
        out::say("the vault is made and open; store a secret with `keyward secret set NAME`");
        show_recovery(context, &answer)
    }
}

/// Prints the recovery key of an answer, if there is one.
pub(super) fn show_recovery(context: &Context, answer: &RecoveryAnswer) -> Outcome {
    if context.json {
        out::json(answer)?;
    } else if let Some(key) = &answer.recovery_key {
        out::say(
            "this is the recovery key; write it down and keep it away from this machine, since it is not shown again",
        );
        // EXPOSE: shown once to the person who asked for it.
        key.expose(out::text)?;
    }
    Ok(0)
}
