//! The broker's own log file: `broker.log` in the state folder, for finding out why something failed.
//!
//! Takes lines of Keyward's own crates alone, since others may print what passes through them; lines carry ids and
//! error codes, and never names of profiles or secrets, paths of projects or contents, at any level. Mode 0600, at most
//! 1 MiB and one former file. Never the audit log, and never an error: a line that cannot be written is lost. Called by
//! the worker.

use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;

/// The file is moved away before it grows beyond this.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Name of the file in the state folder.
const FILE: &str = "broker.log";

/// Starts logging at the level of `KEYWARD_LOG` (`error`, `warn`, `info`, `debug`, `trace`; `info` where it is not
/// set).
///
/// A panic is logged with its place alone: its message may quote anything.
///
/// # Errors
/// [`Code::ConfigInvalid`] for another level, [`Code::FileUnreadable`] when the file cannot be opened.
pub(crate) fn start(places: &Places, level: Option<&str>) -> Result<(), Fault> {
    let level = parse(level)?;
    let file = Bounded::open(places.state.join(FILE), FILE_MAX_BYTES)
        .map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("{FILE} in {}: {e}", places.state.display())))?;
    let lines = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(Mutex::new(file)).finish();
    let lines = lines.with(filter_fn(|line| ours(line.target())));
    tracing::subscriber::set_global_default(lines).map_err(|e| Fault::new(Code::Internal).cause(e))?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location();
        tracing::error!(target: "keyward::panic", file = at.map(|l| l.file()), line = at.map(|l| l.line()), "panic");
    }));
    Ok(())
}

fn ours(target: &str) -> bool {
    target.split("::").next().is_some_and(|first| first == "keyward" || first.starts_with("keyward_"))
}

fn parse(level: Option<&str>) -> Result<LevelFilter, Fault> {
    match level {
        None | Some("" | "info") => Ok(LevelFilter::INFO),
        Some("error") => Ok(LevelFilter::ERROR),
        Some("warn") => Ok(LevelFilter::WARN),
        Some("debug") => Ok(LevelFilter::DEBUG),
        Some("trace") => Ok(LevelFilter::TRACE),
        Some(other) => Err(Fault::new(Code::ConfigInvalid)
            .cause(format!("KEYWARD_LOG is `{other}`"))
            .help("set it to error, warn, info, debug or trace")),
    }
}

/// A file that is moved to `NAME.1` when it is full.
struct Bounded {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
}

impl Bounded {
    fn open(path: PathBuf, most: u64) -> io::Result<Self> {
        let (file, bytes) = open_private(&path)?;
        Ok(Self { path, file, bytes, most })
    }
}

impl Write for Bounded {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.most {
            let mut former = self.path.clone().into_os_string();
            former.push(".1");
            std::fs::rename(&self.path, former)?;
            (self.file, self.bytes) = open_private(&self.path)?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open_private(path: &Path) -> io::Result<(File, u64)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != rustix::process::getuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a file of ours"));
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok((file, meta.len()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn lines_of_other_crates_are_not_taken() {
        for target in ["keyward", "keyward::server", "keyward_store::x", "keyward_broker"] {
            assert!(ours(target), "{target}");
        }
        for target in ["hyper::proto", "sqlx", "zbus", "keywardx", "x::keyward", ""] {
            assert!(!ours(target), "{target}");
        }
    }

    #[test]
    fn levels_are_the_five() {
        assert_eq!(parse(None).unwrap(), LevelFilter::INFO);
        assert_eq!(parse(Some("trace")).unwrap(), LevelFilter::TRACE);
        assert_eq!(parse(Some("hyper=trace")).unwrap_err().code, Code::ConfigInvalid);
    }

    #[test]
    fn the_file_stays_small_and_private_and_is_no_link() {
        let folder = std::env::temp_dir().join(format!("keyward-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(FILE);
        std::fs::write(&path, "old\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut log = Bounded::open(path.clone(), 100).unwrap();
        for n in 0..50 {
            writeln!(log, "line {n}").unwrap();
        }
        let sizes: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().metadata().unwrap()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|m| m.len() <= 100 && m.permissions().mode() & 0o777 == 0o600));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("line 49\n"));
        let link = folder.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Bounded::open(link, 100).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
