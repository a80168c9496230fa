//! `anthropic-federation`: an identity token is exchanged for a short-lived Anthropic token.
//!
//! The exchange is the JWT bearer grant (RFC 7523) with a JSON body, as the reference of workload identity federation at
//! platform.claude.com describes it. An assertion with a `jti` is presented once: that it will be is recorded before the
//! first byte is sent, and the same one is never sent again, whatever became of the answer. Never sends an assertion to
//! another host than the profile's, never follows a redirect, and never shows an assertion or a token.

use crate::answer::{Granted, Refusal};
use crate::explain::{self, Refused, ago};
use crate::field;
use crate::http::{self, Answer, Trouble};
use crate::identity::{self, Source};
use crate::jwt::Assertion;
use crate::oauth;
use jiff::Timestamp;
use keyward_core::{
    Credential, Endpoint, Failure, Identity, IssueError, Issuer, Issuing, KindRole, KindSpec, Looking, Order, Profile,
    Revoking, Shape, Usual, Wall, check_url,
};
use keyward_diag::{Code, Fault, plain};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Issuer `anthropic-federation`.
pub(crate) struct Federation;

const BASE_URL: &str = "https://api.anthropic.com";
const PATH: &str = "/v1/oauth/token";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The second flag routes the request to federation.
const BETA: &str = "oauth-2025-04-20,oidc-federation-2026-04-01";

const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// How often a source is read while another assertion is waited for.
const POLL: Duration = Duration::from_millis(250);

/// A presented assertion is remembered for so long beyond its end, so that no clock can make it fresh again.
const REMEMBER: Duration = Duration::from_secs(3600);

/// No assertion is remembered for longer than three days from its presentation, whatever it says. The server takes none that
/// lives for more than 176,400 s (`max_jwt_lifetime_seconds` of an issuer).
const REMEMBER_MAX: Duration = Duration::from_secs(3 * 86_400);

/// Longest claim or request id that is recorded, in characters.
const FACT_MAX: usize = 200;

const HELP: &str = "see whether `base_url` is the API itself and no proxy or login page stands between, then try again";

static SPEC: KindSpec = KindSpec {
    kind: "anthropic-federation",
    role: KindRole::Issuer,
    about: "an identity token, exchanged for a short-lived Anthropic token",
    fields: &[
        field("base_url", Shape::Url, false, "the API, https://api.anthropic.com when left out"),
        field("federation_rule_id", Shape::Tagged("fdrl_", &[]), true, "the rule that the assertion must match"),
        field("organization_id", Shape::Uuid, true, "the organization that the rule belongs to"),
        field(
            "service_account_id",
            Shape::Tagged("svac_", &[]),
            false,
            "the service account that the rule must lead to",
        ),
        field(
            "workspace_id",
            Shape::Tagged("wrkspc_", &["default"]),
            false,
            "the workspace, needed where the rule holds for several",
        ),
        field("identity", Shape::Identity, true, "where the assertion comes from"),
        oauth::REVOCATION_FIELD,
        field("timeout", Shape::Duration, false, "how long the exchange may take, 30s when left out, at most 2m"),
    ],
    usual: Usual {
        variables: &["ANTHROPIC_AUTH_TOKEN"],
        sdk_files: true,
        endpoint: Some(Endpoint { field: "base_url", variable: "ANTHROPIC_BASE_URL", default: BASE_URL }),
        provider: Some("anthropic"),
    },
};

impl Issuer for Federation {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(exchange(order))
    }

    fn look<'a>(&'a self, order: &'a Order) -> Looking<'a> {
        match identity::of(order) {
            Ok((source, identity)) => source.look(identity),
            Err(_) => Box::pin(std::future::ready(None)),
        }
    }

    /// Anthropic names no place where these tokens are taken back; a gateway of one's own may.
    fn revoke<'a>(&'a self, order: &'a Order, credential: &'a Credential) -> Revoking<'a> {
        Box::pin(oauth::revoke(order, credential, &[]))
    }
}

/// The body of the request. Fields that the profile leaves out are left out, since an empty one is an error.
#[derive(Serialize)]
struct Request<'a> {
    grant_type: &'static str,
    assertion: &'a str,
    federation_rule_id: &'a str,
    organization_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<&'a str>,
}

