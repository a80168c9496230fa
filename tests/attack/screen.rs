//! Names that others chose, on a person's terminal: nothing in them acts on it, or turns a line around.

use keyward_testkit::{Home, wait_for};
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
