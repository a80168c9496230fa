//! Names that others chose, on a person's terminal: nothing in them acts on it, or turns a line around.

use crate::{home_of_a_user, is_root, waiting};
use keyward_testkit::{Home, PASSPHRASE, run, wait_for};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\r\n\u{8}\u{9b}31m\u{202e}nimda\u{2066}\u{200f}\u{2028}\u{85}";

/// Fails when `text` holds anything that a terminal would obey, or a line break that `lines` does not allow for.
#[track_caller]
fn harmless(what: &str, text: &str) {
    let bad = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    let found: Vec<char> = text.chars().filter(bad).collect();
    assert_eq!(found, [], "in {what}: {text}");
}

#[test]
fn hostile_names_of_programs_folders_and_reasons_are_shown_escaped() {
    let home = Home::with_vault();
    home.static_profile("a", "v4lue-of-a-secret", "A");
    let folder = home.root.join(format!("project{HOSTILE}"));
    std::fs::create_dir_all(folder.join(".git")).unwrap();
    let program = folder.join(format!("app{HOSTILE}"));
    std::fs::copy("/bin/sleep", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = home.keyward_command(&["run", "-p", "a", "--explain", "--reason", &format!("why{HOSTILE}"), "--"]);
    run.arg(&program).arg("600").current_dir(&folder);
    let run = crate::Kept::start(run);
    wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    wait_for("its entry", || home.audit_kinds().iter().any(|kind| kind == "run.started"));
    let shown = home.keyward(&["ps"]).exits(0).out;
    harmless("ps", &shown);
    assert!(shown.contains("app\\u{1b}") && shown.contains("project\\u{1b}"), "{shown}");
    assert_eq!(shown.lines().count(), 2, "a name has broken the line: {shown}");
    let listed = home.keyward(&["audit", "list", "--limit", "100"]).exits(0).out;
    harmless("audit list", &listed);
    assert_eq!(listed.lines().count(), home.audit().len() + 1, "{listed}");
    let asked = home.audit().into_iter().find(|e| e["kind"] == "run.requested").unwrap();
    let one = home.keyward(&["audit", "show", &asked["seq"].to_string()]).exits(0).out;
    harmless("audit show", &one);
    assert!(one.contains("why\\u{1b}") || one.contains("why\\\\u{1b}"), "{one}");
    for (what, answer) in [
        ("errors", home.keyward(&["run", "-p", HOSTILE, "--", "true"])),
        ("errors", home.keyward(&["token", HOSTILE])),
        ("errors", home.keyward(&["revoke", HOSTILE])),
        ("errors", home.keyward(&["secret", "reveal", HOSTILE, "--passphrase-stdin"])),
        ("errors", home.keyward(&["run", "--", &format!("/no/such{HOSTILE}")])),
        ("errors", home.keyward(&["audit", "list", "--kind", HOSTILE])),
        ("errors", home.keyward(&["profile", "add", "x", "--from", HOSTILE])),
        ("errors", home.keyward(&["secret", HOSTILE])),
        ("lock", home.keyward(&["lock"])),
    ] {
        harmless(what, &answer.out);
        harmless(what, &answer.err);
    }
    drop(run);
}

/// Every text of a document.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![],
    }
}

