//! `keyward.toml` of the project: finds it, reads it, and asks the person about what changed.
//!
//! Takes from the file what it must know before it asks: which run is meant, and its command. The broker reads the same bytes
//! strictly and decides. Follows no link, and never writes. Called by `run`.

use crate::{input, out};
use keyward_api::ProjectFileMsg;
use keyward_diag::{Code, Fault, plain};
use keyward_find::lookup;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Name of the file, at the root of the project.
const FILE: &str = "keyward.toml";

/// Longest file, in bytes.
const FILE_MAX_BYTES: u64 = 16 * 1024;

/// What the file may hold beside comments.
const KEYS: [&str; 2] = ["default", "run"];

/// What a reference to a profile begins with.
const REFERENCE: &str = "keyward:";

/// A run that a project's file names.
pub(crate) struct Project {
    /// Folder of the file.
    pub(crate) folder: PathBuf,
    /// What goes to the broker.
    pub(crate) message: ProjectFileMsg,
    /// Profiles that it asks for, as far as they are understood here.
    pub(crate) profiles: Vec<String>,
    /// Its command; empty where it names none.
    pub(crate) command: Vec<OsString>,
}

impl Project {
    /// The run of this name, in the file of the project around the folder `cwd`.
    ///
    /// # Errors
    /// [`Code::ProjectInvalid`] where there is no such file or run.
    pub(crate) fn named(cwd: &Path, name: &str) -> Result<Self, Fault> {
        let folder = folder(cwd);
        let shown = plain(&folder.join(FILE).display().to_string(), 300);
        let invalid = |cause: String| Fault::new(Code::ProjectInvalid).cause(&shown).cause(cause);
        let text = read(folder)?.ok_or_else(|| {
            Fault::new(Code::ProjectInvalid)
                .cause(format!("there is no {shown}, so nothing is named `{}`; it lies where `.git` is, or in the working folder where no folder above has one", plain(name, 64)))
                .help(format!("to run a program of that name: `keyward run -- {}`", plain(name, 64)))
        })?;
        let file: Table = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(0, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            invalid(format!("line {line}: not TOML: {}", e.message()))
        })?;
        if section(&file, name).is_none() {
            let names: Vec<String> = sections(&file).map(|name| plain(name, 64)).collect();
            let there = match names.is_empty() {
                true => "the file names no run".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            };
            let cause = format!("there is no [run.{}]; {there}", plain(name, 64));
            if let Some(other) = file.keys().find(|key| !KEYS.contains(&key.as_str())) {
                return Err(invalid(format!("{} is not known; known are {}", plain(other, 64), KEYS.join(" and "))));
            }
            let help = format!("to run a program of that name: `keyward run -- {}`", plain(name, 64));
            return Err(invalid(cause).help(help));
        }
        let wrong = |(key, value): (&String, &Value)| match key.as_str() {
            "command" => {
                (!value.is_array()).then(|| "command is a list of texts: [\"npm\", \"run\", \"dev\"]".to_owned())
            }
            "profiles" | "env" => None,
            other => Some(format!("{} is not known; known are profiles, env and command", plain(other, 64))),
        };
        if let Some(wrong) = section(&file, name).and_then(|section| section.iter().find_map(wrong)) {
            return Err(invalid(format!("[run.{}]: {wrong}", plain(name, 64))));
        }
        Self::of(folder, text, &file, Some(name))
    }

    /// The run that the file of the project around `cwd` means where nobody names one; `None` where there is no file, or none of
    /// its runs is meant.
    ///
    /// # Errors
    /// [`Code::ProjectInvalid`] where the file cannot be taken. One that breaks a rule of its text is left to the broker.
    pub(crate) fn meant(cwd: &Path) -> Result<Option<Self>, Fault> {
        let folder = folder(cwd);
        let Some(text) = read(folder)? else { return Ok(None) };
        let Ok(file) = toml::from_str::<Table>(&text) else {
            return Self::of(folder, text, &Table::new(), None).map(Some);
        };
        let default = file.get("default").and_then(Value::as_str).map(str::to_owned);
        let mut names = sections(&file);
        match (default, names.next().map(str::to_owned), names.next()) {
            (None, Some(_), Some(_)) => Ok(None),
            (None, only, _) | (only @ Some(_), ..) => Self::of(folder, text, &file, only.as_deref()).map(Some),
        }
    }

    fn of(folder: &Path, text: String, file: &Table, run: Option<&str>) -> Result<Self, Fault> {
        let path = folder.join(FILE);
        let Some(path) = path.to_str().map(str::to_owned) else {
            let cause = format!("{} is not UTF-8, and the log cannot hold it", path.display());
            return Err(Fault::new(Code::RequestInvalid).cause(cause));
        };
        let section = run.and_then(|name| section(file, name));
        let texts = |field: &str| {
            let list = section.and_then(|section| section.get(field)).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str)
        };
        let variables = section.and_then(|section| section.get("env")).and_then(Value::as_table);
        let references = variables.into_iter().flat_map(Table::values).filter_map(Value::as_str);
        let references = references.filter_map(|text| text.strip_prefix(REFERENCE));
        Ok(Self {
            folder: folder.to_owned(),
            profiles: texts("profiles").chain(references).map(str::to_owned).collect(),
            command: texts("command").map(OsString::from).collect(),
            message: ProjectFileMsg { path, text, run: run.map(str::to_owned), reviewed: None },
        })
    }
}

