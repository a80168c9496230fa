//! Notifications, against a server that records and answers.

use crate::Stage;
use keyward_testkit::{Home, Sandbox, wait_for};
use std::process::Child;

fn made(home: &Home) -> usize {
    home.audit_kinds().iter().filter(|k| *k == "exchange.made").count()
}

/// A program that runs with the profile until it is killed.
fn run(home: &Home) -> Child {
    let run = home.keyward_command(&["run", "-p", "claude", "--", "sleep", "600"]).spawn().unwrap();
    let held = |run: &serde_json::Value| run["leases"][0]["state"] == "live";
    wait_for("the lease", || {
        home.keyward(&["ps", "--json"]).json().as_array().is_some_and(|runs| runs.iter().any(held))
    });
    run
}

fn end(mut run: Child) {
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn what_ends_soon_is_told_once_and_renewed_from_there() {
    let stage = Stage::with_vault();
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let sandbox = Sandbox::start(&stage.home, &["--life", "20s", "--fast-lives"]);
    sandbox.federate(&stage.home, "claude", "[delivery]\nmode = \"env\"");
    let run = run(&stage.home);
    let notice = stage.notifications.wait("loses claude at");
    assert!(notice.body.contains("variable cannot be renewed"), "{notice:?}");
    let before = made(&stage.home);
    stage.notifications.invoke(&notice, "Renew");
    wait_for("another exchange", || made(&stage.home) > before);
    // The lease ends, which is no second notice.
    wait_for("the end of the lease", || stage.home.audit_kinds().iter().any(|k| k == "lease.expired"));
    let shown = stage.notifications.shown();
    assert_eq!(shown.iter().filter(|n| n.summary.contains("loses claude")).count(), 1, "{shown:?}");
    end(run);
}

#[test]
fn a_renewal_that_fails_is_told_with_its_reason_and_can_be_switched_off() {
    let stage = Stage::with_vault();
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let sandbox = Sandbox::start(&stage.home, &["--life", "30s", "--fast-lives"]);
    sandbox.federate(&stage.home, "claude", "[delivery]\nmode = \"file\"");
    let first = run(&stage.home);
    sandbox.fail("token", "401", 0);
    let notice = stage.notifications.wait("claude could not be renewed");
    assert!(!notice.body.is_empty(), "{notice:?}");
    let shown = stage.notifications.shown();
    assert!(!shown.iter().any(|n| n.body.contains("sk-ant") || n.body.contains("eyJ")), "{shown:?}");
    end(first);
    sandbox.clear();

    // Switched off, the same failure is not told.
    let folder = stage.home.keyward_home().join("config");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("desktop.toml"), "[notifications]\nrefresh_failed = false\n").unwrap();
    let told = stage.notifications.shown().len();
    let second = run(&stage.home);
    sandbox.fail("token", "401", 0);
    wait_for("the glyph that asks for the person", || stage.tray.tooltip().contains("claude"));
    assert_eq!(stage.notifications.shown().len(), told);
    end(second);
}

#[test]
fn a_broken_chain_is_told() {
    let stage = Stage::with_vault();
    stage.home.stop_broker();
    std::fs::remove_file(stage.home.keyward_home().join("state/anchor")).unwrap();
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    stage.home.unlock();
    let notice = stage.notifications.wait("The audit log does not match");
    assert!(notice.body.contains("Nothing is delivered"), "{notice:?}");
    wait_for("the tooltip", || stage.tray.tooltip().contains("does not match"));
}
