//! Dev only: a throw-away home with the built binaries in it, and the daemons that a test needs.
//!
//! Uses the binaries that lie in the target folder of the running test; `cargo xtask test` builds them first. Ends what it
//! started by pid and removes its files, also when a test panics. Never touches the user's own home, broker or keyring.
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod keyring;
mod keys;
mod keys_of_terminal;
mod sandbox;
mod talk;
mod wire;

pub use keyring::Keyring;
pub use keys::{FoundKey, keys};
pub use sandbox::Sandbox;
pub use talk::{Talk, ask};
pub use wire::{Reply, Wire};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Passphrase of every vault that [`Home::with_vault`] makes.
pub const PASSPHRASE: &str = "correct horse battery staple 42";

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; 128 + n after signal n.
    pub exit: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Fails the test unless the program ended with `exit`.
    #[track_caller]
    pub fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\nout: {}\nerr: {}", self.out, self.err))
    }

    /// Fails the test unless standard error names this error code.
    #[track_caller]
    pub fn says(self, code: &str) -> Self {
        assert!(
            self.err.contains(&format!("[{code}]")) || self.err.contains(&format!("\"{code}\"")),
            "{code} expected\nerr: {}",
            self.err
        );
        self
    }
}

/// A throw-away home: its own `KEYWARD_HOME`, `HOME` and `XDG_RUNTIME_DIR`, and no session bus unless a test gives one.
pub struct Home {
    /// The folder of everything but the runtime folder.
    pub root: PathBuf,
    /// `XDG_RUNTIME_DIR`, on tmpfs, so that file deliveries find a memory-backed folder.
    pub runtime: PathBuf,
    bin: PathBuf,
    more: Vec<(String, String)>,
    user: Option<u32>,
}

impl Home {
    /// An empty home with the built programs.
    pub fn new() -> Self {
        Self::with_broker("keyward-broker")
    }

