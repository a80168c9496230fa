//! `keyward-sandbox`: a stand-in for the world outside, for the demo, the tests and anyone who tries Keyward.
//!
//! `mint` plays an issuer of kind `command`; `show` plays a child and tells which credentials it holds, by fingerprint.
//! It never opens a connection, never talks to a broker and never prints a credential that it was handed. Called by
//! `cargo xtask demo`, by the end-to-end tests and by hand.

mod mint;
mod show;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Stand-in issuer and child for trying Keyward
#[derive(Parser)]
#[command(name = "keyward-sandbox", version, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Print a fresh random token as one line of JSON: {"token": …, "expires_in": seconds}
    Mint {
        /// How long the token says it lives: 60s, 5m, 1h; at most 24h
        #[arg(long, value_parser = mint::life)]
        life: Duration,
        /// What the token begins with
        #[arg(long, default_value = "sb-")]
        prefix: String,
        /// Take lives under a minute, for tests
        #[arg(long)]
        fast_lives: bool,
    },
    /// Print a fingerprint of each variable; of one that ends in _FILE, of the file that it names
    Show {
        /// Names of environment variables
        #[arg(required = true)]
        variables: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Line::parse().task {
        Task::Mint { life, prefix, fast_lives } => mint::mint(life, &prefix, fast_lives),
        Task::Show { variables } => show::show(&variables),
    };
    let (text, code) = match done {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "keyward-sandbox: {why}");
            return ExitCode::FAILURE;
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
