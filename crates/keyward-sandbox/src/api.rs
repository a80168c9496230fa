//! The API behind the token: messages (JSON and SSE), token counting and models.
//!
//! Accepts only tokens that were minted here and still live, as `Authorization: Bearer`. The text of an answer names the
//! fingerprint of the token that was used, never the token. Called by [`crate::serve`].

use crate::answer::{Answer, Asked, Body};
use crate::fault::{At, Fault, Sample, spoil};
use crate::json;
use crate::random_hex;
use crate::sandbox::Sandbox;
use crate::show::fingerprint;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Largest body, in bytes; that of the Messages API.
pub(crate) const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// The model of the list, and of answers to requests that name none.
const MODEL: &str = "claude-sandbox-1";

/// Longest time that a message may ask to be answered in, in seconds.
const WAIT_MAX_S: u64 = 600;

/// Between two events while an answer is awaited.
const BEAT: Duration = Duration::from_millis(100);

/// Answers one request below `/v1/` other than a token request.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let fault = sandbox.state().faults.take(At::Messages);
    let kept = fault.is_none_or(|armed| armed.fault == Fault::Slow);
    let sent = bearer(asked);
    let live = sent.and_then(|token| if sandbox.state().is_live(token) { Ok(token) } else { Err("token_not_live") });
    let answer = match live {
        Ok(token) => {
            let print = fingerprint(token.as_bytes());
            let mut answer = authorized(asked, &print)?;
            if kept && answer.status == 200 && asked.path == "/v1/messages" {
                sandbox.state().counts.messages += 1;
            }
            answer.note.token = Some(print);
            answer
        }
        Err(reason) => {
            sandbox.state().counts.unauthorized += u64::from(kept);
            let message = match reason {
                "api_key" => "invalid x-api-key",
                "two_credentials" => "the request carries two different credentials",
                _ => "invalid bearer token",
            };
            let mut answer = Answer::api_error(asked, 401, "authentication_error", message, reason);
            answer.note.token = sent.ok().map(|token| fingerprint(token.as_bytes()));
            answer
        }
    };
    let Some(armed) = fault else { return Ok(answer) };
    // Whoever uses a spoilt answer as if it were right is found by its text.
    let good = message(MODEL, "spoilt")?;
    let secret = sent.unwrap_or_default();
    Ok(spoil(armed, asked, answer, Sample { good, secret, base_url: &sandbox.base_url }))
}

/// The token of the request. Fails with the reason for the journal.
fn bearer(asked: &Asked) -> Result<&str, &'static str> {
    let header = match asked.headers.get_all("authorization").iter().count() {
        0 if asked.headers.contains_key("x-api-key") => return Err("api_key"),
        0 => return Err("no_credential"),
        1 => asked.header("authorization").unwrap_or_default(),
        _ => return Err("two_credentials"),
    };
    let token = header.strip_prefix("Bearer ").filter(|token| !token.is_empty()).ok_or("not_bearer")?;
    // Claude Code sends what a helper gave in both header fields.
    if asked.headers.get_all("x-api-key").iter().any(|key| key.as_bytes() != token.as_bytes()) {
        return Err("two_credentials");
    }
    Ok(token)
}

fn authorized(asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::api_error(asked, 400, "invalid_request_error", message, reason);
    let (method, needs_limit) = match asked.path.as_str() {
        "/v1/models" => (Method::GET, false),
        "/v1/messages/count_tokens" => (Method::POST, false),
        "/v1/messages" => (Method::POST, true),
        _ => return Ok(Answer::api_error(asked, 404, "not_found_error", "no such path", "path")),
    };
    if asked.method != method {
        let answer = Answer::api_error(asked, 405, "invalid_request_error", "the method is wrong", "method");
        return Ok(answer.with("allow", method.as_str()));
    }
    if asked.header("anthropic-version").is_none_or(str::is_empty) {
        return Ok(wrong("version_missing", "anthropic-version: header is required"));
    }
    if method == Method::GET {
        return Ok(models());
    }
    if !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let Some(body) = &asked.body else {
        return Ok(Answer::api_error(asked, 413, "request_too_large", "the body is too large", "body_too_large"));
    };
    let fields = match json::object(body) {
        Ok(fields) => fields,
        Err(e) => return Ok(wrong("not_json", &e)),
    };
    let Some(model) = fields.get("model").and_then(Value::as_str).filter(|model| !model.is_empty()) else {
        return Ok(wrong("field_missing", "model: it is missing or no string"));
    };
    let Some(messages) = fields.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty())
    else {
        return Ok(wrong("field_missing", "messages: it is missing, no array, or empty"));
    };
    if !needs_limit {
        return Ok(Answer::json(200, &json!({"input_tokens": messages.len()})));
    }
    if fields.get("max_tokens").and_then(Value::as_u64).is_none_or(|limit| limit == 0) {
        return Ok(wrong("field_missing", "max_tokens: it is missing or no positive number"));
    }
    let wait_s = wait_s(messages);
    let text = format!("token {print}");
    if fields.get("stream").and_then(Value::as_bool).unwrap_or_default() {
        return stream(&fields, model, &text, wait_s);
    }
    let mut answer = Answer::json(200, &message(model, &text)?);
    if let Body::Whole(body) = &mut answer.body
        && wait_s > 0
    {
        answer.body = Body::Pieces(vec![(Duration::from_secs(wait_s), std::mem::take(body))]);
    }
    Ok(answer)
}

