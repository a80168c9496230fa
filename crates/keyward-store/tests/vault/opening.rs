//! Making, opening, committing, reading; and what is refused.

use crate::home::{Home, NAMES, PASSPHRASE, draft, everything, files, many, material, passphrase, raw, secret};
use keyward_core::audit::{BODY_MAX_BYTES, Draft, Kind, Outcome};
use keyward_crypto::{KdfParams, SlotError, SlotFile, VaultKey, open};
use keyward_diag::Code;
use keyward_store::{
    Changes, Filter, Grant, Health, Launcher, Order, Page, Paths, Store, StoreError, VaultLock, Write, check_folder,
    load_slots,
};
use sqlx::{Connection, Executor};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn page(order: Order) -> Page {
    Page { after: None, before: None, order, limit: 100 }
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_anew() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    let seqs = store.commit(Changes { writes: everything(key), entries: vec![draft(1), draft(2)] }).await.unwrap();
    assert_eq!(seqs, [2, 3]);
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.commit(Changes::record(vec![draft(9)])).await, Err(StoreError::Unusable(_))));
    drop(store);

    let (store, health) = home.open().await.unwrap();
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    let items = store.items("secret").await.unwrap();
    assert_eq!((items.len(), items[0].name.as_str(), items[0].created_us), (1, "pg-dev-name", 5));
    let item = store.item("secret", "pg-dev-name").await.unwrap().unwrap();
    let plain = open(&key.derive_seal(), &item.info.as_ref(), &item.sealed).unwrap();
    assert!(plain.expose(|p| p == b"hunter2-value"));
    assert_eq!(store.profile("profile-name").await.unwrap().unwrap().body, "kind = \"static\"");
    assert_eq!(store.profiles().await.unwrap().len(), 1);
    assert_eq!(store.runs().await.unwrap()[0].body, "run-body-text");
    assert_eq!(store.meta("broker.boot").await.unwrap(), Some(vec![1, 2]));
    assert_eq!(store.meta("nothing").await.unwrap(), None);
    let (report, head) = (store.verify().await.unwrap(), store.head().await);
    assert!(report.ok && report.problems.is_empty() && report.anchor.state == "ok", "{report:?}");
    assert_eq!((report.entries, report.head.seq, head.seq, report.anchor.seq), (3, 3, 3, Some(3)));

    let gone = vec![Write::RemoveItem(items[0].id), Write::RemoveProfile([1; 16]), Write::RemoveRun([2; 16])];
    store.commit(Changes { writes: gone, entries: vec![draft(3)] }).await.unwrap();
    assert!(store.items("secret").await.unwrap().is_empty());
    assert!(store.profiles().await.unwrap().is_empty() && store.runs().await.unwrap().is_empty());
    assert_eq!(store.args_digest(&["a"]).len(), 32);
}

#[tokio::test]
async fn launchers_are_kept_replaced_and_removed_and_their_names_are_unique() {
    let home = Home::new();
    let store = home.create().await;
    let launcher = |id, name: &str, launched_us| Launcher {
        id: [id; 16],
        name: name.to_owned(),
        body: format!("body of {name}"),
        created_us: 1,
        updated_us: 2,
        launched_us,
    };
    let commit =
        async |store: &Store, write| store.commit(Changes { writes: vec![write], entries: vec![draft(1)] }).await;
    commit(&store, Write::PutLauncher(launcher(1, "b", None))).await.unwrap();
    commit(&store, Write::PutLauncher(launcher(2, "a", Some(-3)))).await.unwrap();
    assert!(matches!(commit(&store, Write::PutLauncher(launcher(3, "a", None))).await, Err(StoreError::NameTaken)));
    commit(&store, Write::PutLauncher(launcher(1, "c", Some(9)))).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let (store, _) = home.open().await.unwrap();
    assert_eq!(store.launchers().await.unwrap(), [launcher(2, "a", Some(-3)), launcher(1, "c", Some(9))]);
    commit(&store, Write::RemoveLauncher([2; 16])).await.unwrap();
    assert_eq!(store.launchers().await.unwrap(), [launcher(1, "c", Some(9))]);
}

#[tokio::test]
async fn grants_are_kept_replaced_and_removed() {
    let home = Home::new();
    let store = home.create().await;
    let grant = |id, body: &str| Grant { id: [id; 5], body: body.to_owned() };
    let writes = [(1, "one"), (2, "two"), (1, "three")].map(|(id, body)| Write::PutGrant(grant(id, body)));
    store.commit(Changes { writes: writes.to_vec(), entries: vec![draft(1)] }).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let (store, _) = home.open().await.unwrap();
    assert_eq!(store.grants().await.unwrap(), [grant(1, "three"), grant(2, "two")]);
    store.commit(Changes { writes: vec![Write::RemoveGrant([2; 5])], entries: vec![draft(1)] }).await.unwrap();
    assert_eq!(store.grants().await.unwrap(), [grant(1, "three")]);
}

