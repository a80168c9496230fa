//! Named points at which a test kills the process. Without the feature `fault-points` nothing of this is built in.

/// Kills the process when the file that `KEYWARD_FAULT_FILE` names holds `name` on a line of its own; the file is removed
/// first, so that the next process lives.
#[cfg(feature = "fault-points")]
pub fn fault(name: &str) {
    let Some(file) = std::env::var_os("KEYWARD_FAULT_FILE") else { return };
    let Ok(text) = std::fs::read_to_string(&file) else { return };
    if text.lines().any(|line| line == name) {
        let _ = std::fs::remove_file(&file);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "fault-points"))]
pub const fn fault(_name: &str) {}
