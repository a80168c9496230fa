//! How fast the log is: appends, verification and opening at N entries, as one JSON object.
//! `cargo run --release -p keyward-store --example audit_speed -- FOLDER 1000000`; the folder is made and removed.

use keyward_core::audit::{Draft, Kind, PeerFacts};
use keyward_crypto::{KdfParams, SlotFile, VaultKey};
use keyward_secret::Passphrase;
use keyward_store::{Changes, Paths, Store, VaultLock};
use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

const BATCH: u64 = 100;

fn draft(i: u64) -> Draft {
    let peer = PeerFacts { uid: 1000, pid: 4242, exe: Some("/usr/bin/claude".to_owned()) };
    Draft::new(1_795_230_245_000_000 + i.cast_signed(), Kind::LeaseIssued)
        .run("018f3a3e-7c1a-7abc-8def-0123456789ab")
        .lease("018f3a3e-7c1a-7abc-8def-0123456789ac")
        .profile("anthropic-dev")
        .app("Claude Code", true)
        .project("/home/somebody/projects/something")
        .peer(peer)
        .detail("expires_in_s", 3600)
}

/// Median time of a commit with one entry.
async fn single(store: &Store) -> Result<Duration, Box<dyn Error>> {
    let mut took = Vec::new();
    for i in 0..301 {
        let start = Instant::now();
        store.commit(Changes::record(vec![draft(i)])).await?;
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(n)) = (arguments.next(), arguments.next()) else {
        return Err("FOLDER and N wanted".into());
    };
    let root = std::path::PathBuf::from(folder);
    let n = n.into_string().map_err(|_| "N is a number")?.parse::<u64>()?;
    let lock = VaultLock::acquire(&Paths { data: root.join("data"), state: root.join("state") })?;
    let key = VaultKey::make()?;
    let slots = SlotFile::create([7; 16], &key, &Passphrase::new(b"log speed".to_vec())?, KdfParams::FLOOR)?;
    let store = Store::create(&lock, &slots, &key, Draft::new(0, Kind::VaultInitialised)).await?;
    let empty = single(&store).await?;
    let start = Instant::now();
    for batch in 0..n / BATCH {
        store.commit(Changes::record((0..BATCH).map(|i| draft(batch * BATCH + i)).collect())).await?;
    }
    let filled = start.elapsed();
    let full = single(&store).await?;
    let start = Instant::now();
    let report = store.verify().await?;
    let verified = start.elapsed();
    let (start, _) = (Instant::now(), store.close().await?);
    drop(store);
    let (store, _) = Store::open(&lock, &slots, &key).await?;
    let opened = start.elapsed();
    store.close().await?;
    let size = std::fs::metadata(lock.paths().db())?.len();
    let said = serde_json::json!({
        "entries": n,
        "append_us_at_start": empty.as_secs_f64() * 1e6,
        "append_us_at_end": full.as_secs_f64() * 1e6,
        "batched_per_s": n as f64 / filled.as_secs_f64(),
        "verified_per_s": report.entries as f64 / verified.as_secs_f64(),
        "open_us": opened.as_secs_f64() * 1e6,
        "bytes_per_entry": size / report.entries,
    });
    writeln!(std::io::stdout(), "{said}")?;
    std::fs::remove_dir_all(&root)?;
    Ok(())
}
