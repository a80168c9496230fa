//! The process killed at every named point: `cargo test -p keyward-store --features fault-points`.

use crate::home::{Home, PASSPHRASE, draft, everything, files, passphrase};
use keyward_core::audit::{Draft, Kind};
use keyward_crypto::{KdfParams, SlotFile, VaultKey, open};
use keyward_store::{Backup, Changes, Health, Run, Store, StoreError, VaultLock, Write, load_slots, restore};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

const NEW: &str = "another passphrase";

/// Runs one step in a process of its own, which dies at `point`.
fn dies(home: &Home, step: &str, point: &str) {
    fs::create_dir_all(&home.root).unwrap();
    let file = home.root.join("fault");
    fs::write(&file, format!("nothing\n{point}\n")).unwrap();
    let out = run(home, step, Some(&file));
    assert_eq!(out.status.signal(), Some(9), "{step} at {point}: {}", String::from_utf8_lossy(&out.stdout));
    assert!(!file.exists());
}

fn lives(home: &Home, step: &str) {
    let out = run(home, step, None);
    assert!(out.status.success(), "{step}: {}", String::from_utf8_lossy(&out.stdout));
}

fn run(home: &Home, step: &str, fault: Option<&Path>) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["crash::step", "--exact", "--ignored", "--nocapture"]);
    command.env("KEYWARD_TEST_HOME", &home.root).env("KEYWARD_TEST_STEP", step).env_remove("KEYWARD_FAULT_FILE");
    if let Some(file) = fault {
        command.env("KEYWARD_FAULT_FILE", file);
    }
    command.output().unwrap()
}

#[tokio::test]
#[ignore = "run by the tests of this file"]
async fn step() {
    let root = std::env::var("KEYWARD_TEST_HOME").unwrap();
    let home = std::mem::ManuallyDrop::new(Home::at(Path::new(&root)));
    let lock = VaultLock::acquire(&home.paths).unwrap();
    let typed = passphrase(PASSPHRASE);
    match std::env::var("KEYWARD_TEST_STEP").unwrap().as_str() {
        "create" => {
            let key = VaultKey::make().unwrap();
            let slots = SlotFile::create([7; 16], &key, &typed, KdfParams::FLOOR).unwrap();
            let store = Store::create(&lock, &slots, &key, draft(0)).await.unwrap();
            store.close().await.unwrap();
        }
        "fill" => {
            let (store, key, slots) = opened(&lock, PASSPHRASE).await;
            store.commit(Changes { writes: everything(&key), entries: vec![draft(1)] }).await.unwrap();
            store.backup(&slots, &home.root.join("backup")).await.unwrap();
            store.commit(Changes::record(vec![draft(2)])).await.unwrap();
            store.close().await.unwrap();
        }
        "commit" => {
            let (store, ..) = opened(&lock, PASSPHRASE).await;
            let run = Write::PutRun(Run { id: [5; 16], body: "new".into() });
            store.commit(Changes { writes: vec![run], entries: vec![draft(3)] }).await.unwrap();
        }
        "grow" => {
            let (store, _, slots) = opened(&lock, PASSPHRASE).await;
            store.commit(Changes::record((3..1500).map(draft).collect())).await.unwrap();
            assert!(store.archive_step(8, 0, 200).await.unwrap());
            store.backup(&slots, &home.root.join("backup-grown")).await.unwrap();
            store.close().await.unwrap();
        }
        "archive" => {
            let (store, ..) = opened(&lock, PASSPHRASE).await;
            assert!(store.archive_step(9, 0, 200).await.unwrap());
            store.close().await.unwrap();
        }
        "restore-grown" => {
            let backup = Backup::read(&home.root.join("backup-grown")).unwrap();
            let key = backup.slots().open_passphrase(&typed).unwrap();
            restore(&lock, &backup, &key, 99, true, None).await.unwrap();
        }
        "rekey" => {
            let (store, old, slots) = opened(&lock, PASSPHRASE).await;
            let new = VaultKey::make().unwrap();
            let next = slots.rekey(&new, &passphrase(NEW), KdfParams::FLOOR).unwrap();
            store.rekey(&lock, &next, &old, &new, Draft::new(9, Kind::VaultRekeyed)).await.unwrap();
        }
        "restore" => {
            let backup = Backup::read(&home.root.join("backup")).unwrap();
            let key = backup.slots().open_passphrase(&typed).unwrap();
            restore(&lock, &backup, &key, 99, true, None).await.unwrap();
        }
        "accept" => {
            let (store, key, slots) = opened(&lock, PASSPHRASE).await;
            store.accept_break(&lock, &slots, &key, 9, "reason", None).await.unwrap();
        }
        other => panic!("{other}"),
    }
}

