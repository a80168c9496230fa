//! File deliveries: one folder a run, one file or folder a lease, in memory-backed storage.
//!
//! The folder's name carries the run's process (`PID-START`), so that a broker that comes back after a crash can remove what
//! dead runs left without opening the vault. Files are replaced by rename, never written in place: a reader sees the old
//! credential or the new one, never a part.

use keyward_core::{ProcessId, SDK_PROFILE, Wall};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use serde_json::json;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The folder with all file deliveries.
#[derive(Debug, Clone)]
pub(crate) struct Deliveries {
    folder: PathBuf,
}

fn fault(path: &Path, e: &std::io::Error) -> Fault {
    Fault::new(Code::DeliveryFolder).cause(format!("{}: {e}", path.display()))
}

impl Deliveries {
    /// Uses `folder`, which is private and memory-backed; the caller has checked both.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the file of a lease is or will be.
    pub(crate) fn path(&self, process: ProcessId, lease: &str) -> PathBuf {
        self.run_folder(process).join(lease)
    }

    /// Writes or replaces the file of a lease: 0600 in a 0700 folder.
    ///
    /// # Errors
    /// [`Code::DeliveryFolder`], with the path and the system's words.
    pub(crate) fn write(&self, process: ProcessId, lease: &str, token: &SecretBytes) -> Result<(), Fault> {
        let folder = self.run_folder(process);
        private(&self.folder)?;
        private(&folder)?;
        // EXPOSE: the file delivery itself.
        token.expose(|bytes| replace(&folder, lease, bytes))
    }

    /// Writes or replaces the files of a lease as Anthropic's SDKs and Claude Code read them: `configs/keyward.json` says
    /// that the credential is rotated by somebody else, `credentials/keyward.json` holds it with its end. The SDKs refuse
    /// links and files that others can read.
    ///
    /// # Errors
    /// As [`Deliveries::write`].
    pub(crate) fn write_sdk(&self, process: ProcessId, lease: &str, files: &SdkFiles<'_>) -> Result<(), Fault> {
        let folder = self.path(process, lease);
        let (configs, credentials) = (folder.join("configs"), folder.join("credentials"));
        for each in [&self.folder, &self.run_folder(process), &folder, &configs, &credentials] {
            private(each)?;
        }
        let name = format!("{SDK_PROFILE}.json");
        let credential = files.credential()?;
        replace(&credentials, &name, &credential)?;
        replace(&configs, &name, files.config().as_bytes())
    }

    /// Removes what was written for a lease; says whether it is gone (also when it never was).
    pub(crate) fn remove(&self, process: ProcessId, lease: &str) -> bool {
        let path = self.path(process, lease);
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(e) => Err(e),
        };
        match removed {
            Ok(()) => true,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Removes the folder of a run with all that is in it.
    pub(crate) fn remove_run(&self, process: ProcessId) {
        // It may never have been made.
        let _ = std::fs::remove_dir_all(self.run_folder(process));
    }

    /// Removes everything, and gives the processes whose files were there.
    pub(crate) fn remove_all(&self) -> Vec<ProcessId> {
        let runs = self.runs();
        runs.iter().for_each(|process| self.remove_run(*process));
        runs
    }

    /// The processes whose files are there.
    pub(crate) fn runs(&self) -> Vec<ProcessId> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let process = |name: std::ffi::OsString| {
            let (pid, start) = name.to_str()?.split_once('-')?;
            Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
        };
        entries.filter_map(|entry| process(entry.file_name())).collect()
    }

    /// Removes the folders of runs whose process is gone. `alive` says whether one is not.
    pub(crate) fn sweep(&self, alive: impl Fn(ProcessId) -> bool) {
        self.runs().into_iter().filter(|process| !alive(*process)).for_each(|process| self.remove_run(process));
    }

    fn run_folder(&self, process: ProcessId) -> PathBuf {
        self.folder.join(format!("{}-{}", process.pid, process.start))
    }
}

/// What stands in the files for SDKs.
pub(crate) struct SdkFiles<'a> {
    /// The credential, which is text.
    pub(crate) token: &'a SecretBytes,
    /// When it ends; `None` when it does not end by itself.
    pub(crate) ends: Option<Wall>,
    /// Where it is valid.
    pub(crate) endpoint: Option<&'a str>,
}

