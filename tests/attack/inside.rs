//! From inside a run: nothing acts as the person, whatever the process does to look like another one.

use crate::Kept;
use keyward_testkit::{Home, PASSPHRASE, Talk, ask, run, signal, wait_at_most, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// What a process inside a run tries; each line is a command without its output.
const TRIES: &[&str] = &[
    "keyward secret list",
    "keyward secret reveal other --passphrase-stdin",
    "keyward secret set fresh",
    "keyward secret set other",
    "keyward secret remove other",
    "keyward profile list",
    "keyward profile show other",
    "keyward profile add fresh --from $HOME/edit.toml",
    "keyward profile edit held --from $HOME/edit.toml --passphrase-stdin",
    "keyward profile remove other",
    "keyward profile test other",
    "keyward approvals",
    "keyward approve 00000000 --passphrase-stdin",
    "keyward deny 00000000",
    "keyward grant list",
    "keyward grant add --profile other --passphrase-stdin",
    "keyward grant edit 00000000 --uses 9 --passphrase-stdin",
    "keyward grant revoke 00000000",
    "keyward lock",
    "keyward unlock --passphrase-stdin",
    "keyward audit list",
    "keyward audit verify",
    "keyward audit export --passphrase-stdin",
    "keyward audit accept-break --reason x --passphrase-stdin",
    "keyward vault slot list",
    "keyward vault slot add recovery --passphrase-stdin",
    "keyward vault backup $HOME/copy",
    "keyward broker stop",
];

/// What it asks for beyond what it holds, with the exit code: a person is asked, and the request names the run.
const ASKS: &[(&str, &str)] = &[("keyward token other", "4"), ("keyward run -p other -- true", "125")];

/// A vault with the profiles `held` and `other`, and the passphrase in a file that everything inside can read: knowing it
/// makes no process inside a run the person.
fn prepared() -> Home {
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
    home.static_profile("other", "v4lue-that-it-does-not", "OTHER");
    std::fs::write(home.root.join("passphrase"), PASSPHRASE).unwrap();
    let edit = "[issuer]\nkind = \"static\"\nsecret = \"secret:other\"\n[delivery]\nenv = { HELD = \"token\" }\n";
    std::fs::write(home.root.join("edit.toml"), edit).unwrap();
    home
}

/// Starts a run of `held` that does `line`.
fn start(home: &Home, line: &str) -> Kept {
    Kept::start(home.keyward_command(&["run", "-p", "held", "--", "sh", "-c", line]))
}

/// As [`start`], to its end. Whoever asks for a passphrase in there waits in vain.
#[track_caller]
fn done(home: &Home, line: &str) {
    let mut run = start(home, line);
    let mut ended = None;
    wait_at_most(Duration::from_secs(90), "the end of the run", || {
        ended = run.0.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.is_some_and(|status| status.success()), "{line}");
}

/// A script that tries everything and writes exit codes and words into `name`, then `name.done`.
fn script(home: &Home, name: &str) -> String {
    let mut text = String::new();
    let out = home.root.join(name);
    for line in TRIES.iter().chain(ASKS.iter().map(|(line, _)| line)) {
        text.push_str(&format!("{line} <$HOME/passphrase >>{out}.words 2>&1; echo $? >>{out}\n", out = out.display()));
    }
    text.push_str(&format!("touch {}.done\n", out.display()));
    let path = home.root.join(format!("{name}.sh"));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Fails unless each try was denied by policy, and what was asked for waits for a person, who is told from where.
#[track_caller]
fn denied(home: &Home, name: &str) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let codes = read(&home.root.join(name));
    let words = read(&home.root.join(format!("{name}.words")));
    let codes: Vec<&str> = codes.lines().collect();
    let expected = TRIES.iter().map(|line| (line, &"4")).chain(ASKS.iter().map(|(line, code)| (line, code)));
    for ((line, expected), code) in expected.zip(&codes) {
        assert_eq!(code, expected, "{line}: {words}");
    }
    assert_eq!(codes.len(), TRIES.len() + ASKS.len());
    assert_eq!(words.matches("[policy.denied]").count(), TRIES.len(), "{words}");
    assert_eq!(words.matches("[approval.needed]").count(), ASKS.len(), "{words}");
    assert!(!words.contains("v4lue-that-it-does-not"), "{words}");
    let cards = home.keyward(&["approvals", "--all", "--json"]).exits(0).json();
    let cards = cards.as_array().unwrap();
    assert!(cards.len() == ASKS.len() && cards.iter().all(|card| card["outer_app"] == "sh"), "{cards:?}");
    let kinds = home.audit_kinds();
    let done = |kind: &&String| matches!(kind.as_str(), "approval.answered" | "grant.added" | "operator.proven");
    assert_eq!(kinds.iter().find(done), None);
}

#[test]
fn a_child_is_denied_whatever_it_asks_even_with_the_passphrase() {
    let home = prepared();
    let script = script(&home, "plain");
    done(&home, &format!("sh {script}"));
    denied(&home, "plain");
    assert_eq!(home.keyward(&["token", "other"]).exits(0).out, "v4lue-that-it-does-not\n");
}

#[test]
fn leaving_the_session_and_two_forks_do_not_leave_the_run() {
    let home = prepared();
    let script = script(&home, "away");
    let ended = home.root.join("away.done");
    let line = format!(
        "( setsid nohup sh -c '( sh {script} & )' & ) </dev/null >/dev/null 2>&1; \
         until [ -e {} ]; do sleep 0.05; done",
        ended.display()
    );
    done(&home, &line);
    denied(&home, "away");
}

#[test]
fn a_namespace_of_its_own_where_its_shell_is_pid_1_does_not_leave_the_run() {
    if !crate::is_root("inside::a_namespace_of_its_own_where_its_shell_is_pid_1_does_not_leave_the_run") {
        return;
    }
    let home = prepared();
    let script = script(&home, "first");
    let ended = home.root.join("first.done");
    // PID 1 of it collects the orphan, and lies below the run itself.
    let inner = format!(
        "( setsid nohup sh {script} & ) </dev/null >/dev/null 2>&1; until [ -e {} ]; do sleep 0.05; done",
        ended.display()
    );
    std::fs::write(home.root.join("inner.sh"), inner).unwrap();
    done(&home, "unshare --pid --fork --kill-child --mount-proc sh inner.sh");
    denied(&home, "first");
}

#[test]
fn a_terminal_of_its_own_makes_no_person() {
    let home = prepared();
    let script = script(&home, "typed");
    done(&home, &format!("script -qec 'sh {script}' /dev/null"));
    denied(&home, "typed");
    // The prompt for a passphrase does not come first: a child that answers it itself is denied all the same.
    for tried in ["unlock", "secret reveal other", "grant add --profile other", "approve 00000000"] {
        done(
            &home,
            &format!("script -qec 'keyward {tried}; echo code $?' /dev/null <$HOME/passphrase >$HOME/pty 2>&1"),
        );
        let shown = std::fs::read_to_string(home.root.join("pty")).unwrap();
        assert!(shown.contains("code 4") && shown.contains("policy.denied"), "{tried}: {shown}");
    }
}

#[test]
fn killing_the_broker_frees_no_run() {
    let home = prepared();
    let after = script(&home, "opened");
    let line = format!(
        "kill -9 $(cat $HOME/worker); until [ -e $HOME/go ]; do sleep 0.05; done; sh {after}; \
         until [ -e $HOME/end ]; do sleep 0.05; done"
    );
    let worker = home.broker_pid().unwrap();
    std::fs::write(home.root.join("worker"), worker.to_string()).unwrap();
    let child = start(&home, &line);
    wait_for("the worker that comes after", || home.broker_pid().is_some_and(|pid| pid != worker));
    // Before the person has opened the vault the runs are not known, and nobody gets anything.
    let mut early = home.command("sh");
    early
        .arg("-c")
        .arg("keyward token other; echo $?; keyward secret list; echo $?; keyward run -p other -- true; echo $?");
    let early = run(early, b"");
    assert_eq!(early.out, "3\n3\n125\n", "{}", early.err);
    let opened = home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(0);
    assert!(opened.err.contains("1 run watched again"), "{}", opened.err);
    std::fs::write(home.root.join("go"), "").unwrap();
    wait_for("the tries", || home.root.join("opened.done").exists());
    denied(&home, "opened");
    std::fs::write(home.root.join("end"), "").unwrap();
    drop(child);
}

#[test]
fn a_run_that_unlocks_after_the_broker_was_killed_is_still_a_run() {
    let home = prepared();
    let script = script(&home, "itself");
    // Its shell is the parent of what unlocks, and of what asks afterwards.
    let line = format!(
        "kill -9 $(cat $HOME/worker); until [ -e $HOME/go ]; do sleep 0.05; done; \
         keyward unlock --passphrase-stdin <$HOME/passphrase; keyward status --json >$HOME/status; sh {script}"
    );
    let worker = home.broker_pid().unwrap();
    std::fs::write(home.root.join("worker"), worker.to_string()).unwrap();
    let mut child = start(&home, &line);
    wait_for("the worker that comes after", || home.broker_pid().is_some_and(|pid| pid != worker));
    std::fs::write(home.root.join("go"), "").unwrap();
    wait_at_most(Duration::from_secs(90), "the tries", || {
        home.root.join("itself.done").exists() && child.0.try_wait().unwrap().is_some()
    });
    let status: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(home.root.join("status")).unwrap()).unwrap();
    assert_eq!(status["me"]["role"], "inside", "{status}");
    // The run may have no more than the shell had: whoever knows the passphrase can open the vault, and no more.
    home.keyward(&["status", "--json"]).exits(0);
    denied(&home, "itself");
}

#[test]
fn a_run_gets_its_own_token_and_sees_and_revokes_itself_alone() {
    let home = prepared();
    let other = Kept::start(home.keyward_command(&["run", "-p", "other", "--", "sleep", "600"]));
    wait_for("the other run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    let line = "keyward token held >$HOME/token 2>&1; keyward ps --json >$HOME/ps; keyward token other 2>$HOME/refused; \
                echo $? >$HOME/code; keyward revoke --all --json >$HOME/revoked 2>&1; keyward token held; echo $? >$HOME/after";
    done(&home, line);
    let read = |name: &str| std::fs::read_to_string(home.root.join(name)).unwrap();
    assert_eq!(read("token"), "v4lue-that-the-run-holds\n");
    assert_eq!((read("code").as_str(), read("after").as_str()), ("4\n", "4\n"));
    assert!(read("refused").contains("[approval.needed]"), "{}", read("refused"));
    let seen: serde_json::Value = serde_json::from_str(&read("ps")).unwrap();
    assert_eq!((seen.as_array().unwrap().len(), &seen[0]["leases"][0]["profile"]), (1, &"held".into()));
    let revoked: serde_json::Value = serde_json::from_str(&read("revoked")).unwrap();
    assert_eq!(revoked["leases"], 1, "{revoked}");
    let left = home.keyward(&["ps", "--json"]).json();
    assert_eq!(left[0]["leases"][0]["state"], "live", "the other run keeps its lease: {left}");
    drop(other);
}

/// What `ps` tells of the runs, by the app of each.
fn runs(home: &Home) -> Vec<(String, Value)> {
    let runs = home.keyward(&["ps", "--json"]).exits(0).json();
    runs.as_array().unwrap().iter().map(|run| (run["app"].as_str().unwrap().to_owned(), run.clone())).collect()
}

/// The state of the only lease of the run of an app.
fn state(home: &Home, app: &str) -> Value {
    let found = runs(home).into_iter().find(|(name, _)| name == app);
    found.map_or(Value::Null, |(_, run)| run["leases"][0]["state"].clone())
}

/// Starts a shell in a run of `held`, and inside of it a run of the same that outlives it, in a session of its own.
fn around(home: &Home) -> Talk {
    let mut talk = Talk::start(home.keyward_command(&["run", "-p", "held", "--", "sh"]));
    assert_eq!(
        ask(&mut talk, "setsid keyward run -p held --deliver file -- sleep 600 </dev/null >/dev/null 2>&1 & echo $?"),
        "0"
    );
    wait_for("the run inside", || runs(home).iter().any(|(app, run)| app == "sleep" && run["app_verified"] == true));
    talk
}

#[test]
fn a_run_starts_others_with_what_it_holds_and_with_no_stronger_form() {
    let home = prepared();
    let gated = "[issuer]\nkind = \"static\"\nsecret = \"secret:held\"\nprovider = \"anthropic\"\n";
    home.profile("gated", gated);
    home.profile("fenced", &format!("{}[fence]\nrequests = 2\n", gated.replace("anthropic", "openai")));
    let profiles = ["-p", "gated", "-p", "fenced"];
    let mut inside = Talk::start(home.keyward_command(&[&["run"], &profiles[..], &["--", "sh"]].concat()));
    let mut says = |line: &str| ask(&mut inside, &format!("{line} </dev/null >out 2>&1; echo $?; cat out >>all"));
    let out = || std::fs::read_to_string(home.root.join("out")).unwrap();
    // What it holds by the gateway it hands on by the gateway; the child has a token of its own.
    assert_eq!(
        says("keyward run -p gated -- sh -c 'test $ANTHROPIC_AUTH_TOKEN != $0' $ANTHROPIC_AUTH_TOKEN"),
        "0",
        "{}",
        out()
    );
    for (line, code) in [
        ("keyward run -p gated --deliver env -- true", "125"),
        // Each lease has its own count of calls, so another one is not for the run to make.
        ("keyward run -p fenced -- true", "125"),
        ("keyward run -p gated -p other -- true", "125"),
    ] {
        assert_eq!(says(line), code, "{line}: {}", out());
        assert!(out().contains("[approval.needed]"), "{line}: {}", out());
    }
    assert_eq!(says("keyward token gated"), "4");
    assert!(out().contains("[policy.denied]"), "{}", out());
    // Nor does one run more around it make it stronger.
    let within = |line: &str| format!("keyward run -p gated -- sh -c 'keyward run -p gated {line} -- true; exit $?'");
    assert_eq!(says(&within("--deliver env")), "125");
    assert!(out().contains("[approval.needed]"), "{}", out());
    assert_eq!(says(&within("")), "0", "{}", out());
    let held = std::fs::read_to_string(home.root.join("all")).unwrap();
    assert!(!held.contains("v4lue-that-the-run-holds"), "{held}");
    let outer = home.keyward(&["ps", "--json"]).json()[0]["run"].clone();
    let decided: Vec<_> = home.audit().into_iter().filter(|entry| entry["kind"] == "run.decided").collect();
    let told = |n: usize| (decided[n]["detail"]["by"].clone(), decided[n]["detail"]["outer_run"].clone());
    assert_eq!((decided.len(), told(0)), (5, ("shell".into(), Value::Null)), "{decided:?}");
    assert_eq!((told(1), told(2)), (("run".into(), outer.clone()), ("run".into(), outer.clone())));
    assert!(told(4).0 == "run" && told(4).1 != outer, "the run around the innermost is the nearest: {decided:?}");
}

#[test]
fn what_a_run_inside_of_another_holds_ends_with_the_one_around() {
    let home = prepared();
    drop(around(&home));
    wait_for("its end", || state(&home, "sleep") == "revoked");
    let entry = home.audit().into_iter().rfind(|entry| entry["kind"] == "lease.revoked").unwrap();
    assert_eq!(
        (&entry["app"], &entry["detail"]["why"]),
        (&"sleep".into(), &"the run around holds it no longer".into())
    );
    let pid = i32::try_from(runs(&home)[0].1["pid"].as_i64().unwrap()).unwrap();
    assert!(keyward_testkit::alive(pid), "the process itself goes on, without the file");
    signal(pid, Signal::KILL);

    // Also where nobody watches the end.
    let worker = home.broker_pid().unwrap();
    let talk = around(&home);
    let pid = runs(&home).into_iter().find(|(app, _)| app == "sleep").unwrap().1["pid"].as_i64().unwrap();
    signal(worker, Signal::KILL);
    drop(talk);
    wait_for("the worker that comes after", || home.broker_pid().is_some_and(|pid| pid != worker));
    home.unlock();
    assert_eq!((runs(&home).len(), state(&home, "sleep")), (1, "revoked".into()));
    signal(i32::try_from(pid).unwrap(), Signal::KILL);
}

#[test]
fn what_a_run_inside_of_another_holds_is_taken_back_with_the_one_around() {
    let home = prepared();
    let talk = around(&home);
    let outer = runs(&home).into_iter().find(|(app, _)| app == "sh").unwrap().1["run"].clone();
    let revoked = home.keyward(&["revoke", outer.as_str().unwrap(), "--json"]).exits(0).json();
    assert_eq!((&revoked["leases"], state(&home, "sleep")), (&2.into(), "revoked".into()), "{revoked}");
    let pid = runs(&home).into_iter().find(|(app, _)| app == "sleep").unwrap().1["pid"].as_i64().unwrap();
    signal(i32::try_from(pid).unwrap(), Signal::KILL);
    drop(talk);
}
