//! Notifications, against a server that records and answers.

use crate::Stage;
use keyward_testkit::{Sandbox, wait_for};

#[test]
fn what_ends_soon_and_what_failed_is_told_once_and_renewed_from_there() {
    let stage = Stage::with_vault();
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let sandbox = Sandbox::start(&stage.home, &["--token-ttl", "90"]);
    sandbox.federate(&stage.home, "claude", "[delivery]\nmode = \"env\"");
    let mut run = stage.home.keyward_command(&["run", "-p", "claude", "--", "sleep", "600"]).spawn().unwrap();
    let notice = stage.notifications.wait("claude");
    assert!(notice.actions.iter().any(|(_, label)| label == "Renew"), "{notice:?}");
    let made = || stage.home.audit_kinds().iter().filter(|k| *k == "exchange.made").count();
    let before = made();
    stage.notifications.invoke(&notice, "Renew");
    wait_for("another exchange", || made() > before);
    let about = stage.notifications.shown().into_iter().filter(|n| n.id == notice.id).count();
    assert_eq!(about, 1, "told once");
    let secret = stage.notifications.shown().iter().any(|n| format!("{}{}", n.summary, n.body).contains("sk-ant"));
    assert!(!secret);
    run.kill().unwrap();
    run.wait().unwrap();
}