async fn exchange(order: &Order) -> Result<Credential, IssueError> {
    let profile = &order.profile;
    let url = check_url(&format!("{}{PATH}", profile.endpoint().unwrap_or(BASE_URL)))
        .map_err(|e| IssueError::refused(Code::ProfileInvalid, format!("`issuer.base_url`: {e}")))?;
    let timeout = profile.settings.duration("timeout").unwrap_or(TIMEOUT).min(TIMEOUT_MAX);
    let (source, identity) = identity::of(order)?;
    let patience = source.patience();
    let mut assertion = source.read(identity, order).await?;
    let mut waited = None;
    while !present(order, &assertion).await? {
        let until = *waited.get_or_insert_with(|| Instant::now() + patience);
        assertion = another(source, identity, order, &assertion, until).await?;
    }
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static(BETA)),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    let answer = match http::post(&url, headers, body(profile, &assertion)?, Instant::now() + timeout).await {
        Ok(answer) => answer,
        Err(trouble) => return Err(unanswered(order, &assertion, &trouble).await),
    };
    let host = plain(url.host_str().unwrap_or_default(), 100);
    read(profile, &host, &assertion, &answer)
}

fn body(profile: &Profile, assertion: &Assertion) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    // EXPOSE: the assertion is what the request is for. The space is enough for all fields, so that nothing is moved.
    assertion.expose(|assertion| {
        let request = Request {
            grant_type: GRANT,
            assertion,
            federation_rule_id: profile.settings.text("federation_rule_id").unwrap_or_default(),
            organization_id: profile.settings.text("organization_id").unwrap_or_default(),
            service_account_id: profile.settings.text("service_account_id"),
            workspace_id: profile.settings.text("workspace_id"),
        };
        let mut body = Zeroizing::new(Vec::with_capacity(assertion.len() + 1024));
        serde_json::to_writer(&mut *body, &request)
            .map_err(|_| IssueError::refused(Code::Internal, "the request could not be written"))?;
        Ok(body)
    })
}

/// Records that an assertion is about to be presented, where it can be presented once; `false` when it was before.
async fn present(order: &Order, assertion: &Assertion) -> Result<bool, IssueError> {
    let Some(digest) = assertion.once() else { return Ok(true) };
    let now = Timestamp::now().as_second();
    let wall = |seconds: i64| Wall(seconds.saturating_mul(1_000_000));
    let end = wall(assertion.exp.map_or(now, |exp| exp.max(now)));
    let until = end.after(REMEMBER).min(wall(now).after(REMEMBER_MAX));
    let presented = order.once.present(digest, until).await;
    presented.map_err(|fault| IssueError { fault, failure: Failure::Passing(None) })
}

/// The error of an exchange that was not answered. An assertion that was certainly not sent can be presented later.
async fn unanswered(order: &Order, assertion: &Assertion, trouble: &Trouble) -> IssueError {
    let mut error = troubled(trouble);
    let Some(digest) = assertion.once() else { return error };
    match trouble {
        Trouble::Unreachable(_) => {
            if let Err(fault) = order.once.withdraw(digest).await {
                error.fault = fault.causes.iter().fold(error.fault, |all, cause| all.cause(cause));
            }
        }
        Trouble::Broken(_) | Trouble::Slow(_) | Trouble::Invalid(_) => {
            let cause =
                "the assertion can be presented once, and the endpoint may have taken it: the next try needs another";
            error.fault = error.fault.cause(cause);
        }
    }
    error
}

/// Reads the source until it gives another assertion than `spent`, or the time is up.
async fn another(
    source: &dyn Source,
    identity: &Identity,
    order: &Order,
    spent: &Assertion,
    until: Instant,
) -> Result<Assertion, IssueError> {
    let mut last = None;
    while Instant::now() < until {
        tokio::time::sleep(POLL).await;
        match source.read(identity, order).await {
            Ok(assertion) if !assertion.same(spent) => return Ok(assertion),
            Ok(_) => last = None,
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        let sub = plain(spent.sub.as_deref().unwrap_or("nobody"), 200);
        let now = Timestamp::now().as_second();
        let issued = spent.iat.map_or_else(String::new, |iat| format!(", issued {}", ago(now.saturating_sub(iat))));
        let fault = Fault::new(Code::IdentitySpent)
            .cause(format!("the assertion for `{sub}`{issued}, has a `jti` and was presented before; nothing was sent"))
            .cause("Keyward waits until the identity provider has issued another one");
        IssueError { fault, failure: Failure::NoAssertion }
    }))
}