    /// An empty home in which `keyward` starts the program `broker` of the target folder, such as `keyward-broker-fault`.
    pub fn with_broker(broker: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kwt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (root, runtime) = (std::env::temp_dir().join(&name), PathBuf::from("/dev/shm").join(&name));
        let bin = root.join("bin");
        for folder in [&root, &runtime, &bin] {
            DirBuilder::new().mode(0o700).create(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
        for (from, to) in [("keyward", "keyward"), (broker, "keyward-broker"), ("keyward-sandbox", "keyward-sandbox")] {
            let built = target().join(from);
            let copied =
                std::fs::hard_link(&built, bin.join(to)).or_else(|_| std::fs::copy(&built, bin.join(to)).map(drop));
            copied.unwrap_or_else(|e| panic!("{}: {e}; build it first: cargo xtask test does", built.display()));
        }
        Self { root, runtime, bin, more: Vec::new(), user: None }
    }

    /// A home with a vault that is open; the passphrase is [`PASSPHRASE`].
    pub fn with_vault() -> Self {
        let home = Self::new();
        home.init();
        home
    }

    /// Makes the vault; it is left open.
    #[track_caller]
    pub fn init(&self) {
        self.keyward_in(&["init", "--passphrase-stdin"], PASSPHRASE).exits(0);
    }

    /// Opens the vault.
    #[track_caller]
    pub fn unlock(&self) -> Answer {
        self.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(0)
    }

    /// Adds a variable to the environment of every later command.
    pub fn set(&mut self, name: &str, value: &str) {
        self.more.push((name.to_owned(), value.to_owned()));
    }

    /// Gives the folders of this home to another user, as whom every later command runs. Needs root; call it first.
    #[track_caller]
    pub fn act_as(&mut self, uid: u32) {
        for folder in [&self.root, &self.runtime, &self.bin] {
            chown(folder, Some(uid), Some(uid)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
        self.user = Some(uid);
    }

    /// Folder of the programs of this home.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// `KEYWARD_HOME`.
    pub fn keyward_home(&self) -> PathBuf {
        self.root.join("kw")
    }

    /// The database.
    pub fn db(&self) -> PathBuf {
        self.keyward_home().join("data/vault.db")
    }

    /// The broker's socket.
    pub fn socket(&self) -> PathBuf {
        let keyward = self.runtime.join("keyward");
        let found =
            std::fs::read_dir(&keyward).ok().into_iter().flatten().flatten().map(|e| e.path().join("broker.sock"));
        found.into_iter().find(|p| p.exists()).unwrap_or_else(|| panic!("no socket below {}", keyward.display()))
    }

    /// A command with the environment of this home and nothing else.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.bin.display());
        command.env_clear().current_dir(&self.root).stdin(Stdio::null());
        command.env("PATH", path).env("HOME", &self.root).env("XDG_RUNTIME_DIR", &self.runtime);
        command.env("KEYWARD_HOME", self.keyward_home()).env("KEYWARD_LOG", "trace").env("RUST_LOG", "trace");
        command.envs(self.more.iter().map(|(k, v)| (k, v)));
        keys_of_terminal::default_signals(&mut command);
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// `keyward` with arguments, not started yet.
    pub fn keyward_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(self.bin.join("keyward"));
        command.args(args);
        command
    }

    /// Runs `keyward` with arguments and without standard input.
    pub fn keyward(&self, args: &[&str]) -> Answer {
        run(self.keyward_command(args), b"")
    }

    /// Runs `keyward` with arguments and standard input.
    pub fn keyward_in(&self, args: &[&str], input: &str) -> Answer {
        run(self.keyward_command(args), input.as_bytes())
    }

    /// Stores a secret.
    #[track_caller]
    pub fn secret(&self, name: &str, value: &str) {
        self.keyward_in(&["secret", "set", name], value).exits(0);
    }

    /// Adds a profile from the text of its file.
    #[track_caller]
    pub fn profile(&self, name: &str, toml: &str) {
        let file = self.root.join(format!("{name}.toml"));
        std::fs::write(&file, toml).unwrap_or_else(|e| panic!("{e}"));
        self.keyward(&["profile", "add", name, "--from", &file.display().to_string()]).exits(0);
        std::fs::remove_file(&file).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Stores a secret and adds a static profile of the same name that delivers it in `variable`.
    #[track_caller]
    pub fn static_profile(&self, name: &str, value: &str, variable: &str) {
        self.secret(name, value);
        let toml = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:{name}\"\n[delivery]\nenv = {{ {variable} = \"token\" }}\n"
        );
        self.profile(name, &toml);
    }

    /// Makes a grant with the arguments of `keyward grant add`, as a person who types the passphrase.
    #[track_caller]
    pub fn grant(&self, args: &[&str]) -> Value {
        let args = [&["grant", "add", "--json", "--passphrase-stdin"], args].concat();
        self.keyward_in(&args, PASSPHRASE).exits(0).json()
    }

    /// Which of `tries`, lines for a shell in which `$P` is the folder of the process below `/proc`, succeed as this home's
    /// user.
    pub fn opens(&self, pid: i32, tries: &[&'static str]) -> Vec<&'static str> {
        let succeeds = |line: &&&str| {
            let mut shell = self.command("sh");
            shell.env("P", format!("/proc/{pid}")).arg("-c").arg(line);
            run(shell, b"").exit == 0
        };
        tries.iter().filter(succeeds).copied().collect()
    }

    /// The worker's pid, as status tells it.
    pub fn broker_pid(&self) -> Option<i32> {
        let status = self.keyward(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.out).ok()?;
        status["broker"]["pid"].as_i64().and_then(|p| i32::try_from(p).ok())
    }

    /// The parents of all brokers of this home; a broker that serves has exactly one. A user who cannot see which program
    /// they run sees the parent of the worker that answers alone.
    pub fn broker_parents(&self) -> Vec<i32> {
        let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_parent = |pid: &i32| line(pid).split(|b| *b == 0).nth(1) != Some(b"--serve");
        match brokers(&self.bin.join("keyward-broker")) {
            none if none.is_empty() => self.broker_pid().and_then(parent_of).into_iter().collect(),
            found => found.into_iter().filter(is_parent).collect(),
        }
    }

    /// Kills the worker as a crash would, and waits until it is gone.
    #[track_caller]
    pub fn crash_broker(&self) {
        let pid = self.broker_pid().unwrap_or_else(|| panic!("no broker"));
        signal(pid, Signal::KILL);
        wait_for("the worker's end", || !alive(pid));
    }

    /// Stops the broker cleanly and waits until it is gone. Nothing happens when none runs.
    pub fn stop_broker(&self) {
        if let Some(pid) = self.broker_pid() {
            self.keyward(&["broker", "stop"]);
            wait_for("the broker's stop", || !alive(pid));
        }
    }

    /// The entries of the log, oldest first, as they are in the chain.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let listed = self.keyward(&["audit", "list", "--json", "--limit", "1000"]).exits(0).json();
        let list = listed.as_array().cloned().unwrap_or_default();
        list.into_iter().map(|e| e.get("entry").cloned().unwrap_or(e)).collect()
    }

    /// The kinds of the entries of the log, oldest first.
    #[track_caller]
    pub fn audit_kinds(&self) -> Vec<String> {
        self.audit().iter().filter_map(|e| e["kind"].as_str().map(str::to_owned)).collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Asks without starting one. A test that made its own process part of a run is refused, and its broker killed.
        let stopped = run(self.keyward_command(&["broker", "stop"]), b"").exit == 0;
        let own = self.bin.join("keyward-broker");
        let until = Instant::now() + Duration::from_secs(if stopped { 5 } else { 0 });
        while !brokers(&own).is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        // The parent would start another worker, so both are killed until none is left.
        for _ in 0..100 {
            let left = brokers(&own);
            left.iter().for_each(|pid| signal(*pid, Signal::KILL));
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_dir_all(&self.root);
        let _ = std::fs::remove_dir_all(&self.runtime);
    }
}

/// The processes, parents and workers, that run this very program file. The file of a broker, which hides itself, can be
/// read by the superuser alone; for others there are none.
fn brokers(program: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let runs = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    pids.filter(|pid| runs(pid) && alive(*pid)).collect()
}

/// The parent of a process; `None` when it is gone.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// Folder of the built programs: two above the running test.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
    test.ancestors().nth(2).unwrap_or_else(|| panic!("{} lies in no target folder", test.display())).to_owned()
}

/// Whether this process is root. If it is not, runs the test `name` anew as root through sudo, and fails when that fails:
/// only root may read or trace a broker, or act as two users.
#[track_caller]
pub fn is_root(name: &str) -> bool {
    if rustix::process::getuid().is_root() {
        return true;
    }
    let mut again = Command::new("sudo");
    again.arg("-n").arg(std::env::current_exe().unwrap_or_else(|e| panic!("{e}"))).args([
        "--exact",
        name,
        "--nocapture",
    ]);
    let done = again.status();
    assert!(done.is_ok_and(|s| s.success()), "{name} needs root, and failed or did not start through `sudo -n`");
    false
}

/// Whether a process lives; one that ended and that its parent has not collected does not.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may be gone already.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until `done`, at most ten seconds; fails the test with `what` after that.
#[track_caller]
pub fn wait_for(what: &str, done: impl FnMut() -> bool) {
    wait_at_most(Duration::from_secs(10), what, done);
}

/// As [`wait_for`], with a bound of its own.
#[track_caller]
pub fn wait_at_most(bound: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + bound;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end with `input` on standard input.
pub fn run(mut command: Command, input: &[u8]) -> Answer {
    use std::os::unix::process::ExitStatusExt;
    let shown = format!("{command:?}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().unwrap_or_else(|e| panic!("{shown}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing closes the pipe.
        let _ = stdin.write_all(input);
    }
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|s| Box::new(s) as Box<dyn std::io::Read + Send>));
    let err = read(child.stderr.take().map(|s| Box::new(s) as Box<dyn std::io::Read + Send>));
    let status = child.wait().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let exit = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Answer { exit, out: out.join().unwrap_or_default(), err: err.join().unwrap_or_default() }
}
