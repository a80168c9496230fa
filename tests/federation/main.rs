//! Federation with the real programs: one exchange for the whole machine, kept fresh, taken from the cache, and explained
//! when it fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod deliver;
mod fault;
mod once;
mod renew;
mod supply;

pub(crate) use keyward_testkit::ask;
use keyward_testkit::{Answer, Home, Sandbox, Talk};
use serde_json::Value;

/// A home with an open vault, a sandbox, and the federated profile `claude` with a projected token file.
fn federated(args: &[&str], more: &str) -> (Home, Sandbox) {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, args);
    sandbox.federate(&home, "claude", more);
    (home, sandbox)
}

/// Delivery by files that are kept fresh.
const FILES: &str = "[delivery]\nmode = \"file\"";

/// Delivery by a variable.
const ENV: &str = "[delivery]\nmode = \"env\"";

/// One token.
#[track_caller]
fn token(home: &Home, more: &[&str]) -> Answer {
    home.keyward(&[&["token", "claude"], more].concat())
}

/// A shell in a run of the profile; it executes the lines that the test sends.
fn shell(home: &Home) -> Talk {
    let mut talk = Talk::start(home.keyward_command(&["run", "-p", "claude", "--", "sh"]));
    assert_eq!(ask(&mut talk, "echo ready"), "ready");
    talk
}

/// The only lease that there is.
#[track_caller]
fn lease(home: &Home) -> Value {
    home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0].clone()
}

/// The entries of one kind.
#[track_caller]
fn entries(home: &Home, kind: &str) -> Vec<Value> {
    home.audit().into_iter().filter(|e| e["kind"] == kind).collect()
}
