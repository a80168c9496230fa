//! The terminal emulator of the user, and how it is told to run a program.
//!
//! How each takes a folder and a command is data (`data/terminals.toml`). Runs nothing by itself, goes through no shell, and
//! adds nothing to the environment. Called by the desktop, which lets it run `keyward launch NAME`: neither the command line
//! nor the environment of a terminal holds anything secret.

use crate::find::Around;
use crate::lookup::{executable, is_guarded};
use keyward_diag::{Code, Fault};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The alternative of Debian and its descendants. It takes `-e`, program and arguments, whatever stands behind it (Debian
/// policy, section 11.8.3).
const ALTERNATIVE: &str = "x-terminal-emulator";

/// Runs the terminal that the user has chosen for all desktops.
const CHOSEN: &str = "xdg-terminal-exec";

/// Folders that are searched where the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A terminal emulator that is installed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Absolute path of its program.
    path: PathBuf,
    folder: Vec<String>,
    command: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dialect {
    program: String,
    #[serde(default)]
    desktops: Vec<String>,
    #[serde(default)]
    needs: Option<String>,
    #[serde(default)]
    folder: Vec<String>,
    command: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    terminal: Vec<Dialect>,
}

// The data is part of the program, and a test reads it.
static DATA: LazyLock<Data> =
    LazyLock::new(|| toml::from_str(include_str!("../data/terminals.toml")).unwrap_or_default());

/// The terminal emulator of the user: the one that the variable `TERMINAL` names, where it is one of those that are known;
/// `xdg-terminal-exec`; the alternative `x-terminal-emulator`; that of the running desktop; the first of the others that is
/// installed. A program that others can change is passed over.
///
/// # Errors
/// [`Code::RunNotFound`] when there is none.
pub fn terminal(around: &Around) -> Result<Terminal, Fault> {
    let of = |wanted: &dyn Fn(&Dialect) -> bool| {
        DATA.terminal.iter().filter(|dialect| wanted(dialect)).find_map(|dialect| installed(around, dialect))
    };
    let named = around.variable("TERMINAL").and_then(|named| of_name(around, named));
    let found = named
        .or_else(|| of(&|dialect| dialect.program == CHOSEN))
        .or_else(|| alternative(around))
        .or_else(|| of(&|dialect| dialect.is_of_desktop(around)))
        .or_else(|| of(&|_| true));
    found.ok_or_else(|| {
        Fault::new(Code::RunNotFound)
            .cause("no terminal emulator that Keyward knows is in a folder of PATH")
            .help("install one, such as xterm, or name one that is installed in the variable TERMINAL")
    })
}

impl Terminal {
    /// Absolute path of its program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What opens a window that runs `argv` in `folder`. The first of `argv` is a program by its absolute path.
    pub fn command(&self, folder: &Path, argv: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        for arg in &self.folder {
            match arg.split_once("{}") {
                Some((before, after)) => {
                    let mut arg = OsString::from(before);
                    arg.push(folder);
                    arg.push(after);
                    command.arg(arg);
                }
                None => drop(command.arg(arg)),
            }
        }
        command.args(&self.command).args(argv).current_dir(folder);
        command
    }
}

impl Dialect {
    fn at(&self, path: PathBuf) -> Terminal {
        Terminal { path, folder: self.folder.clone(), command: self.command.clone() }
    }

    fn is_of_desktop(&self, around: &Around) -> bool {
        let desktop = around.text("XDG_CURRENT_DESKTOP").unwrap_or_default();
        desktop.split(':').any(|word| self.desktops.iter().any(|own| own == word))
    }
}

fn dialect(program: &OsStr) -> Option<&'static Dialect> {
    DATA.terminal.iter().find(|dialect| *program == *dialect.program)
}

fn installed(around: &Around, dialect: &Dialect) -> Option<Terminal> {
    if dialect.needs.as_ref().is_some_and(|variable| around.text(variable).is_none()) {
        return None;
    }
    on_path(around, OsStr::new(&dialect.program)).map(|path| dialect.at(path))
}

/// The terminal of a file name or an absolute path.
fn of_name(around: &Around, named: &OsStr) -> Option<Terminal> {
    let path = Path::new(named);
    let name = path.file_name()?;
    let dialect = dialect(name)?;
    let path = match path.is_absolute() {
        true => usable(path.to_owned())?,
        false if name == named => on_path(around, named)?,
        false => return None,
    };
    Some(dialect.at(path))
}

/// What stands behind the alternative, by its own name where it is known, since some of them do not take `-e` as they should.
fn alternative(around: &Around) -> Option<Terminal> {
    let path = on_path(around, OsStr::new(ALTERNATIVE))?;
    let real = std::fs::canonicalize(&path).ok()?;
    match real.file_name().and_then(dialect) {
        Some(dialect) => Some(dialect.at(real)),
        None => Some(Terminal { path, folder: Vec::new(), command: vec!["-e".to_owned()] }),
    }
}

fn on_path(around: &Around, program: &OsStr) -> Option<PathBuf> {
    let path = around.variable("PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).find_map(|folder| usable(folder.join(program)))
}

fn usable(path: PathBuf) -> Option<PathBuf> {
    (executable(&path) && is_guarded(&path)).then_some(path)
}

#[cfg(test)]
mod tests;
