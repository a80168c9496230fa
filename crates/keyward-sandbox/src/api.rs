//! Anthropic's API behind the token: messages (JSON and SSE), token counting, models and files.
//!
//! Accepts only tokens that were minted here and still live, as `Authorization: Bearer`, and the key of the folder, as
//! `x-api-key` or as a bearer. The text of an answer names the fingerprint of the credential that was used, never the
//! credential. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::claude::{self, Form};
use crate::fault::{At, Fault, Sample, spoil};
use crate::random_hex;
use crate::sandbox::{Realm, Sandbox};
use crate::show::fingerprint;
use hyper::Method;
use serde_json::json;

/// Largest body, in bytes; that of the Messages API.
pub(crate) const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// The model of the list, and of answers to requests that name none.
const MODEL: &str = "claude-sandbox-1";

/// What a request with a token of OAuth says in `anthropic-beta`, and one for files.
const OAUTH_FLAG: &str = "oauth-2025-04-20";
const FILES_FLAG: &str = "files-api-2025-04-14";

/// Answers one request below `/v1/` other than a token request.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let fault = sandbox.state().faults.take(At::Messages);
    let kept = fault.is_none_or(|armed| armed.fault == Fault::Slow);
    let sent = bearer(asked);
    let live = sent.and_then(|token| is_good(sandbox, asked, token).map(|()| token));
    let answer = match live {
        Ok(token) => {
            let print = fingerprint(token.as_bytes());
            let mut answer = authorized(sandbox, asked, &print)?;
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
                "beta_missing" => "OAuth authentication is currently not supported.",
                _ => "invalid bearer token",
            };
            let mut answer = Answer::api_error(asked, 401, "authentication_error", message, reason);
            answer.note.token = sent.ok().map(|token| fingerprint(token.as_bytes()));
            answer
        }
    };
    let Some(armed) = fault else { return Ok(answer) };
    // Whoever uses a spoilt answer as if it were right is found by its text.
    let good = claude::message(MODEL, "spoilt")?;
    let secret = sent.unwrap_or_default();
    Ok(spoil(armed, asked, answer, Sample { good, secret, base_url: &sandbox.base_url }))
}

/// The token or the key of the request. Fails with the reason for the journal.
fn bearer(asked: &Asked) -> Result<&str, &'static str> {
    let header = match asked.headers.get_all("authorization").iter().count() {
        0 if asked.headers.contains_key("x-api-key") => return asked.header("x-api-key").ok_or("two_credentials"),
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

/// Whether the API takes it. Fails with the reason for the journal.
fn is_good(sandbox: &Sandbox, asked: &Asked, sent: &str) -> Result<(), &'static str> {
    let state = sandbox.state();
    if state.is_key(&sandbox.keys.anthropic, sent) {
        return Ok(());
    }
    if !asked.headers.contains_key("authorization") {
        return Err("api_key");
    }
    if !state.is_live(Realm::Anthropic, sent) {
        return Err("token_not_live");
    }
    if state.needs_beta && !has_flag(asked, OAUTH_FLAG) { Err("beta_missing") } else { Ok(()) }
}

fn has_flag(asked: &Asked, flag: &str) -> bool {
    let all = asked.headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|sent| sent.trim() == flag)
}

fn authorized(sandbox: &Sandbox, asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::api_error(asked, 400, "invalid_request_error", message, reason);
    let methods: &[Method] = match asked.path.as_str() {
        "/v1/models" => &[Method::GET],
        "/v1/messages/count_tokens" | "/v1/messages" => &[Method::POST],
        "/v1/files" => &[Method::GET, Method::POST],
        _ => return Ok(Answer::api_error(asked, 404, "not_found_error", "no such path", "path")),
    };
    if !methods.contains(&asked.method) {
        let answer = Answer::api_error(asked, 405, "invalid_request_error", "the method is wrong", "method");
        return Ok(answer.with("allow", methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")));
    }
    if asked.header("anthropic-version").is_none_or(str::is_empty) {
        return Ok(wrong("version_missing", "anthropic-version: header is required"));
    }
    if asked.path == "/v1/models" {
        return Ok(models());
    }
    if asked.path == "/v1/files" {
        return files(asked);
    }
    if !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let Some(body) = &asked.body else {
        return Ok(Answer::api_error(asked, 413, "request_too_large", "the body is too large", "body_too_large"));
    };
    let counts = asked.path.ends_with("/count_tokens");
    let question = match claude::question(sandbox, body, Form::Messages, "", !counts) {
        Ok(question) => question,
        Err((reason, message)) => return Ok(wrong(reason, &message)),
    };
    let text = format!("token {print}");
    match (counts, question.is_stream) {
        (true, _) => Ok(Answer::json(200, &json!({"input_tokens": question.messages}))),
        (false, true) => question.sse(&text),
        (false, false) => question.whole(&text),
    }
}

/// The files: uploads in `multipart/form-data` (RFC 7578), of which nothing is kept.
fn files(asked: &Asked) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::api_error(asked, 400, "invalid_request_error", message, reason);
    if !has_flag(asked, FILES_FLAG) {
        return Ok(wrong("beta_missing", "anthropic-beta lacks files-api-2025-04-14"));
    }
    if asked.method == Method::GET {
        return Ok(Answer::json(200, &json!({"data": [], "has_more": false, "first_id": null, "last_id": null})));
    }
    let Some(body) = &asked.body else {
        return Ok(Answer::api_error(asked, 413, "request_too_large", "the body is too large", "body_too_large"));
    };
    let declared = asked.header("content-type").unwrap_or_default();
    let boundary = declared.split_once("boundary=").map(|(_, rest)| rest.split(';').next().unwrap_or_default());
    let boundary = boundary.map(|boundary| boundary.trim_matches('"')).filter(|boundary| !boundary.is_empty());
    let Some(boundary) = boundary.filter(|_| asked.is_of_type("multipart/form-data")) else {
        return Ok(wrong("content_type", "content-type is not multipart/form-data with a boundary"));
    };
    let (first, last) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}--"));
    let is_whole = body.starts_with(first.as_bytes()) && body.trim_ascii_end().ends_with(last.as_bytes());
    let head = body.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(head) = head.filter(|_| is_whole) else {
        return Ok(wrong("multipart", "the body is not the parts that content-type says"));
    };
    let size = body.trim_ascii_end().len().saturating_sub(last.len() + head + 4);
    let file = json!({
        "id": format!("file_01{}", random_hex(11)?),
        "type": "file",
        "filename": "upload",
        "mime_type": "application/octet-stream",
        "size_bytes": size,
        "created_at": "2026-01-01T00:00:00Z",
        "downloadable": false,
    });
    Ok(Answer::json(200, &file))
}

fn models() -> Answer {
    let model =
        json!({"type": "model", "id": MODEL, "display_name": "Claude Sandbox 1", "created_at": "2026-01-01T00:00:00Z"});
    Answer::json(200, &json!({"data": [model], "has_more": false, "first_id": MODEL, "last_id": MODEL}))
}