#[test]
fn what_a_requester_says_on_a_card_is_escaped_bounded_and_marked() {
    let home = Home::with_vault();
    home.static_profile("a", "v4lue-of-a-secret", "A");
    let hostile = format!("{HOSTILE}\u{200b}\u{2060}\u{e0041}\u{feff}");
    let folder = home.root.join(format!("project{hostile}"));
    std::fs::create_dir_all(folder.join(".git")).unwrap();
    std::fs::write(folder.join(".git/HEAD"), format!("ref: refs/heads/br\u{1b}[2J\u{202e}{hostile}\n")).unwrap();
    let program = folder.join(format!("app{hostile}"));
    std::fs::copy("/bin/true", &program).unwrap();
    let long = "x".repeat(90_000);
    let ask = |why: &str, arg: &str| {
        let mut command = home.command("sh");
        let line = r#"keyward run -p a --reason "$1" -- "$0" "$2"; exit $?"#;
        command.current_dir(&folder).args(["-c", line]).arg(&program).args([why, arg]);
        run(command, b"").exits(125).says("approval.needed")
    };
    for (why, arg) in [(format!("why{hostile}"), format!("arg{hostile}")), ("y".repeat(500), long)] {
        ask(&why, &arg);
        let card = waiting(&home).remove(0);
        for text in texts(&card) {
            harmless("a card", text);
            let unseen = |c: char| c.is_control() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{e0041}' | '\u{feff}');
            assert!(!text.contains(unseen) && text.chars().count() <= 600, "{text:?}");
        }
        for (field, begins) in
            [("app", "app\\u{1b}"), ("project", ""), ("branch", "br\\u{1b}"), ("question", "app\\u{1b}")]
        {
            let text = card[field].as_str().unwrap();
            assert!(text.starts_with(begins) && text.contains("\\u{202e}") | text.contains('…'), "{field}: {text}");
        }
        let said = card["said"].as_array().unwrap();
        for field in ["app", "program", "command", "reason"] {
            assert!(said.contains(&field.into()), "{field} was read from no kernel: {card}");
        }
        let listed = home.keyward(&["approvals"]).exits(0).out;
        harmless("approvals", &listed);
        assert_eq!(listed.lines().count(), 2, "{listed}");
        let id = card["id"].as_str().unwrap();
        let shown = home.keyward_in(&["approve", id, "--passphrase-stdin"], PASSPHRASE).exits(0);
        harmless("approve", &shown.out);
        harmless("approve", &shown.err);
        let facts = shown.err.lines().filter(|line| line.contains("nimda")).count();
        assert!(facts <= 8, "a fact is one line, whatever it holds: {}", shown.err);
    }
}

#[test]
fn a_launcher_that_anybody_added_lends_its_name_to_no_card_unmarked() {
    let home = Home::with_vault();
    home.static_profile("a", "v4lue-of-a-secret", "A");
    let line = "keyward launcher add 'Trusted Editor' -p a -- sh -c 'env >stolen' && keyward launch 'Trusted Editor'";
    crate::beside(&home, line).exits(125).says("approval.needed");
    let card = waiting(&home).remove(0);
    assert_eq!(card["launcher"], "Trusted Editor");
    let said = card["said"].as_array().unwrap();
    assert!(said.contains(&"app".into()), "a requester chose the name: {card}");
    assert!(said.contains(&"command".into()), "{card}");
}

#[test]
fn names_of_profiles_and_secrets_are_plain() {
    let home = Home::with_vault();
    for name in [HOSTILE, "a b", "a/b", "../a", "", ".a", "-", "ä", "a\u{202e}b", &"a".repeat(65)] {
        let set = home.keyward_in(&["secret", "set", "--", name], "v4lue-of-a-secret");
        assert!(matches!(set.exit, 1 | 2), "{name:?}: {set:?}");
        harmless("secret set", &set.err);
    }
    assert_eq!(home.keyward(&["secret", "list", "--json"]).json().as_array().map(Vec::len), Some(0));
}

#[test]
fn who_can_type_into_a_terminal_is_what_doctor_reports() {
    if !is_root("screen::who_can_type_into_a_terminal_is_what_doctor_reports") {
        return;
    }
    // A program with CAP_SYS_ADMIN may type into it always.
    let (home, _) = home_of_a_user();
    let report = home.keyward(&["doctor", "--json"]).exits(0).json();
    let fact =
        report["machine"].as_array().unwrap().iter().find(|fact| fact["fact"] == "legacy_tiocsti").unwrap().clone();
    let mut command = home.command("script");
    // TIOCSTI of asm-generic/ioctls.h; the typed line is one that the shell would run.
    command.args(["-qec", "perl -e 'my $typed = \"#\"; exit(ioctl(STDIN, 0x5412, $typed) ? 0 : 9)'", "/dev/null"]);
    let typed = run(command, b"");
    assert!(matches!(typed.exit, 0 | 9), "{typed:?}");
    assert_eq!((typed.exit == 0, &fact["ok"]), (fact["value"] != "0", &(fact["value"] == "0").into()), "{fact}");
    assert!(fact["ok"] == true || fact["set"].as_str().unwrap().contains("dev.tty.legacy_tiocsti=0"), "{fact}");
}
