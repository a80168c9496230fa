//! `keyward unlock`.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, warn};
use crate::input::ProofArgs;
use crate::out;
use crate::table::count;
use keyward_api::UnlockRequest;
use keyward_diag::Code;

/// Open the vault, or renew the rights of this shell when it is open
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Open it with the key in the keyring of the operating system
    #[arg(long, conflicts_with_all = ["recovery", "passphrase_stdin", "passphrase_fd"])]
    keyring: bool,
    #[command(flatten)]
    proof: ProofArgs,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut broker = Broker::open(context)?;
        if !broker.places().data.join("vault.slots").exists() {
            return Err(keyward_diag::Fault::new(Code::VaultAbsent).into());
        }
        let answer = if self.keyring {
            broker.try_unlock(&UnlockRequest { proof: None, keyring: true })?
        } else if self.proof.is_given() {
            let proof = self.proof.proof(context, broker.places())?;
            broker.try_unlock(&UnlockRequest { proof: Some(proof), keyring: false })?
        } else {
            broker.unlock(|places| {
                Ok(UnlockRequest { proof: Some(self.proof.proof(context, places)?), keyring: false })
            })?
        };
        match answer.resumed_runs {
            0 => out::say("the vault is open"),
            n => out::say(&format!("the vault is open; {} watched again", count(n as usize, "run"))),
        }
        warn(&answer);
        if context.json {
            out::json(&answer)?;
        }
        Ok(0)
    }
}
