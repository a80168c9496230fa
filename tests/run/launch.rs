//! Launchers: stored, changed and removed, and runs that are recognised as one of them.

use crate::{entries, entry, ps, shell};
use keyward_testkit::{Home, PASSPHRASE, Reply, Wire, run, wait_for};
use serde_json::{Value, json};
use std::path::Path;

/// One request of this process.
#[track_caller]
fn api(home: &Home, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Wire::once(&home.socket(), method, path, &[], &body).unwrap()
}

/// Fails unless the answer is this error.
#[track_caller]
fn refused(reply: &Reply, code: &str) {
    assert_eq!(reply.json()["code"], code, "{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
}

#[track_caller]
fn done(reply: &Reply) -> Value {
    assert!(matches!(reply.status, 200 | 204), "{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
    reply.json()
}

fn launchers(home: &Home) -> Vec<Value> {
    done(&api(home, "GET", "/v1/launchers", &Value::Null)).as_array().unwrap().clone()
}

fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret-value", "T");
    home.static_profile("q", "short", "U");
    home
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body =
        json!({"name": "Shell", "command": ["sh", "-c", "echo \"$T\""], "profiles": ["p"], "terminal": true});
    change(&mut body);
    body
}

fn proven(mut body: Value, passphrase: &str) -> Value {
    body["proof"] = json!({"passphrase": passphrase});
    body
}

#[test]
fn launchers_are_stored_changed_with_proof_and_removed() {
    let home = home();
    done(&api(&home, "POST", "/v1/launchers", &with(|_| {})));
    let folder = home.root.display().to_string();
    done(&api(
        &home,
        "POST",
        "/v1/launchers",
        &with(|l| {
            l["name"] = "Ä / b?".into();
            l["folder"] = folder.as_str().into();
            l["terminal"] = false.into();
        }),
    ));
    for name in ["Shell", "sHELL", "ä / B?"] {
        refused(&api(&home, "POST", "/v1/launchers", &with(|l| l["name"] = name.into())), "launcher.exists");
    }
    let listed = launchers(&home);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0]["command"], json!(["sh", "-c", "echo \"$T\""]));
    assert_eq!((&listed[1]["name"], &listed[1]["folder"]), (&"Ä / b?".into(), &folder.as_str().into()));
    assert_eq!((&listed[0]["terminal"], &listed[1]["terminal"]), (&true.into(), &false.into()));
    assert!(listed[0].get("launched_at").is_none() && listed[0].get("folder").is_none(), "{listed:?}");

    let changed = with(|l| {
        l["name"] = "Konsole".into();
        l["command"] = json!(["/bin/sh"]);
        l["profiles"] = json!(["q", "p"]);
    });
    let edit = |path: &str, body: &Value| api(&home, "PUT", path, body);
    refused(&edit("/v1/launchers/shell", &changed), "passphrase.needed");
    refused(
        &edit("/v1/launchers/shell", &proven(changed.clone(), "wrong horse battery staple")),
        "vault.wrong_passphrase",
    );
    refused(&edit("/v1/launchers/nobody", &proven(changed.clone(), PASSPHRASE)), "launcher.unknown");
    refused(&edit("/v1/launchers/%zz", &proven(changed.clone(), PASSPHRASE)), "request.invalid");
    assert_eq!(launchers(&home), listed, "nothing was changed");
    done(&edit("/v1/launchers/shell", &proven(changed.clone(), PASSPHRASE)));
    let taken = with(|l| l["name"] = "ä / B?".into());
    refused(&edit("/v1/launchers/Konsole", &proven(taken, PASSPHRASE)), "launcher.exists");
    assert_eq!(
        (&launchers(&home)[0]["name"], &launchers(&home)[0]["profiles"]),
        (&"Konsole".into(), &json!(["q", "p"]))
    );

    home.crash_broker();
    home.unlock();
    assert_eq!(launchers(&home).len(), 2, "they outlive the broker");
    refused(&api(&home, "DELETE", "/v1/launchers/%C3%84%20%2F%20b%3F", &Value::Null), "policy.denied");
    home.keyward(&["launcher", "remove", "Ä / b?"]).exits(0);
    home.keyward(&["launcher", "remove", "Ä / b?"]).exits(1).says("launcher.unknown");
    let kinds: Vec<String> = home.audit_kinds().into_iter().filter(|k| k.starts_with("launcher.")).collect();
    assert_eq!(kinds, ["launcher.added", "launcher.added", "launcher.changed", "launcher.removed"]);
    let changed = entry(&home, "launcher.changed", 1)["detail"].clone();
    assert_eq!((&changed["launcher"], &changed["former_name"]), (&"Konsole".into(), &"Shell".into()));
    assert_eq!((&changed["program"], &changed["profiles"]), (&"/bin/sh".into(), &json!(["q", "p"])));
    let added = entries(&home, "launcher.added")[0].to_string();
    assert!(!added.contains("echo") && added.contains("\"program\":\"sh\""), "no argument stands in the log: {added}");
}

