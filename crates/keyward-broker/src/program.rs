//! The program of a run: what its file says about it before exec.

use keyward_core::FileState;
use keyward_diag::{Code, Fault};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest path of a script and of a project, in bytes.
const PATH_MAX_BYTES: usize = 2048;

/// A program file, as it was when the run was decided.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Its name as the user knows it: the last part of its path.
    pub(crate) app: String,
    /// The file that the process will have open as its executable, with the time of its last change; for a script that of its
    /// interpreter. `None` when the file is a script whose interpreter cannot be told.
    pub(crate) executable: Option<FileState>,
    /// Device and inode of the file itself.
    pub(crate) file: (u64, u64),
    /// As `file`, with the time of its last change.
    pub(crate) state: FileState,
}

/// A file as the kernel tells it from any other, and from itself before it was written.
pub(crate) fn state(file: &Metadata) -> FileState {
    (file.dev(), file.ino(), file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec()))
}

/// Whether a program runs what its arguments say, by its name or by that of the file behind the links.
pub(crate) fn runs_arguments(path: &str) -> bool {
    let real = std::fs::canonicalize(path).ok();
    keyward_core::interpreter(path) || real.is_some_and(|real| keyward_core::interpreter(&real.to_string_lossy()))
}

/// The script that an interpreter is given, as a path without links; `None` where no file is named.
pub(crate) fn script(program: &str, args: &[String], folder: &Path) -> Option<String> {
    let script = std::fs::canonicalize(folder.join(keyward_core::script_of(program, args)?)).ok()?;
    script.is_file().then(|| grantable(&script))?
}

/// A path as a grant can name it: none that is longer than 2048 bytes, and none that reads like another one as text.
pub(crate) fn grantable(path: &Path) -> Option<String> {
    path.to_str().filter(|path| path.len() <= PATH_MAX_BYTES).map(str::to_owned)
}

/// Looks at a program before it gets a credential. Waits as long as its file system does.
///
/// # Errors
/// [`Code::RunNotFound`]; [`Code::RunPrivileged`] when it runs with rights of another user, another group or file
/// capabilities and `allow_privileged` is not set: such a program does what its owner says, not what the user says.
pub(crate) fn look(path: &str, allow_privileged: bool) -> Result<Program, Fault> {
    let (file, data) = open(path, ResolveFlags::empty())?;
    look_at(path, &file, &data, &head(&file).unwrap_or_default(), allow_privileged)
}

/// As [`look`], where that waits for nobody: the kernel has the path in its memory and the file lies on a disk of this machine.
/// `None` of any other program, and of a script, whose interpreter may lie elsewhere.
pub(crate) fn look_at_once(path: &str, allow_privileged: bool) -> Option<Result<Program, Fault>> {
    let (file, data) = open(path, ResolveFlags::CACHED).ok()?;
    // File systems without a device of their own have the major number 0: those of the network and of other processes too.
    if rustix::fs::major(data.dev()) == 0 {
        return None;
    }
    let head = head(&file).unwrap_or_default();
    (!head.starts_with(b"#!")).then(|| look_at(path, &file, &data, &head, allow_privileged))
}

/// The file itself, whatever its name comes to mean afterwards; never opened for reading before it is known to be a file.
fn open(path: &str, resolve: ResolveFlags) -> Result<(File, Metadata), Fault> {
    if !path.starts_with('/') {
        return Err(Fault::new(Code::RequestInvalid).cause("the path of the program is not absolute"));
    }
    let not_found = |e: std::io::Error| Fault::new(Code::RunNotFound).cause(format!("{path}: {e}"));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve).map_err(|e| not_found(e.into()))?;
    let file = File::from(file);
    let data = file.metadata().map_err(not_found)?;
    if !data.is_file() {
        return Err(Fault::new(Code::RunNotExecutable).cause(format!("{path} is not a file")));
    }
    Ok((file, data))
}

