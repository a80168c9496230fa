//! What token endpoints answer: a token (RFC 6749 section 5.1) or a refusal, of which there are several forms.
//!
//! Nothing of an answer is shown but the name of the error and its message, and the message only where it cannot hold what
//! was sent. What the parser itself keeps meanwhile is wiped by the allocator of the process. Called by the federation issuer and the identity source of OAuth clients.

use crate::http::Trouble;
use crate::json;
use keyward_core::Credential;
use keyward_diag::plain;
use keyward_secret::SecretBytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest life of a token; a longer one is taken for this.
const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Longest name of an error.
const ID_MAX: usize = 64;

/// Longest scope that is kept, in characters; a longer one is cut.
const SCOPE_MAX: usize = 200;

/// Longest message that is shown, in characters.
const MESSAGE_MAX: usize = 300;

/// Longest message that is looked through, in bytes; a longer one is not shown.
const MESSAGE_MAX_BYTES: usize = 4096;

/// So many bytes of a secret in a row are enough to withhold a message.
const PIECE_BYTES: usize = 8;

/// Stands for a message that is not shown.
const WITHHELD: &str = "(withheld: it quotes the assertion or looks like a token)";

/// The members of an answer with a token.
#[derive(serde::Deserialize)]
pub(crate) struct Granted {
    /// The token.
    pub(crate) access_token: Option<Value>,
    /// An identity token beside it (OpenID Connect).
    pub(crate) id_token: Option<Value>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

impl Granted {
    /// Reads an answer.
    ///
    /// # Errors
    /// What it is instead, in words that go on after "it is".
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        json::object(body)
    }

    /// The tokens, among the secrets that nothing of the answer may quote.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        [&self.access_token, &self.id_token]
            .into_iter()
            .filter_map(|token| Some(json::text(token.as_ref())?.as_bytes()))
    }

    /// The credential: a bearer token of visible ASCII with a life in whole seconds. `sent` are the secrets of the request.
    /// A scope is left out where it is none by RFC 6749 section 3.3, or quotes one of them or a token.
    ///
    /// # Errors
    /// One sentence, which never quotes the token.
    pub(crate) fn credential(self, sent: &[&[u8]]) -> Result<Credential, String> {
        let secrets: Vec<&[u8]> = sent.iter().copied().chain(self.tokens()).collect();
        let scope = json::text(self.scope.as_ref()).filter(|s| is_scope(s) && !quotes(s, &secrets));
        let scope = scope.map(|s| plain(s, SCOPE_MAX));
        let Some(Value::String(token)) = self.access_token else {
            return Err("it holds no `access_token`".to_owned());
        };
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its `access_token` holds something that is not visible ASCII".to_owned());
        }
        let token = SecretBytes::new(token.into_bytes()).map_err(|e| format!("its `access_token`: {e}"))?;
        match &self.token_type {
            None | Some(Value::Null) => {}
            Some(Value::String(word)) if word.eq_ignore_ascii_case("bearer") => {}
            Some(_) => return Err("its `token_type` is not `Bearer`".to_owned()),
        }
        let life = match &self.expires_in {
            None => return Err("it holds no `expires_in`, so that nobody knows how long the token lives".to_owned()),
            Some(seconds) => seconds.as_u64().filter(|s| *s >= 1),
        };
        let life = life.ok_or("its `expires_in` is not a whole number of seconds above zero")?;
        Ok(Credential { token, life: Some(Duration::from_secs(life).min(LIFE_MAX)), scope, facts: BTreeMap::new() })
    }
}

/// Whether it is words of `%x21 / %x23-5B / %x5D-7E` with one space between them.
fn is_scope(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    text.split(' ').all(is_word)
}

/// A refusal, as far as it may be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Name of the error, such as `invalid_grant`; `[a-z0-9_]` alone.
    pub(crate) id: Option<String>,
    /// What the endpoint says about it, safe to show.
    pub(crate) message: Option<String>,
    /// What the body is where it is no refusal that is known.
    pub(crate) other: Option<String>,
}

#[derive(serde::Deserialize)]
struct Refused {
    error: Option<Value>,
    error_description: Option<Value>,
    message: Option<Value>,
}

