//! Endpoints that fail: bounded, clear, and without a secret in the words.

use crate::{ENV, FILES, ask, entries, federated, lease, shell, token};
use keyward_testkit::{PASSPHRASE, wait_at_most, wait_for};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn each_fault_has_its_code_and_never_shows_an_assertion_or_a_token() {
    let (home, sandbox) = federated(&["--life", "60s"], &format!("{ENV}\n"));
    for (fault, code) in [
        ("reset", "issuer.unreachable"),
        ("malformed", "issuer.answer_invalid"),
        ("html", "issuer.answer_invalid"),
        ("array", "issuer.answer_invalid"),
        ("oversized", "issuer.answer_invalid"),
        ("wrong_token_type", "issuer.answer_invalid"),
        ("no_expires_in", "issuer.answer_invalid"),
        ("string_expires_in", "issuer.answer_invalid"),
        ("zero_expires_in", "issuer.answer_invalid"),
        ("newline_token", "issuer.answer_invalid"),
        ("empty_token", "issuer.answer_invalid"),
        ("redirect", "issuer.answer_invalid"),
        ("echo", "issuer.refused"),
        ("400", "issuer.refused"),
        ("401", "issuer.refused"),
        ("403", "issuer.refused"),
        ("429", "issuer.busy"),
        ("500", "issuer.busy"),
        ("503", "issuer.busy"),
    ] {
        sandbox.fail("token", fault, 1);
        let asked = sandbox.count("asked");
        let said = home.keyward(&["profile", "test", "claude"]).exits(6).says(code);
        assert_eq!(sandbox.count("asked"), asked + 1, "{fault}: asked once");
        let assertion = std::fs::read_to_string(sandbox.token_file()).unwrap();
        let parts: Vec<&str> = assertion.trim().split('.').collect();
        for secret in [assertion.trim(), parts[1], parts[2], "sk-ant-oat01"] {
            assert!(!said.err.contains(secret) && !said.out.contains(secret), "{fault}: {}", said.err);
        }
        assert!(said.err.contains("help:"), "{fault}: {}", said.err);
    }
    assert_eq!(sandbox.count("trapped"), 0, "no redirect is followed");
    sandbox.clear();
    home.keyward(&["profile", "test", "claude"]).exits(0);
    // One for each failure that is not the one before: unreachable, an answer that is none, refused, busy.
    assert_eq!(entries(&home, "exchange.failed").len(), 4);
}

#[test]
fn an_endpoint_that_hangs_is_left_after_its_time_and_a_lock_does_not_wait_for_it() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    let toml = sandbox.profile(&format!("kind = \"file\"\npath = {:?}", sandbox.token_file()), ENV);
    home.profile("short", &toml.replace("[issuer]\n", "[issuer]\ntimeout = \"2s\"\n"));
    sandbox.fail("token", "hang", 0);
    let began = Instant::now();
    home.keyward(&["token", "short"]).exits(6).says("issuer.timeout");
    assert!(began.elapsed() < Duration::from_secs(15));

    let waiting = home.keyward_command(&["token", "claude"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    sandbox.wait("asked", 2);
    let began = Instant::now();
    home.keyward(&["lock"]).exits(0);
    let said = waiting.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(said.status.code(), Some(3), "{}", String::from_utf8_lossy(&said.stderr));
    home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(0);
    sandbox.clear();
    token(&home, &[]).exits(0);
}

#[test]
fn a_good_token_stays_in_use_while_the_endpoint_is_down_and_the_failure_is_told() {
    let (home, sandbox) = federated(&["--life", "20s", "--fast-lives"], FILES);
    let mut child = shell(&home);
    let read = "cat $ANTHROPIC_CONFIG_DIR/credentials/keyward.json; echo";
    let good = ask(&mut child, read);
    sandbox.fail("token", "503", 0);
    wait_at_most(Duration::from_secs(15), "a failed renewal", || lease(&home)["state"] == "renew_failed");
    assert_eq!(ask(&mut child, read), good);
    assert!(good.contains(token(&home, &[]).exits(0).out.trim()), "the cache serves it too");
    assert!(!entries(&home, "lease.renew_failed").is_empty());
    sandbox.clear();
    wait_at_most(Duration::from_secs(20), "a renewal", || lease(&home)["state"] == "live");
    assert_ne!(ask(&mut child, read), good);
    child.close();
    child.end().exits(0);
}

#[test]
fn the_endpoint_is_left_alone_as_long_as_it_asks() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    sandbox.control("/sandbox/fault", json!({"at": "token", "fault": "429", "times": 1, "retry_after": 4}));
    let began = Instant::now();
    token(&home, &[]).exits(6).says("issuer.busy");
    // Longer than the pause after any failure, shorter than what was asked for.
    std::thread::sleep(Duration::from_millis(1500));
    let said = token(&home, &[]).exits(6).says("issuer.busy");
    assert!(said.err.contains("it is asked again in "), "{}", said.err);
    assert_eq!(sandbox.count("asked"), 1);
    wait_for("the end of the pause", || token(&home, &[]).exit == 0);
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!(sandbox.count("asked"), 2);
}

