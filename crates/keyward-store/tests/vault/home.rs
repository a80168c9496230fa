//! A throw-away home with a vault in it.

use keyward_core::audit::{Draft, Kind};
use keyward_crypto::{KdfParams, SlotFile, VaultKey, seal};
use keyward_secret::{Key32, Passphrase, SecretBytes};
use keyward_store::{
    Changes, Health, Item, ItemInfo, Paths, Profile, Run, Store, StoreError, VaultLock, Write, load_slots, save_slots,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";
/// Words that must not stand in any file.
pub(crate) const NAMES: [&str; 5] = ["pg-dev-name", "profile-name", "project-name", "run-body-text", "hunter2-value"];

pub(crate) struct Home {
    pub(crate) root: PathBuf,
    pub(crate) paths: Paths,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(&std::env::temp_dir().join(format!("keyward-store-{}-{n}", std::process::id())))
    }

    pub(crate) fn at(root: &Path) -> Self {
        let paths = Paths { data: root.join("data"), state: root.join("state") };
        Self { root: root.to_owned(), paths }
    }

    pub(crate) fn lock(&self) -> VaultLock {
        VaultLock::acquire(&self.paths).unwrap()
    }

    /// A vault with the vault key and slots of [`material`], open.
    pub(crate) async fn create(&self) -> Store {
        let (key, slots) = material();
        Store::create(&self.lock(), slots, key, draft(0)).await.unwrap()
    }

    pub(crate) async fn open(&self) -> Result<(Store, Health), StoreError> {
        let (key, _) = material();
        Store::open(&self.lock(), &load_slots(&self.paths).unwrap(), key).await
    }

    /// Creates, fills with `n` entries in all, and closes.
    pub(crate) async fn filled(n: u64) -> Self {
        let home = Self::new();
        let store = home.create().await;
        for i in 1..n {
            store.commit(Changes::record(vec![draft(i)])).await.unwrap();
        }
        store.close().await.unwrap();
        home
    }

    /// A connection with the real key, past every rule of the store.
    pub(crate) async fn raw(&self) -> SqliteConnection {
        raw(&self.paths.db(), &material().0.derive_db()).await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &'static str) {
        let mut conn = self.raw().await;
        conn.execute(sql).await.unwrap();
        conn.close().await.unwrap();
    }
}

/// One vault key and slot file for all homes of this process: making them takes a key derivation.
pub(crate) fn material() -> &'static (VaultKey, SlotFile) {
    static MADE: OnceLock<(VaultKey, SlotFile)> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = VaultKey::make().unwrap();
        let slots = SlotFile::create([7; 16], &key, &passphrase(PASSPHRASE), KdfParams::FLOOR).unwrap();
        (key, slots)
    })
}

pub(crate) fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

pub(crate) fn draft(i: u64) -> Draft {
    let at = i64::try_from(i).unwrap();
    Draft::new(at, if i == 0 { Kind::VaultInitialised } else { Kind::RunStarted })
        .run(format!("run-{i}"))
        .profile("profile-name")
        .project("/home/project-name")
        .detail("n", i)
}

/// The entries of `runs` runs, half an hour apart, of several apps, profiles and projects.
pub(crate) fn many(runs: u64) -> Vec<Draft> {
    let pick = |from: &[&'static str], n: u64| from[usize::try_from(n).unwrap() % from.len()];
    let entries = |n: u64| {
        let run = format!("018f3a3e-7c1a-7abc-8def-{n:012x}");
        let app = pick(&["Claude Code", "codex", "psql"], n);
        let profile = pick(&["anthropic", "pg-dev", "pg-prod", "github", "stripe"], n / 3);
        let project = pick(&["/home/a/shop", "/home/a/\u{e9}t\u{e9} \"x\""], n / 2);
        let of = move |kind: Kind, second: i64| {
            let at = 1_795_230_245_123_456 + i64::try_from(n).unwrap() * 1_800_000_000 + second * 1_000_000;
            Draft::new(at, kind).run(&run).app(app, true).project(project)
        };
        let refused = n % 7 == 6;
        vec![
            of(Kind::RunRequested, 0)
                .detail("profiles", vec![profile])
                .detail("reason", "deploy of the \u{201e}Shop\u{201c}"),
            of(Kind::CredentialDelivered, 0).profile(profile).detail("delivery", "env"),
            of(Kind::RunStarted, 1).detail("pid", 4242),
            of(Kind::TokenDelivered, 2).profile(profile),
            of(Kind::RunEnded, 1900)
                .outcome(if refused { keyward_core::audit::Outcome::Failed } else { keyward_core::audit::Outcome::Ok })
                .detail("seconds", 1900)
                .detail("exit", u8::from(refused)),
        ]
    };
    (0..runs).flat_map(entries).collect()
}

pub(crate) fn secret(key: &VaultKey, name: &str, value: &str) -> Write {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    let info = ItemInfo { id, kind: "secret".into(), name: name.into(), generation: 1, created_us: 5, updated_us: 6 };
    let sealed = seal(&key.derive_seal(), &info.as_ref(), &SecretBytes::new(value.into()).unwrap()).unwrap();
    Write::PutItem(Item { info, sealed })
}

/// One of everything, with all of [`NAMES`].
pub(crate) fn everything(key: &VaultKey) -> Vec<Write> {
    vec![
        secret(key, "pg-dev-name", "hunter2-value"),
        Write::PutProfile(Profile {
            id: [1; 16],
            name: "profile-name".into(),
            body: "kind = \"static\"".into(),
            created_us: 1,
            updated_us: 2,
        }),
        Write::PutRun(Run { id: [2; 16], body: "run-body-text".into() }),
        Write::PutMeta("broker.boot".into(), vec![1, 2]),
    ]
}

/// Every file below a folder.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

pub(crate) async fn raw(path: &Path, key: &Key32) -> Result<SqliteConnection, sqlx::Error> {
    let mut conn = SqliteConnectOptions::new().filename(path).disable_statement_logging().connect().await?;
    let text =
        key.expose(|k| format!("PRAGMA key = \"x'{}'\"", k.iter().map(|b| format!("{b:02x}")).collect::<String>()));
    conn.execute("PRAGMA cipher_log_level = NONE").await?;
    conn.execute(sqlx::AssertSqlSafe(text)).await?;
    conn.execute("PRAGMA locking_mode = EXCLUSIVE").await?;
    conn.execute("SELECT count(*) FROM sqlite_master").await?;
    Ok(conn)
}

/// Keeps an epoch raised by a test in the slot file.
pub(crate) fn raise_epoch(home: &Home, epoch: u64) {
    let (key, slots) = material();
    save_slots(&home.lock(), &slots.clone().with_epoch(key, epoch).unwrap()).unwrap();
}
