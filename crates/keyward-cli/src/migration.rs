//! The way from a key to a federation, as ordered steps with the facts that were found.
//!
//! Pure: reads nothing. The order is the one of the vendor: configure, look which credential wins, unset the key everywhere,
//! look again, and revoke the key last, since that alone cannot be taken back. Called by `doctor`.

use crate::federation::Federation;
use crate::order::are;
use keyward_api::ProfileMsg;
use keyward_find::find::workflow::Exposed;
use keyward_find::find::{Found, Place, Source, State};
use serde::Serialize;

/// Kind of the issuer that federates.
const FEDERATION: &str = "anthropic-federation";

/// Life that a rule gives where nobody chose one, in seconds.
const LIFE_DEFAULT_S: u64 = 3_600;

/// Life that the vendor's console suggests, in seconds; enough for any job, since Keyward renews.
const LIFE_WANTED_S: u64 = 600;

/// Variables that win over a federation.
const SHADOWS: &[&str] =
    &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS"];

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// What to do.
    pub(crate) step: String,
    /// Why.
    pub(crate) why: String,
    /// Where: file and line, `environment`, or a profile.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
}

fn step(step: impl Into<String>, why: impl Into<String>) -> Step {
    Step { step: step.into(), why: why.into(), place: None }
}

impl Step {
    fn at(self, place: impl ToString) -> Self {
        Self { place: Some(place.to_string()), ..self }
    }
}

/// The steps. `profiles` are those that Keyward has; `None` when it could not be asked.
pub(crate) fn steps(
    found: &Found,
    federation: &Federation,
    profiles: Option<&[ProfileMsg]>,
    exposed: &[Exposed],
) -> Vec<Step> {
    let federated: Vec<&ProfileMsg> = profiles.into_iter().flatten().filter(|p| p.issuer == FEDERATION).collect();
    let mut steps = Vec::new();
    if federated.is_empty() {
        steps.extend(configure(federation, profiles.is_some()));
    }
    steps.extend(federated.iter().flat_map(|profile| of_profile(profile)));
    steps.extend(exposed.iter().map(workflow));
    let unset = unset(found);
    let key = !unset.is_empty();
    steps.extend(unset);
    steps.push(step(
        "run `keyward doctor` again, in a new shell",
        "each client must take the federation, or nothing, before the key goes",
    ));
    let why = "this cannot be taken back, and whatever was forgotten fails from then on";
    steps.push(if key {
        step("last of all: revoke the old key in the console of its issuer", why)
    } else {
        step("last of all: revoke any key that the federation replaces, in the console of its issuer", why)
    });
    steps
}

fn configure(federation: &Federation, asked: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let unknown =
        if asked { "" } else { " (whether Keyward has one could not be seen: no broker runs, or the vault is locked)" };
    if federation.is_meant() && !federation.is_complete() {
        let missing = federation.missing();
        steps.push(
            step(
                format!("complete the federation of the environment: {} missing", are(&missing)),
                "a half-configured federation is passed over in silence by the SDKs",
            )
            .at(Place::Environment),
        );
    }
    steps.push(step(
        "make a federation rule with the narrowest scope and match: workspace:inference, one service account, one workspace, an exact subject",
        "workspace:developer is the default and grants what a workspace API key grants; org:admin grants everything",
    ));
    steps.push(step(
        format!("give the rule the shortest life that works: {LIFE_WANTED_S} s"),
        format!("the default is {LIFE_DEFAULT_S} s; a token cannot be revoked, so its life is all that limits a leak, and Keyward renews it"),
    ));
    let how = if federation.is_complete() {
        "--from-env"
    } else {
        "--federation --rule ID --organization ID --identity-file PATH"
    };
    steps.push(step(
        format!("add a profile: `keyward profile add NAME {how}`, and try it: `keyward profile test NAME`"),
        format!("a key is good until somebody revokes it; a federated token ends by itself{unknown}"),
    ));
    steps
}

