//! Errors of ours in the shape of the API's own, so that an unmodified client shows them to its user.
//!
//! A refusal says `code: what — remedy` where the client looks for a message. Nothing of the request, and no secret, is in
//! it. The service makes the answer with this module and sends it.

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use keyward_diag::{Code, Fault};
use serde_json::json;

/// How errors of an API look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`
    /// (<https://platform.claude.com/docs/en/api/errors>).
    Anthropic,
    /// `{"error": {"message", "type", "param", "code"}}` (<https://platform.openai.com/docs/guides/error-codes>).
    OpenAi,
    /// Both of these in one: Foundry serves clients of either.
    Foundry,
    /// `{"error": {"code", "message", "status"}}`, with the names of `google.rpc.Code` (AIP-193).
    Google,
    /// `{"message"}` and the header `x-amzn-errortype` (the restJson1 protocol of Smithy).
    Aws,
    /// `{"message", "documentation_url", "status"}`
    /// (<https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api>).
    GitHub,
    /// All that the others look for, and the fields of a [`Fault`].
    Generic,
}

impl Shape {
    /// The shape that a client most likely understands, by the headers and the path of its request: for refusals before it
    /// is known which API a token opens. Nothing but the words of the refusal depends on it.
    pub(crate) fn guess(path: &str, headers: &HeaderMap) -> Self {
        let says = |name: &str, what: &str| {
            headers.get(name).is_some_and(|value| String::from_utf8_lossy(value.as_bytes()).contains(what))
        };
        if path.starts_with("/model/") {
            Self::Aws
        } else if headers.contains_key("api-key") || path.starts_with("/openai/") || path.starts_with("/anthropic/") {
            Self::Foundry
        } else if headers.contains_key("anthropic-version") || path.starts_with("/v1/messages") {
            Self::Anthropic
        } else if headers.contains_key("x-goog-api-key")
            || headers.contains_key("x-goog-api-client")
            || path.contains("/publishers/")
            || path.contains(":generateContent")
        {
            Self::Google
        } else if headers.contains_key("x-github-api-version")
            || says("accept", "vnd.github")
            || path.starts_with("/repos/")
        {
            Self::GitHub
        } else if headers.contains_key("x-stainless-lang")
            || path.ends_with("/responses")
            || path.ends_with("/chat/completions")
        {
            Self::OpenAi
        } else {
            Self::Generic
        }
    }

    /// The answer that tells a client why its request went nowhere: status, JSON body, `x-keyward-code` with the code, and
    /// for AWS the header that its clients read. A refusal in the shape of AWS is 400, as services of AWS with JSON have it too:
    /// the name of the error is in that header, and Claude Code repeats a 403 of Bedrock for minutes, whatever it says. Clients made by Stainless (those of Anthropic and OpenAI) try again by
    /// themselves after a 5xx; `x-should-retry: false` keeps them from it where another try can bring nothing.
    pub(crate) fn answer(self, fault: &Fault) -> Response<String> {
        let status = status(fault.code);
        let words = words(status);
        let message = message(fault);
        let code = fault.code.name();
        let body = match self {
            Self::Anthropic => json!({
                "type": "error",
                "error": {"type": words.anthropic, "message": message},
                "request_id": null,
            }),
            Self::OpenAi => json!({
                "error": {"message": message, "type": words.openai, "param": null, "code": code},
            }),
            Self::Foundry => json!({
                "type": "error",
                "error": {"type": words.anthropic, "message": message, "param": null, "code": code},
                "request_id": null,
            }),
            Self::Google => json!({
                "error": {"code": status.as_u16(), "message": message, "status": words.google},
            }),
            Self::Aws => json!({"message": message}),
            Self::GitHub => json!({
                "message": message,
                "documentation_url": "https://docs.github.com/rest",
                "status": status.as_str(),
            }),
            Self::Generic => json!({
                "type": "error",
                "error": {
                    "type": words.anthropic,
                    "message": message,
                    "param": null,
                    "code": code,
                    "status": words.google,
                },
                "code": code,
                "message": message,
                "causes": fault.causes,
                "help": fault.help,
            }),
        };
        let mut answer = Response::new(body.to_string());
        let is_refused = self == Self::Aws && status == StatusCode::FORBIDDEN;
        *answer.status_mut() = if is_refused { StatusCode::BAD_REQUEST } else { status };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("x-keyward-code"), HeaderValue::from_static(code));
        if !again(fault.code) {
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        if self == Self::Aws {
            headers.insert(HeaderName::from_static("x-amzn-errortype"), HeaderValue::from_static(words.aws));
        }
        answer
    }
}

