//! Unmodified SDKs through `keyward run`, against the sandbox: clients that take no argument and know nothing of Keyward.
//!
//! The clients are those of the lock files in `tests/clients`, installed below the target folder by the first test that
//! needs them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod calls;
mod clocks;
mod connections;
mod crowd;
mod outlive;
mod secrecy;
mod shadows;

use keyward_testkit::{Answer, Home, Sandbox, run, target};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An SDK as its users have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sdk {
    Python,
    Node,
}

impl Sdk {
    const BOTH: [Self; 2] = [Self::Python, Self::Node];

    /// The command line of a task of `tests/clients/call.*`.
    fn line(self, task: &[&str]) -> Vec<String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let (program, script) = match self {
            Self::Python => (python(), scripts.join("call.py")),
            Self::Node => (node(), scripts.join("call.cjs")),
        };
        let words = [program, script].map(|path| path.to_str().unwrap().to_owned());
        words.into_iter().chain(task.iter().map(|word| (*word).to_owned())).collect()
    }

    /// What it calls itself in a request.
    fn agent(self) -> &'static str {
        match self {
            Self::Python => "Anthropic/Python",
            Self::Node => "Anthropic/JS",
        }
    }
}

/// Folder with the installed clients.
fn clients() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = target().parent().unwrap().join("clients");
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/install");
        let done = Command::new("sh").arg(&install).arg(&folder).output().unwrap();
        assert!(done.status.success(), "{}: {}", install.display(), String::from_utf8_lossy(&done.stderr));
        folder
    })
}

/// Python of the virtual environment that holds the SDK.
fn python() -> PathBuf {
    clients().join("python/bin/python")
}

/// The `node` that a person would start.
fn node() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("node")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no node in PATH; `cargo xtask setup` installs it"))
}

/// Delivery by files that are kept fresh.
const FILES: &str = "[delivery]\nmode = \"file\"";

/// Delivery by a variable.
const ENV: &str = "[delivery]\nmode = \"env\"";

/// A home with an open vault, a sandbox, and the federated profile `claude` with a projected token file.
fn federated(args: &[&str], more: &str) -> (Home, Sandbox) {
    let mut home = Home::with_vault();
    home.set("NODE_PATH", clients().join("node/node_modules").to_str().unwrap());
    let sandbox = Sandbox::start(&home, args);
    sandbox.federate(&home, "claude", more);
    (home, sandbox)
}

/// `keyward run` of a client, not started yet.
fn command(home: &Home, sdk: Sdk, task: &[&str]) -> Command {
    let line = sdk.line(task);
    let words: Vec<&str> = ["run", "-p", "claude", "--"].into_iter().chain(line.iter().map(String::as_str)).collect();
    home.keyward_command(&words)
}

/// Runs a client to its end; what it prints besides its answers fails the test.
#[track_caller]
fn call(home: &Home, sdk: Sdk, task: &[&str]) -> Answer {
    let answer = run(command(home, sdk, task), b"");
    assert_eq!(answer.exit, 0, "{sdk:?} {task:?}\nout: {}\nerr: {}", answer.out, answer.err);
    answer
}

/// The lines of the sandbox's journal, oldest first.
fn journal(sandbox: &Sandbox) -> Vec<Value> {
    let text = std::fs::read_to_string(sandbox.said("journal")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Fails the test unless the broker alone has asked for tokens, without a refusal, and every call of the API had a token
/// that lives.
#[track_caller]
fn all_went_well(sandbox: &Sandbox) {
    for line in journal(sandbox) {
        assert_eq!(line["status"], 200, "{line}");
        let agent = line["user_agent"].as_str().unwrap_or_default();
        let asks_for_a_token = line["path"] == "/v1/oauth/token";
        assert_eq!(agent.starts_with("keyward/"), asks_for_a_token, "{line}");
    }
    assert_eq!((sandbox.count("refused"), sandbox.count("unauthorized")), (0, 0));
}

/// How many requests of the journal came from this client.
fn requests(sandbox: &Sandbox, sdk: Sdk) -> usize {
    let by = |line: &Value| line["user_agent"].as_str().is_some_and(|agent| agent.starts_with(sdk.agent()));
    journal(sandbox).iter().filter(|line| by(line)).count()
}

/// The answer that shows the newest token of the sandbox.
fn newest(sandbox: &Sandbox) -> String {
    let minted = journal(sandbox).into_iter().rfind(|line| line["path"] == "/v1/oauth/token").unwrap();
    format!("token {}", minted["token"].as_str().unwrap())
}
