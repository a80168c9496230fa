//! Finds the credentials that lie about on this machine: environment, start files of shells, `.env` files, settings and
//! logins of tools.
//!
//! Reads files and runs nothing; asks no network and no broker. Never prints: a secret that was found stays in a
//! [`SecretText`], and all that is shown of it is a fingerprint. A file that cannot be read is reported and the search
//! goes on. Called by `doctor`, `setup`, `profile add --from-env`, and the list of logins.

pub mod known;
mod text;
mod tool;
pub mod workflow;

pub use tool::{SdkFolder, SdkProfile, sdk_folder_of};

use self::known::{FAMILIES, Role, known};
use self::text::{Assignment, Written};
use crate::lookup;
use keyward_secret::SecretText;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// Start files below the home folder that POSIX shells, bash and zsh read, in the order of a login shell.
const START_FILES: &[&str] =
    &[".zshenv", ".profile", ".bash_profile", ".bash_login", ".zprofile", ".bashrc", ".zshrc", ".zlogin"];

/// Folders between the working folder and the root of the project that are searched for `.env` files.
const FOLDERS_MAX: usize = 64;

/// `.env` files of one folder that are read.
const ENV_FILES_MAX: usize = 32;

/// What is searched: the variables and folders of this process, or those of a test.
pub struct Around {
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// The working folder.
    pub cwd: PathBuf,
    /// The root of the file system.
    pub system: PathBuf,
}

/// Where a finding stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the environment of this process.
    Environment,
    /// In a file.
    File {
        /// Its path.
        path: PathBuf,
        /// Line, from 1 on, where it is known.
        line: Option<usize>,
    },
}

/// What kind of place it is: who reads it, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The environment: every program that is started here.
    Environment,
    /// A start file: every program of a shell that is started later.
    StartFile,
    /// A `.env` file: programs that load it.
    EnvFile,
    /// `.envrc`: programs started below its folder, where direnv is used.
    Direnv,
    /// Settings of Claude Code, which put variables over those of the environment. The rank of the file: higher wins.
    ClaudeSettings(u8),
    /// The file of another tool.
    Tool,
}

/// Whether a finding can be moved into the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Usable,
    /// It is a setting, no secret.
    Setting,
    /// There is nothing in it.
    Empty,
    /// No, and why.
    Unusable(&'static str),
}

/// Something that was found.
pub struct Finding {
    /// Family of the programs that read it.
    pub family: &'static str,
    /// Variable, or setting of a tool.
    pub name: String,
    /// What kind of place.
    pub source: Source,
    /// The place.
    pub place: Place,
    /// Whether it can be moved.
    pub state: State,
    /// The secret of a usable one.
    pub secret: Option<SecretText>,
    /// First 8 hexadecimal digits of the SHA-256 of the secret.
    pub fingerprint: Option<String>,
}

/// A file that was not read, and why.
#[derive(Debug, Serialize)]
pub struct Unread {
    /// Its path.
    pub file: String,
    /// One sentence.
    pub why: String,
}

/// All that was found.
#[derive(Default)]
pub struct Found {
    /// Credentials and the settings that choose one, the environment first.
    pub findings: Vec<Finding>,
    /// Files that could not be read.
    pub unread: Vec<Unread>,
    /// Folders with profiles of the Anthropic SDKs, without those that do not exist.
    pub sdk_folders: Vec<SdkFolder>,
}

impl Around {
    /// The environment and folders of this process.
    pub fn here() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            home: std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute()),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            system: PathBuf::from("/"),
        }
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// A variable that is set and not empty, as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.variable(name).and_then(OsStr::to_str).filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// The root of the project that the working folder belongs to.
    pub fn project(&self) -> &Path {
        lookup::project(&self.cwd, &|path| path.exists())
    }

    /// A place as data names it: an absolute path, or one below the home folder that begins with `~/`.
    pub(crate) fn place(&self, place: &str) -> Option<PathBuf> {
        match place.strip_prefix("~/") {
            Some(below) => self.home.as_ref().map(|home| home.join(below)),
            None => Some(PathBuf::from(place)),
        }
    }

    /// The folder of configuration files: `XDG_CONFIG_HOME`, else `.config` below the home folder.
    fn config(&self) -> Option<PathBuf> {
        let named = self.text("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        named.or_else(|| self.home.as_ref().map(|home| home.join(".config")))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
        }
    }
}

impl Place {
    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Environment => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// The line, where it is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Environment => None,
            Self::File { line, .. } => *line,
        }
    }
}

