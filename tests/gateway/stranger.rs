//! A token is worth nothing outside of its run.

use crate::{Upstream, ask, call, call_by, entries, home, profile, shell};
use keyward_testkit::{Home, is_root, run};
use std::os::unix::process::CommandExt;

/// Two users that are nobody else.
const USER: u32 = 61_742;
const STRANGER: u32 = 61_743;

#[test]
fn another_user_is_closed_before_a_byte_is_read() {
    if !is_root("stranger::another_user_is_closed_before_a_byte_is_read") {
        return;
    }
    let (mut home, upstream) = (Home::new(), Upstream::start());
    home.act_as(USER);
    home.init();
    home.secret("k", crate::KEY);
    // Not even where processes that the broker cannot see may call.
    profile(&home, &upstream, "k", "[gateway]\ncontainers = true\n");
    let mut child = shell(&home, "k");
    let (base, token) = (ask(&mut child, "echo $ANTHROPIC_BASE_URL"), ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN"));
    for uid in [STRANGER, 0] {
        let mut command = home.command("curl");
        command.args(["-s", "-w", "%{http_code}", "-m", "20", "-d", "{}", "-H", &format!("x-api-key: {token}")]);
        command.arg(format!("{base}/v1/messages")).current_dir("/").uid(uid).gid(uid);
        let refused = run(command, b"");
        // 52: nothing came; 56: the connection was reset.
        assert!(refused.out == "000" && matches!(refused.exit, 52 | 56), "{uid}: {refused:?}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#, "the user's own run goes on");
}

#[test]
fn a_process_outside_of_the_run_is_refused_with_its_token() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    let (base, token) = (ask(&mut child, "echo $ANTHROPIC_BASE_URL"), ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN"));
    let refused = call_by(&home, &base, &token);
    assert!(refused.ends_with(" 403") && refused.contains("gateway.caller_outside"), "{refused}");
    assert!(upstream.seen().is_empty());
    let entry = &entries(&home, "gateway.refused", 1)[0];
    assert_eq!((&entry["profile"], &entry["detail"]["code"]), (&"k".into(), &"gateway.caller_outside".into()));
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#, "the run itself goes on");
}

#[test]
fn a_process_of_another_run_is_refused_with_its_token() {
    let (home, upstream) = home();
    profile(&home, &upstream, "other", "");
    let (mut child, mut other) = (shell(&home, "k"), shell(&home, "other"));
    let token = ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN");
    let own = ask(&mut other, "echo $ANTHROPIC_AUTH_TOKEN");
    assert_ne!(token, own);
    // Whoever has read it out of the environment of the other run is no part of that.
    ask(&mut other, &format!("ANTHROPIC_AUTH_TOKEN={token}; echo"));
    let refused = call(&mut other);
    assert!(refused.ends_with(" 403") && refused.contains("gateway.caller_outside"), "{refused}");
    assert!(upstream.seen().is_empty());
    assert_eq!(entries(&home, "gateway.refused", 1)[0]["profile"], "k", "it stands under the run of the token");
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    ask(&mut other, &format!("ANTHROPIC_AUTH_TOKEN={own}; echo"));
    assert_eq!(call(&mut other), r#"{"ok":true} 200"#);
}

#[test]
fn a_profile_may_let_containers_in() {
    let (home, upstream) = home();
    profile(&home, &upstream, "open", "[gateway]\ncontainers = true\n");
    let mut child = shell(&home, "open");
    let (base, token) = (ask(&mut child, "echo $ANTHROPIC_BASE_URL"), ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN"));
    assert_eq!(call_by(&home, &base, &token), r#"{"ok":true} 200"#);
    assert_eq!(entries(&home, "credential.used", 1)[0]["detail"]["process"], "unknown");
}

#[test]
fn a_token_that_never_was_is_refused_and_counted() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    let base = ask(&mut child, "echo $ANTHROPIC_BASE_URL");
    let guess = format!("kwr_{}", "A".repeat(43));
    for _ in 0..5 {
        let refused = call_by(&home, &base, &guess);
        assert!(refused.ends_with(" 401") && refused.contains("gateway.token_unknown"), "{refused}");
    }
    assert!(upstream.seen().is_empty());
    let counted = || {
        let all = home.audit().into_iter().filter(|e| e["kind"] == "gateway.refused");
        all.map(|e| e["detail"]["count"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    keyward_testkit::wait_for("five refusals", || counted().iter().sum::<u64>() == 5);
    assert!(counted().len() < 5, "they are counted, not listed: {:?}", counted());
}
