//! AWS Signature Version 4, in the `Authorization` header
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//!
//! Signs over the digest of the whole body. Paths are encoded a second time for the signature, as every service but S3 wants
//! it. Never sends anything, reads no clock and keeps no key. Called by the gateway when a request and its body are complete,
//! and by the issuer that asks STS.

use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keyward_secret::SecretBytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt::Write;
use zeroize::Zeroizing;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What is signed of a request, besides its headers.
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Host, with a port that is not the scheme's own: what the upstream sees as `Host`.
    pub host: &'a str,
    /// Path, as sent.
    pub path: &'a str,
    /// Query, as sent.
    pub query: Option<&'a str>,
    /// SHA-256 of the body.
    pub body: [u8; 32],
}

/// Three-part credentials, as the SDKs of AWS name them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys<'a> {
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    session_token: Option<Cow<'a, str>>,
}

/// Puts date, session token and signature into `headers`. Signed are the host, `content-type`, and all that begins with
/// `x-amz`, but for `x-amzn-trace-id`, which others on the way may change.
///
/// # Errors
/// What is wrong with the credential, in words that quote nothing of it.
pub fn sign(
    credential: &SecretBytes,
    (service, region): (&str, &str),
    request: &Request<'_>,
    headers: &mut HeaderMap,
    at: Timestamp,
) -> Result<(), &'static str> {
    // EXPOSE: the key signs, and the session token is sent.
    credential.expose(|bytes| {
        let keys: Keys<'_> = serde_json::from_slice(bytes)
            .map_err(|_| "it is not a JSON document with AccessKeyId and SecretAccessKey")?;
        with_keys(&keys, (service, region), request, headers, at)
    })
}

fn with_keys(
    keys: &Keys<'_>,
    (service, region): (&str, &str),
    request: &Request<'_>,
    headers: &mut HeaderMap,
    at: Timestamp,
) -> Result<(), &'static str> {
    const ODD: &str = "a part of it cannot stand in a header";
    let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = time.split('T').next().unwrap_or_default();
    headers.insert(DATE, HeaderValue::from_str(&time).map_err(|_| ODD)?);
    if let Some(token) = keys.session_token.as_deref().filter(|token| !token.is_empty()) {
        let mut token = HeaderValue::from_str(token).map_err(|_| ODD)?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
    }
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).filter(|name| is_signed(name)).collect();
    names.push("host");
    names.sort_unstable();
    let signed = names.join(";");
    // Holds the session token.
    let mut canonical = Zeroizing::new(String::with_capacity(2048));
    canonical.push_str(request.method);
    canonical.push('\n');
    for byte in request.path.bytes() {
        encode(byte, byte == b'/', &mut canonical);
    }
    canonical.push('\n');
    push_query(request.query.unwrap_or_default(), &mut canonical);
    canonical.push('\n');
    for name in names {
        canonical.push_str(name);
        canonical.push(':');
        if name == "host" {
            canonical.push_str(request.host);
        }
        for (n, value) in headers.get_all(name).iter().enumerate() {
            canonical.push_str(if n == 0 { "" } else { "," });
            let value = value.to_str().map_err(|_| "a header that must be signed is not ASCII")?;
            for (n, word) in value.split_ascii_whitespace().enumerate() {
                canonical.push_str(if n == 0 { "" } else { " " });
                canonical.push_str(word);
            }
        }
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(&signed);
    canonical.push('\n');
    canonical.push_str(&hex::encode(request.body));

    let scope = format!("{date}/{region}/{service}/aws4_request");
    let digest = hex::encode(Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
    let first = Zeroizing::new(["AWS4", &keys.secret_access_key].concat());
    let mut key = Zeroizing::new(mac(first.as_bytes(), date));
    for part in [region, service, "aws4_request"] {
        key = Zeroizing::new(mac(&*key, part));
    }
    let signature = hex::encode(mac(&*key, &text));
    let id = &keys.access_key_id;
    let header = format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
    let mut header = HeaderValue::try_from(header).map_err(|_| ODD)?;
    header.set_sensitive(true);
    headers.insert(AUTHORIZATION, header);
    Ok(())
}

fn is_signed(name: &str) -> bool {
    name == "content-type" || name.starts_with("x-amz") && name != "x-amzn-trace-id"
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    // A key of any length is taken (RFC 2104 section 2).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Writes the query with names and values encoded anew, sorted.
fn push_query(query: &str, out: &mut String) {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recoded(name), recoded(value))
        })
        .collect();
    pairs.sort_unstable();
    for (n, (name, value)) in pairs.iter().enumerate() {
        // Writing into a string cannot fail.
        let _ = write!(out, "{}{name}={value}", if n == 0 { "" } else { "&" });
    }
}

