//! File deliveries: one folder a run, one file a lease, in memory-backed storage.
//!
//! The folder's name carries the run's process (`PID-START`), so that a broker that comes back after a crash can remove what
//! dead runs left without opening the vault. Files are replaced by rename, never written in place: a reader sees the old
//! credential or the new one, never a part.

use keyward_core::ProcessId;
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
        let (path, next) = (folder.join(lease), folder.join(format!(".{lease}")));
        let written = File::create_new_private(&next).and_then(|mut file| {
            // EXPOSE: the file delivery itself.
            token.expose(|bytes| file.write_all(bytes))
        });
        written.and_then(|()| std::fs::rename(&next, &path)).map_err(|e| {
            let _ = std::fs::remove_file(&next);
            fault(&path, &e)
        })
    }

    /// Removes the file of a lease; says whether it is gone (also when it never was).
    pub(crate) fn remove(&self, process: ProcessId, lease: &str) -> bool {
        let path = self.path(process, lease);
        match std::fs::remove_file(&path) {
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
        let dead = ProcessId { pid: 8, start: 1 };
        deliveries.write(dead, "l2", &SecretBytes::new(vec![1]).unwrap()).unwrap();
        deliveries.sweep(|p| p == run);
        assert!(deliveries.path(run, "l1").exists() && !deliveries.path(dead, "l2").exists());
        assert!(deliveries.remove(run, "l1") && deliveries.remove(run, "l1"));
        deliveries.remove_run(run);
        std::fs::remove_dir(&folder).unwrap();
    }
}
