//! Runs: what a child received is recorded, wherever the broker died.

use crate::broker::Fallible;
use crate::{COMMIT, DELIVER, durable, entries, is_sound};
use keyward_testkit::wait_for;
use std::path::Path;

/// The runs that were asked for with this reason and got a credential, according to the log.
fn delivered(vault: &Fallible, reason: &str) -> usize {
    let asked = entries(&vault.home, "run.requested");
    let runs: Vec<_> = asked.iter().filter(|e| e["detail"]["reason"] == reason).map(|e| e["run"].clone()).collect();
    entries(&vault.home, "credential.delivered").iter().filter(|e| runs.contains(&e["run"])).count()
}

/// What the children wrote down.
fn received(vault: &Fallible) -> String {
    std::fs::read_to_string(vault.home.root.join("got")).unwrap_or_default()
}

/// Whether a file in a folder or below holds this.
fn holds(folder: &Path, needle: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { holds(&path, needle) } else { std::fs::read(&path).is_ok_and(|b| find(&b, needle)) }
    })
}

fn find(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn a_run_dies(deliver: &str, script: &str) {
    let mut vault = Fallible::new();
    vault.home.static_profile("p", "s3cret", "T_FILE");
    for point in [COMMIT, DELIVER].concat() {
        vault.again();
        let line = ["run", "-p", "p", "--deliver", deliver, "--reason", point, "--", "sh", "-c", script];
        vault.dies_in(point, |home| home.keyward(&line)).exits(125);
        assert_eq!(received(&vault), "", "{point}: the broker died before it could hand over");
        vault.unlock();
        assert_eq!(delivered(&vault, point), usize::from(durable(point)), "{point}");
        let listed = vault.home.keyward(&["ps", "--json"]).exits(0).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(0), "{point}: the process is gone, so its run is closed");
        assert!(!holds(&vault.home.runtime, "s3cret"), "{point}: a file stayed");
        is_sound(&vault);
        let again = format!("{point} again");
        let line = ["run", "-p", "p", "--deliver", deliver, "--reason", &again, "--", "sh", "-c", script];
        vault.home.keyward(&line).exits(0);
        assert_eq!((received(&vault).as_str(), delivered(&vault, &again)), ("s3cret\n", 1), "{point}");
        std::fs::remove_file(vault.home.root.join("got")).unwrap();
    }
}

#[test]
fn a_delivery_by_variable_is_recorded_first() {
    a_run_dies("env", "printf '%s\\n' \"$T_FILE\" >>got");
}

#[test]
fn a_delivery_by_file_is_recorded_first_and_leaves_no_file() {
    a_run_dies("file", "cat \"$T_FILE\" >>got; echo >>got");
}

#[test]
fn a_child_that_has_its_credential_goes_on_and_its_end_is_recorded_once() {
    let mut vault = Fallible::new();
    vault.home.static_profile("p", "s3cret", "T");
    for point in COMMIT {
        vault.again();
        let before = vault.home.broker_pid().unwrap();
        // The next commits are those of the start and the end of the run.
        let script = format!("printf '%s\\n' \"$T\" >>got; printf %s {point} >{}", vault.fault_file().display());
        vault.home.keyward(&["run", "-p", "p", "--reason", point, "--", "sh", "-c", &script]).exits(0);
        vault.died(point, before);
        vault.unlock();
        assert_eq!((received(&vault).as_str(), delivered(&vault, point)), ("s3cret\n", 1), "{point}");
        std::fs::remove_file(vault.home.root.join("got")).unwrap();
        let asked = entries(&vault.home, "run.requested");
        let run = asked.iter().find(|e| e["detail"]["reason"] == *point).unwrap()["run"].clone();
        let ends = || entries(&vault.home, "run.ended").iter().filter(|e| e["run"] == run).count();
        wait_for(&format!("the end of the run after {point}"), || ends() > 0);
        assert_eq!(ends(), 1, "{point}");
        is_sound(&vault);
    }
}
