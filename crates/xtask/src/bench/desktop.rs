//! The figures of the desktop: the packaged release build under Xvfb, and for the audit screen one that WebDriver may drive.
//!
//! A change of what is shown is seen in the picture that the display keeps, so nothing is asked of the program that is
//! measured. Called by `bench`.

use super::{Row, median, ms};
use crate::desktop;
use crate::home::{Home, Running, processes};
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::screen::{Picture, Xvfb};
use crate::ui;
use crate::webdriver::Session;
use crate::workspace::{Workspace, output, read};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Shades that letters have, and an empty window has not.
const DRAWN: usize = 32;

/// Lines of the display that change when a credential appears or goes; a word that changes takes fewer.
const CARD: usize = 40;

/// Longest wait for something to be shown.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a wait looks again.
const TICK: Duration = Duration::from_millis(1);

/// How much is measured.
pub(super) struct Rounds {
    /// Starts of the program.
    pub(super) starts: usize,
    /// Runs that begin and end in front of the window.
    pub(super) changes: usize,
    /// Seconds for which the hidden program is watched.
    pub(super) watched: u64,
    /// Entries of the log that the audit screen shows.
    pub(super) entries: u64,
}

/// Measures all of them in a home whose vault is open and has a profile `bench`.
pub(super) fn rows(workspace: &Workspace, home: &Home, rounds: &Rounds) -> Result<Vec<Row>, String> {
    let program = desktop::release(workspace, false)?;
    // The other build of the same name comes later.
    let place = home.root.join("desktop");
    std::fs::copy(&program, &place).map_err(|e| format!("{}: {e}", place.display()))?;
    let screen = Xvfb::start(&home.root)?;
    let mut rows = vec![
        starts(home, &screen, &place, rounds)?,
        changes(home, &screen, &place, rounds)?,
        cards(home, &screen, &place, rounds)?,
    ];
    rows.extend(hidden(home, &screen, &place, rounds)?);
    rows.push(bundle(workspace)?);
    rows.push(review(workspace, home, &screen, rounds)?);
    Ok(rows)
}

/// From the start of the program to the first picture with letters in its window.
fn starts(home: &Home, screen: &Xvfb, program: &Path, rounds: &Rounds) -> Result<Row, String> {
    let mut times = Vec::new();
    for round in 0..=rounds.starts {
        let empty = screen.look()?;
        let begin = Instant::now();
        let desktop = Desktop::start(home, screen, program, &[])?;
        let took = until_drawn(screen, &empty, begin)?;
        desktop.end()?;
        // The first start reads the program from the disk.
        if round > 0 {
            times.push(took);
        }
        wait("the window to go", || Ok(screen.look()? == empty))?;
    }
    let count = times.len();
    let took = median(&mut times);
    Ok(Row {
        what: format!("desktop: start to the first painted window, warm, median of {count}"),
        target: "≤ 1.5 s",
        measured: format!("{:.2} s", took / 1e3),
        floor: "–".into(),
        met: took <= 1_500.0,
    })
}

/// From the moment at which the broker issued a lease to the first picture of the window with much else in it. Before each run
/// none is alive, so nothing else appears.
fn changes(home: &Home, screen: &Xvfb, program: &Path, rounds: &Rounds) -> Result<Row, String> {
    let empty = screen.look()?;
    let desktop = Desktop::start(home, screen, program, &[])?;
    until_drawn(screen, &empty, Instant::now())?;
    let mut times = Vec::new();
    for _ in 0..rounds.changes {
        let still = settled(screen)?;
        let mut command = home.command(home.binary("keyward"));
        command.args(["run", "-p", "bench", "--", "cat"]).stdin(Stdio::piped());
        let run = home.start(command)?;
        let shown = wait("the run on the screen", || Ok(screen.look()?.differs(&still) > CARD))?;
        // The log has the moment to the microsecond, `ps` to the second.
        let issued = ["audit", "list", "--kind", "lease.issued", "--limit", "1", "--json"];
        let issued = home.keyward(&issued, "", 0)?.json()?;
        let issued = issued[0]["entry"]["at"].as_str().ok_or("audit list --json: at expected")?;
        times.push(shown - seconds(issued)?);
        run.finish(0)?;
        wait("the end of the run on the screen", || Ok(screen.look()?.differs(&still) <= CARD))?;
    }
    desktop.end()?;
    let mut times: Vec<f64> = times.into_iter().map(|s| s * 1e3).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    let took = median(&mut times);
    Ok(Row {
        what: format!("desktop: a lease issued by the broker to its place on screen, median of {}", rounds.changes),
        target: "≤ 150 ms",
        measured: format!("{took:.0} ms (longest {worst:.0})"),
        floor: "–".into(),
        met: took <= 150.0,
    })
}

