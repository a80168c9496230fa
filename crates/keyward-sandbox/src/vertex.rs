//! Anthropic's models on Vertex: `rawPredict`, `streamRawPredict` and `count-tokens`.
//!
//! Takes only tokens of Google that were minted here and still live. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::claude::{self, Form};
use crate::fault::{At, struck};
use crate::sandbox::{GOOGLE_PROJECT, Realm, Sandbox};
use crate::show::fingerprint;
use crate::sigv4::decode;
use hyper::Method;
use serde_json::json;

/// Version of the bodies.
const VERSION: &str = "vertex-2023-10-16";

/// Answers one request below `/v1/projects/`.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let sent = asked.bearer().unwrap_or_default();
    struck(sandbox, asked, At::Vertex, sent, |kept| {
        if sandbox.state().is_live(Realm::Google, sent) {
            let print = fingerprint(sent.as_bytes());
            let mut answer = answer(sandbox, asked, &print)?;
            sandbox.state().counts.messages += u64::from(kept && answer.status == 200);
            answer.note.token = Some(print);
            return Ok(answer);
        }
        sandbox.state().counts.unauthorized += u64::from(kept);
        let reason = if sent.is_empty() { "no_credential" } else { "token_not_live" };
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        let answer = Answer::google_error(401, "UNAUTHENTICATED", message, reason);
        Ok(answer.with("www-authenticate", "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\""))
    })
}

fn answer(sandbox: &Sandbox, asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::google_error(400, "INVALID_ARGUMENT", message, reason);
    let nothing = || Answer::google_error(404, "NOT_FOUND", "no such path", "path");
    let decoded = String::from_utf8_lossy(&decode(&asked.path)).into_owned();
    let parts: Vec<&str> = decoded.split('/').collect();
    let ["", "v1", "projects", project, "locations", _, "publishers", "anthropic", "models", model] = parts[..] else {
        return Ok(nothing());
    };
    let Some((model, verb)) = model.rsplit_once(':') else { return Ok(nothing()) };
    if project != GOOGLE_PROJECT {
        return Ok(Answer::google_error(403, "PERMISSION_DENIED", "not a project of these credentials", "project"));
    }
    if asked.method != Method::POST {
        return Ok(Answer::google_error(405, "INVALID_ARGUMENT", "the method is wrong", "method"));
    }
    if !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let Some(body) = asked.body.as_deref() else { return Ok(wrong("body_too_large", "the body is too large")) };
    let counts = model == "count-tokens";
    // The count names the model in its body, as the Messages API does.
    let form = if counts { Form::Messages } else { Form::InPath(VERSION) };
    let question = match claude::question(sandbox, body, form, model, !counts) {
        Ok(question) => question,
        Err((reason, message)) => return Ok(wrong(reason, &message)),
    };
    let text = format!("token {print}");
    match (verb, counts) {
        ("rawPredict", true) => Ok(Answer::json(200, &json!({"input_tokens": question.messages}))),
        ("rawPredict", false) if question.is_stream => Ok(wrong("stream_field", "stream: use streamRawPredict")),
        ("rawPredict", false) => question.whole(&text),
        ("streamRawPredict", false) if question.is_stream => question.sse(&text),
        ("streamRawPredict", false) => question.whole(&text),
        _ => Ok(nothing()),
    }
}