#[test]
fn launchers_that_break_a_rule_or_hold_a_secret_are_refused() {
    let home = home();
    for (field, content, code) in [
        ("name", json!(""), "launcher.invalid"),
        ("name", json!("a\u{202e}b"), "launcher.invalid"),
        ("name", json!("x".repeat(61)), "launcher.invalid"),
        ("command", json!([]), "launcher.invalid"),
        ("command", json!(["./sh"]), "launcher.invalid"),
        ("command", json!(["sh", "a\u{0}"]), "launcher.invalid"),
        ("command", json!(["sh", "x".repeat(4097)]), "launcher.invalid"),
        ("command", json!(vec!["sh"; 65]), "launcher.invalid"),
        ("command", json!(["sh", "s3cret-value"]), "launcher.secret"),
        ("command", json!(["sh", "-c", "T=s3cret-value run"]), "launcher.secret"),
        ("command", json!(["sh", "short"]), "launcher.secret"),
        ("folder", json!("relative"), "launcher.invalid"),
        ("profiles", json!([]), "launcher.invalid"),
        ("profiles", json!(["p", "p"]), "launcher.invalid"),
        ("profiles", json!(["nobody"]), "profile.unknown"),
        ("profiles", json!(["../p"]), "name.invalid"),
        ("more", json!(1), "request.invalid"),
    ] {
        let reply = api(&home, "POST", "/v1/launchers", &with(|l| l[field] = content.clone()));
        refused(&reply, code);
        assert!(!String::from_utf8_lossy(&reply.body).contains("s3cret"), "{content}");
    }
    // A part of a word is no secret by chance.
    done(&api(&home, "POST", "/v1/launchers", &with(|l| l["command"] = json!(["sh", "shorter"]))));
    let secret = proven(with(|l| l["command"] = json!(["sh", "s3cret-value"])), PASSPHRASE);
    refused(&api(&home, "PUT", "/v1/launchers/Shell", &secret), "launcher.secret");

    home.keyward(&["profile", "remove", "p"]).exits(1).says("profile.in_use");
    home.keyward(&["launcher", "remove", "Shell"]).exits(0);
    home.keyward(&["profile", "remove", "p"]).exits(0);
}

#[test]
fn a_launched_run_has_the_name_of_its_launcher_also_after_a_crash() {
    let home = home();
    done(&api(&home, "POST", "/v1/launchers", &with(|l| l["command"] = json!(["sleep", "600"]))));
    let mut child = home.keyward_command(&["launch", "shell"]);
    let mut child = child.spawn().unwrap();
    wait_for("the launched run", || ps(&home).first().is_some_and(|r| r["app_verified"] == true));
    let before = ps(&home)[0].clone();
    assert_eq!((&before["app"], &before["launcher"]), (&"Shell".into(), &"Shell".into()), "{before}");
    let launched = launchers(&home)[0]["launched_at"].clone();
    assert!(launched.is_string());
    let asked = entry(&home, "run.requested", 1);
    assert_eq!((&asked["app"], &asked["detail"]["launcher"]), (&"Shell".into(), &"Shell".into()), "{asked}");
    assert_eq!(asked["detail"].get("expected"), None, "nobody had announced it");
    home.crash_broker();
    home.unlock();
    let after = ps(&home)[0].clone();
    assert_eq!((&after["run"], &after["launcher"]), (&before["run"], &"Shell".into()));
    assert_eq!(launchers(&home)[0]["launched_at"], launched);
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = entry(&home, "run.ended", 1);
    assert_eq!((&ended["app"], &ended["detail"]["profiles"]), (&"Shell".into(), &json!(["p"])), "{ended}");
    assert_eq!(ended["detail"]["started_at"], before["started_at"]);
}