async fn opened(lock: &VaultLock, typed: &str) -> (Store, VaultKey, SlotFile) {
    let slots = load_slots(lock.paths()).unwrap();
    let key = slots.open_passphrase(&passphrase(typed)).unwrap();
    let (store, _) = Store::open(lock, &slots, &key).await.unwrap();
    (store, key, slots)
}

fn opens_with(home: &Home, typed: &str) -> bool {
    load_slots(&home.paths).unwrap().open_passphrase(&passphrase(typed)).is_ok()
}

/// Opens, checks everything, and returns the end of the log.
async fn sound(home: &Home, typed: &str) -> u64 {
    let lock = home.lock();
    let slots = load_slots(&home.paths).unwrap();
    let key = slots.open_passphrase(&passphrase(typed)).unwrap();
    let (store, health) = Store::open(&lock, &slots, &key).await.unwrap();
    assert!(matches!(health, Health::Sound { past_anchor: 0 | 1 }), "{health:?}");
    let report = store.verify().await.unwrap();
    assert!(report.ok, "{report:?}");
    for item in store.items("secret").await.unwrap() {
        let item = store.item("secret", &item.name).await.unwrap().unwrap();
        open(&key.derive_seal(), &item.info.as_ref(), &item.sealed).unwrap();
    }
    store.commit(Changes::record(vec![draft(60)])).await.unwrap();
    store.close().await.unwrap();
    for file in files(&home.root) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.contains(".new") && !name.contains(".draft"), "{name} is left");
    }
    report.head.seq
}

fn filled() -> Home {
    let home = Home::new();
    fs::create_dir_all(&home.root).unwrap();
    lives(&home, "create");
    lives(&home, "fill");
    home
}

#[tokio::test]
async fn an_interrupted_create_leaves_no_vault_and_the_next_one_works() {
    for point in
        ["commit.before", "commit.mid", "commit.entries", "commit.after", "create.db", "create.anchor", "slots.tmp"]
    {
        let home = Home::new();
        dies(&home, "create", point);
        assert!(!home.paths.vault_exists(), "{point}");
        assert!(matches!(load_slots(&home.paths), Err(StoreError::Absent(_))), "{point}");
        lives(&home, "create");
        assert_eq!(sound(&home, PASSPHRASE).await, 1, "{point}");
    }
    for point in ["slots.renamed", "finish.anchor"] {
        let home = Home::new();
        dies(&home, "create", point);
        assert_eq!(sound(&home, PASSPHRASE).await, 1, "{point}: past the commit point");
    }
}

#[tokio::test]
async fn an_interrupted_commit_is_all_or_nothing() {
    for (point, there) in [
        ("commit.before", false),
        ("commit.mid", false),
        ("commit.entries", false),
        ("commit.after", true),
        ("anchor.mid", true),
        ("anchor.after", true),
    ] {
        let home = filled();
        dies(&home, "commit", point);
        let lock = home.lock();
        let (store, ..) = opened(&lock, PASSPHRASE).await;
        let runs = store.runs().await.unwrap();
        assert_eq!(runs.iter().any(|run| run.id == [5; 16]), there, "{point}");
        store.close().await.unwrap();
        drop((store, lock));
        assert_eq!(sound(&home, PASSPHRASE).await, if there { 4 } else { 3 }, "{point}");
    }
}

#[tokio::test]
async fn an_interrupted_rekey_leaves_exactly_one_passphrase() {
    for (point, new) in [
        ("rekey.copied", false),
        ("commit.mid", false),
        ("commit.entries", false),
        ("commit.after", false),
        ("rekey.staged", false),
        ("slots.tmp", false),
        ("slots.renamed", true),
        ("finish.anchor", true),
    ] {
        let home = filled();
        dies(&home, "rekey", point);
        assert_eq!((opens_with(&home, PASSPHRASE), opens_with(&home, NEW)), (!new, new), "{point}");
        let (typed, head) = if new { (NEW, 4) } else { (PASSPHRASE, 3) };
        assert_eq!(sound(&home, typed).await, head, "{point}");
        if !new {
            lives(&home, "rekey");
            assert_eq!((opens_with(&home, PASSPHRASE), opens_with(&home, NEW)), (false, true), "{point}");
            sound(&home, NEW).await;
        }
    }
}

