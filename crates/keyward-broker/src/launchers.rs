//! Launchers: what the tray starts, and how a run is recognised as one of them.
//!
//! A launcher starts nothing by itself: a client starts the program, and the program asks for its run as any other does.
//! What the run says is compared with what is stored, its folder with what the kernel says of the process, so that the name
//! of a launcher in the log stands for its command.

use crate::broker::{Broker, Open, entry_of};
use crate::grants::{ended, forget};
use crate::peer::Peer;
use crate::platform::now;
use crate::program;
use crate::runs::{LOOK, RunId};
use keyward_api::place::BROKER_PATH;
use keyward_api::{CommandMsg, LaunchExpectAnswer, LaunchExpectRequest, LauncherMsg, LauncherPutRequest};
use keyward_core::audit::{Draft, Kind};
use keyward_core::{Announcer, FileId, FileState, Launch, Launcher, Name, Role, Wall, launcher_key};
use keyward_crypto::{ItemRef, make_array};
use keyward_diag::{Code, Fault, plain};
use keyward_secret::SecretBytes;
use keyward_store::{StoreError, Write};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most launchers of a vault.
const LAUNCHERS_MAX: usize = 200;

/// From this length on, in bytes, a secret is also found as a part of an argument.
const PART_MIN_BYTES: usize = 8;

/// A launcher with its place in the vault.
#[derive(Clone)]
pub(crate) struct StoredLauncher {
    pub(crate) id: [u8; 16],
    launcher: Launcher,
    created: Wall,
    updated: Wall,
    launched: Option<Wall>,
}

/// A launcher that a run was found to be.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) launch: Launch,
    /// The program is the one that the launcher means: by its path, or for a bare name the one in the folders of the system. A
    /// bare name is looked up where the caller says.
    pub(crate) meant: bool,
    updated: Wall,
}

/// The text of a launcher in the vault.
#[derive(Serialize, Deserialize)]
struct Body {
    command: Vec<String>,
    folder: Option<String>,
    profiles: Vec<String>,
    terminal: bool,
}

impl StoredLauncher {
    /// The launcher as a change of the vault.
    pub(crate) fn row(&self) -> Write {
        let Launcher { name, command, folder, profiles, terminal } = self.launcher.clone();
        let profiles = profiles.iter().map(Name::to_string).collect();
        let body = serde_json::to_string(&Body { command, folder, profiles, terminal }).unwrap_or_default();
        Write::PutLauncher(keyward_store::Launcher {
            id: self.id,
            name,
            body,
            created_us: self.created.0,
            updated_us: self.updated.0,
            launched_us: self.launched.map(|at| at.0),
        })
    }

    fn from_row(row: keyward_store::Launcher) -> Option<Self> {
        let Body { command, folder, profiles, terminal } = serde_json::from_str(&row.body).ok()?;
        let profiles = profiles.iter().map(|name| Name::parse(name).ok()).collect::<Option<_>>()?;
        let launcher = Launcher { name: row.name, command, folder, profiles, terminal };
        let (created, updated) = (Wall(row.created_us), Wall(row.updated_us));
        Some(Self { id: row.id, launcher, created, updated, launched: row.launched_us.map(Wall) })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.launcher.name
    }

    /// Its program as it was written, by path or by name.
    pub(crate) fn written_program(&self) -> &str {
        self.launcher.command.first().map_or("", String::as_str)
    }

    /// Whether it names its program by a path.
    fn named_by_path(&self) -> bool {
        self.launcher.command.first().is_some_and(|program| program.contains('/'))
    }

