//! Anthropic's models on Foundry: the Messages API behind a key or a token of Entra, never both.
//!
//! Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::claude::{self, Form};
use crate::fault::{At, struck};
use crate::sandbox::{Realm, Sandbox};
use crate::show::fingerprint;
use hyper::Method;
use serde_json::json;

/// Answers one request below `/anthropic/`.
pub(crate) fn call(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let sent = credential(asked);
    struck(sandbox, asked, At::Foundry, sent.map_or("", |(_, sent)| sent), |kept| {
        let wrong = |reason, message: &str| Answer::api_error(asked, 400, "invalid_request_error", message, reason);
        let good = sent.and_then(|(is_key, sent)| {
            let state = sandbox.state();
            let is_good =
                if is_key { state.is_key(&sandbox.keys.foundry, sent) } else { state.is_live(Realm::Entra, sent) };
            if is_good { Ok(fingerprint(sent.as_bytes())) } else { Err("token_not_live") }
        });
        match good {
            Ok(print) => {
                let mut answer = answer(sandbox, asked, &print)?;
                sandbox.state().counts.messages += u64::from(kept && answer.status == 200);
                answer.note.token = Some(print);
                Ok(answer)
            }
            Err(reason @ "two_credentials") => {
                Ok(wrong(reason, "a key and a token of Entra came together; send one of them"))
            }
            Err(reason) => {
                sandbox.state().counts.unauthorized += u64::from(kept);
                Ok(Answer::api_error(asked, 401, "authentication_error", "invalid key or token", reason))
            }
        }
    })
}

/// The key (true) or the token (false) of the request. Fails with the reason for the journal.
fn credential(asked: &Asked) -> Result<(bool, &str), &'static str> {
    let keys: Vec<Option<&str>> = ["api-key", "x-api-key"]
        .into_iter()
        .filter(|name| asked.headers.contains_key(*name))
        .map(|name| asked.header(name))
        .collect();
    match (asked.headers.contains_key("authorization"), keys.first()) {
        (true, Some(_)) => Err("two_credentials"),
        (true, None) => asked.bearer().map(|token| (false, token)).ok_or("not_bearer"),
        // SDKs send the same key in both.
        (false, Some(first)) if keys.iter().all(|key| key == first) => {
            first.map(|key| (true, key)).ok_or("two_credentials")
        }
        (false, Some(_)) => Err("two_credentials"),
        (false, None) => Err("no_credential"),
    }
}

fn answer(sandbox: &Sandbox, asked: &Asked, print: &str) -> Result<Answer, String> {
    let wrong = |reason, message: &str| Answer::api_error(asked, 400, "invalid_request_error", message, reason);
    let counts = match asked.path.as_str() {
        "/anthropic/v1/messages" => false,
        "/anthropic/v1/messages/count_tokens" => true,
        _ => return Ok(Answer::api_error(asked, 404, "not_found_error", "no such path", "path")),
    };
    if asked.method != Method::POST {
        let answer = Answer::api_error(asked, 405, "invalid_request_error", "the method is wrong", "method");
        return Ok(answer.with("allow", "POST"));
    }
    if asked.header("anthropic-version").is_none_or(str::is_empty) {
        return Ok(wrong("version_missing", "anthropic-version: header is required"));
    }
    if !asked.is_of_type("application/json") {
        return Ok(wrong("content_type", "content-type is not application/json"));
    }
    let Some(body) = asked.body.as_deref() else { return Ok(wrong("body_too_large", "the body is too large")) };
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
