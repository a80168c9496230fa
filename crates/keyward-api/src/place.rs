//! Where things are: the folders of the vault, the socket, and the folder for file deliveries.
//!
//! Finds the places from the environment and checks that nobody else can change them: owner, mode, and every component
//! of the path that somebody else could have made. Never reads or writes what is inside, and never repairs a folder
//! that is open to others: it refuses, and names the command that closes it. Called by the broker and by every client,
//! which must agree on the socket to the byte.

use keyward_diag::{Code, Fault};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket in bytes: `sun_path` of unix(7) less its final zero.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The only variables that a broker is started with; `PATH` is set to [`BROKER_PATH`] besides. Whatever else stands in
/// the environment of the starter could change how the broker loads code or where it sends data.
pub const BROKER_VARIABLES: &[&str] = &[
    "HOME",
    "KEYWARD_HOME",
    "KEYWARD_LOG",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "LANG",
    "LC_ALL",
    "TZ",
];

/// `PATH` of the broker.
pub const BROKER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Name of the broker's program file, which lies beside the client's.
pub const BROKER_PROGRAM: &str = "keyward-broker";

/// What a broker writes on its standard output once it serves, as one line. Instead of it a start that failed writes
/// one line of JSON, the [`Fault`].
pub const BROKER_READY: &str = "ready";

/// The folders and the socket of one user, or of one `KEYWARD_HOME`. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The real path of `KEYWARD_HOME`, where it is set.
    pub home: Option<PathBuf>,
    /// `vault.db` and `vault.slots`.
    pub data: PathBuf,
    /// The anchor of the log and the broker's own log file.
    pub state: PathBuf,
    /// `config.toml`.
    pub config: PathBuf,
    /// The socket, the locks of the broker and, on a memory-backed file system, file deliveries. Mode 0700.
    pub runtime: PathBuf,
    /// The LocalAPI, at most [`SOCKET_PATH_MAX_BYTES`] long. Mode 0600.
    pub socket: PathBuf,
    /// Names this home among others of the user: the first 16 hex digits of SHA-256 of its real path.
    key: Option<String>,
    uid: u32,
    variables: Vec<(&'static str, OsString)>,
}

impl Places {
    /// The places of this process: its environment and its user.
    ///
    /// # Errors
    /// Those of [`Places::find`].
    pub fn current() -> Result<Self, Fault> {
        Self::find(&|name| std::env::var_os(name), unix::uid())
    }

