//! Token and revocation endpoints of OAuth 2.0: a form goes there, a bearer token comes back.
//!
//! RFC 6749 sections 4.4, 5.1, 5.2 and 6, RFC 7523 section 2.1, RFC 7009. Never shows what was sent or given. Called by the
//! issuers of Google and Entra, and by the federation issuer.

use crate::answer::{Granted, Refusal};
use crate::http::{self, Answer, Trouble};
use form_urlencoded::Serializer;
use keyward_core::{Credential, Failure, FieldSpec, IssueError, Order, Revocation, Settings, Shape, check_url};
use keyward_diag::{Code, Fault, plain};
use reqwest::header::{self, HeaderMap, HeaderValue};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// Longest time that a revocation may take: who asked for it waits.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an exchange may take.
pub(crate) const TIMEOUT_FIELD: FieldSpec =
    crate::field("timeout", Shape::Duration, false, "how long it may take, 30s when left out, at most 2m");

/// Where tokens are revoked.
pub(crate) const REVOCATION_FIELD: FieldSpec = crate::field(
    "revocation_endpoint",
    Shape::Url,
    false,
    "where the issuer takes tokens back (RFC 7009); left out, they end by themselves",
);

/// When an exchange that begins at this moment must be over.
pub(crate) fn deadline(settings: &Settings) -> Instant {
    Instant::now() + settings.duration("timeout").unwrap_or(TIMEOUT).min(TIMEOUT_MAX)
}

/// A form, written where it is long enough for all, so that nothing is moved.
pub(crate) fn form(pairs: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let length: usize = pairs.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Serializer::new(String::with_capacity(length));
    form.extend_pairs(pairs);
    Zeroizing::new(form.finish().into_bytes())
}

/// Sends a form to an endpoint, once.
///
/// # Errors
/// [`Code::IssuerUnreachable`] and [`Code::IssuerTimeout`].
pub(crate) async fn post(url: &Url, form: Zeroizing<Vec<u8>>, deadline: Instant) -> Result<Answer, IssueError> {
    http::post(url, headers(), form, deadline).await.map_err(|trouble| troubled(&trouble))
}

/// The host of an endpoint, as it is shown.
pub(crate) fn host(url: &Url) -> String {
    plain(url.host_str().unwrap_or_default(), 100)
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
    ])
}

/// The error of a request that was not answered.
pub(crate) fn troubled(trouble: &Trouble) -> IssueError {
    let code = match trouble {
        Trouble::Unreachable(_) | Trouble::Broken(_) => Code::IssuerUnreachable,
        Trouble::Slow(_) => Code::IssuerTimeout,
        Trouble::Invalid(_) => Code::IssuerAnswer,
    };
    IssueError::passing(code, trouble.cause())
}

/// An answer that holds no credential.
pub(crate) fn not_a_credential(cause: impl std::fmt::Display) -> IssueError {
    let mut error = IssueError::passing(Code::IssuerAnswer, cause);
    error.fault = error.fault.help("see whether the endpoint that the cause names is the right one, then try again");
    error
}

/// The error of an answer other than 200, with what it says where that is safe to show.
pub(crate) fn refused(host: &str, answer: &Answer, said: &str, look_at: Option<&str>) -> IssueError {
    let status = answer.status;
    match status {
        300..400 => IssueError::refused(
            Code::IssuerAnswer,
            format!("{host} answers {status}: it redirects; Keyward follows none"),
        ),
        408 | 425 | 429 | 500.. => {
            let wait = answer.retry_after.map(|d| format!(", and asks to be left alone for {} s", d.as_secs()));
            let said = format!("{host} answers {status}{}", wait.unwrap_or_default());
            IssueError { failure: Failure::Passing(answer.retry_after), ..IssueError::passing(Code::IssuerBusy, said) }
        }
        400..500 => {
            let mut error = IssueError::refused(Code::IssuerRefused, format!("{host} answers {status}: {said}"));
            if let Some(look_at) = look_at {
                error.fault = error.fault.cause(look_at);
            }
            error
        }
        _ => not_a_credential(format!("{host} answers {status}, where 200 or a refusal must be")),
    }
}

/// Reads the answer of a token endpoint. `sent` are the secrets of the request, of which no answer that quotes one is shown;
/// `look_at` names what to look at after a refusal.
///
/// # Errors
/// Those of issuers: busy, refused, not a credential.
pub(crate) fn read(
    url: &Url,
    answer: &Answer,
    sent: &[&[u8]],
    look_at: fn(&Refusal) -> Option<&'static str>,
) -> Result<Credential, IssueError> {
    let host = &host(url);
    if answer.status != 200 {
        let refusal = Refusal::read(&answer.body, sent);
        return Err(refused(host, answer, &refusal.line(), look_at(&refusal)));
    }
    let body = answer.body.as_ref().map_err(troubled)?;
    let granted = Granted::read(body).map_err(|what| not_a_credential(format!("the answer of {host} is {what}")))?;
    granted.credential(sent).map_err(|e| not_a_credential(format!("the answer of {host}: {e}")))
}

/// Takes a token back at the endpoint that the profile names (RFC 7009 section 2.1), with the pairs by which the client says
/// who it is, if it has to. Without such an endpoint nothing is asked.
pub(crate) async fn revoke(order: &Order, credential: &Credential, client: &[(&str, &str)]) -> Revocation {
    let Some(url) = order.profile.settings.text("revocation_endpoint") else {
        return Revocation::impossible(credential);
    };
    let failed = |error: IssueError| Revocation::Failed(error.fault);
    let url = match check_url(url) {
        Ok(url) => url,
        Err(e) => {
            return failed(IssueError::refused(Code::ProfileInvalid, format!("`issuer.revocation_endpoint`: {e}")));
        }
    };
    // EXPOSE: the token is what the request is about.
    let form = credential.token.expose(|token| {
        let token = std::str::from_utf8(token).unwrap_or_default();
        let pairs: Vec<_> =
            [("token", token), ("token_type_hint", "access_token")].into_iter().chain(client.iter().copied()).collect();
        form(&pairs)
    });
    match post(&url, form, Instant::now() + REVOKE_TIMEOUT).await {
        // 200 also for a token that was over before (section 2.2).
        Ok(answer) if answer.status == 200 => Revocation::Done,
        Ok(answer) => {
            // EXPOSE: an answer that quotes the token is not shown.
            let refusal = credential.token.expose(|token| {
                let client = client.iter().map(|(_, value)| value.as_bytes());
                Refusal::read(&answer.body, &client.chain([token]).collect::<Vec<_>>())
            });
            failed(refused(&host(&url), &answer, &refusal.line(), None))
        }
        Err(error) => failed(error),
    }
}

/// A setting of a profile that is not right.
pub(crate) fn invalid(cause: impl std::fmt::Display) -> IssueError {
    IssueError { fault: Fault::new(Code::ProfileInvalid).cause(cause), failure: Failure::Refused }
}
