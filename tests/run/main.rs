//! `keyward run` with the real programs: what the child is, what it holds, how that is renewed and taken back.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod becoming;
mod crash;
mod deliver;
mod exit;
mod grants;
mod inherit;
mod inside;
mod issuer;
mod launch;
mod plan;
mod project;
mod record;
mod streams;
mod takeback;

pub(crate) use keyward_testkit::ask;
use keyward_testkit::{Answer, Home, Talk, run, wait_for};
use serde_json::Value;
use std::path::PathBuf;

/// A shell in a run; it executes the lines that the test sends.
fn shell(home: &Home, args: &[&str]) -> Talk {
    let line = [&["run"], args, &["--", "sh"]].concat();
    let mut talk = Talk::start(home.keyward_command(&line));
    assert_eq!(ask(&mut talk, "echo ready"), "ready");
    talk
}

/// What `ps --json` says.
#[track_caller]
fn ps(home: &Home) -> Vec<Value> {
    home.keyward(&["ps", "--json"]).exits(0).json().as_array().unwrap().clone()
}

/// The only lease of the run of a process; `Null` when it is not listed.
#[track_caller]
fn lease(home: &Home, pid: i32) -> Value {
    let run = ps(home).into_iter().find(|r| r["pid"] == pid).unwrap_or_default();
    run["leases"][0].clone()
}

/// The entries of one kind.
#[track_caller]
fn entries(home: &Home, kind: &str) -> Vec<Value> {
    home.audit().into_iter().filter(|e| e["kind"] == kind).collect()
}

/// Waits until there are `n` entries of a kind, and gives the last one.
#[track_caller]
fn entry(home: &Home, kind: &str, n: usize) -> Value {
    let mut found = Vec::new();
    wait_for(&format!("{n} entries {kind}"), || {
        found = entries(home, kind);
        found.len() >= n
    });
    assert_eq!(found.len(), n, "{found:?}");
    found.pop().unwrap()
}

/// Makes an executable file. It is written by another process: a descriptor of this one might be open for writing in a child
/// that another test starts at the same moment, and such a file cannot be executed.
fn program(home: &Home, name: &str, text: &str, mode: &str) -> PathBuf {
    let path = home.root.join(name);
    let mut write = home.command("sh");
    write.args(["-c", r#"cat >"$0" && chmod "$1" "$0""#]).arg(&path).arg(mode);
    run(write, text.as_bytes()).exits(0);
    path
}

/// A profile of the issuer `command` with the knobs to play with it.
struct Mint<'h> {
    home: &'h Home,
    name: &'static str,
}

impl<'h> Mint<'h> {
    /// Adds the profile. Its tokens are `NAME-token-N`, the N-th one minted, and live `life` seconds.
    fn new(home: &'h Home, name: &'static str, life: u32, mode: &str, variable: &str) -> Self {
        let mint = Self { home, name };
        let (count, fail, lives) = (mint.file("count"), mint.file("fail"), mint.file("life"));
        let script = format!(
            "echo >>{}\n[ -e {} ] && exit 3\nprintf '{{\"token\":\"{name}-token-%s\",\"expires_in\":%s}}' $(wc -l <{}) $(cat {})\n",
            count.display(),
            fail.display(),
            count.display(),
            lives.display(),
        );
        std::fs::write(mint.file("script"), script).unwrap();
        std::fs::write(&lives, life.to_string()).unwrap();
        home.profile(
            name,
            &format!(
                "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"{}\"]\n[delivery]\nmode = \"{mode}\"\nenv = {{ {variable} = \"token\" }}\n",
                mint.file("script").display()
            ),
        );
        mint
    }

    fn file(&self, what: &str) -> PathBuf {
        self.home.root.join(format!("{}.{what}", self.name))
    }

    /// How often the issuer was asked.
    fn count(&self) -> usize {
        std::fs::read(self.file("count")).map_or(0, |text| text.iter().filter(|b| **b == b'\n').count())
    }

    /// Makes the issuer fail, or work again.
    fn fails(&self, fails: bool) {
        if fails {
            std::fs::write(self.file("fail"), "").unwrap();
        } else {
            std::fs::remove_file(self.file("fail")).unwrap();
        }
    }
}

/// Runs a line of shell with the environment of the home.
fn sh(home: &Home, line: &str) -> Answer {
    let mut command = home.command("sh");
    command.args(["-c", line]);
    run(command, b"")
}
