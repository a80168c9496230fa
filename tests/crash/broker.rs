//! A broker that the test starts itself, so that it dies where the test says.

use keyward_testkit::{Answer, Home, PASSPHRASE, alive, signal, wait_at_most, wait_for};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A home whose broker is a child of the test.
pub(crate) struct Fallible {
    pub(crate) home: Home,
    /// Opens the vault without the cost of a passphrase.
    pub(crate) recovery: String,
    parent: Option<Child>,
}

impl Fallible {
    /// A home without a vault, and a broker that can be killed at points.
    pub(crate) fn without_vault() -> Self {
        let home = Home::with_broker("keyward-broker-fault");
        let mut vault = Self { home, recovery: String::new(), parent: None };
        vault.start();
        vault
    }

    /// A home with a vault that is open, and a broker that can be killed at points.
    pub(crate) fn new() -> Self {
        Self::without_vault().init()
    }

    /// A home with a vault that is open; whichever command needs the broker of the release starts it.
    pub(crate) fn unattended() -> Self {
        Self { home: Home::new(), recovery: String::new(), parent: None }.init()
    }

    fn init(mut self) -> Self {
        let made = self.home.keyward_in(&["init", "--recovery", "--passphrase-stdin"], PASSPHRASE).exits(0);
        self.recovery = made.out.trim().to_owned();
        self
    }

    /// Starts the broker and waits until it serves.
    #[track_caller]
    fn start(&mut self) {
        let mut command = self.home.command(self.home.bin().join("keyward-broker"));
        command.env("KEYWARD_FAULT_FILE", self.fault_file()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut word = String::new();
        let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut word);
        self.parent = Some(child);
        read.unwrap();
        assert_eq!(word, "ready\n");
    }

    /// Stops the broker as a service manager would.
    #[track_caller]
    fn stop(&mut self) {
        let Some(mut parent) = self.parent.take() else { return };
        let worker = self.home.broker_pid();
        signal(parent.id().cast_signed(), Signal::TERM);
        let mut left = Duration::from_secs(25).as_millis() / 5;
        while parent.try_wait().is_ok_and(|ended| ended.is_none()) && left > 0 {
            std::thread::sleep(Duration::from_millis(5));
            left -= 1;
        }
        if left == 0 {
            worker.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            let _ = parent.kill();
            let _ = parent.wait();
        }
    }

    /// Opens the vault.
    #[track_caller]
    pub(crate) fn unlock(&self) {
        self.home.keyward_in(&["unlock", "--recovery", "--passphrase-stdin"], &self.recovery).exits(0);
    }

    /// A stored secret.
    #[track_caller]
    pub(crate) fn reveal(&self, name: &str) -> Option<String> {
        let shown =
            self.home.keyward_in(&["secret", "reveal", name, "--recovery", "--passphrase-stdin"], &self.recovery);
        if shown.exit == 0 {
            return Some(shown.out.trim_end().to_owned());
        }
        shown.exits(1).says("secret.unknown");
        None
    }

    /// The file that names the next point.
    pub(crate) fn fault_file(&self) -> PathBuf {
        self.home.root.join("fault")
    }

    /// Lets the broker die the next time it comes to this point.
    pub(crate) fn arm(&self, point: &str) {
        std::fs::write(self.fault_file(), point).unwrap();
    }

    /// Waits until the broker has died at the point and its successor serves.
    #[track_caller]
    pub(crate) fn died(&self, point: &str, before: i32) {
        wait_at_most(Duration::from_secs(20), &format!("the end at {point}"), || !self.fault_file().exists());
        wait_for(&format!("the worker's end at {point}"), || !alive(before));
        let mut next = None;
        wait_at_most(Duration::from_secs(20), &format!("the next worker after {point}"), || {
            next = self.home.broker_pid();
            next.is_some_and(|pid| pid != before)
        });
    }

    /// Does something during which the broker dies at `point`, by a broker with a fresh record of crashes. Leaves the next
    /// broker running and the vault locked.
    #[track_caller]
    pub(crate) fn dies_in(&self, point: &str, act: impl FnOnce(&Home) -> Answer) -> Answer {
        let before = self.home.broker_pid().unwrap();
        self.arm(point);
        let answer = act(&self.home);
        assert!(!self.fault_file().exists(), "{point} was not reached: {answer:?}");
        assert_ne!(answer.exit, 0, "{point}: nobody was there to say yes: {answer:?}");
        self.died(point, before);
        answer
    }

    /// Starts anew, so that the parent counts crashes from zero, and opens the vault.
    #[track_caller]
    pub(crate) fn again(&mut self) {
        self.stop();
        self.start();
        self.unlock();
    }
}

impl Drop for Fallible {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.fault_file());
        self.stop();
    }
}
