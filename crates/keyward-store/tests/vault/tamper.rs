//! Whoever holds the file, even with its key, cannot change the log unseen.

use crate::home::{Home, draft, files, material, raise_epoch};
use keyward_core::audit::{Kind, ProblemKind};
use keyward_store::{Changes, Health, Order, Page, StoreError, VerifyReport, load_slots};
use std::fs;
use std::path::Path;

const N: u64 = 12;

fn found(report: &VerifyReport) -> Vec<(u64, ProblemKind)> {
    report.problems.iter().filter(|p| !p.accepted).map(|p| (p.seq, p.kind)).collect()
}

/// Opens, verifies, and checks that the answer stays the same after opening anew.
async fn examine(home: &Home) -> Vec<(u64, ProblemKind)> {
    let (store, health) = home.open().await.unwrap();
    let report = store.verify().await.unwrap();
    assert_eq!(report.ok, found(&report).is_empty());
    assert_eq!(store.is_broken(), !report.ok);
    if let Health::Broken { problems } = health {
        assert!(!problems.is_empty() && !report.ok);
    }
    assert_eq!(found(&store.verify_entries().await.unwrap()), found(&report), "no page is needed to see it");
    store.close().await.unwrap();
    if !report.ok {
        let (store, health) = home.open().await.unwrap();
        assert!(matches!(health, Health::Broken { .. }) && store.is_broken(), "it is remembered");
        assert!(!store.verify().await.unwrap().ok, "it stays found");
        store.close().await.unwrap();
    }
    found(&report)
}

/// Name, statement, and what is found.
type Case = (&'static str, &'static str, &'static [(u64, ProblemKind)]);

#[tokio::test]
async fn edits_with_the_real_key_are_found() {
    use ProblemKind::*;
    let cases: &[Case] = &[
        ("nothing", "SELECT 1", &[]),
        (
            "body",
            "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'run-4', 'run-X') AS BLOB) WHERE seq = 5",
            &[(5, MacMismatch)],
        ),
        ("mac", "UPDATE audit SET mac = zeroblob(32) WHERE seq = 5", &[(5, MacMismatch), (6, PrevMismatch)]),
        (
            "short mac",
            "UPDATE audit SET mac = substr(mac, 1, 31) WHERE seq = 5",
            &[(5, MacMismatch), (6, PrevMismatch)],
        ),
        ("prev", "UPDATE audit SET prev = zeroblob(32) WHERE seq = 5", &[(5, PrevMismatch), (5, MacMismatch)]),
        ("empty prev", "UPDATE audit SET prev = x'' WHERE seq = 5", &[(5, PrevMismatch), (5, MacMismatch)]),
        ("first removed", "DELETE FROM audit WHERE seq = 1", &[(1, Gap)]),
        ("middle removed", "DELETE FROM audit WHERE seq = 5", &[(5, Gap)]),
        (
            "middle removed and closed up",
            "DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = -seq WHERE seq > 5; UPDATE audit SET seq = -seq - 1 WHERE seq < 0",
            &[
                (5, PrevMismatch),
                (5, MacMismatch),
                (6, MacMismatch),
                (7, MacMismatch),
                (8, MacMismatch),
                (9, MacMismatch),
                (10, MacMismatch),
                (11, MacMismatch),
                (N, HeadBehindAnchor),
            ],
        ),
        ("last removed", "DELETE FROM audit WHERE seq = 12", &[(N, HeadBehindAnchor)]),
        ("tail cut", "DELETE FROM audit WHERE seq > 3", &[(N, HeadBehindAnchor)]),
        ("emptied", "DELETE FROM audit", &[(N, HeadBehindAnchor)]),
        (
            "two bodies swapped",
            "CREATE TEMP TABLE t AS SELECT * FROM audit; UPDATE audit SET body = (SELECT body FROM t WHERE t.seq = 9 - audit.seq) WHERE seq IN (4, 5)",
            &[(4, MacMismatch), (5, MacMismatch)],
        ),
        (
            "two entries swapped",
            "UPDATE audit SET seq = -5 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = -5",
            &[(4, PrevMismatch), (4, MacMismatch), (5, PrevMismatch), (5, MacMismatch), (6, PrevMismatch)],
        ),
        ("one appended", "INSERT INTO audit SELECT 13, body, mac, mac FROM audit WHERE seq = 12", &[(13, MacMismatch)]),
        (
            "one before the first",
            "INSERT INTO audit SELECT 0, body, prev, mac FROM audit WHERE seq = 1",
            &[(0, Duplicate), (0, MacMismatch)],
        ),
        (
            "one far ahead",
            "INSERT INTO audit SELECT 9223372036854775807, body, prev, mac FROM audit WHERE seq = 12",
            &[(13, Gap), (9_223_372_036_854_775_807, MacMismatch), (9_223_372_036_854_774_807, Gap)],
        ),
        (
            "epoch lowered",
            "UPDATE meta SET value = x'0000000000000000' WHERE key = 'vault.epoch'",
            &[(N, AnchorOtherEpoch)],
        ),
    ];
    for (name, sql, want) in cases {
        let home = Home::filled(N).await;
        home.sql(sql).await;
        let got = examine(&home).await;
        assert_eq!(got, *want, "{name}");
    }
}

#[tokio::test]
async fn any_number_of_entries_cut_off_is_found() {
    for cut in 1..=N {
        let home = Home::filled(N).await;
        let mut conn = home.raw().await;
        let keep = i64::try_from(N - cut).unwrap();
        sqlx::query("DELETE FROM audit WHERE seq > ?1").bind(keep).execute(&mut conn).await.unwrap();
        sqlx::Connection::close(conn).await.unwrap();
        assert_eq!(examine(&home).await, [(N, ProblemKind::HeadBehindAnchor)], "{cut} cut");
    }
}

#[tokio::test]
async fn one_bit_changed_anywhere_in_the_file_is_found_while_the_vault_is_open() {
    let home = Home::filled(N).await;
    let (store, _) = home.open().await.unwrap();
    assert!(store.verify().await.unwrap().ok);
    let (key, slots) = material();
    // The salt, every part of a page (text, initialisation vector, MAC) on the first, a middle and the last page.
    let pages = fs::metadata(home.paths.db()).unwrap().len() / 4096;
    // The salt is read when the file is opened, and by nothing that reads entries.
    flip(&home.paths.db(), 0, 0);
    assert!(store.verify_entries().await.unwrap().ok && !store.is_broken());
    flip(&home.paths.db(), 0, 0);
    let in_page = [0, 1, 15, 16, 17, 100, 2000, 4015, 4016, 4031, 4032, 4079, 4080, 4095];
    for page in [0, pages / 2, pages - 1] {
        for (n, at) in in_page.into_iter().enumerate() {
            let at = page * 4096 + at;
            flip(&home.paths.db(), at, n % 8);
            let report = store.verify().await.unwrap();
            assert!(report.problems.iter().any(|p| p.kind == ProblemKind::DatabaseDamaged), "byte {at}: {report:?}");
            assert!(!report.ok && store.is_broken());
            let error = store.accept_break(&home.lock(), slots, key, 0, "x", None).await.unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)), "damage cannot be accepted");
            flip(&home.paths.db(), at, n % 8);
            assert!(!store.verify().await.unwrap().ok, "remembered, and its mark moved into the file");
        }
    }
    store.accept_break(&home.lock(), slots, key, 0, "the disk was replaced", None).await.unwrap();
    assert!(store.verify().await.unwrap().ok);
}

