//! Recovery keys and rekey.

use crate::{OTHER, received, reveal, unlock, with_profile};
use keyward_testkit::{Home, PASSPHRASE};
use std::path::Path;

const REKEY: &[&str] = &["vault", "rekey", "--passphrase-stdin"];

fn by_recovery(home: &Home, key: &str) -> keyward_testkit::Answer {
    home.keyward_in(&["unlock", "--recovery", "--passphrase-stdin"], key)
}

/// Whether any file in a folder or below holds this text.
fn stands_in(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return stands_in(&path, text);
        }
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|w| w == text.as_bytes()))
    })
}

#[test]
fn a_recovery_key_is_shown_once_opens_the_vault_and_survives_a_rekey() {
    let home = Home::new();
    let made = home.keyward_in(&["init", "--recovery", "--passphrase-stdin"], PASSPHRASE).exits(0);
    let key = made.out.trim().to_owned();
    assert!(key.starts_with("AGE-SECRET-KEY-1") && made.out.lines().count() == 1, "{}", made.out);
    home.static_profile("p", "s3cret", "T");
    let shown = home.keyward(&["vault", "slot", "list"]).exits(0);
    assert!(!shown.out.contains(&key) && shown.out.contains("recovery"), "{}", shown.out);
    assert!(!stands_in(&home.keyward_home(), &key), "it is kept nowhere");
    home.keyward(&["lock"]).exits(0);
    by_recovery(&home, &key).exits(0);
    assert_eq!(received(&home), "s3cret");
    home.keyward_in(REKEY, &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    home.stop_broker();
    by_recovery(&home, &key).exits(0);
    assert_eq!((received(&home), reveal(&home, "p", OTHER)), ("s3cret".into(), "s3cret".into()));
    assert_eq!(crate::verify(&home).0, 0);
}

#[test]
fn a_wrong_recovery_key_is_an_error_of_its_own() {
    let home = with_profile("s3cret");
    let added = home.keyward_in(&["vault", "slot", "add", "recovery", "--passphrase-stdin"], PASSPHRASE).exits(0);
    let key = added.out.trim().to_owned();
    home.keyward(&["lock"]).exits(0);
    let other = Home::new();
    let foreign = other.keyward_in(&["init", "--recovery", "--passphrase-stdin"], PASSPHRASE).exits(0).out;
    by_recovery(&home, foreign.trim()).exits(1).says("vault.wrong_recovery");
    by_recovery(&home, "AGE-SECRET-KEY-1").exits(1).says("vault.wrong_recovery");
    by_recovery(&home, &key).exits(0);
    let remove = ["vault", "slot", "remove", "recovery", "--passphrase-stdin"];
    home.keyward_in(&remove, PASSPHRASE).exits(0);
    home.keyward(&["lock"]).exits(0);
    let removed = by_recovery(&home, &key);
    assert_eq!(removed.exit, 1, "{removed:?}");
    home.unlock();
    home.keyward_in(&["vault", "slot", "remove", "passphrase", "--passphrase-stdin"], PASSPHRASE)
        .exits(1)
        .says("vault.slot_needed");
    home.keyward_in(&["vault", "slot", "remove", "floppy", "--passphrase-stdin"], PASSPHRASE)
        .exits(1)
        .says("vault.slot_unknown");
}

#[test]
fn after_a_rekey_the_old_passphrase_opens_nothing_that_keyward_manages() {
    let home = with_profile("s3cret");
    home.static_profile("q", "another", "Q");
    let backup = home.root.join("backup").display().to_string();
    home.keyward(&["vault", "backup", &backup]).exits(0);
    let lost = home.root.join("lost").display().to_string();
    home.keyward(&["vault", "backup", &lost]).exits(0);
    std::fs::remove_file(&lost).unwrap();
    let (db, slots) = (std::fs::read(home.db()).unwrap(), home.keyward_home().join("data/vault.slots"));
    let old_slots = std::fs::read(&slots).unwrap();
    let done = home.keyward_in(REKEY, &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    assert!(done.err.contains(&backup), "it names the backup that keeps the old passphrase: {}", done.err);
    assert!(!done.err.contains(&lost), "one that is gone is not named: {}", done.err);
    assert!(done.err.contains("replace the secrets"), "{}", done.err);
    unlock(&home, PASSPHRASE).exits(1).says("vault.wrong_passphrase");
    home.keyward_in(&["secret", "reveal", "p", "--passphrase-stdin"], PASSPHRASE)
        .exits(1)
        .says("vault.wrong_passphrase");
    assert_eq!((received(&home), reveal(&home, "q", OTHER)), ("s3cret".into(), "another".into()));
    assert_eq!(crate::verify(&home).0, 0);
    home.stop_broker();
    unlock(&home, PASSPHRASE).exits(1).says("vault.wrong_passphrase");
    home.stop_broker();
    assert_ne!(std::fs::read(home.db()).unwrap()[..4096], db[..4096], "the database was written anew");
    // The old slot file opens the old key, which is good for nothing here.
    let new_slots = std::fs::read(&slots).unwrap();
    std::fs::write(&slots, old_slots).unwrap();
    unlock(&home, PASSPHRASE).exits(7).says("vault.damaged");
    home.stop_broker();
    std::fs::write(&slots, new_slots).unwrap();
    unlock(&home, OTHER).exits(0);
    assert_eq!(received(&home), "s3cret");
}

#[test]
fn rekey_goes_on_with_what_is_running_and_needs_the_right_passphrase() {
    let home = with_profile("s3cret");
    let mut child =
        keyward_testkit::Talk::start(home.keyward_command(&["run", "-p", "p", "--deliver", "file", "--", "sh"]));
    child.send(b"echo $T\n");
    let path = std::path::PathBuf::from(child.line());
    home.keyward_in(REKEY, &format!("{OTHER}\n{OTHER} too\n")).exits(1).says("vault.wrong_passphrase");
    home.keyward_in(REKEY, &format!("{PASSPHRASE}\n")).exits(1).says("request.invalid");
    home.keyward_in(REKEY, &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret");
    home.secret("p", "newer");
    keyward_testkit::wait_for("the renewed file", || std::fs::read_to_string(&path).is_ok_and(|t| t == "newer"));
    child.send(b"exit\n");
    child.end().exits(0);
    keyward_testkit::wait_for("the end of the run", || !crate::entries(&home, "run.ended").is_empty());
    assert_eq!(crate::verify(&home).0, 0);
}
