//! Old entries in archive segments: they are read, verified, moved along, and nobody changes them unseen.

use crate::home::{Home, draft, files, material, passphrase, raw};
use crate::moving::{damage_is_found, refused};
use crate::review::{adds_up, everything, filters, fits, found, odd, page, paged};
use keyward_core::audit::{Draft, Kind, ProblemKind};
use keyward_crypto::{KdfParams, VaultKey};
use keyward_diag::Code;
use keyward_store::{Backup, Changes, Filter, Health, Order, Page, Store, load_slots, restore};
use sqlx::{Connection, Executor};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

/// Entries of a segment.
const SEGMENT: u32 = 200;

async fn archive(store: &Store, entries: u32) -> u32 {
    let mut steps = 0;
    while store.archive_step(7, 0, entries).await.unwrap() {
        steps += 1;
    }
    steps
}

/// A log whose first segment of [`SEGMENT`] entries has several pieces.
async fn long() -> (Home, Store) {
    let home = Home::new();
    let store = home.create().await;
    let big = |n: u64| odd(n).detail("pad", "x".repeat(6_000));
    store.commit(Changes::record((0..60).map(big).collect())).await.unwrap();
    for n in 0..18 {
        store.commit(Changes::record((n * 100..n * 100 + 100).map(odd).collect())).await.unwrap();
    }
    (home, store)
}

/// That log with its four segments, closed.
async fn archived() -> Home {
    let (home, store) = long().await;
    assert_eq!(archive(&store, SEGMENT).await, 4);
    store.close().await.unwrap();
    home
}

/// Another home with the same files.
fn copy_of(home: &Home) -> Home {
    let copy = Home::new();
    for file in files(&home.root) {
        let to = copy.root.join(file.strip_prefix(&home.root).unwrap());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    copy
}

/// The files of the archive, by their first number.
fn segments(home: &Home) -> Vec<PathBuf> {
    let mut found = files(&home.paths.archive());
    found
        .sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().parse::<u64>().ok());
    found
}

#[tokio::test]
async fn archived_entries_are_read_in_every_way_as_they_were_before() {
    let (home, store) = long().await;
    let before = everything(&store).await;
    assert_eq!(archive(&store, SEGMENT).await, 4);
    assert_eq!(segments(&home).len(), 4);
    for file in segments(&home) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let bytes = fs::read(file).unwrap();
        assert!(!bytes.windows(5).any(|part| part == b"codex"), "a name stands in the file");
    }
    assert_eq!(fs::metadata(home.paths.archive()).unwrap().mode() & 0o777, 0o700);
    for round in 0..2 {
        let store = if round == 0 { &store } else { &home.open().await.unwrap().0 };
        let links = everything(store).await;
        assert_eq!((links.len(), &links[..before.len()]), (before.len() + 4, &before[..]));
        for link in links.iter().step_by(29) {
            assert_eq!(store.entry(link.seq).await.unwrap().as_ref(), Some(link));
        }
        let moved: Vec<_> = links[before.len()..].iter().map(|link| link.entry().unwrap()).collect();
        assert!(moved.iter().all(|entry| entry.kind == Kind::AuditArchived));
        assert_eq!((&moved[1].detail["first"], &moved[1].detail["last"]), (&201.into(), &400.into()));
        assert_eq!(store.entry(0).await.unwrap(), None);
        for filter in filters().into_iter().skip(round).step_by(2) {
            let mut want: Vec<u64> = links.iter().filter(|link| fits(&filter, link)).map(|link| link.seq).collect();
            for order in [Order::OldestFirst, Order::NewestFirst] {
                for (limit, patience) in [(70, Duration::MAX), (300, Duration::ZERO)] {
                    assert_eq!(
                        paged(store, &filter, order, limit, patience).await,
                        want,
                        "{filter:?} {order:?} {limit}"
                    );
                }
                want.reverse();
            }
        }
        // Across the border of the archive, and within it.
        for (after, before) in [(Some(795), Some(806)), (Some(199), Some(203)), (None, Some(802)), (Some(799), None)] {
            for order in [Order::OldestFirst, Order::NewestFirst] {
                let part = Page { after, before, ..page(order, 9) };
                let got = store.entries(part, &Filter::default()).await.unwrap();
                let inside = |seq: &u64| after.is_none_or(|n| *seq > n) && before.is_none_or(|n| *seq < n);
                let mut want: Vec<u64> = links.iter().map(|link| link.seq).filter(inside).collect();
                if order == Order::NewestFirst {
                    want.reverse();
                }
                want.truncate(9);
                assert_eq!(got.iter().map(|link| link.seq).collect::<Vec<_>>(), want, "{after:?} {before:?} {order:?}");
            }
        }
        adds_up(store, filters().into_iter().skip(round).step_by(2).collect()).await;
        let report = store.verify().await.unwrap();
        assert!(report.ok && report.problems.is_empty(), "{report:?}");
        assert_eq!(report.entries, links.len() as u64);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn only_whole_segments_leave_and_enough_entries_stay() {
    let (home, store) = long().await;
    // 1861 entries: 837 are older than the newest 1024.
    assert!(!store.archive_step(7, 0, 838).await.unwrap(), "not a whole one");
    assert!(!store.archive_step(7, 1662, SEGMENT).await.unwrap(), "the caller keeps more");
    assert!(!store.archive_step(7, u64::MAX, 1).await.unwrap());
    assert!(!store.archive_step(7, 0, 0).await.unwrap());
    assert_eq!(store.head().await.seq, 1861, "nothing was recorded");
    assert!(store.archive_step(7, 1661, SEGMENT).await.unwrap());
    assert!(!store.archive_step(7, 1663, SEGMENT).await.unwrap());
    store.close().await.unwrap();
    let mut conn = home.raw().await;
    let rows: (i64, i64) = sqlx::query_as("SELECT min(seq), count(*) FROM audit").fetch_one(&mut conn).await.unwrap();
    assert_eq!(rows, (201, 1662));
    conn.execute("UPDATE audit SET body = x'' WHERE seq = 300").await.unwrap();
    conn.close().await.unwrap();
    let (store, _) = home.open().await.unwrap();
    assert!(!store.verify().await.unwrap().ok);
    assert!(!store.archive_step(7, 0, SEGMENT).await.unwrap(), "a broken log stays where it is");
    let (key, slots) = material();
    store.accept_break(&home.lock(), slots, key, 9, "known", None).await.unwrap();
    // What was accepted is moved as it is, and stays accepted.
    assert!(store.archive_step(7, 0, SEGMENT).await.unwrap());
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.problems.iter().any(|p| p.seq == 300 && p.accepted), "{report:?}");
    assert_eq!(store.entry(300).await.unwrap().unwrap().body, b"");
}

