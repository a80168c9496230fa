//! `keyward secret`: stored secrets.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, name};
use crate::input::{ProofArgs, secret};
use crate::table::table;
use crate::{out, time};
use base64::Engine;
use keyward_api::place::Places;
use keyward_api::{SecretMsg, SecretPutRequest, SecretRevealAnswer};
use keyward_diag::{Code, Fault};
use std::io::IsTerminal;

/// Store, list, show and remove secrets
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Store a secret, read from standard input or from a hidden prompt
    ///
    /// The bytes are kept as they are, except for the line end of a text of one line.
    Set {
        /// Name of the secret
        name: String,
        /// Refuse when there is such a secret already
        #[arg(long)]
        only_new: bool,
    },
    /// List the stored secrets by name
    List,
    /// Print a secret; asks for the passphrase and is recorded
    Reveal {
        /// Name of the secret
        name: String,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Remove a secret
    Remove {
        /// Name of the secret
        name: String,
    },
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Set { name, only_new } => set(context, &name, only_new),
            Self::List => list(context),
            Self::Reveal { name, proof } => reveal(context, &name, &proof),
            Self::Remove { name } => remove(context, &name),
        }
    }
}

fn set(context: &Context, of: &str, only_new: bool) -> Outcome {
    let path = format!("/v1/secrets/{}", name(of)?);
    let (secret, base64) = secret(context, of)?;
    let request = SecretPutRequest { secret, base64, only_new };
    Broker::open(context)?.unlocked(|client| client.put::<_, ()>(&path, &request))?;
    out::say(&format!("secret {of} is stored; a profile names it as \"secret:{of}\""));
    Ok(0)
}

fn list(context: &Context) -> Outcome {
    let secrets: Vec<SecretMsg> = Broker::open(context)?.unlocked(|client| client.get("/v1/secrets"))?;
    if context.json {
        out::json(&secrets)?;
    } else if secrets.is_empty() {
        out::say("there is no secret yet; store one with `keyward secret set NAME < FILE`");
    } else {
        let rows: Vec<_> =
            secrets.into_iter().map(|s| vec![s.name, time::ago(&s.created_at), time::ago(&s.updated_at)]).collect();
        out::text(&table(&["secret", "first stored", "last stored"], &rows))?;
    }
    Ok(0)
}

fn reveal(context: &Context, of: &str, proof: &ProofArgs) -> Outcome {
    let path = format!("/v1/secrets/{}/reveal", name(of)?);
    let proof = proof.proof(context, &Places::current()?)?;
    let answer: SecretRevealAnswer = Broker::open(context)?.unlocked(|client| client.post(&path, &proof))?;
    if context.json {
        out::json(&answer)?;
        return Ok(0);
    }
    if answer.base64 {
        // EXPOSE: decoded for its owner, who asked for it.
        let decoded = answer.secret.expose(|text| base64::engine::general_purpose::STANDARD.decode(text));
        let bytes = decoded.map_err(|_| Fault::new(Code::Internal).cause("the answer is not base64"))?;
        out::bytes(&bytes)?;
    } else {
        // EXPOSE: shown to its owner, who asked for it.
        answer.secret.expose(|text| out::bytes(text.as_bytes()))?;
    }
    if std::io::stdout().is_terminal() {
        out::bytes(b"\n")?;
    }
    Ok(0)
}

fn remove(context: &Context, of: &str) -> Outcome {
    let path = format!("/v1/secrets/{}", name(of)?);
    Broker::open(context)?.unlocked(|client| client.delete::<()>(&path))?;
    out::say(&format!("secret {of} is removed"));
    Ok(0)
}