/// The body of a dry run of this test's own process, whose working folder is that of the launcher.
fn dry(command: &Value, launcher: &str) -> Value {
    json!({"profiles": ["p"], "command": command, "variables": [], "dry_run": true, "launcher": launcher})
}

#[test]
fn a_run_that_names_a_launcher_is_what_the_launcher_says() {
    let home = home();
    let here = std::env::current_dir().unwrap().display().to_string();
    for (name, program, folder) in
        [("bare", "sh", Some(here.as_str())), ("full", "/bin/sh", Some(&here)), ("home", "sh", None)]
    {
        done(&api(
            &home,
            "POST",
            "/v1/launchers",
            &with(|l| {
                l["name"] = name.into();
                l["command"] = json!([program, "-c", "true"]);
                l["folder"] = folder.into();
            }),
        ));
    }
    let command = json!({"path": "/bin/sh", "args": ["-c", "true"], "project": here});
    let ask = |body: &Value| api(&home, "POST", "/v1/runs", body);
    for name in ["bare", "full", "FULL"] {
        assert_eq!(done(&ask(&dry(&command, name)))["plan"][0]["profile"], "p");
    }
    let other = |change: &dyn Fn(&mut Value)| {
        let mut body = dry(&command, "full");
        change(&mut body);
        body
    };
    for (what, body) in [
        ("the folder", other(&|b| b["launcher"] = "home".into())),
        ("the program", other(&|b| b["command"]["path"] = "/usr/bin/env".into())),
        ("another path to it", other(&|b| b["command"]["path"] = "/usr/bin/../bin/sh".into())),
        ("an argument", other(&|b| b["command"]["args"] = json!(["-c", "false"]))),
        ("one more", other(&|b| b["command"]["args"] = json!(["-c", "true", ""]))),
        ("the profile", other(&|b| b["profiles"] = json!(["q"]))),
        ("a profile more", other(&|b| b["profiles"] = json!(["p", "q"]))),
    ] {
        let reply = ask(&body);
        assert_eq!(reply.json()["code"], "launcher.other", "{what}: {}", String::from_utf8_lossy(&reply.body));
    }
    refused(&ask(&dry(&command, "nobody")), "launcher.unknown");
    assert!(launchers(&home).iter().all(|l| l.get("launched_at").is_none()), "a dry run launches nothing");
}

/// Announces a launch; gives the answer.
fn expect(home: &Home, name: &str, path: &Path) -> Reply {
    api(home, "POST", &format!("/v1/launchers/{name}/expect"), &json!({"path": path.display().to_string()}))
}

/// Launches with this folder first in `PATH`; says whether the log calls it expected.
#[track_caller]
fn launch(home: &Home, name: &str, first: &Path) -> bool {
    let mut command = home.keyward_command(&["launch", name]);
    command.env("PATH", format!("{}:{}:/usr/bin:/bin", first.display(), home.bin().display()));
    run(command, b"").exits(0);
    let asked = entries(home, "run.requested").pop().unwrap();
    let expected = asked["detail"].get("expected").is_some_and(|e| *e == true);
    assert_eq!(expected, asked["detail"]["expected_by"] == std::process::id(), "{asked}");
    expected
}

