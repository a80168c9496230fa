//! The journal: one line of JSON for each request.
//!
//! Never holds an assertion, a token or a secret: tokens stand in it by fingerprint, one-time ids by digest, and text that
//! clients chose is cut and has every long run of token characters replaced. Called by [`crate::serve`] once for each
//! request but reads of the journal and of the figures.

use crate::answer::{Answer, Asked, Body};
use crate::jwt::Claims;
use crate::show::fingerprint;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Write;

/// Longest text of a client, in characters.
const TEXT_MAX_CHARS: usize = 200;

/// Longest run of characters of which tokens are made. Names are shorter, tokens are longer.
const RUN_MAX_CHARS: usize = 31;

/// What an endpoint tells the journal about a request.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// Why it was refused or spoilt.
    pub(crate) reason: Option<&'static str>,
    /// Fingerprint of the token that was minted or used.
    pub(crate) token: Option<String>,
    /// Subject, audiences and the digest of the one-time id of the assertion.
    pub(crate) assertion: Option<Seen>,
}

/// What is told of an assertion.
#[derive(Debug)]
pub(crate) struct Seen {
    sub: Option<String>,
    aud: Vec<String>,
    jti: Option<String>,
}

impl Seen {
    /// Takes what may be shown.
    pub(crate) fn of(claims: &Claims) -> Self {
        Self {
            sub: claims.text("sub").map(shown),
            aud: claims.audiences().into_iter().map(shown).collect(),
            jti: claims.text("jti").map(|jti| fingerprint(jti.as_bytes())),
        }
    }
}

/// The file of the journal.
pub(crate) struct Journal(pub(crate) File);

impl Journal {
    /// Appends the line of one request.
    pub(crate) fn write(&mut self, asked: &Asked, answer: &Answer) -> std::io::Result<()> {
        let mut line = entry(asked, answer).to_string();
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }
}

fn entry(asked: &Asked, answer: &Answer) -> Value {
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
    put("at", jiff::Timestamp::now().to_string().into());
    put("method", shown(asked.method.as_str()).into());
    put("path", shown(&asked.path).into());
    // Nothing was sent, so there is no status to tell.
    let status = if matches!(answer.body, Body::Hang | Body::Reset) { 0 } else { answer.status };
    put("status", status.into());
    put("request_id", asked.request_id.as_str().into());
    put("user_agent", asked.header("user-agent").map(shown).into());
    put("beta", asked.header("anthropic-beta").map(shown).into());
    if let Some(reason) = answer.note.reason {
        put("reason", reason.into());
    }
    if let Some(token) = &answer.note.token {
        put("token", token.as_str().into());
    }
    if let Some(seen) = &answer.note.assertion {
        put("sub", seen.sub.clone().into());
        put("aud", seen.aud.clone().into());
        put("jti", seen.jti.clone().into());
    }
    Value::Object(line)
}

/// Text of a client as it may be kept: cut, and without anything that could be a token.
pub(crate) fn shown(text: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '=');
    let (mut out, mut run) = (String::new(), String::new());
    // A line end that is no part of the text closes the last run.
    for c in text.chars().take(TEXT_MAX_CHARS).chain(['\n']) {
        if is_of_token(c) {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() > RUN_MAX_CHARS { "…" } else { &run });
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_and_tokens_go() {
        for name in ["oauth-2025-04-20,oidc-federation-2026-04-01", "anthropic-sdk-typescript/1.11.0", "a b", ""] {
            assert_eq!(shown(name), name);
        }
        let token = format!("sk-ant-oat01-{}", "x".repeat(40));
        assert_eq!(shown(&token), "…");
        assert_eq!(shown(&format!("Bearer {token}!")), "Bearer …!");
        assert_eq!(shown(&format!("/v1/{}", "a".repeat(32))), "/v1/…");
        assert!(shown(&"é ".repeat(500)).chars().count() <= TEXT_MAX_CHARS);
    }
}
