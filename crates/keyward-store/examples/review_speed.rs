//! How fast the review is: a log of N entries over a year, as a user with several agents would have it, read in each way that the
//! review reads; milliseconds as one JSON object, each the median of several.
//! `cargo run --release -p keyward-store --example review_speed -- FOLDER 1000000`; the folder is made and removed. With `keep`
//! after it, it stays: a home whose passphrase is "review speed".

use keyward_core::audit::{Draft, Kind, Outcome, PeerFacts};
use keyward_crypto::{KdfParams, SlotFile, VaultKey};
use keyward_secret::Passphrase;
use keyward_store::{Changes, Filter, Order, Page, Paths, Store, VaultLock};
use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

/// Entries of a run.
const RUN: u64 = 7;
const HOUR_US: i64 = 3_600_000_000;
const BEGIN_US: i64 = 1_764_547_200_000_000;
/// Store time of a search in one request of the broker.
const PATIENCE: Duration = Duration::from_millis(150);

/// A generator whose numbers are the same each time (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    /// A number below `below`, small ones more often.
    fn few(&mut self, below: u64) -> u64 {
        self.any(below).min(self.any(below))
    }

    fn any(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// An app, a profile and a project by their numbers.
type Work = [u64; 3];

fn work(dice: &mut Dice) -> Work {
    [dice.few(6), dice.few(12), dice.few(15)]
}

/// The entries of run `n` of `runs`, which are spread over the hours of the working days of a year. In an hour the same four
/// things are worked on, and now and then another one; `worked` holds the hour and those.
fn run(n: u64, runs: u64, worked: &mut (u64, [Work; 4]), dice: &mut Dice) -> Vec<Draft> {
    const APPS: [&str; 6] = ["Claude Code", "codex", "psql", "gemini", "aider", "terraform"];
    let hours = 250 * 10;
    let hour = n * hours / runs;
    if worked.0 != hour {
        *worked = (hour, std::array::from_fn(|_| work(dice)));
    }
    let usual = worked.1[usize::try_from(dice.any(4)).unwrap_or(0)];
    let [app, profile, project] = if dice.any(20) == 0 { work(dice) } else { usual };
    let at =
        BEGIN_US + (hour / 10 * 24 + 8 + hour % 10).cast_signed() * HOUR_US + dice.any(3_000).cast_signed() * 1_000_000;
    let app = APPS[usize::try_from(app).unwrap_or(0)];
    // The rare one is had once in about ten thousand runs.
    let profile = if dice.any(10_000) == 0 { "pg-prod".to_owned() } else { format!("profile-{profile}") };
    let project = format!("/home/somebody/projects/project-{project}");
    let id = format!("018f3a3e-7c1a-7abc-8def-{n:012x}");
    let failed = dice.any(20) == 0;
    let of = |kind: Kind, second: i64| {
        let peer = PeerFacts { uid: 1000, pid: 4242, exe: Some("/usr/bin/claude".to_owned()) };
        Draft::new(at + second * 1_000_000, kind).run(&*id).app(app, true).project(&*project).peer(peer)
    };
    let lease = |kind: Kind, second: i64| of(kind, second).lease(&*id).profile(&*profile);
    vec![
        of(Kind::RunRequested, 0).detail("profiles", vec![&*profile]).detail("arguments", "0123456789abcdef".repeat(4)),
        of(Kind::RunDecided, 0).detail("profiles", vec![&*profile]).detail("by", "the vault is open"),
        lease(Kind::LeaseIssued, 0).detail("issuer", "static").detail("expires_at", "2026-11-21T03:04:05Z"),
        lease(Kind::CredentialDelivered, 0).detail("delivery", "env").detail("variables", vec!["ANTHROPIC_AUTH_TOKEN"]),
        of(Kind::RunStarted, 1).detail("pid", 4242),
        lease(Kind::LeaseReleased, 240).detail("delivery", "env").detail("beyond_reach", vec!["ANTHROPIC_AUTH_TOKEN"]),
        of(Kind::RunEnded, 240)
            .outcome(if failed { Outcome::Failed } else { Outcome::Ok })
            .detail("exit", i32::from(failed)),
    ]
}

/// Milliseconds of the work, the median of 9, and what it gave.
async fn timed<T>(mut work: impl AsyncFnMut() -> Result<T, Box<dyn Error>>) -> Result<(f64, T), Box<dyn Error>> {
    let mut took = Vec::new();
    loop {
        let begin = Instant::now();
        let out = work().await?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        if took.len() == 9 {
            took.sort_by(f64::total_cmp);
            return Ok((took[4], out));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(n)) = (arguments.next(), arguments.next()) else {
        return Err("FOLDER and N wanted".into());
    };
    let root = std::path::PathBuf::from(folder);
    let runs = n.into_string().map_err(|_| "N is a number")?.parse::<u64>()? / RUN;
    let lock = VaultLock::acquire(&Paths { data: root.join("data"), state: root.join("state") })?;
    let key = VaultKey::make()?;
    let slots = SlotFile::create([7; 16], &key, &Passphrase::new(b"review speed".to_vec())?, KdfParams::FLOOR)?;
    let store = Store::create(&lock, &slots, &key, Draft::new(BEGIN_US, Kind::VaultInitialised)).await?;
    let (mut dice, mut worked) = (Dice(7), (u64::MAX, [[0; 3]; 4]));
    let mut gathered = Vec::new();
    for n in 0..runs {
        gathered.extend(run(n, runs, &mut worked, &mut dice));
        if gathered.len() > 2000 || n + 1 == runs {
            store.commit(Changes::record(std::mem::take(&mut gathered))).await?;
        }
    }
    let head = store.head().await.seq;
    let text = |text: &str| Some(text.to_owned());
    let newest = Page { after: None, before: None, order: Order::NewestFirst, limit: 101 };
    let first = || async { Ok(store.entries(newest, &Filter::default()).await?.len()) };
    let (first_page_ms, _) = timed(first).await?;
    let rare = Filter { app: text("codex"), profile: text("pg-prod"), ..Filter::default() };
    let (rare_page_ms, rare_found) = timed(|| async { Ok(store.entries(newest, &rare).await?.len()) }).await?;
    let none = Filter { app: text("terraform"), profile: text("pg-prod"), kind: text("secret"), ..Filter::default() };
    let (no_match_ms, _) = timed(|| async { Ok(store.entries(newest, &none).await?.len()) }).await?;
    let deep = Page { before: Some(head / 2), ..newest };
    let common = Filter { app: text("Claude Code"), kind: text("lease"), ..Filter::default() };
    let (middle_page_ms, _) = timed(|| async { Ok(store.entries(deep, &common).await?.len()) }).await?;
    let (since_us, until_us) = (Some(BEGIN_US + 2000 * HOUR_US), Some(BEGIN_US + 2168 * HOUR_US));
    let week = Filter { since_us, until_us, app: text("codex"), ..Filter::default() };
    let (week_page_ms, _) = timed(|| async { Ok(store.entries(newest, &week).await?.len()) }).await?;
    let one_run = Filter { run: text(&format!("018f3a3e-7c1a-7abc-8def-{:012x}", runs / 3)), ..Filter::default() };
    let (run_page_ms, _) = timed(|| async { Ok(store.entries(newest, &one_run).await?.len()) }).await?;
    let (summary_ms, summary) = timed(|| async { Ok(store.summary(&Filter::default()).await?) }).await?;
    let (filtered_summary_ms, _) = timed(|| async { Ok(store.summary(&week).await?.total) }).await?;
    let used = [Kind::CredentialDelivered, Kind::TokenDelivered];
    let (apps_ms, apps) = timed(|| async { Ok(store.uses(&used, &Filter::default()).await?.len()) }).await?;
    let missing = Filter { text: text("no such words"), ..Filter::default() };
    let (search_ms, found) = timed(|| async { Ok(store.search(newest, &missing, PATIENCE).await?) }).await?;
    let searched = head - found.looked_to.unwrap_or(1);
    let begin = Instant::now();
    let whole = store.entries(newest, &missing).await?.len();
    let whole_search_ms = begin.elapsed().as_secs_f64() * 1e3;
    let begin = Instant::now();
    let report = store.verify().await?;
    let verified = begin.elapsed();
    let size = std::fs::metadata(lock.paths().db())?.len();
    let said = serde_json::json!({
        "entries": summary.entries,
        "first_page_ms": first_page_ms,
        "rare_page_ms": rare_page_ms,
        "rare_found": rare_found,
        "no_match_ms": no_match_ms,
        "middle_page_ms": middle_page_ms,
        "week_page_ms": week_page_ms,
        "run_page_ms": run_page_ms,
        "summary_ms": summary_ms,
        "filtered_summary_ms": filtered_summary_ms,
        "apps_ms": apps_ms,
        "apps": apps,
        "search_request_ms": search_ms,
        "searched_in_request": searched,
        "whole_search_ms": whole_search_ms,
        "whole_search_found": whole,
        "verified_per_s": report.entries as f64 / verified.as_secs_f64(),
        "verified_ok": report.ok,
        "bytes_per_entry": size as f64 / report.entries as f64,
    });
    writeln!(std::io::stdout(), "{said}")?;
    store.close().await?;
    if arguments.next().is_none_or(|word| word != "keep") {
        std::fs::remove_dir_all(&root)?;
    }
    Ok(())
}
