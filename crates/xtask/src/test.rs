//! `cargo xtask test`: every check, fastest first; what continuous integration runs.
//!
//! Stops at the first step that fails. Installs what it lacks: system packages from `.ci/packages`, cargo-deny and the
//! clients of `tests/clients` into the target folder, the UI's packages into `ui/node_modules`. Never changes a file that git
//! knows. Called by hand and by `.ci/run`.

use crate::generate::generate;
use crate::setup::setup;
use crate::tidy::tidy;
use crate::ui::{self, Bundle};
use crate::workspace::{Workspace, line_of, output, succeed};
use std::io::{BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Version of cargo-deny, of crates.io. Its debug build takes a minute, its release build many times that.
const DENY: &str = "0.20.2";

/// Feature that adds the named points at which a test kills the broker.
const FAULT_POINTS: &str = "keyward-broker/fault-points";

/// The desktop as its tests need it: with the UI inside, and open to WebDriver. Every step takes the same features, so that
/// its crates are compiled once for the checks and once for the tests.
const DRIVEN: &str = "keyward-desktop/custom-protocol,keyward-desktop/automation";

/// The desktop as it is packaged.
const PACKAGED: &str = "keyward-desktop/custom-protocol";

/// Runs every step.
pub(crate) fn test(workspace: &Workspace) -> Result<(), String> {
    let begin = Instant::now();
    step("setup", || setup(workspace, &["build", "desktop", "screen", "test"], false))?;
    let before = tree(workspace)?;
    step("fmt", || succeed(&mut workspace.cargo(&["fmt", "--all", "--check"])))?;
    step("tidy", || tidy(workspace))?;
    step("gen --check", || generate(workspace, true))?;
    step("deny", || deny(workspace))?;
    let mut sum = Sum::default();
    step("ui", || {
        let (passed, skipped) = ui::check(workspace)?;
        sum += Sum { passed, failed: 0, skipped };
        Ok(())
    })?;
    // The desktop takes the bundle in when it is compiled.
    step("ui, bundles", || {
        ui::build(workspace, Bundle::Devhost)?;
        ui::build(workspace, Bundle::Desktop)?;
        ui::limit(workspace)
    })?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--features"];
    let warnings = ["--", "-D", "warnings"];
    step("clippy", || succeed(workspace.cargo(&clippy).arg(DRIVEN).args(warnings)))?;
    step("clippy, fault points, desktop as packaged", || {
        succeed(workspace.cargo(&clippy).arg(format!("{PACKAGED},{FAULT_POINTS}")).args(warnings))
    })?;
    step("doc", || {
        let mut doc = workspace.cargo(&["doc", "--workspace", "--no-deps", "--features", PACKAGED]);
        succeed(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("build", || {
        succeed(&mut workspace.cargo(&["build", "--workspace", "--bins", "--features", DRIVEN]))?;
        let fault = ["build", "--workspace", "--features", FAULT_POINTS, "--bin", "keyward-broker-fault"];
        succeed(&mut workspace.cargo(&fault))
    })?;
    step("clients", || {
        let install = workspace.root.join("tests/clients/install");
        succeed(Command::new("sh").arg(install).arg(workspace.target.join("clients")))
    })?;
    let mut of_screens = Sum::default();
    let screens = step("screens", || {
        let node = ui::install(workspace)?;
        let bin = workspace.target.join("debug");
        let mut npm = node.npm(&workspace.root.join("ui"), &["run", "--silent", "screens", "--", "--bin"]);
        counted(npm.arg(&bin), &mut of_screens)
    });
    let mut of_cargo = Sum::default();
    let tested = step("test", || {
        counted(&mut workspace.cargo(&["test", "--workspace", "--no-fail-fast", "--features", DRIVEN]), &mut of_cargo)
    });
    let clean = step("clean tree", || match tree(workspace)? {
        after if after == before => Ok(()),
        after => Err(format!("the run changed files that git knows, or left new ones:\n{}", after.names)),
    });
    let none = [&of_screens, &of_cargo].iter().any(|sum| sum.passed == 0);
    let done = screens.and(tested).and(clean).and(if none { Err("no test ran".into()) } else { Ok(()) });
    sum += of_screens;
    sum += of_cargo;
    println!("test: {} s", begin.elapsed().as_secs());
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    done
}

fn step(name: &str, run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("== {name}");
    let begin = Instant::now();
    let done = run().map_err(|why| format!("{name}: {why}"));
    let verdict = if done.is_ok() { "ok" } else { "FAILED" };
    println!("== {name}: {verdict}, {:.1} s", begin.elapsed().as_secs_f32());
    done
}

/// Checks what may be linked, under which licence, from where. The advisory database needs a network of its own and is
/// left to the public workflow.
fn deny(workspace: &Workspace) -> Result<(), String> {
    let program = deny_program(workspace)?;
    let mut check = Command::new(program);
    check.current_dir(&workspace.root).args(["--config", ".deny.toml", "check", "bans", "licenses", "sources"]);
    succeed(&mut check)
}

/// cargo-deny of the right version: the one of the machine, else the one of the target folder, built once.
fn deny_program(workspace: &Workspace) -> Result<PathBuf, String> {
    let tools = workspace.target.join("tools");
    let own = tools.join("bin/cargo-deny");
    for program in [PathBuf::from("cargo-deny"), own.clone()] {
        let version = Command::new(&program).arg("--version").stderr(Stdio::null()).output();
        if version.is_ok_and(|said| said.stdout.trim_ascii() == format!("cargo-deny {DENY}").as_bytes()) {
            return Ok(program);
        }
    }
    let build = tools.join("build");
    let mut install = workspace.cargo(&["install", "cargo-deny", "--locked", "--debug", "--version", DENY, "--root"]);
    install.arg(&tools).env("CARGO_TARGET_DIR", &build).env("CARGO_PROFILE_DEV_DEBUG", "0");
    succeed(&mut install)?;
    std::fs::remove_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
    Ok(own)
}

/// Results of test runners, added up.
#[derive(Default, Debug, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs tests, failed ones or not; passes on what they print and adds up the closing lines of the runners.
fn counted(command: &mut Command, sum: &mut Sum) -> Result<(), String> {
    let line = line_of(command);
    let mut runner = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{line}: {e}"))?;
    if let Some(stdout) = runner.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).map_err(|e| format!("{line}: {e}"))? > 0 {
            // A terminal that went away does not end the tests.
            let _ = std::io::stdout().write_all(&bytes);
            if let Some(result) = closing_line(&String::from_utf8_lossy(&bytes)) {
                *sum += result;
            }
            bytes.clear();
        }
    }
    let status = runner.wait().map_err(|e| format!("{line}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}")) }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …` of cargo, and `ℹ pass 3` and its like of Node.js.
fn closing_line(line: &str) -> Option<Sum> {
    let line = line.trim_end();
    let parts = match line.strip_prefix("ℹ ") {
        Some(count) => count.split_once(' ').map(|(what, number)| vec![(number, what)])?,
        None => {
            let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
            counts.split("; ").filter_map(|part| part.split_once(' ')).collect()
        }
    };
    let mut sum = Sum::default();
    for (number, what) in parts {
        match what {
            "passed" | "pass" => sum.passed = number.parse().ok()?,
            "failed" | "fail" => sum.failed = number.parse().ok()?,
            "ignored" | "skipped" => sum.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(sum)
}

/// What git would say about the tree.
#[derive(PartialEq, Eq)]
struct Tree {
    names: String,
    difference: String,
}

fn tree(workspace: &Workspace) -> Result<Tree, String> {
    let git = |args: &[&str]| output(Command::new("git").current_dir(&workspace.root).args(args));
    Ok(Tree {
        names: git(&["status", "--porcelain", "--untracked-files=all"])?,
        difference: git(&["diff", "--no-ext-diff", "--no-color", "--binary", "HEAD"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read_and_other_lines_are_not() {
        let line =
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s\n";
        assert_eq!(closing_line(line), Some(Sum { passed: 12, failed: 1, skipped: 2 }));
        assert_eq!(closing_line("ℹ pass 4\n"), Some(Sum { passed: 4, ..Sum::default() }));
        assert_eq!(closing_line("ℹ fail 1\n"), Some(Sum { failed: 1, ..Sum::default() }));
        assert_eq!(closing_line("ℹ duration_ms 4.2\n"), Some(Sum::default()));
        assert_eq!(closing_line("test a::b ... ok\n"), None);
        assert_eq!(closing_line("test result: ok\n"), None);
    }
}
