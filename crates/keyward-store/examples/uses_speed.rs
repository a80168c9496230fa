//! How fast uses of the gateway are recorded, and old entries archived: a commit each 100 ms with 500 entries of one use, then with 80
//! entries of 64 uses (more than 5,000 uses each), and archive steps of N entries under commits; milliseconds as one JSON object.
//! `cargo run --release -p keyward-store --example uses_speed -- FOLDER 8192`; the folder is made and removed.

use keyward_core::audit::{Draft, Kind, PeerFacts};
use keyward_crypto::{KdfParams, SlotFile, VaultKey};
use keyward_secret::Passphrase;
use keyward_store::{Changes, Filter, Order, Page, Paths, Store, VaultLock};
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

/// Entries that stay in the database.
const KEEP: u64 = 20_000;

/// An entry of so many uses, of one of 64 runs.
fn draft(n: u64, uses: u64) -> Draft {
    let of = |n: u64| {
        json!({"method": "POST", "host": "api.anthropic.com", "path": "/v1/messages", "status": 200,
               "request_id": format!("req_011CVLpM2b7mFZ9sYd{n:08}"), "sent": 4211, "received": 18_220 + n, "ms": 2140})
    };
    let list: Vec<Value> = (0..uses).map(|use_| of(n * uses + use_)).collect();
    Draft::new(1_795_230_245_000_000 + n.cast_signed() * 1000, Kind::CredentialUsed)
        .run(format!("018f3a3e-7c1a-7abc-8def-{:012x}", n % 64))
        .lease(format!("018f3a3e-7c1a-7abc-8def-{:012x}", n % 64 + 1000))
        .profile(["anthropic-dev", "openai"][usize::from(n.is_multiple_of(3))])
        .app(["Claude Code", "codex"][usize::from(n.is_multiple_of(2))], true)
        .project("/home/somebody/projects/something")
        .peer(PeerFacts { uid: 1000, pid: 4242, exe: Some("/usr/bin/node".to_owned()) })
        .detail("count", uses)
        .detail("uses", list)
}

/// Median and longest time of 60 commits, and the number that comes next.
async fn commits(store: &Store, mut n: u64, entries: u64, uses: u64) -> Result<(Value, u64), Box<dyn Error>> {
    let mut took = Vec::new();
    for _ in 0..60 {
        let drafts = (n..n + entries).map(|n| draft(n, uses)).collect();
        n += entries;
        let begin = Instant::now();
        store.commit(Changes::record(drafts)).await?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok((json!({"median": took[30], "longest": took[59]}), n))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(size)) = (arguments.next(), arguments.next()) else {
        return Err("FOLDER and N wanted".into());
    };
    let root = std::path::PathBuf::from(folder);
    let size = size.into_string().map_err(|_| "N is a number")?.parse::<u32>()?;
    let lock = VaultLock::acquire(&Paths { data: root.join("data"), state: root.join("state") })?;
    let key = VaultKey::make()?;
    let slots = SlotFile::create([7; 16], &key, &Passphrase::new(b"uses speed".to_vec())?, KdfParams::FLOOR)?;
    let store = std::sync::Arc::new(Store::create(&lock, &slots, &key, Draft::new(0, Kind::VaultInitialised)).await?);
    let (one_ms, n) = commits(&store, 0, 500, 1).await?;
    let (many_ms, n) = commits(&store, n, 80, 64).await?;
    let (again_ms, n) = commits(&store, n, 500, 1).await?;
    let db_bytes = std::fs::metadata(lock.paths().db())?.len();

    // Steps go on while others commit; how long those wait is what counts.
    let stepping = std::sync::Arc::clone(&store);
    let steps = tokio::spawn(async move {
        let mut took = Vec::new();
        loop {
            let begin = Instant::now();
            if !stepping.archive_step(9, KEEP, size).await? {
                return Ok::<_, keyward_store::StoreError>(took);
            }
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    });
    let (meanwhile_ms, _) = commits(&store, n, 500, 1).await?;
    let mut step_ms = steps.await??;
    step_ms.sort_by(f64::total_cmp);
    let archived: u64 =
        std::fs::read_dir(lock.paths().archive())?.flatten().flat_map(|f| f.metadata()).map(|m| m.len()).sum();

    let mut page_ms = Vec::new();
    for before in [900, 5000, 12_000] {
        let page = Page { after: None, before: Some(before), order: Order::NewestFirst, limit: 101 };
        let begin = Instant::now();
        store.entries(page, &Filter::default()).await?;
        page_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let begin = Instant::now();
    let uses = store.uses(&[Kind::CredentialUsed], &Filter::default()).await?;
    let uses_ms = begin.elapsed().as_secs_f64() * 1e3;
    let begin = Instant::now();
    let report = store.verify().await?;
    let verified = begin.elapsed().as_secs_f64();
    let said = json!({
        "commit_500_of_1_ms": one_ms,
        "commit_80_of_64_ms": many_ms,
        "commit_500_of_1_again_ms": again_ms,
        "commit_500_while_archiving_ms": meanwhile_ms,
        "archive_steps": step_ms.len(),
        "archive_step_ms": {"median": step_ms.get(step_ms.len() / 2), "longest": step_ms.last()},
        "archived_bytes": archived,
        "db_bytes": db_bytes,
        "archived_page_ms": page_ms,
        "uses_ms": uses_ms,
        "uses": uses.iter().map(|u| u.uses).sum::<u64>(),
        "entries": report.entries,
        "verified_ok": report.ok,
        "verified_per_s": report.entries as f64 / verified,
    });
    writeln!(std::io::stdout(), "{said:#}")?;
    store.close().await?;
    std::fs::remove_dir_all(&root)?;
    Ok(())
}
