//! `keyward.toml` of a project: what it asks for, and whether a person has looked at it.
//!
//! Acts on the text that came with the request and on the one that the vault keeps from the last review; reads no file of the
//! project. The file grants nothing: whoever asks with it gets what it would get by naming the profiles itself. Called where a
//! run is asked for.

use crate::broker::{Broker, Open, entry_of};
use crate::operator::is_person;
use crate::peer::Peer;
use crate::platform::now;
use crate::runs::{RunId, chosen};
use keyward_api::{CommandMsg, ProjectRunMsg, RunRequest};
use keyward_core::audit::{Draft, Kind};
use keyward_core::{Name, PROJECT_FILE, ProjectFile, ProjectRun, Role, difference};
use keyward_diag::{Code, Fault, plain};
use keyward_store::Write;
use sha2::{Digest, Sha256};

/// Where the vault keeps the text that was reviewed; its path follows.
const REVIEWED: &str = "project.reviewed:";

/// What a project asks for with one run of its file.
pub(crate) struct ProjectAsk {
    /// Profiles of the run.
    pub(crate) profiles: Vec<Name>,
    /// What a person has to look at first, as [`difference`] gives it; `None` where this very text was reviewed.
    pub(crate) change: Option<Vec<String>>,
    path: String,
    project: String,
    text: String,
    section: Name,
    run: ProjectRun,
}

impl Broker {
    /// Reads the `keyward.toml` of a request and compares it with the one that was reviewed; `None` where the request has
    /// none. Where the peer is the shell or the operator, a person answers in place: the text counts as reviewed, and that is
    /// recorded, once the request carries its digest. For others `change` goes into what a person is asked. A dry run reviews
    /// nothing and tells what would be asked for. From inside a run a file that asks amiss for a profile is answered like one
    /// that asks for no profile there is.
    ///
    /// # Errors
    /// [`Code::ProjectInvalid`]; [`Code::ProjectUnreviewed`] with the difference as causes, for one who may review it;
    /// [`Code::RequestInvalid`] for a file of another folder than that of the command.
    pub(crate) async fn project_ask(
        &self,
        open: &Open,
        peer: &Peer,
        role: Role<RunId>,
        request: &RunRequest,
    ) -> Result<Option<ProjectAsk>, Fault> {
        let Some(message) = &request.project_file else { return Ok(None) };
        if !request.profiles.is_empty() {
            return Err(Fault::new(Code::RequestInvalid).cause("both profiles and the file of a project are named"));
        }
        placed(&message.path, &request.command)?;
        let at_file =
            |fault: Fault| Fault { causes: [named(&message.path)].into_iter().chain(fault.causes).collect(), ..fault };
        let file = ProjectFile::parse(&message.text).map_err(at_file)?;
        let (section, run) = file.run(message.run.as_deref()).map_err(at_file)?;
        let key = format!("{REVIEWED}{}", message.path);
        let former = open.store.meta(&key).await.map_err(|e| e.fault())?;
        let former = former.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
        let change =
            if former == message.text { None } else { Some(changed(&former, &message.text).map_err(at_file)?) };
        // Nobody is asked about what does not exist.
        let there = chosen(open, &run.profiles.iter().map(Name::to_string).collect::<Vec<_>>());
        there.and_then(|_| listed(open, run)).map_err(|fault| match role {
            Role::InsideRun(_) => Fault::new(Code::ProfileUnknown),
            _ => at_file(fault),
        })?;
        let mut ask = ProjectAsk {
            profiles: run.profiles.clone(),
            change,
            path: message.path.clone(),
            project: request.command.project.clone(),
            text: message.text.clone(),
            section: section.clone(),
            run: run.clone(),
        };
        let Some(lines) = ask.change.as_ref().filter(|_| is_person(role) && !request.dry_run) else {
            return Ok(Some(ask));
        };
        if message.reviewed.as_deref() != Some(ask.digest().as_str()) {
            return Err(ask.unreviewed(lines));
        }
        let (write, draft) = ask.review(entry_of(Kind::ProjectReviewed, now(), peer));
        open.commit(self, vec![write], vec![draft]).await?;
        ask.change = None;
        Ok(Some(ask))
    }
}

