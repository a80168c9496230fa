//! The request target: from what a client wrote to what is matched and sent.
//!
//! There is one reading of a path. It is decoded once; what it decodes to is matched, and what is sent is the encoding of
//! exactly that, made here and never taken from the client. So a path cannot mean one thing to a list of allowed calls and
//! another to the API. This module does no I/O and keeps no credential; the service calls it for each request.

use crate::guard::OVERRIDES;
use crate::routes::{Colon, Route};
use keyward_diag::{Code, Fault};

/// Between decoded segments: a control byte, which no segment can hold.
const BETWEEN: char = '\0';

/// Query parameters that carry a credential, in lower case. Those of Azure's API management, of GitLab and of signed URLs
/// are among them; the families `x-amz-…` and `x-goog-…` are named in [`is_credential`].
const CREDENTIALS: &[&str] = &[
    "access_key",
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "api_token",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "awsaccesskeyid",
    "bearer",
    "bearer_token",
    "client_secret",
    "id_token",
    "key",
    "oauth_token",
    "private_token",
    "refresh_token",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-api-key",
];

/// Query parameters that make some servers take a request for one with another method, other headers or another body, in
/// lower case, with and without `$`: those of Google's APIs (<https://cloud.google.com/apis/docs/system-parameters>) and of web
/// frameworks. They are refused beside [`OVERRIDES`].
const REPLACING: &[&str] = &["_method", "httpheaders", "httpmethod"];
/// As [`REPLACING`], but with `$` alone, as Google writes them: without it these are ordinary names of many APIs.
const REPLACING_WITH_SIGN: &[&str] = &["ct", "req"];

/// A request target that was read.
///
/// Path: `/` and segments, never empty but the last. Each segment is decoded once from percent-encoding (RFC 3986 section
/// 2.1) and encoded anew: letters, digits and `-._~` stand for themselves, and so do the other bytes that RFC 3986 section
/// 3.3 lets stand in a segment (`!$&'()*+,;=:@`), except on a route that wants them encoded; all else is `%XX` in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    decoded: String,
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads the origin-form of a target (RFC 9112 section 3.2.1) for a route.
    ///
    /// Refused in a path: `%` without two hex digits behind it; what is not UTF-8; control characters; `/` in a segment, but
    /// in one that begins `arn:` on a route that has such names; `\`; empty segments but the last; segments of nothing but
    /// dots and spaces, before a `;` too; what would decode a second time; the look-alikes of `.`, `/` and `\` in Unicode,
    /// which some servers fold. In a query: `%` without two hex digits; parameters that name another method, header or body
    /// than the request has.
    ///
    /// Query parameters that carry a credential are left out, and so is one named `own`, where the profile's credential will
    /// stand; names are compared decoded and without case.
    ///
    /// # Errors
    /// [`Code::GatewayPath`], with what is refused; nothing of the target is quoted. [`Code::GatewayRequest`] for a query that
    /// names another method.
    pub(crate) fn parse(raw: &str, route: &Route, own: Option<&str>) -> Result<Self, Fault> {
        let refused = |why: &str| Fault::new(Code::GatewayPath).cause(why);
        let (path, query) = raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
        let segments = path.strip_prefix('/').ok_or_else(|| refused("the path does not begin with a slash"))?;
        let mut target =
            Self { decoded: String::with_capacity(path.len()), path: String::with_capacity(path.len()), query: None };
        let mut rest = Some(segments);
        while let Some(text) = rest {
            let (segment, further) = text.split_once('/').map_or((text, None), |(one, more)| (one, Some(more)));
            if segment.is_empty() && further.is_some() {
                return Err(refused("the path has an empty segment"));
            }
            target.push(segment, route).map_err(refused)?;
            rest = further;
        }
        if let Some(query) = query {
            target.query = kept_query(query, own)?;
        }
        Ok(target)
    }

    /// The path that is sent.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The query that is sent, without `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The decoded segments; at least one, the last may be empty.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> + Clone {
        self.decoded.split(BETWEEN)
    }

    fn push(&mut self, raw: &str, route: &Route) -> Result<(), &'static str> {
        if !self.path.is_empty() {
            self.decoded.push(BETWEEN);
        }
        self.path.push('/');
        let start = self.decoded.len();
        if raw.contains('%') {
            self.decoded.push_str(&String::from_utf8(decode(raw)?).map_err(|_| "the path is not UTF-8")?);
        } else {
            self.decoded.push_str(raw);
        }
        let segment = &self.decoded[start..];
        check(segment, route)?;
        for byte in segment.bytes() {
            encode(byte, stands(byte, route.colon), &mut self.path);
        }
        Ok(())
    }
}

