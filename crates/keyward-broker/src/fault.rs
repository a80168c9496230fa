//! `keyward-broker-fault`: the broker with the named points at which tests end it.
//!
//! The same program as `keyward-broker`, under a name of its own. Never part of a release. Started by the crash tests.

#[path = "main.rs"]
mod broker;

fn main() -> std::process::ExitCode {
    broker::main()
}
