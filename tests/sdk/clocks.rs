//! Clocks of the service and of the identity provider that are five minutes off.

use crate::{FILES, Sdk, all_went_well, call, command, federated, newest};
use keyward_testkit::{Talk, wait_for};
use serde_json::json;

/// Five minutes.
const OFF: i64 = 300;

#[test]
fn clocks_that_make_the_assertion_older_than_it_is_are_no_trouble() {
    // It lives ten minutes, so that half of them are left.
    for clock in [json!({"server_s": OFF}), json!({"idp_s": -OFF})] {
        let (home, sandbox) = federated(&["--life", "60s", "--assertion-life", "10m", "--rotate", "0s"], FILES);
        sandbox.control("/sandbox/clock", clock.clone());
        sandbox.control("/sandbox/issue", json!({}));
        for sdk in Sdk::BOTH {
            assert_eq!(call(&home, sdk, &["ask"]).out.trim_end(), newest(&sandbox), "{clock} {sdk:?}");
        }
        all_went_well(&sandbox);
    }
}

#[test]
fn an_assertion_from_the_future_is_refused_and_its_times_are_told() {
    for (clock, told) in [
        (json!({"server_s": -OFF}), ["clock", "issued 0 s ago"]),
        (json!({"idp_s": OFF}), ["clock: its `iat` lies ahead", "issued in "]),
    ] {
        let (home, sandbox) = federated(&["--life", "60s", "--assertion-life", "10m", "--rotate", "0s"], FILES);
        sandbox.control("/sandbox/clock", clock.clone());
        sandbox.control("/sandbox/issue", json!({}));
        let said = home.keyward(&["run", "-p", "claude", "--", "true"]).exits(125).says("issuer.refused");
        for words in told {
            assert!(said.err.contains(words), "{clock}: `{words}` expected: {}", said.err);
        }
        assert_eq!(sandbox.count("refused"), 1, "{clock}: asked once");
        // The clock is set right, and another assertion is a reason to ask again.
        sandbox.control("/sandbox/clock", json!({"server_s": 0, "idp_s": 0}));
        sandbox.control("/sandbox/issue", json!({}));
        // A refusal of this very moment is shared by all who ask.
        wait_for("the end of the refusal", || home.keyward(&["run", "-p", "claude", "--", "true"]).exit == 0);
        assert_eq!(call(&home, Sdk::Python, &["ask"]).out.trim_end(), newest(&sandbox), "{clock}");
        assert_eq!(sandbox.count("unauthorized"), 0);
    }
}

#[test]
fn an_assertion_that_is_over_is_explained_by_its_times() {
    for (clock, told) in
        [(json!({"server_s": OFF}), "ends in 2 minutes"), (json!({"idp_s": -OFF}), "expired 3 minutes ago")]
    {
        let (home, sandbox) = federated(&["--life", "60s", "--assertion-life", "2m", "--rotate", "0s"], FILES);
        sandbox.control("/sandbox/clock", clock.clone());
        sandbox.control("/sandbox/issue", json!({}));
        let said = home.keyward(&["run", "-p", "claude", "--", "true"]).exits(125);
        assert!(said.err.contains(told), "{clock}: {}", said.err);
        assert!(said.err.contains("clock"), "{clock}: {}", said.err);
        assert_eq!(sandbox.count("refused"), 1, "{clock}: asked once");
    }
}

#[test]
fn clocks_that_change_while_a_client_lives_change_nothing() {
    let (home, sandbox) =
        federated(&["--fast-lives", "--life", "8s", "--assertion-life", "30m", "--rotate", "1s"], FILES);
    let mut child = Talk::start(command(&home, Sdk::Python, &["outlive", "10"]));
    child.line();
    // Each makes assertions look older; those from the future are refused, as the test above shows.
    for clock in [json!({"server_s": OFF}), json!({"server_s": 0, "idp_s": -OFF})] {
        sandbox.control("/sandbox/clock", clock);
        child.line();
    }
    child.end().exits(0);
    assert_eq!(sandbox.count("refused"), 0);
}
