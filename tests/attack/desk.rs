//! What the desktop asks for, asked by somebody else.

use crate::{Kept, api, peer};
use keyward_testkit::{Home, PASSPHRASE, run, wait_for};
use serde_json::{Value, json};

/// What only the desktop asks for.
const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/profiles/held/renew"),
    ("POST", "/v1/profiles/held/reveal"),
    ("GET", "/v1/runs/past"),
    ("GET", "/v1/apps"),
    ("GET", "/v1/launchers"),
    ("POST", "/v1/launchers"),
    ("PUT", "/v1/launchers/tool"),
    ("DELETE", "/v1/launchers/tool"),
    ("POST", "/v1/launchers/tool/expect"),
    ("GET", "/v1/settings"),
    ("PUT", "/v1/settings"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/audit/summary"),
    ("GET", "/v1/events"),
    ("GET", "/v1/approvals"),
    ("POST", "/v1/approvals/00000000"),
    ("GET", "/v1/grants"),
    ("POST", "/v1/grants"),
    ("PUT", "/v1/grants/00000000"),
    ("DELETE", "/v1/grants/00000000"),
    ("POST", "/v1/operator"),
];

/// A vault with the profile `held` and the launcher `tool`, which runs `true` in the home folder.
fn prepared() -> Home {
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-of-it", "HELD");
    let launcher = json!({"name": "tool", "command": ["true"], "profiles": ["held"]});
    assert_eq!(api(&home, "POST", "/v1/launchers", &launcher), Value::Null);
    home
}

#[test]
fn a_run_gets_nothing_of_what_the_desktop_asks_for() {
    let home = prepared();
    let (peer, socket) = (peer(&home), home.socket());
    for (method, path) in ROUTES {
        let mut inside = home.keyward_command(&["run", "-p", "held", "--"]);
        inside.arg(&peer).args(["ask", &socket.display().to_string(), "1", method, path]);
        let said = run(inside, b"").exits(0).out;
        assert!(said.starts_with("403 1\n") && said.contains("policy.denied"), "{method} {path}: {said}");
    }
    let kinds = home.audit_kinds();
    assert!(!kinds.iter().any(|k| k == "credential.revealed" || k == "launcher.removed"), "{kinds:?}");
}

#[test]
fn a_locked_vault_shows_its_settings_and_nothing_else_of_the_desktop() {
    let home = prepared();
    let proof = json!({"passphrase": PASSPHRASE});
    let launcher = json!({"name": "tool", "command": ["true"], "profiles": ["held"], "proof": proof});
    let body = |method: &str, path: &str| match (method, path.rsplit('/').next()) {
        ("GET" | "DELETE", _) | (_, Some("renew")) => Value::Null,
        (_, Some("reveal")) => proof.clone(),
        (_, Some("expect")) => json!({"path": "/bin/true"}),
        (_, Some("settings")) => json!({"auto_lock_s": 600, "proof": proof}),
        (_, Some("grants")) | ("PUT", Some("00000000")) => json!({"profile": "held", "proof": proof}),
        (_, Some("00000000")) => json!({"digest": "00".repeat(32), "decision": "once", "proof": proof}),
        (_, Some("operator")) => proof.clone(),
        _ => launcher.clone(),
    };
    for restarted in [false, true] {
        home.keyward(&["lock"]).exits(0);
        if restarted {
            home.keyward(&["broker", "restart"]).exits(0);
        }
        for (method, path) in ROUTES.iter().filter(|(_, path)| *path != "/v1/events") {
            let said = api(&home, method, path, &body(method, path));
            if (*method, *path) == ("GET", "/v1/settings") {
                assert_eq!(said, json!({"auto_lock_s": 900}));
            } else if *path == "/v1/launchers/tool" && *method == "DELETE" && !restarted {
                assert_eq!(said["code"], "policy.denied", "nor does a requester remove anything: {said}");
            } else {
                assert_eq!(said["code"], "vault.locked", "{method} {path}: {said}");
            }
        }
        home.unlock();
    }
}

#[test]
fn a_click_starts_nothing_else_unless_the_person_changed_it() {
    let home = prepared();
    let mut hostile = json!({"name": "tool", "command": ["sh", "-c", "env >/tmp/stolen"], "profiles": ["held"]});
    assert_eq!(api(&home, "PUT", "/v1/launchers/tool", &hostile)["code"], "passphrase.needed");
    assert_eq!(api(&home, "POST", "/v1/launchers", &hostile)["code"], "launcher.exists");
    for name in ["Tool", "TOOL", "tool\u{200b}", "tool ", "\u{202e}loot"] {
        hostile["name"] = name.into();
        let code = api(&home, "POST", "/v1/launchers", &hostile)["code"].clone();
        assert!(code == "launcher.exists" || code == "launcher.invalid", "{name:?}: {code}");
    }
    hostile["name"] = "tool".into();
    hostile["proof"] = json!({"passphrase": "wrong horse battery staple"});
    assert_eq!(api(&home, "PUT", "/v1/launchers/tool", &hostile)["code"], "vault.wrong_passphrase");
    assert_eq!(api(&home, "GET", "/v1/launchers", &Value::Null)[0]["command"], json!(["true"]));
}

