//! The LocalAPI as any program could speak it: every operation of the document, by raw HTTP.

use crate::schema::{document, mismatch, operations};
use crate::waiting_run;
use keyward_testkit::{Home, PASSPHRASE, Reply, Wire};
use serde_json::{Value, json};

/// What is sent for an operation: the part of the path that varies, the body, and the code of the fault that is right.
fn request(id: &str, home: &Home, grant: &str) -> Option<(String, Value, Option<&'static str>)> {
    let proof = json!({"passphrase": PASSPHRASE});
    let file = |name: &str| home.root.join(name).display().to_string();
    let toml = "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nenv = { V = \"token\" }\n";
    let command = json!({"path": "/bin/true", "args": ["x"], "project": "/"});
    let launcher = json!({"name": "A / b", "command": ["true"], "profiles": ["p"], "proof": proof});
    let granted = json!({"profile": "p", "program": "/bin/true", "for_s": 60, "proof": proof});
    let (part, body, refused) = match id {
        "Status" | "Me" | "Approvals" | "Grants" | "Slots" | "Secrets" | "Kinds" | "Profiles" | "Runs" | "RunsPast"
        | "Apps" | "Launchers" | "Settings" | "Audit" | "AuditSummary" | "AuditVerify" => ("", Value::Null, None),
        "Profile" => ("p", Value::Null, None),
        "ProfileTest" => ("p", json!({}), None),
        "AuditEntry" => ("1", Value::Null, None),
        "Operator" => ("", proof, None),
        "ApprovalAnswer" => {
            ("7K2M9QXT", json!({"digest": "0".repeat(64), "decision": "deny"}), Some("approval.unknown"))
        }
        "GrantAdd" => ("", granted, None),
        "GrantEdit" => (grant, granted, None),
        "GrantRevoke" => (grant, Value::Null, None),
        "Init" => ("", json!({"passphrase": "another good passphrase"}), Some("vault.exists")),
        "Unlock" => ("", json!({"proof": proof}), None),
        "SlotAdd" => ("", json!({"kind": "recovery", "proof": proof}), None),
        "SlotRemove" => ("", json!({"slot": "recovery", "proof": proof}), None),
        "Backup" => ("", json!({"path": file("backup")}), None),
        "Restore" => ("", json!({"path": file("backup"), "proof": proof}), Some("vault.exists")),
        "SecretPut" => ("new", json!({"secret": "one"}), None),
        "SecretReveal" => ("new", proof, None),
        "SecretRemove" => ("new", Value::Null, None),
        "ProfileAdd" => ("", json!({"name": "added", "toml": toml}), None),
        "ProfileEdit" => ("added", json!({"name": "added", "toml": toml, "proof": proof}), None),
        "ProfileRemove" => ("added", Value::Null, None),
        "ProfileRenew" => ("p", Value::Null, None),
        "ProfileReveal" => ("p", proof, None),
        "LauncherAdd" => ("", launcher, None),
        "LauncherEdit" => ("A%20%2F%20b", launcher, None),
        "LaunchExpect" => ("a%20%2f%20B", json!({"path": "/bin/true"}), None),
        "LauncherRemove" => ("A%20%2F%20b", Value::Null, None),
        "SettingsPut" => ("", json!({"auto_lock_s": 600, "proof": proof}), None),
        "RunStart" => {
            ("", json!({"profiles": ["p"], "command": command, "variables": ["HOME"], "dry_run": true}), None)
        }
        "RunAbort" => ("00000000-0000-7000-8000-000000000000", Value::Null, Some("run.unknown")),
        "Token" => ("", json!({"profile": "p"}), None),
        "Revoke" => ("", json!({"target": "p"}), None),
        "AuditExport" => ("", json!({"proof": proof}), None),
        "AuditAcceptBreak" => ("", json!({"reason": "r", "proof": proof}), Some("audit.not_broken")),
        "Rekey" => ("", json!({"proof": proof, "new_passphrase": PASSPHRASE}), None),
        "Lock" => ("", Value::Null, None),
        _ => return None,
    };
    Some((part.to_owned(), body, refused))
}

fn send(home: &Home, method: &str, path: &str, body: &Value) -> Reply {
    send_on(&mut Wire::open(&home.socket()), method, path, body)
}

