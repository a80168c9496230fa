//! Assertions that may be presented once.

use crate::{ENV, FILES, entries, federated, lease, shell, token};
use keyward_testkit::{wait_at_most, wait_for};
use serde_json::json;
use std::time::Duration;

const ONE_TIME: &[&str] = &["--life", "60s", "--one-time", "--rotate", "0s"];

#[test]
fn an_assertion_is_presented_once_whatever_happens_to_the_broker() {
    let (home, sandbox) = federated(ONE_TIME, ENV);
    token(&home, &[]).exits(0);
    home.crash_broker();
    home.unlock();
    // The token went with the broker's memory, and its assertion must not be shown again.
    let said = token(&home, &[]).exits(6).says("identity.spent");
    assert!(said.err.contains("wait"), "{}", said.err);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (1, 0));

    sandbox.control("/sandbox/issue", json!({}));
    wait_for("a token by the next assertion", || token(&home, &[]).exit == 0);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (2, 0));
    assert_eq!(entries(&home, "assertion.presented").len(), 2);
}

#[test]
fn a_caller_waits_for_the_next_assertion_for_a_while() {
    let (home, sandbox) = federated(ONE_TIME, ENV);
    let first = token(&home, &[]).exits(0).out;
    let waiting = home.keyward_command(&["token", "claude", "--refresh"]).stdout(std::process::Stdio::piped()).spawn();
    let waiting = waiting.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    sandbox.control("/sandbox/issue", json!({}));
    let output = waiting.wait_with_output().unwrap();
    let second = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && second != first && !second.is_empty());
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (2, 0));
}

#[test]
fn a_run_gets_its_next_token_once_the_identity_provider_has_issued_another_assertion() {
    let (home, sandbox) = federated(&["--life", "12s", "--fast-lives", "--one-time", "--rotate", "0s"], FILES);
    let child = shell(&home);
    let mut why = None;
    wait_at_most(Duration::from_secs(30), "a renewal that waits", || {
        why = entries(&home, "exchange.failed").pop();
        why.is_some()
    });
    assert_eq!(why.unwrap()["detail"]["code"], "identity.spent");
    // Meanwhile the credential ended; the lease goes on.
    assert_eq!(lease(&home)["state"], "lapsed");
    sandbox.control("/sandbox/issue", json!({}));
    wait_at_most(Duration::from_secs(15), "the renewal", || lease(&home)["state"] == "live");
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (2, 0));
    drop(child);
}

#[test]
fn a_refusal_that_cost_the_assertion_is_still_explained() {
    let (home, sandbox) = federated(ONE_TIME, ENV);
    sandbox.control("/sandbox/rule", json!({"subject": "repo:somebody/else:*"}));
    token(&home, &[]).exits(6).says("issuer.refused");
    std::thread::sleep(Duration::from_millis(1100));
    let said = token(&home, &[]).exits(6).says("issuer.refused");
    assert!(said.err.contains("subject") && said.err.contains("waits for another"), "{}", said.err);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (1, 0));
}

#[test]
fn a_network_that_is_down_does_not_cost_the_assertion() {
    let (home, sandbox) = federated(ONE_TIME, ENV);
    // A port on which nobody listens: bound for a moment and left.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let toml = sandbox.profile(&format!("kind = \"file\"\npath = {:?}", sandbox.token_file()), ENV);
    home.profile("down", &toml.replace(sandbox.said("base_url"), &format!("http://127.0.0.1:{port}")));
    for _ in 0..2 {
        home.keyward(&["profile", "test", "down"]).exits(6).says("issuer.unreachable");
    }
    token(&home, &[]).exits(0);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (1, 0));
    assert_eq!(entries(&home, "assertion.withdrawn").len(), 2);
}
