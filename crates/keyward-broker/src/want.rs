//! What a peer wants that needs a grant: the facts by which grants are found and cards are made.
//!
//! Read from the kernel where it tells them, and from the file of the program. What only the requester says is kept apart.
//! Decides nothing. Called by `runs`, outside of the state's lock.

use crate::broker::State;
use crate::card;
use crate::grants::moment;
use crate::launchers::{Found, looked};
use crate::peer::{Executable, Peer};
use crate::platform;
use crate::program;
use crate::project::ProjectAsk;
use crate::runs::{LeaseId, RunId};
use keyward_api::RunRequest;
use keyward_core::{
    ApprovalKind, Ask, Boot, DeliveryMode, GrantId, Launch, Now, Plan, ProcessId, Profile, Program, Role,
};
use keyward_diag::{Code, Fault};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A delivery that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) profile: Profile,
    pub(crate) mode: DeliveryMode,
    pub(crate) ttl: Duration,
}

/// By what a delivery is allowed without asking a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A live grant.
    Grant(GrantId),
    /// The run around the asking process holds as much: its lease, and when that is over.
    Held(LeaseId, Boot),
}

impl Ground {
    /// The grant.
    pub(crate) fn grant(self) -> Option<GrantId> {
        if let Self::Grant(id) = self { Some(id) } else { None }
    }
}

/// A request for deliveries by a peer that needs a grant.
pub(crate) struct Want {
    pub(crate) kind: ApprovalKind,
    /// The app as the user knows it.
    pub(crate) app: String,
    pub(crate) program: Program,
    /// The kernel has shown that the asking process is that program.
    pub(crate) verified: bool,
    /// The program runs what its arguments say, and no script is known.
    pub(crate) anything: bool,
    /// Launcher that it was recognised as, with its name, and whether the program is the one that the launcher means.
    pub(crate) launcher: Option<(Launch, String, bool)>,
    pub(crate) project: String,
    /// The working folder lies in the project, as the kernel says.
    pub(crate) in_project: bool,
    /// Run from inside of which it is asked.
    pub(crate) outer: Option<RunId>,
    /// The chain of parents of the asking process, nearest first.
    pub(crate) parents: Vec<ProcessId>,
    /// Command line, escaped.
    pub(crate) command: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) deliveries: Vec<Wanted>,
    /// The request leaves form and time of the deliveries to the profiles.
    pub(crate) usual: bool,
    /// What a person has to look at first.
    pub(crate) file: Option<ProjectAsk>,
    /// Digest of what a card may show cut: the path, the script, the arguments, and the project.
    pub(crate) whole: [u8; 32],
    /// Digest over what is asked, once it was needed.
    pub(crate) request: [u8; 32],
}

impl Want {
    /// What allows each delivery, in their order. What the run around holds counts on no grant.
    pub(crate) fn grounds(&self, state: &State, now: Now) -> Vec<Option<Ground>> {
        let granted = self.grants(state, now);
        let grounds = self.deliveries.iter().zip(granted);
        grounds.map(|(wanted, grant)| self.held(state, wanted, now).or(grant.map(Ground::Grant))).collect()
    }

    /// The lease of the run around that covers a delivery. Not where each use takes the passphrase, and not behind a fence,
    /// which counts the calls of each lease by itself.
    fn held(&self, state: &State, wanted: &Wanted, now: Now) -> Option<Ground> {
        let profile = &wanted.profile;
        let run = state.runs.get(&self.outer?).filter(|run| run.ended.is_none())?;
        if self.kind != ApprovalKind::Run || profile.confirm || profile.fence().is_some() {
            return None;
        }
        let covers = run.leases.iter().filter(|held| held.profile == profile.name);
        let covers = covers.filter(|held| held.lease.covers(wanted.mode, now.boot));
        covers.map(|held| (held.lease.last(), held.id)).max().map(|(last, id)| Ground::Held(id, last))
    }

    /// The live grant of each delivery, in their order.
    fn grants(&self, state: &State, now: Now) -> Vec<Option<GrantId>> {
        let (Some(moment), Some(open)) = (moment(now), state.vault.opened()) else {
            return vec![None; self.deliveries.len()];
        };
        // The program that asks for a token is not the one that gets it, so a grant for a program is none for a token.
        let nothing = Program { path: String::new(), file: None, script: None };
        let program = if self.kind == ApprovalKind::Token { &nothing } else { &self.program };
        let find = |wanted: &Wanted| {
            let ask = Ask {
                profile: &wanted.profile.name,
                program,
                launcher: self.launcher.as_ref().filter(|launcher| launcher.2).map(|(launch, ..)| launch.launcher),
                project: if self.in_project { &self.project } else { "" },
                delivery: wanted.mode,
                outer: self.outer,
                request: self.request,
            };
            let found = open.grants.find(&ask, &moment)?;
            // Each use was asked for, by somebody who proved who they are.
            let asked = || open.grants.get(found).is_some_and(|grant| grant.request == Some(self.request));
            (!wanted.profile.confirm || asked()).then_some(found)
        };
        self.deliveries.iter().map(find).collect()
    }

    /// Whether the file of the program is the one that was asked about, after a person has taken their time.
    ///
    /// # Errors
    /// [`Code::RunGone`].
    pub(crate) async fn is_unchanged(&self) -> Result<(), Fault> {
        let Program { path, file, .. } = self.program.clone();
        if self.kind == ApprovalKind::Token {
            return Ok(());
        }
        let found = looked(move || Ok(std::fs::metadata(path).ok().map(|file| program::state(&file)))).await?;
        match found == file {
            true => Ok(()),
            false => Err(Fault::new(Code::RunGone).cause("the program was replaced meanwhile")),
        }
    }

