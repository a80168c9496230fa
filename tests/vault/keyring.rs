//! The keyring slot, with a real Secret Service.

use crate::{OTHER, entries, is_whole, unlock, with_profile};
use keyward_testkit::{Answer, Home, Keyring, PASSPHRASE};

fn add(home: &Home) -> Answer {
    home.keyward_in(&["vault", "slot", "add", "keyring", "--passphrase-stdin"], PASSPHRASE)
}

/// The kinds of the slots that there are.
#[track_caller]
fn slots(home: &Home) -> Vec<String> {
    let listed = home.keyward(&["vault", "slot", "list", "--json"]).exits(0).json();
    listed.as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap().to_owned()).collect()
}

fn by_keyring(home: &Home) -> Answer {
    home.keyward(&["unlock", "--keyring"])
}

/// A home whose broker finds the keyring, with an open vault.
fn with_keyring() -> (Keyring, Home) {
    let mut home = Home::new();
    let keyring = Keyring::start(&home);
    home.set("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    home.init();
    home.static_profile("p", "s3cret", "T");
    (keyring, home)
}

#[test]
fn without_a_keyring_the_slot_cannot_be_made() {
    let home = with_profile("s3cret");
    add(&home).exits(1).says("keyring.absent");
    assert_eq!(slots(&home), ["passphrase"]);
    by_keyring(&home).exits(1).says("vault.slot_unknown");
    is_whole(&home, "s3cret");
}

#[test]
fn the_slot_is_made_with_a_warning_opens_the_vault_and_can_be_removed() {
    let (_keyring, home) = with_keyring();
    by_keyring(&home).exits(1).says("vault.slot_unknown");
    let added = add(&home).exits(0);
    let warning = "any program you run can then open the vault and rewrite the log; this protects a stolen disk only";
    assert!(added.err.contains(warning), "{}", added.err);
    assert_eq!(slots(&home), ["passphrase", "keyring"]);
    add(&home).exits(1).says("vault.slot_exists");
    home.stop_broker();
    by_keyring(&home).exits(0);
    is_whole(&home, "s3cret");
    assert_eq!(entries(&home, "vault.unlocked").last().unwrap()["detail"]["by"], "keyring");
    home.keyward(&["secret", "reveal", "p"]).exits(4).says("passphrase.needed");
    let remove = ["vault", "slot", "remove", "keyring", "--passphrase-stdin"];
    home.keyward_in(&remove, OTHER).exits(1).says("vault.wrong_passphrase");
    home.keyward_in(&remove, PASSPHRASE).exits(0);
    assert_eq!(slots(&home), ["passphrase"]);
    home.keyward(&["lock"]).exits(0);
    by_keyring(&home).exits(1).says("vault.slot_unknown");
    home.unlock();
    is_whole(&home, "s3cret");
    for (kind, slot) in [("vault.slot_added", "keyring"), ("vault.slot_removed", "keyring")] {
        assert_eq!(entries(&home, kind)[0]["detail"]["slot"], slot);
    }
}

#[test]
fn adding_the_slot_needs_the_passphrase() {
    let (_keyring, home) = with_keyring();
    home.keyward(&["vault", "slot", "add", "keyring"]).exits(4).says("passphrase.needed");
    home.keyward_in(&["vault", "slot", "add", "keyring", "--passphrase-stdin"], OTHER)
        .exits(1)
        .says("vault.wrong_passphrase");
    assert_eq!(slots(&home), ["passphrase"]);
}

#[test]
fn a_locked_keyring_is_told_from_an_absent_one_and_the_passphrase_goes_on_to_open() {
    let (keyring, home) = with_keyring();
    add(&home).exits(0);
    home.keyward(&["lock"]).exits(0);
    keyring.lock(&home);
    by_keyring(&home).exits(1).says("keyring.locked");
    let opened = home.unlock();
    assert!(opened.err.contains("its anchor of the log was not compared"), "{}", opened.err);
    is_whole(&home, "s3cret");
    home.keyward(&["lock"]).exits(0);
    drop(keyring);
    by_keyring(&home).exits(1).says("keyring.absent");
    home.unlock();
    is_whole(&home, "s3cret");
}

#[test]
fn a_locked_keyring_takes_no_slot() {
    let (keyring, home) = with_keyring();
    keyring.lock(&home);
    add(&home).exits(1).says("keyring.locked");
    assert_eq!(slots(&home), ["passphrase"]);
    is_whole(&home, "s3cret");
}

#[test]
fn a_keyring_that_lost_the_key_is_an_error_of_its_own() {
    let (keyring, mut home) = with_keyring();
    add(&home).exits(0);
    home.stop_broker();
    let folder = keyring.folder().to_owned();
    drop(keyring);
    std::fs::remove_dir_all(folder).unwrap();
    let empty = Keyring::start(&home);
    home.set("DBUS_SESSION_BUS_ADDRESS", empty.address());
    by_keyring(&home).exits(1).says("keyring.missing");
    home.unlock();
    is_whole(&home, "s3cret");
    home.keyward_in(&["vault", "slot", "remove", "keyring", "--passphrase-stdin"], PASSPHRASE).exits(0);
    add(&home).exits(0);
    home.keyward(&["lock"]).exits(0);
    by_keyring(&home).exits(0);
}

#[test]
fn rekey_takes_the_keyring_slot_along() {
    let (_keyring, home) = with_keyring();
    add(&home).exits(0);
    home.keyward_in(&["vault", "rekey", "--passphrase-stdin"], &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    assert!(slots(&home).contains(&"keyring".to_owned()));
    home.stop_broker();
    by_keyring(&home).exits(0);
    // What the keyring opens proves no person.
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("approval.needed");
    home.keyward_in(&["grant", "add", "--profile", "p", "--passphrase-stdin"], OTHER).exits(0);
    assert_eq!(crate::received(&home), "s3cret");
    unlock(&home, PASSPHRASE).exits(1).says("vault.wrong_passphrase");
}

#[test]
fn a_roll_back_of_the_whole_home_is_found_by_the_anchor_in_the_keyring() {
    let (_keyring, home) = with_keyring();
    add(&home).exits(0);
    home.stop_broker();
    crate::save(&home, "older");
    let anchor = home.keyward_home().join("state/anchor");
    std::fs::copy(&anchor, home.root.join("older-anchor")).unwrap();
    home.unlock();
    home.secret("q", "newer");
    home.stop_broker();
    crate::put_back_database(&home, "older");
    std::fs::copy(home.root.join("older-anchor"), &anchor).unwrap();
    let opened = home.unlock();
    assert!(opened.err.contains("does not match what was recorded before"), "{}", opened.err);
    assert_eq!(crate::verify(&home).0, 7);
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("audit.broken");
}
