//! Gateway delivery with the real programs: what the child has and has not, what its calls leave in the log, and how they end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod clouds;
mod crash;
mod fence;
mod hold;
mod revocation;
mod stranger;
mod takeback;
mod traffic;
mod upstream;

pub(crate) use keyward_testkit::ask;
use keyward_testkit::{Home, Talk, run, wait_for};
use serde_json::Value;
pub(crate) use upstream::{KEY, Upstream};

/// A home with an open vault, an API, and the profile `k` whose calls go there.
fn home() -> (Home, Upstream) {
    let (home, upstream) = (Home::with_vault(), Upstream::start());
    home.secret("k", KEY);
    profile(&home, &upstream, "k", "");
    (home, upstream)
}

/// Adds a profile of the key `k`.
#[track_caller]
fn profile(home: &Home, upstream: &Upstream, name: &str, more: &str) {
    let port = upstream.port;
    let toml = format!(
        "[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\nbase_url = \"http://127.0.0.1:{port}\"\n[delivery]\nmode = \"gateway\"\n{more}"
    );
    home.profile(name, &toml);
}

/// A shell in a run of the profile; it executes the lines that the test sends.
fn shell(home: &Home, profile: &str) -> Talk {
    let mut talk = Talk::start(home.keyward_command(&["run", "-p", profile, "--", "sh"]));
    assert_eq!(ask(&mut talk, "echo ready"), "ready");
    talk
}

/// One call from inside of the run: its body and, at the end, its status.
fn call(talk: &mut Talk) -> String {
    ask(
        talk,
        "echo $(curl -s -w ' %{http_code}' -m 20 -H \"authorization: Bearer $ANTHROPIC_AUTH_TOKEN\" -H 'content-type: application/json' -d '{}' \"$ANTHROPIC_BASE_URL/v1/messages?a=secret-in-query\" | tr -d '\\n')",
    )
}

/// One call of a child of the test, which is in no run of it unless the test is: its body and, at the end, its status.
fn call_by(home: &Home, base: &str, token: &str) -> String {
    let mut command = home.command("curl");
    command.args(["-s", "-w", " %{http_code}", "-m", "20", "-d", "{}", "-H", &format!("x-api-key: {token}")]);
    command.arg(format!("{base}/v1/messages"));
    run(command, b"").out
}

/// The only lease that there is.
#[track_caller]
fn lease(home: &Home) -> Value {
    home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0].clone()
}

/// Waits until there are `n` entries of a kind, and gives them.
#[track_caller]
fn entries(home: &Home, kind: &str, n: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait_for(&format!("{n} entries {kind}"), || {
        found = home.audit().into_iter().filter(|e| e["kind"] == kind).collect();
        found.len() >= n
    });
    assert_eq!(found.len(), n, "{found:?}");
    found
}
