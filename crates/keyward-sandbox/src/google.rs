//! Google's token endpoint (RFC 7523 and the refresh grant), its security token service, the impersonation of a service account,
//! and the metadata server.
//!
//! A service account is checked by the key that the switch `google-key` made: signature, `iss`, `aud`, `scope`, and a life of
//! an hour at most. The identity token of the file is taken for the audience of the sandbox's own `external_account`. Called by
//! [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, struck};
use crate::journal::Seen;
use crate::json::object;
use crate::jwt;
use crate::random_hex;
use crate::sandbox::{AUDIENCE, GOOGLE_CLIENT, GOOGLE_EMAIL, GOOGLE_PROJECT, Realm, Sandbox};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const FIELDS: [&str; 6] = ["grant_type", "assertion", "client_id", "client_secret", "refresh_token", "scope"];
const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const EXCHANGE_FIELDS: [&str; 7] =
    ["grant_type", "audience", "scope", "requested_token_type", "subject_token", "subject_token_type", "options"];
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The provider in the pool of this sandbox.
const POOL: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/sandbox/providers/sandbox";

/// Longest life of an impersonation, in seconds.
const LIFETIME_MAX_S: u64 = 43_200;

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

/// The `external_account` of this sandbox, whose subject token is the identity token of the file.
pub(crate) fn external_account(base_url: &str, identity_token: &str) -> Value {
    json!({
        "type": "external_account",
        "audience": POOL,
        "subject_token_type": JWT_TYPE,
        "token_url": format!("{base_url}/google/sts"),
        "credential_source": {"file": identity_token, "format": {"type": "text"}},
        "service_account_impersonation_url":
            format!("{base_url}/google/iam/projects/-/serviceAccounts/{GOOGLE_EMAIL}:generateAccessToken"),
        "service_account_impersonation": {"token_lifetime_seconds": 3600},
        "quota_project_id": GOOGLE_PROJECT,
    })
}

/// Checks an identity token of this sandbox. Fails with the reason for the journal.
pub(crate) fn vouched(sandbox: &Sandbox, token: &str) -> Checking {
    let assertion = jwt::parse(token).ok_or("not_a_jwt")?;
    let state = sandbox.state();
    jwt::verify(&assertion, &state.key, &sandbox.issuer, state.server_now_s())?;
    if assertion.claims.audiences() == [AUDIENCE] { Ok(()) } else { Err("audience") }
}

type Checking = Result<(), &'static str>;

/// Answers one request at the security token service.
pub(crate) fn exchange(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let form = asked.form(&EXCHANGE_FIELDS);
    let subject = form.as_ref().ok().and_then(|form| form.get("subject_token")).map_or("", String::as_str);
    struck(sandbox, asked, At::Google, subject, |kept| {
        let refused = |error: &str, reason| Answer::oauth_error(400, error, "the sandbox does not take it", reason);
        let field = |name: &str| form.as_ref().ok().and_then(|form| form.get(name)).map(String::as_str);
        let is_scope = |scope: &str| scope.starts_with("https://www.googleapis.com/auth/");
        let mut answer = match &form {
            Err(reason) => refused("invalid_request", reason),
            Ok(_) if asked.headers.contains_key("authorization") => refused("invalid_client", "signed"),
            Ok(_) if field("grant_type") != Some(EXCHANGE_GRANT) => refused("unsupported_grant_type", "grant_type"),
            Ok(_) if field("audience") != Some(POOL) => refused("invalid_target", "audience"),
            Ok(_) if field("subject_token_type") != Some(JWT_TYPE) => refused("invalid_request", "subject_token_type"),
            Ok(_) if field("requested_token_type") != Some(ACCESS_TOKEN_TYPE) => {
                refused("invalid_request", "requested_token_type")
            }
            Ok(_) if !field("scope").is_some_and(is_scope) => refused("invalid_scope", "scope"),
            Ok(_) => match vouched(sandbox, subject) {
                Ok(()) => mint(sandbox, kept)?,
                Err(reason) => refused("invalid_grant", reason),
            },
        };
        answer.note.assertion = jwt::parse(subject).map(|assertion| Seen::of(&assertion.claims));
        Ok(answer.with("cache-control", "no-store"))
    })
}

/// Answers one request for an access token of the service account.
pub(crate) fn impersonate(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Google, asked.bearer().unwrap_or_default(), |kept| {
        let refused =
            |code, status, reason| Ok(Answer::google_error(code, status, "the sandbox does not take it", reason));
        let path = format!("/google/iam/projects/-/serviceAccounts/{GOOGLE_EMAIL}:generateAccessToken");
        if asked.method != Method::POST || asked.path != path {
            return refused(404, "NOT_FOUND", "path");
        }
        if !asked.bearer().is_some_and(|token| sandbox.state().is_live(Realm::Google, token)) {
            return refused(401, "UNAUTHENTICATED", "token");
        }
        if !asked.is_of_type("application/json") {
            return refused(400, "INVALID_ARGUMENT", "content_type");
        }
        let Ok(fields) = object(asked.body.as_deref().unwrap_or_default()) else {
            return refused(400, "INVALID_ARGUMENT", "not_json");
        };
        if fields.keys().any(|name| !["delegates", "scope", "lifetime"].contains(&name.as_str())) {
            return refused(400, "INVALID_ARGUMENT", "unknown_field");
        }
        let scopes = fields.get("scope").and_then(Value::as_array).filter(|scopes| !scopes.is_empty());
        if !scopes
            .is_some_and(|scopes| scopes.iter().all(|scope| scope.as_str().is_some_and(|s| s.starts_with("https://"))))
        {
            return refused(400, "INVALID_ARGUMENT", "scope");
        }
        let seconds =
            fields.get("lifetime").and_then(Value::as_str).and_then(|text| text.strip_suffix('s')?.parse().ok());
        if !seconds.is_some_and(|seconds: u64| (1..=LIFETIME_MAX_S).contains(&seconds)) {
            return refused(400, "INVALID_ARGUMENT", "lifetime");
        }
        let token = format!("ya29.sa.{}", random_hex(32)?);
        let mut state = sandbox.state();
        let life_s = state.rule.life_s;
        let print = kept.then(|| state.keep(Realm::Google, &token, life_s));
        state.counts.google_tokens += u64::from(kept);
        let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(life_s.cast_signed());
        let mut answer = Answer::json(200, &json!({"accessToken": token, "expireTime": ends.to_string()}));
        answer.note.token = print;
        Ok(answer)
    })
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
