//! Taking back: the file is gone first, and what was not acknowledged can be done again.

use crate::broker::Fallible;
use crate::{COMMIT, durable, entries, is_sound};
use keyward_testkit::{Talk, wait_for};
use std::path::PathBuf;

fn file_run(vault: &Fallible) -> (Talk, PathBuf) {
    let mut child = Talk::start(vault.home.keyward_command(&["run", "-p", "p", "--deliver", "file", "--", "sh"]));
    child.send(b"echo $T_FILE\n");
    let path = PathBuf::from(child.line());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret");
    (child, path)
}

fn taking_back_dies(command: &[&str]) {
    let mut vault = Fallible::new();
    vault.home.static_profile("p", "s3cret", "T_FILE");
    for point in COMMIT {
        vault.again();
        let started = entries(&vault.home, "run.started").len();
        let (child, path) = file_run(&vault);
        // Recorded a moment after it was seen: by itself, and not at the point that is meant.
        wait_for("the start to be recorded", || entries(&vault.home, "run.started").len() > started);
        let before = entries(&vault.home, "lease.revoked").len();
        vault.dies_in(point, |home| home.keyward(command));
        assert!(!path.exists(), "{point}: the file goes before the log is asked");
        vault.unlock();
        assert_eq!(entries(&vault.home, "lease.revoked").len() - before, usize::from(durable(point)), "{point}");
        let listed = vault.home.keyward(&["ps", "--json"]).exits(0).json();
        let state = if durable(point) { "revoked" } else { "live" };
        assert_eq!(
            (&listed[0]["leases"][0]["state"], &listed[0]["pid"]),
            (&state.into(), &child.pid().into()),
            "{point}"
        );
        assert_eq!(path.exists(), !durable(point), "{point}: a lease that is live has its file");
        vault.home.keyward(&["revoke", "--all"]).exits(0);
        assert!(!path.exists(), "{point}");
        assert_eq!(entries(&vault.home, "lease.revoked").len() - before, 1, "{point}");
        is_sound(&vault);
    }
}

#[test]
fn a_revoke_that_was_cut_short_can_be_done_again() {
    taking_back_dies(&["revoke", "--all"]);
}

#[test]
fn a_lock_that_was_cut_short_leaves_the_vault_locked_and_can_be_done_again() {
    taking_back_dies(&["lock"]);
}
