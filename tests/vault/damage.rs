//! Files that were damaged by accident or changed on purpose.

use crate::{flip, is_whole, received, save, unlock, verify, with_profile};
use keyward_testkit::{Answer, Home, PASSPHRASE};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A home whose vault is locked and whose broker has ended.
fn at_rest() -> Home {
    let home = with_profile("s3cret");
    home.stop_broker();
    home
}

fn data(home: &Home, name: &str) -> PathBuf {
    home.keyward_home().join("data").join(name)
}

/// Tries to open the vault with `damage` done to a file, puts the file back, and finds everything in its place.
#[track_caller]
fn harmed(home: &Home, name: &str, damage: impl FnOnce(&Path)) -> Answer {
    let path = data(home, name);
    let before = std::fs::read(&path).unwrap();
    damage(&path);
    let answer = unlock(home, PASSPHRASE);
    let restored = home.keyward(&["status", "--json"]).exits(0).json();
    assert_ne!(restored["vault"]["state"], "unlocked", "{answer:?}");
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125);
    home.stop_broker();
    std::fs::write(&path, before).unwrap();
    unlock(home, PASSPHRASE).exits(0);
    assert_eq!((received(home).as_str(), verify(home).0), ("s3cret", 0));
    home.stop_broker();
    answer
}

/// Edits the text of a slot file as somebody would who knows its form: the sum is made right again.
#[track_caller]
fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    let text = text.trim_end().replacen(from, to, 1);
    let (head, sum) = text.split_once("\"sum\":\"").unwrap();
    let digest = hex::encode(Sha256::digest(format!("{head}\"sum\":\"{}", &sum[64..])));
    std::fs::write(path, format!("{head}\"sum\":\"{digest}{}\n", &sum[64..])).unwrap();
}

#[test]
fn a_damaged_slot_file_is_told_from_a_wrong_passphrase() {
    let home = at_rest();
    let damages: [&dyn Fn(&Path); 5] = [
        &|path| flip(path, 200),
        &|path| std::fs::write(path, "").unwrap(),
        &|path| std::fs::write(path, "{}").unwrap(),
        &|path| std::fs::write(path, vec![b'['; 100_000]).unwrap(),
        &|path| std::fs::write(path, &std::fs::read(path).unwrap()[..300]).unwrap(),
    ];
    for damage in damages {
        harmed(&home, "vault.slots", damage).exits(7).says("vault.slots_damaged");
    }
}

#[test]
fn a_slot_file_that_is_missing_is_damage_and_no_new_vault_is_made_over_the_old_one() {
    let home = at_rest();
    let slots = data(&home, "vault.slots");
    let kept = std::fs::read(&slots).unwrap();
    std::fs::remove_file(&slots).unwrap();
    let db = std::fs::read(home.db()).unwrap();
    let refused = home.keyward_in(&["init", "--passphrase-stdin"], "an entirely different passphrase");
    assert!(refused.exit != 0, "{refused:?}");
    assert!(unlock(&home, PASSPHRASE).exit != 0);
    home.stop_broker();
    assert_eq!(std::fs::read(home.db()).unwrap(), db, "the database is as it was");
    std::fs::write(&slots, kept).unwrap();
    home.unlock();
    is_whole(&home, "s3cret");
}

#[test]
fn a_slot_file_that_was_edited_on_purpose_is_found() {
    let home = at_rest();
    let raised = |path: &Path| edit(path, "\"epoch\":1", "\"epoch\":2");
    harmed(&home, "vault.slots", raised).exits(7).says("vault.slots_tampered");
}