#[tokio::test]
async fn commits_verification_and_steps_go_on_beside_each_other() {
    let (home, store) = long().await;
    let store = std::sync::Arc::new(store);
    let stepping = std::sync::Arc::clone(&store);
    let steps = tokio::spawn(async move {
        let mut done = 0;
        while done < 20 {
            done += u32::from(stepping.archive_step(7, 0, 40).await.unwrap());
            tokio::task::yield_now().await;
        }
    });
    let verifying = std::sync::Arc::clone(&store);
    let verified = tokio::spawn(async move {
        for _ in 0..3 {
            let report = verifying.verify_entries().await.unwrap();
            assert!(report.ok && report.problems.is_empty(), "{report:?}");
        }
    });
    for n in 0..100 {
        store.commit(Changes::record(vec![draft(n + 1)])).await.unwrap();
        tokio::task::yield_now().await;
    }
    steps.await.unwrap();
    verified.await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.entries == 1861 + 100 + 20, "{report:?}");
    assert_eq!(segments(&home).len(), 20);
}

/// What is done to the archive, and the problem that is found.
type Case = (&'static str, fn(&Home, &[PathBuf]), &'static str, (u64, ProblemKind));

#[tokio::test]
async fn whoever_changes_the_archive_is_found_and_the_rest_stays_readable() {
    use ProblemKind::{ArchiveMismatch, ArchiveMissing, Gap};
    const NOTHING: fn(&Home, &[PathBuf]) = |_, _| {};
    let cases: &[Case] = &[
        ("a file removed", |_, files| fs::remove_file(&files[1]).unwrap(), "SELECT 1", (201, ArchiveMissing)),
        ("the first one removed", |_, files| fs::remove_file(&files[0]).unwrap(), "SELECT 1", (1, ArchiveMissing)),
        ("emptied", |_, files| fs::write(&files[1], b"").unwrap(), "SELECT 1", (201, ArchiveMismatch)),
        ("cut off", |_, files| cut(&files[0], 1), "SELECT 1", (1, ArchiveMismatch)),
        ("cut off at a piece", |_, files| cut(&files[0], 190_000), "SELECT 1", (1, ArchiveMismatch)),
        (
            "a byte added",
            |_, files| fs::write(&files[2], [&fs::read(&files[2]).unwrap()[..], b"x"].concat()).unwrap(),
            "SELECT 1",
            (401, ArchiveMismatch),
        ),
        ("a bit in the first piece", |_, files| flip(&files[0], 100), "SELECT 1", (1, ArchiveMismatch)),
        ("a bit in a later piece", |_, files| flip(&files[0], 300_000), "SELECT 1", (1, ArchiveMismatch)),
        (
            "replaced by another one",
            |_, files| assert!(fs::copy(&files[2], &files[3]).unwrap() > 0),
            "SELECT 1",
            (601, ArchiveMismatch),
        ),
        (
            "a link in its place",
            |home, files| {
                let away = home.root.join("away");
                fs::rename(&files[1], &away).unwrap();
                std::os::unix::fs::symlink(&away, &files[1]).unwrap();
            },
            "SELECT 1",
            (201, ArchiveMismatch),
        ),
        (
            "a folder in its place",
            |_, files| {
                fs::remove_file(&files[1]).unwrap();
                fs::create_dir(&files[1]).unwrap();
            },
            "SELECT 1",
            (201, ArchiveMismatch),
        ),
        ("a checkpoint removed", NOTHING, "DELETE FROM audit_archive WHERE first = 201", (201, Gap)),
        ("the last checkpoint removed", NOTHING, "DELETE FROM audit_archive WHERE first = 601", (601, Gap)),
        (
            "its digest",
            NOTHING,
            "UPDATE audit_archive SET digest = zeroblob(32) WHERE first = 201",
            (201, ArchiveMismatch),
        ),
        ("its link", NOTHING, "UPDATE audit_archive SET prev = zeroblob(32) WHERE first = 201", (201, ArchiveMismatch)),
        ("its mac", NOTHING, "UPDATE audit_archive SET mac = x'' WHERE first = 201", (201, ArchiveMismatch)),
        ("its seal", NOTHING, "UPDATE audit_archive SET seal = zeroblob(32) WHERE first = 201", (201, ArchiveMismatch)),
        ("its id", NOTHING, "UPDATE audit_archive SET id = zeroblob(16) WHERE first = 201", (201, ArchiveMissing)),
        ("its pieces", NOTHING, "UPDATE audit_archive SET pieces = x'' WHERE first = 201", (201, ArchiveMismatch)),
        (
            "a piece too much",
            NOTHING,
            "UPDATE audit_archive SET pieces = CAST(pieces || x'00000000000000ff00000001' AS BLOB) WHERE first = 201",
            (201, ArchiveMismatch),
        ),
        (
            "a piece without end",
            NOTHING,
            "UPDATE audit_archive SET pieces = CAST(substr(pieces, 1, 8) || x'ffffffff' AS BLOB) WHERE first = 201",
            (201, ArchiveMismatch),
        ),
    ];
    let (key, slots) = material();
    let whole = archived().await;
    for (name, change, sql, want) in cases {
        let home = copy_of(&whole);
        change(&home, &segments(&home));
        home.sql(sql).await;
        let (store, _) = home.open().await.unwrap();
        let report = store.verify().await.unwrap();
        assert_eq!(found(&report), [*want], "{name}");
        assert!(store.is_broken(), "{name}");
        assert!(!everything(&store).await.is_empty(), "{name}: the rest can be read");
        store.close().await.unwrap();
        let (store, health) = home.open().await.unwrap();
        assert!(matches!(health, Health::Broken { .. }), "{name}: it is remembered");
        store.accept_break(&home.lock(), slots, key, 9, "looked at", None).await.unwrap();
        store.commit(Changes::record(vec![draft(70)])).await.unwrap();
        let report = store.verify().await.unwrap();
        assert!(report.ok && !store.is_broken(), "{name}: {report:?}");
        assert!(report.problems.iter().any(|p| (p.seq, p.kind) == *want && p.accepted), "{name}: {report:?}");
        adds_up(&store, vec![Filter::default()]).await;
    }
}

