//! Starts what a launcher says, in a terminal session of its own, so that it outlives this program.
//!
//! What is started is `keyward launch NAME`, directly or in a terminal emulator: it asks the broker as any program does, and
//! becomes the launcher's program. Nothing secret stands on a command line or in the environment. Without a terminal, nobody
//! sees its words: it writes its error to a pipe, which closes when it becomes the program, so that the program never holds
//! it. Called by the commands.
#![expect(unsafe_code, reason = "a session of its own has no safe interface in the standard library")]

use crate::desk::{Desk, closed};
use crate::look;
use crate::types::{Done, Named};
use keyward_diag::{Code, Fault};
use keyward_find::{lookup, terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Variables that belong to this very program or to what started it, and mean something else in another one.
const NOT_INHERITED: &[&str] = &[
    // Of the terminal or shell that started the desktop.
    "OLDPWD",
    "PWD",
    "SHLVL",
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "WINDOWID",
    "VTE_VERSION",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "_",
    // Of the start of the desktop by its session (startup notification, systemd.exec(5), sd_listen_fds(3), sd_notify(3)).
    "DESKTOP_STARTUP_ID",
    "XDG_ACTIVATION_TOKEN",
    "GIO_LAUNCHED_DESKTOP_FILE",
    "GIO_LAUNCHED_DESKTOP_FILE_PID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "MANAGERPID",
    "MAINPID",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "CREDENTIALS_DIRECTORY",
    // Of a program that was built and started by cargo.
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LD_AUDIT",
];
/// Beginnings of such names: the web view, and automation.
const NOT_INHERITED_BEGIN: &[&str] = &["TAURI_", "WEBKIT_", "CARGO_PKG_"];
/// A program that starts without a terminal is watched for so long; one that is not there yet goes on all the same.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest error that it can say.
const ERROR_MAX_BYTES: usize = 64 * 1024;

/// What `keyward launch --error-fd` writes.
#[derive(Deserialize)]
struct Said {
    error: Fault,
}

impl Desk {
    /// Starts what a launcher says, as the operator: asks for the passphrase where it was not proven lately.
    ///
    /// # Errors
    /// [`Code::LauncherUnknown`]; [`Code::RunNotFound`] and [`Code::RunNotExecutable`] for its program;
    /// [`Code::RunNotStarted`] where its folder is gone or no process can be started; those of the broker. Without a
    /// terminal also whatever kept `keyward launch` from becoming the program, where that shows within 20 seconds.
    pub fn launch(&self, request: Named) -> Result<Done, Fault> {
        self.start_launcher(&request.name, true)
    }

    /// As [`Desk::launch`], for a start that proves no person: it goes by a grant, or waits for an answer on its card.
    pub(crate) fn launch_unproven(&self, name: &str) -> Result<Done, Fault> {
        self.start_launcher(name, false)
    }

    fn start_launcher(&self, name: &str, by_operator: bool) -> Result<Done, Fault> {
        let launcher = self.launcher(name)?.ok_or(Code::LauncherUnknown)?;
        let home = || self.around.home.clone().unwrap_or_else(|| PathBuf::from("/"));
        let folder = launcher.folder.as_ref().map_or_else(home, PathBuf::from);
        if !folder.is_dir() {
            let cause = format!("there is no folder {}", look::name(&folder.display().to_string(), 300));
            return Err(Fault::new(Code::RunNotStarted).cause(cause).help("change the launcher, or make the folder"));
        }
        let word = launcher.command.first().map(OsStr::new).unwrap_or_default();
        let program = folder.join(lookup::program(word, self.around.variable("PATH"))?);
        let program = program.to_str().ok_or_else(|| Fault::new(Code::RunNotFound).cause("its path is not UTF-8"))?;
        let own = self.programs.join("keyward");
        if !self.expect(&launcher, program.to_owned(), by_operator)? {
            return Ok(closed());
        }
        // After `--` a name that begins with a dash is a name.
        let name = [OsStr::new("--"), OsStr::new(&launcher.name)];
        if launcher.terminal {
            let mut argv: Vec<OsString> = vec![own.into(), "launch".into(), "--wait".into(), "--wait-on-error".into()];
            argv.extend(name.map(Into::into));
            let command = terminal::terminal(&self.around)?.command(&folder, &argv);
            collect(self.start(command, &folder, None)?);
        } else {
            let (said, says) =
                std::io::pipe().map_err(|e| Fault::new(Code::RunNotStarted).cause(format!("a pipe: {e}")))?;
            let mut command = Command::new(own);
            command.args(["launch", "--wait", "--error-fd", &says.as_raw_fd().to_string()]).args(name);
            collect(self.start(command, &folder, Some(says))?);
            started(&until_closed(said, Instant::now() + PATIENCE), &launcher.name)?;
        }
        Ok(Done { done: true, notes: Vec::new() })
    }

    /// Starts a command in a terminal session of its own, with the user's environment, no standard streams, and `says` under
    /// the number that it has here, which is closed here.
    fn start(&self, mut command: Command, folder: &Path, says: Option<PipeWriter>) -> Result<Child, Fault> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let places = self.pool.places().variables().iter().filter(|(name, _)| *name != "PATH");
        let inherited = self.around.variables.iter().filter(|(name, _)| is_inherited(name));
        command.env_clear().envs(inherited).envs(places.map(|(name, value)| (name, value))).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let before_exec = move || {
            rustix::process::setsid()?;
            says.iter().try_for_each(|says| fcntl_setfd(says, FdFlags::empty()))?;
            Ok(())
        };
        // SAFETY: between fork and exec only setsid(2) and fcntl(2) are called, which take no lock and allocate nothing.
        unsafe { command.pre_exec(before_exec) };
        let fault = |e| Fault::new(Code::RunNotStarted).cause(format!("{}: {e}", look::name(&shown, 300)));
        command.spawn().map_err(fault)
    }
}

