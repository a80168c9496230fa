//! The contract of the command line and of the LocalAPI, with the real programs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod doctor;
mod events;
mod export;
mod five_minutes;
mod follow;
mod fuzz;
mod launcher;
mod life;
mod log;
mod output;
mod prompt;
mod schema;
mod shapes;
mod words;

use keyward_testkit::{Home, Talk};
use serde_json::Value;

/// A run that lives until its input ends.
fn waiting_run(home: &Home, profile: &str) -> Talk {
    let mut talk =
        Talk::start(home.keyward_command(&["run", "-p", profile, "--", "sh", "-c", "echo ready; read -r _"]));
    assert_eq!(talk.line(), "ready");
    talk
}

/// The error that a command says in JSON.
#[track_caller]
fn error(home: &Home, args: &[&str], exit: i32) -> Value {
    let answer = home.keyward(&[&["--json"], args].concat()).exits(exit);
    assert_eq!(answer.out, "", "an error goes to standard error alone");
    let said: Value = serde_json::from_str(&answer.err).unwrap_or_else(|e| panic!("{e}: {}", answer.err));
    said["error"].clone()
}