    /// Finds the places from the variables that `env` gives for user `uid`.
    ///
    /// `KEYWARD_HOME` holds all of them where it is set; else the folders of the XDG base directory specification 0.8
    /// are taken, whose variables count only when absolute. An empty variable counts as unset. The socket lies under
    /// `XDG_RUNTIME_DIR`, else under `/run/user/UID` if that is ours, else in `/dev/shm/keyward-UID`. Makes nothing.
    ///
    /// # Errors
    /// [`Code::VaultFolderUnsafe`] for a home that others can change, [`Code::ConfigInvalid`] for one that is relative or
    /// not UTF-8, [`Code::BrokerSocket`] for a runtime folder that others can write or a socket path that is too long,
    /// [`Code::FileUnreadable`] without any home or for one that is no folder.
    pub fn find(env: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Result<Self, Fault> {
        let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let xdg = |name: &str| set(name).filter(|p| p.is_absolute());
        let home = set("KEYWARD_HOME").map(|given| real_home(&given, uid)).transpose()?;
        let (data, state, config) = if let Some(home) = &home {
            (home.join("data"), home.join("state"), home.join("config"))
        } else {
            let user = set("HOME").filter(|p| p.is_absolute());
            let or = |name: &str, below: &str| {
                xdg(name).or_else(|| user.as_ref().map(|u| u.join(below))).map(|p| p.join("keyward")).ok_or_else(|| {
                    Fault::new(Code::FileUnreadable).cause(format!("neither HOME nor {name} names a folder"))
                })
            };
            (
                or("XDG_DATA_HOME", ".local/share")?,
                or("XDG_STATE_HOME", ".local/state")?,
                or("XDG_CONFIG_HOME", ".config")?,
            )
        };
        if data.to_str().is_none() {
            let fault = Fault::new(Code::ConfigInvalid).cause(format!("{} is not UTF-8 text", data.display()));
            return Err(fault.help("set KEYWARD_HOME to a folder whose path is UTF-8 text"));
        }
        let key = home.as_deref().map(unix::key);
        let all = match xdg("XDG_RUNTIME_DIR") {
            Some(base) => unix::closed(&base, uid).map_err(socket_fault)?.join("keyward"),
            None => {
                let base = PathBuf::from(format!("/run/user/{uid}"));
                match unix::closed(&base, uid) {
                    Ok(base) => base.join("keyward"),
                    Err(_) => shared_memory(uid),
                }
            }
        };
        let runtime = key.as_ref().map_or_else(|| all.clone(), |key| all.join(key));
        let socket = runtime.join("broker.sock");
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_MAX_BYTES {
            return Err(Fault::new(Code::BrokerSocket)
                .cause(format!(
                    "the path of the socket is {length} bytes long, and the system takes {SOCKET_PATH_MAX_BYTES}"
                ))
                .help("set XDG_RUNTIME_DIR to a folder of yours with a shorter path"));
        }
        let given = BROKER_VARIABLES.iter().filter_map(|name| Some((*name, env(name).filter(|v| !v.is_empty())?)));
        let variables = given
            .map(|(name, value)| match &home {
                Some(home) if name == "KEYWARD_HOME" => (name, home.into()),
                _ => (name, value),
            })
            .chain([("PATH", BROKER_PATH.into())])
            .collect();
        Ok(Self { home, data, state, config, runtime, socket, key, uid, variables })
    }

    /// The whole environment of a broker for these places: those of [`BROKER_VARIABLES`] that are set, with the real
    /// path of the home, and `PATH`.
    pub fn variables(&self) -> &[(&'static str, OsString)] {
        &self.variables
    }

    /// The user whose places these are.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Checks that the socket folder is ours alone. `Ok(false)` where there is none yet.
    ///
    /// # Errors
    /// [`Code::BrokerSocket`] for another owner, another mode than 0700, a symbolic link or an ancestor that others can
    /// change.
    pub fn check_runtime(&self) -> Result<bool, Fault> {
        unix::private(&self.runtime, self.uid).map_err(socket_fault)
    }

    /// Makes the socket folder where there is none, and checks it.
    ///
    /// # Errors
    /// Those of [`Places::check_runtime`], also when the folder cannot be made.
    pub fn make_runtime(&self) -> Result<(), Fault> {
        unix::make_private(&self.runtime, self.uid).map_err(socket_fault)
    }

    /// Makes the folders of the vault and of the socket where there are none, mode 0700, and checks them.
    ///
    /// # Errors
    /// [`Code::VaultFolderUnsafe`], [`Code::FileUnreadable`] for one that cannot be made, and those of
    /// [`Places::make_runtime`].
    pub fn make_all(&self) -> Result<(), Fault> {
        for folder in [&self.data, &self.state, &self.config] {
            unix::make_private(folder, self.uid).map_err(vault_fault)?;
        }
        self.make_runtime()
    }

    /// Makes and checks the folder for file deliveries: below the runtime folder if that is kept in memory, else below
    /// `/dev/shm`. What it holds never reaches a disk except through swap.
    ///
    /// # Errors
    /// [`Code::DeliveryFolder`] when neither is kept in memory or neither is ours alone.
    pub fn delivery_folder(&self) -> Result<PathBuf, Fault> {
        let fault = |cause: String| Fault::new(Code::DeliveryFolder).cause(cause);
        self.make_runtime().map_err(|f| fault(f.causes.join("; ")))?;
        let folder = if unix::in_memory(&self.runtime) {
            self.runtime.join("files")
        } else {
            let shared = shared_memory(self.uid);
            if !unix::in_memory(Path::new("/dev/shm")) {
                return Err(fault(format!("neither {} nor /dev/shm is a tmpfs or ramfs", self.runtime.display())));
            }
            self.key.as_ref().map_or_else(|| shared.clone(), |key| shared.join(key)).join("files")
        };
        unix::make_private(&folder, self.uid).map_err(|flaw| fault(flaw.into_cause()))?;
        Ok(folder)
    }
}

/// The real path of a program that may be started: it and its folder belong to us or root, and nobody else can change
/// them or what leads to them.
///
/// # Errors
/// [`Code::BrokerStart`], with what is wrong.
pub fn trusted_program(path: &Path, uid: u32) -> Result<PathBuf, Fault> {
    unix::program(path, uid).map_err(|flaw| {
        let fault = Fault::new(Code::BrokerStart).cause(flaw.into_cause());
        match path.file_name() {
            Some(name) if !path.exists() => fault.help(format!("put {} beside keyward", name.display())),
            _ => fault,
        }
    })
}

fn shared_memory(uid: u32) -> PathBuf {
    PathBuf::from(format!("/dev/shm/keyward-{uid}"))
}

fn real_home(given: &Path, uid: u32) -> Result<PathBuf, Fault> {
    if !given.is_absolute() {
        let fault = Fault::new(Code::ConfigInvalid);
        return Err(fault
            .cause(format!("KEYWARD_HOME is `{}`, which is another folder wherever it is read", given.display()))
            .help("set KEYWARD_HOME to a path that begins with /"));
    }
    let real = unix::resolve(given, uid).map_err(vault_fault)?;
    if real.exists() { unix::closed(&real, uid).map_err(vault_fault) } else { Ok(real) }
}

/// Why a path is not taken, in one sentence that names it.
#[derive(Debug)]
enum Flaw {
    /// Somebody else can change or enter it, or owns it.
    Open(String),
    /// It is not there, cannot be read or made, or is something else.
    Unusable(String),
}

impl Flaw {
    fn into_cause(self) -> String {
        match self {
            Self::Open(cause) | Self::Unusable(cause) => cause,
        }
    }
}

fn socket_fault(flaw: Flaw) -> Fault {
    Fault::new(Code::BrokerSocket).cause(flaw.into_cause())
}

fn vault_fault(flaw: Flaw) -> Fault {
    match flaw {
        Flaw::Open(cause) => Fault::new(Code::VaultFolderUnsafe).cause(cause),
        Flaw::Unusable(cause) => Fault::new(Code::FileUnreadable).cause(cause),
    }
}

/// The checks themselves. A [`Flaw`] names the path and, where there is one, the command.
#[cfg(unix)]
mod unix {
    use super::Flaw::{self, Open, Unusable};
    use sha2::{Digest, Sha256};
    use std::collections::VecDeque;
    use std::ffi::OsString;
    use std::fs::{DirBuilder, Metadata};
    use std::io::ErrorKind;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    use std::path::{Component, Path, PathBuf};

    /// Symbolic links that one path may pass, as in path_resolution(7).
    const LINKS_MAX: usize = 40;

    pub(super) fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    pub(super) fn key(home: &Path) -> String {
        let digest = Sha256::digest(home.as_os_str().as_bytes());
        hex::encode(digest.first_chunk::<8>().copied().unwrap_or_default())
    }

    /// The real path. Each component that exists must belong to root or to `uid`, links included, and must be writable
    /// by its owner alone or be sticky; what does not exist yet is added as it stands.
    pub(super) fn resolve(path: &Path, uid: u32) -> Result<PathBuf, Flaw> {
        let mut real = PathBuf::from("/");
        let mut todo: VecDeque<OsString> = parts(path)?.into();
        let mut links = 0;
        ancestor(&real, &look(&real)?, uid)?;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            let meta = match next.symlink_metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    if todo.iter().any(|n| n == "..") {
                        return Err(Unusable(format!("{} does not exist", next.display())));
                    }
                    real = next;
                    real.extend(todo);
                    return Ok(real);
                }
                Err(e) => return Err(Unusable(format!("{}: {e}", next.display()))),
            };
            if meta.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Unusable(format!("{} passes too many symbolic links", path.display())));
                }
                if meta.uid() != 0 && meta.uid() != uid {
                    return Err(Open(format!("{} is a symbolic link of user {}", next.display(), meta.uid())));
                }
                let target = std::fs::read_link(&next).map_err(|e| Unusable(format!("{}: {e}", next.display())))?;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                for part in parts(&target)?.into_iter().rev() {
                    todo.push_front(part);
                }
            } else {
                ancestor(&next, &meta, uid)?;
                real = next;
            }
        }
        Ok(real)
    }

    /// A folder of ours which nobody else can write; others may read it. Gives its real path.
    pub(super) fn closed(folder: &Path, uid: u32) -> Result<PathBuf, Flaw> {
        let real = resolve(folder, uid)?;
        let meta = look(&real)?;
        if !meta.is_dir() {
            return Err(Unusable(format!("{} is no folder", real.display())));
        }
        if meta.uid() != uid {
            return Err(Open(format!("{} belongs to user {}", real.display(), meta.uid())));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(Open(format!("others can write {}: chmod go-w {}", real.display(), real.display())));
        }
        Ok(real)
    }

    /// A folder of ours which nobody else can enter, and not reached through a link at its end. `Ok(false)`: there is
    /// none.
    pub(super) fn private(folder: &Path, uid: u32) -> Result<bool, Flaw> {
        if let Some(parent) = folder.parent() {
            resolve(parent, uid)?;
        }
        let meta = match folder.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Unusable(format!("{}: {e}", folder.display()))),
        };
        if !meta.is_dir() && !meta.is_symlink() {
            return Err(Unusable(format!("{} is no folder", folder.display())));
        }
        if meta.is_symlink() || meta.uid() != uid {
            return Err(Open(format!("{} is not a folder of user {uid}", folder.display())));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(Open(format!("others can enter {}: chmod 700 {}", folder.display(), folder.display())));
        }
        Ok(true)
    }

    /// Makes the folder and its parents with mode 0700 where they are missing, then checks it as [`private`] does.
    pub(super) fn make_private(folder: &Path, uid: u32) -> Result<(), Flaw> {
        if private(folder, uid)? {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| Unusable(format!("{} cannot be made: {e}", folder.display())))?;
        private(folder, uid)?.then_some(()).ok_or_else(|| Unusable(format!("{} went away", folder.display())))
    }

    /// A program of ours or of root which nobody else can change or replace. Gives its real path.
    pub(super) fn program(path: &Path, uid: u32) -> Result<PathBuf, Flaw> {
        let real = resolve(path, uid)?;
        let meta = look(&real)?;
        let Some(folder) = real.parent().filter(|_| meta.is_file()) else {
            return Err(Unusable(format!("{} is not a program", real.display())));
        };
        for (path, meta) in [(real.as_path(), &meta), (folder, &look(folder)?)] {
            if meta.mode() & others(meta, uid) != 0 {
                return Err(Open(format!("others can write {}: chmod go-w {}", path.display(), path.display())));
            }
        }
        Ok(real)
    }

    /// Whether the folder is kept in memory (`tmpfs` or `ramfs`, by statfs(2)).
    pub(super) fn in_memory(folder: &Path) -> bool {
        #[cfg(target_os = "linux")]
        {
            const TMPFS_MAGIC: u32 = 0x0102_1994;
            const RAMFS_MAGIC: u32 = 0x8584_58f6;
            let kind = rustix::fs::statfs(folder).ok().and_then(|s| u32::try_from(s.f_type & 0xffff_ffff).ok());
            matches!(kind, Some(TMPFS_MAGIC | RAMFS_MAGIC))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            false
        }
    }

    fn ancestor(path: &Path, meta: &Metadata, uid: u32) -> Result<(), Flaw> {
        if meta.uid() != 0 && meta.uid() != uid {
            return Err(Open(format!("{} belongs to user {}", path.display(), meta.uid())));
        }
        if meta.is_dir() && meta.mode() & others(meta, uid) != 0 && meta.mode() & 0o1000 == 0 {
            return Err(Open(format!("others can write {}: chmod go-w {}", path.display(), path.display())));
        }
        Ok(())
    }

    /// Mode bits with which somebody else can write. A group of the same number as the user is the user's own, on
    /// systems that give each user one.
    fn others(meta: &Metadata, uid: u32) -> u32 {
        if uid != 0 && meta.gid() == uid { 0o002 } else { 0o022 }
    }

    fn look(path: &Path) -> Result<Metadata, Flaw> {
        path.symlink_metadata().map_err(|e| Unusable(format!("{}: {e}", path.display())))
    }

    fn parts(path: &Path) -> Result<Vec<OsString>, Flaw> {
        let mut out = Vec::new();
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir => out.push("..".into()),
                Component::Normal(name) => out.push(name.to_owned()),
                Component::Prefix(_) => {
                    return Err(Unusable(format!("{} is not a path of this system", path.display())));
                }
            }
        }
        Ok(out)
    }
}