/// A vault with 1501 entries, 200 of them in a segment.
fn grown() -> Home {
    let home = filled();
    lives(&home, "grow");
    assert_eq!(files(&home.paths.archive()).len(), 1);
    home
}

#[tokio::test]
async fn an_interrupted_archive_step_leaves_each_entry_in_one_place() {
    for (point, there) in [
        ("archive.written", false),
        ("commit.before", false),
        ("commit.mid", false),
        ("commit.entries", false),
        ("commit.after", true),
        ("anchor.after", true),
    ] {
        let home = grown();
        dies(&home, "archive", point);
        assert_eq!(files(&home.paths.archive()).len(), 2, "{point}");
        assert_eq!(sound(&home, PASSPHRASE).await, 1501 + u64::from(there), "{point}");
        assert_eq!(files(&home.paths.archive()).len(), 1 + usize::from(there), "{point}");
        if !there {
            lives(&home, "archive");
            assert_eq!(sound(&home, PASSPHRASE).await, 1503, "{point}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_rekey_or_restore_leaves_one_whole_archive() {
    for (point, new) in
        [("rekey.archived", false), ("rekey.staged", false), ("slots.renamed", true), ("finish.anchor", true)]
    {
        let home = grown();
        let before = files(&home.paths.archive());
        dies(&home, "rekey", point);
        assert_eq!(sound(&home, if new { NEW } else { PASSPHRASE }).await, 1501 + u64::from(new), "{point}");
        let after = files(&home.paths.archive());
        assert_eq!((after.len(), after == before), (1, !new), "{point}");
    }
    for (point, restored) in
        [("restore.kept", false), ("restore.archived", false), ("restore.staged", true), ("finish.anchor", true)]
    {
        let home = grown();
        dies(&home, "restore-grown", point);
        assert_eq!(sound(&home, PASSPHRASE).await, 1501 + u64::from(restored), "{point}");
        assert_eq!(files(&home.paths.archive()).len(), 1, "{point}");
    }
}

#[tokio::test]
async fn an_interrupted_restore_leaves_one_whole_vault_and_loses_none() {
    for (point, restored) in [
        ("commit.mid", false),
        ("commit.after", false),
        ("restore.kept", false),
        // The vault key is the same, so the staged vault counts; the one before lies aside.
        ("restore.staged", true),
        ("slots.tmp", true),
        ("slots.renamed", true),
        ("finish.anchor", true),
    ] {
        let home = filled();
        dies(&home, "restore", point);
        assert_eq!(sound(&home, PASSPHRASE).await, 3, "{point}");
        let lock = home.lock();
        let (store, ..) = opened(&lock, PASSPHRASE).await;
        let third = store.entry(3).await.unwrap().unwrap().entry().unwrap();
        assert_eq!(third.kind == Kind::VaultRestored, restored, "{point}");
        store.close().await.unwrap();
        if restored {
            let aside = files(&home.paths.data).into_iter().filter(|f| f.to_string_lossy().contains("replaced-"));
            assert!(aside.count() >= 3, "{point}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_acceptance_is_done_or_to_be_done_again() {
    for point in ["commit.before", "commit.entries", "commit.after", "slots.tmp", "slots.renamed"] {
        let home = filled();
        fs::remove_file(home.paths.anchor()).unwrap();
        dies(&home, "accept", point);
        let lock = home.lock();
        let slots = load_slots(&home.paths).unwrap();
        let key = slots.open_passphrase(&passphrase(PASSPHRASE)).unwrap();
        let (store, health) = Store::open(&lock, &slots, &key).await.unwrap();
        let done = point.starts_with("slots.");
        assert_eq!(matches!(health, Health::Sound { .. }), done, "{point}: {health:?}");
        store.close().await.unwrap();
        drop((store, lock));
        if !done {
            lives(&home, "accept");
        }
        sound(&home, PASSPHRASE).await;
    }
}
