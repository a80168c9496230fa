//! Where the gateway sends the requests of a profile, and how it puts the credential on them.
//!
//! Pure: a profile and the facts of its provider in, a [`Target`] out. Nothing here asks a host. Called when a profile is
//! read; used by the broker, which tells the gateway.

use crate::{Fence, check_url};
use keyward_secret::{SecretBytes, SecretError, SecretText};
use serde_json::json;
use url::{Host, Url};

/// Path on the gateway that plays the token endpoint of Google for [`google_adc`].
pub const GOOGLE_TOKEN_PATH: &str = "/keyward/google-token";

/// Most calls that a profile may name.
const CALLS_MAX: usize = 64;

/// Longest pattern of a call, in bytes.
const CALL_MAX_BYTES: usize = 512;

/// Headers that cannot carry a credential: they frame the message or belong to one connection (RFC 9110 section 7.6.1).
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Where a credential may go. Taken from the profile; nothing that a client says changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `https`; `http` for a loopback address only.
    pub tls: bool,
    /// Host name or address, as it stands in `Host`, without port.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path before that of each request, without a slash at its end; often empty.
    pub base: String,
}

/// How the credential is put on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// `Authorization: Bearer CREDENTIAL` (RFC 6750 section 2.1).
    Bearer,
    /// As [`Placement::Bearer`], with the flag that Anthropic wants beside tokens of OAuth added to `anthropic-beta`.
    BearerOauth,
    /// The header of this lower-case name, with the text before the credential (often empty).
    Header(String, String),
    /// The query parameter of this name.
    Query(String),
    /// AWS Signature Version 4 for a service and a region; the credential is a JSON document with `AccessKeyId`,
    /// `SecretAccessKey` and, if there is one, `SessionToken`. The body is gathered, since its digest is signed.
    SigV4 {
        /// Service, as it is signed (`bedrock`).
        service: String,
        /// Region.
        region: String,
    },
}

/// What the gateway does for a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the API in the gateway's own list, which says what may be called: `anthropic`, `generic`.
    pub route: String,
    /// Where requests go.
    pub upstream: Upstream,
    /// How the credential is put on them.
    pub placement: Placement,
    /// The calls that the profile limits itself to, as `METHOD /path` patterns; empty for all that the API's list allows. Others
    /// of that list wait for a person.
    pub only: Vec<String>,
    /// Connections of processes that are not in the tree of the run are let in, as long as they are of this user: one of another
    /// user, as that of a container whose user is mapped, is closed unread all the same.
    pub containers: bool,
    /// Limits of each lease.
    pub fence: Option<Fence>,
}

impl Upstream {
    /// Reads the URL of an API, `https` or loopback `http` as [`check_url`] says. A client of the API is sent to the gateway
    /// with `path` at the end of its base URL, so that `path` is in each request already: it is taken off the URL's end.
    ///
    /// # Errors
    /// One sentence that never quotes the URL.
    pub fn parse(text: &str, path: &str) -> Result<Self, String> {
        let url = check_url(text)?;
        let whole = url.path().trim_end_matches('/');
        if whole.contains("//") || whole.contains('%') {
            return Err("the path of the URL has an empty part or a percent sign".to_owned());
        }
        let host = match url.host() {
            Some(Host::Ipv6(ip)) => format!("[{ip}]"),
            Some(host) => host.to_string(),
            None => return Err("the URL names no host".to_owned()),
        };
        Ok(Self {
            tls: url.scheme() == "https",
            host,
            port: Url::port_or_known_default(&url).unwrap_or(443),
            base: whole.strip_suffix(path).unwrap_or(whole).to_owned(),
        })
    }
}

/// Checks the name of a header that a credential is put in: an RFC 9110 token in lower case, and none that frames messages.
pub(crate) fn check_header(name: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(token) {
        return Err("is not the name of a header in lower case".to_owned());
    }
    if FRAMING.contains(&name) {
        return Err(format!("cannot be `{name}`, which belongs to the message and not to who sends it"));
    }
    Ok(())
}

/// Checks the text that stands before a credential in its header: printable ASCII.
pub(crate) fn check_prefix(text: &str) -> Result<(), String> {
    match text.len() <= 64 && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        true => Ok(()),
        false => Err("is not at most 64 printable ASCII characters".to_owned()),
    }
}

/// Checks the name of a query parameter that a credential is put in: unreserved characters (RFC 3986 section 2.3).
pub(crate) fn check_query(name: &str) -> Result<(), String> {
    match (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
        true => Ok(()),
        false => Err("is not the name of a query parameter".to_owned()),
    }
}

/// Checks a region of a cloud, which becomes part of a host name.
pub(crate) fn check_region(name: &str) -> Result<(), String> {
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    match inner && (1..=40).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-') {
        true => Ok(()),
        false => Err("is not the name of a region".to_owned()),
    }
}

