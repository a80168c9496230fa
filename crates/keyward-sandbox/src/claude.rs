//! Messages as the Messages API gives them, whole or as events, for every API that carries them.
//!
//! Pure but for the random id of a message. Called by the APIs of Anthropic, Bedrock, Vertex and Foundry.

use crate::answer::{Answer, Body};
use crate::sandbox::Sandbox;
use crate::{json, random_hex};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time that a message may ask to be answered in, in seconds.
const WAIT_MAX_S: u64 = 600;

/// Between two events while an answer is awaited.
const BEAT: Duration = Duration::from_millis(100);

/// What is asked of a model.
pub(crate) struct Question {
    /// Which model.
    pub(crate) model: String,
    /// How many messages.
    pub(crate) messages: usize,
    /// As events.
    pub(crate) is_stream: bool,
    /// How the answer is spread over time.
    pace: Pace,
}

/// How an answer is spread over time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How late a whole answer is.
    wait: Duration,
    /// How many events come before the text, …
    pub(crate) beats: u64,
    /// … and how far apart they are.
    pub(crate) every: Duration,
}

/// What a wire form does otherwise than the Messages API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing: the model is in the body.
    Messages,
    /// The model is in the path, and the body names this version, or a date as the API's own versions are: SDKs send both.
    InPath(&'static str),
}

/// Reads a body of the Messages API. `model` is that of the path. Fails with the reason for the journal and the words for the
/// client.
pub(crate) fn question(
    sandbox: &Sandbox,
    body: &[u8],
    form: Form,
    model: &str,
    needs_limit: bool,
) -> Result<Question, (&'static str, String)> {
    let fields = json::object(body).map_err(|e| ("not_json", e))?;
    let missing = |what: &str| ("field_missing", what.to_owned());
    let model = match form {
        Form::Messages => fields.get("model").and_then(Value::as_str).filter(|model| !model.is_empty()),
        Form::InPath(version) => {
            let sent = fields.get("anthropic_version").and_then(Value::as_str);
            if !sent.is_some_and(|sent| sent == version || is_date(sent)) {
                return Err(("version_missing", format!("anthropic_version: it is not {version}")));
            }
            if fields.contains_key("model") {
                return Err(("model_twice", "model: Extra inputs are not permitted".to_owned()));
            }
            Some(model)
        }
    };
    let model = model.ok_or_else(|| missing("model: it is missing or no string"))?.to_owned();
    let messages = fields.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| missing("messages: it is missing, no array, or empty"))?;
    if needs_limit && fields.get("max_tokens").and_then(Value::as_u64).is_none_or(|limit| limit == 0) {
        return Err(missing("max_tokens: it is missing or no positive number"));
    }
    let is_stream = fields.get("stream").and_then(Value::as_bool).unwrap_or_default();
    Ok(Question { model, messages: messages.len(), is_stream, pace: pace(sandbox, messages) })
}

/// Whether it has the form of a date, as versions of the API do.
fn is_date(text: &str) -> bool {
    let fits = |(at, b): (usize, u8)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(fits)
}

/// A message that begins with `wait N` says how long its answer takes; else the switch says how a stream goes.
pub(crate) fn pace(sandbox: &Sandbox, messages: &[Value]) -> Pace {
    match wait_s(messages) {
        0 => {
            let (events, every) = sandbox.state().stream;
            Pace { wait: Duration::ZERO, beats: events.into(), every }
        }
        wait_s => {
            let wait = Duration::from_secs(wait_s);
            Pace { wait, beats: wait_s * 1000 / BEAT.as_millis() as u64, every: BEAT }
        }
    }
}

impl Question {
    /// The answer in one piece.
    pub(crate) fn whole(&self, text: &str) -> Result<Answer, String> {
        let body = message(&self.model, text)?;
        Ok(late(Answer::json(200, &body), self.pace))
    }

    /// The events of the answer, each with the time after the one before.
    pub(crate) fn events(&self, text: &str) -> Result<Vec<(Duration, Value)>, String> {
        events(&self.model, text, self.messages, self.pace)
    }

    /// The answer as server-sent events.
    pub(crate) fn sse(&self, text: &str) -> Result<Answer, String> {
        let written = self.events(text)?.into_iter().map(|(after, event)| {
            let name = event["type"].as_str().unwrap_or_default();
            (after, Bytes::from(format!("event: {name}\ndata: {event}\n\n")))
        });
        Ok(sse(written.collect()))
    }
}

/// An answer of server-sent events.
pub(crate) fn sse(pieces: Vec<(Duration, Bytes)>) -> Answer {
    let answer = Answer { body: Body::Pieces(pieces), ..Answer::text(200, "text/event-stream", String::new()) };
    answer.with("cache-control", "no-cache")
}

/// Sends an answer as late as it was asked for.
pub(crate) fn late(mut answer: Answer, pace: Pace) -> Answer {
    if let Body::Whole(body) = &mut answer.body
        && !pace.wait.is_zero()
    {
        answer.body = Body::Pieces(vec![(pace.wait, std::mem::take(body).into())]);
    }
    answer
}

/// A message.
pub(crate) fn message(model: &str, text: &str) -> Result<Value, String> {
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

/// Events in the order that SDKs expect. While the text is awaited, one delta with a dot goes out at each beat.
fn events(
    model: &str,
    text: &str,
    messages: usize,
    Pace { beats, every, .. }: Pace,
) -> Result<Vec<(Duration, Value)>, String> {
    let mut start = message(model, "")?;
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = json!({"input_tokens": messages, "output_tokens": 1});
    let delta =
        |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let mut events =
        vec![(Duration::ZERO, json!({"type": "message_start", "message": start})), (Duration::ZERO, block)];
    events.extend((0..beats).map(|_| (every, delta("."))));
    if beats > 0 {
        events.push((Duration::ZERO, delta(" ")));
    }
    let (first, rest) = halves(text);
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
    Ok(events)
}

/// A text in two pieces.
pub(crate) fn halves(text: &str) -> (&str, &str) {
    text.split_at(text.find(' ').unwrap_or_default())
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
