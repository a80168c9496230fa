//! `cargo xtask bench`: the figures of the release binaries, with their targets and with floors of the same run.
//!
//! Fills the log through the real command line and broker; only the append to a log of a million entries is timed by a
//! program of `keyward-store` (its example `audit_speed`). Writes `crates/BENCH.md`. Never measures a debug build. Called by
//! hand.

use crate::dist::dist;
use crate::home::Home;
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::setup::setup;
use crate::workspace::{Workspace, output, read, replace};
use keyward_api::place::Places;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod desktop;
mod gateway;
mod grants;

/// How much is measured.
struct Rounds {
    pairs: usize,
    runs: usize,
    entries: u64,
    appends: u64,
    gateway: gateway::Rounds,
    desktop: desktop::Rounds,
}

const FULL: Rounds = Rounds {
    pairs: 300,
    runs: 10_000,
    entries: 100_000,
    appends: 1_000_000,
    gateway: gateway::Rounds {
        calls: 20_000,
        slices: 5,
        events: 1_000,
        streams: (1_000, 60),
        refresh: (60, 180),
        recorded: 20,
        connections: 8_000,
        revokes: 20,
    },
    desktop: desktop::Rounds { starts: 9, changes: 20, watched: 60, entries: 1_000_000 },
};
const QUICK: Rounds = Rounds {
    pairs: 60,
    runs: 200,
    entries: 0,
    appends: 20_000,
    gateway: gateway::Rounds {
        calls: 3_000,
        slices: 3,
        events: 200,
        streams: (1_000, 5),
        refresh: (4, 12),
        recorded: 5,
        connections: 4_000,
        revokes: 5,
    },
    desktop: desktop::Rounds { starts: 3, changes: 5, watched: 10, entries: 20_000 },
};

/// A part that can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Desktop,
    Gateway,
}

/// One line of the table.
struct Row {
    what: String,
    target: &'static str,
    measured: String,
    floor: String,
    met: bool,
}

/// Measures, prints the table, and writes it to `crates/BENCH.md` unless `quick`.
///
/// Fails when a target is missed, naming it; the table is written all the same.
///
/// With `only` the figures of that part alone, and no file.
pub(crate) fn bench(workspace: &Workspace, quick: bool, only: Option<Part>) -> Result<(), String> {
    let load = read(Path::new("/proc/loadavg"))?;
    let groups: &[&str] = if only == Some(Part::Gateway) { &["build"] } else { &["build", "desktop", "screen"] };
    setup(workspace, groups, false)?;
    let bin = workspace.target.join("dist");
    dist(workspace, &bin, false)?;
    interrupt::watch();
    let home = Home::make(&bin)?;
    let measured = measure(workspace, &home, if quick { &QUICK } else { &FULL }, only);
    let closed = home.close();
    let rows = measured?;
    closed?;
    let page = page(&rows, load.split(' ').next().unwrap_or_default())?;
    print!("{page}");
    if !quick && only.is_none() {
        replace(&workspace.root.join("crates/BENCH.md"), page.as_bytes(), 0o644)?;
    }
    let missed: Vec<&str> = rows.iter().filter(|row| !row.met).map(|row| row.what.as_str()).collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("missed: {}", missed.join("; "))) }
}

fn measure(workspace: &Workspace, home: &Home, rounds: &Rounds, only: Option<Part>) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    home.keyward(&["init", "--passphrase-stdin"], &home.passphrase, 0)?;
    unlock(home)?;
    home.keyward(&["secret", "set", "bench"], "s3cret-value-0001", 0)?;
    let profile =
        "[issuer]\nkind = \"static\"\nsecret = \"secret:bench\"\n[delivery]\nmode = \"env\"\nenv = { T = \"token\" }\n";
    let file = home.root.join("project/bench.toml");
    std::fs::write(&file, profile).map_err(|e| format!("{}: {e}", file.display()))?;
    home.keyward(&["profile", "add", "bench", "--from", "bench.toml"], "", 0)?;
    match only {
        Some(Part::Desktop) => return desktop::rows(workspace, home, &rounds.desktop),
        Some(Part::Gateway) => return gateway::rows(workspace, home, &rounds.gateway),
        None => {}
    }
    let disk = Disk::of(&home.root)?;

    rows.push(overhead(home, rounds, "+ 2.0 ms", 2.0, &disk)?);
    rows.push(parallel_sets(home)?);
    rows.push(resident(home)?);
    rows.extend(federation(home, rounds)?);
    rows.push(grants::row(home)?);
    rows.push(waiting(workspace)?);
    // What a shell may do without asking ends 15 minutes after it unlocked, and the parts take minutes each.
    unlock(home)?;
    rows.extend(gateway::rows(workspace, home, &rounds.gateway)?);
    unlock(home)?;
    rows.extend(desktop::rows(workspace, home, &rounds.desktop)?);
    unlock(home)?;
    rows.push(growth(home, rounds)?);
    fill(home, rounds.entries)?;
    unlock(home)?;
    rows.push(overhead(home, rounds, "+ 2.3 ms", 2.3, &disk)?);
    rows.push(verify_rate(home)?);
    rows.push(append_ratio(workspace, home, rounds, &disk)?);
    Ok(rows)
}

