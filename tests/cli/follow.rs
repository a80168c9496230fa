//! `audit follow`: new entries as they come, each once, over whatever happens to the broker.

use keyward_testkit::{Home, Talk, wait_for};
use serde_json::Value;

/// Starts to follow, and waits until it does: an entry that is made before is none of its business.
fn follow(home: &Home, args: &[&str]) -> (Talk, u64) {
    let mut talk = Talk::start(home.keyward_command(&[&["audit", "follow", "--json"], args].concat()));
    wait_for("the first entry", || {
        home.secret("probe", "s3cret");
        !talk.out().is_empty()
    });
    let first: Value = serde_json::from_str(&talk.line()).unwrap();
    (talk, first["seq"].as_u64().unwrap())
}

fn seqs(text: &str) -> Vec<u64> {
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["seq"].as_u64().unwrap());
    lines.collect()
}

/// Number of the newest entry.
fn head(home: &Home) -> u64 {
    home.keyward(&["audit", "list", "--json", "--limit", "1"]).exits(0).json()[0]["seq"].as_u64().unwrap()
}

/// Waits until the follower has said all up to the head, and checks that it said each once and in order.
#[track_caller]
fn told_all(home: &Home, talk: &Talk, first: u64) {
    let head = head(home);
    wait_for(&format!("entry {head} in {} {}", talk.out(), talk.err()), || {
        let out = talk.out();
        out.ends_with('\n') && seqs(&out).last() >= Some(&head)
    });
    assert_eq!(seqs(&talk.out()), (first..=head).collect::<Vec<_>>());
}

#[test]
fn every_new_entry_is_printed_once_and_in_order() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let (talk, first) = follow(&home, &[]);
    for n in 0..20 {
        home.secret(&format!("s{n}"), "s3cret");
        home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
    }
    let ended = || home.audit_kinds().iter().filter(|k| *k == "run.ended").count();
    wait_for("the ends", || ended() == 20);
    told_all(&home, &talk, first);
    assert!(!talk.out().contains("s3cret"));
    let words = Talk::start(home.keyward_command(&["audit", "follow"]));
    wait_for("a line of words", || {
        home.secret("probe", "s3cret");
        words.out().contains("secret.set")
    });
}

#[test]
fn it_goes_on_over_lock_restart_and_crash() {
    let home = Home::with_vault();
    let (talk, first) = follow(&home, &[]);
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    told_all(&home, &talk, first);
    home.keyward(&["broker", "restart"]).exits(0);
    home.unlock();
    home.secret("after-restart", "s3cret");
    told_all(&home, &talk, first);
    home.crash_broker();
    home.unlock();
    home.secret("after-crash", "s3cret");
    told_all(&home, &talk, first);
    assert!(talk.err().contains("the vault is locked"), "it says why it waits: {}", talk.err());
}

#[test]
fn filters_hold_while_following() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut talk = Talk::start(home.keyward_command(&["audit", "follow", "--json", "--kind", "credential"]));
    wait_for("the first entry", || {
        home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
        !talk.out().is_empty()
    });
    let before = seqs(&talk.out()).len();
    home.secret("noise", "s3cret");
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
    wait_for("the next one", || seqs(&talk.out()).len() > before);
    let first: Value = serde_json::from_str(&talk.line()).unwrap();
    assert_eq!(first["entry"]["kind"], "credential.delivered");
    assert!(talk.out().lines().all(|l| l.contains("credential.delivered")), "{}", talk.out());
    home.keyward(&["audit", "follow", "--kind", "nonsense"]).exits(1).says("request.invalid");
}
