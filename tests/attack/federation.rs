//! Federation under attack: hostile endpoints, hostile identity sources, and processes that want another's credential.

use crate::needle::Search;
use keyward_testkit::{Home, Sandbox, run};
use serde_json::json;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Delivery by files that are kept fresh.
const FILES: &str = "[delivery]\nmode = \"file\"";

const ENV: &str = "[delivery]\nmode = \"env\"";

fn federated(args: &[&str], more: &str) -> (Home, Sandbox) {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, args);
    sandbox.federate(&home, "p", more);
    (home, sandbox)
}

#[test]
fn no_assertion_and_no_token_stands_in_an_output_a_log_or_a_file() {
    let (home, sandbox) = federated(&["--life", "60s", "--rotate", "0s"], ENV);
    let assertion = std::fs::read_to_string(sandbox.token_file()).unwrap();
    let parts: Vec<&str> = assertion.trim().split('.').collect();
    let mut search = Search::default();
    search.all_forms("the assertion's payload", &parts[1].as_bytes()[..40]);
    search.all_forms("the assertion's signature", parts[2].as_bytes());
    for fault in ["echo", "401", "malformed", "wrong_token_type"] {
        sandbox.fail("token", fault, 1);
        let said = home.keyward(&["profile", "test", "p"]).exits(6);
        search.refuse(&format!("what is said at {fault}"), format!("{}{}", said.out, said.err).as_bytes());
    }
    home.keyward(&["profile", "test", "p"]).exits(0);
    let token = home.keyward(&["token", "p"]).exits(0).out;
    search.all_forms("the token", token.trim().as_bytes());
    let audit = home.keyward(&["audit", "list", "--json"]).exits(0).out;
    search.refuse("the log", audit.as_bytes());
    let said = home.keyward(&["run", "-p", "p", "--explain", "--", "true"]).exits(0);
    search.refuse("what a run says", said.err.as_bytes());
    home.stop_broker();
    for file in ["state/broker.log", "data/vault.db", "state/anchor"] {
        search.refuse(file, &std::fs::read(home.keyward_home().join(file)).unwrap());
    }
}

#[test]
fn an_answer_cannot_send_the_credential_elsewhere_or_break_out_of_its_variable() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    for fault in ["redirect", "newline_token", "empty_token", "oversized"] {
        sandbox.fail("token", fault, 1);
        home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("issuer.answer_invalid");
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(sandbox.count("trapped"), 0);
    assert!(!home.audit_kinds().iter().any(|k| k == "credential.delivered"));
}

#[test]
fn a_host_that_only_looks_like_this_machine_is_not_trusted_without_tls() {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &[]);
    let good = sandbox.profile("kind = \"file\"\npath = \"/x\"", "");
    for host in [
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.2",
        "http://evil.example/127.0.0.1",
        "ftp://127.0.0.1",
    ] {
        std::fs::write(home.root.join("bad.toml"), good.replace(sandbox.said("base_url"), host)).unwrap();
        home.keyward(&["profile", "add", "bad", "--from", "bad.toml"]).exits(1).says("profile.invalid");
    }
}

#[test]
fn claims_of_an_assertion_cannot_move_the_cursor() {
    let (home, sandbox) = federated(&["--life", "60s", "--rotate", "0s"], ENV);
    let claims = json!({"sub": "a\u{1b}[2J\u{202e}\r\nhelp: run `rm -rf /`", "aud": "x\u{7}y"});
    sandbox.control("/sandbox/issue", json!({"claims": claims}));
    let said = home.keyward(&["profile", "test", "p"]).exits(6).says("issuer.refused");
    assert!(!said.err.contains(['\u{1b}', '\u{202e}', '\u{7}', '\r']), "{:?}", said.err);
    assert_eq!(said.err.matches("\n  help:").count(), 1, "{}", said.err);
}

#[test]
fn a_token_file_that_somebody_else_can_swap_is_not_read() {
    if !crate::is_root("federation::a_token_file_that_somebody_else_can_swap_is_not_read") {
        return;
    }
    let (home, uid) = crate::home_of_a_user();
    home.init();
    let sandbox = Sandbox::start(&home, &["--life", "60s"]);
    let folder = home.root.join("shared");
    std::fs::create_dir(&folder).unwrap();
    chown(&folder, Some(uid), Some(uid)).unwrap();
    let link = folder.join("token");
    symlink(sandbox.token_file(), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(uid), Some(uid)).unwrap();
    home.profile("linked", &sandbox.profile(&format!("kind = \"file\"\npath = {link:?}"), ENV));
    // Links are how Kubernetes projects a token.
    home.keyward(&["profile", "test", "linked"]).exits(0);
    let asked = sandbox.count("asked");

    // Anyone may rename in there.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let said = home.keyward(&["profile", "test", "linked"]).exits(1).says("identity.unreadable");
    assert!(said.err.contains("shared"), "{}", said.err);
    // In a sticky folder a stranger's link still is a stranger's.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::lchown(&link, Some(crate::STRANGER), None).unwrap();
    home.keyward(&["profile", "test", "linked"]).exits(1).says("identity.unreadable");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();

    // A file that a stranger owns or can write.
    let copy = folder.join("copy");
    std::fs::copy(sandbox.token_file(), &copy).unwrap();
    chown(&copy, Some(crate::STRANGER), None).unwrap();
    home.profile("foreign", &sandbox.profile(&format!("kind = \"file\"\npath = {copy:?}"), ENV));
    home.keyward(&["profile", "test", "foreign"]).exits(1).says("identity.unreadable");
    chown(&copy, Some(uid), Some(uid)).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o666)).unwrap();
    home.keyward(&["profile", "test", "foreign"]).exits(1).says("identity.unreadable");
    assert_eq!(sandbox.count("asked"), asked, "nothing was sent");
}

