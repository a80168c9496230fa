//! The v2.0 token endpoint of Microsoft Entra: the client credentials grant with a secret.
//!
//! Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, struck};
use crate::random_hex;
use crate::sandbox::{Realm, Sandbox};
use serde_json::json;

const FIELDS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

/// What tokens are given for.
const SCOPES: [&str; 2] = ["https://cognitiveservices.azure.com/.default", "https://ai.azure.com/.default"];

/// Answers one request below `/entra/`.
pub(crate) fn token(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Entra, &sandbox.entra_secret, |kept| {
        if let Err((status, error, description, reason)) = granted(sandbox, asked) {
            return Ok(Answer::oauth_error(status, error, description, reason));
        }
        let token = format!("entra-{}", random_hex(32)?);
        let mut state = sandbox.state();
        let life_s = state.rule.life_s;
        let print = kept.then(|| state.keep(Realm::Entra, &token, life_s));
        state.counts.entra_tokens += u64::from(kept);
        let body =
            json!({"token_type": "Bearer", "expires_in": life_s, "ext_expires_in": life_s, "access_token": token});
        let mut answer = Answer::json(200, &body).with("cache-control", "no-store");
        answer.note.token = print;
        Ok(answer)
    })
}

type Refused = (u16, &'static str, &'static str, &'static str);

fn granted(sandbox: &Sandbox, asked: &Asked) -> Result<(), Refused> {
    let path = format!("/entra/{}/oauth2/v2.0/token", sandbox.entra_tenant);
    if asked.path != path {
        return Err((400, "invalid_request", "AADSTS90002: Tenant not found.", "tenant"));
    }
    let form = asked.form(&FIELDS).map_err(|reason| (400, "invalid_request", "AADSTS900144: malformed.", reason))?;
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    if field("grant_type") != "client_credentials" {
        return Err((400, "unsupported_grant_type", "AADSTS70003: unsupported grant.", "grant_type"));
    }
    if field("client_id") != sandbox.entra_client_id {
        return Err((400, "unauthorized_client", "AADSTS700016: Application was not found.", "client_id"));
    }
    if field("client_secret") != sandbox.entra_secret {
        return Err((401, "invalid_client", "AADSTS7000215: Invalid client secret provided.", "invalid_client"));
    }
    if !SCOPES.contains(&field("scope")) {
        return Err((400, "invalid_scope", "AADSTS70011: The provided value for scope is not valid.", "scope"));
    }
    Ok(())
}