/// From the moment at which the broker notes a request that nobody has granted to the first picture with letters of its card,
/// with no other window open. Each request comes from another folder, since the one that was denied is not asked again at
/// once, and from below a shell that has unlocked nothing.
fn cards(home: &Home, screen: &Xvfb, program: &Path, rounds: &Rounds) -> Result<Row, String> {
    let desktop = Desktop::start(home, screen, program, &["--hidden"])?;
    std::thread::sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for round in 0..rounds.starts {
        let empty = settled(screen)?;
        let folder = home.root.join(format!("card-{round}"));
        std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut command = home.command("sh");
        // Not the last thing that the shell does, so that it stays the parent.
        command.args(["-c", "\"$@\"; exit $?", "sh"]).arg(home.binary("keyward"));
        command.args(["run", "--wait", "-p", "bench", "--", "true"]).current_dir(&folder);
        let run = home.start(command)?;
        let mut last = None;
        let shown = wait("the card on the screen", || {
            let seen = screen.look()?;
            let drawn = seen != empty && last.as_ref() != Some(&seen) && seen.colours(DRAWN) == DRAWN;
            last = Some(seen);
            Ok(drawn)
        })?;
        let asked = home.keyward(&["approvals", "--json"], "", 0)?.json()?;
        let open = asked.as_array().into_iter().flatten().find(|one| one["state"] == "open");
        let open = open.ok_or("approvals --json: an open request expected")?;
        let at = ["audit", "list", "--kind", "approval.asked", "--limit", "1", "--json"];
        let at = home.keyward(&at, "", 0)?.json()?;
        let at = at[0]["entry"]["at"].as_str().ok_or("audit list --json: at expected")?;
        times.push((shown - seconds(at)?) * 1e3);
        home.keyward(&["deny", open["id"].as_str().unwrap_or_default()], "", 0)?;
        run.finish(125)?;
        wait("the end of the card", || Ok(screen.look()? == empty))?;
    }
    desktop.end()?;
    let worst = times.iter().copied().fold(0.0, f64::max);
    let (first, count) = (times.first().copied().unwrap_or_default(), times.len());
    let took = median(&mut times);
    Ok(Row {
        what: format!("desktop: card on screen after the request, no window before it, median of {count}"),
        target: "≤ 300 ms, the first one too",
        measured: format!("{took:.0} ms (the first {first:.0}, longest {worst:.0})"),
        floor: "–".into(),
        met: took.max(first) <= 300.0,
    })
}

/// Memory without a window, and time of the processor while five runs are alive.
fn hidden(home: &Home, screen: &Xvfb, program: &Path, rounds: &Rounds) -> Result<[Row; 2], String> {
    const RUNS: usize = 5;
    let sandbox = Sandbox::start(home, &["--life", "60s"])?;
    super::add_federated(home, &sandbox)?;
    let mut runs: Vec<Running<'_>> = Vec::new();
    for _ in 0..RUNS {
        let mut command = home.command(home.binary("keyward"));
        command.args(["run", "-p", "bench", "-p", "federated", "--", "cat"]).stdin(Stdio::piped());
        runs.push(home.start(command)?);
    }
    let desktop = Desktop::start(home, screen, program, &["--hidden"])?;
    std::thread::sleep(Duration::from_secs(3));
    let before = desktop.busy()?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(rounds.watched) {
        std::thread::sleep(Duration::from_millis(100));
        super::interrupted()?;
    }
    let share = (desktop.busy()? - before) / begin.elapsed().as_secs_f64() * 100.0;
    let (bytes, how) = desktop.memory()?;
    desktop.end()?;
    for run in runs {
        run.finish(0)?;
    }
    drop(sandbox);
    let mb = bytes as f64 / 1e6;
    Ok([
        Row {
            what: "desktop: resident with no window, all its processes".into(),
            target: "≤ 120 MB",
            measured: format!("{mb:.0} MB ({how})"),
            floor: "–".into(),
            met: mb <= 120.0,
        },
        Row {
            what: format!("desktop: processor with no window and {RUNS} live runs, over {} s", rounds.watched),
            target: "< 0.5 % of one core",
            measured: format!("{share:.2} %"),
            floor: "–".into(),
            met: share < 0.5,
        },
    ])
}

