//! A program that runs while the test talks to it, through pipes or on a terminal of its own.

use crate::{Answer, Home, wait_for};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// A running program. Killed and collected on drop.
pub struct Talk {
    child: Child,
    input: Option<File>,
    out: Heard,
    err: Heard,
    /// How much of the output was taken by [`Talk::line`] and [`Talk::until`].
    taken: usize,
}

impl Talk {
    /// Starts a program on three pipes.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let out = Heard::of(child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))));
        let err = Heard::of(child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))));
        Self { child, input, out, err, taken: 0 }
    }

    /// Starts a program in a session of its own on a new terminal of 80 columns, which carries its input and all of its
    /// output. The program is found in the `PATH` of the home; `variables` are added to its environment.
    #[track_caller]
    pub fn on_terminal(home: &Home, argv: &[&str], variables: &[(&str, &str)]) -> Self {
        let fail = |e: rustix::io::Errno| -> OwnedFd { panic!("a terminal: {e}") };
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap_or_else(fail);
        grantpt(&ours).and_then(|()| unlockpt(&ours)).unwrap_or_else(|e| panic!("a terminal: {e}"));
        let name = ptsname(&ours, Vec::new()).unwrap_or_else(|e| panic!("a terminal: {e}"));
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = File::from(rustix::fs::open(&name, flags, Mode::empty()).unwrap_or_else(fail));
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&theirs, size).unwrap_or_else(|e| panic!("a terminal: {e}"));
        let copy = || Stdio::from(theirs.try_clone().unwrap_or_else(|e| panic!("{e}")));
        // It executes the program in its own place, so that the pid is the program's.
        let mut command = home.command("setsid");
        command.arg("--ctty").args(argv).envs(variables.iter().copied()).stdin(copy()).stdout(copy()).stderr(copy());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let ours = File::from(ours);
        let out = Heard::of(Some(ours.try_clone().unwrap_or_else(|e| panic!("{e}"))));
        Self { child, input: Some(ours), out, err: Heard::of(None), taken: 0 }
    }

    /// Process id of the program.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The next line of its output, without the line end; waits for it at most ten seconds.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.until("\n");
        line.trim_end_matches(['\n', '\r']).to_owned()
    }

    /// Its output from where the last call ended up to and with `text`; waits for it at most ten seconds.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let (from, mut found) = (self.taken, None);
        wait_for(&format!("`{}` from {}", text.escape_debug(), self.told()), || {
            let said = self.out.bytes();
            let at = said.get(from..).and_then(|rest| rest.windows(text.len()).position(|w| w == text.as_bytes()));
            found = at.map(|at| from + at + text.len());
            if found.is_none() && self.out.ended() {
                panic!("no `{}`, and it says no more: {}", text.escape_debug(), self.told());
            }
            found.is_some()
        });
        self.taken = found.unwrap_or(from);
        String::from_utf8_lossy(self.out.bytes().get(from..self.taken).unwrap_or_default()).into_owned()
    }

    /// All of its output so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.bytes()).into_owned()
    }

    /// All that it wrote to standard error so far; empty on a terminal, which carries both.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.bytes()).into_owned()
    }

    /// Sends bytes to its standard input. A program that reads no more is no failure.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(bytes).and_then(|()| input.flush());
        }
    }

    /// Closes its standard input. A terminal stays open.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Closes its standard input, waits for its end, at most ten seconds, and gives all that it said. A terminal stays open.
    #[track_caller]
    pub fn end(mut self) -> Answer {
        use std::os::unix::process::ExitStatusExt;
        self.close();
        let mut status = None;
        wait_for(&format!("the end of {}", self.told()), || {
            status = self.child.try_wait().unwrap_or_else(|e| panic!("{e}"));
            status.is_some()
        });
        wait_for("the end of its output", || self.out.ended() && self.err.ended());
        let exit = status.and_then(|s| s.code().or_else(|| s.signal().map(|n| 128 + n))).unwrap_or(-1);
        Answer { exit, out: self.out(), err: self.err() }
    }

    fn told(&self) -> String {
        format!("process {} that said {:?} and {:?}", self.pid(), self.out(), self.err())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stream said, gathered by a thread of its own.
#[derive(Clone)]
struct Heard(Arc<Mutex<(Vec<u8>, bool)>>);

impl Heard {
    fn of(stream: Option<File>) -> Self {
        let heard = Self(Arc::new(Mutex::new((Vec::new(), stream.is_none()))));
        if let Some(mut stream) = stream {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                // A terminal whose other side is closed gives an error.
                while let Ok(bytes @ 1..) = stream.read(&mut piece) {
                    heard.lock().0.extend_from_slice(piece.get(..bytes).unwrap_or_default());
                }
                heard.lock().1 = true;
            });
        }
        heard
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().0.clone()
    }

    fn ended(&self) -> bool {
        self.lock().1
    }
}

/// The one line that a command prints in a shell.
#[track_caller]
pub fn ask(shell: &mut Talk, command: &str) -> String {
    shell.send(format!("{command}\n").as_bytes());
    shell.line()
}
