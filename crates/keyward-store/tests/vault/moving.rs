//! Rekey, backup and restore.

use crate::home::{Home, PASSPHRASE, draft, everything, files, material, passphrase, raw, secret};
use keyward_core::audit::{Draft, Kind, ProblemKind, RestoreGap};
use keyward_crypto::{KdfParams, VaultKey, open};
use keyward_diag::Code;
use keyward_store::{Backup, Changes, Health, Store, StoreError, load_slots, restore};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn rekeyed_entry() -> Draft {
    Draft::new(77, Kind::VaultRekeyed)
}

async fn value(store: &Store, key: &VaultKey, name: &str) -> String {
    let item = store.item("secret", name).await.unwrap().unwrap();
    let plain = open(&key.derive_seal(), &item.info.as_ref(), &item.sealed).unwrap();
    plain.expose(|p| String::from_utf8(p.to_vec()).unwrap())
}

#[tokio::test]
async fn after_a_rekey_no_file_opens_with_the_old_key_and_old_entries_still_verify() {
    let (home, (first, slots)) = (Home::new(), material());
    let store = home.create().await;
    store.commit(Changes { writes: everything(first), entries: vec![draft(1)] }).await.unwrap();
    let (second, third) = (VaultKey::make().unwrap(), VaultKey::make().unwrap());
    let (mut store, mut slots, mut old) = (store, slots.clone(), first);
    for (n, (new, typed)) in [(&second, "second passphrase"), (&third, "third passphrase")].into_iter().enumerate() {
        let next = slots.rekey(new, &passphrase(typed), KdfParams::FLOOR).unwrap();
        let done = store.rekey(&home.lock(), &next, old, new, rekeyed_entry()).await.unwrap();
        assert!(done.older_copies.is_empty());
        assert!(matches!(store.commit(Changes::record(vec![draft(9)])).await, Err(StoreError::Unusable(_))));
        assert!(Store::open(&home.lock(), &next, old).await.is_err());
        let names: Vec<_> = files(&home.root).iter().map(|f| f.file_name().unwrap().to_owned()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        // The lock file is empty, and SQLite opens an empty file with any key.
        for file in files(&home.paths.data).into_iter().filter(|f| fs::metadata(f).unwrap().len() > 0) {
            assert!(raw(&file, &old.derive_db()).await.is_err(), "{} opens with the old key", file.display());
        }
        let loaded = load_slots(&home.paths).unwrap();
        assert!(loaded.open_passphrase(&passphrase(PASSPHRASE)).is_err());
        let key = loaded.open_passphrase(&passphrase(typed)).unwrap();
        let (opened, health) = Store::open(&home.lock(), &loaded, &key).await.unwrap();
        assert_eq!(health, Health::Sound { past_anchor: 0 });
        assert_eq!(value(&opened, &key, "pg-dev-name").await, "hunter2-value");
        opened.export_key(&key.derive_seal()).await.unwrap();
        opened.commit(Changes::record(vec![draft(20), draft(21)])).await.unwrap();
        let report = opened.verify().await.unwrap();
        assert!(report.ok && report.entries == 2 + 3 * (n as u64 + 1), "{report:?}");
        (store, slots, old) = (opened, loaded, new);
    }
    store.close().await.unwrap();
    // The segments are checked, each with its own key.
    for seq in [1i64, 2, 4, 7] {
        let mut conn = raw(&home.paths.db(), &third.derive_db()).await.unwrap();
        let edit = "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'ok', 'no') AS BLOB) WHERE seq = ?1";
        sqlx::query(edit).bind(seq).execute(&mut conn).await.unwrap();
        sqlx::Connection::close(conn).await.unwrap();
        let (store, _) = Store::open(&home.lock(), &slots, &third).await.unwrap();
        let report = store.verify().await.unwrap();
        let here = report.problems.iter().any(|p| (p.seq, p.kind) == (seq.unsigned_abs(), ProblemKind::MacMismatch));
        assert!(here, "{seq}: {report:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_rekey_that_cannot_read_an_item_leaves_the_old_vault() {
    let (home, (key, slots)) = (Home::new(), material());
    let store = home.create().await;
    let mut bad = secret(key, "bad", "x");
    if let keyward_store::Write::PutItem(item) = &mut bad {
        item.sealed[30] ^= 1;
    }
    store.commit(Changes { writes: vec![bad], entries: vec![draft(1)] }).await.unwrap();
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    let error = store.rekey(&home.lock(), &next, key, &new, rekeyed_entry()).await.unwrap_err();
    assert_eq!(error.fault().code, Code::VaultSealDamaged);
    let (store, health) = home.open().await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    assert!(store.verify().await.unwrap().ok);
    assert_eq!(files(&home.paths.data).len(), 4, "vault.db, its log, vault.slots, vault.lock");
}

#[tokio::test]
async fn a_break_survives_a_rekey() {
    let home = Home::filled(5).await;
    home.sql("UPDATE audit SET body = x'00' WHERE seq = 2").await;
    let (key, slots) = material();
    let (store, health) = home.open().await.unwrap();
    assert!(matches!(health, Health::Broken { .. }));
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    store.rekey(&home.lock(), &next, key, &new, rekeyed_entry()).await.unwrap();
    let (store, health) = Store::open(&home.lock(), &next, &new).await.unwrap();
    assert!(matches!(health, Health::Broken { .. }) && store.is_broken());
}

/// A vault with a backup of its state at entry 2, and four entries in all.
/// Why a backup of these bytes is not read.
pub(crate) fn refused(home: &Home, bytes: &[u8]) -> Code {
    let bad = home.root.join("bad");
    fs::write(&bad, bytes).unwrap();
    Backup::read(&bad).map(|_| ()).unwrap_err().fault().code
}

/// One bit changed, and the rest cut off, all over the file: each is found.
#[track_caller]
pub(crate) fn damage_is_found(whole: &[u8], code: impl Fn(&[u8]) -> Code) {
    for at in (0..whole.len()).step_by(whole.len() / 61) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        assert_eq!(code(&bytes), Code::VaultBackupDamaged, "byte {at}");
        assert_eq!(code(&whole[..at]), Code::VaultBackupDamaged, "cut at {at}");
    }
}

async fn backed_up() -> (Home, std::path::PathBuf) {
    let (home, (key, slots)) = (Home::new(), material());
    let store = home.create().await;
    store.commit(Changes { writes: everything(key), entries: vec![draft(1)] }).await.unwrap();
    let file = home.root.join("backup");
    store.backup(slots, &file).await.unwrap();
    let gone = keyward_store::Write::RemoveRun([2; 16]);
    store.commit(Changes { writes: vec![gone], entries: vec![draft(2), draft(3)] }).await.unwrap();
    store.close().await.unwrap();
    (home, file)
}

#[tokio::test]
async fn a_restore_brings_everything_back_and_shows_its_gap_for_ever() {
    let (home, file) = backed_up().await;
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let backup = Backup::read(&file).unwrap();
    let key = backup.slots().open_passphrase(&passphrase(PASSPHRASE)).unwrap();
    let refused = restore(&home.lock(), &backup, &key, 99, false, None).await.unwrap_err();
    assert_eq!(refused.fault().code, Code::VaultExists);
    assert!(home.open().await.unwrap().0.verify().await.unwrap().ok, "untouched");

    let done = restore(&home.lock(), &backup, &key, 99, true, None).await.unwrap();
    assert_eq!((done.from, done.anchor_seq, done.epoch), (2, 4, 2));
    let aside = done.moved_to.unwrap();
    assert_eq!(fs::metadata(&aside).unwrap().mode() & 0o777, 0o700);
    assert!(files(&aside).len() >= 3, "{:?}", files(&aside));
    let slots = load_slots(&home.paths).unwrap();
    assert_eq!(slots.epoch(), 2);
    let (store, health) = Store::open(&home.lock(), &slots, &key).await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    assert_eq!(value(&store, &key, "pg-dev-name").await, "hunter2-value");
    assert_eq!(store.runs().await.unwrap().len(), 1);
    for _ in 0..2 {
        let report = store.verify().await.unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!(report.gaps, [RestoreGap { seq: 3, from: 2, anchor_seq: 4 }]);
        store.commit(Changes::record(vec![draft(50)])).await.unwrap();
    }
    // What was moved aside keeps its passphrase, so a rekey names it.
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    let done = store.rekey(&home.lock(), &next, &key, &new, rekeyed_entry()).await.unwrap();
    assert_eq!(done.older_copies, [aside]);
}

#[tokio::test]
async fn a_restore_into_an_empty_home_makes_the_vault() {
    let (home, file) = backed_up().await;
    let there = Home::new();
    let (key, _) = material();
    let done = restore(&there.lock(), &Backup::read(&file).unwrap(), key, 99, false, None).await.unwrap();
    assert_eq!((done.from, done.anchor_seq, done.moved_to), (2, 0, None));
    let (store, _) = there.open().await.unwrap();
    assert!(store.verify().await.unwrap().ok);
    drop(home);
}

#[tokio::test]
async fn a_restore_from_before_a_rekey_opens_with_the_passphrase_of_that_time_and_a_later_epoch() {
    let (home, file) = backed_up().await;
    let (key, slots) = material();
    let (store, _) = home.open().await.unwrap();
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    store.rekey(&home.lock(), &next, key, &new, rekeyed_entry()).await.unwrap();
    let backup = Backup::read(&file).unwrap();
    assert!(backup.slots().open_passphrase(&passphrase("second passphrase")).is_err());
    let error = restore(&home.lock(), &backup, &new, 99, true, None).await.unwrap_err();
    assert_eq!(error.fault().code, Code::VaultDamaged, "the key of another time does not open it");
    let (_, health) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), &new).await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 }, "untouched");
    let done = restore(&home.lock(), &backup, key, 99, true, None).await.unwrap();
    assert_eq!((done.epoch, done.anchor_seq), (2, 5), "an anchor of the other key counts for the epoch and is named");
    let (store, _) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), key).await.unwrap();
    let entry = store.entry(3).await.unwrap().unwrap().entry().unwrap();
    assert_eq!(entry.detail["anchor_verified"], false);
    assert!(store.verify().await.unwrap().ok);
}

#[tokio::test]
async fn damaged_backups_are_refused_and_no_file_is_overwritten() {
    let (home, file) = backed_up().await;
    let whole = fs::read(&file).unwrap();
    let code = |bytes: &[u8]| refused(&home, bytes);
    damage_is_found(&whole, code);
    assert_eq!(code(&[&whole[..], b"x"].concat()), Code::VaultBackupDamaged);
    assert_eq!(code(&[&whole[..17], &[0xff; 8], &whole[25..]].concat()), Code::VaultBackupDamaged);
    assert!(matches!(Backup::read(Path::new("/nonexistent/backup")), Err(StoreError::Io { .. })));

    let (store, _) = home.open().await.unwrap();
    let bad = home.root.join("bad");
    fs::write(&bad, b"precious").unwrap();
    assert!(store.backup(&material().1, &bad).await.is_err());
    assert_eq!(fs::read(&bad).unwrap(), b"precious");
    fs::set_permissions(&home.root, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(store.backup(&material().1, Path::new("/nonexistent/backup")).await.is_err());
    assert!(store.verify().await.unwrap().ok);
}
