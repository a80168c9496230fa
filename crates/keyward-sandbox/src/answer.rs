//! What comes in and what goes out, before and after HTTP.
//!
//! Holds the shapes of errors: the API's (`type`, `error`, `request_id`), RFC 6749's and those of the clouds. Never writes to a socket; that is
//! [`crate::serve`]. Called by every endpoint.

use crate::journal::Note;
use bytes::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// One request, read whole.
pub(crate) struct Asked {
    /// Method.
    pub(crate) method: Method,
    /// Path without the query, as it was sent.
    pub(crate) path: String,
    /// The query, as it was sent; empty where there is none.
    pub(crate) query: String,
    /// Header fields.
    pub(crate) headers: HeaderMap,
    /// The body; `None` when it is larger than the endpoint takes.
    pub(crate) body: Option<Vec<u8>>,
    /// Sent back as `request-id` and in errors.
    pub(crate) request_id: String,
}

impl Asked {
    /// A header field that is there once and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(one), None) => one.to_str().ok(),
            _ => None,
        }
    }

    /// The token of `Authorization: Bearer`, where that field is there once.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ").filter(|token| !token.is_empty())
    }

    /// The parameters of a form, each of which stands there once and has a value. Fails with the reason for the journal.
    pub(crate) fn form(&self, known: &[&str]) -> Result<BTreeMap<String, String>, &'static str> {
        if self.method != Method::POST {
            return Err("method");
        }
        if !self.is_of_type("application/x-www-form-urlencoded") {
            return Err("content_type");
        }
        let mut form = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(self.body.as_deref().ok_or("body_too_large")?) {
            if !known.contains(&name.as_ref()) {
                return Err("unknown_field");
            }
            if form.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err("field_twice");
            }
        }
        form.retain(|_, value| !value.is_empty());
        Ok(form)
    }

    /// Whether the body is declared to be of this media type; parameters such as `charset` are ignored.
    pub(crate) fn is_of_type(&self, media: &str) -> bool {
        let declared = self.header("content-type").and_then(|value| value.split(';').next());
        declared.is_some_and(|declared| declared.trim().eq_ignore_ascii_case(media))
    }
}

/// What is sent back, and what the journal gets to know of it.
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// `content-type`.
    pub(crate) content_type: &'static str,
    /// Further header fields.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Body, or what happens in its place.
    pub(crate) body: Body,
    /// For the journal.
    pub(crate) note: Note,
}

/// A body, or what happens in its place.
pub(crate) enum Body {
    /// Sent at once.
    Whole(String),
    /// Each piece is sent that long after the one before.
    Pieces(Vec<(Duration, Bytes)>),
    /// No answer; the connection stays open until the client leaves.
    Hang,
    /// No answer; the connection is reset.
    Reset,
}

impl Answer {
    /// A JSON document.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// Text of some media type.
    pub(crate) fn text(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, headers: Vec::new(), body: Body::Whole(body), note: Note::default() }
    }

    /// An error in the API's shape; `reason` goes to the journal.
    pub(crate) fn api_error(asked: &Asked, status: u16, kind: &str, message: &str, reason: &'static str) -> Self {
        let error = json!({"type": kind, "message": message});
        let body = json!({"type": "error", "error": error, "request_id": asked.request_id});
        Self::json(status, &body).because(reason)
    }

    /// An error in the shape of RFC 6749, section 5.2; `reason` goes to the journal.
    pub(crate) fn oauth_error(status: u16, error: &str, description: &str, reason: &'static str) -> Self {
        Self::json(status, &json!({"error": error, "error_description": description})).because(reason)
    }

    /// An error in the shape of Google's APIs (cloud.google.com/apis/design/errors); `reason` goes to the journal.
    pub(crate) fn google_error(code: u16, status: &str, message: &str, reason: &'static str) -> Self {
        Self::json(code, &json!({"error": {"code": code, "message": message, "status": status}})).because(reason)
    }

    /// An error in the shape of AWS's REST-JSON services, with its name in the header; `reason` goes to the journal.
    pub(crate) fn aws_error(status: u16, name: &str, message: &str, reason: &'static str) -> Self {
        Self::json(status, &json!({"message": message})).because(reason).with("x-amzn-errortype", name)
    }

    /// An error in the shape of OpenAI's API; `reason` goes to the journal.
    pub(crate) fn openai_error(status: u16, code: &str, message: &str, reason: &'static str) -> Self {
        let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
        let error = json!({"message": message, "type": kind, "param": null, "code": code});
        Self::json(status, &json!({"error": error})).because(reason)
    }

    /// Adds a header field.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says the reason in the journal.
    #[must_use]
    pub(crate) fn because(mut self, reason: &'static str) -> Self {
        self.note.reason = Some(reason);
        self
    }
}

/// Takes a field that must be a string with something in it.
///
/// Fails with the words for the client. The value is never quoted.
pub(crate) fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(format!("{name}: it is empty; leave it out instead")),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name}: it is not a string")),
    }
}