fn of_profile(profile: &ProfileMsg) -> Vec<Step> {
    let at = format!("profile {}", profile.name);
    let Some(exchange) = profile.last_exchange.as_ref().filter(|e| e.ok) else {
        let why = "scope, life and subject show in the answer of a real exchange";
        return vec![
            step(format!("make an exchange: `keyward profile test {}`, then this again", profile.name), why).at(at),
        ];
    };
    let mut steps = Vec::new();
    let scopes: Vec<&str> = exchange.scope.iter().flat_map(|s| s.split([' ', ','])).filter(|s| !s.is_empty()).collect();
    if scopes.contains(&"org:admin") {
        steps.push(
            step(
                "AT ONCE: take org:admin from the rule, or use this profile for nothing but administration",
                "whoever holds the token can administer the whole organization: members, keys, rules",
            )
            .at(&at),
        );
    }
    if scopes.contains(&"workspace:developer") {
        steps.push(step(
            "narrow the scope of the rule: workspace:inference instead of workspace:developer",
            "workspace:developer grants all but administration; programs that only send messages need workspace:inference",
        ).at(&at));
    }
    if let Some(life) = exchange.expires_in_s.filter(|life| *life > LIFE_WANTED_S) {
        // The life of an answer may be a second short of what the rule gives.
        let default = if life.abs_diff(LIFE_DEFAULT_S) <= 5 { ", the default" } else { "" };
        steps.push(
            step(
                format!("shorten the life of the token: the rule gives {life} s{default}; {LIFE_WANTED_S} s is enough"),
                "a token cannot be revoked, so its life is all that limits a leak, and Keyward renews it",
            )
            .at(&at),
        );
    }
    if let Some(subject) = exchange.facts.get("assertion_subject") {
        steps.extend(subject_of_forks(subject).map(|(what, why)| step(what, why).at(&at)));
    }
    steps
}

/// What is wrong with a subject that others can reach.
fn subject_of_forks(subject: &str) -> Option<(String, &'static str)> {
    let of_repository = subject.starts_with("repo:");
    if of_repository && subject.split(':').any(|part| part == "pull_request") {
        return Some((
            format!("match another subject than {subject}: one of a branch or of a protected environment"),
            "every pull request of the repository has this subject, whoever wrote its code",
        ));
    }
    subject.contains('*').then(|| {
        (format!("match an exact subject instead of {subject}"), "a wildcard also fits what somebody else can make")
    })
}

fn workflow(exposed: &Exposed) -> Step {
    let why = if exposed.trigger == "pull_request_target" {
        "anybody who opens a pull request from a fork starts it with the rights of the repository, and can so get an assertion"
    } else {
        "the code of a pull request gets an assertion, from every branch, and from forks where the repository lends them its rights"
    };
    step(
        format!(
            "take `id-token: write` from jobs that run on {}, and let the rule match a subject that they do not have",
            exposed.trigger
        ),
        why,
    )
    .at(&exposed.place)
}

/// A step for each place that gives a program a credential that would win.
fn unset(found: &Found) -> Vec<Step> {
    let mut steps = Vec::new();
    for variable in SHADOWS {
        let all =
            found.findings.iter().filter(|f| f.name == *variable && !matches!(f.state, State::Empty | State::Setting));
        for finding in all {
            let (what, why) = match finding.source {
                Source::Environment => ("unset", "it wins over the federation in every program that starts from here"),
                Source::StartFile => ("remove", "each new shell sets it again"),
                Source::EnvFile => ("remove", "programs that load the file set it again"),
                Source::Direnv => ("remove", "direnv sets it again in this folder"),
                Source::ClaudeSettings(_) => {
                    ("remove", "Claude Code puts it over the environment, also over what Keyward hands over")
                }
                Source::Tool => continue,
            };
            steps.push(step(format!("{what} {variable}"), why).at(&finding.place));
        }
    }
    let helpers = found.findings.iter().filter(|f| f.name == "apiKeyHelper");
    steps.extend(
        helpers.map(|f| step("remove apiKeyHelper", "Claude Code takes its key before a federation").at(&f.place)),
    );
    steps
}

#[cfg(test)]
mod tests;
