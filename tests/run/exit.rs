//! Exit codes: the child's own, and those of what fails before there is a child.

use crate::{entries, entry, program, sh};
use keyward_testkit::{Home, run};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

#[test]
fn every_exit_code_is_the_childs() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    for code in 0..=255 {
        let script = format!("exit {code}");
        let answer = home.keyward(&["run", "-p", "p", "--", "sh", "-c", &script]);
        assert_eq!((answer.exit, answer.err.as_str()), (code, ""), "{code}");
    }
}

#[test]
fn a_child_that_dies_of_a_signal_does_so_to_its_parent() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    for signal in [1, 2, 3, 6, 9, 10, 11, 12, 13, 14, 15, 34, 64] {
        let script = format!("ulimit -c 0; kill -{signal} $$; sleep 10");
        let mut command = home.keyward_command(&["run", "-p", "p", "--", "sh", "-c", &script]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(signal)));
    }
}

#[test]
fn what_cannot_run_is_told_apart_and_holds_nothing() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let plain = program(&home, "plain", "echo no", "644");
    let bare = program(&home, "bare", "echo no shebang", "755");
    let gone = program(&home, "gone", "#!/no/such/interpreter\n", "755");
    let binary = program(&home, "binary", "\u{7f}ELFnot really", "755");
    let before = entries(&home, "run.requested").len();
    for (name, exit, code) in [
        ("no-such-program", 127, "run.not_found"),
        ("./no-such-program", 127, "run.not_found"),
        ("/no/such/folder/x", 127, "run.not_found"),
        ("", 127, "run.not_found"),
        (plain.to_str().unwrap(), 126, "run.not_executable"),
        ("/", 126, "run.not_executable"),
        ("/etc/passwd/x", 127, "run.not_found"),
    ] {
        let answer = home.keyward(&["--json", "run", "-p", "p", "--", name]).exits(exit);
        let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
        assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&code.into(), &exit.into()), "{name}");
        home.keyward(&["run", "-p", "p", "--", name]).exits(exit).says(code);
    }
    assert_eq!(entries(&home, "run.requested").len(), before, "nothing was asked for");
    for (n, path) in [&bare, &gone, &binary].into_iter().enumerate() {
        let answer = home.keyward(&["run", "-p", "p", "--deliver", "file", "--", path.to_str().unwrap()]);
        let answer = answer.exits(126).says("run.not_executable");
        assert!(!answer.err.contains("s3cret"));
        let ended = entry(&home, "run.ended", n + 1);
        assert_eq!((&ended["outcome"], &ended["detail"]["code"]), (&"failed".into(), &"run.not_executable".into()));
        assert_eq!(entries(&home, "lease.released").len(), n + 1);
    }
    assert_eq!(home.keyward(&["ps", "--json"]).exits(0).out, "[]\n");
    let left = sh(&home, "find \"$XDG_RUNTIME_DIR\" -type f -path '*files*'").out;
    assert_eq!(left, "", "a file of a credential is left");
}

#[test]
fn failures_of_ours_are_125_with_their_code_in_words_and_in_json() {
    let home = Home::with_vault();
    home.static_profile("a", "s3cret", "T");
    home.static_profile("b", "s3cret", "T");
    let cases: &[(&[&str], &str)] = &[
        (&["-p", "nobody"], "profile.unknown"),
        (&["-p", "../x"], "name.invalid"),
        (&["-p", "a", "-p", "b"], "delivery.conflict"),
        (&["-p", "a", "-p", "a"], "request.invalid"),
        (&[], "profile.not_named"),
    ];
    for (args, code) in cases {
        let line = [&["run"], *args, &["--", "true"]].concat();
        home.keyward(&line).exits(125).says(code);
        let json = home.keyward(&[&["--json"], line.as_slice()].concat()).exits(125);
        let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
        assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&(*code).into(), &125.into()), "{args:?}");
        assert_eq!(json.out, "");
    }
    home.keyward(&["lock"]).exits(0);
    home.keyward(&["run", "-p", "a", "--", "true"]).exits(125).says("vault.locked");
    home.keyward(&["run", "-p", "a", "--no-such-flag", "--", "true"]).exits(2).says("usage");
    home.keyward(&["run", "-p", "a"]).exits(2).says("usage");
    home.keyward(&["run", "-p", "a", "--ttl", "0s", "--", "true"]).exits(2).says("usage");
    let empty = Home::new();
    empty.keyward(&["run", "--", "true"]).exits(125).says("vault.absent");
    empty.init();
    empty.keyward(&["run", "--", "true"]).exits(125).says("profile.not_named");
}

#[test]
fn the_search_in_path_is_that_of_execvp() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    for folder in ["one", "two", "three"] {
        std::fs::create_dir(home.root.join(folder)).unwrap();
    }
    program(&home, "one/tool", "#!/bin/sh\necho one", "644");
    program(&home, "two/tool", "#!/bin/sh\necho two", "755");
    program(&home, "three/tool", "#!/bin/sh\necho three", "755");
    program(&home, "here", "#!/bin/sh\necho here", "755");
    std::fs::create_dir_all(home.root.join("one/dir")).unwrap();
    let keyward = home.bin().join("keyward").display().to_string();
    let through = |path: Option<&str>, name: &str| {
        let mut command = home.command("env");
        match path {
            Some(path) => command.arg(format!("PATH={path}")),
            None => command.args(["-u", "PATH"]),
        };
        command.args([keyward.as_str(), "run", "-p", "p", "--", name]);
        run(command, b"")
    };
    let all = "none:one:two:three";
    assert_eq!(through(Some(all), "tool").exits(0).out, "two\n", "a file that cannot be executed is passed over");
    assert_eq!(through(Some("three:two"), "tool").exits(0).out, "three\n");
    through(Some("one"), "tool").exits(126).says("run.not_executable");
    through(Some("one"), "dir").exits(126).says("run.not_executable");
    through(Some("none"), "tool").exits(127).says("run.not_found");
    through(Some(all), "here").exits(127);
    assert_eq!(through(Some("none:"), "here").exits(0).out, "here\n", "an empty part is the working folder");
    assert_eq!(through(Some(all), "./here").exits(0).out, "here\n");
    through(None, "true").exits(0);
}