/// `keyward run` against a bare exec of the same program, in interleaved pairs.
fn overhead(home: &Home, rounds: &Rounds, target: &'static str, most_ms: f64, disk: &Disk) -> Result<Row, String> {
    let entries = entries(home)?;
    let mut run = run_true(home);
    let mut bare = home.command("/bin/true");
    bare.stdout(Stdio::null()).stderr(Stdio::null());
    for _ in 0..10 {
        timed(&mut run)?;
    }
    let (mut floors, mut extras, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds.pairs {
        let floor = timed(&mut bare)?;
        extras.push(timed(&mut run)? - floor);
        floors.push(floor);
        syncs.push(disk.timed()?);
        interrupted()?;
    }
    let (floor, extra, sync) = (median(&mut floors), median(&mut extras), median(&mut syncs));
    Ok(Row {
        what: format!(
            "`keyward run -p P -- /bin/true` over bare exec, {entries} audit entries, median of {}",
            rounds.pairs
        ),
        target,
        measured: format!("+ {extra:.2} ms"),
        floor: format!("bare exec {floor:.2} ms; write and fdatasync of 4 KiB {sync:.2} ms"),
        met: extra <= most_ms,
    })
}

/// A federated profile against the sandbox: many runs at once when its credential has expired, and one after the other while
/// it is good.
fn federation(home: &Home, rounds: &Rounds) -> Result<[Row; 2], String> {
    const RUNS: usize = 100;
    let sandbox = Sandbox::start(home, &["--life", "2s", "--fast-lives"])?;
    add_federated(home, &sandbox)?;
    let mut token = home.command(home.binary("keyward"));
    token.args(["token", "federated"]).stdout(Stdio::null()).stderr(Stdio::null());
    timed(&mut token)?;
    std::thread::sleep(Duration::from_millis(2_100));
    let before = sandbox.exchanges()?;

    let mut run = home.command(home.binary("keyward"));
    run.args(["run", "-p", "federated", "--", "/bin/true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let mut children = Vec::new();
    for _ in 0..RUNS {
        children.push(run.spawn().map_err(|e| format!("keyward run: {e}"))?);
    }
    let mut succeeded = 0;
    for child in &mut children {
        succeeded += usize::from(child.wait().map_err(|e| format!("keyward run: {e}"))?.success());
    }
    let took = ms(begin.elapsed());
    let exchanges = sandbox.exchanges()? - before;
    // Bare executions in the same number and at once are what the machine needs for that alone.
    let mut bare = home.command("/bin/true");
    let begin = Instant::now();
    let mut children =
        (0..RUNS).map(|_| bare.spawn()).collect::<Result<Vec<_>, _>>().map_err(|e| format!("true: {e}"))?;
    for child in &mut children {
        child.wait().map_err(|e| format!("true: {e}"))?;
    }
    let floor = ms(begin.elapsed());
    drop(sandbox);
    let at_once = Row {
        what: format!("{RUNS} parallel runs of one federated profile whose credential has expired"),
        target: "1 exchange, all succeed, ≤ 1 s",
        measured: format!("{exchanges} exchange, {succeeded} succeeded, {took:.0} ms"),
        floor: format!("{RUNS} bare execs at once {floor:.0} ms"),
        met: exchanges == 1 && succeeded == RUNS && took <= 1_000.0,
    };

    let sandbox = Sandbox::start(home, &["--life", "1h"])?;
    home.keyward(&["profile", "remove", "federated"], "", 0)?;
    add_federated(home, &sandbox)?;
    let mut fixed = run_true(home);
    for _ in 0..10 {
        timed(&mut run)?;
    }
    let (mut floors, mut extras) = (Vec::new(), Vec::new());
    for _ in 0..rounds.pairs {
        let floor = timed(&mut fixed)?;
        extras.push(timed(&mut run)? - floor);
        floors.push(floor);
        interrupted()?;
    }
    home.keyward(&["profile", "remove", "federated"], "", 0)?;
    let (floor, extra) = (median(&mut floors), median(&mut extras));
    let cached = Row {
        what: format!("run with a cached federated credential over run with a stored one, median of {}", rounds.pairs),
        target: "≤ 0.1 ms more",
        measured: format!("{extra:+.2} ms"),
        floor: format!("run with a stored one {floor:.2} ms"),
        met: extra <= 0.1,
    };
    Ok([at_once, cached])
}

fn add_federated(home: &Home, sandbox: &Sandbox) -> Result<(), String> {
    let toml = sandbox.profile("[delivery]\nmode = \"env\"\n")?;
    home.keyward(&["profile", "add", "federated", "--from", "-"], &toml, 0).map(drop)
}

/// Many requests inside one broker that wait for the same exchange: a test of keyward-broker that prints what it saw.
fn waiting(workspace: &Workspace) -> Result<Row, String> {
    const TEST: &str = "renew::tests::ten_thousand_at_once_make_one_exchange";
    let mut test = workspace.cargo(&["test", "--release", "--quiet", "--package", "keyward-broker", "--lib", "--"]);
    let said = output(test.args([TEST, "--exact", "--nocapture"]))?;
    let line = said.lines().find(|line| line.starts_with('{')).ok_or_else(|| format!("{TEST} printed no figures"))?;
    let said: Value = serde_json::from_str(line).map_err(|e| format!("{TEST}: {e}"))?;
    let number = |key: &str| said[key].as_u64().ok_or_else(|| format!("{TEST}: {key} expected"));
    let (served, exchanges, growth) = (number("served")?, number("exchanges")?, number("growth_bytes")?);
    Ok(Row {
        what: "10,000 concurrent requests for one expired credential, inside the broker".into(),
        target: "1 exchange, ≤ 20 MB growth",
        measured: format!("{exchanges} exchange, {served} served, {:.1} MB", growth as f64 / 1e6),
        floor: "–".into(),
        met: served == 10_000 && exchanges == 1 && growth <= 20_000_000,
    })
}

/// 64 processes at once, each storing a secret of its own.
fn parallel_sets(home: &Home) -> Result<Row, String> {
    const SETS: usize = 64;
    let begin = Instant::now();
    let mut children = Vec::new();
    for n in 0..SETS {
        let mut set = home.command(home.binary("keyward"));
        set.args(["secret", "set", &format!("parallel-{n}")]);
        set.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        children.push(set.spawn().map_err(|e| format!("keyward secret set: {e}"))?);
    }
    for (n, child) in children.iter_mut().enumerate() {
        if let Some(mut stdin) = child.stdin.take() {
            // A refused one is seen in the list below.
            let _ = stdin.write_all(format!("value-{n}").as_bytes());
        }
    }
    for child in &mut children {
        child.wait().map_err(|e| format!("keyward secret set: {e}"))?;
    }
    let took = begin.elapsed();
    let list = home.keyward(&["secret", "list", "--json"], "", 0)?.json()?;
    let names = list.as_array().into_iter().flatten().filter_map(|secret| secret["name"].as_str());
    let kept = names.filter(|name| name.starts_with("parallel-")).count();
    Ok(Row {
        what: "64 parallel `secret set` from separate processes".into(),
        target: "64 kept",
        measured: format!("{kept} kept in {:.0} ms", ms(took)),
        floor: "–".into(),
        met: kept == SETS,
    })
}

/// Memory of the broker while ten runs hold a lease.
fn resident(home: &Home) -> Result<Row, String> {
    const RUNS: usize = 10;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let mut command = home.command(home.binary("keyward"));
        command.args(["run", "-p", "bench", "--", "cat"]).stdin(Stdio::piped());
        runs.push(home.start(command)?);
    }
    home.until("ten runs", || Ok(status(home)?["runs"] == RUNS))?;
    std::thread::sleep(Duration::from_secs(1));
    let status = status(home)?;
    let said = status["broker"]["rss_bytes"].as_u64().ok_or("status --json: broker.rss_bytes expected")?;
    let pid = status["broker"]["pid"].as_u64().ok_or("status --json: broker.pid expected")?;
    let seen = rss(pid)?;
    for run in runs {
        run.finish(0)?;
    }
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Ok(Row {
        what: "broker resident, idle with 10 runs".into(),
        target: "≤ 25 MB",
        measured: format!("{:.1} MB (`status` says {:.1})", mb(seen), mb(said)),
        floor: "–".into(),
        met: mb(seen.max(said)) <= 25.0,
    })
}

/// Growth of the database by many runs, against the bytes of the entries as `audit export` prints them.
fn growth(home: &Home, rounds: &Rounds) -> Result<Row, String> {
    let before = at_rest(home)?;
    runs(home, rounds.runs)?;
    let after = at_rest(home)?;
    let (entries, bytes) = (after.entries - before.entries, after.exported - before.exported);
    let grown = after.database.saturating_sub(before.database);
    let ratio = grown as f64 / bytes.max(1) as f64;
    Ok(Row {
        what: format!("growth of the database by {} runs", rounds.runs),
        target: "the audit entries alone: no more than their bytes as exported",
        measured: format!("{} KiB for {entries} entries, {ratio:.2} times their bytes", grown / 1024),
        floor: format!("entries as exported {} KiB", bytes / 1024),
        met: ratio <= 1.0,
    })
}

/// What the vault is like while no broker runs.
struct AtRest {
    entries: u64,
    exported: u64,
    database: u64,
}

/// Exports the log, stops the broker so that nothing is left to be written, and weighs the database.
fn at_rest(home: &Home) -> Result<AtRest, String> {
    let exported = home.keyward(&["audit", "export", "--passphrase-stdin"], &home.passphrase, 0)?.out.len() as u64;
    let entries = entries(home)?;
    home.keyward(&["broker", "stop"], "", 0)?;
    let data = home.keyward_home().join("data");
    let folder = std::fs::read_dir(&data).map_err(|e| format!("{}: {e}", data.display()))?;
    let files = folder.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("vault.db"));
    let database = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    unlock(home)?;
    Ok(AtRest { entries, exported, database })
}

/// Runs until the log holds `least` entries.
fn fill(home: &Home, least: u64) -> Result<(), String> {
    loop {
        let have = entries(home)?;
        if have >= least {
            return Ok(());
        }
        println!("bench: {have} of {least} entries");
        // A run makes two entries or more; too few runs only make another round.
        runs(home, usize::try_from((least - have) / 8).unwrap_or(0).clamp(100, 5_000))?;
    }
}

fn runs(home: &Home, count: usize) -> Result<(), String> {
    let mut run = run_true(home);
    for _ in 0..count {
        timed(&mut run)?;
        interrupted()?;
    }
    home.until("the end of all runs", || Ok(status(home)?["runs"] == 0))
}

/// Entries a second of `keyward audit verify`, start of the program included; best of three.
fn verify_rate(home: &Home) -> Result<Row, String> {
    let mut best = f64::INFINITY;
    let mut verify = home.command(home.binary("keyward"));
    verify.args(["audit", "verify", "--json"]).stdout(Stdio::null()).stderr(Stdio::null());
    for _ in 0..3 {
        best = best.min(timed(&mut verify)?);
    }
    let entries = entries(home)?;
    let rate = entries as f64 / best * 1e3;
    Ok(Row {
        what: format!("`audit verify` of {entries} entries"),
        target: "≥ 150,000 entries/s",
        measured: format!("{rate:.0} entries/s"),
        floor: "–".into(),
        met: rate >= 150_000.0,
    })
}

/// Time of one append to an empty log and to a long one, from the example `audit_speed` of keyward-store. It takes a folder
/// and a number of entries and prints `{"append_us_at_start": …, "append_us_at_end": …, "entries": …}`.
fn append_ratio(workspace: &Workspace, home: &Home, rounds: &Rounds, disk: &Disk) -> Result<Row, String> {
    let mut syncs = (0..101).map(|_| disk.timed()).collect::<Result<Vec<_>, _>>()?;
    let mut row = Row {
        what: format!("append to a log of {} entries over append to an empty one", rounds.appends),
        target: "ratio ≤ 1.2",
        measured: "not measured: keyward-store has no example `audit_speed`".into(),
        floor: format!("write and fdatasync of 4 KiB {:.2} ms", median(&mut syncs)),
        met: false,
    };
    if !workspace.root.join("crates/keyward-store/examples/audit_speed.rs").exists() {
        return Ok(row);
    }
    let mut speed = workspace.cargo(&[
        "run",
        "--release",
        "--quiet",
        "--package",
        "keyward-store",
        "--example",
        "audit_speed",
        "--",
    ]);
    let said = output(speed.arg(home.root.join("speed")).arg(rounds.appends.to_string()))?;
    let said: Value = serde_json::from_str(&said).map_err(|e| format!("audit_speed: {e}: {said}"))?;
    let time =
        |key: &str| said[key].as_f64().filter(|us| *us > 0.0).ok_or_else(|| format!("audit_speed: {key} expected"));
    let (start, end) = (time("append_us_at_start")?, time("append_us_at_end")?);
    let complete = said["entries"].as_u64() == Some(rounds.appends);
    row.measured = format!("{:.2} ({start:.0} µs, then {end:.0} µs)", end / start);
    row.met = complete && end / start <= 1.2;
    Ok(row)
}

/// Resident memory of a process in bytes.
fn rss(pid: u64) -> Result<u64, String> {
    let proc = read(Path::new(&format!("/proc/{pid}/status")))?;
    let kib =
        proc.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or("VmRSS expected")? * 1024)
}

