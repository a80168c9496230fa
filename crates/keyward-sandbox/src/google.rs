//! Google's token endpoint (RFC 7523 and the refresh grant) and the metadata server.
//!
//! A service account is checked by the key that the switch `google-key` made: signature, `iss`, `aud`, `scope`, and a life of
//! an hour at most. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, struck};
use crate::journal::Seen;
use crate::jwt;
use crate::random_hex;
use crate::sandbox::{GOOGLE_CLIENT, GOOGLE_EMAIL, GOOGLE_PROJECT, Realm, Sandbox};
use hyper::Method;
use serde_json::json;
use std::collections::BTreeMap;

const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const FIELDS: [&str; 6] = ["grant_type", "assertion", "client_id", "client_secret", "refresh_token", "scope"];
const GOOGLE_URL: &str = "https://oauth2.googleapis.com/token";
const FLAVOUR: &str = "metadata-flavor";

/// Answers one request at the token endpoint.
pub(crate) fn token(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let form = asked.form(&FIELDS);
    let field = |name: &str| form.as_ref().ok().and_then(|form| form.get(name)).map_or("", String::as_str);
    let secret = [field("assertion"), field("refresh_token")].into_iter().find(|text| !text.is_empty());
    struck(sandbox, asked, At::Google, secret.unwrap_or_default(), |kept| {
        let refused = |error: &str, reason: &'static str| {
            let status = if error == "invalid_client" { 401 } else { 400 };
            Answer::oauth_error(status, error, "the sandbox does not take it", reason)
        };
        let form = match &form {
            Ok(form) => form,
            Err(reason) => return Ok(refused("invalid_request", reason)),
        };
        let checked = match form.get("grant_type").map(String::as_str) {
            Some(JWT_GRANT) => assertion(sandbox, form),
            Some("refresh_token") => refresh(sandbox, form),
            _ => Err(("unsupported_grant_type", "grant_type")),
        };
        let mut answer = match checked {
            Ok(()) => mint(sandbox, kept)?,
            Err((error, reason)) => refused(error, reason),
        };
        answer.note.assertion = jwt::parse(field("assertion")).map(|assertion| Seen::of(&assertion.claims));
        Ok(answer.with("cache-control", "no-store"))
    })
}

/// A token; one whose answer will be spoilt never lives.
fn mint(sandbox: &Sandbox, kept: bool) -> Result<Answer, String> {
    let token = format!("ya29.{}", random_hex(32)?);
    let mut state = sandbox.state();
    let life_s = state.rule.life_s;
    let print = kept.then(|| state.keep(Realm::Google, &token, life_s));
    state.counts.google_tokens += u64::from(kept);
    let mut answer = Answer::json(200, &json!({"access_token": token, "expires_in": life_s, "token_type": "Bearer"}));
    answer.note.token = print;
    Ok(answer)
}

type Checked = Result<(), (&'static str, &'static str)>;

fn assertion(sandbox: &Sandbox, form: &BTreeMap<String, String>) -> Checked {
    let grant = |reason| ("invalid_grant", reason);
    let text = form.get("assertion").ok_or(("invalid_request", "field_missing"))?;
    let assertion = jwt::parse(text).ok_or(grant("not_a_jwt"))?;
    let state = sandbox.state();
    let key = state.google_key.as_ref().ok_or(grant("no_google_key"))?;
    jwt::check_signature(&assertion, key).map_err(grant)?;
    jwt::check_times(&assertion.claims, state.server_now_s()).map_err(grant)?;
    if assertion.claims.text("iss") != Some(GOOGLE_EMAIL) {
        return Err(grant("issuer"));
    }
    // Google's own library names the place of Google, wherever the key sends it.
    let here = format!("{}/google/token", sandbox.base_url);
    if ![[here.as_str()], [GOOGLE_URL]].iter().any(|known| assertion.claims.audiences() == known) {
        return Err(grant("audience"));
    }
    match assertion.claims.text("scope") {
        Some(scope) if scope.split(' ').all(|word| word.starts_with("https://www.googleapis.com/auth/")) => Ok(()),
        _ => Err(("invalid_scope", "scope")),
    }
}

fn refresh(sandbox: &Sandbox, form: &BTreeMap<String, String>) -> Checked {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    if field("client_id") != GOOGLE_CLIENT || field("client_secret") != sandbox.google_secret {
        return Err(("invalid_client", "invalid_client"));
    }
    if field("refresh_token") == sandbox.google_refresh { Ok(()) } else { Err(("invalid_grant", "refresh_token")) }
}

/// Answers one request at the metadata server.
pub(crate) fn metadata(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let answer = struck(sandbox, asked, At::Google, "", |kept| {
        if asked.header(FLAVOUR) != Some("Google") || asked.headers.contains_key("x-forwarded-for") {
            return Ok(
                Answer::text(403, "text/html", "Missing Metadata-Flavor:Google header.".into()).because("flavour")
            );
        }
        if asked.method != Method::GET {
            return Ok(Answer::text(405, "text/html", "method".into()).because("method"));
        }
        let text = |text: &str| Ok(Answer::text(200, "application/text", text.into()));
        match asked.path.strip_prefix("/computeMetadata/v1/").unwrap_or_default() {
            "instance/service-accounts/default/token" => mint(sandbox, kept),
            "instance/service-accounts/default/email" => text(GOOGLE_EMAIL),
            "project/project-id" => text(GOOGLE_PROJECT),
            _ => Ok(Answer::text(404, "text/html", "no such path".into()).because("path")),
        }
    })?;
    Ok(answer.with(FLAVOUR, "Google"))
}