impl State {
    /// Why it cannot be moved.
    pub fn why(self) -> Option<&'static str> {
        match self {
            Self::Usable => None,
            Self::Setting => Some("a setting, no secret"),
            Self::Empty => Some("it is empty"),
            Self::Unusable(why) => Some(why),
        }
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} ({:?})", self.name, self.place, self.state)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            family: &'a str,
            variable: &'a str,
            place: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            file: Option<Cow<'a, str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<usize>,
            usable: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            why: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            fingerprint: Option<&'a str>,
        }
        let shown = Shown {
            family: self.family,
            variable: &self.name,
            place: self.place.to_string(),
            file: self.place.file().map(Path::to_string_lossy),
            line: self.place.line(),
            usable: self.state == State::Usable,
            why: self.state.why(),
            fingerprint: self.fingerprint.as_deref(),
        };
        shown.serialize(s)
    }
}

impl Finding {
    /// Whether it is a credential that Claude Code's settings put over the environment, and so over what is handed over.
    pub fn secret_of_claude_settings(&self) -> bool {
        let of_variable = matches!(self.source, Source::ClaudeSettings(_)) && known(&self.name).is_some();
        of_variable && self.family == "anthropic" && !matches!(self.state, State::Setting | State::Empty)
    }

    /// Variable in which a profile hands it over: its own, or the usual one of its provider where a tool keeps it.
    pub fn hands_over(&self) -> &str {
        match (self.source, self.family) {
            (Source::Tool, "github") => "GITHUB_TOKEN",
            (Source::Tool, "openai") => "OPENAI_API_KEY",
            (_, _) => &self.name,
        }
    }

    /// A setting or a credential that stays where it is.
    fn of_tool(family: &'static str, name: impl Into<String>, place: Place, state: State) -> Self {
        Self { family, name: name.into(), source: Source::Tool, place, state, secret: None, fingerprint: None }
    }

    /// A credential that can be moved; an empty one is reported as empty.
    fn with_secret(
        family: &'static str,
        name: impl Into<String>,
        source: Source,
        place: Place,
        secret: String,
    ) -> Self {
        let mut finding = Self { source, ..Self::of_tool(family, name, place, State::Usable) };
        finding.take(secret);
        finding
    }

    /// Keeps the secret, or says why that is not possible.
    fn take(&mut self, secret: String) {
        if secret.is_empty() {
            self.state = State::Empty;
            return;
        }
        let text_only = !secret.contains('\u{fffd}') && !secret.contains('\0');
        self.fingerprint = Some(hex::encode(&Sha256::digest(secret.as_bytes())[..4]));
        match SecretText::new(secret).ok().filter(|_| text_only) {
            Some(secret) => self.secret = Some(secret),
            None => self.state = State::Unusable("it is longer than a secret may be, or no text"),
        }
    }

    /// What was written about a variable of a family; `None` for a variable that is not known.
    fn of_variable(name: &str, source: Source, place: Place, written: Written) -> Option<Self> {
        let (family, role) = known(name)?;
        let mut finding = Self { source, ..Self::of_tool(family.name, name, place, State::Setting) };
        match written {
            Written::Unset => return None,
            Written::Computed => {
                finding.state = State::Unusable("it is computed by a shell, so that its bytes do not stand there");
            }
            Written::Plain(value) if value.is_empty() => finding.state = State::Empty,
            Written::Plain(value) => match role {
                Role::Setting => {}
                Role::Key => {
                    finding.state = State::Usable;
                    finding.take(value);
                }
                Role::Url if has_password(&value) => {
                    finding.state = State::Usable;
                    finding.take(value);
                }
                Role::Url => finding.state = State::Unusable("there is no password in the URL"),
                Role::Part => finding.state = State::Unusable("it is one part of a credential with several"),
                Role::Assertion => {
                    finding.state = State::Unusable("it is an assertion: exchanged for a credential, never stored");
                }
                Role::Headers if auth_headers(&value).is_empty() => {}
                Role::Headers => {
                    finding.state =
                        State::Unusable("a credential among headers; a profile hands it over in a variable of its own");
                }
            },
        }
        Some(finding)
    }
}

/// Makes this process non-dumpable before a secret is read. A kernel that refuses is no reason to stop.
fn hide() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

impl Found {
    /// The environment alone.
    pub fn in_environment(around: &Around) -> Self {
        hide();
        let mut found = Self::default();
        for (name, _) in FAMILIES.iter().flat_map(|family| family.members) {
            let Some(value) = around.variable(name) else { continue };
            let value = value.to_string_lossy().into_owned();
            let finding = Finding::of_variable(name, Source::Environment, Place::Environment, Written::Plain(value));
            found.findings.extend(finding);
        }
        found
    }

