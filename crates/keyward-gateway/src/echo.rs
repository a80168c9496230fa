//! What an API hands back of a credential: fields of an answer that hold it.
//!
//! An API that redirects keeps the query, and with it a credential that stands there; others repeat in fields of their own
//! what they were sent. Such a field is taken out of the answer, or what stands in the place of the credential is a word that
//! is good for nothing. Looks at heads and trailer sections, never at bodies, and says nothing of what it finds. Called by
//! `forward` and `body`.

use crate::Placement;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode::Indifferent;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use hyper::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, REFRESH};
use keyward_core::Credential;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Stands in an address where the credential stood. A client that follows it through the gateway has the parameter of this
/// value taken off again, and the credential put on.
const WITHHELD: &[u8] = b"withheld";
/// Fields that hold addresses, which are mended where that can be done: a client that is redirected needs them.
const ADDRESSES: [HeaderName; 4] = [LOCATION, CONTENT_LOCATION, LINK, REFRESH];
/// How often a value is decoded from percent-encoding. What is encoded more often is taken for one that holds a credential.
const DECODED_MAX: usize = 4;
/// Fewest bytes of a text whose base64 is looked for, and of the parts of a credential of the Basic scheme: less is found by
/// chance.
const PART_MIN_BYTES: usize = 8;

const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, NO_PAD.with_decode_padding_mode(Indifferent));

/// What was put onto a request, by which it is known again.
pub(crate) struct Echo {
    credential: Arc<Credential>,
    /// Values that were made of it, where it is not sent itself: the signature and the session token.
    signed: Vec<HeaderValue>,
    /// It is sent by the Basic scheme (RFC 7617), in base64.
    basic: bool,
}

impl Echo {
    /// A credential that was put onto a request, and the head that it made.
    pub(crate) fn new(credential: Arc<Credential>, placement: &Placement, head: &HeaderMap) -> Self {
        let signed = match placement {
            Placement::SigV4 { .. } => head.values().filter(|value| value.is_sensitive()).cloned().collect(),
            _ => Vec::new(),
        };
        let scheme = |prefix: &str| prefix.trim().eq_ignore_ascii_case("basic");
        let basic = matches!(placement, Placement::Header(_, prefix) if scheme(prefix));
        Self { credential, signed, basic }
    }

    /// Takes the credential out of the fields of an answer: as it stands, percent-encoded up to four times, in base64 of
    /// either alphabet, and what it says in the Basic scheme.
    pub(crate) fn clear(&self, fields: &mut HeaderMap) {
        // EXPOSE: it is looked for in what goes to the client.
        self.credential.token.expose(|bytes| {
            let part = if self.basic { PART_MIN_BYTES } else { usize::MAX };
            let least = self.signed.iter().map(HeaderValue::len).fold(bytes.len().min(part), usize::min);
            // No form of it is shorter, so most answers are done with here.
            if fields.values().all(|value| value.len() < least) {
                return;
            }
            let forms = self.forms(bytes);
            let held: Vec<HeaderName> = fields
                .iter()
                .filter(|(_, value)| forms.are_in(value.as_bytes()))
                .map(|(name, _)| name.clone())
                .collect();
            for name in held {
                let values: Vec<HeaderValue> = fields.get_all(&name).iter().cloned().collect();
                fields.remove(&name);
                for value in values.iter().filter_map(|value| forms.mended(&name, value)) {
                    fields.append(&name, value);
                }
            }
        });
    }

    fn forms(&self, bytes: &[u8]) -> Forms {
        let mut forms = Forms {
            sent: [Zeroizing::new(in_query(bytes).as_bytes().to_vec()), Zeroizing::new(bytes.to_vec())],
            plain: Vec::new(),
            coded: Vec::new(),
        };
        forms.add(bytes);
        for value in &self.signed {
            forms.add(value.as_bytes());
        }
        if self.basic
            && let Ok(said) = BASE64.decode(bytes.trim_ascii())
        {
            let said = Zeroizing::new(said);
            said.splitn(2, |b| *b == b':').filter(|part| part.len() >= PART_MIN_BYTES).for_each(|part| forms.add(part));
        }
        forms
    }
}

/// The value of a query parameter, as it is sent: all but letters, digits and `*-._` is percent-encoded.
pub(crate) fn in_query(bytes: &[u8]) -> Zeroizing<String> {
    let value = Zeroizing::new(form_urlencoded::byte_serialize(bytes).collect::<String>());
    Zeroizing::new(value.replace('+', "%20"))
}