fn unlock(home: &Home) -> Result<(), String> {
    home.keyward(&["unlock", "--passphrase-stdin"], &home.passphrase, 0).map(drop)
}

/// A connection to the broker of a home.
fn connect(home: &Home) -> Result<UnixStream, String> {
    let variables = home.variables();
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let places = Places::find(&variable, rustix::process::getuid().as_raw()).map_err(|e| e.to_string())?;
    UnixStream::connect(&places.socket).map_err(|e| format!("{}: {e}", places.socket.display()))
}

fn status(home: &Home) -> Result<Value, String> {
    let mut status = home.keyward(&["status", "--json"], "", 0)?.json()?;
    // `runs` may be a number or the list itself.
    if let Some(list) = status["runs"].as_array() {
        status["runs"] = list.len().into();
    }
    Ok(status)
}

fn entries(home: &Home) -> Result<u64, String> {
    let verdict = home.keyward(&["audit", "verify", "--json"], "", 0)?.json()?;
    verdict["entries"].as_u64().ok_or_else(|| format!("audit verify --json: entries expected, seen: {verdict}"))
}

fn run_true(home: &Home) -> Command {
    let mut run = home.command(home.binary("keyward"));
    run.args(["run", "-p", "bench", "--", "/bin/true"]).stdout(Stdio::null()).stderr(Stdio::null());
    run
}

