//! An API as OpenAI has it, below `/openai/v1/`: responses and chat completions, whole and as events, and models.
//!
//! Takes only the key of the folder, as `Authorization: Bearer`. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::claude;
use crate::fault::{At, struck};
use crate::sandbox::Sandbox;
use crate::show::fingerprint;
use crate::{json, random_hex};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The model of the list.
const MODEL: &str = "gpt-sandbox-1";

/// Answers one request below `/openai/v1/`.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let sent = asked.bearer().unwrap_or_default();
    let answer = struck(sandbox, asked, At::Openai, sent, |kept| {
        if sandbox.state().is_key(&sandbox.keys.openai, sent) {
            let print = fingerprint(sent.as_bytes());
            let mut answer = answer(sandbox, asked, &print)?;
            sandbox.state().counts.messages += u64::from(kept && answer.status == 200 && asked.method == Method::POST);
            answer.note.token = Some(print);
            return Ok(answer);
        }
        sandbox.state().counts.unauthorized += u64::from(kept);
        let reason = if sent.is_empty() { "no_credential" } else { "api_key" };
        Ok(Answer::openai_error(401, "invalid_api_key", "Incorrect API key provided.", reason))
    })?;
    Ok(answer.with("x-request-id", asked.request_id.clone()))
}

fn answer(sandbox: &Sandbox, asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::openai_error(400, "invalid_request", message, reason);
    let path = asked.path.strip_prefix("/openai/v1/").unwrap_or_default();
    let method = match path {
        "models" => Method::GET,
        "responses" | "chat/completions" => Method::POST,
        _ => return Ok(Answer::openai_error(404, "unknown_url", "no such path", "path")),
    };
    if asked.method != method {
        return Ok(Answer::openai_error(405, "method", "the method is wrong", "method").with("allow", method.as_str()));
    }
    if path == "models" {
        let model = json!({"id": MODEL, "object": "model", "created": 1_767_225_600, "owned_by": "sandbox"});
        return Ok(Answer::json(200, &json!({"object": "list", "data": [model]})));
    }
    if !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let Some(body) = asked.body.as_deref() else { return Ok(wrong("body_too_large", "the body is too large")) };
    let fields = match json::object(body) {
        Ok(fields) => fields,
        Err(e) => return Ok(wrong("not_json", &e)),
    };
    let Some(model) = fields.get("model").and_then(Value::as_str).filter(|model| !model.is_empty()) else {
        return Ok(wrong("field_missing", "model: it is missing or no string"));
    };
    let Some(messages) = messages(&fields, path) else {
        return Ok(wrong("field_missing", "messages or input: it is missing, or nothing is in it"));
    };
    let pace = claude::pace(sandbox, &messages);
    let is_stream = fields.get("stream").and_then(Value::as_bool).unwrap_or_default();
    let text = format!("token {print}");
    match (path, is_stream) {
        ("responses", false) => Ok(claude::late(Answer::json(200, &response(model, &text, "completed")?), pace)),
        ("responses", true) => responses_stream(model, &text, pace),
        (_, false) => Ok(claude::late(Answer::json(200, &completion(model, &text)?), pace)),
        (_, true) => {
            let says = fields.get("stream_options").is_some_and(|options| options["include_usage"] == true);
            completions_stream(model, &text, pace, says)
        }
    }
}

/// What was said, as messages; a text alone is one of the user.
fn messages(fields: &Map<String, Value>, path: &str) -> Option<Vec<Value>> {
    let name = if path == "responses" { "input" } else { "messages" };
    match fields.get(name)? {
        Value::String(text) if path == "responses" => Some(vec![json!({"role": "user", "content": text})]),
        Value::Array(messages) if !messages.is_empty() => Some(messages.clone()),
        _ => None,
    }
}

fn completion(model: &str, text: &str) -> Result<Value, String> {
    let message = json!({"role": "assistant", "content": text, "refusal": null});
    Ok(json!({
        "id": format!("chatcmpl-{}", random_hex(12)?),
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": null}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }))
}

fn completions_stream(model: &str, text: &str, pace: claude::Pace, says: bool) -> Result<Answer, String> {
    let id = format!("chatcmpl-{}", random_hex(12)?);
    let chunk = |delta: Value, end: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1_767_225_600, "model": model, "choices": [choice],
        });
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let said = |text: &str| chunk(json!({"content": text}), Value::Null);
    let mut pieces = vec![(Duration::ZERO, chunk(json!({"role": "assistant", "content": ""}), Value::Null))];
    pieces.extend((0..pace.beats).map(|_| (pace.every, said("."))));
    let (first, rest) = claude::halves(text);
    let mut last = vec![said(first), said(rest), chunk(json!({}), "stop".into())];
    if says {
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1_767_225_600, "model": model, "choices": [],
            "usage": usage,
        });
        last.push(Bytes::from(format!("data: {chunk}\n\n")));
    }
    last.push(Bytes::from_static(b"data: [DONE]\n\n"));
    pieces.extend(last.into_iter().map(|piece| (Duration::ZERO, piece)));
    Ok(claude::sse(pieces))
}

fn item(id: &str, text: &str, status: &str) -> Value {
    let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

fn response(model: &str, text: &str, status: &str) -> Result<Value, String> {
    let (id, message) = (format!("resp_{}", random_hex(12)?), format!("msg_{}", random_hex(12)?));
    let output = if text.is_empty() { json!([]) } else { json!([item(&message, text, "completed")]) };
    Ok(json!({
        "id": id,
        "object": "response",
        "created_at": 1_767_225_600,
        "status": status,
        "model": model,
        "output": output,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "metadata": {},
        "parallel_tool_calls": true,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 3,
        },
    }))
}

fn responses_stream(model: &str, text: &str, pace: claude::Pace) -> Result<Answer, String> {
    let id = format!("msg_{}", random_hex(12)?);
    let delta = |text: &str| json!({"type": "response.output_text.delta", "item_id": id, "output_index": 0, "content_index": 0, "delta": text});
    let mut started = response(model, "", "in_progress")?;
    let mut ended = response(model, text, "completed")?;
    ended["id"] = started["id"].clone();
    ended["output"][0]["id"] = id.as_str().into();
    started["usage"] = Value::Null;
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let mut opened = item(&id, "", "in_progress");
    opened["content"] = json!([]);
    let (first, rest) = claude::halves(text);
    let at_once = |event: Value| (Duration::ZERO, event);
    let mut events = vec![
        at_once(json!({"type": "response.created", "response": started})),
        at_once(json!({"type": "response.output_item.added", "output_index": 0, "item": opened})),
        at_once(json!({
            "type": "response.content_part.added", "item_id": id, "output_index": 0, "content_index": 0, "part": part,
        })),
    ];
    events.extend((0..pace.beats).map(|_| (pace.every, delta("."))));
    let done = item(&id, text, "completed");
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    events.extend(
        [
            delta(first),
            delta(rest),
            json!({
                "type": "response.output_text.done", "item_id": id, "output_index": 0, "content_index": 0, "text": text,
            }),
            json!({
                "type": "response.content_part.done", "item_id": id, "output_index": 0, "content_index": 0, "part": part,
            }),
            json!({"type": "response.output_item.done", "output_index": 0, "item": done}),
            json!({"type": "response.completed", "response": ended}),
        ]
        .map(at_once),
    );
    let pieces = events.into_iter().enumerate().map(|(number, (after, mut event))| {
        event["sequence_number"] = number.into();
        let name = event["type"].as_str().unwrap_or_default();
        (after, Bytes::from(format!("event: {name}\ndata: {event}\n\n")))
    });
    Ok(claude::sse(pieces.collect()))
}
