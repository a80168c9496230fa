//! The token endpoint: `POST /v1/oauth/token` with the JWT-bearer grant (RFC 7523, JSON-encoded).
//!
//! Stricter than the real one in that a field that it does not know is refused and not dropped, so that a misspelt name is
//! found. Which rule a request broke is told to the journal alone; the client gets the opaque refusal of the chosen
//! generation. Called by [`crate::serve`].

use crate::answer::{Answer, Asked, take_text};
use crate::fault::{At, Sample, spoil};
use crate::journal::{Note, Seen, shown};
use crate::sandbox::{Refusals, Rule, Sandbox, State, token};
use crate::span::LIFE_MIN;
use crate::{json, jwt};
use serde_json::{Map, Value, json};

/// Largest body, in bytes.
pub(crate) const BODY_MAX_BYTES: usize = 32 * 1024;

/// Largest assertion, in bytes.
const ASSERTION_MAX_BYTES: usize = 16_384;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What SDKs send in `anthropic-beta`; both or none.
const BETA_FLAGS: [&str; 2] = ["oauth-2025-04-20", "oidc-federation-2026-04-01"];

const FIELDS: [&str; 6] =
    ["grant_type", "assertion", "federation_rule_id", "organization_id", "service_account_id", "workspace_id"];

/// Why a request gets no token.
enum Refusal {
    /// The request itself is wrong, which the client is told.
    Malformed { status: u16, reason: &'static str, message: String },
    /// The assertion does not match, which the client is not told more about.
    Grant(&'static str),
    /// A one-time assertion came again.
    Replay,
}

/// Answers one token request.
pub(crate) fn exchange(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let mut state = sandbox.state();
    state.counts.asked += 1;
    let fault = state.faults.take(At::Token);
    let mut note = Note::default();
    let fields = well_formed(asked);
    let assertion = fields.as_ref().ok().map(|fields| fields.assertion.clone()).unwrap_or_default();
    let granted = fields.and_then(|fields| matched(sandbox, &mut state, &fields, &mut note));
    let kept = fault.is_none_or(|armed| armed.fault == crate::fault::Fault::Slow);
    let answer = match granted {
        Ok(life_s) if kept => {
            state.counts.exchanges += 1;
            let (token, print) = state.mint(life_s)?;
            note.token = Some(print);
            success(&token, life_s)
        }
        Ok(life_s) => success(&token()?, life_s),
        Err(refusal) => {
            state.counts.refused += u64::from(kept);
            state.counts.replays += u64::from(matches!(refusal, Refusal::Replay));
            refuse(asked, &refusal, state.refusals)
        }
    };
    let answer = Answer { note: Note { reason: answer.note.reason, ..note }, ..answer };
    let Some(armed) = fault else { return Ok(answer) };
    let good = token_response(&token()?, state.rule.life_s);
    Ok(spoil(armed, asked, answer, Sample { good, secret: &assertion, base_url: &sandbox.base_url }))
}

fn token_response(token: &str, life_s: u64) -> Value {
    json!({"access_token": token, "token_type": "Bearer", "expires_in": life_s, "scope": "workspace:developer"})
}

fn success(token: &str, life_s: u64) -> Answer {
    // RFC 6749, section 5.1.
    Answer::json(200, &token_response(token, life_s)).with("cache-control", "no-store")
}

struct Fields {
    assertion: String,
    rule: String,
    organization: String,
    service_account: Option<String>,
    workspace: Option<String>,
}

fn malformed(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::Malformed { status: 400, reason, message: message.into() }
}

fn well_formed(asked: &Asked) -> Result<Fields, Refusal> {
    if asked.method != hyper::Method::POST {
        return Err(Refusal::Malformed { status: 405, reason: "method", message: "the method is not POST".into() });
    }
    if asked.headers.contains_key("authorization") || asked.headers.contains_key("x-api-key") {
        let message = "the assertion is the only credential of this request; leave authorization and x-api-key out";
        return Err(malformed("credential_header", message));
    }
    if !asked.is_of_type("application/json") {
        return Err(malformed("content_type", "content-type is not application/json"));
    }
    if asked.headers.contains_key("anthropic-beta") {
        let flags = asked.header("anthropic-beta").unwrap_or_default();
        let has = |flag: &str| flags.split(',').any(|sent| sent.trim() == flag);
        if !BETA_FLAGS.iter().all(|flag| has(flag)) {
            return Err(malformed("beta", format!("anthropic-beta lacks one of {}", BETA_FLAGS.join(", "))));
        }
    }
    let Some(body) = &asked.body else {
        let message = format!("the body is larger than {BODY_MAX_BYTES} bytes");
        return Err(Refusal::Malformed { status: 413, reason: "body_too_large", message });
    };
    let mut fields = json::object(body).map_err(|e| malformed("not_json", e))?;
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(malformed("unknown_field", format!("{}: no such field", shown(name))));
    }
    let grant_type = required(&mut fields, "grant_type")?;
    if grant_type != GRANT_TYPE {
        return Err(malformed("grant_type", format!("grant_type is not {GRANT_TYPE}")));
    }
    let assertion = required(&mut fields, "assertion")?;
    if assertion.len() > ASSERTION_MAX_BYTES {
        let message = format!("assertion is longer than {ASSERTION_MAX_BYTES} bytes");
        return Err(malformed("assertion_too_large", message));
    }
    let rule = required(&mut fields, "federation_rule_id")?;
    if !is_tagged(&rule, "fdrl_") {
        return Err(malformed("rule_malformed", "federation_rule_id is not a well-formed fdrl_ tagged ID"));
    }
    let organization = required(&mut fields, "organization_id")?;
    if !is_uuid(&organization) {
        return Err(malformed("organization_malformed", "organization_id is not a UUID"));
    }
    let service_account = optional(&mut fields, "service_account_id")?;
    if service_account.as_ref().is_some_and(|id| !is_tagged(id, "svac_")) {
        let message = "service_account_id is not a well-formed svac_ tagged ID";
        return Err(malformed("service_account_malformed", message));
    }
    let workspace = optional(&mut fields, "workspace_id")?;
    if workspace.as_ref().is_some_and(|id| id != "default" && !is_tagged(id, "wrkspc_")) {
        let message = "workspace_id is neither a well-formed wrkspc_ tagged ID nor default";
        return Err(malformed("workspace_malformed", message));
    }
    Ok(Fields { assertion, rule, organization, service_account, workspace })
}

fn required(fields: &mut Map<String, Value>, name: &'static str) -> Result<String, Refusal> {
    optional(fields, name)?.ok_or_else(|| malformed("field_missing", format!("{name}: it is missing")))
}

fn optional(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Refusal> {
    take_text(fields, name).map_err(|message| malformed("field_malformed", message))
}

fn is_tagged(id: &str, tag: &str) -> bool {
    id.strip_prefix(tag).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_uuid(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Holds the assertion and the fields against the rule. Returns the life of the token, in seconds.
fn matched(sandbox: &Sandbox, state: &mut State, fields: &Fields, note: &mut Note) -> Result<u64, Refusal> {
    let assertion = jwt::parse(&fields.assertion).ok_or(Refusal::Grant("not_a_jwt"))?;
    note.assertion = Some(Seen::of(&assertion.claims));
    if fields.rule != sandbox.rule_id {
        return Err(Refusal::Grant("unknown_rule"));
    }
    if fields.organization != sandbox.organization_id {
        return Err(Refusal::Grant("organization"));
    }
    if fields.service_account.as_ref().is_some_and(|id| *id != sandbox.service_account_id) {
        return Err(Refusal::Grant("service_account"));
    }
    let now_s = state.server_now_s();
    jwt::verify(&assertion, &state.key, &state.rule.issuer, now_s).map_err(Refusal::Grant)?;
    // From here on the id is spent, whatever else is wrong: a client must assume so.
    if assertion.claims.text("jti").is_some_and(|jti| !state.spend(jti)) {
        return Err(Refusal::Replay);
    }
    fits(&state.rule, &assertion.claims).map_err(Refusal::Grant)?;
    match fields.workspace.as_deref() {
        None if state.rule.workspace_required => {
            let message = "workspace_id_required: the rule is enabled for more than one workspace; name one";
            return Err(malformed("workspace_id_required", message));
        }
        Some(id) if id != "default" && id != sandbox.workspace_id => return Err(Refusal::Grant("workspace")),
        _ => {}
    }
    let expires_s = assertion.claims.time("exp").unwrap_or_default();
    Ok(life_s(state.rule.life_s, expires_s - now_s, sandbox.choices.fast_lives))
}

fn fits(rule: &Rule, claims: &jwt::Claims) -> Result<(), &'static str> {
    if !claims.audiences().contains(&rule.audience.as_str()) {
        return Err("audience");
    }
    let subject = claims.text("sub").unwrap_or_default();
    let fits = match rule.subject.strip_suffix('*') {
        Some(prefix) => subject.starts_with(prefix),
        None => subject == rule.subject,
    };
    if fits { Ok(()) } else { Err("match_subject") }
}

/// The rule's life, but at most twice what the assertion still lives, and at least a minute.
fn life_s(rule_s: u64, assertion_left_s: f64, fast_lives: bool) -> u64 {
    let least = if fast_lives { 1 } else { LIFE_MIN.as_secs() };
    // A float becomes the nearest number that fits.
    rule_s.min((2.0 * assertion_left_s) as u64).max(least)
}

fn refuse(asked: &Asked, refusal: &Refusal, generation: Refusals) -> Answer {
    let (status, reason, message) = match refusal {
        Refusal::Malformed { status, reason, message } => (*status, *reason, message.as_str()),
        Refusal::Grant(reason) => (400, *reason, "The assertion was not accepted."),
        Refusal::Replay => (401, "jti_reused", "Authentication failed"),
    };
    let answer = match (generation, refusal) {
        (Refusals::Rfc6749, Refusal::Malformed { .. }) => {
            Answer::oauth_error(status, "invalid_request", message, reason)
        }
        (Refusals::Rfc6749, _) => Answer::oauth_error(400, "invalid_grant", message, reason),
        (_, Refusal::Malformed { status: 413, .. }) => {
            Answer::api_error(asked, 413, "request_too_large", message, reason)
        }
        (_, Refusal::Malformed { .. }) => Answer::api_error(asked, status, "invalid_request_error", message, reason),
        (Refusals::BadRequest, Refusal::Grant(_)) => Answer::api_error(asked, 400, "invalid_grant", message, reason),
        (_, Refusal::Grant(_) | Refusal::Replay) => {
            Answer::api_error(asked, 401, "authentication_error", "Authentication failed", reason)
        }
    };
    if status == 405 { answer.with("allow", "POST") } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_the_rule_s_but_at_most_twice_the_assertion_s_and_at_least_a_minute() {
        for (rule_s, left_s, fast, expected_s) in [
            (3600, 300.0, false, 600),
            (600, 3600.0, false, 600),
            (3600, 10.0, false, 60),
            (3600, -20.0, false, 60),
            (3600, -20.0, true, 1),
            (2, 300.0, true, 2),
            (3600, 2.0, true, 4),
            (60, 0.0, true, 1),
        ] {
            assert_eq!(life_s(rule_s, left_s, fast), expected_s, "{rule_s} {left_s} {fast}");
        }
    }

    #[test]
    fn ids_are_checked_by_shape() {
        assert!(is_tagged("fdrl_01Ab", "fdrl_") && is_uuid("01234567-89ab-CDEF-0123-456789abcdef"));
        for id in ["fdrl_", "fdrl-01", "FDRL_01", "fdrl_01 ", "fdrl_01_a", "svac_01", ""] {
            assert!(!is_tagged(id, "fdrl_"), "{id:?} passed");
        }
        for id in ["", "01234567-89ab-cdef-0123-456789abcde", "org_01", "01234567-89ab-cdef-0123-456789abcdeg"] {
            assert!(!is_uuid(id), "{id:?} passed");
        }
    }
}
