//! A run that lost its lease is refused from that moment, and what is under way is cut.

use crate::{Upstream, ask, call, entries, home, shell};
use keyward_testkit::{Home, Talk, wait_for};

/// Begins a stream in the background of the shell; its output and exit code go to files.
fn stream(home: &Home, child: &mut Talk) {
    let line = "(curl -sN -d '{\"stream\":true}' -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" \"$ANTHROPIC_BASE_URL/v1/messages\" >events; echo $? >ended) & echo begun";
    assert_eq!(ask(child, line), "begun");
    wait_for("the first event", || {
        std::fs::read_to_string(home.root.join("events")).is_ok_and(|text| text.contains("an event"))
    });
}

/// Waits until the stream has ended; gives the exit code of its client.
#[track_caller]
fn ended(home: &Home, upstream: &Upstream) -> String {
    let mut code = String::new();
    wait_for("the end of the stream", || {
        code = std::fs::read_to_string(home.root.join("ended")).unwrap_or_default();
        !code.is_empty()
    });
    wait_for("the end at the API", || upstream.broken() == 1);
    code.trim().to_owned()
}

/// Whether the log has a call that was cut: in one entry with its beginning, or in one of its own.
fn was_cut(home: &Home) -> bool {
    let all = home.audit();
    let mut uses = all.iter().flat_map(|e| e["detail"]["uses"].as_array().into_iter().flatten());
    uses.any(|one| one["ended"].as_str().is_some_and(|text| text.starts_with("cut")))
}

#[test]
fn a_revoke_cuts_what_is_under_way_and_refuses_the_next_call() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    stream(&home, &mut child);
    home.keyward(&["revoke", "k"]).exits(0);
    let refused = call(&mut child);
    assert!(refused.ends_with(" 403") && refused.contains("lease.revoked"), "{refused}");
    assert!(
        refused.contains("permission_error") && refused.contains("keyward run"),
        "in the API's own shape: {refused}"
    );
    assert_ne!(ended(&home, &upstream), "0", "the client sees that the stream broke off");
    wait_for("the end in the log", || was_cut(&home));
    let refusal = &entries(&home, "gateway.refused", 1)[0];
    assert_eq!((&refusal["outcome"], &refusal["detail"]["code"]), (&"refused".into(), &"lease.revoked".into()));
    assert_eq!((&refusal["profile"], refusal["run"].is_string()), (&"k".into(), true));
    assert_eq!(refusal["detail"]["what"], "POST /v1/messages", "what was tried with the former token");
}

#[test]
fn a_lock_cuts_what_is_under_way_and_its_end_is_recorded() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    stream(&home, &mut child);
    home.keyward(&["lock"]).exits(0);
    let refused = call(&mut child);
    assert!(refused.ends_with(" 403") && refused.contains("lease.revoked"), "{refused}");
    assert_ne!(ended(&home, &upstream), "0");
    home.unlock();
    let refused = call(&mut child);
    assert!(refused.ends_with(" 403") && refused.contains("lease.revoked"), "an unlock gives nothing back: {refused}");
    assert!(was_cut(&home), "it was recorded before the log was closed");
}

#[test]
fn a_call_that_is_under_way_ends_with_its_run() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    stream(&home, &mut child);
    child.send(b"exit 3\n");
    child.end().exits(3);
    // The client lives on as an orphan; what it holds is over.
    assert_ne!(ended(&home, &upstream), "0");
    entries(&home, "run.ended", 1);
}
