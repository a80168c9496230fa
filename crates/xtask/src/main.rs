//! Tasks of the repository, run as `cargo xtask TASK`.
//!
//! One file a task. Every task says what it does, ends with a non-zero exit code on any deviation, and writes only into
//! the target folder, a throw-away home, or the files that it is named after. Never part of a release. Called by
//! developers and by `.ci/run`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task reports to the terminal that started it")]

mod app;
mod bench;
mod clients;
mod demo;
mod desktop;
mod devhost;
mod dist;
mod generate;
mod home;
mod interrupt;
mod licences;
mod node;
mod package;
mod sandbox;
mod screen;
mod setup;
mod test;
mod tidy;
mod ui;
mod webdriver;
mod workspace;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use workspace::Workspace;

/// Tasks of the repository
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the system packages that building and testing need
    Setup {
        /// Only say what is missing; exit 1 if anything is
        #[arg(long)]
        check: bool,
    },
    /// Start the desktop as a debug build, on your own vault
    App {
        /// On a throw-away vault, with the sandbox and runs that hold credentials
        #[arg(long)]
        demo: bool,
        /// With the tray alone
        #[arg(long)]
        hidden: bool,
    },
    /// Drive the real binaries through the whole story in a throw-away home
    Demo(demo::Play),
    /// Serve the UI to a plain browser, against a broker in a throw-away home
    Devhost(devhost::Serve),
    /// Run every check, fastest first
    Test {
        /// Instead, the vendors' own clients through the gateway, the large ones too; writes crates/CLIENTS.md
        #[arg(long)]
        clients: bool,
    },
    /// Put the release binaries into DIR
    Dist {
        /// Folder, made if it is absent
        dir: PathBuf,
        /// Build OpenSSL from source instead of linking the one of the system
        #[arg(long)]
        vendored: bool,
    },
    /// Make the Debian package and the RPM package of the release
    Package {
        /// Folder for them, made if it is absent; `package` in the target folder without it
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Besides, install, start and remove the Debian package in a clean Debian 12; needs root
        #[arg(long)]
        check: bool,
    },
    /// Check the rules that the compiler does not: arrows, comments, layout
    Tidy,
    /// Write the files that are made from code
    Gen {
        /// Write nothing; exit 1 if a file is stale
        #[arg(long)]
        check: bool,
    },
    /// Measure the figures of the release binaries and write crates/BENCH.md
    Bench {
        /// Fewer rounds; prints the table and writes no file
        #[arg(long)]
        quick: bool,
        /// The figures of the desktop alone; prints the table and writes no file
        #[arg(long)]
        desktop: bool,
        /// The figures of the gateway alone; prints the table and writes no file
        #[arg(long, conflicts_with = "desktop")]
        gateway: bool,
    },
}

fn main() -> ExitCode {
    match run(Line::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), String> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { check } => setup::setup(&workspace, &["build", "desktop", "screen", "test"], check),
        Task::App { demo, hidden } => app::app(&workspace, demo, hidden),
        Task::Demo(play) => demo::demo(&workspace, play),
        Task::Devhost(serve) => devhost::devhost(&workspace, serve),
        Task::Test { clients: true } => clients::clients(&workspace),
        Task::Test { clients: false } => test::test(&workspace),
        Task::Dist { dir, vendored } => dist::dist(&workspace, &dir, vendored),
        Task::Package { dir, check } => package::package(&workspace, dir, check),
        Task::Tidy => tidy::tidy(&workspace),
        Task::Gen { check } => generate::generate(&workspace, check),
        Task::Bench { quick, desktop, gateway } => {
            let desktop = desktop.then_some(bench::Part::Desktop);
            bench::bench(&workspace, quick, desktop.or(gateway.then_some(bench::Part::Gateway)))
        }
    }
}
