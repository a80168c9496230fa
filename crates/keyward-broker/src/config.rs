//! `config.toml`: the few settings of the broker. Read once at its start.

use keyward_core::parse_duration;
use keyward_diag::{Code, Fault};
use std::path::Path;
use std::time::Duration;

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

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    auto_lock: Option<String>,
}

impl Config {
    /// Reads `config.toml` in `folder`: `auto_lock = "15m"`, one minute to one day.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`], with the field or line.
    pub(crate) fn load(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Fault::new(Code::ConfigInvalid).cause(format!("{}: {e}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |cause: String| Fault::new(Code::ConfigInvalid).cause(cause);
        let file: File = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
        let auto_lock = match file.auto_lock {
            None => Self::default().auto_lock,
            Some(text) => parse_duration(&text).map_err(|e| wrong(format!("auto_lock: {e}")))?,
        };
        if !(Duration::from_secs(60)..=Duration::from_secs(86_400)).contains(&auto_lock) {
            return Err(wrong("auto_lock is between 1m and 24h".to_owned()));
        }
        Ok(Self { auto_lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_nonsense_is_refused() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        assert_eq!(Config::parse("auto_lock = \"2h\"").map(|c| c.auto_lock), Ok(Duration::from_secs(7200)));
        for text in ["auto_lock = \"5s\"", "auto_lock = 5", "autolock = \"5m\"", "auto_lock = \"30h\"", "auto_lock"] {
            assert_eq!(Config::parse(text).map_err(|f| f.code), Err(Code::ConfigInvalid), "{text}");
        }
    }
}
