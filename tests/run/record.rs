//! What the log says about a run.

use crate::{ask, entry, shell};
use keyward_testkit::{Home, signal, wait_for};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn the_entries_of_a_run_stand_in_their_order_with_the_app_verified() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    let pid = child.pid();
    wait_for("the start", || crate::ps(&home)[0]["app_verified"] == true);
    child.send(b"exit 7\n");
    child.end().exits(7);
    entry(&home, "run.ended", 1);
    let all = home.audit();
    let run = all.iter().find(|e| e["kind"] == "run.requested").unwrap()["run"].clone();
    assert!(run.is_string());
    let own: Vec<&Value> = all.iter().filter(|e| e["run"] == run).collect();
    let kinds: Vec<_> = own.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "run.requested",
            "run.decided",
            "lease.issued",
            "credential.delivered",
            "run.started",
            "lease.released",
            "run.ended"
        ]
    );
    let root = std::fs::canonicalize(&home.root).unwrap();
    for entry in &own {
        assert_eq!((&entry["app"], &entry["project"]), (&"sh".into(), &root.to_str().unwrap().into()));
        assert_eq!(entry["outcome"], "ok", "{entry}");
        let known_yet = matches!(entry["kind"].as_str(), Some("run.started" | "lease.released" | "run.ended"));
        assert_eq!(entry["app_verified"] == true, known_yet, "the app is a claim until the program is seen: {entry}");
    }
    let requested = own[0];
    assert_eq!((&requested["peer"]["pid"], &requested["peer"]["uid"]), (&pid.into(), &uid().into()));
    assert!(requested["peer"]["exe"].as_str().unwrap().ends_with("/keyward"));
    assert_eq!(requested["detail"]["profiles"], serde_json::json!(["p"]));
    let lease = &own[2]["lease"];
    assert!(lease.is_string() && own[3]["lease"] == *lease && own[5]["lease"] == *lease);
    assert_eq!((&own[3]["detail"]["variables"], &own[3]["detail"]["pid"]), (&serde_json::json!(["T"]), &pid.into()));
    assert_eq!((&own[6]["detail"]["exit"], own[6]["detail"]["seconds"].is_u64()), (&7.into(), true));
    let times: Vec<_> = own.iter().map(|e| e["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(!serde_json::to_string(&all).unwrap().contains("s3cret"));
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[test]
fn the_end_says_the_exit_code_or_the_signal() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut n = 0;
    for code in [0, 1, 42, 255] {
        let mut child = shell(&home, &["-p", "p"]);
        child.send(format!("exit {code}\n").as_bytes());
        child.end().exits(code);
        n += 1;
        let detail = entry(&home, "run.ended", n)["detail"].clone();
        assert_eq!((&detail["exit"], detail.get("signal")), (&code.into(), None));
    }
    for number in [Signal::TERM, Signal::KILL] {
        let child = shell(&home, &["-p", "p"]);
        signal(child.pid(), number);
        child.end().exits(128 + number.as_raw());
        n += 1;
        let detail = entry(&home, "run.ended", n)["detail"].clone();
        assert_eq!((&detail["signal"], detail.get("exit")), (&number.as_raw().into(), None));
    }
}

#[test]
fn arguments_are_a_keyed_digest_and_nothing_of_them_is_told() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let digest = |args: &[&str]| {
        home.keyward(&[&["run", "-p", "p", "--", "true"], args].concat()).exits(0);
        let requested = home.audit().into_iter().rfind(|e| e["kind"] == "run.requested").unwrap();
        requested["detail"]["arguments"].as_str().unwrap().to_owned()
    };
    let one = digest(&["--password", "hunter2"]);
    assert_eq!(digest(&["--password", "hunter2"]), one, "the same arguments can be told to be the same");
    assert_ne!(digest(&["--password", "hunter3"]), one);
    assert_ne!(digest(&["--passwordhunter2"]), one);
    assert_ne!(digest(&["--password hunter2"]), one, "where an argument ends counts");
    let log = serde_json::to_string(&home.audit()).unwrap();
    assert!(!log.contains("hunter") && !log.contains("--password"), "{log}");
    let other = Home::with_vault();
    other.static_profile("p", "s3cret", "T");
    other.keyward(&["run", "-p", "p", "--", "true", "--password", "hunter2"]).exits(0);
    let theirs = other.audit().into_iter().rfind(|e| e["kind"] == "run.requested").unwrap();
    assert_ne!(theirs["detail"]["arguments"], one.as_str(), "the key is the vault's");
    // More than a request holds.
    let long = "y".repeat(100_000);
    assert_ne!(digest(&[&long]), digest(&[&long, "z"]));
}

#[test]
fn a_script_is_verified_by_its_interpreter_and_a_claim_is_not_believed() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let script = crate::program(&home, "tool", "#!/bin/sh\necho ready; read x\n", "755").display().to_string();
    let mut child = keyward_testkit::Talk::start(home.keyward_command(&["run", "-p", "p", "--", &script]));
    assert_eq!(child.line(), "ready");
    wait_for("the start", || crate::ps(&home)[0]["app_verified"] == true);
    assert_eq!(crate::ps(&home)[0]["app"], "tool");
    drop(child);
    let by_env = crate::program(&home, "found", "#!/usr/bin/env sh\necho ready; read x\n", "755").display().to_string();
    let mut child = keyward_testkit::Talk::start(home.keyward_command(&["run", "-p", "p", "--", &by_env]));
    assert_eq!(child.line(), "ready");
    let started = entry(&home, "run.started", 2);
    assert_eq!(started["app_verified"], false, "which interpreter `env` finds cannot be told before: {started}");
    assert!(started["detail"]["unverified"].is_string());
}

#[test]
fn a_run_counts_from_its_start_to_its_end() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    assert_eq!(ask(&mut child, "sleep 2.1; echo slept"), "slept");
    child.close();
    child.end().exits(0);
    let seconds = entry(&home, "run.ended", 1)["detail"]["seconds"].as_u64().unwrap();
    assert!((2..60).contains(&seconds), "{seconds}");
}
