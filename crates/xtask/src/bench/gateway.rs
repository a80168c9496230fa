//! The figures of the gateway: the release binaries, and the example `traffic` of keyward-gateway as API, bare forwarder and client.
//!
//! The client is the program of a run, since the gateway serves nobody else. Each row has a profile of its own, by which its
//! calls are found in the log: a figure whose calls are not all there is missed. Called by `bench`.

use super::{Row, interrupted, median, rss, status};
use crate::home::Home;
use crate::sandbox::Sandbox;
use crate::workspace::{Workspace, line_of, succeed};
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much is measured.
pub(super) struct Rounds {
    /// Calls of each side on one connection.
    pub(super) calls: u64,
    /// Seconds of each side with many connections.
    pub(super) slices: u64,
    /// Events of a stream.
    pub(super) events: u64,
    /// Streams at once, and how many seconds each of them lasts.
    pub(super) streams: (u64, u64),
    /// Life of a credential, and how long calls go on, in seconds.
    pub(super) refresh: (u64, u64),
    /// Seconds of calls at the rate that the log must take.
    pub(super) recorded: u64,
    /// Connections of each side.
    pub(super) connections: u64,
    /// Runs that lose their lease under calls.
    pub(super) revokes: u64,
}

/// Measures all rows.
pub(super) fn rows(workspace: &Workspace, home: &Home, rounds: &Rounds) -> Result<Vec<Row>, String> {
    let traffic = Traffic::start(workspace, home)?;
    Ok(vec![
        traffic.latency(rounds)?,
        traffic.throughput(rounds)?,
        traffic.events(rounds)?,
        traffic.streams(rounds)?,
        traffic.refresh(rounds)?,
        traffic.recorded(rounds)?,
        traffic.connections(rounds)?,
        traffic.revoked(rounds)?,
    ])
}

/// The API and the bare forwarder before it.
struct Traffic<'h> {
    home: &'h Home,
    program: PathBuf,
    api: Server,
    bare: Server,
}

impl<'h> Traffic<'h> {
    fn start(workspace: &Workspace, home: &'h Home) -> Result<Self, String> {
        let mut build = workspace.cargo(&["build", "--release", "--locked", "--package", "keyward-gateway"]);
        succeed(build.args(["--example", "traffic"]))?;
        let program = workspace.target.join("release/examples/traffic");
        let api = Server::start(home, &program, &["api"])?;
        let bare = Server::start(home, &program, &["forward", &api.address()])?;
        Ok(Self { home, program, api, bare })
    }