    /// The settings of Claude Code alone.
    pub fn in_claude_settings(around: &Around) -> Self {
        let mut found = Self::default();
        tool::claude_settings(around, &mut found);
        found
    }

    /// The environment and all files.
    pub fn everywhere(around: &Around) -> Self {
        let mut found = Self::in_environment(around);
        if let Some(home) = &around.home {
            for name in START_FILES {
                found.assignments(&home.join(name), Source::StartFile, text::shell);
            }
        }
        if let Some(config) = around.config() {
            found.assignments(&config.join("fish/config.fish"), Source::StartFile, text::fish);
        }
        found.env_files(around);
        tool::all(around, &mut found);
        found
    }

    /// Reads a file; one that cannot be read is noted.
    fn read(&mut self, path: &Path) -> Option<String> {
        match text::read(path) {
            Ok(text) => text,
            Err(why) => {
                self.unread.push(Unread { file: path.display().to_string(), why });
                None
            }
        }
    }

    fn assignments(&mut self, path: &Path, source: Source, parse: fn(&str) -> Vec<Assignment>) {
        let Some(text) = self.read(path) else { return };
        let first = self.findings.len();
        for Assignment { name, line, written } in parse(&text) {
            // What is set later in a file, or taken away there, wins over what stands above.
            let mut at = first;
            while at < self.findings.len() {
                if self.findings[at].name == name {
                    self.findings.remove(at);
                } else {
                    at += 1;
                }
            }
            let place = Place::File { path: path.to_owned(), line: Some(line) };
            self.findings.extend(Finding::of_variable(&name, source, place, written));
        }
    }

    fn env_files(&mut self, around: &Around) {
        let root = around.project().to_owned();
        for folder in around.cwd.ancestors().take(FOLDERS_MAX) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|name| is_env_file(name)).collect();
            names.sort();
            for name in names.iter().take(ENV_FILES_MAX) {
                if name == ".envrc" {
                    self.assignments(&folder.join(name), Source::Direnv, text::shell);
                } else {
                    self.assignments(&folder.join(name), Source::EnvFile, text::dotenv);
                }
            }
            if folder == root {
                break;
            }
        }
    }

    /// The finding of a variable in the environment that is not empty.
    pub fn set(&self, name: &str) -> Option<&Finding> {
        self.environment(name).filter(|f| f.state != State::Empty)
    }

    /// Whether the environment has the variable with nothing in it.
    pub fn is_empty(&self, name: &str) -> bool {
        self.environment(name).is_some_and(|f| f.state == State::Empty)
    }

    fn environment(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.source == Source::Environment && f.name == name)
    }

    /// Where else the variable is written: the files from which an environment gets it.
    pub fn written(&self, name: &str) -> impl Iterator<Item = &Finding> {
        let of_files = |f: &&Finding| matches!(f.source, Source::StartFile | Source::EnvFile | Source::Direnv);
        self.findings.iter().filter(of_files).filter(move |f| f.name == name)
    }

    /// The setting of Claude Code that puts something into the variable: that of the file that wins.
    pub fn claude_setting(&self, name: &str) -> Option<&Finding> {
        let ranked = self.findings.iter().filter_map(|f| match f.source {
            Source::ClaudeSettings(rank) if f.name == name => Some((rank, f)),
            _ => None,
        });
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, f)| f)
    }

    /// The findings of a tool's own file.
    pub fn of_tool<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f Finding> {
        self.findings.iter().filter(move |f| f.source == Source::Tool && f.name == name)
    }
}

/// The headers that authenticate, in lower case, of a list as `ANTHROPIC_CUSTOM_HEADERS` has it: `Name: value`, one a line.
pub fn auth_headers(list: &str) -> Vec<&'static str> {
    const NAMES: &[&str] = &["authorization", "x-api-key", "api-key", "proxy-authorization"];
    let named = list.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_ascii_lowercase());
    named.filter_map(|name| NAMES.iter().find(|n| **n == name).copied()).collect()
}

/// `.env`, `.env.local` and the like, and `.envrc`; not the examples that projects ship.
fn is_env_file(name: &str) -> bool {
    match name.strip_prefix(".env") {
        Some("" | "rc") => true,
        Some(rest) => {
            let example = ["example", "sample", "template", "dist", "schema", "defaults"];
            rest.starts_with('.') && !rest.split('.').any(|part| example.contains(&part))
        }
        None => false,
    }
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let user = authority.and_then(|a| a.rsplit_once('@')).map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
pub(crate) mod tests;