impl ProjectAsk {
    /// The change that makes this text the reviewed one, and the entry that records it, begun by whoever knows who said yes.
    pub(crate) fn review(&self, entry: Draft) -> (Write, Draft) {
        let of = |sign: char| self.change.iter().flatten().filter(|line| line.starts_with(sign)).count();
        let draft = entry
            .project(self.project.clone())
            .detail("file", self.path.as_str())
            .detail("digest", self.digest())
            .detail("lines_added", of('+'))
            .detail("lines_removed", of('-'));
        (Write::PutMeta(format!("{REVIEWED}{}", self.path), self.text.as_bytes().to_vec()), draft)
    }

    /// What is asked for, as the answer tells it. What is no dry run is answered once a person has looked at the text.
    pub(crate) fn message(&self, dry_run: bool) -> ProjectRunMsg {
        let variables = self.run.variables.iter();
        ProjectRunMsg {
            path: self.path.clone(),
            run: self.section.to_string(),
            profiles: self.profiles.iter().map(Name::to_string).collect(),
            variables: variables.map(|(variable, profile)| (variable.clone(), profile.to_string())).collect(),
            reviewed: !dry_run || self.change.is_none(),
        }
    }

    /// SHA-256 of the text, in hex.
    pub(crate) fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    fn unreviewed(&self, lines: &[String]) -> Fault {
        let profiles: Vec<&str> = self.profiles.iter().map(Name::as_str).collect();
        let asks = format!("{}: [run.{}] asks for {}", named(&self.path), self.section, profiles.join(", "));
        lines
            .iter()
            .fold(Fault::new(Code::ProjectUnreviewed).cause(asks), |fault, line| fault.cause(line))
            .help("run it in a terminal of yours, where you are asked about these lines; or name the profiles with -p")
    }
}

fn named(path: &str) -> String {
    plain(path, 200)
}

/// The file lies in the folder that the command belongs to, named in the one way that there is.
fn placed(path: &str, command: &CommandMsg) -> Result<(), Fault> {
    let folder = command.project.strip_suffix('/').unwrap_or(&command.project);
    let normal = |folder: &str| folder.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let normal = command.project == "/" || folder.strip_prefix('/').is_some_and(normal);
    if normal && path == format!("{folder}/{PROJECT_FILE}") {
        return Ok(());
    }
    Err(Fault::new(Code::RequestInvalid).cause("the file of the project lies in another folder than the project"))
}

/// Each variable is one that its profile lists.
fn listed(open: &Open, run: &ProjectRun) -> Result<(), Fault> {
    for (variable, name) in &run.variables {
        let Some(delivery) = open.profiles.get(name).map(|stored| &stored.profile.delivery) else { continue };
        let mut lists = delivery.variables.iter().chain(&delivery.addresses);
        if !lists.clone().any(|own| own == variable) {
            let names = lists.by_ref().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Fault::new(Code::ProjectInvalid)
                .cause(format!("profile `{name}` does not deliver to `{variable}`; it lists: {names}"))
                .help(
                    "name a variable of the profile, or add this one to its [delivery] env: `keyward profile edit`",
                ));
        }
    }
    Ok(())
}

fn changed(former: &str, text: &str) -> Result<Vec<String>, Fault> {
    difference(former, text).map_err(|count| {
        Fault::new(Code::ProjectInvalid)
            .cause(format!("{count} lines changed since somebody looked at it last, and at most 60 are shown at once"))
            .help("make the file shorter, or change it in steps")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lies_in_the_folder_of_the_command() {
        for (project, path, fits) in [
            ("/home/me/p", "/home/me/p/keyward.toml", true),
            ("/home/me/p/", "/home/me/p/keyward.toml", true),
            ("/", "/keyward.toml", true),
            ("/home/me/p", "/home/me/p/sub/keyward.toml", false),
            ("/home/me/p", "/home/me/keyward.toml", false),
            ("/home/me/p", "/home/me/p/Keyward.toml", false),
            ("/home/me/p", "/home/me/p//keyward.toml", false),
            ("/home/me/p/../q", "/home/me/p/../q/keyward.toml", false),
            ("/home/me/./p", "/home/me/./p/keyward.toml", false),
            ("/home//p", "/home//p/keyward.toml", false),
            ("//", "//keyward.toml", false),
            ("home/me/p", "home/me/p/keyward.toml", false),
            (".", "./keyward.toml", false),
            ("", "/keyward.toml", false),
            ("", "keyward.toml", false),
        ] {
            let command = CommandMsg { path: "/bin/x".to_owned(), args: Vec::new(), project: project.to_owned() };
            assert_eq!(placed(path, &command).is_ok(), fits, "{path} of {project}");
        }
    }
}