    /// Adds the profile of a row.
    fn profile(&self, name: &str) -> Result<(), String> {
        let address = self.api.address();
        let toml = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:bench\"\nprovider = \"anthropic\"\nbase_url = \"http://{address}\"\n[delivery]\nmode = \"gateway\"\n"
        );
        self.home.keyward(&["profile", "add", name, "--from", "-"], &toml, 0).map(drop)
    }

    /// Measures in a run of the profile; `meanwhile` is called every now and then.
    fn measure(
        &self,
        profile: &str,
        what: &[&str],
        mut meanwhile: impl FnMut() -> Result<(), String>,
    ) -> Result<Figures, String> {
        let mut run = self.home.command(self.home.binary("keyward"));
        run.args(["run", "-p", profile, "--"]).arg(&self.program).arg("measure").args(what);
        let line = line_of(&run);
        let mut child = Stopped(run.stdout(Stdio::piped()).spawn().map_err(|e| format!("{line}: {e}"))?);
        let status = loop {
            if let Some(status) = child.0.try_wait().map_err(|e| format!("{line}: {e}"))? {
                break status;
            }
            meanwhile()?;
            interrupted()?;
            std::thread::sleep(Duration::from_millis(50));
        };
        let mut said = String::new();
        if let Some(mut out) = child.0.stdout.take() {
            out.read_to_string(&mut said).map_err(|e| format!("{line}: {e}"))?;
        }
        if !status.success() {
            return Err(format!("{line}: {status}"));
        }
        serde_json::from_str(&said).map(Figures).map_err(|e| format!("{line}: {e}: {said}"))
    }

    /// As [`Traffic::measure`], with the client, the API, the bare forwarder and the broker on one CPU: on several, the time of
    /// a call is that of waking idle ones, and how many of these a call meets is the scheduler's choice and changes by the run.
    fn measure_on_one_cpu(&self, profile: &str, what: &[&str]) -> Result<Figures, String> {
        let broker = broker(self.home)?;
        let processes = [std::process::id(), self.api.process.id(), self.bare.process.id(), broker];
        let all = sched_getaffinity(None).map_err(|e| format!("sched_getaffinity: {e}"))?;
        let mut one = CpuSet::new();
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu));
        one.set(last.ok_or("sched_getaffinity: a CPU expected")?);
        let figures = place(&processes, &one).and_then(|()| self.measure(profile, what, || Ok(())));
        place(&processes, &all)?;
        figures
    }

    fn latency(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-latency")?;
        let calls = rounds.calls.to_string();
        let what = ["latency", &self.api.address(), &self.bare.address(), &calls];
        let apart = self.measure("traffic-latency", &what, || Ok(()))?;
        let figures = self.measure_on_one_cpu("traffic-latency", &what)?;
        let log = Log::of(self.home, "traffic-latency", apart.count("made")? + figures.count("made")?)?;
        let direct = figures.of("api_us")?;
        let (added, bare) = (figures.of("gateway_us")? - direct, figures.of("bare_us")? - direct);
        Ok(Row {
            what: format!(
                "gateway: added p50 at 1 connection over direct, median of {calls} calls, every use recorded; all processes on one CPU"
            ),
            target: "≤ 80 µs",
            measured: format!("+ {added:.0} µs, {}; {}", log.said(), apart.apart()?),
            floor: format!("direct {direct:.0} µs; bare hyper forwarder + {bare:.0} µs"),
            met: added <= 80.0 && log.is_whole(),
        })
    }

    fn throughput(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-many")?;
        let what = ["throughput", &self.bare.address(), "64", &rounds.slices.to_string()];
        let figures = self.measure("traffic-many", &what, || Ok(()))?;
        let (bare, through) = (figures.of("bare_per_s")?, figures.of("gateway_per_s")?);
        let log = Log::of(self.home, "traffic-many", figures.count("made")?)?;
        let ratio = through / bare;
        Ok(Row {
            what: "gateway: throughput at 64 connections over a bare hyper forwarder, every use recorded".into(),
            target: "≥ 0.5 ×",
            measured: format!("{ratio:.2} × ({through:.0} calls/s), {}", log.said()),
            floor: format!("bare hyper forwarder {bare:.0} calls/s"),
            met: ratio >= 0.5 && log.is_whole(),
        })
    }

    fn events(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-events")?;
        let count = rounds.events.to_string();
        let what = ["events", &self.api.address(), &self.bare.address(), &count, "10"];
        let apart = self.measure("traffic-events", &what, || Ok(()))?;
        let figures = self.measure_on_one_cpu("traffic-events", &what)?;
        let log = Log::of(self.home, "traffic-events", apart.count("made")? + figures.count("made")?)?;
        let direct = figures.of("api_us")?;
        let (extra, bare) = (figures.of("gateway_us")? - direct, figures.of("bare_us")? - direct);
        let (alone, together) = (figures.count("api_together")?, figures.count("gateway_together")?);
        Ok(Row {
            what: format!(
                "gateway: extra delay of an event of a stream, median of {count}, one each 10 ms; all processes on one CPU"
            ),
            target: "≤ 100 µs, no gathering",
            measured: format!("+ {extra:.0} µs, {together} came with others; {}", apart.apart()?),
            floor: format!("direct {direct:.0} µs, {alone} came with others; bare hyper forwarder + {bare:.0} µs"),
            // A pause of the machine puts a few together on any way.
            met: extra <= 100.0 && together * 100 <= rounds.events && log.is_whole(),
        })
    }

    fn streams(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-streams")?;
        let (count, seconds) = rounds.streams;
        let broker = broker(self.home)?.into();
        let (before, mut most) = (rss(broker)?, 0);
        let look = || {
            most = most.max(rss(broker)?);
            Ok(())
        };
        let figures = self.measure("traffic-streams", &["streams", &count.to_string(), &seconds.to_string()], look)?;
        let (whole, lost, mixed) = (figures.count("whole")?, figures.count("lost")?, figures.count("mixed")?);
        let mb = |bytes: u64| bytes as f64 / 1e6;
        Ok(Row {
            what: format!("gateway: {count} concurrent streams for {seconds} s, an event a second each"),
            target: "0 lost or mixed, memory of the broker ≤ 100 MB",
            measured: format!("{lost} lost, {mixed} mixed, {:.1} MB{}", mb(most), figures.why()),
            floor: format!("the broker before it {:.1} MB", mb(before)),
            met: whole == count && lost == 0 && mixed == 0 && mb(most) <= 100.0,
        })
    }

    fn refresh(&self, rounds: &Rounds) -> Result<Row, String> {
        let (life, seconds) = rounds.refresh;
        let span = format!("{life}s");
        let mut lives = vec!["--life", &span];
        if life < 60 {
            lives.push("--fast-lives");
        }
        let sandbox = Sandbox::start(self.home, &lives)?;
        let toml = sandbox.profile("[delivery]\nmode = \"gateway\"\n")?;
        self.home.keyward(&["profile", "add", "traffic-refresh", "--from", "-"], &toml, 0)?;
        let what = ["steady", "16", "200", &seconds.to_string()];
        let figures = self.measure("traffic-refresh", &what, || Ok(()))?;
        let exchanges = sandbox.exchanges()?;
        let (made, failed) = (figures.count("made")?, figures.count("failed")?);
        let log = Log::of(self.home, "traffic-refresh", made)?;
        // One to begin with, then one each half life.
        let most = 1 + 2 * seconds / life;
        Ok(Row {
            what: format!("gateway: tokens of {life} s under 200 calls/s for {seconds} s, {made} calls"),
            target: "0 failed, no more than an exchange each half life",
            measured: format!("{failed} failed, {exchanges} exchanges, {}{}", log.said(), figures.why()),
            floor: format!("longest call {:.0} ms", figures.of("longest_ms")?),
            met: failed == 0 && exchanges <= most && log.is_whole(),
        })
    }

    fn recorded(&self, rounds: &Rounds) -> Result<Row, String> {
        const RATE: f64 = 5_000.0;
        self.profile("traffic-recorded")?;
        let watch = Watch::start(self.home)?;
        let what = ["steady", "64", "5000", &rounds.recorded.to_string()];
        let figures = self.measure("traffic-recorded", &what, || Ok(()))?;
        let log = Log::of(self.home, "traffic-recorded", figures.count("made")?)?;
        let mut late = log.late(&watch.stop()?)?;
        late.sort_unstable();
        let at = |share: usize| late.get((late.len() * share / 1000).min(late.len() - 1)).copied().unwrap_or_default();
        let longest = at(1000);
        let (rate, failed) = (figures.of("per_second")?, figures.count("failed")?);
        Ok(Row {
            what: format!("gateway: audit of uses at 5,000 calls/s for {} s", rounds.recorded),
            target: "all recorded, ≤ 100 ms late",
            measured: format!(
                "{}, {longest} ms late at most, median {} ms, {rate:.0} calls/s{}",
                log.said(),
                at(500),
                figures.why()
            ),
            floor: format!("{} entries; 999 of 1,000 no more than {} ms late", log.entries.len(), at(999)),
            met: log.is_whole() && failed == 0 && longest <= 100 && rate >= 0.98 * RATE,
        })
    }

    fn connections(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-connect")?;
        let what = ["connect", &self.bare.address(), "16", &rounds.connections.to_string()];
        let figures = self.measure("traffic-connect", &what, || Ok(()))?;
        let (bare, through) = (figures.of("bare_per_s")?, figures.of("gateway_per_s")?);
        let log = Log::of(self.home, "traffic-connect", figures.count("made")?)?;
        let exact = log.entries.iter().all(|entry| entry["entry"]["detail"]["process"] == "exact");
        Ok(Row {
            what: "gateway: new connections with attribution, a call each, 16 at a time".into(),
            target: "≥ 2,000/s",
            measured: format!("{through:.0}/s, {}, process {}", log.said(), if exact { "exact" } else { "not exact" }),
            floor: format!("bare hyper forwarder {bare:.0}/s"),
            met: through >= 2_000.0 && exact && log.is_whole(),
        })
    }

    /// From the return of `keyward revoke` to the first refused call of a run that calls all the time.
    fn revoked(&self, rounds: &Rounds) -> Result<Row, String> {
        self.profile("traffic-revoke")?;
        let (mut late, mut took, mut made) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds.revokes {
            let mut run = self.home.command(self.home.binary("keyward"));
            run.args(["run", "-p", "traffic-revoke", "--"]).arg(&self.program).args(["measure", "refused"]);
            let line = line_of(&run);
            let spawned = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = Stopped(spawned.map_err(|e| format!("{line}: {e}"))?);
            // It calls once it says so; what it says at its end is the figure.
            let mut told = BufReader::new(child.0.stderr.take().ok_or_else(|| format!("{line}: no standard error"))?);
            let mut first = String::new();
            while first != "calls\n" {
                first.clear();
                if told.read_line(&mut first).map_err(|e| format!("{line}: {e}"))? == 0 {
                    return Err(format!("{line}: it ended before it was refused"));
                }
            }
            let mut revoke = self.home.command(self.home.binary("keyward"));
            revoke.args(["revoke", "traffic-revoke"]).stdout(Stdio::null());
            let begin = nanoseconds();
            // Waited for here, since the moment counts.
            let status = revoke.status().map_err(|e| format!("keyward revoke: {e}"))?;
            let returned = nanoseconds();
            if !status.success() {
                return Err(format!("keyward revoke: {status}"));
            }
            let mut said = String::new();
            if let Some(mut out) = child.0.stdout.take() {
                out.read_to_string(&mut said).map_err(|e| format!("{line}: {e}"))?;
            }
            let figures = serde_json::from_str(&said).map(Figures).map_err(|e| format!("{line}: {e}: {said}"))?;
            late.push((figures.count("at_ns")? as f64 - returned as f64) / 1e6);
            took.push((returned - begin) as f64 / 1e6);
            made += figures.count("made")?;
            interrupted()?;
        }
        let log = Log::of(self.home, "traffic-revoke", made)?;
        // The last call of each run may have been under way, and is in the log as cut.
        let whole = (made..=made + rounds.revokes).contains(&log.recorded);
        let said = if whole { "all recorded".to_owned() } else { log.said() };
        let longest = late.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Row {
            what: format!(
                "gateway: from the return of `keyward revoke` to the first refused call, a run that calls all the time, longest of {}",
                rounds.revokes
            ),
            target: "≤ 50 ms",
            measured: format!("{longest:+.1} ms, median {:+.1} ms, {said}", median(&mut late)),
            floor: format!("`keyward revoke` itself {:.1} ms", median(&mut took)),
            met: longest <= 50.0 && whole,
        })
    }
}