impl Refusal {
    /// Reads the body of a refusal: `{"error": {"type", "message"}}` with or without a `type` around it, or RFC 6749's
    /// `{"error", "error_description"}` (section 5.2). `sent` are the secrets of the request.
    pub(crate) fn read(body: &Result<Zeroizing<Vec<u8>>, Trouble>, sent: &[&[u8]]) -> Self {
        let other = |other| Self { other: Some(other), ..Self::default() };
        let refused: Refused = match body.as_ref().map(|body| json::object(body)) {
            Ok(Ok(refused)) => refused,
            Ok(Err(what)) => return other(what),
            Err(trouble) => return other(format!("not read: {}", trouble.cause())),
        };
        let (id, message) = match &refused.error {
            Some(Value::Object(error)) => (error.get("type"), error.get("message")),
            error => (error.as_ref(), refused.error_description.as_ref().or(refused.message.as_ref())),
        };
        let is_name = |id: &&str| {
            (1..=ID_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let id = json::text(id).filter(is_name).filter(|id| !quotes(id, sent)).map(str::to_owned);
        let message = json::text(message).filter(|m| !m.trim().is_empty());
        let message = message.map(|m| if quotes(m, sent) { WITHHELD.to_owned() } else { plain(m.trim(), MESSAGE_MAX) });
        let other = (id.is_none() && message.is_none()).then(|| "a JSON object without a known `error`".to_owned());
        Self { id, message, other }
    }

    /// Whether name or message hold a word.
    pub(crate) fn says(&self, word: &str) -> bool {
        [&self.id, &self.message].into_iter().flatten().any(|text| text.contains(word))
    }

    /// The refusal in one line.
    pub(crate) fn line(&self) -> String {
        let parts = [self.id.as_deref(), self.message.as_deref()];
        let said: Vec<&str> = parts.into_iter().flatten().collect();
        match (&self.other, said.is_empty()) {
            (Some(other), _) => format!("(its body is {other})"),
            (None, true) => "(without a reason)".to_owned(),
            (None, false) => said.join(": "),
        }
    }
}

/// Whether a text holds a piece of a secret, or something of the form of a token.
pub(crate) fn quotes(text: &str, secrets: &[&[u8]]) -> bool {
    if text.len() > MESSAGE_MAX_BYTES || text.contains("eyJ") || text.contains("sk-ant-") {
        return true;
    }
    secrets.iter().filter(|secret| !secret.is_empty()).any(|secret| {
        let size = secret.len().min(PIECE_BYTES);
        let pieces: HashSet<&[u8]> = secret.windows(size).collect();
        text.as_bytes().windows(size).any(|piece| pieces.contains(piece))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn refusal(body: &str, sent: &[&[u8]]) -> Refusal {
        Refusal::read(&Ok(Zeroizing::new(body.as_bytes().to_vec())), sent)
    }

    fn credential(body: &str) -> Result<Credential, String> {
        Granted::read(body.as_bytes()).and_then(|granted| granted.credential(&[b"aGVhZGVy.cGF5bG9h.c2lnbmF0dXJl"]))
    }

    #[test]
    fn a_token_is_taken_with_its_life_and_scope() {
        for (more, life) in [
            (r#""token_type":"Bearer","expires_in":3600"#, 3600),
            (r#""token_type":"bEARER","expires_in":1"#, 1),
            (r#""token_type":null,"expires_in":60,"refresh_token":"x""#, 60),
            (r#""expires_in":18446744073709551615"#, 366 * 86_400),
        ] {
            let c = credential(&format!(r#"{{"access_token":"sk-ant-oat01-A","scope":"a b",{more}}}"#)).unwrap();
            assert!(c.token.expose(|b| b == b"sk-ant-oat01-A"));
            assert_eq!((c.life, c.scope.as_deref()), (Some(Duration::from_secs(life)), Some("a b")), "{more}");
        }
    }

    #[test]
    fn a_scope_that_is_none_or_quotes_a_secret_is_left_out() {
        let scope = |scope: &str| {
            let body = serde_json::json!({"access_token": "opaque/TOKEN/of-others", "expires_in": 60, "scope": scope});
            credential(&body.to_string()).unwrap().scope
        };
        for good in ["a", "workspace:developer", "a b", "https://x/.default !#[]~", "TOKEN/o"] {
            assert_eq!(scope(good).as_deref(), Some(good));
        }
        for bad in ["", " ", " a", "a ", "a  b", "a\"b", "a\\b", "a\nb", "a\tb", "ä", "\u{7f}"] {
            assert_eq!(scope(bad), None, "{bad:?} is no scope");
        }
        for quote in ["a cGF5bG9h", "x.c2lnbmF0", "opaque/TOKEN/of-others", "a TOKEN/of", "eyJ", "sk-ant-x"] {
            assert_eq!(scope(quote), None, "{quote} is a piece of a secret");
        }
        assert_eq!(scope("w ".repeat(400).trim_end()).map(|s| s.chars().count()), Some(SCOPE_MAX + 1));
    }

    #[test]
    fn what_is_no_token_is_refused_without_a_quote() {
        let long = format!(r#"{{"access_token":"SEKRIT{}","expires_in":60}}"#, "x".repeat(32 * 1024));
        for (body, why) in [
            ("<html>SEKRIT", "HTML or XML"),
            (r#"["SEKRIT",null,"bearer",60,null]"#, "a JSON array"),
            (r#"{"expires_in":60}"#, "no `access_token`"),
            (r#"{"access_token":7,"expires_in":60}"#, "no `access_token`"),
            (r#"{"access_token":"","expires_in":60}"#, "empty"),
            (&long, "longer than"),
            (r#"{"access_token":"SEKRIT\n","expires_in":60}"#, "not visible ASCII"),
            (r#"{"access_token":"SEKRIT\r\nX: y","expires_in":60}"#, "not visible ASCII"),
            (r#"{"access_token":"SEK RIT","expires_in":60}"#, "not visible ASCII"),
            (r#"{"access_token":"SEKRIT\u0000","expires_in":60}"#, "not visible ASCII"),
            (r#"{"access_token":"SEKRIT\u00e4","expires_in":60}"#, "not visible ASCII"),
            (r#"{"access_token":"SEKRIT","token_type":"mac","expires_in":60}"#, "not `Bearer`"),
            (r#"{"access_token":"SEKRIT","token_type":["bearer"],"expires_in":60}"#, "not `Bearer`"),
            (r#"{"access_token":"SEKRIT"}"#, "no `expires_in`"),
            (r#"{"access_token":"SEKRIT","expires_in":null}"#, "no `expires_in`"),
            (r#"{"access_token":"SEKRIT","expires_in":"60"}"#, "not a whole number"),
            (r#"{"access_token":"SEKRIT","expires_in":0}"#, "not a whole number"),
            (r#"{"access_token":"SEKRIT","expires_in":-60}"#, "not a whole number"),
            (r#"{"access_token":"SEKRIT","expires_in":59.5}"#, "not a whole number"),
            (r#"{"access_token":"SEKRIT","expires_in":1e400}"#, "not JSON"),
            (r#"{"access_token":"SEKRIT","access_token":"b","expires_in":60}"#, "there twice"),
        ] {
            let error = credential(body).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
            assert!(!error.contains("SEK"), "{error}");
        }
    }

    #[test]
    fn every_form_of_refusal_is_read() {
        for (body, line) in [
            (
                r#"{"type":"error","error":{"type":"authentication_error","message":"Authentication failed"}}"#,
                "authentication_error: Authentication failed",
            ),
            (r#"{"error":{"type":"invalid_request"}}"#, "invalid_request"),
            (r#"{"error":"invalid_grant","error_description":"no rule"}"#, "invalid_grant: no rule"),
            (r#"{"error":"invalid_grant","message":"no\nrule"}"#, "invalid_grant: no\\u{a}rule"),
            (r#"{"error":"Not A Name","error_description":"why"}"#, "why"),
            (r#"{"error":{}}"#, "(its body is a JSON object without a known `error`)"),
            (r#"{"detail":"x"}"#, "(its body is a JSON object without a known `error`)"),
            ("<html>proxy says SEKRIT</html>", "(its body is HTML or XML)"),
            ("", "(its body is empty)"),
        ] {
            assert_eq!(refusal(body, &[]).line(), line, "{body}");
        }
        let long = format!(r#"{{"error":"e","error_description":"{}"}}"#, "m".repeat(1000));
        assert_eq!(refusal(&long, &[]).line().chars().count(), "e: ".len() + MESSAGE_MAX + 1);
    }

    #[test]
    fn a_message_that_holds_what_was_sent_is_withheld() {
        let sent: &[&[u8]] = &[b"aGVhZGVy.cGF5bG9hZC1vZi1hLWp3dA.c2lnbmF0dXJl", b"pw"];
        for (message, shown) in [
            ("assertion aGVhZGVy.cGF5bG9hZC1vZi1hLWp3dA.c2lnbmF0dXJl is bad", false),
            ("near bG9hZC1v here", false),
            ("near bG9hZC1 here", true),
            ("the secret pw is wrong", false),
            ("got eyJhbGciOiJub25lIn0", false),
            ("got sk-ant-oat01-x", false),
            ("no rule matches", true),
        ] {
            let body = serde_json::json!({"error": {"type": "e", "message": message}}).to_string();
            let line = refusal(&body, sent).line();
            assert_eq!(line, format!("e: {}", if shown { message } else { WITHHELD }));
        }
        let body = serde_json::json!({"error": "cgf5bg9hzc1v", "error_description": "x".repeat(5000)}).to_string();
        let line = refusal(&body, &[b"cgf5bg9hzc1vzi1hlwp3da"]).line();
        assert_eq!(line, WITHHELD, "neither a name of pieces nor a message that is too long is shown");
    }
}