fn look_at(path: &str, file: &File, data: &Metadata, head: &[u8], allow_privileged: bool) -> Result<Program, Fault> {
    let absolute = Path::new(path);
    let interpreter = interpreter(head);
    if !allow_privileged {
        refuse_privileged(absolute, data, &by_descriptor(file))?;
        if let Some((inner, data)) = &interpreter {
            refuse_privileged(Path::new(inner), data, Path::new(inner))?;
        }
    }
    let app = absolute.file_name().map_or_else(|| path.to_owned(), |n| n.to_string_lossy().into_owned());
    let executable = match (&interpreter, head.starts_with(b"#!")) {
        (Some((_, data)), _) => Some(state(data)),
        (None, true) => None,
        (None, false) => Some(state(data)),
    };
    Ok(Program { app, executable, file: (data.dev(), data.ino()), state: state(data) })
}

/// The path that names what a descriptor stands for, whatever its own name is by then (proc_pid_fd(5)).
fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn refuse_privileged(path: &Path, file: &Metadata, at: &Path) -> Result<(), Fault> {
    let mode = file.mode();
    let why = if mode & 0o4000 != 0 {
        Some("is setuid")
    } else if mode & 0o2000 != 0 && mode & 0o010 != 0 {
        Some("is setgid")
    } else if rustix::fs::getxattr(at, c"security.capability", &mut [0_u8; 64]).is_ok() {
        Some("has file capabilities")
    } else {
        None
    };
    match why {
        Some(why) => Err(Fault::new(Code::RunPrivileged).cause(format!("{} {why}", path.display()))),
        None => Ok(()),
    }
}

fn head(file: &File) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    File::open(by_descriptor(file)).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The interpreter of a script, except `env`, which becomes another program at once.
fn interpreter(head: &[u8]) -> Option<(String, Metadata)> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let inner = line.split_whitespace().next()?;
    if Path::new(inner).file_name().is_some_and(|n| n == "env") {
        return None;
    }
    Some((inner.to_owned(), std::fs::metadata(inner).ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn privileged_programs_are_refused_and_scripts_are_known_by_their_interpreter() {
        let folder = std::env::temp_dir().join(format!("keyward-program-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        for (name, content, mode, want) in [
            ("plain", "x", 0o755, None),
            ("suid", "x", 0o4755, Some(Code::RunPrivileged)),
            ("sgid", "x", 0o2755, Some(Code::RunPrivileged)),
            // Without group execution the bit means something else and gives no rights.
            ("lock", "x", 0o2745, None),
        ] {
            std::fs::write(path(name), content).unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look(&path(name), false).err().map(|f| f.code), want, "{name}");
            assert!(look(&path(name), true).is_ok(), "{name}");
        }
        std::fs::write(path("script"), "#!/bin/sh -e\n").unwrap();
        let sh = std::fs::metadata("/bin/sh").unwrap();
        let script = look(&path("script"), false).unwrap();
        assert_eq!((script.app.as_str(), script.executable), ("script", Some(state(&sh))));
        std::fs::write(path("envscript"), "#!/usr/bin/env python3\n").unwrap();
        assert_eq!(look(&path("envscript"), false).unwrap().executable, None);
        assert_eq!(look(&path("absent"), false).unwrap_err().code, Code::RunNotFound);
        assert_eq!(look("plain", false).unwrap_err().code, Code::RequestInvalid);
        assert_eq!(look("/dev/null", false).unwrap_err().code, Code::RunNotExecutable);
        for (name, at_once) in [("plain", true), ("suid", true), ("script", false), ("absent", false)] {
            let Some(looked) = look_at_once(&path(name), false) else { continue };
            assert!(at_once, "{name} may lie elsewhere");
            let known = look(&path(name), false);
            assert_eq!(looked.map_err(|f| f.code).ok().map(|p| p.state), known.ok().map(|p| p.state), "{name}");
        }
        assert!(look_at_once("/proc/self/status", false).is_none(), "another process may have to answer for it");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
