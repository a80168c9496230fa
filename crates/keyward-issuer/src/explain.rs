//! Why an exchange was refused, in words that a person can act on.
//!
//! The server tells little, on purpose: most refusals are one `invalid_grant` or `authentication_error`. What the assertion
//! itself says, beside the profile and the clock of this machine, points at the part of the set-up to look at. Claims are
//! shown, bounded and made safe to print; the signature and the assertion itself never are. Called by the federation issuer
//! and the identity source `file`.

use crate::answer::Refusal;
use crate::jwt::Assertion;
use keyward_core::Profile;
use keyward_diag::plain;

/// What the audience of every assertion for Anthropic is by convention.
const AUDIENCE: &str = "https://api.anthropic.com";

/// Algorithms that the server takes.
const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];

/// By how much clocks may differ, in seconds.
const SKEW: i64 = 30;

/// Longest life of an assertion where the issuer's `max_jwt_lifetime_seconds` does not say otherwise, in seconds.
const LIFE_MAX: i64 = 3600;

/// Most parts of the set-up that are named for one refusal.
const POINTERS_MAX: usize = 6;

/// A refused exchange.
pub(crate) struct Refused<'a> {
    /// The profile that asked.
    pub(crate) profile: &'a Profile,
    /// Host of the endpoint, safe to show.
    pub(crate) host: &'a str,
    /// What was presented.
    pub(crate) assertion: &'a Assertion,
    /// The status of the answer.
    pub(crate) status: u16,
    /// Its content.
    pub(crate) refusal: &'a Refusal,
    /// The clock of this machine, in seconds since 1970.
    pub(crate) now: i64,
    /// By how many seconds the endpoint's clock is ahead of it, where the endpoint says.
    pub(crate) ahead_s: Option<i64>,
}

/// A span of time as people say it: `12 minutes ago`, or `in 12 minutes` where it is negative.
pub(crate) fn ago(seconds: i64) -> String {
    let span = span(seconds);
    if seconds < 0 { format!("in {span}") } else { format!("{span} ago") }
}