fn bundle(workspace: &Workspace) -> Result<Row, String> {
    let packed = ui::packed(workspace)?;
    Ok(Row {
        what: "desktop: the UI's files, each packed by gzip".into(),
        target: "≤ 250 kB",
        measured: format!("{:.0} kB", packed as f64 / 1e3),
        floor: "–".into(),
        met: packed <= ui::MOST_PACKED,
    })
}

/// From a click on Audit to the first picture of its entries, in a log of many. A second vault, filled by the example
/// `review_speed` of keyward-store, whose passphrase is "review speed".
fn review(workspace: &Workspace, home: &Home, screen: &Xvfb, rounds: &Rounds) -> Result<Row, String> {
    /// Clicks, and answers once a row has been drawn: the second frame begins after the first one was painted.
    const CLICK: &str = "const done = arguments[arguments.length - 1];
        const begin = performance.now();
        const look = () => {
            if (!document.querySelector('main [role=row][aria-rowindex], main [data-seq]')) return requestAnimationFrame(look);
            requestAnimationFrame(() => done(performance.now() - begin));
        };
        document.querySelector('nav [href$=audit], nav [data-screen=audit]').click();
        look();";
    const BACK: &str = "document.querySelector('nav [href$=now], nav [data-screen=now]').click()";
    let program = desktop::release(workspace, true)?;
    let vault = home.root.join("many");
    let mut fill =
        workspace.cargo(&["run", "--release", "--quiet", "--package", "keyward-store", "--example", "review_speed"]);
    let said = output(fill.arg("--").arg(&vault).arg(rounds.entries.to_string()).arg("keep"))?;
    let said: Value = serde_json::from_str(&said).map_err(|e| format!("review_speed: {e}: {said}"))?;
    let store = |key: &str| said[key].as_f64().ok_or_else(|| format!("review_speed: {key} expected"));

    let other = |program: &Path| {
        let mut command = home.command(program);
        command.env("KEYWARD_HOME", &vault);
        command
    };
    let mut unlock = other(&home.binary("keyward"));
    unlock.args(["unlock", "--passphrase-stdin"]).stdin(Stdio::piped());
    let mut unlock = unlock.spawn().map_err(|e| format!("keyward unlock: {e}"))?;
    if let Some(mut stdin) = unlock.stdin.take() {
        use std::io::Write;
        stdin.write_all(b"review speed").map_err(|e| format!("keyward unlock: {e}"))?;
    }
    if !unlock.wait().map_err(|e| format!("keyward unlock: {e}"))?.success() {
        return Err("keyward unlock of the vault with many entries failed".into());
    }
    let mut driver = other(Path::new("WebKitWebDriver"));
    driver
        .envs(screen.variables())
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", home.root.join("no-bus").display()));
    let session = Session::start(driver, &program, &home.root.join("driver.log"))?;
    wait("the window", || Ok(session.text()?.contains("Audit")))?;
    let mut times = Vec::new();
    for _ in 0..rounds.starts {
        times.push(session.run_async(CLICK)?.as_f64().ok_or("a number of milliseconds expected")?);
        session.run(BACK)?;
        super::interrupted()?;
    }
    session.end()?;
    crate::workspace::succeed(other(&home.binary("keyward")).args(["broker", "stop"]).stdout(Stdio::null()))?;
    let first = times[0];
    let took = median(&mut times);
    Ok(Row {
        what: format!(
            "desktop: the audit screen with {} entries, click to first paint, median of {}",
            rounds.entries,
            times.len()
        ),
        target: "≤ 300 ms",
        measured: format!("{took:.0} ms (the first {first:.0})"),
        floor: format!(
            "the store alone: first page {:.1} ms, rare filter {:.1} ms, histogram {:.1} ms",
            store("first_page_ms")?,
            store("rare_page_ms")?,
            store("summary_ms")?
        ),
        met: took <= 300.0 && first <= 300.0,
    })
}

