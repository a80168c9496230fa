//! Agents: which there are in the world, and which of them are installed here.
//!
//! What is known of them is data (`data/agents.toml`). Looks at names, owners and modes of files; runs none of them. Called by
//! the screens that offer launchers, and wherever a program is shown by the name that people know.

use crate::find::Around;
use crate::lookup::{executable, is_guarded};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// An agent that is installed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Its id: `claude-code`.
    pub id: String,
    /// Its name: `Claude Code`.
    pub name: String,
    /// Absolute path of its program.
    pub path: PathBuf,
    /// Arguments that a launcher gives it.
    pub args: Vec<String>,
    /// It needs a terminal.
    pub terminal: bool,
    /// Families of credentials that it takes, best first.
    pub providers: Vec<String>,
}

/// What is known of an agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// File names of its program, the usual one first.
    pub programs: Vec<String>,
    /// Folders of this agent alone.
    #[serde(default)]
    places: Vec<String>,
    /// Arguments that a launcher gives it.
    #[serde(default)]
    pub args: Vec<String>,
    /// It needs a terminal.
    pub terminal: bool,
    /// Families of credentials that it takes, best first.
    pub providers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    places: Vec<String>,
    agent: Vec<Known>,
}

// The data is part of the program, and a test reads it.
static DATA: LazyLock<Data> = LazyLock::new(|| toml::from_str(include_str!("../data/agents.toml")).unwrap_or_default());

/// All agents that are known, in the order in which they are offered.
pub fn all() -> &'static [Known] {
    &DATA.agent
}

/// What is known of a program, by its path or file name.
pub fn known(program: &str) -> Option<&'static Known> {
    let name = Path::new(program).file_name()?.to_str()?;
    DATA.agent.iter().find(|agent| agent.programs.iter().any(|program| program == name))
}

/// The name under which people know a program: `Claude Code` for `claude`; `None` where it is no agent.
pub fn app_name(program: &str) -> Option<&'static str> {
    known(program).map(|agent| agent.name.as_str())
}

/// The agents that are installed here, each once. A program that everybody may write, or that belongs to another user than
/// this one or root, is passed over, and so is one in such a folder: whoever can change it would get the credential.
pub fn agents(around: &Around) -> Vec<Agent> {
    DATA.agent.iter().filter_map(|agent| Some(agent.at(find(agent, around)?))).collect()
}

impl Known {
    fn at(&self, path: PathBuf) -> Agent {
        Agent {
            id: self.id.clone(),
            name: self.name.clone(),
            path,
            args: self.args.clone(),
            terminal: self.terminal,
            providers: self.providers.clone(),
        }
    }
}

fn find(agent: &Known, around: &Around) -> Option<PathBuf> {
    let path = around.variable("PATH").map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    // A relative folder means something else in each working folder.
    let path = path.into_iter().filter(|folder| folder.is_absolute());
    let places = agent.places.iter().chain(&DATA.places).filter_map(|place| around.place(place));
    let folders: Vec<PathBuf> = path.chain(places).collect();
    let files = agent.programs.iter().flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
    files.into_iter().find(|file| executable(file) && is_guarded(file))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::find::known::FAMILIES;
    use crate::find::tests::Scene;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn install(scene: &Scene, name: &str, mode: u32) -> PathBuf {
        let path = scene.file(name, "#!/bin/false\n");
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A home whose PATH is one folder of it.
    fn scene() -> Scene {
        let mut scene = Scene::new(&[]);
        let bin = scene.root.join("home/path");
        scene.around.variables.insert("PATH".into(), format!("relative::{}", bin.display()).into());
        scene
    }

    fn found(scene: &Scene, id: &str) -> Option<PathBuf> {
        agents(&scene.around).into_iter().find(|agent| agent.id == id).map(|agent| agent.path)
    }

    #[test]
    fn the_data_is_sound() {
        let data: Data = toml::from_str(include_str!("../data/agents.toml")).unwrap();
        let families: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        let mut programs = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for agent in &data.agent {
            assert!(ids.insert(&agent.id) && !agent.programs.is_empty(), "{agent:?}");
            assert!(agent.programs.iter().all(|p| programs.insert(p) && !p.contains('/')), "{agent:?}");
            assert!(agent.providers.iter().all(|p| families.contains(p.as_str())), "{agent:?}");
        }
        let places = data.places.iter().chain(data.agent.iter().flat_map(|a| &a.places));
        assert!(places.into_iter().all(|place| place.starts_with("~/") || place.starts_with('/')));
    }

    #[test]
    fn path_comes_first_and_the_usual_places_after_it() {
        let scene = scene();
        let local = install(&scene, ".claude/local/claude", 0o755);
        assert_eq!(found(&scene, "claude-code"), Some(local));
        let on_path = install(&scene, "path/claude", 0o755);
        assert_eq!(found(&scene, "claude-code"), Some(on_path));
        let npm = install(&scene, ".npm-global/bin/codex", 0o700);
        let agents = agents(&scene.around);
        let codex = agents.iter().find(|agent| agent.id == "codex").unwrap();
        assert_eq!((&codex.path, codex.terminal, codex.providers.as_slice()), (&npm, true, &["openai".to_owned()][..]));
    }

    #[test]
    fn what_others_can_change_is_not_offered() {
        let scene = scene();
        for (name, mode) in [("path/claude", 0o757), ("path/codex", 0o644), ("path/gemini", 0o777)] {
            install(&scene, name, mode);
        }
        fs::create_dir(scene.root.join("home/path/aider")).unwrap();
        symlink("nowhere", scene.root.join("home/path/crush")).unwrap();
        let ids = ["claude-code", "codex", "gemini", "aider", "crush"];
        assert!(ids.iter().all(|id| found(&scene, id).is_none()), "{:?}", agents(&scene.around));
        // A sound one in a later place is taken.
        let sound = install(&scene, ".local/bin/claude", 0o755);
        assert_eq!(found(&scene, "claude-code"), Some(sound.clone()));
        // Whoever may write the folder may put another file in its place, behind a link as well.
        let folder = sound.parent().unwrap();
        symlink(&sound, scene.root.join("home/path/qwen")).unwrap();
        assert!(found(&scene, "qwen-code").is_some());
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!((found(&scene, "claude-code"), found(&scene, "qwen-code")), (None, None));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(found(&scene, "claude-code").is_some(), "in a folder with the sticky bit only the owner may");
    }

    #[test]
    fn programs_are_shown_by_the_name_that_people_know() {
        assert_eq!((app_name("claude"), app_name("/usr/bin/codex")), (Some("Claude Code"), Some("Codex")));
        assert_eq!((app_name("psql"), app_name(""), app_name("/")), (None, None, None));
    }
}
