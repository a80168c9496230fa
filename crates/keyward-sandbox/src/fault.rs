//! Faults on request: the ways in which a network, a proxy or a broken server spoils an answer.
//!
//! A fault is applied after the request has been checked, so that a one-time assertion counts as spent although its answer
//! was lost, as it may be with the real server. A token inside of a spoilt answer was never minted: whoever uses it gets a
//! 401. Set by [`crate::control`], taken by the endpoints.

use crate::answer::{Answer, Asked, Body};
use crate::sandbox::Sandbox;
use bytes::Bytes;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use std::time::Duration;

/// Size of the body of [`Fault::Oversized`], in bytes; SDKs refuse more than 1 MiB.
const OVERSIZED_BYTES: usize = 2 * 1024 * 1024;

/// How long [`Fault::Slow`] takes, and in how many pieces.
const SLOW: (Duration, u32) = (Duration::from_secs(3), 6);

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// `POST /v1/oauth/token`.
    Token,
    /// The rest of `/v1/`.
    Messages,
    /// `POST /idp/token`.
    Idp,
    /// Below `/openai/`.
    Openai,
    /// Below `/model/`.
    Bedrock,
    /// Below `/v1/projects/`.
    Vertex,
    /// Below `/anthropic/`.
    Foundry,
    /// `POST /google/token` and the metadata server of Google.
    Google,
    /// Below `/entra/`.
    Entra,
    /// The metadata service and the container endpoint of AWS.
    Aws,
    /// `POST /oauth/revoke`.
    Revoke,
}

impl At {
    /// All places.
    pub(crate) const ALL: [Self; 11] = [
        Self::Token,
        Self::Messages,
        Self::Idp,
        Self::Openai,
        Self::Bedrock,
        Self::Vertex,
        Self::Foundry,
        Self::Google,
        Self::Entra,
        Self::Aws,
        Self::Revoke,
    ];

    /// Name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Messages => "messages",
            Self::Idp => "idp",
            Self::Openai => "openai",
            Self::Bedrock => "bedrock",
            Self::Vertex => "vertex",
            Self::Foundry => "foundry",
            Self::Google => "google",
            Self::Entra => "entra",
            Self::Aws => "aws",
            Self::Revoke => "revoke",
        }
    }

    /// All names, for an error.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Whether tokens are given there, so that they can be spoilt.
    pub(crate) fn gives_tokens(self) -> bool {
        matches!(self, Self::Token | Self::Idp | Self::Google | Self::Entra)
    }
}

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer, ever.
    Hang,
    /// The right answer, in pieces, 3 s late.
    Slow,
    /// The connection is reset.
    Reset,
    /// JSON that is cut off.
    Malformed,
    /// 200 with a page of HTML.
    Html,
    /// 200 with a JSON array.
    Array,
    /// 200 with 2 MiB of valid JSON.
    Oversized,
    /// `token_type` is `mac`.
    WrongTokenType,
    /// No `expires_in`.
    NoExpiresIn,
    /// `expires_in` is a string.
    StringExpiresIn,
    /// `expires_in` is 0.
    ZeroExpiresIn,
    /// 400 that quotes the secret that was sent, in its message and as its `request-id`.
    Echo,
    /// A plain error of this status.
    Status(u16),
    /// 307 to `/sandbox/trap`.
    Redirect,
    /// A line end inside of the token.
    NewlineToken,
    /// The token is the empty string.
    EmptyToken,
}

impl Fault {
    const NAMES: [(&'static str, Self); 21] = [
        ("hang", Self::Hang),
        ("slow", Self::Slow),
        ("reset", Self::Reset),
        ("malformed", Self::Malformed),
        ("html", Self::Html),
        ("array", Self::Array),
        ("oversized", Self::Oversized),
        ("wrong_token_type", Self::WrongTokenType),
        ("no_expires_in", Self::NoExpiresIn),
        ("string_expires_in", Self::StringExpiresIn),
        ("zero_expires_in", Self::ZeroExpiresIn),
        ("echo", Self::Echo),
        ("400", Self::Status(400)),
        ("401", Self::Status(401)),
        ("403", Self::Status(403)),
        ("429", Self::Status(429)),
        ("500", Self::Status(500)),
        ("503", Self::Status(503)),
        ("redirect", Self::Redirect),
        ("newline_token", Self::NewlineToken),
        ("empty_token", Self::EmptyToken),
    ];

    /// Reads the name on the wire.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
    }

