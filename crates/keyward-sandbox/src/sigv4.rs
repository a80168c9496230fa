//! Checks AWS Signature Version 4 ("Create a signed AWS API request" of the IAM User Guide).
//!
//! The canonical request is built anew from what arrived, and the signature is compared with the one that the secret gives.
//! Written from the published rules alone; shares no code with what signs. Reads no clock: the time is an argument. Called by
//! [`crate::bedrock`].

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// By so much the time of a request may differ, in seconds.
const SKEW_S: f64 = 300.0;

/// What arrived.
pub(crate) struct Request<'r> {
    /// Method.
    pub(crate) method: &'r str,
    /// Path as it was sent.
    pub(crate) path: &'r str,
    /// Query as it was sent, without the question mark.
    pub(crate) query: &'r str,
    /// Header fields.
    pub(crate) headers: &'r HeaderMap,
    /// The body.
    pub(crate) body: &'r [u8],
}

/// What `Authorization` says.
#[derive(Debug)]
pub(crate) struct Signed<'r> {
    /// Access key.
    pub(crate) id: &'r str,
    /// Day, region and service, and the words at the end.
    scope: [&'r str; 3],
    headers: Vec<&'r str>,
    signature: &'r str,
    /// `YYYYMMDDTHHMMSSZ`.
    date: &'r str,
}

/// Takes the header apart. Fails with the reason for the journal.
pub(crate) fn parse(headers: &HeaderMap) -> Result<Signed<'_>, &'static str> {
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(one), None) => one.to_str().ok(),
            _ => None,
        }
    };
    let header = one("authorization").ok_or("no_credential")?;
    let rest = header.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' ')).ok_or("not_sigv4")?;
    let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
    let [credential, signed, signature] = parts[..] else { return Err("authorization_malformed") };
    let credential = named(credential, "Credential=")?;
    let signed = named(signed, "SignedHeaders=")?;
    let signature = named(signature, "Signature=")?;
    let scope: Vec<&str> = credential.split('/').collect();
    let [id, day, region, service, "aws4_request"] = scope[..] else { return Err("scope_malformed") };
    let date = one("x-amz-date").ok_or("date_missing")?;
    Ok(Signed { id, scope: [day, region, service], headers: signed.split(';').collect(), signature, date })
}

fn named<'p>(part: &'p str, name: &str) -> Result<&'p str, &'static str> {
    part.strip_prefix(name).ok_or("authorization_malformed")
}

/// Checks time, scope, the list of headers, the digest of the body and the signature. `now_s` is in seconds since 1970. Fails
/// with the reason for the journal.
pub(crate) fn verify(
    request: &Request<'_>,
    signed: &Signed<'_>,
    secret: &str,
    (region, service): (&str, &str),
    now_s: f64,
) -> Result<(), &'static str> {
    let at = seconds(signed.date).ok_or("date_malformed")?;
    if (at as f64 - now_s).abs() > SKEW_S {
        return Err("clock_skew");
    }
    if signed.date.get(..8) != Some(signed.scope[0]) {
        return Err("scope_date");
    }
    if signed.scope[1] != region {
        return Err("scope_region");
    }
    if signed.scope[2] != service {
        return Err("scope_service");
    }
    if !signed.headers.is_sorted() || signed.headers.iter().any(|name| name.bytes().any(|b| b.is_ascii_uppercase())) {
        return Err("signed_headers_order");
    }
    let must = |name: &&str| *name == "host" || name.starts_with("x-amz-");
    let names: Vec<&str> = request.headers.keys().map(hyper::header::HeaderName::as_str).collect();
    if !names.iter().filter(|name| must(name)).all(|name| signed.headers.contains(name)) {
        return Err("header_not_signed");
    }
    let digest = hex::encode(Sha256::digest(request.body));
    let told = request.headers.get("x-amz-content-sha256").map(|value| value.to_str().unwrap_or_default());
    if told.is_some_and(|told| told != digest) {
        return Err("body_digest");
    }
    let canonical = canonical(request, &signed.headers, &digest)?;
    let expected = signature(&canonical, signed.date, &signed.scope, secret)?;
    if expected == signed.signature { Ok(()) } else { Err("bad_signature") }
}

/// The canonical request.
fn canonical(request: &Request<'_>, signed: &[&str], digest: &str) -> Result<String, &'static str> {
    let mut headers = String::new();
    for name in signed {
        let values: Vec<String> =
            request.headers.get_all(*name).iter().map(|value| trimmed(value.as_bytes())).collect();
        if values.is_empty() {
            return Err("signed_header_missing");
        }
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let (path, query) = (canonical_path(request.path), canonical_query(request.query));
    Ok(format!("{}\n{path}\n{query}\n{headers}\n{}\n{digest}", request.method, signed.join(";")))
}

/// The signature over a canonical request.
fn signature(canonical: &str, date: &str, scope: &[&str; 3], secret: &str) -> Result<String, &'static str> {
    let [day, region, service] = scope;
    let digest = hex::encode(Sha256::digest(canonical));
    let text = format!("{ALGORITHM}\n{date}\n{day}/{region}/{service}/aws4_request\n{digest}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request", text.as_str()] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "key")?;
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    Ok(hex::encode(key))
}

/// A value without white space around it, and with one blank for each run of them inside.
fn trimmed(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The path with each segment encoded once more, as every service but S3 wants it, without dot segments and empty ones.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let last = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    let encoded: Vec<String> = segments.into_iter().map(|segment| encode(segment.as_bytes())).collect();
    format!("/{}{last}", encoded.join("/"))
}

/// The parameters, decoded, encoded and sorted.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name)), encode(&decode(value)))
        })
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but the unreserved characters of RFC 3986 section 2.3.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Decodes percent-encoding; what is none stays.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let decoded = bytes.get(at + 1..at + 3).and_then(|two| hex::decode(two).ok());
        match (byte, decoded) {
            (b'%', Some(decoded)) => {
                out.extend(decoded);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// Seconds since 1970 of `YYYYMMDDTHHMMSSZ`.
fn seconds(date: &str) -> Option<i64> {
    let is_right = date.len() == 16 && date.as_bytes().get(8) == Some(&b'T') && date.ends_with('Z');
    let digits = date.get(..8).zip(date.get(9..15)).filter(|_| is_right)?;
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits.0.get(..4)?,
        digits.0.get(4..6)?,
        digits.0.get(6..8)?,
        digits.1.get(..2)?,
        digits.1.get(2..4)?,
        digits.1.get(4..6)?
    );
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests;