#[test]
fn hostile_costs_of_the_key_derivation_are_refused_before_they_cost() {
    let home = at_rest();
    let text = std::fs::read_to_string(data(&home, "vault.slots")).unwrap();
    let (_, rest) = text.split_once("\"kdf\":{").unwrap();
    let (written, _) = rest.split_once('}').unwrap();
    for hostile in [
        "\"m_kib\":4294967295,\"t\":3,\"p\":1",
        "\"m_kib\":1048577,\"t\":3,\"p\":1",
        "\"m_kib\":65536,\"t\":4294967295,\"p\":1",
        "\"m_kib\":65536,\"t\":3,\"p\":255",
        "\"m_kib\":8,\"t\":1,\"p\":1",
        "\"m_kib\":0,\"t\":0,\"p\":0",
    ] {
        harmed(&home, "vault.slots", |path| edit(path, written, hostile)).exits(7).says("vault.kdf_bounds");
    }
    // Within the bounds, but not what was wrapped: as good as a wrong passphrase.
    let weaker = |path: &Path| edit(path, written, "\"m_kib\":65536,\"t\":3,\"p\":2");
    harmed(&home, "vault.slots", weaker).exits(1).says("vault.wrong_passphrase");
}

#[test]
fn a_damaged_database_is_damage_and_is_never_begun_anew() {
    let home = at_rest();
    let whole = std::fs::read(home.db()).unwrap();
    let cut = whole.len() / 2;
    let damages: [&dyn Fn(&Path); 6] = [
        &|path| flip(path, 3),
        &|path| flip(path, 2000),
        &|path| std::fs::write(path, "").unwrap(),
        &|path| std::fs::write(path, &whole[..cut - cut % 4096]).unwrap(),
        &|path| std::fs::write(path, "SQLite format 3\0").unwrap(),
        &|path| std::fs::remove_file(path).unwrap(),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let answer = harmed(&home, "vault.db", damage);
        assert_eq!(answer.exit, 7, "damage {n}: {answer:?}");
        answer.says("vault.damaged");
    }
}

#[test]
fn the_database_of_another_vault_is_damage() {
    let (home, other) = (at_rest(), at_rest());
    let foreign = std::fs::read(other.db()).unwrap();
    harmed(&home, "vault.db", |path| std::fs::write(path, foreign).unwrap()).exits(7).says("vault.damaged");
}

#[test]
fn a_damaged_page_is_found_by_verify_and_stays_found() {
    let home = at_rest();
    save(&home, "good");
    // Far behind the pages that opening reads.
    let bytes = std::fs::metadata(home.db()).unwrap().len();
    let mut found = 0;
    for page in 2..bytes / 4096 {
        flip(&home.db(), usize::try_from(page * 4096 + 100).unwrap());
        let opened = unlock(&home, PASSPHRASE);
        if opened.exit == 0 {
            let (exit, report) = verify(&home);
            assert_eq!((exit, &report["ok"]), (7, &false.into()), "page {page}: {report}");
            home.keyward(&["run", "-p", "p", "--", "true"]).exits(125);
            found += 1;
        } else {
            opened.exits(7).says("vault.damaged");
        }
        home.stop_broker();
        crate::put_back_database(&home, "good");
    }
    assert!(found > 0, "opening reads every page, so this test shows nothing");
}

#[test]
fn a_vault_of_a_newer_program_is_refused_and_left_alone() {
    let home = at_rest();
    let newer = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    };
    harmed(&home, "vault.slots", newer).exits(1).says("vault.schema_newer");
}

/// `newer/` is a vault under [`PASSPHRASE`] whose database names the migration 9999 as applied.
#[test]
fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let home = at_rest();
    let newer = Path::new(env!("CARGO_MANIFEST_DIR")).join("vault/newer");
    for name in ["vault.db", "vault.slots"] {
        std::fs::copy(newer.join(name), data(&home, name)).unwrap();
    }
    std::fs::copy(newer.join("anchor"), home.keyward_home().join("state/anchor")).unwrap();
    for _ in 0..2 {
        let refused = unlock(&home, PASSPHRASE).exits(1).says("vault.schema_newer");
        assert!(refused.err.contains("9999"), "{}", refused.err);
    }
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("vault.locked");
    home.stop_broker();
    assert_eq!(std::fs::read(newer.join("vault.db")).unwrap(), std::fs::read(home.db()).unwrap());
}
