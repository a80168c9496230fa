//! What a process inside a run may ask, and that it stays inside.

use crate::{ask, entries, ps, shell};
use keyward_testkit::{Home, Talk, wait_for};
use serde_json::Value;

/// The exit code and the error code of a `keyward` command inside the run.
fn inside(child: &mut Talk, command: &str) -> (String, String) {
    let said = ask(child, &format!("{command} >out 2>err; echo $? $(grep -o '\"code\":\"[a-z._]*\"' err)"));
    let (exit, code) = said.split_once(' ').unwrap_or((&said, ""));
    (exit.to_owned(), code.replace("\"code\":", "").replace('"', ""))
}

fn told(exit: &str, code: &str) -> (String, String) {
    (exit.to_owned(), code.to_owned())
}

fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("mine", "s3cret", "T");
    home.static_profile("other", "not yours", "U");
    home
}

#[test]
fn a_run_cannot_start_a_run_of_what_it_does_not_hold_or_act_as_its_person() {
    let home = home();
    let mut child = shell(&home, &["-p", "mine"]);
    let runs_before = entries(&home, "run.requested").len();
    for command in [
        "keyward --json run -p other -- true",
        "setsid -w keyward --json run -p other -- true",
        "(sh -c 'keyward --json run -p other -- true')",
    ] {
        assert_eq!(inside(&mut child, command), told("125", "approval.needed"), "{command}");
        let cards = home.keyward(&["approvals", "--json"]).exits(0).json();
        assert_eq!(cards[0]["outer_run"], ps(&home)[0]["run"], "a person is told from where it is asked: {cards}");
    }
    let planned = inside(&mut child, "keyward --json run -p other --dry-run -- true");
    assert_eq!(planned, told("125", "policy.denied"));
    assert_eq!(inside(&mut child, "keyward --json token other"), told("4", "approval.needed"));
    for command in [
        "keyward --json secret list",
        "echo x | keyward --json secret set new",
        "keyward --json secret remove mine",
        "keyward --json profile list",
        "keyward --json profile show other",
        "keyward --json profile remove other",
        "keyward --json profile test other",
        "keyward --json audit list",
        "keyward --json audit verify",
        "keyward --json vault slot list",
        "keyward --json vault backup $PWD/copy",
        "keyward --json lock",
        "echo correct horse battery staple 42 | keyward --json unlock --passphrase-stdin",
        "echo correct horse battery staple 42 | keyward --json secret reveal mine --passphrase-stdin",
        "echo correct horse battery staple 42 | keyward --json audit export --passphrase-stdin",
        "keyward --json broker stop",
    ] {
        assert_eq!(inside(&mut child, command), told("4", "policy.denied"), "{command}");
    }
    assert_eq!(entries(&home, "run.requested").len(), runs_before);
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "unlocked");
    wait_for("the refusals in the log", || entries(&home, "request.refused").iter().any(|e| e["outcome"] == "refused"));
}

#[test]
fn a_run_sees_itself_and_takes_what_it_holds() {
    let home = home();
    let mut child = shell(&home, &["-p", "mine"]);
    let neighbour = shell(&home, &["-p", "other"]);
    assert_eq!(inside(&mut child, "keyward --json status"), told("0", ""));
    assert_eq!(inside(&mut child, "keyward --json profile kinds"), told("0", ""));
    assert_eq!(ask(&mut child, "keyward token mine"), "s3cret");
    let own: Value = serde_json::from_str(&ask(&mut child, "keyward ps --json")).unwrap();
    let own = own.as_array().unwrap();
    assert_eq!((own.len(), &own[0]["pid"]), (1, &child.pid().into()), "it sees no other run");
    assert_eq!(ps(&home).len(), 2);
    let delivered = &entries(&home, "token.delivered")[0];
    assert_eq!((&delivered["profile"], &delivered["run"]), (&"mine".into(), &own[0]["run"]));
    // It may give back what it holds, and nothing of others.
    assert_eq!(inside(&mut child, "keyward --json revoke other").0, "0");
    assert_eq!(inside(&mut child, "keyward --json revoke --all").0, "0");
    let state = |pid: i32| crate::lease(&home, pid)["state"].clone();
    assert_eq!((state(child.pid()), state(neighbour.pid())), ("revoked".into(), "live".into()));
    assert_eq!(inside(&mut child, "keyward --json token mine"), told("4", "approval.needed"), "as what it never held");
}

#[test]
fn tokens_come_raw_and_in_json() {
    let home = home();
    let raw = home.keyward(&["token", "mine"]).exits(0);
    assert_eq!((raw.out.as_str(), raw.err.as_str()), ("s3cret\n", ""));
    for args in [&["token", "mine", "--format", "json"][..], &["--json", "token", "mine"]] {
        let json = home.keyward(args).exits(0).json();
        assert_eq!((&json["token"], &json["kind"]), (&"s3cret".into(), &"static".into()));
        assert_eq!((&json["expires_at"], &json["expires_in_s"]), (&Value::Null, &Value::Null), "it does not end");
    }
    let mint = crate::Mint::new(&home, "m", 600, "env", "M");
    let json = home.keyward(&["token", "m", "--format", "json"]).exits(0).json();
    let left = json["expires_in_s"].as_u64().unwrap();
    assert!((1..=600).contains(&left) && json["expires_at"].as_str().unwrap().ends_with('Z'), "{json}");
    assert_eq!((&json["token"], mint.count()), (&"m-token-1".into(), 1));
    home.keyward(&["token", "nobody"]).exits(1).says("profile.unknown");
    let delivered = entries(&home, "token.delivered");
    assert_eq!(delivered.len(), 4);
    assert!(delivered.iter().all(|e| !e.to_string().contains("s3cret") && e["peer"]["pid"].is_number()));
    home.keyward(&["lock"]).exits(0);
    home.keyward(&["token", "mine"]).exits(3).says("vault.locked");
}

#[test]
fn a_run_stays_inside_over_lock_restart_and_crash_of_the_broker() {
    let home = home();
    let mut child = shell(&home, &["-p", "mine"]);
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    assert_eq!(inside(&mut child, "keyward --json run -p other -- true"), told("125", "approval.needed"));
    for restart in [true, false] {
        if restart {
            home.keyward(&["broker", "restart"]).exits(0);
        } else {
            home.crash_broker();
        }
        // Until the vault is open nobody knows the runs, so nobody gets anything.
        assert_eq!(inside(&mut child, "keyward --json --no-input run -p other -- true"), told("125", "vault.locked"));
        assert_eq!(inside(&mut child, "keyward --json --no-input secret list"), told("3", "vault.locked"));
        home.unlock();
        assert_eq!(inside(&mut child, "keyward --json run -p other -- true"), told("125", "approval.needed"));
        assert_eq!(inside(&mut child, "setsid -w keyward --json secret list"), told("4", "policy.denied"));
        assert_eq!(inside(&mut child, "keyward --json token other"), told("4", "approval.needed"));
    }
}