fn send_on(wire: &mut Wire, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    wire.send(method, path, &["keyward-api: 1", "content-type: application/json"], &body);
    wire.reply().unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// Operations in an order in which each can be done: what ends something comes last.
fn rank(id: &str) -> u8 {
    match id {
        // The rest is asked on the connection on which a person has proven the passphrase.
        "Operator" => 0,
        "SecretReveal" | "SlotRemove" | "Restore" | "ProfileEdit" | "LauncherEdit" | "LaunchExpect" | "GrantEdit" => 2,
        "SecretRemove" | "ProfileRemove" | "LauncherRemove" | "GrantRevoke" => 3,
        "Rekey" => 4,
        "Lock" => 5,
        _ => 1,
    }
}

#[test]
fn every_operation_answers_as_the_document_says() {
    let (home, document) = (Home::with_vault(), document());
    home.static_profile("p", "s3cret", "T");
    let run = waiting_run(&home, "p");
    let mut all = operations(&document);
    all.sort_by_key(|o| rank(&o.id));
    let (mut asked, mut grant, mut wire) = (0, String::new(), Wire::open(&home.socket()));
    for operation in &all {
        let Some((part, body, refused)) = request(&operation.id, &home, &grant) else {
            assert!(matches!(operation.id.as_str(), "Events" | "BrokerStop"), "{} is not tried", operation.id);
            continue;
        };
        asked += 1;
        let path = match operation.path.split_once('{') {
            Some((head, tail)) => format!("{head}{part}{}", tail.split_once('}').unwrap().1),
            None => operation.path.clone(),
        };
        let reply = send_on(&mut wire, &operation.method, &path, &body);
        if operation.id == "GrantAdd" {
            grant = reply.json()["grant"].as_str().unwrap_or_default().to_owned();
        }
        let about = format!("{}: {} {}", operation.id, reply.status, String::from_utf8_lossy(&reply.body));
        assert_eq!(reply.field("cache-control"), Some("no-store"), "{about}");
        match (&operation.answer, refused) {
            (_, Some(code)) => {
                assert_eq!((reply.status, &reply.json()["code"]), (400, &code.into()), "{about}");
                assert_eq!(mismatch(&document, &json!({"$ref": "#/components/schemas/Fault"}), &reply.json()), None);
            }
            (Some(schema), None) => {
                assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/json")), "{about}");
                assert_eq!(mismatch(&document, schema, &reply.json()), None, "{about}");
            }
            (None, None) if operation.id == "AuditExport" => {
                assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/jsonl")), "{about}");
                let text = String::from_utf8(reply.body).unwrap();
                assert!(text.lines().last().unwrap().starts_with("{\"trailer\":"), "{text}");
            }
            (None, None) => assert_eq!((reply.status, reply.body.len()), (204, 0), "{about}"),
        }
    }
    assert_eq!(asked, all.len() - 2);
    let stop = send(&home, "POST", "/v1/broker/stop", &Value::Null);
    assert_eq!(stop.status, 204);
    drop(run);
}

#[test]
fn what_is_no_route_is_a_fault() {
    let home = Home::with_vault();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v2/status"),
        ("POST", "/v1/status"),
        ("DELETE", "/v1/profiles"),
        ("GET", "/v1/profiles/"),
        ("GET", "/v1/profiles/a/b"),
        ("GET", "/v1/profiles/..%2f..%2fstatus"),
        ("PATCH", "/v1/secrets/x"),
        ("GET", "/v1/audit/entries/one"),
        ("GET", "/v1/audit/entries/-1"),
        ("GET", "/v1/audit/entries/99999999999999999999999"),
        ("GET", "/v1/audit?nonsense=1"),
        ("GET", "/v1/audit?limit=0"),
        ("GET", "/v1/audit?limit=1001"),
        ("GET", "/v1/audit?before=5&after=1"),
        ("GET", "/v1/audit?since=yesterday"),
        ("GET", "/v1/audit?outcome=maybe"),
        ("GET", "/v1/audit?kind=%00"),
        ("TRACE", "/v1/status"),
    ] {
        let reply = send(&home, method, path, &Value::Null);
        let fault = reply.json();
        assert_eq!(reply.status, 400, "{method} {path}: {fault}");
        assert!(fault["code"] == "request.invalid" || fault["code"] == "name.invalid", "{method} {path}: {fault}");
    }
    let mut wire = Wire::open(&home.socket());
    // Its answer has no body, whatever the length says (RFC 9110 section 9.3.2).
    wire.send("HEAD", "/v1/status", &[], b"");
    assert_eq!(wire.head().map(|r| r.status), Some(400));
}

#[test]
fn another_version_is_told_so() {
    let home = Home::with_vault();
    for version in ["2", "0", "", "1.0", "one", "11"] {
        let field = format!("keyward-api: {version}");
        let reply = Wire::once(&home.socket(), "GET", "/v1/status", &[&field], b"").unwrap();
        let fault = reply.json();
        assert_eq!((reply.status, &fault["code"], &fault["exit"]), (409, &"broker.version".into(), &5.into()));
        assert!(fault["help"].as_str().unwrap().contains("keyward broker restart"), "{fault}");
    }
    for fields in [&["keyward-api: 1"][..], &[]] {
        assert_eq!(Wire::once(&home.socket(), "GET", "/v1/status", fields, b"").unwrap().status, 200);
    }
}

#[test]
fn one_connection_serves_many_requests_and_a_bad_one_does_not_end_it() {
    let home = Home::with_vault();
    let mut wire = Wire::open(&home.socket());
    for n in 0..200 {
        let (path, want) = if n % 3 == 0 { ("/v1/nothing", 400) } else { ("/v1/status", 200) };
        wire.send("GET", path, &[], b"");
        assert_eq!(wire.reply().map(|r| r.status), Some(want), "request {n}");
    }
    // Two at once are answered in their order (RFC 9112 section 9.3.2).
    wire.send("GET", "/v1/status", &[], b"");
    wire.send("GET", "/v1/nothing", &[], b"");
    assert_eq!((wire.reply().unwrap().status, wire.reply().unwrap().status), (200, 400));
}
