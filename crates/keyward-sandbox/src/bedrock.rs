//! Bedrock's runtime: invoke and converse, whole and as event streams, signed with Signature Version 4.
//!
//! Takes only keys of this sandbox, with their session. As at AWS, what is wrong with a signature or with keys is 403, and
//! never 401. Called by [`crate::serve`].

use crate::answer::{Answer, Asked, Body};
use crate::claude::{self, Form};
use crate::fault::{At, struck};
use crate::sandbox::Sandbox;
use crate::show::fingerprint;
use crate::sigv4::{self, decode};
use crate::{eventstream, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// The only region.
pub(crate) const REGION: &str = "us-east-1";

/// Version of the bodies of Anthropic's models.
const VERSION: &str = "bedrock-2023-05-31";

/// Answers one request below `/model/`.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Bedrock, "", |kept| {
        let answer = match signer(sandbox, asked, "bedrock") {
            Ok(print) => {
                let mut answer = answer(sandbox, asked, &print)?;
                sandbox.state().counts.messages += u64::from(kept && answer.status == 200);
                answer.note.token = Some(print);
                answer
            }
            Err(reason) => {
                sandbox.state().counts.unauthorized += u64::from(kept);
                let (name, message) = refusal(reason);
                Answer::aws_error(403, name, message, reason)
            }
        };
        Ok(answer.with("x-amzn-requestid", asked.request_id.clone()))
    })
}

/// Fingerprint of the session of the keys that signed for a service. Fails with the reason for the journal.
pub(crate) fn signer(sandbox: &Sandbox, asked: &Asked, service: &str) -> Result<String, &'static str> {
    let signed = sigv4::parse(&asked.headers)?;
    let (keys, now_s) = {
        let state = sandbox.state();
        (state.aws(signed.id).cloned().ok_or("unknown_key")?, state.server_now_s())
    };
    match asked.header("x-amz-security-token") {
        None => return Err("session_missing"),
        Some(session) if session != keys.session => return Err("session"),
        Some(_) => {}
    }
    let body = asked.body.as_deref().ok_or("body_too_large")?;
    let (method, path, query) = (asked.method.as_str(), asked.path.as_str(), asked.query.as_str());
    let request = sigv4::Request { method, path, query, headers: &asked.headers, body };
    sigv4::verify(&request, &signed, &keys.secret, (REGION, service), now_s)?;
    if keys.is_over() { Err("keys_over") } else { Ok(fingerprint(keys.session.as_bytes())) }
}

fn refusal(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "no_credential" | "not_sigv4" => ("MissingAuthenticationTokenException", "Missing Authentication Token"),
        "unknown_key" | "session" | "session_missing" => {
            ("UnrecognizedClientException", "The security token included in the request is invalid.")
        }
        "keys_over" => ("ExpiredTokenException", "The security token included in the request is expired"),
        "clock_skew" => ("InvalidSignatureException", "Signature expired or not yet current"),
        "authorization_malformed" | "scope_malformed" | "date_missing" | "date_malformed" => {
            ("IncompleteSignatureException", "The request signature is not complete")
        }
        _ => (
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        ),
    }
}

fn answer(sandbox: &Sandbox, asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::aws_error(400, "ValidationException", message, reason);
    let rest = asked.path.strip_prefix("/model/").unwrap_or_default();
    let Some((model, verb)) = rest.split_once('/').filter(|(model, _)| !model.is_empty()) else {
        return Ok(Answer::aws_error(404, "UnknownOperationException", "no such path", "path"));
    };
    let model = String::from_utf8_lossy(&decode(model)).into_owned();
    if asked.method != Method::POST {
        return Ok(Answer::aws_error(405, "UnknownOperationException", "the method is wrong", "method"));
    }
    // Left out it means the same, and some SDKs leave it out.
    if asked.headers.contains_key("content-type") && !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let body = asked.body.as_deref().unwrap_or_default();
    let text = format!("token {print}");
    match verb {
        "invoke" | "invoke-with-response-stream" => {
            let question = match claude::question(sandbox, body, Form::InPath(VERSION), &model, true) {
                Ok(question) if question.is_stream => {
                    return Ok(wrong("stream_field", "stream: Extra inputs are not permitted"));
                }
                Ok(question) => question,
                Err((reason, message)) => return Ok(wrong(reason, &message)),
            };
            if verb == "invoke" {
                return question.whole(&text);
            }
            let events = question.events(&text)?.into_iter().map(|(after, event)| {
                let payload = json!({"bytes": STANDARD.encode(event.to_string()), "p": "abc"});
                (after, eventstream::event("chunk", &payload.to_string()))
            });
            Ok(frames(events.collect()).with("x-amzn-bedrock-content-type", "application/json"))
        }
        "converse" | "converse-stream" => {
            let fields = match json::object(body) {
                Ok(fields) => fields,
                Err(e) => return Ok(wrong("not_json", &e)),
            };
            let messages = fields.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
            let Some(messages) = messages.filter(|messages| messages.iter().all(is_message)) else {
                return Ok(wrong("field_missing", "messages: it is missing, or not of roles and blocks"));
            };
            let pace = claude::pace(sandbox, messages);
            if verb == "converse" {
                return Ok(claude::late(Answer::json(200, &conversed(&text)), pace));
            }
            Ok(converse_stream(&text, pace))
        }
        _ => Ok(Answer::aws_error(404, "UnknownOperationException", "no such path", "path")),
    }
}

/// Whether it is a message of converse: a role and an array of blocks.
fn is_message(message: &Value) -> bool {
    matches!(message["role"].as_str(), Some("user" | "assistant")) && message["content"].is_array()
}

fn conversed(text: &str) -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
        "metrics": {"latencyMs": 1},
    })
}

fn converse_stream(text: &str, pace: claude::Pace) -> Answer {
    let delta = |text: &str| {
        let payload = json!({"contentBlockIndex": 0, "delta": {"text": text}});
        eventstream::event("contentBlockDelta", &payload.to_string())
    };
    let now = |frame: Bytes| (Duration::ZERO, frame);
    let mut events = vec![now(eventstream::event("messageStart", &json!({"role": "assistant"}).to_string()))];
    events.extend((0..pace.beats).map(|_| (pace.every, delta("."))));
    let usage = json!({"inputTokens": 1, "outputTokens": 2, "totalTokens": 3});
    let (first, rest) = claude::halves(text);
    events.extend([delta(first), delta(rest)].map(now));
    for (name, payload) in [
        ("contentBlockStop", json!({"contentBlockIndex": 0})),
        ("messageStop", json!({"stopReason": "end_turn"})),
        ("metadata", json!({"usage": usage, "metrics": {"latencyMs": 1}})),
    ] {
        events.push(now(eventstream::event(name, &payload.to_string())));
    }
    frames(events)
}

fn frames(pieces: Vec<(Duration, Bytes)>) -> Answer {
    let answer = Answer::text(200, "application/vnd.amazon.eventstream", String::new());
    Answer { body: Body::Pieces(pieces), ..answer }
}