    /// What a bare name stands for in the folders of the system, which no requester can write to.
    fn of_system(&self) -> Option<PathBuf> {
        let name = self.launcher.command.first()?;
        std::env::split_paths(BROKER_PATH).map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// The path of the one program that it starts; `None` where a bare name stands for any file of that name.
    fn program(&self) -> Option<PathBuf> {
        if self.named_by_path() { self.launcher.command.first().map(PathBuf::from) } else { self.of_system() }
    }

    /// Whether it is what it was when it was read.
    pub(crate) fn is_still(&self, read: &Self) -> bool {
        self.id == read.id && self.updated == read.updated && self.launcher == read.launcher
    }

    fn message(&self) -> LauncherMsg {
        let launcher = self.launcher.clone();
        LauncherMsg {
            name: launcher.name,
            command: launcher.command,
            folder: launcher.folder,
            profiles: launcher.profiles.iter().map(Name::to_string).collect(),
            terminal: launcher.terminal,
            created_at: self.created.to_rfc3339(),
            updated_at: self.updated.to_rfc3339(),
            launched_at: self.launched.map(Wall::to_rfc3339),
        }
    }

    /// The entry of what a peer did with it. Holds the program and a keyed digest of the arguments, never the arguments.
    fn entry(&self, kind: Kind, at: keyward_core::Now, peer: &Peer, open: &Open) -> Draft {
        let (program, arguments) = self.launcher.command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        let profiles: Vec<&str> = self.launcher.profiles.iter().map(Name::as_str).collect();
        entry_of(kind, at, peer)
            .detail("launcher", self.launcher.name.as_str())
            .detail("program", program)
            .detail("arguments", hex::encode(open.store.args_digest(arguments)))
            .detail("folder", self.launcher.folder.clone())
            .detail("profiles", profiles)
    }
}

impl Broker {
    /// Reads the launchers of the vault.
    pub(crate) async fn load_launchers(&self, open: &mut Open) -> Result<(), Fault> {
        for row in open.store.launchers().await.map_err(|e| e.fault())? {
            let (key, cause) = (launcher_key(&row.name), format!("launcher `{}`", plain(&row.name, 64)));
            let stored = StoredLauncher::from_row(row);
            open.launchers.insert(key, stored.ok_or_else(|| Fault::new(Code::VaultSchemaNewer).cause(cause))?);
        }
        Ok(())
    }

    /// All launchers, by name.
    pub(crate) async fn launchers(&self) -> Result<Vec<LauncherMsg>, Fault> {
        let mut state = self.state_for_request().await?;
        Ok(self.unlocked(&mut state)?.launchers.values().map(StoredLauncher::message).collect())
    }

    /// Adds a launcher.
    pub(crate) async fn launcher_add(&self, peer: &Peer, request: LauncherPutRequest) -> Result<(), Fault> {
        let launcher = read(request)?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        check(open, &launcher)?;
        let key = launcher_key(&launcher.name);
        if open.launchers.contains_key(&key) {
            return Err(exists(&launcher.name));
        }
        if open.launchers.len() >= LAUNCHERS_MAX {
            return Err(Fault::new(Code::LauncherInvalid).cause(format!("there are {LAUNCHERS_MAX} launchers already")));
        }
        let id = make_array().map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let stored = StoredLauncher { id, launcher, created: at.wall, updated: at.wall, launched: None };
        let draft = stored.entry(Kind::LauncherAdded, at, peer, open);
        open.commit(self, vec![stored.row()], vec![draft]).await?;
        open.put_launcher(stored);
        Ok(())
    }

    /// Changes a launcher; its name, too.
    pub(crate) async fn launcher_edit(
        &self,
        peer: &Peer,
        name: &str,
        mut request: LauncherPutRequest,
    ) -> Result<(), Fault> {
        let proof = request.proof.take().ok_or(Fault::new(Code::PassphraseNeeded))?;
        let launcher = read(request)?;
        self.prove(proof).await?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        open.last_action = at.boot;
        let (former, key) = (launcher_key(name), launcher_key(&launcher.name));
        let stored = open.launchers.get(&former).cloned().ok_or_else(|| unknown(name))?;
        check(open, &launcher)?;
        if key != former && open.launchers.contains_key(&key) {
            return Err(exists(&launcher.name));
        }
        let renamed = (stored.launcher.name != launcher.name).then(|| stored.launcher.name.clone());
        let stored = StoredLauncher { launcher, updated: at.wall, ..stored };
        let mut draft = stored.entry(Kind::LauncherChanged, at, peer, open);
        if let Some(renamed) = renamed {
            draft = draft.detail("former_name", renamed);
        }
        let id = stored.id;
        let grants = open.grants.of_launcher(id);
        let ended = ended(open, &grants, Kind::GrantRevoked, "the launcher was changed", at);
        let writes = [stored.row()].into_iter().chain(ended.writes).collect();
        open.commit(self, writes, [draft].into_iter().chain(ended.entries).collect()).await?;
        forget(open, &grants);
        open.launchers.remove(&former);
        open.put_launcher(stored);
        state.expected.forget(id);
        Ok(())
    }

    /// Removes a launcher. What was started from it goes on.
    pub(crate) async fn launcher_remove(&self, peer: &Peer, name: &str) -> Result<(), Fault> {
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        let key = launcher_key(name);
        let stored = open.launchers.get(&key).cloned().ok_or_else(|| unknown(name))?;
        let draft = entry_of(Kind::LauncherRemoved, at, peer).detail("launcher", stored.launcher.name.as_str());
        let grants = open.grants.of_launcher(stored.id);
        let ended = ended(open, &grants, Kind::GrantRevoked, "the launcher was removed", at);
        let writes = [Write::RemoveLauncher(stored.id)].into_iter().chain(ended.writes).collect();
        open.commit(self, writes, [draft].into_iter().chain(ended.entries).collect()).await?;
        forget(open, &grants);
        open.launchers.remove(&key);
        state.expected.forget(stored.id);
        Ok(())
    }