#[tokio::test]
async fn the_first_entry_names_the_export_key_that_is_sealed_inside() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    let first = store.entry(1).await.unwrap().unwrap().entry().unwrap();
    assert_eq!(first.kind, Kind::VaultInitialised);
    let public = store.export_key(&key.derive_seal()).await.unwrap().public();
    assert_eq!(first.detail["export_key"], public.to_string());
    assert!(store.export_key(&key.derive_db()).await.is_err(), "another key does not open it");
}

#[tokio::test]
async fn entries_are_filtered_and_paged() {
    let home = Home::new();
    let store = home.create().await;
    let drafts = vec![
        Draft::new(1_000_000, Kind::RunStarted).app("psql", true).profile("a").run("r1").project("/p"),
        Draft::new(2_000_000, Kind::RunEnded).app("psql", true).profile("b").run("r1"),
        Draft::new(3_000_000, Kind::RequestRefused).outcome(Outcome::Refused).app("x'y\"", false),
    ];
    store.commit(Changes::record(drafts)).await.unwrap();
    let seqs = async |page: Page, filter: Filter| -> Vec<u64> {
        store.entries(page, &filter).await.unwrap().iter().map(|l| l.seq).collect()
    };
    let all = Filter::default;
    assert_eq!(seqs(page(Order::OldestFirst), all()).await, [1, 2, 3, 4]);
    assert_eq!(seqs(page(Order::NewestFirst), all()).await, [4, 3, 2, 1]);
    assert_eq!(seqs(Page { after: Some(1), before: Some(4), ..page(Order::OldestFirst) }, all()).await, [2, 3]);
    assert_eq!(seqs(Page { limit: 1, ..page(Order::NewestFirst) }, all()).await, [4]);
    let text = |t: &str| Some(t.to_owned());
    for (filter, want) in [
        (Filter { app: text("psql"), ..all() }, vec![2, 3]),
        (Filter { app: text("x'y\""), ..all() }, vec![4]),
        (Filter { app: text("' OR 1 --"), ..all() }, vec![]),
        (Filter { profile: text("b"), ..all() }, vec![3]),
        (Filter { project: text("/p"), ..all() }, vec![2]),
        (Filter { run: text("r1"), ..all() }, vec![2, 3]),
        (Filter { kind: Some(Kind::RunEnded.name().to_owned()), ..all() }, vec![3]),
        (Filter { outcome: Some(Outcome::Refused), ..all() }, vec![4]),
        (Filter { since_us: Some(2_000_000), ..all() }, vec![3, 4]),
        (Filter { until_us: Some(2_000_000), ..all() }, vec![1, 2]),
        (Filter { run: text("r1"), profile: text("b"), ..all() }, vec![3]),
    ] {
        assert_eq!(seqs(page(Order::OldestFirst), filter.clone()).await, want, "{filter:?}");
    }
    assert_eq!(store.entry(5).await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_commit_changes_nothing() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    store.commit(Changes { writes: everything(key), entries: vec![draft(1)] }).await.unwrap();
    let before = store.head().await;
    let put = |writes| Changes { writes, entries: vec![draft(2)] };
    let mut twin = secret(key, "pg-dev-name", "other");
    if let Write::PutItem(item) = &mut twin {
        item.info.id = [9; 16];
    }
    let run = Write::RemoveRun([2; 16]);
    let long = draft(2).detail("long", "x".repeat(BODY_MAX_BYTES));
    assert!(matches!(
        store.commit(Changes { writes: vec![run.clone()], entries: vec![] }).await,
        Err(StoreError::Unrecorded)
    ));
    assert!(matches!(store.commit(put(vec![run.clone(), twin])).await, Err(StoreError::NameTaken)));
    assert!(matches!(
        store.commit(put(vec![run.clone(), Write::PutMeta("audit.broken".into(), vec![])])).await,
        Err(StoreError::Reserved)
    ));
    assert!(matches!(
        store.commit(Changes { writes: vec![run], entries: vec![long] }).await,
        Err(StoreError::EntryTooLong(_))
    ));
    assert_eq!(store.head().await, before);
    assert_eq!(store.runs().await.unwrap().len(), 1);
    assert_eq!(store.commit(put(vec![])).await.unwrap(), [before.seq + 1], "it goes on");
    assert!(store.verify().await.unwrap().ok);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_stop_a_commit() {
    let home = Home::new();
    let store = std::sync::Arc::new(home.create().await);
    for i in 1..20 {
        let asked = {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Changes::record(vec![draft(i)])).await })
        };
        tokio::task::yield_now().await;
        asked.abort();
        let _ = asked.await;
    }
    store.commit(Changes::record(vec![draft(99)])).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.ok, "{report:?}");
}