fn cut(file: &PathBuf, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

fn flip(file: &PathBuf, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn segments_that_change_places_and_entries_put_back_are_found() {
    let home = archived().await;
    let files = segments(&home);
    let away = home.root.join("away");
    for (from, to) in [(&files[1], &away), (&files[2], &files[1]), (&away, &files[2])] {
        fs::rename(from, to).unwrap();
    }
    let (store, _) = home.open().await.unwrap();
    let wrong = |seq| (seq, ProblemKind::ArchiveMismatch);
    assert_eq!(found(&store.verify().await.unwrap()), [wrong(201), wrong(401)]);
    store.close().await.unwrap();

    let home = archived().await;
    let (store, _) = home.open().await.unwrap();
    let old = store.entry(5).await.unwrap().unwrap();
    store.close().await.unwrap();
    let mut conn = home.raw().await;
    let put = sqlx::query("INSERT INTO audit (seq, body, prev, mac) VALUES (5, ?1, ?2, ?3), (6, ?1, ?2, ?3)");
    put.bind(old.body).bind(old.prev).bind(old.mac).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let (store, _) = home.open().await.unwrap();
    let want = [(5, ProblemKind::Duplicate), (6, ProblemKind::Duplicate), (6, ProblemKind::MacMismatch)];
    assert_eq!(found(&store.verify().await.unwrap()), want);
}

#[tokio::test]
async fn what_an_interrupted_step_left_is_removed_and_what_the_vault_does_not_hold_stays() {
    let home = archived().await;
    let folder = home.paths.archive();
    let id = "00112233445566778899aabbccddeeff";
    let names = [
        (format!("801.1000.{id}"), false), // in the database
        (format!("1.200.{id}"), false),    // in a segment
        (format!("150.900.{id}"), false),  // in both
        (format!("201.400.{id}.tmp"), false),
        (format!("1001.99999.{id}"), true),
        (format!("0.5.{id}"), true),
        (format!("9.3.{id}"), true),
        (format!("1.200.{}", "z".repeat(32)), true),
        ("notes".to_owned(), true),
    ];
    for (name, _) in &names {
        fs::write(folder.join(name), b"x").unwrap();
    }
    let (store, health) = home.open().await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    for (name, stays) in &names {
        assert_eq!(folder.join(name).exists(), *stays, "{name}");
    }
    assert!(store.verify().await.unwrap().ok);
    store.close().await.unwrap();
    // A segment without a checkpoint is evidence.
    let first = segments(&home).into_iter().find(|f| f.to_string_lossy().contains("/201.400.")).unwrap();
    home.sql("DELETE FROM audit_archive WHERE first = 201").await;
    home.open().await.unwrap().0.close().await.unwrap();
    assert!(first.exists());
}

#[tokio::test]
async fn a_rekey_seals_every_segment_anew() {
    let home = archived().await;
    let (old, slots) = material();
    let (store, _) = home.open().await.unwrap();
    let before = everything(&store).await;
    let files_before = segments(&home);
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    let entry = || Draft::new(77, Kind::VaultRekeyed);

    // One that does not open stops it, and the old vault stays.
    flip(&files_before[3], 50);
    let error = store.rekey(&home.lock(), &next, old, &new, entry()).await.unwrap_err();
    assert_eq!(error.fault().code, Code::VaultDamaged);
    flip(&files_before[3], 50);
    let (store, health) = home.open().await.unwrap();
    assert_eq!((health, segments(&home)), (Health::Sound { past_anchor: 0 }, files_before.clone()));
    assert!(store.verify().await.unwrap().ok);

    let bytes_before: Vec<_> = files_before.iter().map(|file| fs::read(file).unwrap()).collect();
    store.rekey(&home.lock(), &next, old, &new, entry()).await.unwrap();
    let (store, health) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), &new).await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    let after = segments(&home);
    assert_eq!(after.len(), 4);
    for file in &after {
        assert!(!files_before.contains(file) && !bytes_before.contains(&fs::read(file).unwrap()));
    }
    assert_eq!(everything(&store).await[..before.len()], before[..]);
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.problems.is_empty(), "{report:?}");

    // The files of before under the names of now, as somebody with the old key would put them there.
    for (bytes, file) in bytes_before.iter().zip(&after) {
        fs::write(file, bytes).unwrap();
    }
    let report = store.verify().await.unwrap();
    assert_eq!(found(&report).len(), 4);
    assert!(found(&report).iter().all(|(_, kind)| *kind == ProblemKind::ArchiveMismatch), "{report:?}");
}

