//! A clean Debian 12 in which the package is installed, started and removed.
//!
//! Made by debootstrap in the target folder and kept for the next time once the package has left it as it was. Programs in it
//! see processes and mounts of their own; only apt sees a network. Needs root, since another system's files belong to it.
//! Called by `package`.

use crate::screen::Xvfb;
use crate::workspace::{Workspace, line_of, output, read};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The release of Debian.
const SUITE: &str = "bookworm";

/// Uid and gid of the person who starts the programs.
const PERSON: &str = "1000";

/// Longest wait for a window, and for the end of a program that refuses to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a system changes by itself when any package comes or goes: lists of packages, logs, and caches of what is installed.
const ITS_OWN: &[&str] = &[
    "etc/ld.so.cache",
    "usr/share/applications/mimeinfo.cache",
    "usr/share/icons/hicolor/icon-theme.cache",
    "var/cache/",
    "var/lib/apt/",
    "var/lib/dpkg/",
    "var/log/",
    "tmp/",
    "dev/",
    "proc/",
];

/// Enters the system: $0 is its folder, $1 the socket folder of the display, the rest a command line. In a process namespace
/// of its own, so that nothing of it stays.
const ENTER: &str = r#"
mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev/shm" || exit 125
if [ -n "$1" ]; then mkdir -p "$0/tmp/.X11-unix" && mount --bind "$1" "$0/tmp/.X11-unix" || exit 125; fi
root=$0; shift
exec chroot "$root" "$@"
"#;

/// A variable that the packaged desktop refuses, with a value that would work.
const REFUSED: [(&str, &str); 5] = [
    ("LD_PRELOAD", "libm.so.6"),
    ("GTK_MODULES", "colorreload-gtk-module"),
    ("TAURI_WEBVIEW_AUTOMATION", "true"),
    ("WEBKIT_INSPECTOR_SERVER", "127.0.0.1:9222"),
    ("WEBKIT_INSPECTOR_HTTP_SERVER", "127.0.0.1:9222"),
];

/// Installs `deb` with what it depends on, tries the programs, removes it, and compares the files.
pub(super) fn check(workspace: &Workspace, deb: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("package --check makes a system of its own, which needs root".into());
    }
    let folder = workspace.target.join("clean");
    let system = System::make(&folder, &field(deb, "Depends")?)?;
    let before = system.files()?;
    let installed = folder.join("root/var/cache/keyward.deb");
    std::fs::copy(deb, &installed).map_err(|e| format!("{}: {e}", installed.display()))?;
    system.apt(&["install", "/var/cache/keyward.deb"])?;
    std::fs::remove_file(&installed).map_err(|e| format!("{}: {e}", installed.display()))?;
    system.scripts()?;
    system.command_line()?;
    system.window(&folder)?;
    system.refusals()?;
    system.apt(&["remove", "keyward"])?;
    let after = system.files()?;
    let left: Vec<_> = after.symmetric_difference(&before).map(String::as_str).collect();
    if !left.is_empty() {
        return Err(format!("apt remove: no change of the files expected, seen: {}", left.join(" ")));
    }
    system.keep()?;
    println!("package: installs, starts and removes cleanly in Debian 12");
    Ok(())
}

fn field(deb: &Path, name: &str) -> Result<String, String> {
    Ok(output(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name))?.trim().to_owned())
}

struct System {
    root: PathBuf,
    stamp: PathBuf,
    /// What the system was made for.
    wanted: String,
}

impl System {
    /// A system with the packages of `depends` and one user; the one of the last time, if that is what it has.
    fn make(folder: &Path, depends: &str) -> Result<Self, String> {
        let fault = |e: std::io::Error| format!("{}: {e}", folder.display());
        let (root, stamp) = (folder.join("root"), folder.join("made-for"));
        let system = Self { root, stamp, wanted: format!("{SUITE}\n{depends}\n") };
        if std::fs::read_to_string(&system.stamp).is_ok_and(|there| there == system.wanted) {
            // Not clean any more until it is again as it was.
            std::fs::remove_file(&system.stamp).map_err(fault)?;
            return Ok(system);
        }
        println!("package: making a clean Debian in {}", system.root.display());
        if system.root.exists() {
            std::fs::remove_dir_all(&system.root).map_err(fault)?;
        }
        std::fs::create_dir_all(folder).map_err(fault)?;
        logged(Command::new("debootstrap").args(["--variant=minbase", SUITE]).arg(&system.root), folder)?;
        system.apt(&["update"])?;
        system.apt(&["satisfy", depends])?;
        system.succeed(&["useradd", "--create-home", "--uid", PERSON, "person"])?;
        Ok(system)
    }

    /// Keeps it for the next time.
    fn keep(&self) -> Result<(), String> {
        std::fs::write(&self.stamp, &self.wanted).map_err(|e| format!("{}: {e}", self.stamp.display()))
    }