/// Shows the person at the terminal what changed in the file, as the broker tells it, and asks. `true`: the request may say that
/// it was looked at.
///
/// # Errors
/// [`Code::InputNeeded`] when the terminal cannot be used.
pub(crate) fn review(file: &mut ProjectFileMsg, unreviewed: &Fault) -> Result<bool, Fault> {
    let Some((what, lines)) = unreviewed.causes.split_first() else { return Ok(false) };
    out::say(&format!("{}: {}", unreviewed.message, plain(what, 400)));
    for line in lines {
        out::explain(&format!("  {}", plain(line, 400)));
    }
    if !input::consent("May the project ask for this?")? {
        return Ok(false);
    }
    file.reviewed = Some(hex::encode(Sha256::digest(file.text.as_bytes())));
    Ok(true)
}

fn folder(cwd: &Path) -> &Path {
    lookup::project(cwd, &|path| path.symlink_metadata().is_ok())
}

fn sections(file: &Table) -> impl Iterator<Item = &str> {
    file.get("run").and_then(Value::as_table).into_iter().flat_map(Table::keys).map(String::as_str)
}

fn section<'f>(file: &'f Table, name: &str) -> Option<&'f Table> {
    file.get("run")?.as_table()?.get(name)?.as_table()
}

/// The text of the file in a folder; `None` where there is none. Neither the folder nor the file may be a link, and what is no
/// file is not opened in a way that could wait or act.
fn read(folder: &Path) -> Result<Option<String>, Fault> {
    let path = folder.join(FILE);
    let invalid = |cause: &str| {
        Fault::new(Code::ProjectInvalid)
            .cause(format!("{} {cause}", plain(&path.display().to_string(), 300)))
            .help("put a plain file there, or name the profiles with -p: the file is not read then")
    };
    let told = |e: Errno| match e {
        Errno::LOOP => invalid("is a link, or lies behind one"),
        e => invalid(&format!("cannot be read: {}", std::io::Error::from(e))),
    };
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = open(folder, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(told)?;
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat(&within, FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(told(e)),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(invalid("is not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| invalid(&format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(invalid("is longer than 16384 bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| invalid("is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("keyward-project-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("p/.git")).unwrap();
            fs::create_dir_all(path.join("p/deep/er")).unwrap();
            Self(path.canonicalize().unwrap())
        }

        fn put(&self, text: &str) {
            fs::write(self.0.join("p").join(FILE), text).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const TWO: &str = "[run.a]\nprofiles = [\"p\"]\nenv = { T = \"keyward:q\", U = 3 }\ncommand = [\"x\", \"y\"]\n\
                       [run.b]\nprofiles = [\"r\"]\n";

    #[test]
    fn the_run_is_the_named_one_the_default_or_the_only_one() {
        let scratch = Scratch::new("meant");
        let cwd = scratch.0.join("p/deep/er");
        assert!(Project::meant(&cwd).unwrap().is_none(), "no file");
        let none = Project::named(&cwd, "a").err().unwrap();
        assert!(none.code == Code::ProjectInvalid && none.help.contains("`keyward run -- a`"), "{none}");
        scratch.put(TWO);
        assert!(Project::meant(&cwd).unwrap().is_none(), "none of the two is meant");
        let a = Project::named(&cwd, "a").unwrap();
        assert_eq!((a.profiles, a.command), (vec!["p".to_owned(), "q".to_owned()], vec!["x".into(), "y".into()]));
        assert_eq!(
            (a.folder.clone(), a.message.path),
            (scratch.0.join("p"), a.folder.join(FILE).display().to_string())
        );
        assert_eq!((a.message.run.as_deref(), a.message.text.as_str()), (Some("a"), TWO));
        assert!(Project::named(&cwd, "b").unwrap().command.is_empty());
        for other in ["c", "", "a.profiles", "\u{1b}[2J"] {
            let fault = Project::named(&cwd, other).err().unwrap().to_string();
            assert!(fault.contains("there are: a, b") && !fault.contains('\u{1b}'), "{fault}");
        }
        scratch.put(&format!("default = \"b\"\n{TWO}"));
        assert_eq!(Project::meant(&cwd).unwrap().unwrap().profiles, ["r"]);
        scratch.put("[run.only]\nprofiles = [\"p\"]\n");
        assert_eq!(Project::meant(&cwd).unwrap().unwrap().message.run.as_deref(), Some("only"));
        for broken in ["[run", "", "run = 3", "default = 3", "[run]\nx = 3"] {
            scratch.put(broken);
            let left = Project::meant(&cwd).unwrap().unwrap();
            assert!(left.message.text == broken && left.profiles.is_empty(), "the broker tells what is wrong with it");
            assert_eq!(Project::named(&cwd, "a").err().unwrap().code, Code::ProjectInvalid, "{broken}");
        }
    }

    #[test]
    fn what_is_no_plain_file_of_its_size_is_refused() {
        let scratch = Scratch::new("plain");
        let (folder, file) = (scratch.0.join("p"), scratch.0.join("p").join(FILE));
        #[track_caller]
        fn refused(folder: &Path, why: &str) {
            let fault = Project::meant(folder).err().unwrap();
            assert!(fault.code == Code::ProjectInvalid && fault.causes[0].contains(why), "{fault}");
            assert!(Project::named(folder, "a").is_err());
        }
        fs::write(scratch.0.join("elsewhere"), TWO).unwrap();
        symlink(scratch.0.join("elsewhere"), &file).unwrap();
        refused(&folder, "is a link");
        fs::remove_file(&file).unwrap();
        symlink("nowhere", &file).unwrap();
        refused(&folder, "is a link");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused(&folder, "is not a plain file");
        fs::remove_dir(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        refused(&folder, "is not a plain file");
        fs::remove_file(&file).unwrap();
        scratch.put(&"#".repeat(16 * 1024));
        assert!(Project::meant(&folder).is_ok());
        scratch.put(&"#".repeat(16 * 1024 + 1));
        refused(&folder, "is longer");
        fs::write(&file, [0xff, 0xfe]).unwrap();
        refused(&folder, "is not UTF-8");
        scratch.put(TWO);
        symlink(&folder, scratch.0.join("link")).unwrap();
        refused(&scratch.0.join("link"), "link");
    }
}
