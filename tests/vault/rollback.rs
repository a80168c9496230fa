//! An older copy of the database is put back.

use crate::{OTHER, entries, put_back_database, received, save, verify, with_profile};
use keyward_testkit::{Home, PASSPHRASE};

/// A home into which an older database was put back, with its broker stopped.
fn rolled_back() -> Home {
    let home = with_profile("older");
    home.stop_broker();
    save(&home, "older");
    home.unlock();
    home.secret("p", "newer");
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
    home.stop_broker();
    put_back_database(&home, "older");
    home
}

fn accept(home: &Home, passphrase: &str) -> keyward_testkit::Answer {
    home.keyward_in(&["audit", "accept-break", "--reason", "a test", "--passphrase-stdin"], passphrase)
}

#[track_caller]
fn is_refused(home: &Home) {
    let (exit, report) = verify(home);
    assert_eq!((exit, &report["ok"]), (7, &false.into()), "{report}");
    assert!(!report["problems"].as_array().unwrap().is_empty(), "{report}");
    let refused = home.keyward(&["run", "-p", "p", "--", "sh", "-c", "echo ran >>got"]).exits(125).says("audit.broken");
    assert!(!home.root.join("got").exists(), "{refused:?}");
    home.keyward(&["token", "p"]).exits(7).says("audit.broken");
}

#[test]
fn a_roll_back_stops_deliveries_until_the_operator_accepts_it() {
    let home = rolled_back();
    let opened = home.unlock();
    assert!(opened.err.contains("does not match what was recorded before"), "{}", opened.err);
    is_refused(&home);
    home.stop_broker();
    home.unlock();
    is_refused(&home);
    home.crash_broker();
    home.unlock();
    is_refused(&home);
    home.keyward(&["audit", "accept-break", "--reason", "x"]).exits(4).says("passphrase.needed");
    accept(&home, OTHER).exits(1).says("vault.wrong_passphrase");
    is_refused(&home);
    accept(&home, PASSPHRASE).exits(0);
    assert_eq!(received(&home), "older");
    for _ in 0..2 {
        let (exit, report) = verify(&home);
        assert_eq!(exit, 0, "{report}");
        let problems = report["problems"].as_array().unwrap();
        assert!(!problems.is_empty() && problems.iter().all(|p| p["accepted"] == true), "{report}");
        home.stop_broker();
        home.unlock();
    }
    let accepted = entries(&home, "audit.break_accepted");
    assert_eq!((accepted.len(), &accepted[0]["detail"]["reason"]), (1, &"a test".into()), "{accepted:?}");
    accept(&home, PASSPHRASE).exits(1).says("audit.not_broken");
}

#[test]
fn what_goes_on_in_a_broken_log_is_recorded_and_the_break_stays() {
    let home = rolled_back();
    home.unlock();
    home.secret("q", "stored all the same");
    // More entries than the roll-back took away do not hide it.
    for n in 0..20 {
        home.secret("q", &n.to_string());
    }
    is_refused(&home);
    home.stop_broker();
    home.unlock();
    is_refused(&home);
}

#[test]
fn an_anchor_that_is_gone_or_damaged_is_a_break() {
    for damage in ["gone", "damaged"] {
        let home = with_profile("s3cret");
        home.stop_broker();
        let anchor = home.keyward_home().join("state/anchor");
        if damage == "gone" {
            std::fs::remove_file(&anchor).unwrap();
        } else {
            std::fs::write(&anchor, vec![7; 256]).unwrap();
        }
        home.unlock();
        is_refused(&home);
        accept(&home, PASSPHRASE).exits(0);
        assert_eq!(received(&home), "s3cret");
        assert_eq!(verify(&home).0, 0, "{damage}");
    }
}

#[test]
fn a_database_that_is_replaced_under_an_open_vault_stops_deliveries() {
    let home = with_profile("s3cret");
    let copy = home.root.join("copy");
    std::fs::copy(home.db(), &copy).unwrap();
    std::fs::rename(&copy, home.db()).unwrap();
    let refused = home.keyward(&["run", "-p", "p", "--", "sh", "-c", "echo ran >>got"]).exits(125);
    assert!(!home.root.join("got").exists(), "{refused:?}");
    assert_eq!(verify(&home).0, 7);
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("audit.broken");
}
