//! `launcher` and `launch` with the real programs.

use crate::error;
use keyward_testkit::{Home, PASSPHRASE, Talk, run, wait_for};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// A vault with two profiles and a folder `work`.
fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.static_profile("q", "0ther", "U");
    std::fs::create_dir(home.root.join("work")).unwrap();
    home
}

fn add(home: &Home, args: &[&str]) {
    home.keyward(&[&["launcher", "add"], args].concat()).exits(0);
}

fn show(home: &Home, name: &str) -> Value {
    home.keyward(&["launcher", "show", name, "--json"]).exits(0).json()
}

/// A program in the home of the user.
fn install(home: &Home, path: &str, script: &str) -> String {
    let path = home.root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_launcher_is_added_launched_changed_and_removed() {
    let home = home();
    let work = std::fs::canonicalize(home.root.join("work")).unwrap().display().to_string();
    let script = "echo $T $U in $(pwd) $PWD; exit 7";
    add(&home, &["Say / it", "-p", "p", "-p", "q", "--folder", &work, "--", "sh", "-c", script]);
    let launched = home.keyward(&["launch", "say / IT"]).exits(7);
    assert_eq!(launched.out, format!("s3cret 0ther in {work} {work}\n"), "{}", launched.err);
    let seen = show(&home, "Say / it");
    assert!(seen["launched_at"].is_string() && seen["command"][0].as_str().unwrap().ends_with("/sh"), "{seen}");
    assert_eq!((&seen["terminal"], &seen["profiles"]), (&json!(true), &json!(["p", "q"])));
    wait_for("its end", || home.audit_kinds().iter().any(|kind| kind == "run.ended"));
    let started = home.audit().into_iter().find(|e| e["kind"] == "run.requested").unwrap();
    assert_eq!((&started["app"], &started["detail"]["launcher"]), (&json!("Say / it"), &json!("Say / it")));
    // Everything of it shows in words, and nothing of what it hands over.
    let listed =
        home.keyward(&["launcher", "list"]).exits(0).out + &home.keyward(&["launcher", "show", "say / it"]).out;
    for want in ["Say / it", "sh -c 'echo ", &work, "p q"] {
        assert!(listed.contains(want), "{want}: {listed}");
    }
    assert!(!listed.contains("s3cret"), "{listed}");
    let change = ["launcher", "edit", "say / it", "--rename", "Quiet", "-p", "q", "--no-folder", "--passphrase-stdin"];
    assert_eq!(error(&home, &change[..change.len() - 1], 4)["code"], "passphrase.needed");
    home.keyward_in(&change, "not the passphrase").exits(1).says("vault.wrong_passphrase");
    home.keyward_in(&change, PASSPHRASE).exits(0);
    let seen = show(&home, "quiet");
    assert_eq!(
        (&seen["profiles"], &seen["folder"], &seen["command"][2]),
        (&json!(["q"]), &Value::Null, &json!(script))
    );
    let launched = home.keyward(&["launch", "Quiet"]).exits(7);
    let root = std::fs::canonicalize(&home.root).unwrap().display().to_string();
    assert_eq!(launched.out, format!("0ther in {root} {root}\n"), "the home folder, and one profile");
    home.keyward(&["launcher", "remove", "quiet"]).exits(0);
    assert_eq!(error(&home, &["launch", "Quiet"], 125)["code"], "launcher.unknown");
    assert_eq!(home.keyward(&["launcher", "list", "--json"]).exits(0).json(), json!([]));
    let kinds = home.audit_kinds();
    for kind in ["launcher.added", "launcher.changed", "launcher.removed"] {
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1, "{kind}: {kinds:?}");
    }
}