    /// Waits for a run of a launcher, which somebody is about to start. Grants nothing, except that an operator who says so
    /// grants this one: otherwise the run is as any other, and the log says that it was announced, and by whom.
    pub(crate) async fn launch_expect(
        &self,
        peer: &Peer,
        role: Role<RunId>,
        name: &str,
        request: LaunchExpectRequest,
    ) -> Result<LaunchExpectAnswer, Fault> {
        let operator = role == Role::Operator && request.by_operator;
        let stored = {
            let mut state = self.state_for_request().await?;
            self.unlocked(&mut state)?.launchers.get(&launcher_key(name)).cloned().ok_or_else(|| unknown(name))?
        };
        if !stored.launcher.names(&request.path) {
            return Err(other("the program differs"));
        }
        let path = request.path;
        let (program, (folder, _)) = looked(move || {
            let file = program::look(&path, true)?.file;
            Ok((file, folder_of(&stored.launcher)?))
        })
        .await?;
        let launch = Launch { launcher: stored.id, program, folder };
        let mut state = self.state_for_request().await?;
        let at = now();
        let by = Announcer { process: peer.process(), operator };
        let until = state.expected.announce(launch, by, at.boot);
        let until = until.ok_or_else(|| Fault::new(Code::Busy).cause("too many launches are waited for"))?;
        Ok(LaunchExpectAnswer { until: at.wall_at(until).to_rfc3339() })
    }

    /// A launcher with the file of its program, by which a grant tells its starts from those of another program.
    ///
    /// # Errors
    /// [`Code::LauncherUnknown`]; [`Code::GrantInvalid`] where a bare name stands for any file of that name; what
    /// [`program::look`] says.
    pub(crate) async fn launcher_program(&self, name: &str) -> Result<(StoredLauncher, FileState), Fault> {
        let stored = {
            let mut state = self.state_for_request().await?;
            self.unlocked(&mut state)?.launchers.get(&launcher_key(name)).cloned().ok_or_else(|| unknown(name))?
        };
        looked(move || {
            let path = stored.program().ok_or_else(|| {
                Fault::new(Code::GrantInvalid)
                    .cause("the launcher names its program by a bare name, which stands for any file of that name")
                    .help("change the launcher so that it names the path of the program")
            })?;
            let file = program::look(&path.to_string_lossy(), true)?.state;
            Ok((stored, file))
        })
        .await
    }

    /// Compares a run with the launcher that it names: command, profiles, and the working folder of the process, as the
    /// kernel knew it when the request came.
    pub(crate) async fn launcher_of(
        &self,
        peer: &Peer,
        name: &str,
        command: &CommandMsg,
        profiles: &[Name],
        program: FileId,
    ) -> Result<Found, Fault> {
        let stored = {
            let mut state = self.state_for_request().await?;
            self.delivering(&mut state)?.launchers.get(&launcher_key(name)).cloned().ok_or_else(|| unknown(name))?
        };
        stored.launcher.fits(&command.path, &command.args, profiles).map_err(other)?;
        let (id, updated, name) = (stored.id, stored.updated, stored.launcher.name.clone());
        let (folder, path, meant) = looked(move || {
            let (folder, path) = folder_of(&stored.launcher)?;
            let system = || stored.of_system().and_then(|path| path.metadata().ok());
            let meant = stored.named_by_path() || system().is_some_and(|file| (file.dev(), file.ino()) == program);
            Ok((folder, path, meant))
        })
        .await?;
        if peer.cwd() != Some(&path) {
            return Err(other("the working folder differs"));
        }
        Ok(Found { name, launch: Launch { launcher: id, program, folder }, meant, updated })
    }
}

impl Open {
    /// The launcher that was found before, launched at `at`; the vault is not changed yet.
    pub(crate) fn launched(&self, found: &Found, at: Wall) -> Result<StoredLauncher, Fault> {
        let stored = self.launchers.get(&launcher_key(&found.name));
        let stored = stored.filter(|s| s.id == found.launch.launcher && s.updated == found.updated).cloned();
        let stored = stored.ok_or_else(|| Fault::new(Code::RunGone).cause("the launcher was changed meanwhile"))?;
        Ok(StoredLauncher { launched: Some(at), ..stored })
    }