#[test]
fn refusals_are_explained_and_end_after_three_until_something_changes() {
    let (home, sandbox) = federated(&["--life", "60s", "--rotate", "0s"], ENV);
    sandbox.control("/sandbox/rule", json!({"subject": "repo:somebody/else:*"}));
    for _ in 0..4 {
        let said = token(&home, &[]).exits(6).says("issuer.refused");
        assert!(said.err.contains("subject"), "{}", said.err);
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(sandbox.count("asked"), 2, "the third try has to wait");
    home.keyward(&["profile", "test", "claude"]).exits(6).says("issuer.refused");
    assert_eq!(sandbox.count("asked"), 3);
    for _ in 0..3 {
        let said = token(&home, &[]).exits(6).says("issuer.refused");
        assert!(said.err.contains("refused three times") && said.err.contains("until the profile"), "{}", said.err);
    }
    assert_eq!(sandbox.count("asked"), 3, "a refusal is not hammered");

    // Another assertion is a change; so is a trial by hand.
    sandbox.control("/sandbox/issue", json!({}));
    token(&home, &[]).exits(6);
    assert_eq!(sandbox.count("asked"), 4);
    sandbox.control("/sandbox/rule", json!({"subject": "sandbox:*"}));
    home.keyward(&["profile", "test", "claude"]).exits(0);
    assert_eq!(sandbox.count("asked"), 5);
    token(&home, &[]).exits(0);
    assert_eq!(sandbox.count("asked"), 5, "what the trial made is used");
}

#[test]
fn a_failure_that_lasts_is_recorded_once() {
    let (home, sandbox) = federated(&["--life", "8s", "--fast-lives"], FILES);
    let child = shell(&home);
    std::fs::remove_file(sandbox.token_file()).unwrap();
    wait_at_most(Duration::from_secs(20), "the end of the credential", || lease(&home)["state"] == "lapsed");
    std::thread::sleep(Duration::from_secs(6));
    for kind in ["exchange.failed", "lease.renew_failed", "lease.lapsed"] {
        assert_eq!(entries(&home, kind).len(), 1, "{kind}");
    }
    sandbox.control("/sandbox/issue", json!({}));
    wait_at_most(Duration::from_secs(15), "the next credential", || lease(&home)["state"] == "live");
    drop(child);
}

#[test]
fn both_generations_of_refusals_are_understood() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    sandbox.control("/sandbox/rule", json!({"audience": "https://other.example"}));
    for form in ["400", "401", "rfc6749"] {
        sandbox.control("/sandbox/refusals", json!({"as": form}));
        let said = home.keyward(&["profile", "test", "claude"]).exits(6).says("issuer.refused");
        assert!(
            said.err.contains("audience: ") && said.err.contains("https://api.anthropic.com"),
            "{form}: {}",
            said.err
        );
        assert!(said.err.contains("req"), "the request id is told: {}", said.err);
    }
}

#[test]
fn clocks_and_keys_that_are_off_are_told_apart() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    sandbox.control("/sandbox/clock", json!({"server_s": -300, "idp_s": 0}));
    let said = home.keyward(&["profile", "test", "claude"]).exits(6).says("issuer.refused");
    assert!(said.err.contains("clock"), "{}", said.err);
    sandbox.control("/sandbox/clock", json!({"server_s": 0, "idp_s": 300}));
    sandbox.control("/sandbox/issue", json!({}));
    let said = home.keyward(&["profile", "test", "claude"]).exits(6).says("issuer.refused");
    assert!(said.err.contains("`iat` lies ahead"), "{}", said.err);
    sandbox.control("/sandbox/clock", json!({"server_s": 0, "idp_s": 0}));
    sandbox.control("/sandbox/rotate-keys", json!({}));
    home.keyward(&["profile", "test", "claude"]).exits(0);
}