/// Encodes all but RFC 3986's unreserved characters; what is encoded already stays so, in capitals.
fn recoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let encoded = digits.and_then(|digits| std::str::from_utf8(digits).ok()).filter(|_| *byte == b'%');
        match encoded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                encode(decoded, false, &mut out);
                at += 3;
            }
            None => {
                encode(*byte, false, &mut out);
                at += 1;
            }
        }
    }
    out
}

fn encode(byte: u8, stands: bool, out: &mut String) {
    if stands || byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// AWS's own suite, `aws-sig-v4-test-suite`: its key, region, service and date.
    fn suite(method: &str, target: &str, headers: &[(&'static str, &str)], body: &[u8]) -> (String, HeaderMap) {
        let keys = SecretBytes::new(
            br#"{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}"#.to_vec(),
        );
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let body = Sha256::digest(body).into();
        let request = Request { method, host: "example.amazonaws.com", path, query, body };
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        sign(&keys.unwrap(), ("service", "us-east-1"), &request, &mut map, at).unwrap();
        let header = map.get(AUTHORIZATION).unwrap().to_str().unwrap().to_owned();
        (header.rsplit_once("Signature=").unwrap().1.to_owned(), map)
    }

    #[test]
    fn the_vectors_of_aws_are_met() {
        for (name, method, target, headers, body, signature) in [
            (
                "get-vanilla",
                "GET",
                "/",
                &[][..],
                &b""[..],
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                b"",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-vanilla-query-unreserved",
                "GET",
                "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                &[],
                b"",
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
            ("post-vanilla", "POST", "/", &[], b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "/",
                &[("content-type", "application/x-www-form-urlencoded")],
                b"Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            assert_eq!(suite(method, target, headers, body).0, signature, "{name}");
        }
    }

    #[test]
    fn a_session_token_is_sent_and_signed_and_the_path_is_encoded_twice() {
        let keys = br#"{"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T+/="}"#.to_vec();
        let keys = SecretBytes::new(keys).unwrap();
        let at: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let signed = |path: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amzn-bedrock-accept", HeaderValue::from_static("a  b"));
            headers.insert("x-amzn-trace-id", HeaderValue::from_static("t"));
            headers.insert("accept", HeaderValue::from_static("x"));
            let request = Request { method: "POST", host: "h", path, query: None, body: [0; 32] };
            sign(&keys, ("bedrock", "eu-west-1"), &request, &mut headers, at).unwrap();
            headers
        };
        let headers = signed("/model/us.anthropic.x-v1%3A0/invoke");
        assert_eq!(headers["x-amz-security-token"], "T+/=");
        let header = headers[AUTHORIZATION].to_str().unwrap();
        assert!(
            header.starts_with(
                "AWS4-HMAC-SHA256 Credential=A/20261121/eu-west-1/bedrock/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-security-token;x-amzn-bedrock-accept, Signature="
            ),
            "{header}"
        );
        assert_ne!(headers[AUTHORIZATION], signed("/model/us.anthropic.x-v1:0/invoke")[AUTHORIZATION]);
    }

    #[test]
    fn a_credential_of_another_form_is_refused_without_being_quoted() {
        for odd in ["sk-secret", r#"{"AccessKeyId":"A"}"#, r#"{"AccessKeyId":"A\n","SecretAccessKey":"s3cr3t"}"#] {
            let keys = SecretBytes::new(odd.as_bytes().to_vec()).unwrap();
            let request = Request { method: "GET", host: "h", path: "/", query: None, body: [0; 32] };
            let refused = sign(&keys, ("s", "r"), &request, &mut HeaderMap::new(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(!refused.contains("s3cr3t") && !refused.contains("sk-"), "{refused}");
        }
    }
}