    /// Takes a launcher in the place of the one with its name.
    pub(crate) fn put_launcher(&mut self, stored: StoredLauncher) {
        self.launchers.insert(launcher_key(&stored.launcher.name), stored);
    }
}

/// The launchers that name a profile.
pub(crate) fn launchers_with(open: &Open, profile: &Name) -> Vec<String> {
    let with = open.launchers.values().filter(|l| l.launcher.profiles.contains(profile));
    with.map(|l| l.launcher.name.clone()).collect()
}

fn read(request: LauncherPutRequest) -> Result<Launcher, Fault> {
    let LauncherPutRequest { name, command, folder, profiles, terminal, proof: _ } = request;
    let profiles = profiles.iter().map(|name| Name::parse(name).map_err(|e| e.fault())).collect::<Result<_, _>>()?;
    let launcher = Launcher { name, command, folder, profiles, terminal };
    launcher.check().map_err(|cause| Fault::new(Code::LauncherInvalid).cause(cause))?;
    Ok(launcher)
}

/// Its profiles exist, and no stored secret stands in its command: that is shown, and travels on a command line.
fn check(open: &Open, launcher: &Launcher) -> Result<(), Fault> {
    if let Some(name) = launcher.profiles.iter().find(|name| !open.profiles.contains_key(name)) {
        return Err(Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`")));
    }
    let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
    for item in open.secrets.values() {
        let at = ItemRef { id: item.info.id, generation: item.info.generation, kind: &item.info.kind };
        let secret = keyward_crypto::open(seal, &at, &item.sealed).map_err(|e| StoreError::from(e).fault())?;
        if launcher.command.iter().any(|part| holds(part, &secret)) {
            return Err(Fault::new(Code::LauncherSecret).cause(format!("it is stored as `{}`", item.info.name)));
        }
    }
    Ok(())
}

/// Whether an argument is a secret, or has it as a part where it is long enough not to stand there by chance.
fn holds(part: &str, secret: &SecretBytes) -> bool {
    // EXPOSE: it is compared with an argument, and goes nowhere.
    secret.expose(|secret| {
        let (part, secret) = (part.as_bytes(), secret.trim_ascii());
        let within = secret.len() >= PART_MIN_BYTES && part.windows(secret.len()).any(|w| w == secret);
        !secret.is_empty() && (within || part.trim_ascii() == secret)
    })
}

/// The working folder of a launcher: what the kernel tells it by, and its real path.
fn folder_of(launcher: &Launcher) -> Result<(FileId, PathBuf), Fault> {
    let folder = launcher.folder.as_ref().map(PathBuf::from).or_else(std::env::home_dir);
    let folder = folder.ok_or_else(|| Fault::new(Code::LauncherInvalid).cause("the user has no home folder"))?;
    let told = |e: std::io::Error| Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", shown(&folder)));
    let real = folder.canonicalize().map_err(told)?;
    let meta = real.metadata().map_err(told)?;
    if !meta.is_dir() {
        return Err(Fault::new(Code::FileUnreadable).cause(format!("{} is not a folder", shown(&folder))));
    }
    Ok(((meta.dev(), meta.ino()), real))
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string(), 200)
}

/// Looks at files outside of the runtime's thread, since their file system may not answer.
pub(crate) async fn looked<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::time::timeout(LOOK, tokio::task::spawn_blocking(look)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(_)) => Err(Fault::new(Code::Internal).cause("looking at a file broke off")),
        Err(_) => Err(Fault::new(Code::FileUnreadable).cause("the file system of the launcher does not answer")),
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new(Code::LauncherUnknown).cause(format!("no launcher is named `{}`", plain(name, 64)))
}

fn exists(name: &str) -> Fault {
    Fault::new(Code::LauncherExists).cause(format!("there is a launcher `{}`", plain(name, 64)))
}

fn other(differs: &str) -> Fault {
    Fault::new(Code::LauncherOther).cause(differs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_secret_in_an_argument_is_found_and_chance_is_not() {
        let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec()).unwrap();
        for (stored, part, found) in [
            ("sk-ant-1234567", "sk-ant-1234567", true),
            ("sk-ant-1234567\n", "--key=sk-ant-1234567", true),
            ("sk-ant-1234567", "--key=sk-ant-123456", false),
            ("sk-ant-1234567", "", false),
            ("1234567", "1234567", true),
            ("1234567", "\t1234567 ", true),
            ("1234567", "81234567", false),
            ("\n", "", false),
            ("\n", "\n", false),
        ] {
            assert_eq!(holds(part, &secret(stored)), found, "{stored:?} in {part:?}");
        }
    }
}