#[test]
fn another_program_cannot_pass_for_the_launch_that_a_person_made() {
    let home = prepared();
    let fake = home.root.join("fake");
    std::fs::create_dir(&fake).unwrap();
    std::fs::copy("/bin/sleep", fake.join("true")).unwrap();
    let announced = api(&home, "POST", "/v1/launchers/tool/expect", &json!({"path": "/bin/true"}));
    assert!(announced["until"].is_string(), "{announced}");
    let last = || home.audit().into_iter().rfind(|e| e["kind"] == "run.requested").unwrap();
    // A file of the same name, which a bare name stands for, is not the file that was announced.
    let mut stolen = home.keyward_command(&["launch", "tool"]);
    stolen.env("PATH", format!("{}:{}:/usr/bin:/bin", fake.display(), home.bin().display()));
    assert_ne!(run(stolen, b"").exit, 125);
    assert_eq!(last()["detail"].get("expected"), None, "{}", last());
    // Neither is a run that does not say which launcher it is, or that says so in another folder or with other arguments.
    home.keyward(&["run", "-p", "held", "--", "true"]).exits(0);
    assert_eq!(last()["detail"].get("expected"), None, "{}", last());
    let request = |args: &Value, project: &str| {
        json!({"profiles": ["held"], "command": {"path": "/bin/true", "args": args, "project": project}, "variables": [],
               "launcher": "tool"})
    };
    let at_home = home.root.display().to_string();
    for (args, why) in [(json!([]), "the working folder differs"), (json!(["x"]), "the arguments differ")] {
        let said = api(&home, "POST", "/v1/runs", &request(&args, &at_home));
        assert_eq!((&said["code"], &said["causes"][0]), (&"launcher.other".into(), &why.into()), "{said}");
    }
    let mut true_one = home.keyward_command(&["launch", "tool"]);
    true_one.env("PATH", format!("/bin:{}", home.bin().display()));
    run(true_one, b"").exits(0);
    assert_eq!(last()["detail"]["expected"], true, "it was still waited for: {}", last());
}

#[test]
fn who_says_that_the_operator_launches_gets_nothing_without_being_asked_about() {
    let home = prepared();
    let expect = json!({"path": "/bin/true", "by_operator": true});
    let launch = || crate::beside(&home, "PATH=/bin:$PATH keyward launch tool");
    // Neither with an announcement of its own, nor with one of a shell, which is no operator's window.
    launch().exits(125).says("approval.needed");
    api(&home, "POST", "/v1/launchers/tool/expect", &expect);
    launch().exits(125).says("approval.needed");
    let mut operator = crate::operator(&home);
    operator.send("POST", "/v1/launchers/tool/expect", &[], expect.to_string().as_bytes());
    assert_eq!(operator.reply().unwrap().status, 200);
    // What the operator announced is one launch of this launcher.
    crate::beside(&home, "keyward run -p held -- true").exits(125).says("approval.needed");
    launch().exits(0);
    launch().exits(125).says("approval.needed");
}

#[test]
fn a_launch_that_the_operator_announced_is_for_what_the_operator_has_started() {
    let home = prepared();
    // An orphan, as any process of the user can be: the same program, arguments and folder, and quicker than the launch.
    let line = r#"(until [ -e go ]; do sleep 0.05; done; PATH=/bin:$PATH keyward launch tool >stolen 2>&1; touch taken) \
        </dev/null >/dev/null 2>&1 &"#;
    crate::beside(&home, line).exits(0);
    let mut operator = crate::operator(&home);
    let expect = json!({"path": "/bin/true", "by_operator": true}).to_string();
    operator.send("POST", "/v1/launchers/tool/expect", &[], expect.as_bytes());
    assert_eq!(operator.reply().unwrap().status, 200);
    std::fs::write(home.root.join("go"), "").unwrap();
    wait_for("the other one", || home.root.join("taken").exists());
    let stolen = std::fs::read_to_string(home.root.join("stolen")).unwrap();
    assert!(stolen.contains("[approval.needed]"), "{stolen}");
    assert_eq!(home.audit_kinds().iter().filter(|kind| *kind == "credential.delivered").count(), 0);
    crate::beside(&home, "PATH=/bin:$PATH keyward launch tool").exits(0);
}

#[test]
fn what_arrives_without_a_person_shows_no_credential() {
    let home = prepared();
    let run = Kept::start(home.keyward_command(&["run", "-p", "held", "--", "sleep", "600"]));
    wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    for _ in 0..20 {
        let said = api(&home, "POST", "/v1/profiles/held/renew", &Value::Null);
        assert!(said["unchanged"] == 1 && !said.to_string().contains("v4lue"), "{said}");
    }
    for body in [Value::Null, json!({}), json!({"passphrase": ""}), json!({"recovery": "AGE-SECRET-KEY-1"})] {
        let said = api(&home, "POST", "/v1/profiles/held/reveal", &body);
        assert!(said["code"].is_string() && !said.to_string().contains("v4lue"), "{body}: {said}");
    }
    drop(run);
}
