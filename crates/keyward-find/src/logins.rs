//! The credentials that lie on this machine outside of the vault, as a list for a screen.
//!
//! The list holds no secret and nothing that is made of one: what was read to make it is wiped. The bytes of one are read
//! again, when a person asks for it by its id. Changes no file. Called by the desktop.

use crate::find::known::known;
use crate::find::{Around, Finding, Found, Source, State};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretText;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// A credential that lies on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Login {
    /// Its id: of its name and its place, never of its bytes.
    pub id: String,
    /// What it is: a variable, or what the tool calls it.
    pub name: String,
    /// Where it lies: file and line, or `environment`.
    pub place: String,
    /// Family of the programs that read it, which is the provider of a profile made of it.
    pub provider: String,
    /// Name for that profile; no two of a list have the same.
    pub suggested: String,
    /// Variable in which that profile hands it over; absent where it cannot be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// It can be taken into the vault.
    pub adoptable: bool,
    /// What to do with it, in one sentence.
    pub advice: String,
}

/// What lies about, the environment first, the same bytes for the same variable once. Settings and empty variables are no
/// credentials and left out.
pub fn logins(around: &Around) -> Vec<Login> {
    let found = Found::everywhere(around);
    let mut names = BTreeSet::new();
    groups(&found).iter().map(|group| login(group, &mut names)).collect()
}

/// Reads the secret of a login that can be taken, as it is at this moment.
///
/// # Errors
/// [`Code::SecretUnknown`] when it is not there any longer or cannot be taken.
pub fn take(around: &Around, id: &str) -> Result<SecretText, Fault> {
    let mut found = Found::everywhere(around);
    let fits = |group: &Vec<&Finding>| id_of(group[0]) == id;
    let of_group = groups(&found)
        .into_iter()
        .find(fits)
        .and_then(|group| found.findings.iter().position(|finding| std::ptr::eq(finding, group[0])));
    of_group.and_then(|at| found.findings[at].secret.take()).ok_or_else(|| {
        Fault::new(Code::SecretUnknown)
            .cause("what was found there is gone, or it cannot be taken")
            .help("look at the list again")
    })
}

