//! The signals of keys, as a terminal gives them to what it starts.
#![expect(unsafe_code, reason = "what happens between fork and exec has no safe interface")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives a program the default SIGINT and SIGQUIT: a shell starts its background jobs with both ignored, and the test run
/// may be one.
pub(crate) fn default_signals(command: &mut Command) {
    // SAFETY: signal(2) is safe to call between fork and exec (signal-safety(7)); nothing else is done there.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGQUIT, libc::SIG_DFL);
            Ok(())
        });
    }
}