#[tokio::test]
async fn a_rekey_carries_a_missing_segment_along_as_missing() {
    let home = archived().await;
    fs::remove_file(&segments(&home)[2]).unwrap();
    let (old, slots) = material();
    let (store, _) = home.open().await.unwrap();
    let new = VaultKey::make().unwrap();
    let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
    store.rekey(&home.lock(), &next, old, &new, Draft::new(77, Kind::VaultRekeyed)).await.unwrap();
    let (store, _) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), &new).await.unwrap();
    assert_eq!(found(&store.verify().await.unwrap()), [(401, ProblemKind::ArchiveMissing)]);
    assert_eq!(segments(&home).len(), 3);
}

#[tokio::test]
async fn a_rekey_makes_no_genuine_segment_of_one_that_is_not() {
    let whole = archived().await;
    type Change = fn(&PathBuf);
    let cases: [(&str, Change); 3] = [
        ("UPDATE audit_archive SET digest = zeroblob(32) WHERE first = 401", |_| {}),
        ("UPDATE audit_archive SET prev = zeroblob(32) WHERE first = 401", |_| {}),
        ("SELECT 1", |file| fs::write(file, [&fs::read(file).unwrap()[..], b"x"].concat()).unwrap()),
    ];
    for (sql, change) in cases {
        let home = copy_of(&whole);
        change(&segments(&home)[2]);
        home.sql(sql).await;
        let (old, slots) = material();
        let (store, _) = home.open().await.unwrap();
        let new = VaultKey::make().unwrap();
        let next = slots.rekey(&new, &passphrase("second passphrase"), KdfParams::FLOOR).unwrap();
        store.rekey(&home.lock(), &next, old, &new, Draft::new(77, Kind::VaultRekeyed)).await.unwrap();
        let (store, _) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), &new).await.unwrap();
        assert_eq!(found(&store.verify().await.unwrap()), [(401, ProblemKind::ArchiveMismatch)], "{sql}");
    }
}

