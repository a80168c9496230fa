//! A token endpoint for clients of Google, which take no token from a variable: they exchange what stands in a file
//! (`external_account`, AIP-4117) by RFC 8693, and get the run token itself back.
//!
//! Gives nothing that the client did not send, and no credential. Called by `forward` for one path of the gateway.

use crate::forward::{Reply, gather, local};
use crate::server::{Gateway, Peer};
use crate::{Authority, Denial, RunToken};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use keyward_diag::{Code, Fault};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Longest form, in bytes.
const FORM_MAX_BYTES: u64 = 16 * 1024;
/// After this the client asks again, in seconds; the run token lives as long as its lease does.
const ASK_AGAIN_S: u32 = 3600;

/// Answers an exchange: 200 with the token of the form, if it opens something at this moment; 400 as RFC 6749 section 5.2 has
/// it otherwise.
pub(crate) async fn exchange<A: Authority>(
    gateway: &Gateway<A>,
    peer: &Peer,
    parts: &Parts,
    body: Incoming,
) -> Reply<A> {
    match token(gateway, peer, parts, body).await {
        Ok(token) => reply(
            StatusCode::OK,
            &json!({
                "access_token": token,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": ASK_AGAIN_S,
            }),
        ),
        Err((fault, token)) => {
            let words = format!("{}: {} — {}", fault.code, fault.message, fault.help);
            let what = format!("POST {}", parts.uri.path());
            gateway.authority.denied(Denial { lease: None, token, fault, what });
            reply(StatusCode::BAD_REQUEST, &json!({"error": "invalid_grant", "error_description": words}))
        }
    }
}

async fn token<A: Authority>(
    gateway: &Gateway<A>,
    peer: &Peer,
    parts: &Parts,
    body: Incoming,
) -> Result<String, (Fault, Option<RunToken>)> {
    let early = |fault| (fault, None);
    local(&parts.headers, &peer.host).map_err(early)?;
    let form = gather(body, FORM_MAX_BYTES).await.map_err(early)?.into_iter().collect::<Vec<Bytes>>().concat();
    let mut fields = form_urlencoded::parse(&form);
    let sent = fields.find(|(name, _)| name == "subject_token").map_or(Cow::Borrowed(""), |(_, value)| value);
    let missing = if sent.is_empty() { "none was sent" } else { "what it sends in `subject_token` is no run token" };
    let token = RunToken::of(sent.as_bytes()).ok_or_else(|| early(Fault::new(Code::GatewayToken).cause(missing)))?;
    gateway.authority.admit(token).await.map_err(|fault| (fault, Some(token)))?;
    Ok(sent.into_owned())
}

fn reply<A: Authority>(status: StatusCode, body: &Value) -> Reply<A> {
    let mut reply = Response::new(crate::body::Answer::Ours(Some(Bytes::from(body.to_string()))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