/// Whether a decoded segment may be matched and sent.
fn check(segment: &str, route: &Route) -> Result<(), &'static str> {
    if segment.chars().any(char::is_control) {
        return Err("the path has a control character");
    }
    if segment.contains('\\') {
        return Err("the path has a backslash");
    }
    let look_alike = |c| {
        matches!(
            c,
            '\u{2024}'
                ..='\u{2026}'
                    | '\u{2044}'
                    | '\u{2215}'
                    | '\u{29f5}'
                    | '\u{29f8}'
                    | '\u{29f9}'
                    | '\u{fe52}'
                    | '\u{fe68}'
                    | '\u{ff0e}'
                    | '\u{ff0f}'
                    | '\u{ff3c}'
        )
    };
    if segment.contains(look_alike) {
        return Err("the path has a character that looks like a dot or a slash");
    }
    let bytes = segment.as_bytes();
    if bytes.windows(3).any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit()) {
        return Err("the path is encoded twice");
    }
    if segment.contains('/') && !(route.arn && segment.starts_with("arn:")) {
        return Err("the path has an encoded slash");
    }
    for part in segment.split('/') {
        let name = part.split(';').next().unwrap_or_default();
        if name.bytes().all(|b| matches!(b, b'.' | b' ')) && !segment.is_empty() {
            return Err("the path has a dot segment");
        }
    }
    Ok(())
}

/// The query that is sent: without credentials, and with what may not stand in a query encoded.
fn kept_query(raw: &str, own: Option<&str>) -> Result<Option<String>, Fault> {
    let mut out = String::with_capacity(raw.len());
    for piece in raw.split('&') {
        decode(piece).map_err(|why| Fault::new(Code::GatewayPath).cause(why))?;
        let mut kept = true;
        // Some servers take `;` for `&`.
        for part in piece.split(';') {
            let Some(name) = parameter(part) else {
                kept = false;
                continue;
            };
            if replaces(&name) {
                let why = "the query names another method, header or body than the request has";
                return Err(Fault::new(Code::GatewayRequest).cause(why));
            }
            kept &= !is_credential(&name, own);
        }
        if !kept {
            continue;
        }
        if !out.is_empty() {
            out.push('&');
        }
        for byte in piece.bytes() {
            encode(byte, stands(byte, Colon::Kept) || matches!(byte, b'/' | b'?' | b'%'), &mut out);
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

/// The name in `name=value` as servers compare it: decoded, in lower case, and without what some servers do not read: a `[…]`
/// at its end, which makes a list of it, and what follows a NUL. `None` where it cannot be decoded.
fn parameter(part: &str) -> Option<String> {
    let name = decode(part.split('=').next().unwrap_or_default()).ok()?;
    let mut name = String::from_utf8_lossy(&name).replace('+', " ").to_ascii_lowercase();
    // PHP reads these as an underscore.
    if name.trim_start().starts_with(['.', '[']) {
        name = name.trim_start().replacen(['.', '['], "_", 1);
    }
    Some(name.split(['[', '\0']).next().unwrap_or_default().trim().to_owned())
}

/// Whether a parameter, named as [`parameter`] does, replaces a part of the request.
fn replaces(name: &str) -> bool {
    let bare = without_sign(name);
    let signed = bare != name && REPLACING_WITH_SIGN.contains(&bare);
    signed || REPLACING.contains(&bare) || OVERRIDES.contains(&bare)
}

/// Whether a parameter, named as [`parameter`] does, hands over a credential.
fn is_credential(name: &str, own: Option<&str>) -> bool {
    let name = without_sign(name);
    CREDENTIALS.contains(&name)
        || name.starts_with("x-amz-")
        || name.starts_with("x-goog-")
        || own.is_some_and(|own| without_sign(own).eq_ignore_ascii_case(name))
}

/// A name without the `$` of Google's own parameters.
fn without_sign(name: &str) -> &str {
    name.trim_start_matches('$')
}

/// Undoes percent-encoding once.
fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |bytes: &mut std::str::Bytes<'_>| {
        bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
    };
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match (digit(&mut bytes), digit(&mut bytes)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err("a percent sign has no two hex digits behind it"),
        }
    }
    Ok(out)
}