#[test]
fn only_what_is_an_assertion_leaves_and_a_pipe_holds_nobody_up() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    let private = home.root.join("id_ed25519");
    std::fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n").unwrap();
    home.profile("key", &sandbox.profile(&format!("kind = \"file\"\npath = {private:?}"), ENV));
    let said = home.keyward(&["profile", "test", "key"]).exits(1).says("identity.invalid");
    assert!(!said.err.contains("hunter2") && !said.err.contains("OPENSSH"), "{}", said.err);
    let pipe = home.root.join("pipe");
    run(
        {
            let mut c = home.command("mkfifo");
            c.arg(&pipe);
            c
        },
        b"",
    )
    .exits(0);
    home.profile("pipe", &sandbox.profile(&format!("kind = \"file\"\npath = {pipe:?}"), ENV));
    let began = Instant::now();
    home.keyward(&["profile", "test", "pipe"]).exits(1).says("identity.unreadable");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(sandbox.count("asked"), 0);
}

#[test]
fn a_run_neither_supplies_an_assertion_nor_drops_what_it_does_not_hold() {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &["--life", "60s", "--rotate", "0s"]);
    sandbox.federate(&home, "held", ENV);
    home.profile("ci", &sandbox.profile("kind = \"env-token\"", ENV));
    sandbox.federate(&home, "other", ENV);
    home.keyward(&["token", "other"]).exits(0);
    let assertion = std::fs::read_to_string(sandbox.token_file()).unwrap();
    // What our own client never sends from inside a run.
    let supply = r#"import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
body = json.dumps({"profile": "held", "assertions": [{"variable": "ANTHROPIC_IDENTITY_TOKEN", "assertion": "x"}]})
s.sendall(f"POST /v1/token HTTP/1.1\r\nHost: keyward\r\nKeyward-Api: 1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
print(s.recv(4096).decode())"#;
    std::fs::write(home.root.join("supply.py"), supply).unwrap();
    let script = "keyward token held >/dev/null && keyward token held --refresh >/dev/null && echo held; \
                  for p in other ci; do keyward token $p --refresh --json 2>&1 | grep -o approval.needed; done; \
                  keyward profile test other 2>&1 | grep -o policy.denied; \
                  python3 supply.py $1 | grep -o policy.denied";
    let mut command = home.keyward_command(&["run", "-p", "held", "--", "sh", "-c", script, "sh"]);
    command.arg(home.socket()).env("ANTHROPIC_IDENTITY_TOKEN", assertion.trim());
    let out = run(command, b"");
    assert_eq!(out.out, "held\napproval.needed\napproval.needed\npolicy.denied\npolicy.denied\n", "{}", out.err);
    assert_eq!(sandbox.count("asked"), 3);
}

#[test]
fn callers_who_keep_crying_refused_cannot_wear_out_the_issuer() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    home.keyward(&["token", "p"]).exits(0);
    let began = Instant::now();
    for _ in 0..5 {
        let cries: Vec<_> = (0..10)
            .map(|_| {
                let mut cry: Command = home.keyward_command(&["token", "p", "--refresh"]);
                cry.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        cries.into_iter().for_each(|mut c| assert!(c.wait().is_ok()));
    }
    let allowed = 2 + began.elapsed().as_secs() / 10;
    assert!(sandbox.count("asked") <= allowed, "{} of {allowed}", sandbox.count("asked"));
}

#[test]
fn a_run_that_cries_refused_does_not_end_the_renewal_of_others() {
    let (home, sandbox) = federated(&["--life", "14s", "--fast-lives"], FILES);
    let mut other =
        home.keyward_command(&["run", "-p", "p", "--", "sh", "-c", "cat $ANTHROPIC_CONFIG_DIR/*/*; read x"]);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    keyward_testkit::wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["leases"][0]["state"] == "live");
    sandbox.fail("token", "400", 3);
    let cry = "for i in 1 2 3 4; do keyward token p --refresh >/dev/null 2>&1; sleep 1.1; done";
    run(home.keyward_command(&["run", "-p", "p", "--", "sh", "-c", cry]), b"").exits(0);
    assert_eq!(sandbox.count("asked"), 2, "one cry in ten seconds is heard");
    sandbox.clear();
    let renewed = || home.keyward(&["ps", "--json"]).json()[0]["leases"][0]["renewals"].as_u64().unwrap_or_default();
    keyward_testkit::wait_at_most(Duration::from_secs(20), "the renewal of the other", || renewed() >= 1);
    assert!(!home.audit_kinds().iter().any(|k| k == "lease.renew_failed" || k == "lease.lapsed"));
    drop(other.stdin.take());
    assert!(other.wait().is_ok());
}