/// Milliseconds from spawn to exit; another exit code than 0 is an error.
fn timed(command: &mut Command) -> Result<f64, String> {
    let begin = Instant::now();
    crate::workspace::succeed(command)?;
    Ok(ms(begin.elapsed()))
}

/// A file of one block, written again and again in place: no durable append can be quicker.
struct Disk(std::fs::File);

impl Disk {
    fn of(folder: &Path) -> Result<Self, String> {
        let path = folder.join("sync");
        let disk = Self(std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        // The first write allocates the block.
        disk.timed().map(|_| disk)
    }

    /// Milliseconds of a write of 4 KiB with fdatasync.
    fn timed(&self) -> Result<f64, String> {
        let begin = Instant::now();
        self.0
            .write_all_at(&[0x5a; 4096], 0)
            .and_then(|()| self.0.sync_data())
            .map_err(|e| format!("fdatasync: {e}"))?;
        Ok(ms(begin.elapsed()))
    }
}

fn interrupted() -> Result<(), String> {
    if interrupt::seen() { Err("interrupted".into()) } else { Ok(()) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn page(rows: &[Row], load: &str) -> Result<String, String> {
    let date = output(Command::new("date").args(["-u", "+%F"]))?;
    let kernel = read(Path::new("/proc/sys/kernel/osrelease"))?;
    let processor = read(Path::new("/proc/cpuinfo"))?;
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "# Figures\n\n\
         Written by `cargo xtask bench`, on {}, on {cores} cores of {model}, Linux {}; load average before it: {load}.\n\
         Release binaries, one run; each floor was measured beside its figure. The log was filled by `keyward run` through the broker.\n\n\
         | What | Target | Measured | Floor |\n|---|---|---|---|\n",
        date.trim(),
        kernel.trim()
    );
    for row in rows {
        let missed = if row.met { "" } else { " **missed**" };
        text.push_str(&format!("| {} | {} | {}{missed} | {} |\n", row.what, row.target, row.measured, row.floor));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_missed_target_shows_in_the_table() {
        let row = |met| Row { what: "a".into(), target: "≤ 1", measured: "2".into(), floor: "–".into(), met };
        assert!(page(&[row(false)], "0.00").is_ok_and(|text| text.contains("| a | ≤ 1 | 2 **missed** | – |")));
        assert!(page(&[row(true)], "0.00").is_ok_and(|text| !text.contains("missed")));
    }
}
