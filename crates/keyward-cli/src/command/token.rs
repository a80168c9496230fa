//! `keyward token`.

use super::Outcome;
use crate::args::Context;
use crate::broker::Broker;
use crate::{asking, out};
use clap::ValueEnum;
use keyward_api::{TokenAnswer, TokenRequest};

/// Print one credential, for programs that ask a helper for it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the profile
    profile: String,
    /// Form of the output
    #[arg(long, default_value = "raw")]
    format: Format,
    /// The credential was refused where it was used: exchange anew
    ///
    /// At most once in ten seconds for all who ask. Where that fails, the former one stays in use, since whoever refused it
    /// can be wrong.
    #[arg(long)]
    refresh: bool,
    /// Why; shown to the person who is asked, and recorded in the log
    #[arg(long)]
    reason: Option<String>,
    /// Without a terminal, wait at most two minutes where a person has to allow it
    ///
    /// Left out: a caller without a terminal is told at once which command allows it.
    #[arg(long)]
    wait: bool,
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The credential and a line end
    Raw,
    /// An object with token, kind, expires_at and expires_in_s
    Json,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut request = TokenRequest {
            profile: self.profile,
            refresh: self.refresh,
            wait: false,
            unattended: false,
            proof: None,
            reason: self.reason,
            assertions: Vec::new(),
        };
        let named = [request.profile.clone()];
        let answer: TokenAnswer = asking::ask(&mut Broker::open(context)?, &named, &mut request, self.wait)?;
        if self.refresh && answer.kind == "static" {
            out::say("a stored secret cannot be exchanged anew; replace it with `keyward secret set NAME`");
        }
        if context.json || self.format == Format::Json {
            out::json(&answer)?;
        } else {
            // EXPOSE: the output that the command is for.
            answer.token.expose(out::text)?;
        }
        Ok(0)
    }
}