    pub(crate) fn change(&self) -> Option<&Vec<String>> {
        self.file.as_ref().and_then(|file| file.change.as_ref())
    }
}

/// What a run asks for.
pub(crate) async fn want_run(
    peer: &Peer,
    role: Role<RunId>,
    request: &RunRequest,
    seen: &program::Program,
    found: Option<&Found>,
    planned: &Plan,
    file: Option<ProjectAsk>,
) -> Result<Want, Fault> {
    let command = &request.command;
    let (path, args, cwd) = (command.path.clone(), command.args.clone(), peer.cwd().map(Path::to_owned));
    let (interprets, script) = looked(move || {
        let interprets = program::runs_arguments(&path);
        let script = cwd.filter(|_| interprets).and_then(|folder| program::script(&path, &args, &folder));
        Ok((interprets, script))
    })
    .await?;
    let deliveries = planned.deliveries.iter().map(|delivery| Wanted {
        profile: delivery.profile.clone(),
        mode: delivery.hand_over.mode,
        ttl: delivery.ttl,
    });
    let program = Program { path: command.path.clone(), file: Some(seen.state), script };
    Ok(Want {
        kind: ApprovalKind::Run,
        app: found.map_or_else(|| seen.app.clone(), |found| found.name.clone()),
        anything: interprets && program.script.is_none() && !found.is_some_and(|found| found.meant),
        whole: whole(&program, &command.args, &command.project),
        program,
        verified: false,
        launcher: found.map(|found| (found.launch, found.name.clone(), found.meant)),
        project: command.project.clone(),
        in_project: peer.cwd().is_some_and(|cwd| cwd.starts_with(&command.project)),
        outer: outer(role),
        parents: peer.parents()?.to_vec(),
        command: Some(card::command(&command.path, &command.args)),
        reason: request.reason.clone(),
        deliveries: deliveries.collect(),
        usual: request.deliver.is_none() && request.ttl_s.is_none(),
        file,
        request: [0; 32],
    })
}

/// What a helper asks for: the credential itself, for the program that has started the helper.
pub(crate) async fn want_token(
    peer: &Peer,
    role: Role<RunId>,
    wanted: Wanted,
    reason: Option<String>,
) -> Result<Want, Fault> {
    let asks = match peer.parents()?.first() {
        Some(parent) if is_command_line(peer.executable()) => *parent,
        _ => peer.process(),
    };
    let cwd = peer.cwd().map(Path::to_owned);
    let (program, app, anything, project) = looked(move || Ok(caller(asks, cwd))).await?;
    Ok(Want {
        kind: ApprovalKind::Token,
        app,
        verified: program.file.is_some(),
        anything,
        whole: whole(&program, &[], &project),
        program,
        launcher: None,
        in_project: !project.is_empty(),
        project,
        outer: outer(role),
        parents: peer.parents()?.to_vec(),
        command: None,
        reason,
        deliveries: vec![wanted],
        usual: false,
        file: None,
        request: [0; 32],
    })
}

/// See [`Want::whole`].
fn whole(program: &Program, args: &[String], project: &str) -> [u8; 32] {
    let texts = [Some(program.path.as_str()), program.script.as_deref(), Some(project)];
    let mut digest = Sha256::new();
    for text in texts.into_iter().chain(args.iter().map(|arg| Some(arg.as_str()))) {
        // The length keeps two texts apart, and none from an empty one.
        digest.update(text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
        digest.update(text.unwrap_or_default());
    }
    digest.finalize().into()
}

fn outer(role: Role<RunId>) -> Option<RunId> {
    if let Role::InsideRun(run) = role { Some(run) } else { None }
}

/// Whether a program is the command line that lies beside the broker: a helper that speaks for whoever started it.
fn is_command_line(executable: Option<&Executable>) -> bool {
    let own = std::env::current_exe().ok().map(|own| own.with_file_name("keyward"));
    let file = own.and_then(|path| std::fs::metadata(path).ok());
    executable.zip(file).is_some_and(|(seen, file)| (seen.device, seen.inode) == (file.dev(), file.ino()))
}

/// The program of a process as the kernel tells it, its name, whether it runs what its arguments say and no script is known,
/// and the project of a folder.
fn caller(asks: ProcessId, cwd: Option<PathBuf>) -> (Program, String, bool, String) {
    let path = platform::program_path(asks).unwrap_or_else(|| "?".to_owned());
    let file = std::fs::metadata(format!("/proc/{}/exe", asks.pid)).ok().map(|file| program::state(&file));
    let interprets = program::runs_arguments(&path);
    let args = platform::arguments(asks).unwrap_or_default();
    let args: Vec<String> = args.into_iter().filter_map(|arg| String::from_utf8(arg).ok()).collect();
    let folder = std::fs::read_link(format!("/proc/{}/cwd", asks.pid)).ok();
    let script = folder.filter(|_| interprets).and_then(|folder| program::script(&path, &args, &folder));
    let app = path.rsplit('/').next().unwrap_or("?").to_owned();
    // A folder that a grant cannot name is none.
    let project = cwd.and_then(|cwd| program::grantable(card::project_of(&cwd))).unwrap_or_default();
    // The number may have been given to another process while its facts were read.
    let same = platform::process(asks.pid).is_ok_and(|process| process.id == asks);
    let anything = interprets && script.is_none();
    (Program { path, file: file.filter(|_| same), script: script.filter(|_| same) }, app, anything || !same, project)
}
