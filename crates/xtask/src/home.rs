//! A throw-away home with the real binaries in it.
//!
//! The programs see an environment made from nothing, private folders of mode 0700, and no session bus. This process is
//! the subreaper of all that it starts, so a broker that leaves its terminal session is still found at the end. Never
//! leaves a process or a file behind, unless it is killed with SIGKILL; never ends a process that it did not start.
//! Called by `demo` and `bench`.

use crate::interrupt;
use crate::workspace::line_of;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait, waitpid};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest time that one step may take.
const STEP: Duration = Duration::from_secs(60);

/// Longest time that processes get to end by themselves once the broker was told to stop.
const CLOSING: Duration = Duration::from_secs(10);

/// How often a wait looks again.
const TICK: Duration = Duration::from_millis(5);

/// The home; [`Home::close`] ends it, dropping does the same and keeps silent.
pub(crate) struct Home {
    /// Folder of everything but the sockets.
    pub(crate) root: PathBuf,
    /// `XDG_RUNTIME_DIR`: under `/dev/shm` where there is one, so that file deliveries find a memory-backed folder.
    pub(crate) runtime: PathBuf,
    /// Passphrase of the vault: 32 random hex digits.
    pub(crate) passphrase: String,
    bin: PathBuf,
    hidden: RefCell<Vec<String>>,
    own: RefCell<BTreeSet<i32>>,
    started: Cell<u32>,
    closed: bool,
}

/// What a program answered.
pub(crate) struct Answer {
    /// Exit code; 128 + n after signal n.
    pub(crate) exit: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Answer {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.out).map_err(|e| format!("JSON expected: {e}; seen: {}", self.out.trim_end()))
    }
}

impl Home {
    /// Makes the folders; `bin` holds the binaries.
    pub(crate) fn make(bin: &Path) -> Result<Self, String> {
        let myself = rustix::process::getpid();
        set_child_subreaper(Some(myself)).map_err(|e| format!("child subreaper: {e}"))?;
        let name = format!("keyward-demo.{}", random_hex(8)?);
        let root = std::env::temp_dir().join(&name);
        private_folder(&root)?;
        let mut home = Self {
            runtime: root.join("run"),
            passphrase: random_hex(16)?,
            bin: bin.to_owned(),
            hidden: RefCell::default(),
            own: RefCell::default(),
            started: Cell::new(0),
            closed: false,
            root,
        };
        for part in ["home", "project", "out"] {
            private_folder(&home.root.join(part))?;
        }
        let in_memory = Path::new("/dev/shm").join(&name);
        if private_folder(&in_memory).is_ok() {
            home.runtime = in_memory;
        } else {
            private_folder(&home.runtime)?;
        }
        home.hide(&home.passphrase);
        Ok(home)
    }

    /// Folder that `KEYWARD_HOME` names; the first `keyward init` makes it.
    pub(crate) fn keyward_home(&self) -> PathBuf {
        self.root.join("keyward")
    }

    /// From here on a program of this home that prints `secret` is an error.
    pub(crate) fn hide(&self, secret: &str) {
        self.hidden.borrow_mut().push(secret.to_owned());
    }

    /// Path of one of the binaries.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Variables that a shell needs to use this home.
    pub(crate) fn variables(&self) -> [(&'static str, OsString); 4] {
        let mut path = self.bin.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        [
            ("KEYWARD_HOME", self.keyward_home().into()),
            ("XDG_RUNTIME_DIR", self.runtime.clone().into()),
            ("HOME", self.root.join("home").into()),
            ("PATH", path),
        ]
    }

    /// `program` in this home's environment, without standard input.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(self.variables()).env("LANG", "C.UTF-8");
        command.current_dir(self.root.join("project")).stdin(Stdio::null());
        command
    }