/// In place, as a change of the disk is.
fn flip(path: &Path, at: u64, bit: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
}

#[tokio::test]
async fn one_bit_changed_anywhere_in_the_file_is_found_when_it_is_opened() {
    let home = Home::filled(N).await;
    let whole = fs::read(home.paths.db()).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(home.paths.db(), bad).unwrap();
        match home.open().await {
            Err(e) => assert!(matches!(e, StoreError::Damaged(_)), "byte {at}: {e}"),
            Ok((store, _)) => {
                let report = store.verify().await.unwrap();
                assert!(!report.ok, "byte {at}: {report:?}");
                store.close().await.unwrap();
            }
        }
    }
    fs::write(home.paths.db(), whole).unwrap();
    assert_eq!(examine(&home).await, []);
}

fn copy_db(home: &Home, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for from in files(&home.paths.data).into_iter().filter(|f| f.to_string_lossy().contains("vault.db")) {
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
}

fn put_back(home: &Home, from: &Path) {
    for old in files(&home.paths.data).into_iter().filter(|f| f.to_string_lossy().contains("vault.db")) {
        fs::remove_file(old).unwrap();
    }
    for file in files(from) {
        fs::copy(&file, home.paths.data.join(file.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_put_back_is_found_and_stays_found_while_it_is_used() {
    let home = Home::filled(4).await;
    let old = home.root.join("old");
    copy_db(&home, &old);
    let (store, _) = home.open().await.unwrap();
    for i in 0..3 {
        store.commit(Changes::record(vec![draft(i + 50)])).await.unwrap();
    }
    store.close().await.unwrap();
    put_back(&home, &old);

    let anchor = fs::read(home.paths.anchor()).unwrap();
    for round in 0..8 {
        let (store, health) = home.open().await.unwrap();
        assert!(matches!(health, Health::Broken { .. }), "round {round}");
        store.commit(Changes::record(vec![draft(round + 70)])).await.unwrap();
        assert!(!store.verify().await.unwrap().ok, "round {round}");
        assert_eq!(fs::read(home.paths.anchor()).unwrap(), anchor, "the anchor stays, as evidence");
        store.close().await.unwrap();
    }
    let (store, _) = home.open().await.unwrap();
    let kinds: Vec<_> = found(&store.verify().await.unwrap()).iter().map(|(_, kind)| *kind).collect();
    assert!(
        kinds.contains(&ProblemKind::AnchorOtherMac) && kinds.contains(&ProblemKind::HeadBehindAnchor),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_file_replaced_under_the_open_vault_is_found_and_nothing_more_is_committed_into_the_old_one() {
    let home = Home::filled(4).await;
    let copy = home.root.join("copy");
    copy_db(&home, &copy);
    let (store, _) = home.open().await.unwrap();
    store.commit(Changes::record(vec![draft(50)])).await.unwrap();
    put_back(&home, &copy);
    let report = store.verify().await.unwrap();
    assert!(report.problems.iter().any(|p| p.kind == ProblemKind::DatabaseReplaced), "{report:?}");
    let error = store.commit(Changes::record(vec![draft(51)])).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    drop(store);
    assert_eq!(examine(&home).await, [(5, ProblemKind::HeadBehindAnchor)]);
}

#[tokio::test]
async fn every_change_of_the_anchor_is_found_or_leaves_the_one_before() {
    let home = Home::filled(5).await;
    let anchor = home.paths.anchor();
    let whole = fs::read(&anchor).unwrap();
    let other = {
        let other = Home::filled(9).await;
        fs::read(other.paths.anchor()).unwrap()
    };
    // Another home has the same keys here, so its anchor is that of another log of the same vault.
    for (name, bytes, want) in [
        ("removed", None, ProblemKind::AnchorMissing),
        ("emptied", Some(vec![]), ProblemKind::AnchorDamaged),
        ("zeros", Some(vec![0; 256]), ProblemKind::AnchorDamaged),
        ("cut", Some(whole[..100].to_vec()), ProblemKind::AnchorDamaged),
        ("grown", Some([&whole[..], &[0]].concat()), ProblemKind::AnchorDamaged),
        ("a later one", Some(other), ProblemKind::HeadBehindAnchor),
    ] {
        let home = Home::filled(5).await;
        match bytes {
            Some(bytes) => fs::write(home.paths.anchor(), bytes).unwrap(),
            None => fs::remove_file(home.paths.anchor()).unwrap(),
        }
        let got = examine(&home).await;
        assert_eq!(got.iter().map(|p| p.1).collect::<Vec<_>>(), [want], "{name}");
    }
    // One slot torn: the other one is one entry behind, which a crash may do.
    for slot in [0, 128] {
        let mut torn = whole.clone();
        torn[slot + 40] ^= 1;
        fs::write(&anchor, torn).unwrap();
        let (store, health) = home.open().await.unwrap();
        assert!(matches!(health, Health::Sound { past_anchor: 0 | 1 }), "{health:?}");
        store.close().await.unwrap();
    }
    raise_epoch(&home, 7);
    let kinds: Vec<_> = examine(&home).await.iter().map(|p| p.1).collect();
    assert_eq!(kinds, [ProblemKind::AnchorOtherEpoch], "a slot file of a later epoch than the database");
}

#[tokio::test]
async fn accepted_breaks_stay_visible_and_new_ones_are_found() {
    let home = Home::filled(6).await;
    let (key, slots) = material();
    let (store, _) = home.open().await.unwrap();
    let error = store.accept_break(&home.lock(), slots, key, 9, "x", None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotBroken));
    store.close().await.unwrap();
    home.sql("UPDATE audit SET body = CAST('{}' AS BLOB) WHERE seq = 3; DELETE FROM audit WHERE seq > 5").await;

    let (store, _) = home.open().await.unwrap();
    let slots = store.accept_break(&home.lock(), slots, key, 9, "disk repair", None).await.unwrap();
    assert_eq!((slots.epoch(), load_slots(&home.paths).unwrap().epoch()), (2, 2));
    assert!(!store.is_broken());
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.problems.iter().any(|p| p.seq == 3 && p.accepted), "{report:?}");
    let entry = store.entry(6).await.unwrap().unwrap().entry().unwrap();
    assert_eq!((entry.kind, &entry.detail["reason"]), (Kind::AuditBreakAccepted, &"disk repair".into()));
    assert_eq!((&entry.detail["anchor_seq"], &entry.detail["head_seq"]), (&6.into(), &5.into()));
    store.commit(Changes::record(vec![draft(7)])).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(examine(&home).await, []);

    let old_slots = material().1.clone();
    keyward_store::save_slots(&home.lock(), &old_slots).unwrap();
    assert_eq!(examine(&home).await, [], "a slot file of before adds nothing that the log does not know");
    home.sql("UPDATE audit SET body = CAST('{}' AS BLOB) WHERE seq = 4").await;
    assert_eq!(examine(&home).await, [(4, ProblemKind::MacMismatch)]);
}

#[tokio::test]
async fn entries_that_were_changed_can_still_be_read() {
    let home = Home::filled(3).await;
    home.sql("UPDATE audit SET body = x'ff00' WHERE seq = 2").await;
    let (store, _) = home.open().await.unwrap();
    let page = Page { after: None, before: None, order: Order::OldestFirst, limit: 10 };
    let links = store.entries(page, &keyward_store::Filter::default()).await.unwrap();
    assert_eq!(links.len(), 3);
    assert!(links[1].entry().is_err() && links[2].entry().is_ok());
    let filter = keyward_store::Filter { run: Some("run-2".into()), ..Default::default() };
    assert_eq!(store.entries(page, &filter).await.unwrap().len(), 1);
}
