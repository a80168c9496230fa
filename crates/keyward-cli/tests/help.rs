//! Help, completions and manual pages of every command, from the program as it is built.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn keyward(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyward")).args(args).output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = keyward(args);
    assert!(output.status.success(), "keyward {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "keyward {} says something besides its output", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// Paths of all commands, the program itself first, by what each help lists.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        for name in listed(&help(&path)) {
            let mut below = path.clone();
            below.push(name);
            found.push(below);
        }
    }
    found
}

fn help(path: &[String]) -> String {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    printed(&args)
}

fn listed(help: &str) -> Vec<String> {
    let Some((_, below)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = below.lines().take_while(|line| line.starts_with("  "));
    // A line that goes on with the words of the one above begins further right.
    lines
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(Into::into)
        .collect()
}

#[test]
fn every_command_is_there_and_its_help_begins_with_what_it_does() {
    let commands = commands();
    let names: Vec<String> = commands.iter().map(|path| path.join(" ")).collect();
    for wanted in [
        "setup",
        "doctor",
        "init",
        "unlock",
        "lock",
        "status",
        "vault rekey",
        "vault slot list",
        "vault slot add",
        "vault slot remove",
        "vault backup",
        "vault restore",
        "profile add",
        "profile edit",
        "profile list",
        "profile show",
        "profile test",
        "profile remove",
        "profile kinds",
        "secret set",
        "secret list",
        "secret reveal",
        "secret remove",
        "run",
        "token",
        "ps",
        "revoke",
        "grant add",
        "grant edit",
        "grant list",
        "grant revoke",
        "approvals",
        "approve",
        "deny",
        "audit list",
        "audit show",
        "audit follow",
        "audit verify",
        "audit export",
        "audit accept-break",
        "broker stop",
        "broker restart",
        "completion",
        "man",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is in no help");
    }
    for path in &commands {
        let help = help(path);
        let first = help.lines().next().unwrap();
        assert!(!first.is_empty() && !first.ends_with('.'), "{path:?}: `{first}`");
        assert!(first.starts_with(char::is_uppercase), "{path:?}: `{first}`");
        assert!(help.contains("--json"), "{path:?}");
        for line in help.lines() {
            assert!(line.chars().count() <= 120, "{path:?}: {line}");
        }
    }
}

#[test]
fn completions_name_every_command_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completion", shell]);
        for name in ["rekey", "accept-break", "kinds", "revoke", "passphrase-fd"] {
            assert!(script.contains(name), "{shell} lacks {name}");
        }
    }
    assert_eq!(keyward(&["completion", "tcsh"]).status.code(), Some(2));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    assert!(printed(&["man"]).contains(".TH keyward 1"));
    let dir = std::env::temp_dir().join(format!("keyward-man-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    printed(&["man", "--dir", dir.to_str().unwrap()]);
    for path in commands() {
        let page = [vec!["keyward".to_owned()], path].concat().join("-");
        let text = std::fs::read_to_string(dir.join(format!("{page}.1")));
        assert!(text.is_ok_and(|t| t.contains(".SH SYNOPSIS")), "{page}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(keyward(&["man", "--dir", dir.to_str().unwrap()]).status.code(), Some(1));
}

#[test]
fn a_wrong_command_line_is_our_error_in_words_and_in_json() {
    for args in [&["frob"][..], &[], &["vault"], &["run"], &["run", "--ttl", "5", "--", "true"], &["revoke"]] {
        let output = keyward(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error[usage]: ") && said.contains("\n  cause: "), "{args:?}: {said}");
        let as_json = keyward(&[&["--json"], args].concat());
        let fault: serde_json::Value = serde_json::from_slice(&as_json.stderr).unwrap();
        assert_eq!((&fault["error"]["code"], &fault["error"]["exit"]), (&"usage".into(), &2.into()), "{args:?}");
    }
    let version = printed(&["--version"]);
    assert_eq!(version.trim(), format!("keyward {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_ends_the_output_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keyward"))
        .args(["completion", "zsh"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // More is printed than a pipe holds, so that the program meets the closed end.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
