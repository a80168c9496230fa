//! `keyward completion`.

use super::Outcome;
use crate::{args, out};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell
    shell: Shell,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::definition(), "keyward", &mut script);
        out::bytes(&script)?;
        Ok(0)
    }
}
