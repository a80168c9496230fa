//! What this machine lets programs of one user do to each other, as far as it bears on Keyward.
//!
//! Reads a few files of `/proc` and names of variables. Changes nothing, and never claims that a setting makes a machine
//! safe: each fact has one sentence that says what it means, and where it can be better one that says how. Called by `doctor`.

use keyward_find::find::Around;
use serde::Serialize;
use std::ffi::OsStr;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    /// `ptrace_scope`, `legacy_tiocsti`, `hidepid`, `display` or `pid_1`.
    pub(crate) fact: &'static str,
    /// What is set, or `unknown`.
    pub(crate) value: String,
    /// As good as this setting gets.
    pub(crate) ok: bool,
    /// What it means for Keyward.
    pub(crate) means: &'static str,
    /// How to set it, where it can be better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) set: Option<&'static str>,
}

/// The facts, always all of them and in this order.
pub(crate) fn facts(around: &Around, parent: u32) -> Vec<Fact> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(around.system.join(path)).ok()?;
        Some(text.trim().to_owned())
    };
    vec![
        ptrace_scope(read("proc/sys/kernel/yama/ptrace_scope")),
        legacy_tiocsti(read("proc/sys/dev/tty/legacy_tiocsti")),
        hidepid(read("proc/self/mountinfo").as_deref()),
        display(around),
        pid_1(read("proc/1/comm"), parent),
    ]
}

fn fact(
    name: &'static str,
    value: impl Into<String>,
    ok: bool,
    means: &'static str,
    set: Option<&'static str>,
) -> Fact {
    Fact { fact: name, value: value.into(), ok, means, set }
}

/// Yama (kernel documentation, `admin-guide/LSM/Yama.rst`).
fn ptrace_scope(value: Option<String>) -> Fact {
    let name = "ptrace_scope";
    let set = "as root: sysctl -w kernel.yama.ptrace_scope=1, and the same line in /etc/sysctl.d";
    match value.as_deref() {
        Some("1") => {
            let means = "a program can trace only what it has started: your other programs cannot read a credential out of a running child, a parent can";
            fact(name, "1", true, means, None)
        }
        Some(value @ ("2" | "3")) => {
            let means = "no program of yours can trace another one: a credential in a child cannot be read that way";
            fact(name, value, true, means, None)
        }
        value => {
            let means = "any program of yours can trace and read your other programs, so also a child that holds a credential; the broker and the prompts close themselves to it";
            let Some(value) = value else {
                let set = "use a kernel with the security module Yama, and set kernel.yama.ptrace_scope to 1";
                return fact(name, "unknown (a kernel without Yama)", false, means, Some(set));
            };
            fact(name, value, false, means, Some(set))
        }
    }
}

/// `CONFIG_LEGACY_TIOCSTI` of Linux 6.2 and later; before that every kernel allows it.
fn legacy_tiocsti(value: Option<String>) -> Fact {
    let name = "legacy_tiocsti";
    if value.as_deref() == Some("0") {
        let means = "no program can type into the terminal that it runs on";
        return fact(name, "0", true, means, None);
    }
    let means = "a program can type into the terminal that it runs on, so also a command line for the shell after it has ended; the passphrase it does not know";
    let set = "as root: sysctl -w dev.tty.legacy_tiocsti=0, and the same line in /etc/sysctl.d (Linux 6.2 or later)";
    fact(name, value.unwrap_or_else(|| "unknown (a kernel before 6.2 allows it)".to_owned()), false, means, Some(set))
}

/// The option of the mount at `/proc` that is on top (proc(5)).
fn hidepid(mounts: Option<&str>) -> Fact {
    let name = "hidepid";
    let options = mounts.and_then(|mounts| {
        let of_proc = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            (before.split(' ').nth(4)? == "/proc" && after.split(' ').next()? == "proc").then(|| after.to_owned())
        };
        mounts.lines().filter_map(of_proc).next_back()
    });
    let Some(options) = options else {
        let means = "it could not be read how /proc is mounted, and so not who sees the names of your processes";
        return fact(name, "unknown", false, means, None);
    };
    let options = options.split(' ').nth(2).unwrap_or_default();
    let value = options.split(',').find_map(|option| option.strip_prefix("hidepid=")).unwrap_or("off");
    match value {
        "off" | "0" => {
            let means =
                "other users see the names and command lines of your processes; Keyward puts no credential there";
            let set = "as root: mount -o remount,hidepid=invisible /proc, and the same option in /etc/fstab";
            fact(name, value, false, means, Some(set))
        }
        "ptraceable" | "4" => {
            let means = "processes that close themselves are hidden even from your own programs: Keyward then knows less about who asks, and asks a person more often";
            let set = "as root: mount -o remount,hidepid=invisible /proc, which hides you from other users as well";
            fact(name, value, false, means, Some(set))
        }
        value => fact(name, value, true, "other users cannot look into your processes", None),
    }
}

