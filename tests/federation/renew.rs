//! What a person asks of a profile on the screen: renew it, see it, and what becomes of what is held.

use crate::{ENV, FILES, ask, entries, federated, lease, shell};
use keyward_testkit::{Home, PASSPHRASE, Reply, Wire, wait_at_most, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

#[track_caller]
fn api(home: &Home, method: &str, path: &str, body: &str) -> Reply {
    Wire::once(&home.socket(), method, path, &[], body.as_bytes()).unwrap()
}

#[track_caller]
fn renew(home: &Home) -> Reply {
    api(home, "POST", "/v1/profiles/claude/renew", "")
}

#[track_caller]
fn profile(home: &Home) -> Value {
    api(home, "GET", "/v1/profiles/claude", "").json()
}

const READ: &str =
    "sed 's/.*access_token\":\"\\([^\"]*\\).*/\\1/' $ANTHROPIC_CONFIG_DIR/credentials/keyward.json | tr -d '\\n'; echo";

#[test]
fn a_renewal_reaches_the_files_and_leaves_the_variables() {
    let (home, sandbox) = federated(&["--life", "1h"], FILES);
    let nothing = profile(&home);
    assert!(nothing.get("held").is_none() && nothing["leases"] == 0, "{nothing}");
    let mut file = shell(&home);
    let line = ["run", "-p", "claude", "--deliver", "env", "--", "sh"];
    let mut variable = keyward_testkit::Talk::start(home.keyward_command(&line));
    let (before, fixed) = (ask(&mut file, READ), ask(&mut variable, "echo $ANTHROPIC_AUTH_TOKEN"));
    assert_eq!(before, fixed);
    let held = profile(&home)["held"].clone();
    assert_eq!(profile(&home)["leases"], 2);
    let renewed = renew(&home).json();
    assert_eq!((&renewed["renewed"], &renewed["unchanged"]), (&1.into(), &1.into()), "{renewed}");
    let (after, still) = (ask(&mut file, READ), ask(&mut variable, "echo $ANTHROPIC_AUTH_TOKEN"));
    assert!(after != before && after.starts_with("sk-ant-oat01-"), "{after}");
    assert_eq!(still, fixed);
    assert_eq!(sandbox.count("asked"), 2);
    let now_held = profile(&home)["held"].clone();
    assert_eq!(now_held["expires_at"], renewed["expires_at"]);
    assert!(now_held["received_at"].as_str() >= held["received_at"].as_str(), "{held} {now_held}");
    // A token ends with its assertion, told in whole seconds: the second one may be a second shorter.
    for time in ["received_at", "renew_at", "expires_at"] {
        assert!(held[time].is_string() && now_held[time].is_string(), "{time}: {held} {now_held}");
    }
    assert_eq!(entries(&home, "lease.renewed").len(), 1);
    // A click after the click finds what the first one made.
    assert_eq!(renew(&home).json(), renewed);
    assert_eq!((ask(&mut file, READ), sandbox.count("asked")), (after, 2));
    assert_eq!(api(&home, "POST", "/v1/profiles/nobody/renew", "").json()["code"], "profile.unknown");
}

#[test]
fn a_renewal_that_fails_beside_a_good_credential_changes_nothing() {
    let (home, sandbox) = federated(&["--life", "1h"], FILES);
    let mut child = shell(&home);
    let before = ask(&mut child, READ);
    sandbox.fail("token", "503", 0);
    assert_eq!(renew(&home).json()["code"], "issuer.busy");
    let lease = lease(&home);
    assert_eq!((&lease["state"], &lease["outlook"]["kind"]), (&"live".into(), &"renews".into()), "{lease}");
    assert_eq!(ask(&mut child, READ), before);
    assert_eq!(entries(&home, "lease.renew_failed").len(), 0);
}

#[test]
fn what_becomes_of_a_lease_is_told_as_it_is() {
    let (home, sandbox) = federated(&["--life", "8s", "--fast-lives"], FILES);
    let mut child = shell(&home);
    let outlook = || lease(&home)["outlook"].clone();
    let first = lease(&home);
    assert_eq!(first["outlook"]["kind"], "renews", "{first}");
    assert_eq!(first["outlook"]["at"], first["renew_at"]);
    assert!(first["received_at"].as_str() < first["renew_at"].as_str(), "{first}");
    assert!(first["renew_at"].as_str() < first["expires_at"].as_str(), "{first}");
    assert!(first["expires_at"].as_str() < first["limit_at"].as_str(), "{first}");
    sandbox.fail("token", "503", 0);
    wait_at_most(Duration::from_secs(20), "the failure", || outlook()["kind"] == "fails");
    let failing = outlook();
    assert_eq!(failing["code"], "issuer.busy", "{failing}");
    assert!(
        failing["why"].as_str().unwrap().starts_with("the issuer does not serve requests at the moment"),
        "{failing}"
    );
    assert!(failing["next_try_at"].is_string(), "{failing}");
    wait_at_most(Duration::from_secs(20), "the end of the credential", || outlook()["kind"] == "lapsed");
    assert_eq!((&lease(&home)["state"], &outlook()["code"]), (&"lapsed".into(), &"issuer.busy".into()));
    sandbox.clear();
    assert_eq!(renew(&home).json()["renewed"], 1, "a click does not wait for the pause");
    assert_eq!((&lease(&home)["state"], &outlook()["kind"]), (&"live".into(), &"renews".into()));
    assert!(ask(&mut child, READ).starts_with("sk-ant-oat01-"));
    let mut variable =
        keyward_testkit::Talk::start(home.keyward_command(&["run", "-p", "claude", "--deliver", "env", "--", "sh"]));
    ask(&mut variable, "echo ready");
    let all = home.keyward(&["ps", "--json"]).exits(0).json();
    let env = all.as_array().unwrap().iter().map(|run| &run["leases"][0]).find(|l| l["delivery"] == "env").unwrap();
    assert_eq!(env["outlook"]["why"], "a variable cannot be renewed");
    assert_eq!((&env["outlook"]["kind"], &env["outlook"]["at"]), (&"ends".into(), &env["expires_at"]));
    assert!(env.get("renew_at").is_none(), "{env}");
}

#[test]
fn an_identity_source_that_is_gone_is_named_and_waited_for() {
    let (home, sandbox) = federated(&["--life", "8s", "--fast-lives"], FILES);
    let _child = shell(&home);
    std::fs::remove_file(sandbox.token_file()).unwrap();
    let outlook = || lease(&home)["outlook"].clone();
    wait_at_most(Duration::from_secs(20), "the failure", || outlook()["kind"] != "renews");
    let seen = outlook();
    assert_eq!(seen["code"], "identity.unreadable", "{seen}");
}

#[test]
fn a_credential_is_shown_for_the_passphrase_alone_and_recorded_before() {
    let (home, sandbox) = federated(&["--life", "1h"], ENV);
    let reveal = |body: &Value| api(&home, "POST", "/v1/profiles/claude/reveal", &body.to_string()).json();
    for (body, code) in [
        (json!({}), "request.invalid"),
        (json!({"passphrase": "wrong horse battery staple"}), "vault.wrong_passphrase"),
        (json!({"recovery": PASSPHRASE}), "vault.slot_unknown"),
    ] {
        assert_eq!(reveal(&body)["code"], code, "{body}");
    }
    assert_eq!(
        (entries(&home, "credential.revealed").len(), sandbox.count("asked")),
        (0, 0),
        "nothing was made for them"
    );
    let shown = reveal(&json!({"passphrase": PASSPHRASE}));
    assert!(shown["token"].as_str().is_some_and(|t| t.starts_with("sk-ant-oat01-")), "{shown}");
    let recorded = entries(&home, "credential.revealed");
    assert_eq!((recorded.len(), &recorded[0]["profile"]), (1, &"claude".into()), "{recorded:?}");
    assert_eq!(
        (&recorded[0]["detail"]["expires_at"], &recorded[0]["peer"]["pid"]),
        (&shown["expires_at"], &std::process::id().into())
    );
    assert!(!home.audit().iter().any(|e| e.to_string().contains(shown["token"].as_str().unwrap())));
    assert_eq!(home.keyward(&["token", "claude"]).exits(0).out.trim(), shown["token"], "the one that is held");
    // Wrong proofs cost time here, too.
    let wrong = || reveal(&json!({"passphrase": "wrong horse battery staple"}))["code"].clone();
    wait_for("the wait after wrong proofs", || wrong() == "vault.unlock_wait");
    assert_eq!(reveal(&json!({"passphrase": PASSPHRASE}))["code"], "vault.unlock_wait");
}