/// Nanoseconds of the clock that all processes of the machine share (`CLOCK_MONOTONIC`).
fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Process id of the broker.
fn broker(home: &Home) -> Result<u32, String> {
    let pid = status(home)?["broker"]["pid"].as_u64().and_then(|pid| pid.try_into().ok());
    pid.ok_or_else(|| "status --json: broker.pid expected".into())
}

/// Lets all threads of processes run on these CPUs alone.
fn place(processes: &[u32], cpus: &CpuSet) -> Result<(), String> {
    for process in processes {
        let threads = PathBuf::from(format!("/proc/{process}/task"));
        let entries = std::fs::read_dir(&threads).map_err(|e| format!("{}: {e}", threads.display()))?;
        for thread in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            match sched_setaffinity(Pid::from_raw(thread), cpus) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(format!("sched_setaffinity: {e}")),
            }
        }
    }
    Ok(())
}

/// What a measurement printed.
struct Figures(Value);

impl Figures {
    fn of(&self, name: &str) -> Result<f64, String> {
        self.0[name].as_f64().ok_or_else(|| format!("traffic: {name} expected: {}", self.0))
    }

    fn count(&self, name: &str) -> Result<u64, String> {
        self.0[name].as_u64().ok_or_else(|| format!("traffic: {name} expected: {}", self.0))
    }