    /// All names, for an error.
    pub(crate) fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    /// Whether it spoils a token, so that it cannot strike where none is given.
    pub(crate) fn needs_token(self) -> bool {
        use Fault::{EmptyToken, NewlineToken, NoExpiresIn, StringExpiresIn, WrongTokenType, ZeroExpiresIn};
        matches!(self, WrongTokenType | NoExpiresIn | StringExpiresIn | ZeroExpiresIn | NewlineToken | EmptyToken)
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Hang => "fault:hang",
            Self::Slow => "fault:slow",
            Self::Reset => "fault:reset",
            Self::Malformed => "fault:malformed",
            Self::Html => "fault:html",
            Self::Array => "fault:array",
            Self::Oversized => "fault:oversized",
            Self::WrongTokenType => "fault:wrong_token_type",
            Self::NoExpiresIn => "fault:no_expires_in",
            Self::StringExpiresIn => "fault:string_expires_in",
            Self::ZeroExpiresIn => "fault:zero_expires_in",
            Self::Echo => "fault:echo",
            Self::Status(_) => "fault:status",
            Self::Redirect => "fault:redirect",
            Self::NewlineToken => "fault:newline_token",
            Self::EmptyToken => "fault:empty_token",
        }
    }
}

/// A fault that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    /// Where.
    pub(crate) at: At,
    /// What.
    pub(crate) fault: Fault,
    /// How often it still strikes; `None` until it is cleared.
    pub(crate) left: Option<u64>,
    /// `retry-after` of an error, in seconds.
    pub(crate) retry_after_s: Option<u64>,
}

/// The faults that wait: at most one for each place.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Armed>);

impl Faults {
    /// Puts a fault in the place of the one that waits there.
    pub(crate) fn arm(&mut self, armed: Armed) {
        self.0.retain(|other| other.at != armed.at);
        self.0.push(armed);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that strikes this request, if one waits.
    pub(crate) fn take(&mut self, at: At) -> Option<Armed> {
        let armed = self.0.iter_mut().find(|armed| armed.at == at)?;
        let taken = *armed;
        if let Some(left) = &mut armed.left {
            *left = left.saturating_sub(1);
        }
        self.0.retain(|armed| armed.left != Some(0));
        Some(taken)
    }
}

/// What a fault has to work with.
pub(crate) struct Sample<'s> {
    /// A right answer of which no part counts.
    pub(crate) good: Value,
    /// The secret that the client sent.
    pub(crate) secret: &'s str,
    /// Where a redirect leads.
    pub(crate) base_url: &'s str,
}

/// Answers by `answer`, which is told whether its answer will be kept, and spoils that with the fault that waits there.
pub(crate) fn struck(
    sandbox: &Sandbox,
    asked: &Asked,
    at: At,
    secret: &str,
    answer: impl FnOnce(bool) -> Result<Answer, String>,
) -> Result<Answer, String> {
    let armed = sandbox.state().faults.take(at);
    let answer = answer(armed.is_none_or(|armed| armed.fault == Fault::Slow))?;
    let Some(armed) = armed else { return Ok(answer) };
    let good = if at.gives_tokens() {
        json!({"access_token": crate::sandbox::token()?, "token_type": "Bearer", "expires_in": 3600})
    } else {
        json!({"spoilt": true})
    };
    Ok(spoil(armed, asked, answer, Sample { good, secret, base_url: &sandbox.base_url }))
}

/// Spoils `answer`. What it says about the request stays, its reason becomes the fault.
pub(crate) fn spoil(armed: Armed, asked: &Asked, answer: Answer, sample: Sample<'_>) -> Answer {
    let Sample { mut good, secret, base_url } = sample;
    let note = answer.note;
    let mut spoilt = match armed.fault {
        Fault::Slow => slowed(Answer { note: crate::journal::Note::default(), ..answer }),
        Fault::Hang => Answer { body: Body::Hang, ..Answer::json(200, &Value::Null) },
        Fault::Reset => Answer { body: Body::Reset, ..Answer::json(200, &Value::Null) },
        Fault::Malformed => {
            let mut text = good.to_string();
            text.pop();
            Answer::text(200, "application/json", text)
        }
        Fault::Html => Answer::text(200, "text/html", "<!doctype html><title>Sign in</title><p>Sign in".into()),
        Fault::Array => Answer::json(200, &json!([good])),
        Fault::Oversized => {
            good["padding"] = "x".repeat(OVERSIZED_BYTES).into();
            Answer::json(200, &good)
        }
        Fault::WrongTokenType => {
            good["token_type"] = "mac".into();
            Answer::json(200, &good)
        }
        Fault::NoExpiresIn => {
            if let Some(fields) = good.as_object_mut() {
                fields.remove("expires_in");
            }
            Answer::json(200, &good)
        }
        Fault::StringExpiresIn => {
            good["expires_in"] = "3600".into();
            Answer::json(200, &good)
        }
        Fault::ZeroExpiresIn => {
            good["expires_in"] = 0.into();
            Answer::json(200, &good)
        }
        Fault::NewlineToken => {
            let token = good["access_token"].as_str().unwrap_or_default().to_owned();
            good["access_token"] = format!("{token}\r\nx-smuggled: 1").into();
            Answer::json(200, &good)
        }
        Fault::EmptyToken => {
            good["access_token"] = "".into();
            Answer::json(200, &good)
        }
        Fault::Echo => {
            let error = error(armed.at, asked, 400, &format!("cannot take {secret}"));
            // What no header can hold stands in the message alone.
            let holds = !secret.is_empty() && HeaderValue::from_str(secret).is_ok();
            if holds { error.with("request-id", secret) } else { error }
        }
        Fault::Status(status) => error(armed.at, asked, status, "the sandbox was told to fail"),
        Fault::Redirect => {
            Answer::json(307, &json!({"moved": true})).with("location", format!("{base_url}/sandbox/trap"))
        }
    };
    if let Some(seconds) = armed.retry_after_s {
        spoilt = spoilt.with("retry-after", seconds.to_string());
    }
    spoilt.note = note;
    spoilt.because(armed.fault.reason())
}

