//! Children that live longer than their tokens.

use crate::{FILES, Sdk, all_went_well, call, command, federated};
use keyward_testkit::{Sandbox, Talk};
use serde_json::json;

/// How many tokens a child says it used, each of which the sandbox has minted.
#[track_caller]
fn tokens(said: &str, sandbox: &Sandbox) -> usize {
    let minted: Vec<_> = crate::journal(sandbox).into_iter().filter(|l| l["path"] == "/v1/oauth/token").collect();
    for line in said.lines() {
        let print = line.strip_prefix("token ").unwrap_or_else(|| panic!("{said}"));
        assert!(minted.iter().any(|line| line["token"] == print), "{print} was not minted");
    }
    said.lines().count()
}

#[test]
fn a_python_client_outlives_its_token_twice_without_an_exchange_of_its_own() {
    let (home, sandbox) = federated(&["--fast-lives", "--life", "8s", "--one-time", "--rotate", "1s"], FILES);
    let said = call(&home, Sdk::Python, &["outlive", "17"]).out;
    assert!(tokens(&said, &sandbox) >= 3, "{said}");
    all_went_well(&sandbox);
}

/// Sixty seconds is the shortest life that the service mints. This SDK does not take a token from a file when 30 s or less
/// are left (`lib/credentials/user-oauth.js`), so the file must have been rewritten before.
#[test]
fn a_node_client_outlives_two_tokens_of_the_shortest_real_life() {
    let (home, sandbox) = federated(&["--life", "60s", "--one-time", "--rotate", "5s"], FILES);
    let said = call(&home, Sdk::Node, &["outlive", "95"]).out;
    assert!(tokens(&said, &sandbox) >= 3, "{said}");
    all_went_well(&sandbox);
}

#[test]
fn the_identity_provider_rotates_its_keys_under_a_client() {
    let (home, sandbox) = federated(&["--fast-lives", "--life", "6s", "--one-time", "--rotate", "0s"], FILES);
    let mut child = Talk::start(command(&home, Sdk::Python, &["outlive", "9"]));
    let mut seen = vec![child.line()];
    while seen.len() < 3 {
        // The key is gone at once, and with it every assertion that it has signed.
        sandbox.control("/sandbox/rotate-keys", json!({}));
        seen.push(child.line());
    }
    sandbox.control("/sandbox/issue", json!({}));
    child.end().exits(0);
    all_went_well(&sandbox);
}