fn display(around: &Around) -> Fact {
    let name = "display";
    let set = |name: &str| around.variables.get(OsStr::new(name)).is_some_and(|value| !value.is_empty());
    match (set("WAYLAND_DISPLAY"), set("DISPLAY")) {
        (true, false) => {
            let means = "a program can neither see the keys that you type into another window nor press any there";
            fact(name, "wayland", true, means, None)
        }
        (true, true) => {
            let means = "programs under Xwayland can watch and press keys in each other's windows, not in those of Wayland; Keyward's windows are safe as long as they are of Wayland";
            fact(name, "wayland with x11", true, means, None)
        }
        (false, true) => {
            let means = "any program on this display can see each key you type and press keys in your name, so also answer a request with a passphrase that it has seen";
            fact(name, "x11", false, means, Some("log in to a Wayland session"))
        }
        (false, false) => {
            let means = "there is no display here: requests are answered with `keyward approve` in a terminal";
            fact(name, "none", true, means, None)
        }
    }
}

/// Whether the shell is the process that inherits everybody else's orphans, as in a container without an init.
fn pid_1(comm: Option<String>, parent: u32) -> Fact {
    let name = "pid_1";
    let value = comm.unwrap_or_else(|| "unknown".to_owned());
    if parent == 1 {
        let means = "this shell is PID 1, whose children may be anybody's orphans: `keyward unlock` gives it no rights, and each run asks a person or needs a grant";
        let set = "start the container with an init (`docker run --init`), or work in a shell below this one";
        return fact(name, value, false, means, Some(set));
    }
    let shells = ["sh", "bash", "dash", "zsh", "fish", "ash", "ksh", "busybox"];
    if shells.contains(&value.as_str()) {
        let means = "PID 1 is a shell, as in a container without an init; this shell is another one, so that `keyward unlock` works here";
        return fact(name, value, true, means, None);
    }
    fact(name, value, true, "this shell is not PID 1, so that `keyward unlock` gives it rights of its own", None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Scene;

    const FILES: [&str; 3] =
        ["/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/dev/tty/legacy_tiocsti", "/proc/self/mountinfo"];

    fn seen(texts: [&str; 3], variables: &[(&str, &str)], parent: u32) -> Vec<(String, bool)> {
        let scene = Scene::new(variables);
        for (file, text) in FILES.iter().zip(texts) {
            scene.file(file, text);
        }
        scene.file("/proc/1/comm", "bash\n");
        facts(&scene.around, parent).into_iter().map(|fact| (fact.value, fact.ok)).collect()
    }

    fn told(list: &[(&str, bool)]) -> Vec<(String, bool)> {
        list.iter().map(|(value, ok)| ((*value).to_owned(), *ok)).collect()
    }

    #[test]
    fn each_setting_is_read_as_it_counts() {
        let mounts = "20 1 0:5 / /x/proc rw - proc proc rw,hidepid=2\n\
            21 1 0:6 / /proc rw,nosuid shared:13 - proc proc rw\n\
            30 1 0:9 / /proc rw - proc proc rw,gid=4,hidepid=invisible\n";
        let wayland = [("WAYLAND_DISPLAY", "wayland-0"), ("DISPLAY", "")];
        assert_eq!(
            seen(["1\n", "0\n", mounts], &wayland, 77),
            told(&[("1", true), ("0", true), ("invisible", true), ("wayland", true), ("bash", true)])
        );
        let open = "21 1 0:6 / /proc rw - proc proc rw\n";
        assert_eq!(
            seen(["0\n", "1\n", open], &[("DISPLAY", ":0")], 1),
            told(&[("0", false), ("1", false), ("off", false), ("x11", false), ("bash", false)])
        );
        let both = [("WAYLAND_DISPLAY", "w"), ("DISPLAY", ":0")];
        let closed = "21 1 0:6 / /proc rw - proc proc rw,hidepid=ptraceable\n";
        assert_eq!(
            seen(["3", "0", closed], &both, 2)[..4],
            told(&[("3", true), ("0", true), ("ptraceable", false), ("wayland with x11", true)])
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_called_good_and_each_bad_fact_has_a_remedy_where_there_is_one() {
        let facts = facts(&Scene::new(&[]).around, 7);
        let names: Vec<_> = facts.iter().map(|fact| fact.fact).collect();
        assert_eq!(names, ["ptrace_scope", "legacy_tiocsti", "hidepid", "display", "pid_1"]);
        assert!(facts[..3].iter().all(|fact| !fact.ok && fact.value.starts_with("unknown")), "{facts:?}");
        assert!(facts.iter().all(|fact| !fact.means.is_empty() && (fact.set.is_none() || !fact.ok)), "{facts:?}");
        assert!(facts[0].set.is_some() && facts[1].set.is_some(), "{facts:?}");
    }
}