#[test]
fn an_announced_launch_is_taken_once_and_by_nothing_else() {
    let home = home();
    let (one, two, work) = (home.root.join("one"), home.root.join("two"), home.root.join("work"));
    for folder in [&one, &two, &work] {
        std::fs::create_dir(folder).unwrap();
    }
    for folder in [&one, &two] {
        std::fs::copy("/bin/true", folder.join("tool")).unwrap();
    }
    for name in ["tool", "other"] {
        done(&api(
            &home,
            "POST",
            "/v1/launchers",
            &with(|l| {
                l["name"] = name.into();
                l["command"] = json!(["tool"]);
                l["folder"] = work.display().to_string().into();
            }),
        ));
    }
    let path = one.join("tool");
    assert!(!launch(&home, "tool", &one), "nobody announced it");
    let until = done(&expect(&home, "tool", &path))["until"].clone();
    assert!(until.as_str().is_some_and(|t| t.ends_with('Z')), "{until}");
    assert!(!launch(&home, "other", &one), "another launcher of the same program");
    assert!(!launch(&home, "tool", &two), "another file of the same name");
    std::fs::rename(&work, home.root.join("moved")).unwrap();
    std::fs::create_dir(&work).unwrap();
    assert!(!launch(&home, "tool", &one), "another folder in the same place");
    std::fs::remove_dir(&work).unwrap();
    std::fs::rename(home.root.join("moved"), &work).unwrap();
    assert!(launch(&home, "tool", &one), "the one that was announced");
    assert!(!launch(&home, "tool", &one), "once");

    done(&expect(&home, "tool", &path));
    let same = proven(
        with(|l| {
            l["name"] = "tool".into();
            l["command"] = json!(["tool"]);
            l["folder"] = work.display().to_string().into();
        }),
        PASSPHRASE,
    );
    done(&api(&home, "PUT", "/v1/launchers/tool", &same));
    assert!(!launch(&home, "tool", &one), "the launcher is another one since");

    refused(&expect(&home, "tool", Path::new("/bin/sh")), "launcher.other");
    refused(&expect(&home, "tool", &home.root.join("tool")), "run.not_found");
    refused(&expect(&home, "nobody", &path), "launcher.unknown");
    for _ in 0..16 {
        done(&expect(&home, "tool", &path));
    }
    refused(&expect(&home, "tool", &path), "broker.busy");
    let app = entries(&home, "run.requested").pop().unwrap()["app"].clone();
    assert_eq!(app, "tool", "without an announcement the launcher is the app all the same");
}

#[test]
fn clients_are_told_of_what_changes_and_only_after_it_is_recorded() {
    let home = home();
    let mut stream = Wire::open(&home.socket());
    stream.send("GET", "/v1/events", &[], b"");
    assert_eq!(stream.head().unwrap().status, 200);
    done(&api(&home, "POST", "/v1/launchers", &with(|_| {})));
    home.keyward(&["launch", "Shell"]).exits(0);
    done(&api(&home, "PUT", "/v1/launchers/Shell", &proven(with(|_| {}), PASSPHRASE)));
    home.keyward(&["launcher", "remove", "Shell"]).exits(0);
    home.keyward(&["profile", "remove", "p"]).exits(0);
    let settings = json!({"auto_lock_s": 1200, "proof": {"passphrase": PASSPHRASE}});
    done(&api(&home, "PUT", "/v1/settings", &settings));
    let (mut waiting, mut told) = (Vec::new(), Vec::new());
    let mut recorded = 0;
    while told.last().is_none_or(|(name, _): &(String, Value)| name != "settings") {
        let [_, name, data] = stream.event(&mut waiting).unwrap();
        let data: Value = serde_json::from_str(&data).unwrap();
        match name.as_str() {
            "audit" => recorded += 1,
            "lease" => {
                assert!(data["run"].is_string() && data["profile"] == "p" && data["state"] == "released", "{data}");
                assert!(recorded > 0);
            }
            "launcher" | "profile" | "settings" => {
                assert!(recorded > told.len(), "{name} {data} came before its entry");
                told.push((name, data));
            }
            _ => {}
        }
    }
    let told: Vec<String> = told.iter().map(|(name, data)| format!("{name} {data}")).collect();
    let want = [
        "launcher {\"name\":\"Shell\",\"state\":\"added\"}",
        "launcher {\"name\":\"Shell\",\"state\":\"launched\"}",
        "launcher {\"name\":\"Shell\",\"state\":\"changed\"}",
        "launcher {\"name\":\"Shell\",\"state\":\"removed\"}",
        "profile {\"name\":\"p\",\"state\":\"removed\"}",
        "settings {}",
    ];
    assert_eq!(told, want);
}

#[test]
fn tokens_name_the_app_and_the_project_they_went_to() {
    let home = home();
    let mut child = shell(&home, &["-p", "p"]);
    child.send(b"keyward token p\n");
    assert_eq!(child.line(), "s3cret-value");
    home.keyward(&["token", "q"]).exits(0);
    let given = entries(&home, "token.delivered");
    let run = ps(&home)[0].clone();
    assert_eq!((&given[0]["app"], &given[0]["app_verified"]), (&"sh".into(), &true.into()), "{given:?}");
    assert_eq!((&given[0]["run"], &given[0]["project"]), (&run["run"], &run["project"]));
    assert_eq!(given[0]["lease"], run["leases"][0]["lease"]);
    assert_eq!((&given[1]["app"], &given[1]["app_verified"]), (&"keyward".into(), &false.into()));
    assert!(given[1].get("run").is_none() && given[1].get("project").is_none(), "{given:?}");
}
