//! `keyward launch`: become the program of a launcher, in its folder and with its profiles.
//!
//! The same way as `run`, from the lookup of the program to exec; only where the command comes from differs. Called by people
//! and by the desktop, which passes the name of the launcher and, where there is no terminal, a descriptor for the error.

use super::Outcome;
use super::launcher::find;
use super::run::{Order, no_folder, started};
use crate::args::Context;
use crate::broker::Broker;
use crate::{input, out, process};
use keyward_diag::{Code, Fault};
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

/// Start what a launcher names, as the tray menu does
///
/// The program takes the place of this process, in the folder of the launcher and with the credentials of its profiles. Exits
/// as `run` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the launcher
    name: String,
    /// Without a terminal, wait at most two minutes where a person has to allow it
    #[arg(long)]
    wait: bool,
    /// Say on standard error what it gets and how
    #[arg(long)]
    explain: bool,
    /// Say what it would get, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Where it does not start, wait for Enter before the terminal closes
    #[arg(long)]
    wait_on_error: bool,
    /// Where it does not start, also write the error in JSON to descriptor N
    ///
    /// The program does not inherit the descriptor: it closes, with nothing written, when the program starts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    error_fd: Option<i32>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let waits = self.wait_on_error;
        let error_file = self.error_fd.map(error_file).transpose()?;
        let outcome = started(self.start(context));
        if let (Err(stop), Some(file)) = (&outcome, error_file) {
            out::tell(stop, file);
        }
        match outcome {
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
            moved: true,
            wait: self.wait,
            explain: self.explain,
            dry_run: self.dry_run,
            ..Order::of(launcher.command.into_iter().map(OsString::from).collect(), folder)
        };
        let program = order.program()?;
        order.start(context, &mut broker, &program)
    }
}

/// The descriptor that an error is written to.
fn error_file(number: i32) -> Result<File, Fault> {
    process::descriptor_until_exec(number).ok_or_else(|| {
        let cause = format!("descriptor {number} is not open");
        Fault::new(Code::Usage).cause(cause).help("see `keyward launch --help`")
    })
}

/// The home folder, where a launcher names no other.
fn home() -> Result<PathBuf, Fault> {
    std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
        Fault::new(Code::FileUnreadable)
            .cause("you have no home folder, and the launcher has none of its own")
            .help("set HOME, or give the launcher a folder with `keyward launcher edit NAME --folder DIR`")
    })
}