/// A running desktop.
struct Desktop(Child);

impl Desktop {
    fn start(home: &Home, screen: &Xvfb, program: &Path, args: &[&str]) -> Result<Self, String> {
        let mut command = home.command(program);
        command.args(args).envs(screen.variables()).stdout(Stdio::null()).stderr(Stdio::null());
        let nowhere = format!("unix:path={}", home.root.join("no-bus").display());
        let child = command.env("DBUS_SESSION_BUS_ADDRESS", nowhere).spawn();
        child.map(Self).map_err(|e| format!("{}: {e}", desktop::NAME))
    }

    /// It and all processes below it.
    fn family(&self) -> BTreeSet<i32> {
        let all = processes();
        let mut family = BTreeSet::from([self.0.id().cast_signed()]);
        loop {
            let before = family.len();
            family.extend(all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>());
            if family.len() == before {
                return family;
            }
        }
    }

    /// Seconds of processor time that the family has used: utime and stime of `/proc/PID/stat` (proc(5)).
    fn busy(&self) -> Result<f64, String> {
        let ticks = output(Command::new("getconf").arg("CLK_TCK"))?;
        let ticks: f64 = ticks.trim().parse().map_err(|e| format!("getconf CLK_TCK: {e}"))?;
        let mut used = 0;
        for pid in self.family() {
            let stat = read(Path::new(&format!("/proc/{pid}/stat")))?;
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            used += rest.split_ascii_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(used as f64 / ticks)
    }

    /// Bytes in memory, shared ones by their part; only root may read that of a closed process, and others see the sum in
    /// which shared ones count in full.
    fn memory(&self) -> Result<(u64, &'static str), String> {
        let sum = |file: &str, key: &str| {
            self.family().into_iter().try_fold(0, |sum, pid| {
                let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"))?;
                Some(sum + line.trim().parse::<u64>().ok()? * 1024)
            })
        };
        let part = sum("smaps_rollup", "Pss:").map(|bytes| (bytes, "proportional"));
        part.or_else(|| sum("status", "VmRSS:").map(|bytes| (bytes, "resident, shared pages in full")))
            .ok_or_else(|| "the memory of the desktop cannot be read".into())
    }

    fn end(mut self) -> Result<(), String> {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            kill_process(pid, Signal::TERM).map_err(|e| format!("{}: {e}", desktop::NAME))?;
        }
        wait("the end of the desktop", || Ok(!matches!(self.0.try_wait(), Ok(None)))).map(drop)
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds from `begin` until the display shows letters.
fn until_drawn(screen: &Xvfb, empty: &Picture, begin: Instant) -> Result<f64, String> {
    let mut last = None;
    wait("a painted window", || {
        let seen = screen.look()?;
        let drawn = seen != *empty && last.as_ref() != Some(&seen) && seen.colours(DRAWN) == DRAWN;
        last = Some(seen);
        Ok(drawn)
    })?;
    Ok(ms(begin.elapsed()))
}

/// The picture, once it has stayed the same for half a second.
fn settled(screen: &Xvfb) -> Result<Picture, String> {
    let mut last = screen.look()?;
    let mut since = Instant::now();
    wait("a picture that stays", || {
        let seen = screen.look()?;
        if seen != last {
            last = seen;
            since = Instant::now();
        }
        Ok(since.elapsed() > Duration::from_millis(500))
    })?;
    Ok(last)
}

/// Waits for it; gives the seconds since 1970 of the moment at which the last look began.
fn wait(what: &str, mut done: impl FnMut() -> Result<bool, String>) -> Result<f64, String> {
    let begin = Instant::now();
    loop {
        let now = std::time::SystemTime::now();
        if done()? {
            return now.duration_since(std::time::UNIX_EPOCH).map(|d| d.as_secs_f64()).map_err(|e| e.to_string());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {} s", PATIENCE.as_secs()));
        }
        if interrupt::seen() {
            return Err("interrupted".into());
        }
        std::thread::sleep(TICK);
    }
}

/// Seconds since 1970 of a time in the form of RFC 3339.
fn seconds(time: &str) -> Result<f64, String> {
    let said = output(Command::new("date").args(["-u", "+%s.%N", "-d", time]))?;
    said.trim().parse().map_err(|e| format!("{time}: {e}"))
}
