//! `config.toml`: the few settings of the broker. Read once at its start, and written when a person changes a setting.

use keyward_core::{parse_duration, render_duration};
use keyward_diag::{Code, Fault, plain};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// Settings. A file that is absent means the defaults; one that is not understood stops the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Time without an action of the person after which the vault locks itself.
    pub(crate) auto_lock: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { auto_lock: Duration::from_secs(15 * 60) }
    }
}

/// The only key of the file.
const AUTO_LOCK: &str = "auto_lock";

impl Config {
    /// Reads `config.toml` in `folder`: `auto_lock = "15m"`, one minute to one day.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`], with the file and what is wrong in it.
    pub(crate) fn load(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse_file(&path, &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Fault::new(Code::ConfigInvalid).cause(format!("{}: {e}", path.display()))),
        }
    }

    fn parse_file(path: &Path, text: &str) -> Result<Self, Fault> {
        Self::parse(text).map_err(|wrong| {
            Fault::new(Code::ConfigInvalid).cause(format!("{}: {wrong}", path.display())).help(
                "write `auto_lock = \"15m\"`, from 1m to 24h, or remove the file; it is read when the broker starts: \
                 `keyward broker restart`",
            )
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |at| text.get(..at.start).unwrap_or_default().matches('\n').count());
            format!("line {} is not TOML: {}", line + 1, e.message())
        })?;
        if let Some(key) = file.keys().find(|key| *key != AUTO_LOCK) {
            return Err(format!("{}`{}` is no setting; there is `{AUTO_LOCK}`", at(text, key), plain(key, 40)));
        }
        let wrong = |why: String| format!("{}{why}", at(text, AUTO_LOCK));
        let auto_lock = match file.get(AUTO_LOCK) {
            None => Self::default().auto_lock,
            Some(Value::String(text)) => parse_duration(text).map_err(|e| wrong(format!("`{AUTO_LOCK}`: {e}")))?,
            Some(_) => return Err(wrong(format!("`{AUTO_LOCK}` is not text such as \"15m\""))),
        };
        let config = Self { auto_lock };
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// Checks the bounds of the settings.
    ///
    /// # Errors
    /// The bound that is broken, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(86_400));
        match (least..=most).contains(&self.auto_lock) {
            true => Ok(()),
            false => Err("auto_lock is between 1m and 24h".to_owned()),
        }
    }

    /// Writes the settings beside `config.toml` in `folder`, ready to take its place. What a person wrote there besides the
    /// setting stays: comments and form.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] when the file that is there is not understood, [`Code::FileUnreadable`].
    pub(crate) fn stage(&self, folder: &Path) -> Result<Staged, Fault> {
        let path = folder.join("config.toml");
        let fault = |e: io::Error| Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", path.display()));
        let former = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(fault(e)),
        };
        Self::parse_file(&path, &former)?;
        // A link stays one, as of those who keep their settings elsewhere.
        let target = path.canonicalize().unwrap_or_else(|_| path.clone());
        let mut draft = target.clone().into_os_string();
        draft.push(".new");
        let staged = Staged { draft: draft.into(), target };
        let mut options = std::fs::OpenOptions::new();
        // One that a crash left is not followed if it is a link.
        let _ = std::fs::remove_file(&staged.draft);
        let written = options.write(true).create_new(true).mode(0o600).open(&staged.draft).and_then(|mut file| {
            file.write_all(self.render(&former).as_bytes())?;
            file.sync_all()
        });
        written.map_err(fault)?;
        Ok(staged)
    }

    /// The text of the file with this setting in it.
    fn render(&self, former: &str) -> String {
        let setting = format!("auto_lock = \"{}\"", render_duration(self.auto_lock));
        let own = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name.trim() == "auto_lock");
        let text = match former.lines().find(own) {
            Some(line) => {
                let comment = line.split_once('#').map_or_else(String::new, |(_, words)| format!(" #{words}"));
                former.replacen(line, &(setting.clone() + &comment), 1)
            }
            None if former.is_empty() || former.ends_with('\n') => format!("{former}{setting}\n"),
            None => format!("{former}\n{setting}\n"),
        };
        // What was written in a form that nobody expects is written anew.
        if Self::parse(&text).as_ref() == Ok(self) { text } else { setting + "\n" }
    }
}

