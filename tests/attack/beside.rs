//! From beside: what an agent may that was started bare, in the very terminal in which the person has unlocked.
//!
//! What it starts lies below the shell and is a requester. It itself is a direct child of the shell, and for a while runs and
//! takes what the person does there without being asked; everything else asks it for the passphrase.

use crate::{api, beside, operator, peer, waiting};
use keyward_testkit::{Home, PASSPHRASE, Wire, run, wait_for};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

const VALUE: &str = "v4lue-of-each-secret";

/// What a requester tries with the error and the exit code; nobody is there to ask.
const TRIES: &[(&str, &str, i32)] = &[
    ("echo x | keyward secret set other", "policy.denied", 4),
    ("keyward secret remove other", "policy.denied", 4),
    ("keyward secret reveal other", "passphrase.needed", 4),
    ("keyward profile edit held --from edit.toml", "passphrase.needed", 4),
    ("keyward profile remove other", "policy.denied", 4),
    ("keyward profile test other", "policy.denied", 4),
    ("keyward launcher edit tool -- false", "passphrase.needed", 4),
    ("keyward launcher remove tool", "policy.denied", 4),
    ("keyward launch tool", "approval.needed", 125),
    ("keyward run -p held -- printenv HELD", "approval.needed", 125),
    ("keyward token held", "approval.needed", 4),
    ("keyward grant add --profile held", "passphrase.needed", 4),
    ("keyward grant edit $GRANT --for 24h", "passphrase.needed", 4),
    ("keyward approve $CARD", "passphrase.needed", 4),
    ("keyward vault rekey", "passphrase.needed", 4),
    ("keyward vault slot add recovery", "passphrase.needed", 4),
    ("keyward vault slot remove recovery", "passphrase.needed", 4),
    ("keyward vault restore copy --replace", "passphrase.needed", 4),
    ("keyward audit export", "passphrase.needed", 4),
    ("keyward audit accept-break --reason x", "passphrase.needed", 4),
];

/// A vault with two profiles, a launcher, a backup, and a grant that fits nothing that is tried.
fn prepared() -> (Home, String) {
    let home = Home::with_vault();
    home.static_profile("held", VALUE, "HELD");
    home.static_profile("other", VALUE, "OTHER");
    home.keyward(&["launcher", "add", "tool", "-p", "held", "--", "true"]).exits(0);
    home.keyward(&["vault", "backup", home.root.join("copy").to_str().unwrap()]).exits(0);
    let edit = "[issuer]\nkind = \"static\"\nsecret = \"secret:other\"\n[delivery]\nenv = { HELD = \"token\" }\n";
    std::fs::write(home.root.join("edit.toml"), edit).unwrap();
    let grant = home.grant(&["--profile", "other", "--app", "/usr/bin/id"])["grant"].as_str().unwrap().to_owned();
    (home, grant)
}

/// What can be seen of the vault that must not change.
fn state(home: &Home) -> Value {
    let seen = |path: &str| api(home, "GET", path, &Value::Null);
    let grants = home.keyward(&["grant", "list", "--json"]).exits(0).json();
    json!([
        seen("/v1/secrets"),
        seen("/v1/profiles"),
        seen("/v1/launchers"),
        seen("/v1/settings"),
        seen("/v1/vault/slots"),
        grants
    ])
}