#[tokio::test]
async fn nothing_is_readable_without_a_key_and_every_file_is_private() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    store.commit(Changes { writes: everything(key), entries: vec![draft(1)] }).await.unwrap();
    let check = || {
        let found = files(&home.root);
        assert!(found.len() >= 4, "{found:?}");
        for path in found {
            let bytes = fs::read(&path).unwrap();
            for name in NAMES.iter().chain(&["CREATE TABLE", "vault.initialised", PASSPHRASE]) {
                assert!(!bytes.windows(name.len()).any(|w| w == name.as_bytes()), "{name} in {}", path.display());
            }
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        }
    };
    check();
    assert!(files(&home.root).iter().any(|f| f.ends_with("vault.db-wal")), "checked while the log is there");
    assert!(!files(&home.root).iter().any(|f| f.ends_with("vault.db-shm")));
    store.close().await.unwrap();
    check();
    let names: Vec<_> = files(&home.root).iter().map(|f| f.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 4, "only vault.db, vault.slots, vault.lock and anchor stay: {names:?}");
}

#[tokio::test]
async fn one_vault_has_one_writer_and_one_making() {
    let home = Home::new();
    let lock = home.lock();
    match VaultLock::acquire(&home.paths) {
        Err(e) => assert_eq!(e.fault().code, Code::VaultInUse),
        Ok(_) => panic!("two locks"),
    }
    drop(lock);
    home.create().await.close().await.unwrap();
    let (key, slots) = material();
    let again = Store::create(&home.lock(), slots, key, draft(0)).await.unwrap_err();
    assert_eq!(again.fault().code, Code::VaultExists);
    fs::remove_file(home.paths.slots()).unwrap();
    let again = Store::create(&home.lock(), slots, key, draft(0)).await.unwrap_err();
    assert_eq!(again.fault().code, Code::VaultSlotsDamaged, "a database without its slot file is never replaced");
    assert!(home.paths.db().exists());
}

#[tokio::test]
async fn absent_damaged_and_edited_slot_files_are_told_apart() {
    let home = Home::new();
    let _ = home.lock();
    let code = |home: &Home| load_slots(&home.paths).unwrap_err().fault().code;
    assert_eq!(code(&home), Code::VaultAbsent);
    home.create().await.close().await.unwrap();
    let whole = fs::read(home.paths.slots()).unwrap();
    let mut bad = whole.clone();
    bad[200] ^= 1;
    fs::write(home.paths.slots(), bad).unwrap();
    assert_eq!(code(&home), Code::VaultSlotsDamaged);
    fs::write(home.paths.slots(), String::from_utf8(whole).unwrap().replace("\"version\":1", "\"version\":9")).unwrap();
    assert_eq!(code(&home), Code::VaultSchemaNewer);
    for (error, code) in [
        (SlotError::WrongPassphrase, Code::VaultWrongPassphrase),
        (SlotError::Tampered, Code::VaultSlotsTampered),
        (SlotError::Kdf(KdfParams { m_kib: 1, t: 1, p: 1 }.check().unwrap_err()), Code::VaultKdfBounds),
    ] {
        assert_eq!(StoreError::Slots(error).fault().code, code);
    }
    for error in [SlotError::WrongPassphrase, SlotError::WrongRecovery, SlotError::Needed] {
        let fault = StoreError::Slots(error).fault();
        assert_eq!(fault.causes, [""; 0], "a cause that repeats the message: {fault}");
    }
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_or_emptied_database_are_damage_and_nothing_is_made_anew() {
    let home = Home::filled(3).await;
    let (key, slots) = material();
    let other = VaultKey::make().unwrap();
    let error = Store::open(&home.lock(), slots, &other).await.unwrap_err();
    assert_eq!(error.fault().code, Code::VaultDamaged);
    let other_slots = SlotFile::create([8; 16], key, &passphrase("x"), KdfParams::FLOOR).unwrap();
    let error = Store::open(&home.lock(), &other_slots, key).await.unwrap_err();
    assert_eq!(error.fault().code, Code::VaultDamaged, "another vault's slots");
    let whole = fs::read(home.paths.db()).unwrap();
    for bytes in [&b""[..], b"x", &whole[..4096], &whole[..whole.len() - 1]] {
        fs::write(home.paths.db(), bytes).unwrap();
        let error = home.open().await.map(|_| bytes.len()).unwrap_err();
        assert_eq!(error.fault().code, Code::VaultDamaged, "{} bytes", bytes.len());
        assert_eq!(fs::metadata(home.paths.db()).unwrap().len(), bytes.len() as u64);
    }
    fs::remove_file(home.paths.db()).unwrap();
    assert_eq!(home.open().await.unwrap_err().fault().code, Code::VaultDamaged);
    assert!(!home.paths.db().exists());
    fs::write(home.paths.db(), whole).unwrap();
    assert!(home.open().await.is_ok());
}

#[tokio::test]
async fn a_newer_or_another_schema_is_refused() {
    let home = Home::filled(2).await;
    home.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .await;
    let error = home.open().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaNewer(9999)), "{error}");
    assert_eq!(error.fault().code, Code::VaultSchemaNewer);
    home.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    home.sql("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    assert_eq!(home.open().await.unwrap_err().fault().code, Code::VaultSchemaOlder);
}