#[test]
fn what_cannot_be_saved_or_started_is_told() {
    let home = home();
    add(&home, &["mine", "-p", "p", "--", "true"]);
    for (args, exit, code) in [
        (&["launcher", "add", "MINE", "-p", "p", "--", "true"][..], 1, "launcher.exists"),
        (&["launcher", "add", "x", "-p", "nobody", "--", "true"], 1, "profile.unknown"),
        (&["launcher", "add", "x", "-p", "p", "--", "no-such-program"], 1, "run.not_found"),
        (&["launcher", "add", "x", "-p", "p", "--folder", "/no/such/folder", "--", "true"], 1, "launcher.invalid"),
        (&["launcher", "add", "x\ny", "-p", "p", "--", "true"], 1, "launcher.invalid"),
        (&["launcher", "add", "x", "-p", "p", "--", "true", "--key=s3cret-s3cret"], 1, "launcher.secret"),
        (&["launcher", "show", "nobody"], 1, "launcher.unknown"),
        (&["launcher", "remove", "nobody"], 1, "launcher.unknown"),
        (&["launcher", "edit", "mine"], 2, "usage"),
        (&["launch", "nobody"], 125, "launcher.unknown"),
    ] {
        if code == "launcher.secret" {
            home.secret("long", "s3cret-s3cret");
        }
        let said = error(&home, args, exit);
        assert_eq!(said["code"], code, "{args:?}: {said}");
        assert!(!said.to_string().contains("s3cret"), "{said}");
    }
    // What was there when it was saved may be gone when it is started.
    let tool = install(&home, "tools/tool", "#!/bin/sh\n");
    add(&home, &["tool", "-p", "p", "--folder", "work", "--", &tool]);
    std::fs::remove_file(&tool).unwrap();
    assert_eq!(error(&home, &["launch", "tool"], 127)["code"], "run.not_found");
    std::fs::remove_dir(home.root.join("work")).unwrap();
    assert_eq!(error(&home, &["launch", "tool"], 125)["code"], "file.unreadable");
    home.keyward(&["lock"]).exits(0);
    assert_eq!(error(&home, &["launch", "mine"], 125)["code"], "vault.locked");
}

#[test]
fn a_window_of_the_tray_asks_for_the_passphrase_and_stays_readable_when_it_fails() {
    let home = home();
    add(&home, &["mine", "-p", "p", "--", "sh", "-c", "echo got $T; read -r x; echo read $x"]);
    home.keyward(&["lock"]).exits(0);
    let mut talk = Talk::on_terminal(&home, &["keyward", "launch", "mine", "--wait-on-error"], &[]);
    talk.until("Passphrase for the vault in ");
    talk.send(format!("{PASSPHRASE}\r").as_bytes());
    talk.until("got s3cret");
    talk.send(b"more\r");
    talk.until("read more");
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains("horse") && !answer.out.contains("Enter"), "{}", answer.out);
    // A program that runs and fails is not the concern of who started it. A terminal of its own makes no shell of this
    // process, which unlocks here.
    home.unlock();
    add(&home, &["failing", "-p", "p", "--", "false"]);
    let answer = Talk::on_terminal(&home, &["keyward", "launch", "failing", "--wait-on-error"], &[]).end().exits(1);
    assert!(!answer.out.contains("Enter"), "{}", answer.out);
    let mut talk = Talk::on_terminal(&home, &["keyward", "launch", "nobody", "--wait-on-error"], &[]);
    let said = talk.until("Press Enter to close. ");
    assert!(said.contains("launcher.unknown"), "{said}");
    talk.send(b"\r");
    talk.end().exits(125);
    // Nobody waits where nobody is.
    home.keyward(&["launch", "nobody", "--wait-on-error"]).exits(125).says("launcher.unknown");
    let talk = Talk::on_terminal(&home, &["keyward", "launch", "nobody"], &[]);
    assert!(!talk.end().exits(125).out.contains("Enter"));
}

#[test]
fn a_run_without_a_profile_takes_those_of_its_launcher() {
    let home = home();
    home.keyward(&["run", "--", "sh", "-c", "echo $T"]).exits(125).says("profile.not_named");
    add(&home, &["Shell", "-p", "p", "--", "sh", "-c", "true"]);
    let given = home.keyward(&["run", "--explain", "--", "sh", "-c", "echo $T"]).exits(0);
    assert_eq!(given.out, "s3cret\n");
    assert!(given.err.contains("launcher Shell\n"), "{}", given.err);
    wait_for("its end", || home.audit_kinds().iter().any(|kind| kind == "run.ended"));
    let ended = home.audit().into_iter().find(|e| e["kind"] == "run.ended").unwrap();
    assert_eq!(ended["app"], "sh", "it is no launch");
    add(&home, &["Another shell", "-p", "q", "--", "sh"]);
    home.keyward(&["run", "--", "sh", "-c", "true"]).exits(125).says("profile.not_named");
    let named = home.keyward(&["run", "-p", "q", "--", "sh", "-c", "echo $U$T"]).exits(0);
    assert_eq!((named.out.as_str(), named.err.as_str()), ("0ther\n", ""));
    // A run inside of a run may not see launchers, and hears what it always heard.
    let inside = home.keyward(&["run", "-p", "p", "--", "keyward", "run", "--", "true"]);
    assert!(inside.exit == 125 && !inside.err.contains("launcher"), "{}", inside.err);
}