#[tokio::test]
async fn a_backup_holds_the_archive_and_a_restore_brings_it_back() {
    let home = archived().await;
    let (key, slots) = material();
    let (store, _) = home.open().await.unwrap();
    let before = everything(&store).await;
    let file = home.root.join("backup");
    store.backup(slots, &file).await.unwrap();
    let there = Home::new();
    restore(&there.lock(), &Backup::read(&file).unwrap(), key, 99, false, None).await.unwrap();
    let (restored, health) = there.open().await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    assert_eq!(everything(&restored).await[..before.len()], before[..]);
    let report = restored.verify().await.unwrap();
    assert!(report.ok && segments(&there).len() == 4, "{report:?}");

    // Over a vault that went on, and whose archive was damaged since.
    for n in 0..6 {
        store.commit(Changes::record((n * 100..n * 100 + 100).map(odd).collect())).await.unwrap();
    }
    assert_eq!(archive(&store, SEGMENT).await, 3);
    store.close().await.unwrap();
    let damaged = segments(&home);
    flip(&damaged[0], 9);
    fs::remove_file(&damaged[1]).unwrap();
    let done = restore(&home.lock(), &Backup::read(&file).unwrap(), key, 99, true, None).await.unwrap();
    let aside = done.moved_to.unwrap().join("archive");
    assert_eq!(files(&aside).len(), 6, "what was there is kept");
    assert_ne!(fs::read(aside.join(damaged[0].file_name().unwrap())).unwrap(), fs::read(&damaged[0]).unwrap());
    let (store, _) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), key).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.gaps.len() == 1, "{report:?}");
    assert_eq!(everything(&store).await[..before.len()], before[..]);
    // The log grows into the numbers of the segments that were there, which then go.
    for n in 0..10 {
        store.commit(Changes::record((n * 100..n * 100 + 100).map(odd).collect())).await.unwrap();
    }
    archive(&store, SEGMENT).await;
    store.close().await.unwrap();
    let (store, _) = Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), key).await.unwrap();
    assert!(store.verify().await.unwrap().ok);
    let mut conn_files = segments(&home).len();
    store.close().await.unwrap();
    let mut conn = raw(&home.paths.db(), &key.derive_db()).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_archive").fetch_one(&mut conn).await.unwrap();
    conn_files -= usize::try_from(rows).unwrap();
    assert_eq!(conn_files, 0, "no other file is left");
}

#[tokio::test]
async fn damaged_backups_with_an_archive_are_refused() {
    let home = archived().await;
    let (store, _) = home.open().await.unwrap();
    let file = home.root.join("backup");
    store.backup(&material().1, &file).await.unwrap();
    let whole = fs::read(&file).unwrap();
    assert!(whole.starts_with(b"keyward backup 2\n"));
    let code = |bytes: &[u8]| refused(&home, bytes);
    damage_is_found(&whole, code);
    // Every byte of the list of segments, where a wrong length leads anywhere.
    let name = whole.windows(6).position(|part| part == b"1.200.").unwrap();
    for at in name - 16..name + 60 {
        for value in [0, 0x2f, 0xff] {
            let mut bytes = whole.clone();
            if bytes[at] != value {
                bytes[at] = value;
                assert_eq!(code(&bytes), Code::VaultBackupDamaged, "byte {at} is {value}");
            }
        }
    }
}