/// Where a key stands: `line 3: `, or nothing where that cannot be told.
fn at(text: &str, key: &str) -> String {
    let is_it = |line: &str| {
        let name = line.trim_start().trim_start_matches(['[', '"', '\'']);
        name.strip_prefix(key).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    text.lines().position(is_it).map_or_else(String::new, |line| format!("line {}: ", line + 1))
}

/// Settings that are written and not in place yet. Removed when they are dropped before that.
pub(crate) struct Staged {
    draft: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// Puts them in place.
    ///
    /// # Errors
    /// [`Code::FileUnreadable`].
    pub(crate) fn publish(self) -> Result<(), Fault> {
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        let done = std::fs::rename(&self.draft, &self.target).and_then(|()| std::fs::File::open(folder)?.sync_all());
        done.map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", self.target.display())))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After it was put in place there is none.
        let _ = std::fs::remove_file(&self.draft);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_setting_is_written_in_its_place_and_the_rest_stays() {
        let set = |former: &str| Config { auto_lock: Duration::from_secs(5400) }.render(former);
        let own = "auto_lock = \"1h30m\"";
        for (former, want) in [
            ("", format!("{own}\n")),
            ("# mine", format!("# mine\n{own}\n")),
            ("# mine\n", format!("# mine\n{own}\n")),
            ("# a\n  auto_lock=\"5m\"   # at work\n# b\n", format!("# a\n{own} # at work\n# b\n")),
            ("# auto_lock = \"5m\"\n", format!("# auto_lock = \"5m\"\n{own}\n")),
            // Forms that are rarer.
            ("\"auto_lock\" = \"5m\"\n", format!("{own}\n")),
            ("auto_lock = \"\"\"\n5m\"\"\"\n", format!("{own}\n")),
        ] {
            assert_eq!(set(former), want, "{former:?}");
            assert_eq!(Config::parse(&set(former)).unwrap().auto_lock.as_secs(), 5400);
        }
    }

    #[test]
    fn the_file_is_replaced_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("keyward-config-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("kept")).unwrap();
        let config = |s| Config { auto_lock: Duration::from_secs(s) };
        let files = || {
            let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        config(60).stage(&folder).unwrap().publish().unwrap();
        assert_eq!(Config::load(&folder), Ok(config(60)));
        assert_eq!(folder.join("config.toml").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(config(120).stage(&folder).unwrap());
        assert_eq!((Config::load(&folder), files().len()), (Ok(config(60)), 2), "what is not published is gone");
        std::fs::rename(folder.join("config.toml"), folder.join("kept/config.toml")).unwrap();
        std::os::unix::fs::symlink("kept/config.toml", folder.join("config.toml")).unwrap();
        config(180).stage(&folder).unwrap().publish().unwrap();
        assert!(folder.join("config.toml").is_symlink(), "the link stays");
        assert_eq!(Config::load(&folder), Ok(config(180)));
        std::fs::write(folder.join("kept/config.toml"), "auto_lock = \"").unwrap();
        assert_eq!(config(60).stage(&folder).map(drop).map_err(|f| f.code), Err(Code::ConfigInvalid));
        assert_eq!(std::fs::read_to_string(folder.join("config.toml")).unwrap(), "auto_lock = \"", "left as it is");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_file_is_read_and_nonsense_is_refused() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        assert_eq!(Config::parse("auto_lock = \"2h\"").map(|c| c.auto_lock), Ok(Duration::from_secs(7200)));
        for (text, words) in [
            ("auto_lock = \"5s\"", "line 1: auto_lock is between 1m and 24h"),
            ("# mine\n\n auto_lock = 5", "line 3: `auto_lock` is not text such as \"15m\""),
            ("auto_lock = \"5m\"\nautolock = \"5m\"", "line 2: `autolock` is no setting; there is `auto_lock`"),
            ("auto_lock = \"soon\"", "line 1: `auto_lock`: `soon` is not a duration"),
            ("auto_lock = \"30h\"", "line 1: auto_lock is between"),
            ("[lock]\nauto = 1", "line 1: `lock` is no setting"),
            ("\"a\\u001bb\" = 1", "`a\\u{1b}b` is no setting"),
            ("# mine\nauto_lock", "line 2 is not TOML: "),
        ] {
            let fault = Config::parse_file(Path::new("/c/config.toml"), text).unwrap_err();
            let cause = fault.causes[0].strip_prefix("/c/config.toml: ").unwrap_or_default();
            assert!(fault.code == Code::ConfigInvalid && cause.starts_with(words), "{fault}");
            assert!(fault.help.contains("auto_lock = \"15m\"") && fault.help.contains("broker restart"), "{fault}");
        }
    }
}
