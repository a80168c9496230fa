//! Backup and restore.

use crate::{OTHER, entries, flip, is_whole, received, reveal, unlock, verify, with_profile};
use keyward_testkit::{Home, PASSPHRASE};
use std::path::PathBuf;

fn backup(home: &Home, name: &str) -> String {
    let file = home.root.join(name).display().to_string();
    home.keyward(&["vault", "backup", &file]).exits(0);
    file
}

fn restore(home: &Home, file: &str, more: &[&str], passphrase: &str) -> keyward_testkit::Answer {
    let line = [&["vault", "restore", file, "--passphrase-stdin"], more].concat();
    home.keyward_in(&line, passphrase)
}

/// Folders with vaults that were replaced.
fn replaced(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.keyward_home().join("data")).unwrap().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with("replaced-")).map(|e| e.path()).collect()
}

#[test]
fn a_vault_moves_to_another_home() {
    let home = with_profile("s3cret");
    let file = backup(&home, "backup");
    let elsewhere = Home::new();
    let wrong = restore(&elsewhere, &file, &[], OTHER).exits(1).says("vault.wrong_passphrase");
    assert!(wrong.err.contains("does not open the backup\n  help:  use the one of the day"), "{}", wrong.err);
    assert_eq!(elsewhere.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"], "absent");
    restore(&elsewhere, &file, &[], PASSPHRASE).exits(0);
    is_whole(&elsewhere, "s3cret");
    is_whole(&home, "s3cret");
    elsewhere.stop_broker();
    elsewhere.unlock();
    is_whole(&elsewhere, "s3cret");
}

#[test]
fn an_older_backup_takes_the_place_of_a_newer_vault_only_when_told_and_the_gap_is_shown_for_ever() {
    let home = with_profile("older");
    let file = backup(&home, "backup");
    home.secret("p", "newer");
    home.secret("q", "lost");
    let reached = verify(&home).1["head"]["seq"].as_u64().unwrap();
    restore(&home, &file, &[], PASSPHRASE).exits(1).says("vault.exists");
    restore(&home, &file, &["--replace"], OTHER).exits(1).says("vault.wrong_passphrase");
    assert_eq!(reveal(&home, "p", PASSPHRASE), "newer");
    let done = restore(&home, &file, &["--replace"], PASSPHRASE).exits(0);
    let kept = replaced(&home);
    assert!(kept.len() == 1 && done.err.contains(&kept[0].display().to_string()), "{kept:?}: {}", done.err);
    is_whole(&home, "older");
    let gap = |home: &Home| {
        let (exit, report) = verify(home);
        assert_eq!(exit, 0, "{report}");
        assert_eq!(report["gaps"].as_array().map(Vec::len), Some(1), "{report}");
        report["gaps"][0].clone()
    };
    let first = gap(&home);
    assert!(first["anchor_seq"].as_u64().unwrap() >= reached && first["from"].as_u64().unwrap() < reached, "{first}");
    assert_eq!(entries(&home, "vault.restored").len(), 1);
    home.stop_broker();
    home.unlock();
    home.secret("q", "again");
    home.keyward_in(&["vault", "rekey", "--passphrase-stdin"], &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    assert_eq!(gap(&home), first, "entries, a restart and a rekey later");
    let text = home.keyward(&["audit", "verify"]).exits(0).out;
    assert!(text.contains("a backup was restored"), "{text}");
    unlock(&home, PASSPHRASE).exits(1).says("vault.wrong_passphrase");
}

#[test]
fn the_vault_that_was_replaced_can_be_put_back() {
    let home = with_profile("older");
    let file = backup(&home, "backup");
    home.secret("p", "newer");
    let newer = backup(&home, "newer");
    restore(&home, &file, &["--replace"], PASSPHRASE).exits(0);
    home.unlock();
    assert_eq!(received(&home), "older");
    restore(&home, &newer, &["--replace"], PASSPHRASE).exits(0);
    is_whole(&home, "newer");
    assert_eq!(verify(&home).1["gaps"].as_array().map(Vec::len), Some(1), "the newer log knows of one restore");
    assert_eq!(replaced(&home).len(), 2);
}

#[test]
fn a_backup_from_before_a_rekey_opens_with_the_passphrase_of_its_time() {
    let home = with_profile("older");
    let file = backup(&home, "backup");
    home.keyward_in(&["vault", "rekey", "--passphrase-stdin"], &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    // Both are wanted: that of the backup, and that of the vault which it replaces.
    for wrong in [PASSPHRASE, OTHER, &format!("{OTHER}\n{PASSPHRASE}\n")] {
        restore(&home, &file, &["--replace"], wrong).exits(1).says("vault.wrong_passphrase");
        keyward_testkit::wait_for("the end of a pause", || unlock(&home, OTHER).exit == 0);
    }
    restore(&home, &file, &["--replace"], &format!("{PASSPHRASE}\n{OTHER}\n")).exits(0);
    is_whole(&home, "older");
    unlock(&home, OTHER).exits(1).says("vault.wrong_passphrase");
}

#[test]
fn a_backup_that_could_not_be_written_is_told_as_failed_in_the_log() {
    let home = Home::with_vault();
    home.keyward(&["vault", "backup", &home.root.join("nowhere/copy").display().to_string()]).exits(1);
    let told = home.audit().into_iter().filter(|entry| entry["kind"] == "vault.backed_up");
    let outcomes: Vec<String> = told.map(|entry| entry["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["ok", "failed"]);
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let home = with_profile("s3cret");
    let file = backup(&home, "backup");
    let bytes = std::fs::read(&file).unwrap();
    let bad = home.root.join("bad");
    let shown = bad.display().to_string();
    let cut = [0, 10, 17, 24, 100, bytes.len() / 2, bytes.len() - 1];
    for end in cut {
        std::fs::write(&bad, &bytes[..end]).unwrap();
        restore(&home, &shown, &["--replace"], PASSPHRASE).exits(7).says("vault.backup_damaged");
    }
    for at in [0, 20, 300, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&bad, &bytes).unwrap();
        flip(&bad, at);
        let refused = restore(&home, &shown, &["--replace"], PASSPHRASE);
        assert!(refused.exit == 7 && refused.err.contains("damaged"), "bit {at}: {refused:?}");
    }
    std::fs::write(&bad, [&bytes[..], b"more"].concat()).unwrap();
    restore(&home, &shown, &["--replace"], PASSPHRASE).exits(7).says("vault.backup_damaged");
    restore(&home, "/nonexistent/file", &["--replace"], PASSPHRASE).exits(1).says("file.unreadable");
    assert!(replaced(&home).is_empty());
    is_whole(&home, "s3cret");
}

#[test]
fn a_backup_never_replaces_a_file_and_is_no_plain_text() {
    let home = with_profile("s3cret-of-this-test");
    let file = backup(&home, "backup");
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(19).any(|w| w == b"s3cret-of-this-test"));
    let there = home.keyward(&["vault", "backup", &file]).exits(1).says("vault.io");
    let words = format!("cause: there is a file already: {file}\n  help:  name another file");
    assert!(there.err.contains(&words), "{}", there.err);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    home.keyward(&["vault", "backup", "/nonexistent/file"]).exits(1).says("vault.io");
    let mut command = home.keyward_command(&["vault", "backup", "relative"]);
    std::fs::create_dir(home.root.join("below")).unwrap();
    command.current_dir(home.root.join("below"));
    keyward_testkit::run(command, b"").exits(0);
    assert!(home.root.join("below/relative").exists(), "the path is that of the caller");
    home.keyward(&["lock"]).exits(0);
    home.keyward(&["vault", "backup", &format!("{file}2")]).exits(3).says("vault.locked");
}

#[test]
fn a_restore_over_a_damaged_vault_works() {
    let home = with_profile("s3cret");
    let file = backup(&home, "backup");
    home.stop_broker();
    std::fs::write(home.db(), "rubbish").unwrap();
    std::fs::write(home.keyward_home().join("data/vault.slots"), "rubbish").unwrap();
    unlock(&home, PASSPHRASE).exits(7).says("vault.slots_damaged");
    restore(&home, &file, &["--replace"], PASSPHRASE).exits(0);
    is_whole(&home, "s3cret");
}