/// Other systems: every check fails, so that nothing is trusted.
#[cfg(not(unix))]
mod unix {
    use super::Flaw;
    use std::path::{Path, PathBuf};

    fn none<T>() -> Result<T, Flaw> {
        Err(Flaw::Unusable("folders cannot be checked on this system yet".to_owned()))
    }

    pub(super) fn uid() -> u32 {
        u32::MAX
    }
    pub(super) fn key(_home: &Path) -> String {
        String::new()
    }
    pub(super) fn resolve(_path: &Path, _uid: u32) -> Result<PathBuf, Flaw> {
        none()
    }
    pub(super) fn closed(_folder: &Path, _uid: u32) -> Result<PathBuf, Flaw> {
        none()
    }
    pub(super) fn private(_folder: &Path, _uid: u32) -> Result<bool, Flaw> {
        none()
    }
    pub(super) fn make_private(_folder: &Path, _uid: u32) -> Result<(), Flaw> {
        none()
    }
    pub(super) fn program(_path: &Path, _uid: u32) -> Result<PathBuf, Flaw> {
        none()
    }
    pub(super) fn in_memory(_folder: &Path) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    /// A folder of the test alone, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("keyward-place-{}-{name}", std::process::id()));
            unix::make_private(&path, unix::uid()).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }

        fn folder(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn find(vars: &[(&str, &Path)]) -> Result<Places, Fault> {
        Places::find(&|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.into()), unix::uid())
    }

    fn code<T>(result: Result<T, Fault>) -> Code {
        match result {
            Ok(_) => panic!("it was accepted"),
            Err(fault) => fault.code,
        }
    }

    #[test]
    fn xdg_names_the_folders_and_relative_ones_do_not_count() {
        let s = Scratch::new("xdg");
        let run = s.folder("run", 0o700);
        let p = find(&[("HOME", Path::new("/home/a")), ("XDG_RUNTIME_DIR", &run)]).unwrap();
        assert_eq!(p.data, Path::new("/home/a/.local/share/keyward"));
        assert_eq!(p.state, Path::new("/home/a/.local/state/keyward"));
        assert_eq!(p.config, Path::new("/home/a/.config/keyward"));
        assert_eq!(p.socket, run.join("keyward/broker.sock"));
        let p = find(&[
            ("HOME", Path::new("/home/a")),
            ("XDG_DATA_HOME", Path::new("/d")),
            ("XDG_STATE_HOME", Path::new("rel")),
            ("XDG_RUNTIME_DIR", &run),
        ])
        .unwrap();
        assert_eq!(
            (p.data.as_path(), p.state.as_path()),
            (Path::new("/d/keyward"), Path::new("/home/a/.local/state/keyward"))
        );
        assert_eq!(code(find(&[("XDG_RUNTIME_DIR", &run)])), Code::FileUnreadable);
    }

    #[test]
    fn a_home_has_a_socket_of_its_own_whatever_the_spelling() {
        let s = Scratch::new("home");
        let run = s.folder("run", 0o700);
        let home = s.0.join("a/b");
        let before = find(&[("KEYWARD_HOME", &home), ("XDG_RUNTIME_DIR", &run)]).unwrap();
        assert!(!home.exists(), "finding makes nothing");
        before.make_all().unwrap();
        for folder in [&before.data, &before.state, &before.config, &before.runtime] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        symlink(&home, s.0.join("link")).unwrap();
        for spelling in [s.0.join("link"), s.0.join("a/./b"), s.0.join("a/b/../b")] {
            let p = find(&[("KEYWARD_HOME", &spelling), ("XDG_RUNTIME_DIR", &run)]).unwrap();
            assert_eq!(p, before, "{}", spelling.display());
        }
        let digest = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            home.as_os_str().as_encoded_bytes(),
        ));
        let name = hex::encode(digest)[..16].to_owned();
        assert_eq!(before.socket, run.join("keyward").join(name).join("broker.sock"));
    }

    #[test]
    fn a_runtime_folder_that_others_can_write_is_refused() {
        let s = Scratch::new("open");
        for mode in [0o777, 0o770, 0o1777, 0o702] {
            let run = s.folder("run", mode);
            assert_eq!(code(find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &run)])), Code::BrokerSocket, "{mode:o}");
        }
        let inner = s.folder("open/inner", 0o700);
        s.folder("open", 0o777);
        assert_eq!(code(find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &inner)])), Code::BrokerSocket);
        s.folder("open", 0o1777);
        assert!(find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &inner)]).is_ok(), "a sticky ancestor is accepted");
    }

    #[test]
    fn a_squatted_socket_folder_is_refused() {
        let s = Scratch::new("squat");
        let run = s.folder("run", 0o700);
        let p = find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &run)]).unwrap();
        assert!(!p.check_runtime().unwrap());
        s.folder("run/keyward", 0o755);
        assert_eq!(code(p.check_runtime()), Code::BrokerSocket, "mode");
        assert_eq!(code(p.make_runtime()), Code::BrokerSocket, "never repaired");
        s.folder("run/keyward", 0o700);
        assert!(p.check_runtime().unwrap());
        fs::remove_dir(&p.runtime).unwrap();
        symlink(s.folder("elsewhere", 0o700), &p.runtime).unwrap();
        assert_eq!(code(p.make_runtime()), Code::BrokerSocket, "link");
        fs::remove_file(&p.runtime).unwrap();
        fs::write(&p.runtime, "").unwrap();
        assert_eq!(code(p.make_runtime()), Code::BrokerSocket, "file");
    }

    #[test]
    fn what_another_user_made_is_refused() {
        if unix::uid() != 0 {
            return;
        }
        let s = Scratch::new("other");
        let run = s.folder("run", 0o700);
        let p = find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &run)]).unwrap();
        p.make_runtime().unwrap();
        chown(&p.runtime, Some(65534), None).unwrap();
        assert_eq!(code(p.check_runtime()), Code::BrokerSocket, "owner of the folder");
        chown(&p.runtime, Some(0), None).unwrap();
        chown(&run, Some(65534), None).unwrap();
        assert_eq!(code(p.check_runtime()), Code::BrokerSocket, "owner of an ancestor");
        chown(&run, Some(0), None).unwrap();
        let link = s.0.join("link");
        symlink(&run, &link).unwrap();
        assert!(find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &link)]).is_ok(), "a link of ours is followed");
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        assert_eq!(code(find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &link)])), Code::BrokerSocket, "link of another");
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        assert_eq!(
            code(find(&[("KEYWARD_HOME", &link.join("home")), ("XDG_RUNTIME_DIR", &run)])),
            Code::VaultFolderUnsafe
        );
    }

    #[test]
    fn a_program_that_others_can_change_is_refused() {
        let s = Scratch::new("program");
        let bin = s.folder("bin", 0o755);
        let program = bin.join("keyward-broker");
        fs::write(&program, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&program, 0o755);
        symlink(&program, s.0.join("link")).unwrap();
        assert_eq!(trusted_program(&s.0.join("link"), unix::uid()).unwrap(), program);
        for (path, mode) in [(&program, 0o777), (&program, 0o757), (&bin, 0o777), (&bin, 0o1777)] {
            set(path, mode);
            assert_eq!(code(trusted_program(&program, unix::uid())), Code::BrokerStart, "{mode:o}");
            set(path, 0o755);
        }
        assert_eq!(code(trusted_program(&bin, unix::uid())), Code::BrokerStart, "a folder");
        assert_eq!(code(trusted_program(&bin.join("none"), unix::uid())), Code::BrokerStart, "nothing");
        if unix::uid() == 0 {
            chown(&program, Some(65534), None).unwrap();
            assert_eq!(code(trusted_program(&program, 0)), Code::BrokerStart, "of another user");
        }
    }

    #[test]
    fn a_broker_gets_the_listed_variables_and_the_real_home() {
        let s = Scratch::new("variables");
        let (run, home) = (s.folder("run", 0o700), s.0.join("h"));
        let preload = Path::new("/evil.so");
        let vars = [("KEYWARD_HOME", s.0.join("./h")), ("XDG_RUNTIME_DIR", run.clone()), ("TZ", "UTC".into())];
        let p = Places::find(
            &|n| match n {
                "LD_PRELOAD" | "PATH" | "HTTPS_PROXY" | "SSL_CERT_FILE" => Some(preload.into()),
                _ => vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.into()),
            },
            unix::uid(),
        )
        .unwrap();
        let want: [(&str, OsString); 4] = [
            ("KEYWARD_HOME", home.into()),
            ("XDG_RUNTIME_DIR", run.into()),
            ("TZ", "UTC".into()),
            ("PATH", BROKER_PATH.into()),
        ];
        assert_eq!(p.variables(), want);
    }

    #[test]
    fn links_in_a_circle_and_long_sockets_are_errors() {
        let s = Scratch::new("circle");
        let run = s.folder("run", 0o700);
        symlink(s.0.join("b"), s.0.join("a")).unwrap();
        symlink(s.0.join("a"), s.0.join("b")).unwrap();
        assert_eq!(code(find(&[("KEYWARD_HOME", &s.0.join("a/x")), ("XDG_RUNTIME_DIR", &run)])), Code::FileUnreadable);
        let long = s.folder(&"x".repeat(100), 0o700);
        let fault = find(&[("HOME", &s.0), ("XDG_RUNTIME_DIR", &long)]).unwrap_err();
        assert!(fault.code == Code::BrokerSocket && fault.causes[0].contains("107"), "{fault}");
    }

    #[test]
    fn a_home_that_cannot_be_is_told_apart_from_one_that_is_open_to_others() {
        use std::os::unix::ffi::OsStrExt;
        let s = Scratch::new("unfit");
        let run = s.folder("run", 0o700);
        let home = |home: &Path| find(&[("KEYWARD_HOME", home), ("XDG_RUNTIME_DIR", &run)]);
        let file = s.0.join("file");
        fs::write(&file, "").unwrap();
        for place in [file.clone(), file.join("below")] {
            let fault = home(&place).unwrap_err();
            assert!(fault.code == Code::FileUnreadable && fault.causes[0].contains("file"), "{fault}");
        }
        let fault = home(Path::new("here/or/there")).unwrap_err();
        assert!(fault.code == Code::ConfigInvalid && fault.help.contains("begins with /"), "{fault}");
        let odd = s.0.join(std::ffi::OsStr::from_bytes(b"od\xffd"));
        let fault = home(&odd).unwrap_err();
        assert!(fault.code == Code::ConfigInvalid && fault.causes[0].contains("UTF-8"), "{fault}");
        let places = home(&s.0.join("h")).unwrap();
        fs::create_dir(s.0.join("h")).unwrap();
        fs::write(&places.state, "").unwrap();
        assert_eq!(code(places.make_all()), Code::FileUnreadable, "a file in the place of a folder");
        fs::remove_file(&places.state).unwrap();
        // Where nobody can make a folder, root included.
        let sealed = home(Path::new("/proc/keyward")).unwrap();
        let fault = sealed.make_all().unwrap_err();
        assert!(fault.code == Code::FileUnreadable && fault.causes[0].contains("cannot be made"), "{fault}");
    }

    #[test]
    fn deliveries_go_to_memory_only() {
        let s = Scratch::new("deliver");
        let run = s.folder("run", 0o700);
        let p = find(&[("KEYWARD_HOME", &s.0.join("h")), ("XDG_RUNTIME_DIR", &run)]).unwrap();
        match p.delivery_folder() {
            Ok(folder) => {
                assert!(unix::in_memory(&folder), "{}", folder.display());
                assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
                assert!(folder.starts_with("/dev/shm") || unix::in_memory(&run));
                if let Some(of_home) = folder.parent().filter(|_| folder.starts_with("/dev/shm")) {
                    fs::remove_dir_all(of_home).unwrap();
                }
            }
            Err(fault) => assert!(!unix::in_memory(Path::new("/dev/shm")), "{fault}"),
        }
    }
}