#[test]
fn live_runs_are_shown_by_the_name_of_their_launcher() {
    let home = home();
    add(&home, &["Morning review", "-p", "p", "--", "sh", "-c", "echo ready; read -r _"]);
    let mut talk = Talk::start(home.keyward_command(&["launch", "Morning review"]));
    assert_eq!(talk.line(), "ready");
    let status = home.keyward(&["status"]).exits(0).out;
    assert!(status.contains("1 run, 1 lease: Morning review\n"), "{status}");
    assert!(home.keyward(&["ps"]).exits(0).out.contains("Morning review"));
    let runs = home.keyward(&["ps", "--json"]).exits(0).json();
    assert_eq!((&runs[0]["launcher"], &runs[0]["app"]), (&json!("Morning review"), &json!("Morning review")));
    // A program that is known is shown by its name beside that of the file.
    let claude = install(&home, "tools/claude", "#!/bin/sh\necho ready; read -r _\n");
    let mut agent = Talk::start(home.keyward_command(&["run", "-p", "p", "--", &claude]));
    assert_eq!(agent.line(), "ready");
    assert!(home.keyward(&["ps"]).exits(0).out.contains("Claude Code (claude)"));
    let status = home.keyward(&["status"]).exits(0).out;
    assert!(status.contains("2 runs, 2 leases: Claude Code (claude), Morning review\n"), "{status}");
    drop(agent.end());
    drop(talk.end());
}

#[test]
fn installed_agents_are_found_with_the_line_that_adds_them() {
    let mut home = Home::new();
    let claude = install(&home, ".local/bin/claude", "#!/bin/sh\necho ran > \"$0.ran\"\n");
    let none = home.keyward(&["launcher", "detect", "--json"]).exits(0).json();
    assert_eq!(none.as_array().unwrap().iter().filter(|a| a["path"] == claude.as_str()).count(), 1, "{none}");
    assert!(home.broker_pid().is_none(), "no broker was started for it");
    home.init();
    home.set("PATH", &format!("{}:{}/.local/bin:/usr/bin:/bin", home.bin().display(), home.root.display()));
    home.secret("key", "sk-ant");
    home.keyward(&["profile", "add", "work", "--secret", "key", "--env", "ANTHROPIC_API_KEY"]).exits(0);
    let found = |home: &Home| {
        let all = home.keyward(&["launcher", "detect", "--json"]).exits(0).json();
        all.as_array().unwrap().iter().find(|a| a["id"] == "claude-code").cloned()
    };
    let agent = found(&home).unwrap();
    assert_eq!(
        (&agent["name"], &agent["profile"], &agent["launcher"], &agent["terminal"]),
        (&json!("Claude Code"), &json!("work"), &Value::Null, &json!(true))
    );
    let line = format!("keyward launcher add 'Claude Code' -p work -- {claude}");
    assert_eq!(agent["add"], line);
    assert!(home.keyward(&["launcher", "detect"]).exits(0).out.contains(&format!("\n  {line}\n")));
    // The line works as it is shown.
    let mut shell = home.command("sh");
    shell.args(["-c", &line]);
    run(shell, b"").exits(0);
    assert_eq!(show(&home, "claude code")["command"], json!([claude]));
    assert_eq!(found(&home).unwrap()["launcher"], "Claude Code");
    assert!(home.keyward(&["launcher", "detect"]).exits(0).out.contains("launcher Claude Code starts it"));
    assert!(!std::path::Path::new(&format!("{claude}.ran")).exists(), "nothing that was found was run");
    std::fs::set_permissions(&claude, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(found(&home).is_none(), "everybody may write it");
}