#[tokio::test]
async fn the_vaults_of_earlier_schemas_open() {
    for fixture in ["v1", "v4"] {
        let home = Home::new();
        let _ = home.lock();
        for (name, to) in
            [("vault.db", home.paths.db()), ("vault.slots", home.paths.slots()), ("anchor", home.paths.anchor())]
        {
            fs::copy(format!("{}/tests/fixtures/{fixture}/{name}", env!("CARGO_MANIFEST_DIR")), to).unwrap();
        }
        let slots = load_slots(&home.paths).unwrap();
        let key = slots.open_passphrase(&passphrase(PASSPHRASE)).unwrap();
        let (store, health) = Store::open(&home.lock(), &slots, &key).await.unwrap();
        assert_eq!(health, Health::Sound { past_anchor: 0 }, "{fixture}");
        assert!(store.verify().await.unwrap().ok);
        assert_eq!(store.profile("profile-name").await.unwrap().unwrap().id, [1; 16]);
        let item = store.item("secret", "pg-dev-name").await.unwrap().unwrap();
        assert!(open(&key.derive_seal(), &item.info.as_ref(), &item.sealed).unwrap().expose(|p| p == b"hunter2-value"));
        assert!(store.launchers().await.unwrap().is_empty() && store.grants().await.unwrap().is_empty());
    }
}

/// Writes the fixture of the current schema; run by hand when a migration is added, for the schema before it.
#[tokio::test]
#[ignore = "writes a fixture"]
async fn write_fixture() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    store.commit(Changes { writes: everything(key), entries: vec![draft(1)] }).await.unwrap();
    store.commit(Changes::record(many(40))).await.unwrap();
    store.close().await.unwrap();
    let to = format!("{}/tests/fixtures/new", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&to).unwrap();
    for from in [home.paths.db(), home.paths.slots(), home.paths.anchor()] {
        fs::copy(&from, format!("{to}/{}", from.file_name().unwrap().display())).unwrap();
    }
}

#[test]
fn folders_that_others_can_reach_are_refused() {
    let home = Home::new();
    drop(home.lock());
    for mode in [0o750, 0o705, 0o701, 0o720, 0o777] {
        fs::set_permissions(&home.paths.data, fs::Permissions::from_mode(mode)).unwrap();
        match check_folder(&home.paths.data) {
            Err(StoreError::Folder(text)) => assert!(text.contains("chmod 700"), "{text}"),
            other => panic!("{mode:o}: {other:?}"),
        }
        let fault = VaultLock::acquire(&home.paths).unwrap_err().fault();
        assert_eq!(fault.code, Code::VaultFolderUnsafe);
    }
    fs::set_permissions(&home.paths.data, fs::Permissions::from_mode(0o700)).unwrap();
    let link = home.root.join("link");
    symlink(&home.paths.data, &link).unwrap();
    check_folder(&link).unwrap();
    let through = Paths { data: link.clone(), state: home.paths.state.clone() };
    drop(VaultLock::acquire(&through).unwrap());
    fs::set_permissions(&home.paths.data, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(check_folder(&link).is_err(), "the target is judged");
    assert!(matches!(check_folder(&home.root.join("nothing")), Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn faults_and_debug_texts_hold_no_key() {
    let (home, (key, _)) = (Home::new(), material());
    let store = home.create().await;
    let hex = key.derive_db().expose(|k| k.iter().map(|b| format!("{b:02x}")).collect::<String>());
    assert!(!format!("{store:?}").contains(&hex));
    store.close().await.unwrap();
    let error = Store::open(&home.lock(), &material().1.clone(), &VaultKey::make().unwrap()).await.unwrap_err();
    assert!(!format!("{error:?} {}", error.fault()).contains(&hex));
    let mut conn = raw(&home.paths.db(), &key.derive_db()).await.unwrap();
    conn.execute("SELECT 1").await.unwrap();
    conn.close().await.unwrap();
}
