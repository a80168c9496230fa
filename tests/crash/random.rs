//! Two hundred kills at random moments, spread over four homes in which secrets are set and runs are started all the time.
//!
//! A failure names its seed; `KEYWARD_TEST_SEED` draws the same moments again.

use crate::broker::Fallible;
use crate::{entries, is_sound};
use keyward_testkit::{Talk, alive, signal, wait_for};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime};

const ROUNDS: u64 = 50;
/// Longest time from the start of the work to the kill, and from the start of an unlock to a second kill.
const WORK_MS: u64 = 120;
const UNLOCK_MS: u64 = 40;

#[test]
fn kills_at_random_in_the_first_home() {
    kill_at_random(1);
}

#[test]
fn kills_at_random_in_the_second_home() {
    kill_at_random(2);
}

#[test]
fn kills_at_random_in_the_third_home() {
    kill_at_random(3);
}

#[test]
fn kills_at_random_in_the_fourth_home() {
    kill_at_random(4);
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A secret that one thread sets to 1, 2, 3, …
#[derive(Default)]
struct Counter {
    tried: AtomicU64,
    acknowledged: AtomicU64,
    /// How often it was set, answered or not.
    written: AtomicU64,
}

impl Counter {
    fn work(&self, vault: &Fallible, name: &str, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let n = self.tried.fetch_add(1, Ordering::Relaxed) + 1;
            if vault.home.keyward_in(&["secret", "set", name], &n.to_string()).exit != 0 {
                return;
            }
            self.acknowledged.store(n, Ordering::Relaxed);
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[track_caller]
    fn check(&self, vault: &Fallible, name: &str, seed: u64) {
        let found = vault.reveal(name).map_or(0, |text| text.parse().unwrap());
        let (low, high) = (self.acknowledged.load(Ordering::Relaxed), self.tried.load(Ordering::Relaxed));
        assert!((low..=high).contains(&found), "seed {seed}: {name} is {found}, and {low} was acknowledged");
        // What was written without an answer counts from here on.
        self.acknowledged.store(found, Ordering::Relaxed);
        self.written.fetch_add(u64::from(found > low), Ordering::Relaxed);
    }
}

/// Starts runs that write down what they got, until one fails.
fn start_runs(vault: &Fallible, round: u64, over: &AtomicBool) {
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let reason = format!("{round}-{n}");
        let (deliver, script) = match n % 2 {
            0 => ("env", "echo \"$0 $T_FILE\" >>got"),
            _ => ("file", "echo \"$0 $(cat \"$T_FILE\")\" >>got"),
        };
        let line = ["run", "-p", "p", "--deliver", deliver, "--reason", &reason, "--", "sh", "-c", script, &reason];
        if vault.home.keyward(&line).exit != 0 {
            return;
        }
    }
}

fn kill_at_random(home: u64) {
    let drawn = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_millis() as u64);
    let seed = std::env::var("KEYWARD_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(drawn);
    let mut dice = Dice(seed ^ home);
    let vault = Fallible::unattended();
    vault.home.static_profile("p", "s3cret", "T_FILE");
    let counters = [Counter::default(), Counter::default()];
    let mut series = 0;
    for round in 0..ROUNDS {
        let over = AtomicBool::new(false);
        // A parent that saw few crashes starts the next worker soon; it is killed too now and then.
        let both = series >= 3 || dice.below(2) == 0;
        scope(|scope| {
            let (lent, over) = (&vault, &over);
            for (counter, name) in counters.iter().zip(["a", "b"]) {
                scope.spawn(move || counter.work(lent, name, over));
            }
            scope.spawn(move || start_runs(lent, round, over));
            sleep(Duration::from_millis(dice.below(WORK_MS)));
            assert!(kill(lent, both), "seed {seed}: round {round} had no broker");
            over.store(true, Ordering::Relaxed);
        });
        series = if both { 0 } else { series + 1 };
        if dice.below(4) == 0 {
            let unlock = ["unlock", "--recovery", "--passphrase-stdin"];
            let mut opening = Talk::start(vault.home.keyward_command(&unlock));
            opening.send(vault.recovery.as_bytes());
            opening.close();
            sleep(Duration::from_millis(dice.below(UNLOCK_MS)));
            // It may not have started yet.
            series += u64::from(kill(&vault, false));
            opening.end();
        }
        vault.unlock();
        counters.iter().zip(["a", "b"]).for_each(|(counter, name)| counter.check(&vault, name, seed));
        is_sound(&vault);
    }
    let set = entries(&vault.home, "secret.set");
    for (counter, name) in counters.iter().zip(["a", "b"]) {
        let recorded = set.iter().filter(|e| e["detail"]["secret"] == name).count() as u64;
        assert_eq!(
            recorded,
            counter.written.load(Ordering::Relaxed),
            "seed {seed}: each change of {name} has its entry"
        );
    }
    check_runs(&vault, seed);
}

/// Each line that a child wrote belongs to a run whose delivery is in the log, and each run that was delivered has ended once.
fn check_runs(vault: &Fallible, seed: u64) {
    wait_for("the end of the runs", || {
        vault.home.keyward(&["ps", "--json"]).json().as_array().is_some_and(Vec::is_empty)
    });
    let asked = entries(&vault.home, "run.requested");
    let delivered = entries(&vault.home, "credential.delivered");
    let ended = entries(&vault.home, "run.ended");
    let of: BTreeMap<&str, &str> =
        asked.iter().filter_map(|e| Some((e["detail"]["reason"].as_str()?, e["run"].as_str()?))).collect();
    let got = std::fs::read_to_string(vault.home.root.join("got")).unwrap_or_default();
    assert!(got.lines().count() > 10, "seed {seed}: hardly a run got anything: {got}");
    for line in got.lines() {
        let (reason, secret) = line.split_once(' ').unwrap();
        assert_eq!(secret, "s3cret", "seed {seed}: {line}");
        let run = of.get(reason).unwrap_or_else(|| panic!("seed {seed}: run {reason} was not recorded"));
        assert!(delivered.iter().any(|e| e["run"] == *run), "seed {seed}: {reason} got what was not recorded");
    }
    for run in of.values() {
        assert_eq!(ended.iter().filter(|e| e["run"] == *run).count(), 1, "seed {seed}: the end of run {run}");
    }
}

/// Kills the worker, and its parent before it so that nobody starts a successor but the next command. `false`: none ran.
#[track_caller]
fn kill(vault: &Fallible, both: bool) -> bool {
    let Some(worker) = vault.home.broker_pid() else { return false };
    let parents = if both { vault.home.broker_parents() } else { Vec::new() };
    for pid in parents.into_iter().chain([worker]) {
        signal(pid, Signal::KILL);
        wait_for("the broker's end", || !alive(pid));
    }
    true
}