/// `code: message (cause; cause) — help`.
fn message(fault: &Fault) -> String {
    let causes = if fault.causes.is_empty() { String::new() } else { format!(" ({})", fault.causes.join("; ")) };
    format!("{}: {}{causes} — {}", fault.code, fault.message, fault.help)
}

/// The status of a refusal. 401: there is no token that is known. 403: it is known and may not, or what it stands for cannot
/// be had. 400: the request itself. 502 and 504: the host behind. 503: this vault or log, at this moment.
fn status(code: Code) -> StatusCode {
    match code {
        Code::GatewayRequest | Code::GatewayPath => StatusCode::BAD_REQUEST,
        Code::GatewayBody => StatusCode::PAYLOAD_TOO_LARGE,
        Code::GatewayToken => StatusCode::UNAUTHORIZED,
        Code::GatewayUpstream
        | Code::GatewayCertificate
        | Code::IssuerFailed
        | Code::IssuerAnswer
        | Code::IssuerUnreachable => StatusCode::BAD_GATEWAY,
        Code::IssuerTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::VaultLocked
        | Code::VaultAbsent
        | Code::VaultDiskFull
        | Code::VaultIo
        | Code::AuditBroken
        | Code::AuditUnavailable
        | Code::Busy
        | Code::IssuerBusy => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    }
}

/// Whether the same request may succeed a moment later without a person.
fn again(code: Code) -> bool {
    matches!(
        code,
        Code::GatewayUpstream | Code::IssuerUnreachable | Code::IssuerTimeout | Code::IssuerBusy | Code::Busy
    )
}

/// What vendors call a status.
struct Words {
    anthropic: &'static str,
    openai: &'static str,
    google: &'static str,
    aws: &'static str,
}

