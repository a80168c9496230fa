//! The program of a run: what its file says about it before exec.

use keyward_core::FileState;
use keyward_diag::{Code, Fault};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest path of a script and of a project, in bytes.
const PATH_MAX_BYTES: usize = 2048;

/// A program file, as it was when the run was decided.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Its name as the user knows it: the last part of its path.
    pub(crate) app: String,
    /// Device and inode of the file that the process will have open as its executable; for a script those of its
    /// interpreter. `None` when the file is a script whose interpreter cannot be told.
    pub(crate) executable: Option<(u64, u64)>,
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

/// Looks at a program before it gets a credential.
///
/// # Errors
/// [`Code::RunNotFound`]; [`Code::RunPrivileged`] when it runs with rights of another user, another group or file
/// capabilities and `allow_privileged` is not set: such a program does what its owner says, not what the user says.
pub(crate) fn look(path: &str, allow_privileged: bool) -> Result<Program, Fault> {
    let absolute = Path::new(path);
    if !absolute.is_absolute() {
        return Err(Fault::new(Code::RequestInvalid).cause("the path of the program is not absolute"));
    }
    let file = std::fs::metadata(absolute).map_err(|e| Fault::new(Code::RunNotFound).cause(format!("{path}: {e}")))?;
    if !file.is_file() {
        return Err(Fault::new(Code::RunNotExecutable).cause(format!("{path} is not a file")));
    }
    let head = head(absolute).unwrap_or_default();
    let interpreter = interpreter(&head);
    if !allow_privileged {
        refuse_privileged(absolute, &file)?;
        if let Some((inner, data)) = &interpreter {
            refuse_privileged(Path::new(inner), data)?;
        }
    }
    let app = absolute.file_name().map_or_else(|| path.to_owned(), |n| n.to_string_lossy().into_owned());
    let executable = match (&interpreter, head.starts_with(b"#!")) {
        (Some((_, data)), _) => Some((data.dev(), data.ino())),
        (None, true) => None,
        (None, false) => Some((file.dev(), file.ino())),
    };
    Ok(Program { app, executable, file: (file.dev(), file.ino()), state: state(&file) })
}

fn refuse_privileged(path: &Path, file: &Metadata) -> Result<(), Fault> {
    let mode = file.mode();
    let why = if mode & 0o4000 != 0 {
        Some("is setuid")
    } else if mode & 0o2000 != 0 && mode & 0o010 != 0 {
        Some("is setgid")
    } else if rustix::fs::getxattr(path, c"security.capability", &mut [0_u8; 64]).is_ok() {
        Some("has file capabilities")
    } else {
        None
    };
    match why {
        Some(why) => Err(Fault::new(Code::RunPrivileged).cause(format!("{} {why}", path.display()))),
        None => Ok(()),
    }
}

fn head(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::with_capacity(256);
    // The file may have become a pipe meanwhile, which must not hold the broker up.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut open = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(open.read(true), flags.bits().cast_signed());
    open.open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
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
        assert_eq!((script.app.as_str(), script.executable), ("script", Some((sh.dev(), sh.ino()))));
        std::fs::write(path("envscript"), "#!/usr/bin/env python3\n").unwrap();
        assert_eq!(look(&path("envscript"), false).unwrap().executable, None);
        assert_eq!(look(&path("absent"), false).unwrap_err().code, Code::RunNotFound);
        assert_eq!(look("plain", false).unwrap_err().code, Code::RequestInvalid);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