/// What comes through the pipe until it closes at every other end, until it is too much, or until that moment.
fn until_closed(mut pipe: PipeReader, until: Instant) -> Vec<u8> {
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while said.len() <= ERROR_MAX_BYTES {
        // A timeout that cannot be expressed is one that has passed.
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap_or_default();
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match pipe.read(&mut piece) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(n) => said.extend_from_slice(&piece[..n]),
        }
    }
    said
}

/// The error in what was said. Nothing was said where it became the program, or is on its way there.
fn started(said: &[u8], launcher: &str) -> Result<(), Fault> {
    if said.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice::<Said>(said).map_or_else(
        |_| {
            let name = look::name(launcher, 60).replace('\'', "'\\''");
            let help = format!("start it in a terminal, which says why: `keyward launch '{name}'`");
            Fault::new(Code::RunNotStarted).help(help)
        },
        |said| said.error,
    ))
}

/// Takes the exit status of a child when it ends, so that no zombie stays.
fn collect(mut child: Child) {
    // Without the thread a zombie stays until this program ends, which harms nobody.
    let _ = std::thread::Builder::new().name("child".to_owned()).stack_size(64 * 1024).spawn(move || child.wait());
}

fn is_inherited(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !NOT_INHERITED.contains(&&*name) && !NOT_INHERITED_BEGIN.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::io::Write;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_is_said_ends_with_the_pipe_with_too_much_and_with_the_time() {
        let (said, mut says) = std::io::pipe().unwrap();
        says.write_all(b"some").unwrap();
        drop(says);
        assert_eq!(until_closed(said, later()), b"some");

        let (said, says) = std::io::pipe().unwrap();
        assert_eq!(until_closed(said, Instant::now()), b"", "nothing yet, and the other end is open");
        drop(says);

        let (said, mut says) = std::io::pipe().unwrap();
        let endless = std::thread::spawn(move || while says.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(until_closed(said, later()).len() <= ERROR_MAX_BYTES + 4096);
        endless.join().unwrap();
    }

    #[test]
    fn an_error_is_told_as_it_was_said_and_anything_else_as_no_start() {
        assert_eq!(started(b"", "x"), Ok(()));
        let fault = Fault::new(Code::VaultLocked).cause("no use for 15 minutes");
        let said = format!("{}\n", serde_json::json!({"error": fault}));
        assert_eq!(started(said.as_bytes(), "x"), Err(fault));
        for said in [&b"{"[..], b"words", b"{}", b"\xff", &said.as_bytes()[..40]] {
            let fault = started(said, "it's").unwrap_err();
            assert!(fault.code == Code::RunNotStarted && fault.help.contains(r"`keyward launch 'it'\''s'`"), "{fault}");
        }
    }

    #[test]
    fn a_launched_program_gets_the_session_and_not_what_is_ours() {
        for name in ["PATH", "HOME", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "LANG"]
        {
            assert!(is_inherited(OsStr::new(name)), "{name}");
        }
        for name in
            ["TERM", "TAURI_WEBVIEW_AUTOMATION", "WEBKIT_DISABLE_DMABUF_RENDERER", "LD_PRELOAD", "NOTIFY_SOCKET"]
        {
            assert!(!is_inherited(OsStr::new(name)), "{name}");
        }
    }
}
