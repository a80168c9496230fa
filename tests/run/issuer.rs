//! Credentials that an issuer mints: one exchange for all, kept fresh while in use, and what happens when it fails.

use crate::{Mint, ask, entries, lease, shell};
use keyward_testkit::{Home, wait_at_most, wait_for};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for several renewals of credentials that live a few seconds.
const RENEWALS: Duration = Duration::from_secs(30);

#[test]
fn twenty_runs_at_once_share_one_exchange() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 600, "env", "T");
    let children: Vec<_> = (0..20)
        .map(|_| {
            let mut command = home.keyward_command(&["run", "-p", "m", "--", "sh", "-c", "echo $T"]);
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "m-token-1\n");
    }
    assert_eq!(mint.count(), 1);
    assert_eq!(home.keyward(&["token", "m"]).exits(0).out, "m-token-1\n");
    assert_eq!(mint.count(), 1, "a token comes from the same exchange");
    assert_eq!(entries(&home, "lease.issued").len(), 20);
}

#[test]
fn a_file_is_renewed_ahead_of_time_and_never_seen_empty_or_in_parts() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 4, "file", "T_FILE");
    let mut child = shell(&home, &["-p", "m"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    let mut seen = vec![std::fs::read_to_string(&path).unwrap()];
    let mut opened_before = std::fs::File::open(&path).unwrap();
    wait_at_most(RENEWALS, "two renewals", || {
        // Reads without a pause between two looks of the wait.
        for _ in 0..2_000 {
            let read = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("after {seen:?}: {e}"));
            let number = read.strip_prefix("m-token-").and_then(|n| n.parse::<u32>().ok());
            assert!(number.is_some(), "a part: {read:?}");
            if seen.last() != Some(&read) {
                seen.push(read);
            }
        }
        seen.len() >= 3
    });
    assert_eq!(seen[..3], ["m-token-1", "m-token-2", "m-token-3"]);
    let mut old = String::new();
    opened_before.read_to_string(&mut old).unwrap();
    assert_eq!(old, "m-token-1", "whoever had it open still reads the old one whole");
    let now = lease(&home, child.pid());
    assert!(now["state"] == "live" && now["renewals"].as_u64().unwrap() >= 2, "{now}");
    assert!(now["expires_at"].as_str() > now["issued_at"].as_str());
    assert_eq!(entries(&home, "lease.expired").len(), 0, "renewed before the end, not after it");
    let kinds: Vec<_> = home.audit_kinds().into_iter().filter(|k| k.starts_with("lease.")).take(3).collect();
    assert_eq!(kinds, ["lease.issued", "lease.renewed", "lease.renewed"]);
    assert_eq!(ask(&mut child, "echo $T_FILE"), path.display().to_string());
    child.close();
    child.end().exits(0);
    let after = mint.count();
    assert!(after >= 3);
}

#[test]
fn what_nobody_uses_and_what_cannot_be_replaced_is_not_renewed() {
    let home = Home::with_vault();
    let (unused, variable) = (Mint::new(&home, "u", 2, "file", "U_FILE"), Mint::new(&home, "v", 2, "env", "V"));
    // The one that is in use tells how much time has gone by.
    let used = Mint::new(&home, "w", 2, "file", "W_FILE");
    home.keyward(&["run", "-p", "u", "--", "true"]).exits(0);
    let holds = shell(&home, &["-p", "v"]);
    let clock = shell(&home, &["-p", "w"]);
    wait_at_most(RENEWALS, "renewals of what is in use", || used.count() >= 5);
    assert_eq!((unused.count(), variable.count()), (1, 1));
    let over = lease(&home, holds.pid());
    assert_eq!((&over["state"], &over["renewals"]), (&"expired".into(), &0.into()));
    assert_eq!(lease(&home, clock.pid())["state"], "live");
    // The next run gets a new one, not the one that is over.
    let next = home.keyward(&["run", "-p", "v", "--", "sh", "-c", "echo $V"]).exits(0).out;
    assert_eq!((next.as_str(), variable.count()), ("v-token-2\n", 2));
}

#[test]
fn a_failing_issuer_fails_the_run_and_nothing_is_delivered() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 600, "env", "T");
    mint.fails(true);
    let answer = home.keyward(&["--json", "run", "-p", "m", "--", "sh", "-c", "touch started"]).exits(125);
    let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&"issuer.failed".into(), &125.into()));
    home.keyward(&["token", "m"]).exits(6).says("issuer.failed");
    home.keyward(&["profile", "test", "m"]).exits(6).says("issuer.failed");
    assert!(!home.root.join("started").exists());
    let kinds = home.audit_kinds();
    assert!(!kinds.iter().any(|k| k == "credential.delivered" || k == "lease.issued"), "{kinds:?}");
    mint.fails(false);
    wait_for("the issuer to be tried again", || home.keyward(&["run", "-p", "m", "--", "true"]).exit == 0);
}

#[test]
fn a_renewal_that_fails_shows_and_the_next_one_mends_it() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 10, "file", "T_FILE");
    let mut child = shell(&home, &["-p", "m"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    mint.fails(true);
    wait_at_most(RENEWALS, "the failed renewal", || lease(&home, child.pid())["state"] == "renew_failed");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "m-token-1", "the old one is still good");
    let failed = &entries(&home, "lease.renew_failed")[0];
    assert_eq!((&failed["outcome"], &failed["detail"]["code"]), (&"failed".into(), &"issuer.failed".into()));
    let shown = home.keyward(&["ps"]).exits(0).out;
    assert!(shown.contains("renew_failed"), "{shown}");
    mint.fails(false);
    wait_at_most(RENEWALS, "the renewal that works", || lease(&home, child.pid())["state"] == "live");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("m-token-"));
    assert_ne!(std::fs::read_to_string(&path).unwrap(), "m-token-1");
    assert_eq!(lease(&home, child.pid())["renewals"], 1);
}

#[test]
fn a_credential_that_cannot_be_renewed_ends_with_its_life_and_the_next_one_takes_its_place() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 3, "file", "T_FILE");
    let mut child = shell(&home, &["-p", "m"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    mint.fails(true);
    wait_at_most(RENEWALS, "the end of the credential", || lease(&home, child.pid())["state"] == "lapsed");
    assert!(!path.exists(), "a file whose credential is over does not stay");
    assert_eq!(entries(&home, "lease.lapsed").len(), 1);
    assert_eq!(ask(&mut child, "echo alive"), "alive");
    mint.fails(false);
    wait_at_most(RENEWALS, "the next one", || lease(&home, child.pid())["state"] == "live");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("m-token-"));
    assert_eq!(entries(&home, "lease.expired").len(), 0);
}

#[test]
fn a_lease_ends_at_its_limit_and_the_issuer_is_left_alone() {
    let home = Home::with_vault();
    let mint = Mint::new(&home, "m", 2, "file", "T_FILE");
    let mut child = shell(&home, &["-p", "m", "--ttl", "5s"]);
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    wait_at_most(RENEWALS, "the end of the lease", || lease(&home, child.pid())["state"] == "expired");
    assert!(!path.exists());
    assert_eq!(entries(&home, "lease.expired").len(), 1);
    // Nobody holds it any more, so the issuer is left alone.
    let asked = mint.count();
    let clock = Mint::new(&home, "w", 2, "file", "W_FILE");
    let other = shell(&home, &["-p", "w"]);
    wait_at_most(RENEWALS, "renewals of another one", || clock.count() >= 4);
    assert_eq!(mint.count(), asked);
    drop(other);
}
