//! Renewals: each token that a file ever held was recorded before it stood there.

use crate::broker::Fallible;
use crate::{COMMIT, entries, is_sound};
use keyward_testkit::{Talk, wait_at_most, wait_for};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Reads a file all the time and keeps every text that it held.
struct Reader {
    over: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Reader {
    fn of(path: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            loop {
                // What stands there at the end is read as well.
                let last = ends.load(Ordering::Relaxed);
                seen.extend(std::fs::read_to_string(&path).ok());
                if last {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Self { over, thread }
    }

    fn seen(self) -> BTreeSet<String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_renewal_is_recorded_before_the_file_changes() {
    let mut vault = Fallible::new();
    let sandbox = vault.home.bin().join("keyward-sandbox");
    vault.home.profile(
        "m",
        &format!(
            "[issuer]\nkind = \"command\"\nargv = [\"{}\", \"mint\", \"--life\", \"2s\", \"--fast-lives\"]\n\
             [delivery]\nmode = \"file\"\nenv = {{ T_FILE = \"token\" }}\n",
            sandbox.display()
        ),
    );
    for point in COMMIT {
        vault.again();
        let mut child = Talk::start(vault.home.keyward_command(&["run", "-p", "m", "--", "sh"]));
        child.send(b"echo $T_FILE\n");
        let path = PathBuf::from(child.line());
        let reader = Reader::of(path.clone());
        // The next commit after that is the first renewal.
        let started = || entries(&vault.home, "run.started").iter().any(|e| e["detail"]["pid"] == child.pid());
        wait_for("the entry of the start", started);
        let before = vault.home.broker_pid().unwrap();
        vault.arm(point);
        vault.died(point, before);
        vault.unlock();
        let held = || std::fs::read_to_string(&path).unwrap_or_default();
        let first = held();
        wait_at_most(Duration::from_secs(20), &format!("a renewal after {point}"), || {
            !held().is_empty() && held() != first
        });
        let seen = reader.seen();
        let whole = |token: &String| token.len() == "sb-".len() + 48 && token.starts_with("sb-");
        assert!(seen.iter().all(whole), "{point}: a part of a token: {seen:?}");
        let listed = vault.home.keyward(&["ps", "--json"]).exits(0).json();
        let lease = listed.as_array().unwrap().iter().find(|r| r["pid"] == child.pid()).unwrap()["leases"][0].clone();
        let of = |kind: &str| entries(&vault.home, kind).iter().filter(|e| e["lease"] == lease["lease"]).count();
        let (delivered, renewed) = (of("credential.delivered"), of("lease.renewed"));
        assert_eq!(delivered, 1, "{point}");
        assert!(
            seen.len() >= 2 && seen.len() <= delivered + renewed,
            "{point}: {} tokens, {renewed} renewals",
            seen.len()
        );
        is_sound(&vault);
    }
}