/// The credentials, those with the same bytes for the same variable together.
fn groups(found: &Found) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in found.findings.iter().filter(|f| !matches!(f.state, State::Setting | State::Empty)) {
        let same = |group: &&mut Vec<&Finding>| {
            let first = group[0];
            let bytes = first.fingerprint.is_some() && first.fingerprint == finding.fingerprint;
            bytes && first.hands_over() == finding.hands_over() && first.state == finding.state
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

fn id_of(finding: &Finding) -> String {
    let mut digest = Sha256::new();
    // Not the line, which moves when a line is added above.
    let place = finding.place.file().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    for part in [finding.family, &finding.name, &place] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    hex::encode(&digest.finalize()[..8])
}

fn login(group: &[&Finding], names: &mut BTreeSet<String>) -> Login {
    let first = group[0];
    let adoptable = first.state == State::Usable;
    let variable = adoptable.then(|| first.hands_over().to_owned());
    Login {
        id: id_of(first),
        name: first.name.clone(),
        place: first.place.to_string(),
        provider: first.family.to_owned(),
        suggested: suggested(first, names),
        variable,
        adoptable,
        advice: advice(group),
    }
}

/// The family where no other of the list has it, else the variable, else the first number that is free.
fn suggested(finding: &Finding, names: &mut BTreeSet<String>) -> String {
    let family = finding.family.to_owned();
    let variable = known(&finding.name).map(|_| finding.name.to_ascii_lowercase().replace('_', "-"));
    let numbered = (2..).map(|n| format!("{}-{n}", finding.family));
    let mut all = std::iter::once(family).chain(variable).chain(numbered);
    all.find(|name| names.insert(name.clone())).unwrap_or_default()
}

fn advice(group: &[&Finding]) -> String {
    if let Some(why) = group[0].state.why() {
        return format!("Stays where it is: {why}.");
    }
    let remedies: Vec<String> = group
        .iter()
        .map(|finding| match finding.source {
            Source::Environment => "unset it where your session sets it".to_owned(),
            Source::ClaudeSettings(_) => {
                format!("remove it from {}, which Claude Code puts over the environment", finding.place)
            }
            Source::StartFile | Source::EnvFile | Source::Direnv | Source::Tool => {
                format!("remove it from {}", finding.place)
            }
        })
        .collect();
    format!("Take it into the vault, then {}.", remedies.join("; "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::find::tests::Scene;
    use keyward_diag::Code;

    fn of<'l>(logins: &'l [Login], name: &str) -> &'l Login {
        logins.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("no {name} in {logins:#?}"))
    }

    fn text(secret: &SecretText) -> String {
        // EXPOSE: compared in a test.
        secret.expose(str::to_owned)
    }

    #[test]
    fn the_list_says_where_and_what_and_holds_no_secret() {
        let scene =
            Scene::new(&[("ANTHROPIC_API_KEY", "hunter2"), ("ANTHROPIC_BASE_URL", "https://x"), ("HF_TOKEN", "")]);
        scene.file(".bashrc", "export ANTHROPIC_API_KEY=hunter2\nexport ANTHROPIC_AUTH_TOKEN=hunter3\n");
        scene.file(".config/gh/hosts.yml", "github.com:\n  oauth_token: hunter4\nghe.example:\n  user: me\n");
        scene.file(".claude/.credentials.json", "{\"claudeAiOauth\":{\"accessToken\":\"hunter5\"}}");
        scene.file(".claude/settings.json", "{\"env\":{\"GITHUB_TOKEN\":\"hunter4\"}}");
        let logins = logins(&scene.around);
        let shown = format!("{logins:?} {}", serde_json::to_string(&logins).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        for digits in ["hunter2", "hunter4"].map(|secret| hex::encode(&Sha256::digest(secret)[..4])) {
            assert!(!shown.contains(&digits), "nothing is made of the bytes: {shown}");
        }
        let key = of(&logins, "ANTHROPIC_API_KEY");
        assert_eq!((key.place.as_str(), key.suggested.as_str(), key.adoptable), ("environment", "anthropic", true));
        assert!(key.advice.contains("unset it") && key.advice.contains(".bashrc:1"), "{}", key.advice);
        let token = of(&logins, "ANTHROPIC_AUTH_TOKEN");
        assert_eq!(
            (token.suggested.as_str(), token.variable.as_deref()),
            ("anthropic-auth-token", Some("ANTHROPIC_AUTH_TOKEN"))
        );
        assert!(token.place.ends_with("/.bashrc:2"), "{}", token.place);
        let gh = of(&logins, "GITHUB_TOKEN");
        assert_eq!((gh.provider.as_str(), gh.variable.as_deref()), ("github", Some("GITHUB_TOKEN")));
        assert!(gh.advice.contains("hosts.yml:2") && gh.advice.contains("settings.json:1"), "{}", gh.advice);
        let login = of(&logins, "login of Claude Code");
        assert_eq!((login.adoptable, login.variable.as_deref()), (false, None));
        assert!(login.advice.contains("refresh token belongs to one program"), "{}", login.advice);
        assert_eq!(logins.len(), 5, "{logins:#?}");
        let distinct = |of: fn(&Login) -> &String| logins.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!((distinct(|l| &l.id), distinct(|l| &l.suggested)), (5, 5));
    }

    #[test]
    fn the_bytes_are_read_when_they_are_asked_for() {
        let scene = Scene::new(&[]);
        scene.file(".bashrc", "export OPENAI_API_KEY=old\n");
        scene.file(".netrc", "machine a login b password c\n");
        let list = logins(&scene.around);
        let id = &of(&list, "OPENAI_API_KEY").id;
        assert_eq!(text(&take(&scene.around, id).unwrap()), "old");
        scene.file(".bashrc", "# a line above\nexport OPENAI_API_KEY=new\n");
        assert_eq!(text(&take(&scene.around, id).unwrap()), "new");
        let unusable = &of(&list, "password for a").id;
        scene.file(".bashrc", "");
        for id in [id.as_str(), unusable, "", "no id"] {
            assert!(take(&scene.around, id).is_err_and(|fault| fault.code == Code::SecretUnknown), "{id}");
        }
    }
}