    /// A command line in the system, in the environment of its init.
    fn command(&self, network: bool, display: &str, line: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        if !network {
            command.arg("--net");
        }
        command.args(["sh", "-c", ENTER]).arg(&self.root).arg(display).args(line);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LANG", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// A command line of the person, with further variables.
    fn person(&self, display: &str, variables: &[(&str, &str)], line: &[&str]) -> Command {
        let groups =
            [&format!("--reuid={PERSON}")[..], &format!("--regid={PERSON}"), "--clear-groups"].map(str::to_owned);
        let mut words: Vec<String> = vec!["setpriv".into()];
        words.extend(groups);
        words.extend(["env", "HOME=/home/person", "XDG_RUNTIME_DIR=/home/person/run"].map(str::to_owned));
        words.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(line.iter().map(|word| (*word).to_owned()));
        self.command(false, display, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn succeed(&self, line: &[&str]) -> Result<(), String> {
        logged(&mut self.command(false, "", line), &self.root)
    }

    fn apt(&self, words: &[&str]) -> Result<(), String> {
        let resolver = self.root.join("etc/resolv.conf");
        std::fs::copy("/etc/resolv.conf", &resolver).map_err(|e| format!("{}: {e}", resolver.display()))?;
        let line = [&["apt-get", "-q", "-y", "--no-install-recommends"][..], words].concat();
        let mut command = self.command(true, "", &line);
        logged(command.env("DEBIAN_FRONTEND", "noninteractive"), &self.root)
    }

    /// Every file and folder but those that change by themselves, and those of the person.
    fn files(&self) -> Result<BTreeSet<String>, String> {
        let mut find = Command::new("find");
        let list = output(find.arg(&self.root).args(["-xdev", "-mindepth", "1", "-printf", "%P\\0"]))?;
        let own = |file: &str| ITS_OWN.iter().any(|place| file.starts_with(place)) || file.starts_with("home/person");
        Ok(list.split_terminator('\0').filter(|file| !own(file)).map(str::to_owned).collect())
    }

    /// No script of the package runs at its installation or removal.
    fn scripts(&self) -> Result<(), String> {
        let info = self.root.join("var/lib/dpkg/info");
        for script in ["preinst", "postinst", "prerm", "postrm", "triggers", "config"] {
            if info.join(format!("keyward.{script}")).exists() {
                return Err(format!("no script of the package expected, seen: {script}"));
            }
        }
        Ok(())
    }

    /// The command line starts the broker beside it, makes a vault, and ends the broker.
    fn command_line(&self) -> Result<(), String> {
        const STORY: &str = "set -e; mkdir -p -m 700 $HOME/run; printf 'a passphrase of the check' >$HOME/word
            keyward init --passphrase-stdin <$HOME/word >/dev/null; keyward unlock --passphrase-stdin <$HOME/word >/dev/null
            keyward audit verify --json; keyward broker stop >/dev/null; man=$(zcat /usr/share/man/man1/keyward.1.gz | head -c 20)
            test -n \"$man\"; rm -r $HOME/word $HOME/run; keyward-desktop --version";
        let said = output(&mut self.person("", &[], &["sh", "-c", STORY]))?;
        println!("package: {}", said.trim().replace('\n', "\npackage: "));
        if said.contains(r#""ok":true"#) || said.contains(r#""ok": true"#) {
            Ok(())
        } else {
            Err(format!("audit verify: {said}"))
        }
    }

    /// The desktop opens a window and draws in it.
    fn window(&self, folder: &Path) -> Result<(), String> {
        let screen = Xvfb::start(folder)?;
        let empty = screen.look()?;
        let variables = screen.variables();
        let variables: Vec<(&str, &str)> =
            variables.iter().filter_map(|(name, value)| Some((*name, value.to_str()?))).collect();
        let line = ["sh", "-c", "mkdir -p -m 700 $HOME/run; exec keyward-desktop"];
        let mut desktop = Kept(
            self.person("/tmp/.X11-unix", &variables, &line)
                .stderr(Stdio::null())
                .spawn()
                .map_err(|e| format!("unshare: {e}"))?,
        );
        let begin = Instant::now();
        loop {
            let seen = screen.look()?;
            // A window that was drawn has letters, and these have many shades.
            if seen != empty && seen.colours(32) == 32 {
                break;
            }
            if let Ok(Some(status)) = desktop.0.try_wait() {
                return Err(format!("keyward-desktop: a window expected, seen: {status}"));
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("keyward-desktop: no window within {} s", PATIENCE.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("package: keyward-desktop shows its window after {:.1} s", begin.elapsed().as_secs_f32());
        Ok(())
    }

    /// With a variable that opens it to others the desktop says so and ends.
    fn refusals(&self) -> Result<(), String> {
        for (name, value) in REFUSED {
            let mut command = self.person("", &[(name, value), ("DISPLAY", ":0")], &["keyward-desktop"]);
            let done = command.output().map_err(|e| format!("unshare: {e}"))?;
            let said = String::from_utf8_lossy(&done.stderr);
            if done.status.code() != Some(1) || !said.contains(name) {
                return Err(format!(
                    "{name}={value} keyward-desktop: exit 1 and its name expected, seen: {}: {said}",
                    done.status
                ));
            }
        }
        println!("package: keyward-desktop refuses {}", REFUSED.map(|(name, _)| name).join(", "));
        Ok(())
    }
}

/// Everything below it ends with it, since `unshare --kill-child` ends its namespace.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command whose output goes into a file beside `place`; it is shown if the command fails.
fn logged(command: &mut Command, place: &Path) -> Result<(), String> {
    let line = line_of(command);
    let log = place.with_extension("log");
    let file = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let again = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
    let status =
        command.stdin(Stdio::null()).stdout(file).stderr(again).status().map_err(|e| format!("{line}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}\n{}", read(&log)?.trim_end())) }
}
