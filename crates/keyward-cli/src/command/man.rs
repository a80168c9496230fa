//! `keyward man`.

use super::Outcome;
use crate::{args, out};
use keyward_diag::{Code, Fault};
use std::path::PathBuf;

/// Print the manual page, or write the pages of all commands
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write the pages into; it must exist
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        let unwritable = |e: std::io::Error| {
            let place = self.dir.as_ref().map_or("standard output".into(), |dir| dir.display().to_string());
            Fault::new(Code::FileUnreadable).cause(format!("{place}: {e}"))
        };
        match &self.dir {
            Some(dir) => clap_mangen::generate_to(args::definition(), dir).map_err(unwritable)?,
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(args::definition()).render(&mut page).map_err(unwritable)?;
                out::bytes(&page)?;
            }
        }
        Ok(0)
    }
}
