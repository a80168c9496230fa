//! The identity provider: discovery, keys, and the client credentials grant (RFC 6749, section 4.4).
//!
//! The client proves itself by `client_secret_basic` or `client_secret_post` exactly as RFC 6749, section 2.3.1, says: in
//! the header both parts are form-encoded first. The audience of a token is the one that was asked for, the issuer itself
//! when none was. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, Sample, spoil};
use crate::journal::{Note, Seen, shown};
use crate::jwt;
use crate::sandbox::Sandbox;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Parameters of the grant.
const PARAMETERS: [&str; 5] = ["grant_type", "client_id", "client_secret", "audience", "scope"];

/// The metadata of OpenID Connect Discovery 1.0, section 3.
pub(crate) fn discovery(sandbox: &Sandbox) -> Answer {
    let issuer = &sandbox.issuer;
    Answer::json(
        200,
        &json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/jwks"),
            "token_endpoint": format!("{issuer}/token"),
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "id_token_signing_alg_values_supported": [sandbox.choices.alg.name()],
        }),
    )
}

/// The public keys.
pub(crate) fn jwks(sandbox: &Sandbox) -> Answer {
    Answer::json(200, &sandbox.state().key.jwks())
}

/// Why a client gets no identity token.
struct Refusal {
    status: u16,
    error: &'static str,
    reason: &'static str,
    description: String,
}

fn refusal(status: u16, error: &'static str, reason: &'static str, description: impl Into<String>) -> Refusal {
    Refusal { status, error, reason, description: description.into() }
}

/// Answers one request for an identity token.
pub(crate) fn token(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let fault = sandbox.state().faults.take(At::Idp);
    let kept = fault.is_none_or(|armed| armed.fault == crate::fault::Fault::Slow);
    let life_s = sandbox.choices.assertion_life.as_secs();
    let response = |token: &str, scope: Option<&str>| {
        let mut body = json!({"access_token": token, "token_type": "Bearer", "expires_in": life_s});
        if let Some(scope) = scope {
            body["scope"] = scope.into();
        }
        body
    };
    let answer = match granted(sandbox, asked) {
        Ok(Wish { audience, scope }) => {
            let mut changes = Map::from_iter([("client_id".to_owned(), Value::from(sandbox.client_id.as_str()))]);
            changes.insert("scope".into(), scope.as_deref().map_or(Value::Null, Value::from));
            let token = sandbox.issue(&sandbox.client_id, audience.as_deref().unwrap_or(&sandbox.issuer), &changes)?;
            sandbox.state().counts.idp_tokens += u64::from(kept);
            let seen = jwt::parse(&token).map(|assertion| Seen::of(&assertion.claims));
            let note = Note { assertion: seen, ..Note::default() };
            Answer { note, ..Answer::json(200, &response(&token, scope.as_deref())) }
        }
        Err(Refusal { status, error, reason, description }) => {
            let answer = Answer::oauth_error(status, error, &description, reason);
            match status {
                // RFC 6749, section 5.2: a failed authentication names the scheme.
                401 => answer.with("www-authenticate", "Basic realm=\"keyward-sandbox\""),
                405 => answer.with("allow", "POST"),
                _ => answer,
            }
        }
    }
    .with("cache-control", "no-store");
    let Some(armed) = fault else { return Ok(answer) };
    let sample = Sample {
        good: response(&crate::sandbox::token()?, None),
        secret: &sandbox.client_secret,
        base_url: &sandbox.base_url,
    };
    Ok(spoil(armed, asked, answer, sample))
}

struct Wish {
    audience: Option<String>,
    scope: Option<String>,
}

fn granted(sandbox: &Sandbox, asked: &Asked) -> Result<Wish, Refusal> {
    let invalid = |reason, description: &str| refusal(400, "invalid_request", reason, description);
    if asked.method != hyper::Method::POST {
        return Err(refusal(405, "invalid_request", "method", "the method is not POST"));
    }
    if !asked.is_of_type("application/x-www-form-urlencoded") {
        return Err(invalid("content_type", "content-type is not application/x-www-form-urlencoded"));
    }
    let body = asked.body.as_deref().ok_or_else(|| refusal(413, "invalid_request", "body_too_large", "too large"))?;
    let mut parameters = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        if !PARAMETERS.contains(&name.as_ref()) {
            return Err(invalid("unknown_field", &format!("{}: no such parameter", shown(&name))));
        }
        if parameters.insert(name.into_owned(), value.into_owned().into()).is_some() {
            return Err(invalid("field_twice", "a parameter stands twice"));
        }
    }
    // RFC 6749, section 3.2: a parameter without a value counts as left out.
    let mut take = |name: &str| match parameters.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let in_body = (take("client_id"), take("client_secret"));
    let credentials = match (asked.headers.contains_key("authorization"), in_body) {
        (true, (_, Some(_))) => {
            return Err(invalid("two_methods", "the client proves itself in the header and in the body"));
        }
        (true, (id, None)) => {
            let (named, secret) = basic(asked.header("authorization").unwrap_or_default()).ok_or_else(|| {
                refusal(401, "invalid_client", "basic_malformed", "the authorization header is not Basic")
            })?;
            if id.is_some_and(|id| id != named) {
                return Err(invalid("two_clients", "client_id differs from the authorization header"));
            }
            (named, secret)
        }
        (false, (Some(id), Some(secret))) => (id, secret),
        (false, _) => return Err(refusal(401, "invalid_client", "client_missing", "the client did not prove itself")),
    };
    if credentials != (sandbox.client_id.clone(), sandbox.client_secret.clone()) {
        return Err(refusal(401, "invalid_client", "invalid_client", "no such client, or not its secret"));
    }
    match take("grant_type").as_deref() {
        None => return Err(invalid("field_missing", "grant_type is missing")),
        Some("client_credentials") => {}
        Some(_) => {
            let description = "grant_type is not client_credentials";
            return Err(refusal(400, "unsupported_grant_type", "grant_type", description));
        }
    }
    let scope = take("scope");
    // RFC 6749, section 3.3: names between single blanks.
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    if scope.as_deref().is_some_and(|scope| !scope.split(' ').all(is_name)) {
        return Err(refusal(400, "invalid_scope", "scope", "scope is not a list of names between single blanks"));
    }
    Ok(Wish { audience: take("audience"), scope })
}

/// Reads `Basic base64(form(id):form(secret))`.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| {
        let encoded = format!("v={part}");
        let mut pairs = form_urlencoded::parse(encoded.as_bytes());
        let (name, value) = pairs.next()?;
        (name == "v" && pairs.next().is_none()).then(|| value.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_of_a_basic_header_are_form_encoded() {
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(basic(&header("a%3Ab:c+d%2Be%25")), pair("a:b", "c d+e%"));
        // Sent raw, the first colon parts them and the blank and the plus are lost.
        assert_eq!(basic(&header("a:b:c+d")), pair("a", "b:c d"));
        assert_eq!(basic(&header("a:b&v=c")), None);
        for bad in ["", "Basic", "Basic !", "Bearer YTpi", &header("a")] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