/// Writes a byte as it stands, or as `%XX`.
fn encode(byte: u8, stands: bool, out: &mut String) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    if stands {
        out.push(char::from(byte));
    } else {
        out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
    }
}

/// Whether a byte of a segment stands for itself.
fn stands(byte: u8, colon: Colon) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || colon != Colon::Encoded
            && matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn route(name: &str) -> &'static Route {
        Route::find(name).unwrap()
    }

    fn read(raw: &str, name: &str) -> Result<(String, Option<String>), String> {
        let target = Target::parse(raw, route(name), None).map_err(|fault| {
            assert_eq!(fault.code, Code::GatewayPath);
            fault.causes.join("; ")
        })?;
        Ok((target.path().to_owned(), target.query().map(str::to_owned)))
    }

    fn refused(raw: &str) -> String {
        match read(raw, "generic") {
            Ok(read) => panic!("{raw} is read as {read:?}"),
            Err(why) => why,
        }
    }

    #[test]
    fn a_path_is_decoded_once_and_sent_as_it_was_matched() {
        for (raw, path, segments) in [
            ("/", "/", &[""][..]),
            ("/v1/messages", "/v1/messages", &["v1", "messages"]),
            ("/v1/models/", "/v1/models/", &["v1", "models", ""]),
            ("/%76%31/mess%61ges", "/v1/messages", &["v1", "messages"]),
            ("/a%20b/%c3%a4", "/a%20b/%C3%A4", &["a b", "ä"]),
            ("/models/x%3AgenerateContent", "/models/x:generateContent", &["models", "x:generateContent"]),
            ("/a@b!$&'()*+,;=", "/a@b!$&'()*+,;=", &["a@b!$&'()*+,;="]),
            ("/a|b^[c]{d}", "/a%7Cb%5E%5Bc%5D%7Bd%7D", &["a|b^[c]{d}"]),
            ("/.well-known/..a/a../a...b", "/.well-known/..a/a../a...b", &[".well-known", "..a", "a..", "a...b"]),
            ("/100%25/a%25zz", "/100%25/a%25zz", &["100%", "a%zz"]),
            ("/%3F%23", "/%3F%23", &["?#"]),
        ] {
            let target = Target::parse(raw, route("generic"), None).unwrap();
            assert_eq!(target.path(), path, "{raw}");
            assert_eq!(target.segments().collect::<Vec<_>>(), segments, "{raw}");
            assert_eq!(target.query(), None, "{raw}");
        }
    }

    #[test]
    fn bedrock_gets_all_but_unreserved_characters_encoded_and_names_with_slashes_in_one_segment() {
        for (raw, path) in [
            ("/model/us.anthropic.claude-x-v1:0/invoke", "/model/us.anthropic.claude-x-v1%3A0/invoke"),
            ("/model/us.anthropic.claude-x-v1%3a0/invoke", "/model/us.anthropic.claude-x-v1%3A0/invoke"),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse",
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse",
            ),
            ("/model/a@b/invoke", "/model/a%40b/invoke"),
        ] {
            assert_eq!(read(raw, "bedrock").unwrap().0, path);
        }
        for raw in [
            "/model/us.x%2Fconverse/invoke",
            "/model/arn%3Aaws%2F..%2F..%2Fx/invoke",
            "/model/arn%3Aaws%2F%2Fx/invoke",
            "/model/arn%3Aaws%2F/invoke",
            "/model/arn%3Aaws%5Cx/invoke",
        ] {
            assert!(read(raw, "bedrock").is_err(), "{raw}");
        }
        assert_eq!(read("/model/arn%3Aaws%2Fx/invoke", "openai").unwrap_err(), "the path has an encoded slash");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (raw, why) in [
            ("", "slash"),
            ("v1/messages", "slash"),
            ("?a=b", "slash"),
            ("//", "empty"),
            ("//v1/messages", "empty"),
            ("/v1//messages", "empty"),
            ("/v1/messages//", "empty"),
            ("/.", "dot"),
            ("/..", "dot"),
            ("/v1/../x", "dot"),
            ("/v1/./x", "dot"),
            ("/v1/%2e%2E/x", "dot"),
            ("/v1/.%2e/x", "dot"),
            ("/v1/...", "dot"),
            ("/v1/..;/x", "dot"),
            ("/v1/..;a=b/x", "dot"),
            ("/v1/.;a/x", "dot"),
            ("/v1/..%3b/x", "dot"),
            ("/v1/;a=b/x", "dot"),
            ("/v1/..%20/x", "dot"),
            ("/v1/%20/x", "dot"),
            ("/v1/%20../x", "dot"),
            ("/a%2fb", "slash"),
            ("/a%2Fb", "slash"),
            ("/..%2f..", "slash"),
            ("/a\\b", "backslash"),
            ("/a%5cb", "backslash"),
            ("/..%5C..", "backslash"),
            ("/a%252fb", "twice"),
            ("/%252e%252e/x", "twice"),
            ("/%25%32%65", "twice"),
            ("/a%25%320", "twice"),
            ("/a%00b", "control"),
            ("/a%0d%0aHost:%20b", "control"),
            ("/a%7f", "control"),
            ("/a%c2%85", "control"),
            ("/a%", "percent"),
            ("/a%2", "percent"),
            ("/a%zz", "percent"),
            ("/a%+1", "percent"),
            ("/a%u002e", "percent"),
            ("/a%c3", "UTF-8"),
            ("/%c0%ae%c0%ae/x", "UTF-8"),
            ("/%c0%af", "UTF-8"),
            ("/%e0%80%ae", "UTF-8"),
            ("/%ff", "UTF-8"),
            ("/%ed%a0%80", "UTF-8"),
            ("/%ef%bc%8e%ef%bc%8e/x", "looks like"),
            ("/a%ef%bc%8fb", "looks like"),
            ("/a%e2%88%95b", "looks like"),
            ("/%e2%80%a5/x", "looks like"),
            ("/a?b=%", "percent"),
            ("/a?%zz=b", "percent"),
            ("/a?b=c&d=%1", "percent"),
        ] {
            let found = refused(raw);
            assert!(found.contains(why), "{raw}: {found}");
        }
    }

    #[test]
    fn credentials_are_taken_out_of_a_query_and_the_rest_is_kept() {
        for (raw, query) in [
            ("/a?beta=true", Some("beta=true")),
            ("/a?", None),
            ("/a?a=b&c&d=", Some("a=b&c&d=")),
            ("/a?alt=sse&key=AIza", Some("alt=sse")),
            ("/a?key=AIza", None),
            ("/a?KEY=AIza&b=c", Some("b=c")),
            ("/a?k%65y=AIza&b=c", Some("b=c")),
            ("/a?b=c&access_token=x&d=e", Some("b=c&d=e")),
            ("/a?api-key=x&api_key=y&apikey=z&api-version=1", Some("api-version=1")),
            ("/a?X-Amz-Signature=x&X-Amz-Credential=y&X-Amz-Security-Token=z&b=c", Some("b=c")),
            ("/a?X-Goog-Signature=x&b=c", Some("b=c")),
            ("/a?b=c;key=x&d=e", Some("d=e")),
            ("/a?key[]=x&key%5B0%5D=y&d=e", Some("d=e")),
            ("/a?+key=x&key+=x&%20key=x&d=e", Some("d=e")),
            ("/a?token", None),
            ("/a?$key=x&%24access_token=y&d=e", Some("d=e")),
            ("/a?key%00y=z&d=e", Some("d=e")),
            ("/a?pageToken=x&page_token=y&keyword=z&tokens=1", Some("pageToken=x&page_token=y&keyword=z&tokens=1")),
            ("/a?q=key=x", Some("q=key=x")),
            ("/a?q=a/b?c:d@e", Some("q=a/b?c:d@e")),
            ("/a?q=%0A%ff%2f..", Some("q=%0A%ff%2f..")),
            ("/a?filter[x]={y}|z^", Some("filter%5Bx%5D=%7By%7D%7Cz%5E")),
        ] {
            assert_eq!(read(raw, "generic").unwrap().1.as_deref(), query, "{raw}");
        }
        let own = Target::parse("/a?appid=x&AppId=y&b=c", route("generic"), Some("appid")).unwrap();
        assert_eq!(own.query(), Some("b=c"));
    }

    #[test]
    fn a_query_that_names_another_method_header_or_body_is_refused() {
        for query in [
            "$httpMethod=DELETE",
            "httpmethod=DELETE",
            "%24http%4dethod=DELETE",
            "$$httpMethod=DELETE",
            "a=b&$httpHeaders=X-Goog-User-Project:%20p",
            "$ct=application/json",
            "%24CT=application/json",
            "$req=%7B%7D",
            "+$req[]=%7B%7D",
            "_method=DELETE",
            "_METHOD=delete",
            "$_method=DELETE",
            "_method[]=DELETE",
            "%5Fmethod%5B0%5D=DELETE",
            "+_method+=DELETE",
            ".method=DELETE",
            "[method=DELETE",
            "%20.method=DELETE",
            "_method%00x=DELETE",
            "_method",
            "a=b;_method=DELETE",
            "key=x;_method=DELETE",
            "X-HTTP-Method-Override=DELETE",
            "x-http-method=DELETE",
            "x-method-override=DELETE",
            "X-Original-URL=/admin",
        ] {
            let fault = Target::parse(&format!("/x/1?{query}"), route("generic"), None).unwrap_err();
            assert_eq!(fault.code, Code::GatewayRequest, "{query}");
            assert!(
                fault.causes[0].contains("another method") && !fault.to_string().contains("DELETE"),
                "{query}: {fault}"
            );
        }
        for query in [
            "method=flickr.test",
            "my_method=x",
            "action=ct&request=1",
            "ct=1&req=2&CT=3",
            "q=_method=DELETE",
            "alt=sse&$alt=json",
        ] {
            assert_eq!(read(&format!("/a?{query}"), "generic").unwrap().1.as_deref(), Some(query));
        }
    }

    /// Decodes until nothing changes, as a careless server might.
    fn decoded_to_the_end(path: &str) -> String {
        let mut text = path.to_owned();
        loop {
            match decode(&text).map(String::from_utf8) {
                Ok(Ok(next)) if next != text => text = next,
                _ => return text,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_means_one_thing(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec![
                        "/", ".", "..", "%2e", "%2F", "%5c", "%25", "2e", "2f", ";", "%3b", "arn:", "%20", "a", "v1", "?",
                        "&", "key=", "%", "%c0", "%ae", ":", "%00", "\\",
                    ]).prop_map(str::to_owned),
                    "[!-~]{1,3}",
                ],
                0..12,
            ),
            name in prop::sample::select(vec!["generic", "openai", "bedrock", "vertex"]),
        ) {
            let raw = format!("/{}", parts.concat());
            if let Ok(target) = Target::parse(&raw, route(name), None) {
                let plain = target.path().bytes().all(|b| b.is_ascii_graphic() && !b"?#\\\"<>`{}|^[]".contains(&b));
                prop_assert!(plain, "{}", target.path());
                let path = target.path();
                let sent = target.query().map_or(path.to_owned(), |query| format!("{path}?{query}"));
                prop_assert_eq!(Target::parse(&sent, route(name), None).unwrap(), target.clone(), "reading it again");
                let end = decoded_to_the_end(target.path());
                prop_assert!(!end.split(['/', '\\']).any(|s| s == "." || s == ".."), "{} is {}", target.path(), end);
                let slashes = target.path().matches('/').count();
                prop_assert!(name == "bedrock" || end.matches(['/', '\\']).count() == slashes);
            }
        }
    }
}