    /// Starts `command`; what it prints goes into files, so that it can neither block nor be lost.
    pub(crate) fn start(&self, mut command: Command) -> Result<Running<'_>, String> {
        let line = line_of(&command);
        let number = self.started.replace(self.started.get() + 1);
        let file = |kind: &str| self.root.join("out").join(format!("{number}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        let create = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
        command.stdout(create(&out)?).stderr(create(&err)?);
        let child = command.spawn().map_err(|e| format!("{line}: {e}"))?;
        self.own.borrow_mut().insert(child.id().cast_signed());
        Ok(Running { home: self, child, line, out, err, ended: None })
    }

    /// Runs `keyward` with `args` and `input` on its standard input; another exit code than `exit` is an error.
    pub(crate) fn keyward(&self, args: &[&str], input: &str, exit: i32) -> Result<Answer, String> {
        let mut command = self.command(self.binary("keyward"));
        command.args(args);
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut running = self.start(command)?;
        if let Some(mut stdin) = running.child.stdin.take() {
            // A program that ends without reading its input is judged by its exit code.
            let _ = stdin.write_all(input.as_bytes());
        }
        running.finish(exit)
    }

    /// Waits until `done` answers true; an interrupt, an error of `done` and [`STEP`] end it early.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
        let begin = Instant::now();
        while !done()? {
            if interrupt::seen() {
                return Err("interrupted".into());
            }
            if begin.elapsed() > STEP {
                return Err(format!("{what}: not within {} s", STEP.as_secs()));
            }
            self.reap();
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Stops the broker, waits for every process of this home, removes every file.
    ///
    /// Fails when a process had to be killed, or when a file could not be removed.
    pub(crate) fn close(mut self) -> Result<(), String> {
        self.sweep()
    }

    fn sweep(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let mut faults = Vec::new();
        let mut stop = self.command(self.binary("keyward"));
        stop.args(["broker", "stop"]).stdout(Stdio::null()).stderr(Stdio::null());
        // Its exit code is of no interest: what counts is which processes are left.
        let stopping = if self.keyward_home().exists() { stop.spawn().ok() } else { None };
        let begin = Instant::now();
        while begin.elapsed() < CLOSING && !left().is_empty() {
            std::thread::sleep(TICK);
        }
        for process in left() {
            faults.push(format!("process {} ({}) did not end and was killed", process.pid, process.name));
        }
        let begin = Instant::now();
        while begin.elapsed() < CLOSING {
            let processes = left();
            if processes.is_empty() {
                break;
            }
            for process in processes {
                if let Some(pid) = Pid::from_raw(process.pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            std::thread::sleep(TICK);
        }
        drop(stopping);
        for folder in [&self.runtime, &self.root] {
            if let Err(e) = std::fs::remove_dir_all(folder)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                faults.push(format!("{}: {e}", folder.display()));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    /// Takes the exit codes of processes that ended and were not started here directly: a broker that lost its parent.
    fn reap(&self) {
        let myself = rustix::process::getpid().as_raw_nonzero().get();
        for process in processes() {
            if process.parent == myself && process.ended && !self.own.borrow().contains(&process.pid) {
                let _ = waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // An error was reported already, or there was a panic; the folders go all the same.
        let _ = self.sweep();
    }
}

/// A program that was started; dropping it kills it.
pub(crate) struct Running<'h> {
    home: &'h Home,
    child: Child,
    line: String,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running<'_> {
    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far. Fails once it has ended.
    pub(crate) fn so_far(&mut self) -> Result<String, String> {
        let ended = self.poll()?;
        let out = text(&self.out)?;
        if ended { Err(format!("{}: ended early; seen: {out}{}", self.line, text(&self.err)?)) } else { Ok(out) }
    }

    /// Closes its standard input and waits for its end; another exit code than `exit` is an error, and so is a secret of
    /// the home in what it printed.
    pub(crate) fn finish(mut self, exit: i32) -> Result<Answer, String> {
        drop(self.child.stdin.take());
        let (home, line) = (self.home, self.line.clone());
        home.until(&line, || self.poll())?;
        let status = self.ended.ok_or_else(|| format!("{line}: no exit status"))?;
        let seen = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let answer = Answer { exit: seen, out: text(&self.out)?, err: text(&self.err)? };
        if home.hidden.borrow().iter().any(|secret| answer.out.contains(secret) || answer.err.contains(secret)) {
            return Err(format!("{line}: prints a secret"));
        }
        if answer.exit != exit {
            let said = answer.err.trim_end();
            return Err(format!("{line}: exit {exit} expected, exit {} seen: {said}", answer.exit));
        }
        Ok(answer)
    }

    fn poll(&mut self) -> Result<bool, String> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(|e| format!("{}: {e}", self.line))?;
        }
        Ok(self.ended.is_some())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.home.own.borrow_mut().remove(&self.child.id().cast_signed());
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `bytes` random bytes in hex.
pub(crate) fn random_hex(bytes: usize) -> Result<String, String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(hex::encode(random))
}

fn private_folder(path: &Path) -> Result<(), String> {
    DirBuilder::new().mode(0o700).create(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// A process.
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// The id of its parent.
    pub(crate) parent: i32,
    name: String,
    ended: bool,
}

/// Processes below this one that are still there, ended children taken.
fn left() -> Vec<Process> {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    let all = processes();
    let mut below = BTreeSet::from([rustix::process::getpid().as_raw_nonzero().get()]);
    loop {
        let before = below.len();
        below.extend(all.iter().filter(|p| below.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>());
        if below.len() == before {
            break;
        }
    }
    all.into_iter().filter(|p| below.contains(&p.parent)).collect()
}

/// All processes, as `/proc/PID/stat` tells them (proc(5)).
pub(crate) fn processes() -> Vec<Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| process(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

fn process(pid: i32, stat: &str) -> Option<Process> {
    // The name stands in parentheses and may itself hold any character.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some(Process { pid, parent: fields.next()?.parse().ok()?, name: name.to_owned(), ended })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_process_name_cannot_lie_about_its_parent() {
        let found = process(7, "7 (a) Z 1 (b) S 42 7 7 0").unwrap();
        assert_eq!((found.parent, found.ended, found.name.as_str()), (42, false, "a) Z 1 (b"));
        assert!(process(7, "7 (cut").is_none());
    }
}
