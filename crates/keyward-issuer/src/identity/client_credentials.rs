//! `oauth-client-credentials`: an assertion from an identity provider, by the client credentials grant (RFC 6749 section 4.4).
//!
//! The client says who it is by Basic authentication or in the form (section 2.3.1). The provider must give a JWT as access
//! token, or an identity token beside an access token of another form. Neither the client's secret nor the answer is ever
//! shown.

use super::{Reading, Source};
use crate::answer::{Granted, Refusal};
use crate::http::{self, Answer};
use crate::json;
use crate::jwt::Assertion;
use crate::program;
use crate::{field, secret_field};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use keyward_core::{Failure, Identity, IssueError, KindRole, KindSpec, Order, Shape, Usual, check_url};
use keyward_diag::{Code, Fault};
use reqwest::header::{self, HeaderMap, HeaderValue};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Identity source `oauth-client-credentials`.
pub(super) struct ClientCredentials;

const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";

static SPEC: KindSpec = KindSpec {
    kind: "oauth-client-credentials",
    role: KindRole::Identity,
    about: "an identity provider that gives JWTs to a client with a secret",
    fields: &[
        field("token_url", Shape::Url, true, "token endpoint of the identity provider"),
        field("client_id", Shape::Text, true, "who the client is"),
        secret_field("client_secret", true, "its secret, as \"secret:NAME\""),
        field(
            "auth",
            Shape::OneOf(&[BASIC, POST]),
            false,
            "how the client proves itself, client_secret_basic when left out",
        ),
        field("audience", Shape::Text, false, "for whom the assertion is asked"),
        field("scope", Shape::Text, false, "scope that is asked for, words with spaces between them"),
        field("timeout", Shape::Duration, false, "how long it may take, 30s when left out, at most 2m"),
    ],
    usual: Usual::NONE,
};

impl Source for ClientCredentials {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn read<'a>(&'a self, identity: &'a Identity, order: &'a Order) -> Reading<'a> {
        Box::pin(ask(identity, order))
    }
}

async fn ask(identity: &Identity, order: &Order) -> Result<Assertion, IssueError> {
    let url = check_url(identity.settings.text("token_url").unwrap_or_default())
        .map_err(|e| IssueError::refused(Code::ProfileInvalid, format!("`issuer.identity.token_url`: {e}")))?;
    let reference = identity.settings.secret("client_secret").ok_or_else(|| {
        IssueError::refused(Code::ProfileInvalid, "`issuer.identity.client_secret` names no stored secret")
    })?;
    let secret = program::secret(&order.secrets, &reference)?;
    // EXPOSE: the profile gives this secret to this endpoint.
    let request = secret.expose(|bytes| std::str::from_utf8(bytes).ok().map(|secret| request(identity, secret)));
    let (headers, body) =
        request.ok_or_else(|| IssueError::refused(Code::SecretInvalid, format!("`{}` is not text", reference.0)))?;
    let deadline = Instant::now() + identity.settings.duration("timeout").unwrap_or(TIMEOUT).min(TIMEOUT_MAX);
    let answer = http::post(&url, headers, body, deadline).await;
    let answer = answer.map_err(|trouble| IssueError::passing(Code::IdentityFailed, trouble.cause()))?;
    // EXPOSE: an answer that quotes the secret, in one of the forms in which it was sent, is not shown.
    secret.expose(|bytes| {
        let client = identity.settings.text("client_id").unwrap_or_default();
        let basic = basic(client, std::str::from_utf8(bytes).unwrap_or_default());
        read(&answer, &[bytes, in_form(bytes).as_bytes(), basic.as_bytes()])
    })
}

/// Headers and form of the request.
fn request(identity: &Identity, secret: &str) -> (HeaderMap, Zeroizing<Vec<u8>>) {
    let client = identity.settings.text("client_id").unwrap_or_default();
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    let mut form = Serializer::new(String::with_capacity(1024 + 3 * secret.len()));
    form.append_pair("grant_type", "client_credentials");
    for name in ["audience", "scope"] {
        if let Some(text) = identity.settings.text(name) {
            form.append_pair(name, text);
        }
    }
    if identity.settings.text("auth") == Some(POST) {
        form.append_pair("client_id", client).append_pair("client_secret", secret);
    } else {
        let value = Bytes::from_owner(Zeroizing::new(format!("Basic {}", *basic(client, secret)).into_bytes()));
        if let Ok(mut value) = HeaderValue::from_maybe_shared(value) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }
    (headers, Zeroizing::new(form.finish().into_bytes()))
}

