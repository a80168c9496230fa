//! One exchange for all who ask, renewed ahead of need, dropped when it was refused.

use crate::{ENV, FILES, ask, entries, federated, lease, shell, token};
use keyward_testkit::{wait_at_most, wait_for};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_hundred_at_once_make_one_exchange() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    let children: Vec<_> = (0..100)
        .map(|n| {
            let line: &[&str] = if n % 2 == 0 {
                &["run", "-p", "claude", "--", "sh", "-c", "echo $ANTHROPIC_AUTH_TOKEN"]
            } else {
                &["token", "claude"]
            };
            home.keyward_command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        seen.insert(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(seen.len(), 1);
    assert!(seen.first().unwrap().starts_with("sk-ant-oat01-"));
    assert_eq!(sandbox.count("asked"), 1);
    let made = entries(&home, "exchange.made");
    assert_eq!(made.len(), 1);
    let detail = &made[0]["detail"];
    assert!(detail["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{detail}");
    assert_eq!((&detail["scope"], &detail["expires_in_s"]), (&"workspace:developer".into(), &60.into()));
}

#[test]
fn what_a_run_holds_is_renewed_in_place_and_what_nobody_holds_is_not() {
    let (home, sandbox) = federated(&["--life", "6s", "--fast-lives"], FILES);
    token(&home, &[]).exits(0);
    let mut child = shell(&home);
    let folder = ask(&mut child, "echo $ANTHROPIC_CONFIG_DIR");
    let path = std::path::Path::new(&folder).join("credentials/keyward.json");
    let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap();
    let mut seen = vec![read()];
    wait_at_most(Duration::from_secs(30), "two renewals", || {
        let next = read();
        let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        assert!(next["expires_at"].as_i64().unwrap() > now, "an end that is over: {next} at {now}");
        if seen.last() != Some(&next) {
            seen.push(next);
        }
        seen.len() == 3
    });
    let mut tokens: Vec<_> = seen.iter().map(|c| c["access_token"].as_str().unwrap()).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "each renewal is another token");
    assert!(lease(&home)["renewals"].as_u64().unwrap() >= 2);
    assert_eq!(sandbox.count("asked"), 3, "one exchange for each lifetime");
    child.close();
    child.end().exits(0);
    wait_for("the end of the files", || !std::path::Path::new(&folder).exists());
    let after = sandbox.count("asked");
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(sandbox.count("asked"), after, "nobody needs it, nobody asks for it");
}

#[test]
fn a_refused_token_is_exchanged_anew_once() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    let first = token(&home, &[]).exits(0).out;
    let children: Vec<_> = (0..20)
        .map(|_| home.keyward_command(&["token", "claude", "--refresh"]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let anew: std::collections::BTreeSet<_> =
        children.into_iter().map(|c| String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap()).collect();
    assert_eq!(anew.len(), 1);
    let second = anew.into_iter().next().unwrap();
    assert!(second != first && second.starts_with("sk-ant-oat01-"), "{second}");
    assert_eq!(sandbox.count("asked"), 2, "a burst of late refusals does not throw the good one away");
    assert_eq!(token(&home, &["--refresh"]).exits(0).out, second, "it was made a moment ago for that reason");
    assert_eq!(token(&home, &[]).exits(0).out, second);
}

#[test]
fn a_refresh_reaches_the_files_of_the_runs() {
    let (home, _sandbox) = federated(&["--life", "1h"], FILES);
    let mut child = shell(&home);
    let read = "cat $ANTHROPIC_CONFIG_DIR/credentials/keyward.json; echo";
    let before = ask(&mut child, read);
    let second = token(&home, &["--refresh"]).exits(0).out;
    let after = ask(&mut child, read);
    assert!(before != after && after.contains(second.trim()), "{after}");
}

#[test]
fn a_trial_says_what_it_got_and_is_not_made_twice() {
    let (home, sandbox) = federated(&["--life", "60s", "--one-time", "--rotate", "0s"], ENV);
    let said = home.keyward(&["profile", "test", "claude", "--json"]).exits(0).json();
    assert_eq!((&said["ok"], &said["kind"]), (&true.into(), &"anthropic-federation".into()));
    assert_eq!((&said["scope"], &said["expires_in_s"]), (&"workspace:developer".into(), &60.into()));
    for fact in ["request_id", "assertion_subject", "assertion_issuer", "assertion_audience"] {
        assert!(said["facts"][fact].as_str().is_some_and(|t| !t.is_empty()), "{said}");
    }
    // The assertion is spent: a run lives on what the trial made.
    home.keyward(&["run", "-p", "claude", "--", "true"]).exits(0);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (1, 0));
    let shown = home.keyward(&["profile", "show", "claude", "--json"]).exits(0).json();
    assert_eq!(shown["last_exchange"]["ok"], true);
}
