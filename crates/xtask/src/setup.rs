//! `cargo xtask setup`: the system packages that building and testing need.
//!
//! Reads `.ci/packages`, the only list. Installs with apt-get, as root or through a sudo that asks nothing; never asks
//! for a password, never removes or upgrades anything. Called by hand, and by the tasks that build or test.

use crate::workspace::{Workspace, output, read, succeed};
use std::process::{Command, Stdio};

/// Makes sure that the packages of `groups` are installed; with `check` only says which are missing.
///
/// Fails when something is missing and cannot be installed; the error holds the command that a person can run. On a
/// system without dpkg it names the packages and goes on, since their names there are not known.
pub(crate) fn setup(workspace: &Workspace, groups: &[&str], check: bool) -> Result<(), String> {
    let wanted = packages(&read(&workspace.root.join(".ci/packages"))?, groups, in_path)?;
    let Some(installed) = installed() else {
        println!("setup: no dpkg here; what these Debian packages hold must be installed: {}", wanted.join(" "));
        return Ok(());
    };
    let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|name| !installed.contains(*name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if check {
        return Err(format!("missing: {}; `cargo xtask setup` installs them, or `sudo {by_hand}`", missing.join(" ")));
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !sudo_asks_nothing() {
        return Err(format!("missing: {}; install with `sudo {by_hand}`, then start again", missing.join(" ")));
    }
    println!("setup: installing {}", missing.join(" "));
    succeed(apt_get(root).arg("update"))?;
    succeed(apt_get(root).args(["install", "-y", "--no-install-recommends"]).args(&missing))
        .map_err(|e| format!("{e}; by hand: `sudo {by_hand}`"))
}

fn apt_get(root: bool) -> Command {
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).stdin(Stdio::null());
    command
}

fn sudo_asks_nothing() -> bool {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}

/// Names of the packages that dpkg has configured, or none on a system without dpkg.
fn installed() -> Option<std::collections::BTreeSet<String>> {
    let list = output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}\t${Package}\n"])).ok()?;
    let names = list.lines().filter_map(|line| line.split_once('\t')).filter(|(state, _)| state.starts_with("ii"));
    Some(names.map(|(_, name)| name.to_owned()).collect())
}

/// Whether a program of this name can be started.
fn in_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// The packages of `groups`, in the order of the file, without those of a line `PACKAGE unless PROGRAM` whose program
/// `is_there` already. A word outside of a group or any other second word in a line is an error.
fn packages(list: &str, groups: &[&str], is_there: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let mut group = None;
    let mut names = Vec::new();
    for (n, line) in list.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = Some(name);
            continue;
        }
        let Some(group) = group else { return Err(format!(".ci/packages:{}: no group yet", n + 1)) };
        let (name, program) = line.split_once(" unless ").map_or((line, None), |(name, p)| (name, Some(p)));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if [Some(name), program]
            .into_iter()
            .flatten()
            .any(|w| !w.chars().all(plain) || w.is_empty() || w.starts_with('-'))
        {
            return Err(format!(".ci/packages:{}: not the name of a package", n + 1));
        }
        if groups.contains(&group) && !program.is_some_and(&is_there) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gives_its_packages_alone() {
        let list = "# why\n[build]\ngcc # links\n\n[test]\ndbus\n[build]\nlibc6-dev\n";
        assert_eq!(packages(list, &["build"], |_| false), Ok(vec!["gcc".into(), "libc6-dev".into()]));
        assert_eq!(packages(list, &["test", "vendored"], |_| false), Ok(vec!["dbus".into()]));
    }

    #[test]
    fn a_program_that_is_there_needs_no_package() {
        let list = "[test]\nnodejs unless node # any will do\nnpm unless npm\n";
        assert_eq!(packages(list, &["test"], |program| program == "node"), Ok(vec!["npm".into()]));
        assert_eq!(packages(list, &["test"], |_| false), Ok(vec!["nodejs".into(), "npm".into()]));
        assert!(in_path("sh") && !in_path("no-such-program"));
    }

    #[test]
    fn what_is_no_package_name_never_reaches_apt() {
        for list in [
            "gcc\n",
            "[build]\n-o=x\n",
            "[build]\ngcc make\n",
            "[build]\n$(id)\n",
            "[build]\n./a.deb;\n",
            "[build]\na unless b c\n",
            "[build]\na unless \n",
        ] {
            assert!(packages(list, &["build"], |_| true).is_err(), "{list:?} passed");
        }
    }
}
