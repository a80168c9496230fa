//! `keyward launch`: become the program of a launcher, in its folder and with its profiles.
//!
//! The same way as `run`, from the lookup of the program to exec; only where the command comes from differs. Called by people
//! and, in a terminal of its own, by the tray menu, which passes nothing but the name of the launcher.

use super::Outcome;
use super::launcher::find;
use super::run::{Order, no_folder, started};
use crate::args::Context;
use crate::broker::Broker;
use crate::{input, out};
use keyward_diag::{Code, Fault};
use std::ffi::OsString;
use std::path::PathBuf;

/// Start what a launcher names, as the tray menu does
///
/// The program takes the place of this process, in the folder of the launcher and with the credentials of its profiles. Exits
/// as `run` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the launcher
    name: String,
    /// Say on standard error what it gets and how
    #[arg(long)]
    explain: bool,
    /// Say what it would get, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Where it does not start, wait for Enter before the terminal closes
    #[arg(long)]
    wait_on_error: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let waits = self.wait_on_error;
        match started(self.start(context)) {
            Err(stop) if waits => {
                let exit = out::stop(stop, context.json);
                input::wait_for_enter(context);
                Ok(exit)
            }
            outcome => outcome,
        }
    }

    fn start(self, context: &Context) -> Outcome {
        let mut broker = Broker::open(context)?;
        let launchers = broker.unlocked(|client| client.get("/v1/launchers"))?;
        let launcher = find(launchers, &self.name)?;
        let folder = match launcher.folder {
            Some(folder) => PathBuf::from(folder),
            None => home()?,
        };
        std::env::set_current_dir(&folder).map_err(|e| no_folder(&folder.display().to_string(), &e))?;
        let order = Order {
            profiles: launcher.profiles,
            launcher: Some(launcher.name),
            explain: self.explain,
            dry_run: self.dry_run,
            ..Order::of(launcher.command.into_iter().map(OsString::from).collect(), folder)
        };
        let program = order.program()?;
        order.start(context, &mut broker, &program)
    }
}

/// The home folder, where a launcher names no other.
fn home() -> Result<PathBuf, Fault> {
    std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
        Fault::new(Code::FileUnreadable)
            .cause("you have no home folder, and the launcher has none of its own")
            .help("set HOME, or give the launcher a folder with `keyward launcher edit NAME --folder DIR`")
    })
}
