//! A process that is safe to hold keys: what it inherited is dropped before anything else happens.
//!
//! Runs first in both processes of the broker, before any thread exists. Refuses a hostile environment by starting the
//! program anew without it: a variable of the loader has acted before `main`, so clearing it in place would be too
//! late. Never reads a configuration. Called by `main` alone.

use keyward_api::place::{BROKER_PATH, BROKER_PROGRAM, BROKER_VARIABLES};
use keyward_broker::platform::{close_inherited, reset_signals};
use keyward_diag::{Code, Fault};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Open files that a busy broker may need: connections, pinned processes, the database.
const FILES: u64 = 4096;

/// Hides the process (`PR_SET_DUMPABLE` 0, no core files), closes inherited descriptors above standard error, resets
/// signals, makes new files private (umask 077), and leaves a foreign environment behind by executing this program
/// anew.
///
/// # Errors
/// [`Code::BrokerStart`], with what the system refused.
pub(crate) fn harden() -> Result<(), Fault> {
    let fault = |what: &str, e: std::io::Error| Fault::new(Code::BrokerStart).cause(format!("{what}: {e}"));
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| fault("PR_SET_DUMPABLE", e.into()))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| fault("RLIMIT_CORE", e.into()))?;
    close_inherited().map_err(|e| fault("close_range", e))?;
    reset_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.map_or(FILES, |most| most.min(FILES));
    if files.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: files.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|e| fault("RLIMIT_NOFILE", e.into()))?;
    }
    let kept = allowed(std::env::vars_os());
    if kept.len() != std::env::vars_os().count() || !kept.iter().any(|(name, _)| name == "PATH") {
        let mut again = Command::new("/proc/self/exe");
        again.arg0(BROKER_PROGRAM).args(std::env::args_os().skip(1)).env_clear().envs(kept).env("PATH", BROKER_PATH);
        return Err(fault("a clean start", again.exec()));
    }
    // The name that `ps` shows, where the program was executed through /proc.
    let _ = rustix::thread::set_name(c"keyward-broker");
    Ok(())
}

/// The part of an environment that a broker may have.
fn allowed(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let keep = |name: &OsStr, value: &OsStr| {
        let listed = BROKER_VARIABLES.iter().any(|v| name == *v);
        let path = name == "PATH" && value == BROKER_PATH;
        let fault_point = cfg!(feature = "fault-points") && name == "KEYWARD_FAULT_FILE";
        listed || path || fault_point
    };
    variables.filter(|(name, value)| keep(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_variables_and_the_fixed_path_stay() {
        let given = [
            ("HOME", "/home/a"),
            ("LD_PRELOAD", "/evil.so"),
            ("LD_LIBRARY_PATH", ""),
            ("SSL_CERT_FILE", "/evil.pem"),
            ("https_proxy", "http://evil"),
            ("HTTPS_PROXY", "http://evil"),
            ("MALLOC_TRACE", "/t"),
            ("RUST_BACKTRACE", "1"),
            ("SQLITE_TMPDIR", "/tmp"),
            ("KEYWARD_LOG", "debug"),
            ("KEYWARD_LOGX", "debug"),
            ("PATH", "/evil"),
        ];
        let text = |(a, b): (&str, &str)| (OsString::from(a), OsString::from(b));
        let kept = allowed(given.into_iter().map(text));
        assert_eq!(kept, [("HOME", "/home/a"), ("KEYWARD_LOG", "debug")].map(text));
        assert_eq!(allowed([text(("PATH", BROKER_PATH))].into_iter()).len(), 1);
    }
}
