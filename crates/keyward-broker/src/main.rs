//! `keyward-broker`: the parent without arguments, the worker with `--serve`.
//!
//! Never takes a secret, a path or a setting on its command line.

#[cfg(target_os = "linux")]
mod hygiene;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod worker;

use keyward_diag::{Code, Fault};
use std::process::ExitCode;

#[global_allocator]
static WIPING: keyward_secret::WipingAllocator = keyward_secret::WipingAllocator;

/// Starts the parent or the worker, and gives the exit code of what failed.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => ExitCode::from(fault.exit),
    }
}

/// Runs what the arguments name. Errors are said on standard output, as a line of JSON for the client that started
/// this, and in words on standard error.
#[cfg(target_os = "linux")]
fn run() -> Result<(), Fault> {
    let mut arguments = std::env::args_os().skip(1);
    let (first, more) = (arguments.next(), arguments.next().is_some());
    let done = match first.as_ref().map(|a| a.to_str()) {
        _ if more => Err(usage()),
        Some(Some(supervise::SERVE)) => return hygiene::harden().and_then(|()| worker::run()),
        Some(Some("--version")) => {
            supervise::say(concat!("keyward-broker ", env!("CARGO_PKG_VERSION")).as_bytes());
            return Ok(());
        }
        Some(Some(supervise::DETACH)) => {
            hygiene::harden().and_then(|()| supervise::detach()).and_then(|first| match first {
                supervise::Fork::Starter => Ok(()),
                supervise::Fork::Broker => supervise::parent(),
            })
        }
        None => hygiene::harden().and_then(|()| supervise::parent()),
        Some(_) => Err(usage()),
    };
    done.inspect_err(|fault| {
        supervise::say(&serde_json::to_vec(fault).unwrap_or_default());
        complain(fault);
    })
}

#[cfg(target_os = "linux")]
fn usage() -> Fault {
    Fault::new(Code::Usage)
        .cause("keyward-broker is started by `keyward`; alone it takes no argument, or --detach, or --version")
        .help("run `keyward status`")
}

#[cfg(not(target_os = "linux"))]
fn run() -> Result<(), Fault> {
    let fault = Fault::new(Code::PlatformUnsupported);
    complain(&fault);
    Err(fault)
}

fn complain(fault: &Fault) {
    use std::io::Write;
    // Standard error may be closed, and there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "{fault}");
}
