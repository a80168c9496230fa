//! Finds programs, and the project that a folder belongs to.
//!
//! Looks at file names, types, owners and modes alone; never opens or runs anything. Called before anything is issued, and by
//! the searches of this crate.

use keyward_diag::{Code, Fault};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `PATH` where the environment has none, as execvp(3) of the GNU C library takes it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Folders between the working folder and the root that are looked at.
const ANCESTORS_MAX: usize = 64;

enum Seen {
    Program,
    Forbidden,
    Nothing,
}

/// Finds the file of `name` by the rules of execvp(3): a name with a slash is taken as it is, another one is searched in
/// `path`, and a file that cannot be executed is passed over. Gives the path as execvp would use it.
///
/// # Errors
/// [`Code::RunNotFound`], or [`Code::RunNotExecutable`] when there are only files that cannot be executed.
pub fn program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Fault> {
    let shown = name.to_string_lossy();
    let forbidden =
        |at: &Path| Fault::new(Code::RunNotExecutable).cause(format!("{} is not an executable file", at.display()));
    if name.as_bytes().contains(&b'/') {
        let at = PathBuf::from(name);
        return match look(&at) {
            Seen::Program => Ok(at),
            Seen::Forbidden => Err(forbidden(&at)),
            Seen::Nothing => Err(Fault::new(Code::RunNotFound).cause(format!("there is no file {shown}"))),
        };
    }
    let mut passed = None;
    if !name.is_empty() {
        for folder in std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
            let at = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
            match look(&at) {
                Seen::Program => return Ok(at),
                Seen::Forbidden => passed = passed.or(Some(at)),
                Seen::Nothing => {}
            }
        }
    }
    Err(passed.map_or_else(
        || Fault::new(Code::RunNotFound).cause(format!("`{shown}` is in no folder of PATH")),
        |at| forbidden(&at),
    ))
}

fn look(path: &Path) -> Seen {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Seen::Forbidden,
        Err(_) => Seen::Nothing,
        Ok(meta) if !meta.is_file() => Seen::Forbidden,
        Ok(_) => match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Seen::Program,
            Err(_) => Seen::Forbidden,
        },
    }
}

/// Whether there is a file of this path that this process may execute.
pub fn executable(path: &Path) -> bool {
    matches!(look(path), Seen::Program)
}

/// Whether nobody but this user and root can change the program of this path: what lies behind its links and the folders of
/// both belong to one of the two, and not everybody may write them. A folder with the sticky bit counts as one that others
/// cannot write. Members of a group are trusted, and so is whoever may write the folders further up.
pub fn is_guarded(path: &Path) -> bool {
    let guarded = |path: Option<&Path>, folder: bool| {
        path.and_then(|path| std::fs::metadata(path).ok()).is_some_and(|meta| {
            let owner = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
            owner && (meta.mode() & 0o002 == 0 || folder && meta.mode() & 0o1000 != 0)
        })
    };
    std::fs::canonicalize(path)
        .is_ok_and(|real| guarded(Some(&real), false) && guarded(real.parent(), true) && guarded(path.parent(), true))
}

/// The folder that a run in `cwd` belongs to: the nearest one at or above it with a `.git`, else `cwd` itself.
pub fn project<'p>(cwd: &'p Path, exists: &dyn Fn(&Path) -> bool) -> &'p Path {
    cwd.ancestors().take(ANCESTORS_MAX).find(|folder| exists(&folder.join(".git"))).unwrap_or(cwd)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("keyward-lookup-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn code(result: Result<PathBuf, Fault>) -> (Code, u8) {
        match result {
            Ok(path) => panic!("found {}", path.display()),
            Err(fault) => (fault.code, fault.exit),
        }
    }

    #[test]
    fn the_search_follows_execvp() {
        let s = Scratch::new("search");
        let tool = s.file("b/tool", 0o755);
        s.file("a/tool", 0o644);
        fs::create_dir_all(s.0.join("a/folder")).unwrap();
        let path = format!("{0}/none:{0}/a:{0}/b", s.0.display());
        let path = Some(OsStr::new(&path));
        assert_eq!(program(OsStr::new("tool"), path).unwrap(), tool, "a file without the mode is passed over");
        assert_eq!(code(program(OsStr::new("folder"), path)), (Code::RunNotExecutable, 126));
        assert_eq!(code(program(OsStr::new("nothing"), path)), (Code::RunNotFound, 127));
        assert_eq!(code(program(OsStr::new(""), path)), (Code::RunNotFound, 127));
        assert!(program(OsStr::new("sh"), None).unwrap().ends_with("bin/sh"));
    }

    #[test]
    fn a_program_of_another_user_is_not_guarded() {
        let s = Scratch::new("owner");
        let tool = s.file("tool", 0o755);
        assert!(is_guarded(&tool) && executable(&tool));
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&tool, Some(12_345), None).unwrap();
            assert!(!is_guarded(&tool) && executable(&tool));
        }
        assert!(!is_guarded(&s.0.join("nothing")));
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        let s = Scratch::new("slash");
        let path = Some(s.0.as_os_str());
        assert_eq!(code(program(OsStr::new("./no-such-program"), path)), (Code::RunNotFound, 127));
        assert_eq!(code(program(s.file("plain", 0o600).as_os_str(), path)), (Code::RunNotExecutable, 126));
        assert_eq!(code(program(s.0.as_os_str(), path)), (Code::RunNotExecutable, 126));
        let below_a_file = s.file("plain", 0o600).join("x");
        assert_eq!(code(program(below_a_file.as_os_str(), path)), (Code::RunNotFound, 127));
    }

    #[test]
    fn the_nearest_repository_is_the_project() {
        let at = |git: &'static str| move |path: &Path| path == Path::new(git);
        assert_eq!(project(Path::new("/a/b/c"), &at("/a/b/.git")), Path::new("/a/b"));
        assert_eq!(project(Path::new("/a/b"), &at("/a/b/.git")), Path::new("/a/b"));
        assert_eq!(
            project(Path::new("/a/b/c"), &|p| p.starts_with("/a/b") || p == Path::new("/a/.git")),
            Path::new("/a/b/c")
        );
        assert_eq!(project(Path::new("/a/b"), &|_| false), Path::new("/a/b"));
        let deep = format!("/r{}", "/x".repeat(100));
        assert_eq!(project(Path::new(&deep), &at("/r/.git")), Path::new(&deep), "bounded");
    }
}