/// The forms that are looked for.
struct Forms {
    /// As a query holds it, and as it stands.
    sent: [Zeroizing<Vec<u8>>; 2],
    /// As they stand, with `+` for each space: in a query the one may be the other.
    plain: Vec<Zeroizing<Vec<u8>>>,
    /// In base64, at each of the three places where a text can begin in a group.
    coded: Vec<Zeroizing<Vec<u8>>>,
}

impl Forms {
    fn add(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.plain.push(mapped(bytes, |b| if b == b' ' { b'+' } else { b }));
        if bytes.len() < PART_MIN_BYTES {
            return;
        }
        for before in 0..3 {
            let padded = Zeroizing::new([&[0; 2][..before], bytes].concat());
            let text = Zeroizing::new(BASE64.encode(&*padded));
            // Digits that hold bits of what stands before or behind are not its own.
            let first = (before * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            self.coded.extend(text.as_bytes().get(first..last).map(|own| Zeroizing::new(own.to_vec())));
        }
    }

    /// Whether a value holds one of them.
    fn are_in(&self, value: &[u8]) -> bool {
        let mut text = Zeroizing::new(value.to_vec());
        for _ in 0..=DECODED_MAX {
            let plain = mapped(&text, |b| if b == b' ' { b'+' } else { b });
            let coded = mapped(&plain, |b| match b {
                b'-' => b'+',
                b'_' => b'/',
                b => b,
            });
            let found = |text: &[u8], forms: &[Zeroizing<Vec<u8>>]| forms.iter().any(|form| find(text, form).is_some());
            if found(&plain, &self.plain) || found(&coded, &self.coded) {
                return true;
            }
            match decoded(&text) {
                Some(next) => text = next,
                None => return false,
            }
        }
        true
    }

    /// A value without them, if it can be told.
    fn mended(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        if !self.are_in(value.as_bytes()) {
            return Some(value.clone());
        }
        if !ADDRESSES.contains(name) {
            return None;
        }
        let mut text = Zeroizing::new(value.as_bytes().to_vec());
        for form in self.sent.iter().filter(|form| !form.is_empty()) {
            text = replaced(&text, form);
        }
        if self.are_in(&text) { None } else { HeaderValue::from_bytes(&text).ok() }
    }
}

fn mapped(bytes: &[u8], to: impl Fn(u8) -> u8) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.iter().map(|b| to(*b)).collect())
}

/// Where a text that is not empty begins in another one.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window.first() == part.first() && window == part)
}