impl SdkFiles<'_> {
    /// `user_oauth` without a `client_id` is what clients read as "rotated by somebody else": they never refresh it
    /// themselves. A workspace is not named, since the token is bound to its own.
    fn config(&self) -> String {
        let mut config = json!({"version": "1.0", "authentication": {"type": "user_oauth"}});
        if let (Some(endpoint), Some(fields)) = (self.endpoint, config.as_object_mut()) {
            fields.insert("base_url".to_owned(), endpoint.into());
        }
        config.to_string()
    }

    fn credential(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        // EXPOSE: the file delivery itself; the copy is wiped.
        self.token.expose(|bytes| {
            let token = std::str::from_utf8(bytes)
                .map_err(|_| Fault::new(Code::DeliveryValue).cause("it is not text, as the SDKs expect"))?;
            // Room from the start: a buffer that grew would leave its former content behind.
            let mut text = Zeroizing::new(Vec::with_capacity(token.len() * 6 + 128));
            let mut put = || -> std::io::Result<()> {
                text.write_all(br#"{"version":"1.0","type":"oauth_token","access_token":"#)?;
                serde_json::to_writer(&mut *text, token)?;
                if let Some(ends) = self.ends {
                    // Whole seconds, rounded down: an end that is told too late is a credential that fails.
                    write!(text, r#","expires_at":{}"#, ends.0.div_euclid(1_000_000))?;
                }
                text.write_all(b"}")
            };
            put().map_err(|e| Fault::new(Code::Internal).cause(e))?;
            Ok(text)
        })
    }
}

/// Writes a file beside its place, then puts it there.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let (path, next) = (folder.join(name), folder.join(format!(".{name}")));
    let written = File::create_new_private(&next).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| std::fs::rename(&next, &path)).map_err(|e| {
        let _ = std::fs::remove_file(&next);
        fault(&path, &e)
    })
}

fn private(folder: &Path) -> Result<(), Fault> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        // One that is there already must be ours alone and no link to another place.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match std::fs::symlink_metadata(folder) {
            Ok(found) if found.is_dir() && found.mode() & 0o077 == 0 && found.uid() == own_uid() => Ok(()),
            Ok(_) => {
                Err(Fault::new(Code::DeliveryFolder).cause(format!("{} is not a private folder", folder.display())))
            }
            Err(e) => Err(fault(folder, &e)),
        },
        Err(e) => Err(fault(folder, &e)),
    }
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

trait CreatePrivate: Sized {
    fn create_new_private(path: &Path) -> std::io::Result<Self>;
}

impl CreatePrivate for File {
    fn create_new_private(path: &Path) -> std::io::Result<Self> {
        // A leftover of a broken write would make every later one fail.
        let _ = std::fs::remove_file(path);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_private_replaced_whole_and_removed() {
        let folder = std::env::temp_dir().join(format!("keyward-files-{}", std::process::id()));
        let deliveries = Deliveries::new(folder.clone());
        let run = ProcessId { pid: 7, start: 99 };
        for token in ["first", "second token"] {
            deliveries.write(run, "l1", &SecretBytes::new(token.into()).unwrap()).unwrap();
            assert_eq!(std::fs::read_to_string(deliveries.path(run, "l1")).unwrap(), token);
        }
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&deliveries.path(run, "l1")), mode(&folder.join("7-99"))), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(folder.join("7-99")).unwrap().count(), 1, "no temporary file stays");
        let token = SecretBytes::new(b"sk-ant-oat01-\"x".to_vec()).unwrap();
        let files =
            SdkFiles { token: &token, ends: Some(Wall(1_999_999_999_999_999)), endpoint: Some("http://[::1]:1") };
        for _ in 0..2 {
            deliveries.write_sdk(run, "l3", &files).unwrap();
        }
        let read = |part: &str| {
            let path = deliveries.path(run, "l3").join(part).join("keyward.json");
            assert_eq!(mode(&path), 0o600);
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()
        };
        assert_eq!(
            read("credentials"),
            json!({"version": "1.0", "type": "oauth_token", "access_token": "sk-ant-oat01-\"x", "expires_at": 1_999_999_999})
        );
        assert_eq!(
            read("configs"),
            json!({"version": "1.0", "authentication": {"type": "user_oauth"}, "base_url": "http://[::1]:1"})
        );
        assert!(deliveries.remove(run, "l3") && !deliveries.path(run, "l3").exists());

        let dead = ProcessId { pid: 8, start: 1 };
        deliveries.write(dead, "l2", &SecretBytes::new(vec![1]).unwrap()).unwrap();
        deliveries.sweep(|p| p == run);
        assert!(deliveries.path(run, "l1").exists() && !deliveries.path(dead, "l2").exists());
        assert!(deliveries.remove(run, "l1") && deliveries.remove(run, "l1"));
        deliveries.remove_run(run);
        std::fs::remove_dir(&folder).unwrap();
    }
}