    /// What was added where the scheduler placed the processes.
    fn apart(&self) -> Result<String, String> {
        let direct = self.of("api_us")?;
        let (through, bare) = (self.of("gateway_us")? - direct, self.of("bare_us")? - direct);
        Ok(format!("on any CPU + {through:.0} µs (bare + {bare:.0} µs)"))
    }

    /// Why something failed, in a few words.
    fn why(&self) -> String {
        self.0["why"].as_str().map_or_else(String::new, |why| format!(" ({})", keyward_diag::plain(why, 200)))
    }
}

/// The calls of a profile, as the log has them.
struct Log {
    entries: Vec<Value>,
    made: u64,
    recorded: u64,
}

impl Log {
    /// Exports the log until it has `made` calls of a profile, or does not get more for a while.
    fn of(home: &Home, profile: &str, made: u64) -> Result<Self, String> {
        let begin = Instant::now();
        loop {
            let export = home.keyward(&["audit", "export", "--passphrase-stdin"], &home.passphrase, 0)?.out;
            // The trailer has neither a kind nor a profile.
            let lines = export.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
            let mut entries = lines.map_err(|e| format!("audit export: {e}"))?;
            entries.retain(|line| line["entry"]["kind"] == "credential.used" && line["entry"]["profile"] == profile);
            let recorded = entries.iter().filter_map(|line| line["entry"]["detail"]["count"].as_u64()).sum();
            if recorded >= made || begin.elapsed() > Duration::from_secs(5) {
                return Ok(Self { entries, made, recorded });
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.recorded == self.made
    }

    fn said(&self) -> String {
        if self.is_whole() { "all recorded".into() } else { format!("{} of {} recorded", self.recorded, self.made) }
    }

    /// Milliseconds from the beginning of each call to the moment that its entry was durable.
    fn late(&self, durable: &[(u64, Timestamp)]) -> Result<Vec<i64>, String> {
        let mut late = Vec::new();
        for entry in &self.entries {
            let seq = entry["seq"].as_u64().ok_or("audit export: seq expected")?;
            let written = durable.get(durable.partition_point(|(newest, _)| *newest < seq));
            let (_, written) = written.ok_or_else(|| format!("no event told of the entry {seq}"))?;
            for one in entry["entry"]["detail"]["uses"].as_array().into_iter().flatten() {
                let at = one["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
                let at = at.ok_or("audit export: the time of a use expected")?;
                late.push(written.duration_since(at).as_millis().try_into().unwrap_or(i64::MAX));
            }
        }
        if late.is_empty() { Err("no use was recorded".into()) } else { Ok(late) }
    }
}

/// Notes when entries are durable: the broker's events tell so after each commit.
struct Watch {
    stream: UnixStream,
    noted: JoinHandle<Vec<(u64, Timestamp)>>,
}

impl Watch {
    fn start(home: &Home) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("/v1/events: {e}");
        let mut stream = super::connect(home)?;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: keyward\r\n\r\n").map_err(told)?;
        let mut lines = BufReader::new(stream.try_clone().map_err(told)?).lines();
        match lines.next() {
            Some(Ok(first)) if first.starts_with("HTTP/1.1 200") => {}
            other => return Err(format!("/v1/events: 200 expected: {other:?}")),
        }
        let noted = std::thread::spawn(move || {
            let mut noted = Vec::new();
            for line in lines.map_while(Result::ok) {
                let data = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
                if let Some(seq) = data.and_then(|data| data["seq"].as_u64()) {
                    noted.push((seq, Timestamp::now()));
                }
            }
            noted
        });
        Ok(Self { stream, noted })
    }

    fn stop(self) -> Result<Vec<(u64, Timestamp)>, String> {
        // A broker that closed it already has told all that it will.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.noted.join().map_err(|_| "the events were not read".to_owned())
    }
}

/// A part of `traffic` that serves; ends with its standard input.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(home: &Home, program: &PathBuf, args: &[&str]) -> Result<Self, String> {
        let mut command = home.command(program);
        let line = format!("traffic {}", args.join(" "));
        let spawned = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut server = Self { process: spawned.map_err(|e| format!("{line}: {e}"))?, port: 0 };
        let mut said = String::new();
        if let Some(out) = server.process.stdout.take() {
            BufReader::new(out).read_line(&mut said).map_err(|e| format!("{line}: {e}"))?;
        }
        server.port = said.trim().parse().map_err(|_| format!("{line}: a port expected: {said}"))?;
        Ok(server)
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It was started here and not collected yet, so the pid is still its own.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A child that is killed when it is left early.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