fn troubled(trouble: &Trouble) -> IssueError {
    match trouble {
        Trouble::Unreachable(cause) | Trouble::Broken(cause) => IssueError::passing(Code::IssuerUnreachable, cause),
        Trouble::Slow(cause) => IssueError::passing(Code::IssuerTimeout, cause),
        Trouble::Invalid(cause) => not_a_token(cause),
    }
}

fn not_a_token(cause: impl std::fmt::Display) -> IssueError {
    let mut error = IssueError::passing(Code::IssuerAnswer, cause);
    error.fault = error.fault.help(HELP);
    error
}

/// Reads the answer to an exchange.
fn read(profile: &Profile, host: &str, assertion: &Assertion, answer: &Answer) -> Result<Credential, IssueError> {
    let status = answer.status;
    // EXPOSE: a request id that quotes the assertion is not shown.
    let id = assertion.expose(|sent| answer.request_id(&[sent.as_bytes()]));
    let request = id.map(|id| format!(" to request {id}")).unwrap_or_default();
    let said = format!("{host} answers {status}{request}");
    match status {
        200 => {
            let identified = |error: IssueError, id: Option<&str>| match id {
                Some(id) => {
                    IssueError { fault: error.fault.cause(format!("it is the answer to request {id}")), ..error }
                }
                None => error,
            };
            let body = answer.body.as_ref().map_err(|trouble| identified(troubled(trouble), id))?;
            let granted = Granted::read(body)
                .map_err(|what| identified(not_a_token(format!("the answer of {host} is {what}")), id))?;
            let id = id.and(answer.request_id(&granted.tokens().collect::<Vec<_>>()));
            // EXPOSE: a scope that quotes the assertion is not kept.
            let token = assertion.expose(|sent| granted.credential(&[sent.as_bytes()]));
            let mut credential =
                token.map_err(|e| identified(not_a_token(format!("the answer of {host}: {e}")), id))?;
            credential.facts = facts(assertion, id);
            Ok(credential)
        }
        300..400 => {
            let mut error =
                IssueError::refused(Code::IssuerAnswer, format!("{said}: it redirects; Keyward follows none"));
            error.fault = error.fault.help("let `base_url` name the API itself");
            Err(error)
        }
        408 | 425 | 429 | 500.. => {
            let wait = answer.retry_after.map(|d| format!(", and asks to be left alone for {} s", d.as_secs()));
            let mut error =
                IssueError::passing(Code::IssuerBusy, format!("{said}{}", wait.as_deref().unwrap_or_default()));
            error.failure = Failure::Passing(answer.retry_after);
            if wait.is_none() {
                error.fault = error.fault.help("wait a moment, then try again");
            }
            Err(error)
        }
        400..500 => {
            // EXPOSE: an answer that quotes the assertion is not shown.
            let refusal = assertion.expose(|sent| Refusal::read(&answer.body, &[sent.as_bytes()]));
            let now = Timestamp::now().as_second();
            let fault = Fault::new(Code::IssuerRefused)
                .cause(format!("{said}: {}", refusal.line()))
                .cause(explain::claims(assertion, now));
            let refused = Refused { profile, host, assertion, status, refusal: &refusal, now, ahead_s: answer.ahead_s };
            let fault = explain::look_at(&refused).into_iter().fold(fault, Fault::cause);
            let help =
                format!("mend what the causes name, then try it alone with `keyward profile test {}`", profile.name);
            Err(IssueError { fault: fault.help(help), failure: Failure::Refused })
        }
        _ => Err(not_a_token(format!("{said}, where 200 or a refusal must be"))),
    }
}

/// What may be shown about an exchange.
fn facts(assertion: &Assertion, request_id: Option<&str>) -> BTreeMap<&'static str, String> {
    let audience = Some(assertion.aud.join(" ")).filter(|aud| !aud.is_empty());
    let all = [
        ("request_id", request_id),
        ("assertion_issuer", assertion.iss.as_deref()),
        ("assertion_subject", assertion.sub.as_deref()),
        ("assertion_audience", audience.as_deref()),
        ("assertion_id", assertion.once().map(|_| "one-time")),
    ];
    all.into_iter().filter_map(|(name, text)| Some((name, plain(text?, FACT_MAX)))).collect()
}

#[cfg(test)]
mod tests;
