//! Workflows of GitHub Actions that can ask for an assertion and run for pull requests.
//!
//! Reads lines, not YAML: enough to name the file and line that a person should look at. Called by `doctor`.

use super::{Around, Found, Place};
use serde::Serialize;

/// Workflows of one project that are read.
const WORKFLOWS_MAX: usize = 256;

/// A workflow that gives an assertion to runs which somebody else can start.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Exposed {
    /// File, and the line that lets it ask for an assertion.
    #[serde(serialize_with = "shown")]
    pub place: Place,
    /// What starts it.
    pub trigger: &'static str,
}

fn shown<S: serde::Serializer>(place: &Place, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(place)
}

/// Looks through `.github/workflows` of the project.
pub fn exposed(around: &Around, found: &mut Found) -> Vec<Exposed> {
    let entries = std::fs::read_dir(around.project().join(".github/workflows")).into_iter().flatten().flatten();
    let is_yaml = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "yml" || e == "yaml");
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_yaml).collect();
    files.sort();
    let mut out = Vec::new();
    for path in files.into_iter().take(WORKFLOWS_MAX) {
        let Some(text) = found.read(&path) else { continue };
        if let Some((line, trigger)) = look(&text) {
            out.push(Exposed { place: Place::File { path, line: Some(line) }, trigger });
        }
    }
    out
}

/// The line with the permission and the more dangerous trigger of a workflow that has both.
fn look(text: &str) -> Option<(usize, &'static str)> {
    let lines = || text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_end());
    let permission = lines().position(|line| {
        let compact: String = line.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect();
        !compact.starts_with('#') && (compact.contains("id-token:write") || compact.contains("permissions:write-all"))
    })?;
    let mut in_triggers = false;
    let mut words: Vec<&str> = Vec::new();
    for line in lines().filter(|line| !line.trim_start().starts_with('#')) {
        let top = !line.is_empty() && !line.starts_with([' ', '\t', '-']);
        if top {
            let key = line.split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
            in_triggers = key == "on";
        }
        if in_triggers {
            words.extend(line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        }
    }
    let trigger = ["pull_request_target", "pull_request"].into_iter().find(|trigger| words.contains(trigger))?;
    Some((permission + 1, trigger))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_and_a_trigger_together_are_found() {
        for (text, want) in [
            ("on: pull_request\npermissions:\n  id-token: write\n", Some((3, "pull_request"))),
            (
                "on: [push, pull_request_target]\njobs:\n  a:\n    permissions: { id-token: write }\n",
                Some((4, "pull_request_target")),
            ),
            (
                "'on':\n  push:\n  pull_request:\n    branches: [main]\npermissions: write-all\n",
                Some((5, "pull_request")),
            ),
            ("on:\n- push\n- pull_request # x\npermissions:\n  id-token: \"write\"\n", Some((5, "pull_request"))),
            ("on: pull_request\npermissions:\n  id-token: read\n", None),
            ("on: pull_request\n# id-token: write\n", None),
            (
                "on: push\npermissions:\n  id-token: write\njobs:\n  a:\n    if: github.event_name == 'pull_request'\n",
                None,
            ),
            ("on: push # pull_request\npermissions:\n  id-token: write\n", None),
            ("on:\n  pull_request_review:\npermissions:\n  id-token: write\n", None),
        ] {
            assert_eq!(look(text), want, "{text}");
        }
    }
}
