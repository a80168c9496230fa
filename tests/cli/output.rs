//! Data on standard output, words on standard error, and no more.

use keyward_testkit::{Home, Talk, run};
use std::process::Stdio;

#[test]
fn colour_is_for_terminals_without_no_color() {
    let home = Home::new();
    let shown = |variables: &[(&str, &str)], argv: &[&str]| Talk::on_terminal(&home, argv, variables).end().out;
    let argv = ["keyward", "run", "--", "no-such-program"];
    assert!(shown(&[], &argv).contains("\x1b[1;31merror[run.not_found]\x1b[0m"));
    assert!(shown(&[("NO_COLOR", "")], &argv).contains('\x1b'), "an empty one counts for nothing (no-color.org)");
    assert!(!shown(&[("NO_COLOR", "1")], &argv).contains('\x1b'));
    assert!(!shown(&[], &["keyward", "--json", "run", "--", "no-such-program"]).contains('\x1b'));
    assert!(!home.keyward(&["run", "--", "no-such-program"]).exits(127).err.contains('\x1b'));
    for argv in [&["keyward", "--help"][..], &["keyward", "run", "--help"], &["keyward", "status"]] {
        assert!(!home.keyward(&argv[1..]).out.contains('\x1b'), "{argv:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::with_vault();
    for n in 0..40 {
        home.secret(&format!("secret-{n}"), "s3cret");
    }
    for args in [
        &["completion", "bash"][..],
        &["man"],
        &["--help"],
        &["audit", "list", "--limit", "1000"],
        &["--json", "audit", "list", "--limit", "1000"],
        &["status"],
    ] {
        let mut child = home.keyward_command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
    let mut full = home.command("sh");
    full.args(["-c", "keyward status >/dev/full"]);
    run(full, b"").exits(1).says("file.unreadable");
}

#[test]
fn completions_are_sound_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.keyward(&["completion", shell]).exits(0);
        assert_eq!(script.err, "");
        for word in ["keyward", "unlock", "passphrase-stdin", "accept-break"] {
            assert!(script.out.contains(word), "{shell} lacks {word}");
        }
    }
    let script = home.keyward(&["completion", "bash"]).out;
    let line = "\nCOMP_WORDS=(keyward re); COMP_CWORD=1; _keyward keyward re keyward; echo \"${COMPREPLY[@]}\"";
    let mut bash = home.command("bash");
    bash.args(["--norc", "-s"]);
    let answer = run(bash, format!("{script}{line}\n").as_bytes()).exits(0);
    assert_eq!((answer.out.trim(), answer.err.as_str()), ("revoke", ""));
    home.keyward(&["completion", "tcsh"]).exits(2).says("usage");
    assert!(home.broker_parents().is_empty(), "none of this needs a broker");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let home = Home::new();
    let page = home.keyward(&["man"]).exits(0).out;
    assert!(page.contains(".TH keyward 1") && page.contains("run") && page.contains("NAME"), "{page}");
    let folder = home.root.join("pages");
    std::fs::create_dir(&folder).unwrap();
    home.keyward(&["man", "--dir", folder.to_str().unwrap()]).exits(0);
    for name in ["keyward", "keyward-run", "keyward-audit-export", "keyward-vault-slot-add"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{name}");
    }
    home.keyward(&["man", "--dir", "/no/such/folder"]).exits(1).says("file.unreadable");
}

#[test]
fn help_names_every_command_that_works_and_no_other() {
    let home = Home::new();
    let help = home.keyward(&["--help"]).exits(0).out;
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let known = [
        "setup",
        "init",
        "unlock",
        "lock",
        "status",
        "vault",
        "profile",
        "secret",
        "run",
        "launch",
        "launcher",
        "token",
        "ps",
        "revoke",
        "grant",
        "approvals",
        "approve",
        "deny",
        "audit",
        "doctor",
        "broker",
        "completion",
        "man",
    ];
    assert_eq!(listed, known);
    for command in known {
        let answer = home.keyward(&[command, "--help"]).exits(0);
        assert!(answer.out.contains("Usage: keyward ") && answer.err.is_empty(), "{command}: {}", answer.out);
    }
    let version = home.keyward(&["--version"]).exits(0).out;
    assert_eq!(version, format!("keyward {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(home.keyward(&[]).exits(2).says("usage").out, "");
}
