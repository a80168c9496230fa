//! Starts what a launcher says, in a terminal session of its own, so that it outlives this program.
//!
//! What is started is `keyward launch NAME`, directly or in a terminal emulator: it asks the broker as any program does, and
//! becomes the launcher's program. Nothing secret stands on a command line or in the environment. Called by the commands.
#![expect(unsafe_code, reason = "a session of its own has no safe interface in the standard library")]

use crate::desk::Desk;
use crate::look;
use crate::types::{Done, Named};
use keyward_diag::{Code, Fault};
use keyward_find::{lookup, terminal};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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
const GLANCE: Duration = Duration::from_millis(25);

impl Desk {
    /// Starts what a launcher says.
    ///
    /// # Errors
    /// [`Code::LauncherUnknown`]; [`Code::RunNotFound`] and [`Code::RunNotExecutable`] for its program;
    /// [`Code::RunNotStarted`] where it ended before it became the program; those of the broker.
    pub fn launch(&self, request: Named) -> Result<Done, Fault> {
        let launcher = self.launcher(&request.name)?.ok_or(Code::LauncherUnknown)?;
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
        self.expect(&launcher.name, program.to_owned())?;
        let mut argv: Vec<OsString> = vec![own.into(), "launch".into()];
        if launcher.terminal {
            argv.push("--wait-on-error".into());
        }
        // After `--` a name that begins with a dash is a name.
        argv.extend(["--".into(), launcher.name.clone().into()]);
        if launcher.terminal {
            let child = self.start(terminal::terminal(&self.around)?.command(&folder, &argv), &folder)?;
            collect(child);
        } else {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]);
            let child = self.start(command, &folder)?;
            self.started(child, &launcher.name)?;
        }
        Ok(Done { done: true, notes: Vec::new() })
    }

    /// Starts a command in a terminal session of its own, with the user's environment and no standard streams.
    fn start(&self, mut command: Command, folder: &Path) -> Result<Child, Fault> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let places = self.pool.places().variables().iter().filter(|(name, _)| *name != "PATH");
        let inherited = self.around.variables.iter().filter(|(name, _)| is_inherited(name));
        command.env_clear().envs(inherited).envs(places.map(|(name, value)| (name, value))).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only setsid(2) is called, which takes no lock and allocates nothing.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
        let fault = |e| Fault::new(Code::RunNotStarted).cause(format!("{}: {e}", look::name(&shown, 300)));
        command.spawn().map_err(fault)
    }

    /// Waits until the process has become a run, or has ended.
    fn started(&self, mut child: Child, launcher: &str) -> Result<(), Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return ended(status, launcher);
            }
            let runs = self.runs().unwrap_or_default();
            if runs.iter().any(|run| run.pid == child.id()) || Instant::now() >= until {
                collect(child);
                return Ok(());
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// What an early end means (`keyward launch --help`, exit codes).
fn ended(status: ExitStatus, launcher: &str) -> Result<(), Fault> {
    let code = match status.code() {
        Some(125) => Code::RunNotStarted,
        Some(126) => Code::RunNotExecutable,
        Some(127) => Code::RunNotFound,
        // It was the program itself, and is over already.
        Some(_) | None => return Ok(()),
    };
    let name = look::name(launcher, 60).replace('\'', "'\\''");
    Err(Fault::new(code).help(format!("start it in a terminal, which says why: `keyward launch '{name}'`")))
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
    use super::*;

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