/// A text as it stands in a form.
fn in_form(text: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text).collect())
}

/// The content of a Basic header: both parts are encoded as in a form before they are joined (RFC 6749 section 2.3.1).
fn basic(client: &str, secret: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{}:{}", *in_form(client.as_bytes()), *in_form(secret.as_bytes())));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

fn read(answer: &Answer, sent: &[&[u8]]) -> Result<Assertion, IssueError> {
    let granted = answer.body.as_ref().map(|body| Granted::read(body));
    let tokens = granted.iter().flatten().flat_map(Granted::tokens);
    let secrets: Vec<&[u8]> = sent.iter().copied().chain(tokens).collect();
    let id = answer.request_id(&secrets).map(|id| format!("the identity provider calls the request {id}"));
    let error = |code: Code, failure: Failure, causes: Vec<String>| IssueError {
        fault: causes.into_iter().chain(id.clone()).fold(Fault::new(code), Fault::cause),
        failure,
    };
    let passing = Failure::Passing(answer.retry_after);
    let status = answer.status;
    match status {
        200 => {
            let granted =
                granted.as_ref().map_err(|t| error(Code::IdentityFailed, passing, vec![t.cause().to_owned()]))?;
            let granted = granted.as_ref().map_err(|what| {
                error(Code::IdentityInvalid, passing, vec![format!("the answer of the identity provider is {what}")])
            })?;
            let assertion = |token| json::text(token).map(|t| Assertion::read(t.as_bytes()));
            match (assertion(granted.access_token.as_ref()), assertion(granted.id_token.as_ref())) {
                (Some(Ok(assertion)), _) | (_, Some(Ok(assertion))) => Ok(assertion),
                (Some(Err(what)), _) | (None, Some(Err(what))) => Err(error(
                    Code::IdentityInvalid,
                    Failure::Refused,
                    vec![
                        format!("the token of the identity provider {what}"),
                        "it must give access tokens as JWTs: often by a registered API, named in `audience` or `scope`"
                            .to_owned(),
                    ],
                )),
                (None, None) => Err(error(
                    Code::IdentityInvalid,
                    passing,
                    vec!["the answer of the identity provider holds no `access_token`".to_owned()],
                )),
            }
        }
        408 | 425 | 429 | 500.. => {
            let wait = answer.retry_after.map(|d| format!(", and asks to be left alone for {} s", d.as_secs()));
            let said = format!("the identity provider answers {status}{}", wait.unwrap_or_default());
            Err(error(Code::IdentityFailed, passing, vec![said]))
        }
        300..400 => Err(error(
            Code::IdentityFailed,
            Failure::Refused,
            vec![format!(
                "the identity provider answers {status}: it redirects, and Keyward follows none; see `token_url`"
            )],
        )),
        400..500 => {
            let refusal = Refusal::read(&answer.body, sent);
            let said = format!("the identity provider refuses the client with {status} {}", refusal.line());
            let causes = [Some(said), look_at(status, &refusal).map(str::to_owned)];
            Err(error(Code::IdentityFailed, Failure::Refused, causes.into_iter().flatten().collect()))
        }
        _ => {
            let said = format!("the identity provider answers {status}, where 200 or a refusal must be");
            Err(error(Code::IdentityFailed, passing, vec![said]))
        }
    }
}

/// What to look at after a refusal (RFC 6749 section 5.2).
fn look_at(status: u16, refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.id.as_deref(), status) {
        (Some("invalid_client"), _) | (None, 401) => {
            "look at `client_id` and the stored secret, and at `auth`: some providers take one of the two ways alone"
        }
        (Some("invalid_scope"), _) => "look at `scope`: the provider does not give it to this client",
        (Some("unauthorized_client"), _) => {
            "the client may not use the client credentials grant: allow it at the provider"
        }
        (Some("unsupported_grant_type"), _) => "look at `token_url`: this endpoint does not know client credentials",
        (Some("invalid_target"), _) => "look at `audience`: the provider does not know it",
        (Some("invalid_request"), _) => "look at `audience` and `scope`: the provider may need one of them",
        (_, 404 | 405) => "look at `token_url`: there is no token endpoint",
        (_, 403) => "look at the rights of the client at the provider, and at `audience`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