#[test]
fn an_agent_in_the_unlocked_terminal_does_nothing_of_the_person() {
    let (home, grant) = prepared();
    let before = state(&home);
    // A request that the agent would like to answer.
    beside(&home, "keyward token other").exits(4).says("approval.needed");
    let card = waiting(&home).remove(0);
    let id = card["id"].as_str().unwrap();
    for (line, code, exit) in TRIES {
        let tried = beside(&home, &format!("GRANT={grant} CARD={id}; {line}"));
        assert!(tried.exit == *exit && tried.err.contains(&format!("[{code}]")), "{line}: {tried:?}");
        assert!(!tried.out.contains(VALUE) && !tried.err.contains(VALUE), "{line}: {tried:?}");
    }
    // By the socket, with a proof that is none.
    let wrong = json!({"passphrase": "wrong horse battery staple 42"});
    let (key, settings) = (json!({"recovery": "AGE-SECRET-KEY-1"}), json!({"auto_lock_s": 0}));
    let allow = |more: &Value| {
        let mut body = json!({"digest": card["digest"], "decision": "once"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let profile = json!({"name": "held", "toml": std::fs::read_to_string(home.root.join("edit.toml")).unwrap()});
    for (method, path, body) in [
        ("POST", "/v1/operator".to_owned(), json!({})),
        ("POST", "/v1/operator".to_owned(), wrong.clone()),
        ("POST", "/v1/operator".to_owned(), key),
        ("POST", format!("/v1/approvals/{id}"), allow(&json!({}))),
        ("POST", format!("/v1/approvals/{id}"), allow(&json!({"proof": wrong}))),
        ("POST", "/v1/grants".to_owned(), json!({"profile": "held"})),
        ("POST", "/v1/grants".to_owned(), json!({"profile": "held", "proof": wrong})),
        ("PUT", format!("/v1/grants/{grant}"), json!({"profile": "held", "for_s": 86_400})),
        ("PUT", "/v1/settings".to_owned(), settings),
        ("PUT", "/v1/profiles/held".to_owned(), profile),
        ("POST", "/v1/profiles/held/reveal".to_owned(), wrong.clone()),
        ("POST", "/v1/secrets/held/reveal".to_owned(), wrong),
        ("DELETE", "/v1/secrets/held".to_owned(), Value::Null),
        ("DELETE", "/v1/profiles/held".to_owned(), Value::Null),
        ("DELETE", "/v1/launchers/tool".to_owned(), Value::Null),
        ("POST", "/v1/profiles/held/renew".to_owned(), Value::Null),
        ("POST", "/v1/token".to_owned(), json!({"profile": "held"})),
    ] {
        let said = api(&home, method, &path, &body);
        assert!(said["code"].is_string() && !said.to_string().contains(VALUE), "{method} {path} {body}: {said}");
    }
    assert_eq!(state(&home), before);
    let kinds = home.audit_kinds();
    let done = |kind: &&String| {
        ["operator.proven", "approval.answered", "credential.delivered", "token.delivered", "credential.revealed"]
            .contains(&kind.as_str())
    };
    assert_eq!(kinds.iter().find(done), None, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "grant.added").count(), 1);
}

#[test]
fn an_agent_that_the_unlocked_shell_has_started_is_asked_for_the_passphrase_for_all_but_use() {
    let (home, grant) = prepared();
    let (peer, socket) = (peer(&home), home.socket());
    let before = state(&home);
    // A direct child, as an agent is that was typed into the shell, and its own connection.
    let says = |method: &str, path: &str, body: &Value| {
        let mut agent = home.command(&peer);
        agent.arg("ask").arg(&socket).args(["1", method, path, &body.to_string()]);
        run(agent, b"").exits(0).out
    };
    // The limit: it takes what the person would get there without being asked.
    let token = says("POST", "/v1/token", &json!({"profile": "held"}));
    assert!(token.starts_with("200 1\n") && token.contains(VALUE), "{token}");
    beside(&home, "keyward token other").exits(4).says("approval.needed");
    let card = waiting(&home).remove(0);
    let allow = json!({"digest": card["digest"], "decision": "once"});
    let profile = json!({"name": "held", "toml": std::fs::read_to_string(home.root.join("edit.toml")).unwrap()});
    for (method, path, body) in [
        ("POST", format!("/v1/approvals/{}", card["id"].as_str().unwrap()), allow),
        ("POST", "/v1/grants".to_owned(), json!({"profile": "held"})),
        ("PUT", format!("/v1/grants/{grant}"), json!({"profile": "other"})),
        ("PUT", "/v1/profiles/held".to_owned(), profile),
        ("PUT", "/v1/settings".to_owned(), json!({"auto_lock_s": 0})),
        ("POST", "/v1/secrets/held/reveal".to_owned(), json!({})),
        ("POST", "/v1/profiles/held/reveal".to_owned(), json!({})),
        ("POST", "/v1/operator".to_owned(), json!({})),
        ("POST", "/v1/audit/export".to_owned(), json!({})),
        ("POST", "/v1/vault/slots".to_owned(), json!({"kind": "recovery"})),
    ] {
        let said = says(method, &path, &body);
        assert!(said.starts_with('4') && !said.contains(VALUE), "{method} {path}: {said}");
        assert!(
            ["passphrase.needed", "request.invalid"].iter().any(|code| said.contains(code)),
            "{method} {path}: {said}"
        );
    }
    assert_eq!(state(&home), before);
    // A lock ends it at once.
    home.keyward(&["lock"]).exits(0);
    home.stop_broker();
    beside(&home, &format!("echo '{PASSPHRASE}' | keyward unlock --passphrase-stdin")).exits(0);
    let token = says("POST", "/v1/token", &json!({"profile": "held"}));
    assert!(token.starts_with("403 1\n") && token.contains("approval.needed"), "{token}");
}

#[test]
fn who_starts_a_command_in_a_session_of_its_own_is_no_shell() {
    let home = Home::with_vault();
    let role = || home.keyward(&["status", "--json"]).exits(0).json()["me"]["role"].clone();
    assert_eq!(role(), "shell");
    home.keyward(&["lock"]).exits(0);
    // As a terminal emulator, tmux or the service manager starts `keyward unlock`: and everything else that anybody asks for.
    let mut unlock = home.command("setsid");
    unlock.args(["keyward", "unlock", "--passphrase-stdin"]);
    run(unlock, PASSPHRASE.as_bytes()).exits(0);
    assert_eq!(role(), "requester");
    home.unlock();
    assert_eq!(role(), "shell");
}

#[test]
fn the_connection_of_an_operator_serves_nobody_else() {
    let home = Home::with_vault();
    home.static_profile("held", VALUE, "HELD");
    let role = |wire: &mut Wire| {
        wire.send("GET", "/v1/me", &[], b"");
        wire.reply().map(|reply| reply.json()["role"].clone())
    };
    let mut person = operator(&home);
    assert_eq!(role(&mut person), Some("operator".into()));
    // Another connection of the very process is none.
    assert_eq!(role(&mut Wire::open(&home.socket())), Some("requester".into()));
    // Proven on a connection that a child holds, too: what the child sends closes it.
    let stream = UnixStream::connect(home.socket()).unwrap();
    let mut lent = Wire::over(stream.try_clone().unwrap());
    lent.send("POST", "/v1/operator", &[], json!({"passphrase": PASSPHRASE}).to_string().as_bytes());
    assert_eq!(lent.reply().unwrap().status, 200);
    assert_eq!(role(&mut lent), Some("operator".into()));
    let mut child = home.command(peer(&home));
    child.args(["ask", "-", "1", "POST", "/v1/token", r#"{"profile":"held"}"#]);
    let child = child.stdin(OwnedFd::from(stream)).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8(child.stdout).unwrap(), "closed 1\n");
    assert_eq!(role(&mut lent), None, "it is over for the operator, too");
    // The process becomes another program with the connection: it stays the same process, until that is a run.
    let (peer, keyward) = (peer(&home), home.bin().join("keyward"));
    home.grant(&["--profile", "held"]);
    let mut run_of = home.command("sh");
    let line = r#""$0" exec "$1" "$2" run -p held -- "$0" ask - 1 POST /v1/operator '{"passphrase": "x"}'; exit $?"#;
    run_of.args(["-c", line]).arg(&peer).arg(home.socket()).arg(&keyward);
    assert_eq!(run(run_of, b"").exits(0).out, "closed 1\n");
    // Locking ends the rights of the one that is left.
    assert_eq!(role(&mut person), Some("operator".into()));
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    wait_for("the end of its rights", || match role(&mut person) {
        None => true,
        Some(role) => role != "operator",
    });
}