fn span(seconds: i64) -> String {
    match seconds.unsigned_abs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} minutes", s / 60),
        s @ 7200..172_800 => format!("{} hours", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// What an assertion says, in one line that fits into a cause.
pub(crate) fn claims(assertion: &Assertion, now: i64) -> String {
    let shown = |claim: Option<&str>, limit| match claim {
        Some(text) => format!("`{}`", plain(text, limit)),
        None => "none".to_owned(),
    };
    let at = |date: Option<i64>| date.map_or_else(|| "never".to_owned(), |date| ago(now.saturating_sub(date)));
    let audience = Some(assertion.aud.join(" ")).filter(|aud| !aud.is_empty());
    let ends = if assertion.exp.is_some_and(|exp| exp <= now) { "ended" } else { "ends" };
    format!(
        "the assertion says: iss {}, sub {}, aud {}, issued {}, {ends} {}, kid {}, alg {}",
        shown(assertion.iss.as_deref(), 80),
        shown(assertion.sub.as_deref(), 100),
        shown(audience.as_deref(), 60),
        at(assertion.iat),
        at(assertion.exp),
        shown(assertion.kid.as_deref(), 24),
        shown(Some(&assertion.alg), 10),
    )
}

/// Parts of the set-up to look at, the likeliest first.
pub(crate) fn look_at(refused: &Refused<'_>) -> Vec<String> {
    let mut parts = named(refused);
    parts.extend(clock(refused));
    parts.extend(form(refused.assertion));
    parts.extend(place(refused));
    parts.extend(aim(refused.assertion));
    if parts.len() < POINTERS_MAX && !refused.refusal.says("invalid_request") && !matches!(refused.status, 404 | 405) {
        parts.extend(rule(refused));
    }
    parts.truncate(POINTERS_MAX);
    parts
}

/// What the answer itself names.
fn named(refused: &Refused<'_>) -> Vec<String> {
    let (profile, refusal) = (refused.profile, refused.refusal);
    let mut parts = Vec::new();
    let field = |name| profile.settings.text(name).map_or_else(|| "which is not set".to_owned(), |v| format!("`{v}`"));
    if refusal.says("workspace_id_required") {
        parts
            .push("workspace: the rule holds for several; set `workspace_id` in the profile to one of them".to_owned());
    } else if refusal.says("workspace_id") {
        parts.push(format!("workspace: look at `workspace_id`, {}", field("workspace_id")));
    }
    for (name, part) in
        [("federation_rule_id", "rule"), ("organization_id", "organization"), ("service_account_id", "service account")]
    {
        if refusal.says(name) {
            parts.push(format!("{part}: look at `{name}`, {}, in the profile", field(name)));
        }
    }
    parts
}

/// Times that this machine's clock does not agree with.
fn clock(refused: &Refused<'_>) -> Vec<String> {
    let (assertion, now) = (refused.assertion, refused.now);
    let since = |date: Option<i64>| date.map(|date| now.saturating_sub(date));
    let mut parts = Vec::new();
    if let Some(ahead) = refused.ahead_s.filter(|ahead| ahead.abs() > SKEW) {
        let (span, side) = (span(ahead), if ahead > 0 { "ahead of" } else { "behind" });
        parts.push(format!(
            "clock: the clock of {} is {span} {side} that of this machine; {SKEW} s are allowed between it and the \
             assertion's times",
            refused.host
        ));
    }
    if let Some(over) = since(assertion.exp).filter(|over| *over > SKEW) {
        parts.push(format!(
            "clock or identity source: by this machine's clock it expired {}: the source gave a stale assertion, or the \
             clock is wrong",
            ago(over)
        ));
    }
    for (claim, date) in [("iat", assertion.iat), ("nbf", assertion.nbf)] {
        if let Some(early) = since(date).filter(|early| *early < -SKEW) {
            parts.push(format!(
                "clock: its `{claim}` lies ahead, {} by this machine's clock: set the clock of this machine or of the \
                 identity provider",
                ago(early)
            ));
        }
    }
    parts
}

/// What the server never takes, whatever the rule says.
fn form(assertion: &Assertion) -> Vec<String> {
    let mut parts = Vec::new();
    if !ALGORITHMS.contains(&assertion.alg.as_str()) {
        parts.push(format!(
            "issuer: it is signed with `{}`; RS, PS and ES with 256, 384 and 512 bits are taken",
            plain(&assertion.alg, 20)
        ));
    }
    if assertion.kid.is_none() {
        parts.push("issuer: its header has no `kid`, so that the server cannot find the key".to_owned());
    }
    let absent = [
        ("iss", assertion.iss.is_none()),
        ("sub", assertion.sub.is_none()),
        ("iat", assertion.iat.is_none()),
        ("exp", assertion.exp.is_none()),
    ];
    let absent: Vec<String> = absent.iter().filter(|(_, absent)| *absent).map(|(c, _)| format!("`{c}`")).collect();
    if !absent.is_empty() {
        parts.push(format!("issuer: it lacks {}, which the server needs", absent.join(", ")));
    }
    if let (Some(iat), Some(exp)) = (assertion.iat, assertion.exp)
        && exp.saturating_sub(iat) > LIFE_MAX
    {
        parts.push(format!(
            "issuer: it lives {} s from `iat` to `exp`, and the server takes {LIFE_MAX} s unless the issuer's \
             `max_jwt_lifetime_seconds` allows more",
            exp.saturating_sub(iat)
        ));
    }
    parts
}

/// What the status points at.
fn place(refused: &Refused<'_>) -> Vec<String> {
    let mut parts = Vec::new();
    if refused.refusal.other.as_deref() == Some("HTML or XML") {
        parts.push(format!(
            "network: the answer is a page for people: does a proxy or a login page stand before {}?",
            refused.host
        ));
    }
    match refused.status {
        401 if refused.assertion.once().is_some() => parts.push(
            "one-time use: it has a `jti`, so the server takes it once; another program or machine that holds the same \
             assertion may have presented it before"
                .to_owned(),
        ),
        403 => {
            let account = refused.profile.settings.text("service_account_id").unwrap_or("of the rule");
            parts.push(format!(
                "service account: is the service account {account} active, and a member of the workspace that is asked for?"
            ));
        }
        404 | 405 => parts.push(format!("network: is {} the API? Look at `base_url` in the profile", refused.host)),
        _ => {}
    }
    parts
}

/// Claims that rules are rarely made for.
fn aim(assertion: &Assertion) -> Vec<String> {
    let mut parts = Vec::new();
    if !assertion.aud.iter().any(|aud| aud == AUDIENCE) {
        parts.push(format!(
            "audience: it is not for `{AUDIENCE}`, which rules ask for by convention; ask the identity provider for it, or \
             let the rule name the audience above"
        ));
    }
    if assertion.sub.as_deref().is_some_and(|sub| sub.ends_with(":pull_request")) {
        parts.push(
            "subject: it is a run for a pull request, which forks can open too; rules should not allow it, but name a \
             branch or an environment"
                .to_owned(),
        );
    }
    parts
}

/// What can be wrong at the server's end without a sign.
fn rule(refused: &Refused<'_>) -> Vec<String> {
    let (profile, assertion) = (refused.profile, refused.assertion);
    let of = |name| profile.settings.text(name).unwrap_or_default();
    let mut parts = vec![
        format!(
            "rule and subject: is `{}` a live rule of organization {}? Its `subject_prefix` must be the `sub` above letter \
             by letter, or end in *",
            of("federation_rule_id"),
            of("organization_id")
        ),
        "issuer: its `issuer_url` must be the `iss` above byte by byte, a final slash included, and its keys must hold the \
         `kid`; a key published just before takes up to a minute"
            .to_owned(),
    ];
    if assertion.aud.iter().any(|aud| aud == AUDIENCE) {
        parts.push("audience: where the rule names one, it must be one of the `aud` above letter by letter".to_owned());
    }
    if let Some(account) = profile.settings.text("service_account_id") {
        parts.push(format!("service account: the rule's target must be {account}"));
    }
    match profile.settings.text("workspace_id") {
        Some(workspace) => parts.push(format!("workspace: the rule must be enabled for `{workspace}`")),
        None => {
            parts.push("workspace: where the rule holds for several, the profile must set `workspace_id`".to_owned())
        }
    }
    parts
}

#[cfg(test)]
mod tests;