/// Checks the calls that a profile limits itself to: each is `METHOD /path`. What `{…}` in a path means is the gateway's.
pub(crate) fn check_calls(calls: &[String]) -> Result<(), String> {
    if calls.is_empty() || calls.len() > CALLS_MAX {
        return Err(format!("names no call, or more than {CALLS_MAX}"));
    }
    for call in calls {
        let Some((method, path)) = call.split_once(' ') else {
            return Err("holds a call that is not written as \"POST /v1/messages\"".to_owned());
        };
        let known = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) && method.len() <= 20;
        let plain = path.starts_with('/') && path.bytes().all(|b| (0x21..0x7f).contains(&b) && !b"?#\\%".contains(&b));
        if !known || !plain || path.contains("//") || call.len() > CALL_MAX_BYTES {
            return Err("holds a call that is not written as \"POST /v1/messages\"".to_owned());
        }
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err("holds a path with dots in the place of a name".to_owned());
        }
        if method == "CONNECT" || method == "TRACE" {
            return Err(format!("names {method}, which the gateway never passes on"));
        }
    }
    Ok(())
}

/// The file from which Google's clients learn how to get an access token (AIP-4117, `external_account`): they read the run
/// token out of this very file, which is to lie at `path`, and present it at the gateway, which answers with the same token.
///
/// # Errors
/// [`SecretError`] when the file would be longer than a secret may be.
pub fn google_adc(gateway: &str, path: &str, token: &SecretText) -> Result<SecretBytes, SecretError> {
    // EXPOSE: the run token goes into the file that carries it.
    let text = token.expose(|token| {
        json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/keyward",
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_url": format!("{gateway}{GOOGLE_TOKEN_PATH}"),
            "credential_source": {
                "file": path,
                "format": { "type": "json", "subject_token_field_name": "run_token" },
            },
            "run_token": token,
        })
        .to_string()
    });
    SecretBytes::new(text.into_bytes())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_upstream_is_read_from_a_checked_url_less_the_path_that_clients_add() {
        for (text, path, tls, host, port, base) in [
            ("https://api.anthropic.com", "", true, "api.anthropic.com", 443, ""),
            ("https://API.OpenAI.com/v1/", "/v1", true, "api.openai.com", 443, ""),
            ("https://api.groq.com/openai/v1", "/v1", true, "api.groq.com", 443, "/openai"),
            ("http://127.0.0.1:8080", "/v1", false, "127.0.0.1", 8080, ""),
            ("http://[::1]:9/x/y/", "", false, "[::1]", 9, "/x/y"),
            ("https://h/a/../b", "", true, "h", 443, "/b"),
        ] {
            let want = Upstream { tls, host: host.into(), port, base: base.into() };
            assert_eq!(Upstream::parse(text, path), Ok(want), "{text}");
        }
        for bad in ["http://api.anthropic.com", "https://u:p@h", "https://h/?a", "https://h//x", "https://h/%41", ""] {
            assert!(Upstream::parse(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_profile_says_about_placing_cannot_break_a_message() {
        for bad in ["host", "content-length", "X-Api-Key", "x api", "x:y", "", "a\r\nb", "connection"] {
            assert!(check_header(bad).is_err(), "{bad:?}");
        }
        assert!(check_header("x-api-key").is_ok() && check_header("authorization").is_ok());
        assert!(check_prefix("Bearer ").is_ok() && check_prefix("a\r\nb: c").is_err() && check_prefix("ä").is_err());
        assert!(check_query("key").is_ok() && check_query("a&b").is_err() && check_query("").is_err());
        assert!(check_region("eu-west-1").is_ok());
        for bad in ["", "eu.evil.example/", "EU", "a@b", "-x", "x-", "us-east-1#"] {
            assert!(check_region(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn calls_are_a_method_and_a_path() {
        let check = |call: &str| check_calls(&[call.to_owned()]);
        for good in ["POST /v1/messages", "GET /v1/models/{id}", "GET /repos/{rest...}", "GET /"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "POST",
            "/v1/messages",
            "post /v1",
            "POST v1",
            "POST /a b",
            "GET /a?b",
            "GET /a/../b",
            "GET /./b",
            "GET //b",
            "GET /%2e",
            "GET /a\\b",
            "TRACE /",
            "CONNECT /",
            "",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_calls(&[]).is_err() && check_calls(&vec!["GET /".to_owned(); 65]).is_err());
    }

    #[test]
    fn the_file_for_google_clients_points_to_itself_and_to_the_gateway() {
        let token = SecretText::new("kwr_x".to_owned()).unwrap();
        let file = google_adc("http://127.0.0.1:9", "/run/l/adc", &token).unwrap();
        // EXPOSE: the test reads what was made.
        let read: serde_json::Value = file.expose(|bytes| serde_json::from_slice(bytes)).unwrap();
        assert_eq!(read["token_url"], "http://127.0.0.1:9/keyward/google-token");
        assert_eq!((&read["credential_source"]["file"], &read["run_token"]), (&json!("/run/l/adc"), &json!("kwr_x")));
    }
}
