//! Runs outlive the broker, and the broker finds them again.

use crate::{Mint, ask, entries, entry, lease, ps, shell};
use keyward_testkit::{Home, alive, signal, wait_at_most, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kills the parent and the worker: no broker is left, and none is started.
fn kill_both(home: &Home) {
    let worker = home.broker_pid().unwrap();
    for parent in home.broker_parents() {
        signal(parent, Signal::KILL);
        wait_for("the parent's end", || !alive(parent));
    }
    signal(worker, Signal::KILL);
    wait_for("the worker's end", || !alive(worker));
}

fn resumed(home: &Home) -> serde_json::Value {
    home.keyward_in(&["unlock", "--passphrase-stdin", "--json"], keyward_testkit::PASSPHRASE).exits(0).json()
}

#[test]
fn a_live_run_is_watched_again_after_a_crash() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T_FILE");
    let mut child = shell(&home, &["-p", "p", "--deliver", "file"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    // The start is recorded a moment after it was seen.
    entry(&home, "run.started", 1);
    let before = ps(&home);
    home.crash_broker();
    assert_eq!(ask(&mut child, "cat \"$T_FILE\"; echo"), "s3cret", "the child goes on");
    wait_for("the next worker", || home.broker_pid().is_some());
    assert!(path.exists(), "the file of a live run is not swept away");
    let answer = resumed(&home);
    assert_eq!(answer["resumed_runs"], 1);
    let after = ps(&home);
    assert_eq!((after.len(), &after[0]["run"], &after[0]["pid"]), (1, &before[0]["run"], &child.pid().into()));
    for field in ["app", "app_verified", "project", "started_at"] {
        assert_eq!(after[0][field], before[0][field], "{field}");
    }
    let state = &after[0]["leases"][0];
    assert_eq!((&state["lease"], &state["state"]), (&before[0]["leases"][0]["lease"], &"live".into()));
    home.keyward(&["audit", "verify"]).exits(0);
    child.send(b"exit 5\n");
    child.end().exits(5);
    assert_eq!(entry(&home, "run.ended", 1)["detail"]["exit"], 5);
    assert!(!path.exists() && !path.parent().unwrap().exists());
    assert_eq!(entries(&home, "lease.released").len(), 1);
}

#[test]
fn what_is_held_under_a_grant_that_was_made_shorter_stays_short_after_a_crash() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let made = home.grant(&["--profile", "p", "--for", "2h"]);
    // Not a child of the shell that unlocked: it goes by the grant.
    let mut command = home.command("sh");
    command.args(["-c", "keyward run -p p --ttl 2h -- sh -c 'echo begun; cat'; exit $?"]);
    let mut child = keyward_testkit::Talk::start(command);
    assert_eq!(child.line(), "begun");
    let limit = || ps(&home)[0]["leases"][0]["limit_at"].as_str().unwrap()[..16].to_owned();
    let before = limit();
    let edit = ["grant", "edit", made["grant"].as_str().unwrap(), "--for", "5m", "--passphrase-stdin"];
    home.keyward_in(&edit, keyward_testkit::PASSPHRASE).exits(0);
    assert!(limit() < before, "{} and {before}", limit());
    home.crash_broker();
    resumed(&home);
    assert!(limit() < before, "{} and {before}", limit());
    child.close();
    child.end().exits(0);
}

#[test]
fn a_run_can_be_taken_back_after_a_crash() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T_FILE");
    let mut child = shell(&home, &["-p", "p", "--deliver", "file"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    home.crash_broker();
    home.unlock();
    home.keyward(&["revoke", "p"]).exits(0);
    assert!(!path.exists());
    home.crash_broker();
    home.unlock();
    assert_eq!(lease(&home, child.pid())["state"], "revoked", "what was taken back stays so");
    assert_eq!(entries(&home, "lease.revoked").len(), 1);
}

#[test]
fn a_minted_file_is_renewed_again_after_a_crash() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 600, "file", "T_FILE");
    let mut child = shell(&home, &["-p", "m"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    home.crash_broker();
    std::fs::write(home.root.join("m.life"), "4").unwrap();
    home.unlock();
    let read = || std::fs::read_to_string(&path).unwrap_or_else(|e| format!("{e}"));
    wait_at_most(Duration::from_secs(30), "renewals", || mint.count() >= 3 && read() == "m-token-3");
    let held = lease(&home, child.pid());
    assert!(held["state"] == "live" && held["renewals"].as_u64().unwrap() >= 2, "{held}");
}

#[test]
fn a_run_that_ended_without_a_broker_is_closed_and_swept() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T_FILE");
    let mut child = shell(&home, &["-p", "p", "--deliver", "file"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    kill_both(&home);
    child.close();
    child.end().exits(0);
    assert!(path.exists(), "nobody is there to remove it");
    home.keyward(&["profile", "kinds"]).exits(0);
    assert!(!path.exists(), "a broker that starts sweeps before anyone opens the vault");
    let answer = resumed(&home);
    assert_eq!(answer["resumed_runs"], 0);
    assert_eq!(ps(&home).len(), 0);
    let ended = entry(&home, "run.ended", 1);
    assert_eq!((&ended["detail"]["unseen"], &ended["detail"]["exit"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(entries(&home, "lease.released").len(), 1);
    home.keyward(&["audit", "verify"]).exits(0);
    home.crash_broker();
    home.unlock();
    assert_eq!(entries(&home, "run.ended").len(), 1, "closed once");
}

#[test]
fn a_run_that_ends_while_locked_is_recorded_at_the_next_unlock() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    let other = shell(&home, &["-p", "p"]);
    home.keyward(&["lock"]).exits(0);
    child.send(b"exit 3\n");
    child.end().exits(3);
    wait_for("one run", || ps(&home).len() == 1);
    assert_eq!(resumed(&home)["resumed_runs"], 1);
    let ended = entry(&home, "run.ended", 1);
    assert_eq!(ended["detail"]["exit"], 3);
    let kinds = home.audit_kinds();
    let at = |kind: &str| kinds.iter().rposition(|k| k == kind).unwrap();
    assert!(at("vault.unlocked") < at("run.ended") || at("vault.locked") < at("run.ended"), "{kinds:?}");
    drop(other);
}

#[test]
fn a_clean_stop_takes_back_and_the_run_is_known_afterwards() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T_FILE");
    let mut child = shell(&home, &["-p", "p", "--deliver", "file"]);
    let path = ask(&mut child, "echo $T_FILE");
    home.keyward(&["broker", "restart"]).exits(0);
    assert!(!Path::new(&path).exists(), "a stop is a lock");
    assert_eq!(resumed(&home)["resumed_runs"], 1);
    assert_eq!(lease(&home, child.pid())["state"], "revoked");
    child.send(b"exit 4\n");
    child.end().exits(4);
    assert_eq!(entry(&home, "run.ended", 1)["detail"]["exit"], 4);
    let kinds = home.audit_kinds();
    for kind in ["vault.locked", "lease.revoked"] {
        assert!(kinds.iter().any(|k| k == kind), "{kinds:?}");
    }
}