fn words(status: StatusCode) -> Words {
    let [anthropic, openai, google, aws] = match status.as_u16() {
        400 => ["invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException"],
        401 => ["authentication_error", "authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException"],
        403 => ["permission_error", "permission_error", "PERMISSION_DENIED", "AccessDeniedException"],
        413 => ["request_too_large", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException"],
        502 | 503 => ["api_error", "server_error", "UNAVAILABLE", "ServiceUnavailableException"],
        504 => ["timeout_error", "server_error", "DEADLINE_EXCEEDED", "ServiceUnavailableException"],
        _ => ["api_error", "server_error", "INTERNAL", "InternalServerException"],
    };
    Words { anthropic, openai, google, aws }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::Value;

    const SHAPES: [Shape; 7] =
        [Shape::Anthropic, Shape::OpenAi, Shape::Foundry, Shape::Google, Shape::Aws, Shape::GitHub, Shape::Generic];

    fn body(shape: Shape, fault: &Fault) -> (Response<String>, Value) {
        let answer = shape.answer(fault);
        let body = serde_json::from_str(answer.body()).unwrap();
        (answer, body)
    }

    #[test]
    fn each_shape_is_the_one_of_its_vendor() {
        let fault = Fault::new(Code::LeaseRevoked);
        let words = "lease.revoked: the credential was taken back — to ask for it anew, start the program again with `keyward run`";
        let expected = [
            json!({"type": "error", "error": {"type": "permission_error", "message": words}, "request_id": null}),
            json!({"error": {"message": words, "type": "permission_error", "param": null, "code": "lease.revoked"}}),
            json!({"type": "error", "error": {"type": "permission_error", "message": words, "param": null, "code": "lease.revoked"}, "request_id": null}),
            json!({"error": {"code": 403, "message": words, "status": "PERMISSION_DENIED"}}),
            json!({"message": words}),
            json!({"message": words, "documentation_url": "https://docs.github.com/rest", "status": "403"}),
        ];
        for (shape, expected) in SHAPES.into_iter().zip(expected) {
            let (answer, body) = body(shape, &fault);
            assert_eq!(body, expected, "{shape:?}");
            assert_eq!(answer.status(), if shape == Shape::Aws { 400 } else { 403 });
            assert_eq!(answer.headers()["content-type"], "application/json");
            assert_eq!(answer.headers()["x-keyward-code"], "lease.revoked");
            assert_eq!(answer.headers()["x-should-retry"], "false");
            assert_eq!(answer.headers().contains_key("x-amzn-errortype"), shape == Shape::Aws);
        }
        assert_eq!(Shape::Aws.answer(&fault).headers()["x-amzn-errortype"], "AccessDeniedException");
    }

    #[test]
    fn every_code_has_an_answer_in_every_shape_with_its_code_and_remedy() {
        for code in Code::ALL {
            let fault = Fault::new(*code).cause("a \"cause\"\nof others");
            for shape in SHAPES {
                let (answer, body) = body(shape, &fault);
                assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{code}");
                let message = body["error"]["message"].as_str().or(body["message"].as_str()).unwrap();
                assert!(message.starts_with(&format!("{code}: ")), "{message}");
                assert!(message.ends_with(&fault.help), "{message}");
                assert!(message.contains("(a \"cause\"\\u{a}of others)"), "{message}");
            }
        }
    }

    #[test]
    fn a_status_says_who_must_act() {
        for (code, expected) in [
            (Code::GatewayRequest, 400),
            (Code::GatewayPath, 400),
            (Code::GatewayToken, 401),
            (Code::GatewayNotAllowed, 403),
            (Code::GatewayUnverified, 403),
            (Code::GatewayCaller, 403),
            (Code::GatewayCrossSite, 403),
            (Code::LeaseRevoked, 403),
            (Code::LeaseExpired, 403),
            (Code::LeaseOver, 403),
            (Code::IssuerRefused, 403),
            (Code::IdentitySpent, 403),
            (Code::GatewayBody, 413),
            (Code::Internal, 500),
            (Code::GatewayUpstream, 502),
            (Code::GatewayCertificate, 502),
            (Code::IssuerUnreachable, 502),
            (Code::VaultLocked, 503),
            (Code::AuditUnavailable, 503),
            (Code::IssuerTimeout, 504),
        ] {
            assert_eq!(status(code), expected, "{code}");
        }
    }

    #[test]
    fn only_what_mends_itself_is_tried_again() {
        for (code, retried) in [(Code::GatewayUpstream, true), (Code::Busy, true), (Code::VaultLocked, false)] {
            let headers = Shape::Anthropic.answer(&Fault::new(code)).headers().clone();
            assert_eq!(!headers.contains_key("x-should-retry"), retried, "{code}");
        }
    }

    #[test]
    fn a_client_is_told_by_its_headers_and_path() {
        for (path, header, expected) in [
            ("/v1/messages", "", Shape::Anthropic),
            ("/v1/models", "anthropic-version: 2023-06-01", Shape::Anthropic),
            ("/model/x/invoke", "anthropic-version: 2023-06-01", Shape::Aws),
            ("/anthropic/v1/messages", "anthropic-version: 2023-06-01", Shape::Foundry),
            ("/v1/messages", "api-key: x", Shape::Foundry),
            ("/v1beta/models/x:generateContent", "", Shape::Google),
            ("/v1beta/models", "x-goog-api-key: x", Shape::Google),
            ("/v1/responses", "", Shape::OpenAi),
            ("/v1/models", "x-stainless-lang: python", Shape::OpenAi),
            ("/user", "accept: application/vnd.github+json", Shape::GitHub),
            ("/", "", Shape::Generic),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header.split_once(": ") {
                headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            assert_eq!(Shape::guess(path, &headers), expected, "{path} {header}");
        }
    }
}
