//! A credential that its issuer takes back (RFC 7009): after a revoke, a lock, and with the last run that held it. The endpoint
//! is the sandbox's.

use crate::{ask, entries};
use keyward_testkit::{Home, Sandbox, Talk};
use serde_json::Value;

/// A home with the profile `g`, whose credentials the sandbox gives and takes back.
fn home() -> (Home, Sandbox) {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &["--life", "10m"]);
    home.secret("login", &std::fs::read_to_string(sandbox.said("google_authorized_user_file")).unwrap());
    let toml = format!(
        "[issuer]\nkind = \"google-authorized-user\"\ncredentials = \"secret:login\"\ntoken_url = \"{}\"\nregion = \"us-east5\"\n\
         base_url = \"{}\"\nrevocation_endpoint = \"{}\"\n",
        sandbox.said("google_token_url"),
        sandbox.said("base_url"),
        sandbox.said("revocation_endpoint"),
    );
    home.profile("g", &toml);
    (home, sandbox)
}

/// A shell in a run of the profile, after one call.
fn shell(home: &Home) -> Talk {
    let mut child = Talk::start(home.keyward_command(&["run", "-p", "g", "--", "sh"]));
    assert_eq!(call(&mut child), "200");
    child
}

/// The status of one call.
fn call(child: &mut Talk) -> String {
    let body =
        r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":8,"messages":[{"role":"user","content":"hello"}]}"#;
    // The run token is in the file that Google's clients read.
    let token = r#"$(tr ',' '\n' <"$GOOGLE_APPLICATION_CREDENTIALS" | sed -n 's/.*"run_token":"\([^"]*\)".*/\1/p')"#;
    ask(
        child,
        &format!(
            "curl -s -o /dev/null -w '%{{http_code}}\\n' -m 20 -H \"authorization: Bearer {token}\" -H 'content-type: application/json' -d '{body}' \"$ANTHROPIC_VERTEX_BASE_URL/projects/$ANTHROPIC_VERTEX_PROJECT_ID/locations/us-east5/publishers/anthropic/models/m:rawPredict\""
        ),
    )
}

/// The outcomes in the log, once there are so many.
#[track_caller]
fn outcomes(home: &Home, n: usize) -> Vec<(Value, Value)> {
    let taken = entries(home, "credential.revoked", n);
    taken.into_iter().map(|e| (e["outcome"].clone(), e["detail"]["outcome"].clone())).collect()
}

#[test]
fn the_issuer_ends_what_a_revoke_a_lock_and_the_last_run_leave_behind() {
    let (home, sandbox) = home();
    let done = (Value::from("ok"), Value::from("done"));
    let mut child = shell(&home);
    home.keyward(&["revoke", "g"]).exits(0);
    assert_eq!(outcomes(&home, 1).first(), Some(&done));
    assert_eq!((sandbox.count("revocations"), sandbox.count("live")), (1, 0));
    assert_eq!(call(&mut child), "401", "the file with its run token is gone");

    let mut first = shell(&home);
    let mut second = shell(&home);
    first.send(b"exit 0\n");
    first.end().exits(0);
    assert_eq!((call(&mut second), sandbox.count("revocations")), ("200".to_owned(), 1), "another run holds it");
    home.keyward(&["lock"]).exits(0);
    sandbox.wait("revocations", 2);
    home.unlock();
    assert_eq!(
        outcomes(&home, 2),
        [done.clone(), done.clone()],
        "what a lock has ended is recorded once it is open again"
    );

    let mut third = shell(&home);
    third.send(b"exit 0\n");
    third.end().exits(0);
    assert_eq!(outcomes(&home, 3).last(), Some(&done), "the last run that held it is over");
    assert_eq!((sandbox.count("revocations"), sandbox.count("live")), (3, 0));
    for mut shell in [child, second] {
        shell.send(b"exit 0\n");
        shell.end().exits(0);
    }
    assert_eq!(sandbox.count("revocations"), 3, "nothing is ended twice");
    home.keyward(&["audit", "verify"]).exits(0);
}

#[test]
fn what_the_issuer_does_not_take_back_is_recorded_as_live() {
    let (home, sandbox) = home();
    let mut child = shell(&home);
    sandbox.fail("revoke", "503", 0);
    home.keyward(&["revoke", "g"]).exits(0);
    let failed = &entries(&home, "credential.revoked", 1)[0];
    assert_eq!((&failed["outcome"], &failed["detail"]["outcome"]), (&"failed".into(), &"failed".into()), "{failed}");
    assert_eq!(failed["profile"], "g");
    assert!(failed["detail"].to_string().contains("503"), "{failed}");
    assert_eq!((sandbox.count("revocations"), sandbox.count("live")), (0, 1), "it lives on until its own end");
    assert_eq!(call(&mut child), "401", "the run has lost it all the same");
    sandbox.clear();

    let second = shell(&home);
    sandbox.fail("revoke", "reset", 0);
    let mut second = second;
    second.send(b"exit 0\n");
    second.end().exits(0);
    assert_eq!(entries(&home, "credential.revoked", 2)[1]["outcome"], "failed", "at the end of a run too");
    sandbox.clear();
    child.send(b"exit 0\n");
    child.end().exits(0);
}

#[test]
fn what_nobody_takes_back_is_named_where_it_is_asked_for_and_not_at_the_end_of_each_run() {
    let (home, upstream) = crate::home();
    let program = r#"printf '{"token":"t","expires_in":600}'"#;
    let toml = format!(
        "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"-c\", {program:?}]\n[gateway]\nprovider = \"anthropic\"\nbase_url = \"http://127.0.0.1:{}\"\n",
        upstream.port
    );
    home.profile("c", &toml);
    for _ in 0..2 {
        home.keyward(&["run", "-p", "c", "--", "true"]).exits(0);
    }
    let mut child = crate::shell(&home, "c");
    home.keyward(&["revoke", "c"]).exits(0);
    let named = &entries(&home, "credential.revoked", 1)[0];
    assert_eq!(named["detail"]["outcome"], "impossible", "{named}");
    assert!(named["detail"]["why"].as_str().unwrap().contains("ends by itself"), "{named}");
    child.send(b"exit 0\n");
    child.end().exits(0);
}
