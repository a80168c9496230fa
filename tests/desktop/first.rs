//! The first five minutes: from an empty home to the first verified entry.

use crate::Stage;
use keyward_testkit::{PASSPHRASE, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts a program where the session's `PATH` finds it.
pub(crate) fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_first_run_ends_with_a_verified_entry() {
    let stage = Stage::new();
    let home = &stage.home;
    program(home.bin(), "claude", "[ -n \"$GH_TOKEN$GITHUB_TOKEN\" ] && exec sleep 600");
    // A terminal emulator that notes what it was asked, and becomes it.
    let notes = home.root.join("terminal");
    let become_it = format!(
        "printf '%s\\n' \"$@\" > {0}\nenv > {0}.env\nwhile [ \"$1\" != -e ]; do shift; done; shift; exec \"$@\"",
        notes.display()
    );
    program(home.bin(), "xterm", &become_it);
    let login = home.root.join(".config/gh");
    std::fs::create_dir_all(&login).unwrap();
    std::fs::write(
        login.join("hosts.yml"),
        "github.com:\n    user: a\n    oauth_token: gho_kwFirstRun0123456789abcdefABCDEF0123\n",
    )
    .unwrap();

    let screen = stage.screen();
    screen.click("Make the vault…");
    stage.display.focus(home, "Make the vault");
    stage.display.write(home, PASSPHRASE);
    stage.display.press(home, "Tab");
    stage.display.write(home, PASSPHRASE);
    stage.display.press(home, "Return");
    // The recovery key is shown once, and its end must be typed.
    let title = "Write down your recovery key";
    stage.display.focus(home, title);
    stage.display.press(home, "alt+p");
    let mut key = String::new();
    wait_for("the recovery key on the clipboard", || {
        key = stage.display.clipboard(home);
        key.starts_with("AGE-SECRET-KEY-1")
    });
    stage.display.press(home, "alt+w");
    stage.display.write(home, &key[key.len() - 6..]);
    stage.display.press(home, "Return");
    stage.display.gone(home, title);

    screen.wait("Claude Code");
    assert!(!screen.text().contains("gho_"), "the web view sees places, not secrets");
    screen.click("Take in…");
    screen.click("Take it into the vault");
    screen.click("Test");
    screen.wait("Launch an agent");
    screen.click("Launch Claude Code");
    screen.wait("That is all there is to it");
    screen.wait("verified");
    let runs = home.keyward(&["ps", "--json"]).exits(0).json();
    assert_eq!(runs[0]["app"], "Claude Code", "{runs}");
    let asked = std::fs::read_to_string(&notes).unwrap();
    assert!(asked.contains("launch\n") && asked.contains("Claude Code"), "{asked}");
    let variables = std::fs::read_to_string(notes.with_extension("env")).unwrap();
    assert!(!variables.contains("gho_") && !asked.contains("gho_"), "nothing secret travels through a terminal");
    screen.click("See what is live");
    screen.wait_until("the run", |t| t.contains("Claude Code") && t.contains("use cannot be seen"));
    assert_eq!(home.keyward(&["audit", "verify"]).exit, 0);
    let pid = runs[0]["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap();
    keyward_testkit::signal(pid, rustix::process::Signal::TERM);
}