/// A text with [`WITHHELD`] in the place of each `part`.
fn replaced(text: &[u8], part: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() + WITHHELD.len()));
    let mut rest = text;
    while let Some(at) = find(rest, part) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(WITHHELD);
        rest = &rest[at + part.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Undoes percent-encoding once, where there is any; `%` without two hex digits stands for itself.
fn decoded(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut rest, mut any) = (text, false);
    while let [first, behind @ ..] = rest {
        let digit =
            |at: usize| behind.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                (rest, any) = (&behind[2..], true);
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE};
    use keyward_secret::SecretBytes;
    use std::collections::BTreeMap;

    fn credential(text: &str) -> Arc<Credential> {
        let token = SecretBytes::new(text.as_bytes().to_vec()).unwrap();
        Arc::new(Credential { token, life: None, scope: None, facts: BTreeMap::new() })
    }

    /// What is left of a field of an answer to a request with this credential.
    fn left(token: &str, placement: &Placement, name: &str, value: &str) -> Option<String> {
        let echo = Echo::new(credential(token), placement, &HeaderMap::new());
        let mut fields = HeaderMap::new();
        fields.append("date", HeaderValue::from_static("Sat, 21 Nov 2026 21:00:00 GMT, and some more text behind it"));
        fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        echo.clear(&mut fields);
        assert!(fields.contains_key("date"));
        fields.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    const KEY: &str = "AIza/Sy+b 9%c_x?~";

    #[test]
    fn the_credential_is_found_in_any_form_and_nothing_else_is() {
        let query = Placement::Query("key".into());
        let hex = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let once = in_query(KEY.as_bytes()).to_string();
        let (twice, thrice) = (once.replace('%', "%25"), once.replace('%', "%2525"));
        for value in [
            KEY.to_owned(),
            format!("a{KEY}b"),
            once.clone(),
            once.to_ascii_lowercase().replace("aiza%2fsy", "AIza%2fSy").replace("+b", "%2bb"),
            once.replace("%20", "+"),
            hex(KEY),
            twice,
            thrice,
            format!("{once}%zz%"),
            format!("Basic {}", PADDED.encode(KEY)),
            URL_SAFE.encode(format!("a{KEY}")),
            PADDED.encode(format!("ab{KEY}c")),
            URL_SAFE.encode(format!("abc{KEY}ab")),
            PADDED.encode(format!("a{KEY}bc")).replace('=', "%3D").replace('/', "%2F"),
            format!("{}a", "%25".repeat(20).replace("%25", "%2525252525")),
        ] {
            assert_eq!(left(KEY, &query, "x-debug", &value), None, "{value}");
        }
        for value in
            ["AIza/Sy+b 9%c_x?", "aiza/sy+b 9%c_x?~", "%41IzaSy", "%%%", "100% of a long text that says nothing"]
        {
            assert_eq!(left(KEY, &query, "x-debug", value).as_deref(), Some(value));
        }
    }

    #[test]
    fn an_address_is_mended_where_that_can_be_done() {
        let query = Placement::Query("key".into());
        for (token, name, value, want) in [
            ("AIzaSy-1", "location", "/dir/?a=1&key=AIzaSy-1", Some("/dir/?a=1&key=withheld")),
            ("AIzaSy-1", "content-location", "/AIzaSy-1?key=AIzaSy-1#x", Some("/withheld?key=withheld#x")),
            ("AIzaSy-1", "link", "</a?key=AIzaSy-1&p=2>; rel=next", Some("</a?key=withheld&p=2>; rel=next")),
            ("AIzaSy-1", "refresh", "0; url=/a?key=AIzaSy-1", Some("0; url=/a?key=withheld")),
            (KEY, "location", "/d?key=AIza%2FSy%2Bb%209%25c_x%3F%7E", Some("/d?key=withheld")),
            (KEY, "location", "/d?key=AIza/Sy%2Bb%209%25c_x%3F%7E", None),
            (KEY, "location", "/d?next=%2Fd%3Fkey%3DAIza%252FSy%252Bb%25209%2525c_x%253F%257E", None),
            ("abab", "location", "/d?key=abababab", Some("/d?key=withheldwithheld")),
            ("withheld", "location", "/d?key=withheld", None),
            ("AIzaSy-1", "x-url", "/dir/?a=1&key=AIzaSy-1", None),
            ("AIzaSy-1", "location", "https://elsewhere.example/", Some("https://elsewhere.example/")),
        ] {
            assert_eq!(left(token, &query, name, value).as_deref(), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_value_goes_and_the_others_of_its_name_stay() {
        let echo = Echo::new(credential("sk-0123456789"), &Placement::Bearer, &HeaderMap::new());
        let mut fields = HeaderMap::new();
        for value in ["one", "Bearer sk-0123456789", "two of the values that are long", "sk-0123456789"] {
            fields.append("x-echo", HeaderValue::from_static(value));
        }
        echo.clear(&mut fields);
        assert_eq!(fields.get_all("x-echo").iter().collect::<Vec<_>>(), ["one", "two of the values that are long"]);
    }

    #[test]
    fn of_the_basic_scheme_what_it_says_is_found_too() {
        let coded = PADDED.encode("me:pa55-w0rd-1");
        let basic = Placement::Header("authorization".into(), "Basic ".into());
        for value in [coded.as_str(), "me:pa55-w0rd-1", "pa55-w0rd-1", "user=me&password=pa55%2Dw0rd-1"] {
            assert_eq!(left(&coded, &basic, "x-debug", value), None, "{value}");
        }
        assert_eq!(
            left(&coded, &basic, "x-debug", "some text that has me:").as_deref(),
            Some("some text that has me:")
        );
        assert_eq!(left(&coded, &Placement::Bearer, "x-debug", "pa55-w0rd-1").as_deref(), Some("pa55-w0rd-1"));
    }

    #[test]
    fn of_a_signed_request_the_signature_and_the_session_token_are_found() {
        let signed = Placement::SigV4 { service: "bedrock".into(), region: "eu-west-1".into() };
        let mut head = HeaderMap::new();
        for (name, value) in
            [("x-amz-security-token", "FwoGZXIvYXdzEJr"), ("authorization", "AWS4-HMAC-SHA256 C=AKID, S=00ff")]
        {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(true);
            head.append(name, value);
        }
        let echo = Echo::new(credential(r#"{"AccessKeyId":"AKID","SecretAccessKey":"s"}"#), &signed, &head);
        let mut fields = HeaderMap::new();
        fields.append("x-token", HeaderValue::from_static("FwoGZXIvYXdzEJr"));
        fields.append("x-auth", HeaderValue::from_static("a AWS4-HMAC-SHA256 C=AKID, S=00ff"));
        fields.append("x-id", HeaderValue::from_static("a request id, and AKID"));
        echo.clear(&mut fields);
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-id"]);
    }
}