fn error(at: At, asked: &Asked, status: u16, message: &str) -> Answer {
    let (api, oauth) = match status {
        400 if at == At::Token => ("invalid_grant", "invalid_grant"),
        400 => ("invalid_request_error", "invalid_request"),
        401 => ("authentication_error", "invalid_client"),
        403 => ("permission_error", "access_denied"),
        429 => ("rate_limit_error", "temporarily_unavailable"),
        _ => ("api_error", "server_error"),
    };
    match at {
        At::Idp | At::Google | At::Entra | At::Revoke => Answer::oauth_error(status, oauth, message, ""),
        At::Token | At::Messages | At::Foundry => Answer::api_error(asked, status, api, message, ""),
        At::Openai => Answer::openai_error(status, api, message, ""),
        At::Vertex => Answer::google_error(status, "UNKNOWN", message, ""),
        At::Bedrock | At::Aws => Answer::aws_error(status, "InternalServerException", message, ""),
    }
}

/// Spreads a body over the time of [`SLOW`].
fn slowed(answer: Answer) -> Answer {
    let (time, pieces) = SLOW;
    let body = match answer.body {
        Body::Whole(text) => {
            let size = text.len().div_ceil(pieces as usize).max(1);
            let chunks = text.as_bytes().chunks(size);
            let pause = time / u32::try_from(chunks.len()).unwrap_or(pieces).max(1);
            Body::Pieces(chunks.map(|piece| (pause, Bytes::copy_from_slice(piece))).collect())
        }
        Body::Pieces(mut all) => {
            all.insert(0, (time, Bytes::new()));
            Body::Pieces(all)
        }
        other => other,
    };
    Answer { body, ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(at: At, left: Option<u64>) -> Armed {
        Armed { at, fault: Fault::Hang, left, retry_after_s: None }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_was_told_and_only_there() {
        let mut faults = Faults::default();
        faults.arm(armed(At::Token, Some(2)));
        assert!(faults.take(At::Idp).is_none());
        assert!(faults.take(At::Token).is_some() && faults.take(At::Token).is_some());
        assert!(faults.take(At::Token).is_none());
        faults.arm(armed(At::Token, None));
        faults.arm(armed(At::Idp, Some(1)));
        assert!((0..9).all(|_| faults.take(At::Token).is_some()));
        faults.clear();
        assert!(faults.take(At::Token).is_none() && faults.take(At::Idp).is_none());
    }

    #[test]
    fn a_second_fault_at_a_place_replaces_the_first() {
        let mut faults = Faults::default();
        faults.arm(armed(At::Token, None));
        faults.arm(Armed { fault: Fault::Html, ..armed(At::Token, Some(1)) });
        assert_eq!(faults.take(At::Token).map(|armed| armed.fault), Some(Fault::Html));
        assert!(faults.take(At::Token).is_none());
    }

    #[test]
    fn a_slow_answer_is_the_whole_answer_over_three_seconds() {
        let slow = slowed(Answer::text(200, "text/plain", "grüße, world".into()));
        let Body::Pieces(pieces) = slow.body else { unreachable!("a slow answer comes in pieces") };
        assert_eq!(pieces.iter().map(|(after, _)| *after).sum::<Duration>(), SLOW.0);
        let whole: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
        assert_eq!(whole, "grüße, world".as_bytes());
    }
}
