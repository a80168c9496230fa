//! What an attacker would do, done to the built programs. The ledger with a row per attack is `tests/attacks.md`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod beside;
mod confine;
mod desk;
mod federation;
mod flood;
mod grants;
mod inside;
mod leak;
mod mark;
mod memory;
mod needle;
mod place;
mod process;
mod program;
mod screen;
mod socket;
mod start;
mod tamper;

pub(crate) use keyward_testkit::is_root;
use keyward_testkit::{Answer, Home, PASSPHRASE, Wire, run, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A user that is not the one of the vault.
const STRANGER: u32 = 61_743;

/// An empty home of an ordinary user, for tests that are root: the one who called sudo, else one without any files.
fn home_of_a_user() -> (Home, u32) {
    let uid = std::env::var("SUDO_UID").ok().and_then(|u| u.parse().ok()).unwrap_or(61_742);
    let mut home = Home::new();
    home.act_as(uid);
    (home, uid)
}

/// The hostile peer, within reach of every user of the home.
fn peer(home: &Home) -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_attack-peer"));
    let here = home.bin().join("attack-peer");
    if !here.exists() {
        std::fs::hard_link(&built, &here).or_else(|_| std::fs::copy(&built, &here).map(drop)).unwrap();
    }
    here
}

/// Runs a line in a shell below this process, which has opened the vault: what that shell starts is a requester.
fn beside(home: &Home, line: &str) -> Answer {
    let mut command = home.command("sh");
    // A shell may become the last program of its line, which would be a direct child of this process then.
    command.args(["-c", &format!("{line}\nexit $?")]);
    run(command, b"")
}

/// Asks over the socket as this process, which is a requester.
#[track_caller]
fn api(home: &Home, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Wire::once(&home.socket(), method, path, &[], body.as_bytes()).unwrap().json()
}

/// A connection of this process on which the passphrase was proven.
#[track_caller]
fn operator(home: &Home) -> Wire {
    let mut wire = Wire::open(&home.socket());
    wire.send("POST", "/v1/operator", &[], json!({"passphrase": PASSPHRASE}).to_string().as_bytes());
    assert_eq!(wire.reply().unwrap().status, 200);
    wire
}

/// The requests that wait for a person.
#[track_caller]
fn waiting(home: &Home) -> Vec<Value> {
    home.keyward(&["approvals", "--json"]).exits(0).json().as_array().unwrap().clone()
}

/// The parent of a process.
fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A process that is killed at the end of the test, however that ends. Its standard input stays open until then.
struct Kept(Child);

impl Kept {
    /// Starts it without anything to write to.
    #[track_caller]
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        signal(self.pid(), Signal::KILL);
        // It ends on the signal.
        let _ = self.0.wait();
    }
}

#[test]
fn the_ledger_names_each_test_and_no_other() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let ledger = std::fs::read_to_string(folder.join("attacks.md")).unwrap();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = ledger.split(|c: char| !word(c) && c != ':').filter(|text| text.contains("::"));
    let named: std::collections::BTreeSet<&str> = named.collect();
    let written = |tests: &str| -> std::collections::BTreeSet<String> {
        let files = needle::files(&folder.join(tests)).into_iter();
        let of = |file: std::path::PathBuf| {
            let text = std::fs::read_to_string(&file).unwrap();
            let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let tests = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
            tests.map(|name| format!("{module}::{name}")).collect::<Vec<_>>()
        };
        files.flat_map(of).filter(|name| !name.starts_with("main::") && !name.starts_with("needle::")).collect()
    };
    // Those of the gateway prove more than that an attack fails.
    let (attacks, gateway) = (written("attack"), written("gateway"));
    let unnamed: Vec<_> = attacks.iter().filter(|name| !named.contains(name.as_str())).collect();
    let unwritten: Vec<_> =
        named.iter().filter(|name| !attacks.contains(**name) && !gateway.contains(**name)).collect();
    assert!(unnamed.is_empty() && unwritten.is_empty(), "not in the ledger: {unnamed:?}; no test: {unwritten:?}");
}