fn models() -> Answer {
    let model =
        json!({"type": "model", "id": MODEL, "display_name": "Claude Sandbox 1", "created_at": "2026-01-01T00:00:00Z"});
    Answer::json(200, &json!({"data": [model], "has_more": false, "first_id": MODEL, "last_id": MODEL}))
}

fn message(model: &str, text: &str) -> Result<Value, String> {
    Ok(json!({
        "id": format!("msg_01{}", random_hex(11)?),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }))
}

/// Server-sent events in the order that SDKs expect. While it waits, one delta with a dot goes out at each beat.
fn stream(fields: &Map<String, Value>, model: &str, text: &str, wait_s: u64) -> Result<Answer, String> {
    let mut start = message(model, "")?;
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = json!({"input_tokens": fields.len(), "output_tokens": 1});
    let delta =
        |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let mut events =
        vec![(Duration::ZERO, json!({"type": "message_start", "message": start})), (Duration::ZERO, block)];
    let beats = wait_s * 1000 / BEAT.as_millis() as u64;
    events.extend((0..beats).map(|_| (BEAT, delta("."))));
    if beats > 0 {
        events.push((Duration::ZERO, delta(" ")));
    }
    let (first, rest) = text.split_at(text.find(' ').unwrap_or_default());
    let usage = json!({"output_tokens": 2});
    for event in [
        delta(first),
        delta(rest),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ] {
        events.push((Duration::ZERO, event));
    }
    let written = events.into_iter().map(|(after, event)| {
        let name = event["type"].as_str().unwrap_or_default();
        (after, format!("event: {name}\ndata: {event}\n\n"))
    });
    let pieces = Body::Pieces(written.collect());
    Ok(Answer { body: pieces, ..Answer::text(200, "text/event-stream", String::new()) }
        .with("cache-control", "no-cache"))
}

/// Seconds of a `wait N` at the beginning of a text of the last message of the user; 0 without one.
fn wait_s(messages: &[Value]) -> u64 {
    let Some(last) = messages.iter().rev().find(|message| message["role"] == "user") else { return 0 };
    let texts: Vec<&str> = match &last["content"] {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => Vec::new(),
    };
    let wait = texts.into_iter().find_map(|text| {
        let number = text.strip_prefix("wait ")?.split_whitespace().next()?;
        number.parse::<u64>().ok()
    });
    wait.unwrap_or_default().min(WAIT_MAX_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_from_the_last_message_of_the_user() {
        for (messages, seconds) in [
            (json!([{"role": "user", "content": "wait 3"}]), 3),
            (json!([{"role": "user", "content": "wait 3 please"}]), 3),
            (json!([{"role": "user", "content": [{"type": "text", "text": "x"}, {"text": "wait 2"}]}]), 2),
            (json!([{"role": "user", "content": "wait 9"}, {"role": "user", "content": "go"}]), 0),
            (json!([{"role": "user", "content": "wait 9"}, {"role": "assistant", "content": "no"}]), 9),
            (json!([{"role": "user", "content": "await 3"}]), 0),
            (json!([{"role": "user", "content": "wait -3"}]), 0),
            (json!([{"role": "user", "content": "wait 99999"}]), WAIT_MAX_S),
            (json!([1, null, {"role": "user"}]), 0),
        ] {
            assert_eq!(wait_s(messages.as_array().map(Vec::as_slice).unwrap_or_default()), seconds, "{messages}");
        }
    }
}
