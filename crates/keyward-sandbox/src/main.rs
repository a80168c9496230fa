//! `keyward-sandbox`: a stand-in for the world outside, for the demo, the tests and anyone who tries Keyward.
//!
//! `serve` plays identity providers, token endpoints, metadata services and the model APIs behind them; `child` plays a
//! program that uses an SDK; `mint` plays an issuer of kind `command`; `show` tells which credentials a child holds, by
//! fingerprint. It never connects beyond loopback, never talks to a broker and never prints a credential that it was handed.
//! Called by `cargo xtask demo`, by the end-to-end tests and by hand.

mod answer;
mod api;
mod aws;
mod bedrock;
mod child;
mod claude;
mod control;
mod entra;
mod eventstream;
mod fault;
mod foundry;
mod google;
mod idp;
mod journal;
mod json;
mod jwt;
mod mint;
mod openai;
mod revoke;
mod sandbox;
mod serve;
mod show;
mod sigv4;
mod span;
mod sts;
mod token;
mod vertex;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Stand-in issuer, API and child for trying Keyward without an account
#[derive(Parser)]
#[command(name = "keyward-sandbox", version, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve an identity provider, the token endpoint and the Messages API on loopback
    #[command(after_long_help = include_str!("serve-help.txt"))]
    Serve(serve::Serve),
    /// Play a program that uses an SDK: call the API with the token of a profile file, and take each fresh one
    #[command(after_long_help = include_str!("child-help.txt"))]
    Child {
        /// End well after this many changes of the token
        #[arg(long, value_name = "N")]
        lifetimes: u32,
        /// Pause between two calls
        #[arg(long, value_name = "SPAN", default_value = "200ms", value_parser = span::positive)]
        every: Duration,
    },
    /// Print a fresh random token as one line of JSON: {"token": …, "expires_in": seconds}
    Mint {
        /// How long the token says it lives: 60s, 5m, 1h; at most 24h
        #[arg(long, value_parser = span::life)]
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
        Task::Serve(serve) => serve::serve(serve).map(|()| String::new()),
        Task::Child { lifetimes, every } => child::child(lifetimes, every).map(|()| String::new()),
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

/// Random bytes of the system.
fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("no randomness: {e}"))?;
    Ok(bytes)
}

/// Random bytes as twice as many hex digits.
fn random_hex(bytes: usize) -> Result<String, String> {
    let random = random::<32>()?;
    Ok(hex::encode(&random[..bytes.min(random.len())]))
}
