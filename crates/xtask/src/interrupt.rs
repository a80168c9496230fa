//! Ctrl-C as a flag, so that a task can clean up behind itself.
//!
//! Never ends the process; a task asks [`seen`] while it waits. Called by the tasks that make a throw-away home.

#![expect(unsafe_code, reason = "the standard library sets no signal handlers")]

use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    SEEN.store(true, Ordering::Relaxed);
}

/// From here on SIGINT, SIGTERM and SIGHUP only set the flag. Children get the default back at exec.
pub(crate) fn watch() {
    let handler = note as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store into an atomic, which is async-signal-safe, and has the signature
        // that signal(2) wants.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether one of the signals has come.
pub(crate) fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}
