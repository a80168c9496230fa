//! What an assertion says: a bounded reader of JWTs (RFC 7519) in compact form (RFC 7515 section 3.1).
//!
//! Checks the shape and never the signature: whether an assertion is good is for the server to say. Claims that are not
//! needed are passed over. Called by the identity sources, which give nothing else away, and by the explanation of refusals.

use crate::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_secret::SecretBytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Longest assertion that the token endpoint takes, in bytes.
pub(crate) const ASSERTION_MAX_BYTES: usize = 16 * 1024;

/// Most audiences of an assertion that are kept.
const AUDIENCES_MAX: usize = 16;

/// An assertion and what it says. Its `Debug` prints the name alone.
pub(crate) struct Assertion {
    token: SecretBytes,
    /// Algorithm of the signature, as the header names it.
    pub(crate) alg: String,
    /// Which key signed it.
    pub(crate) kid: Option<String>,
    /// Who issued it.
    pub(crate) iss: Option<String>,
    /// Whom it names.
    pub(crate) sub: Option<String>,
    /// For whom it is.
    pub(crate) aud: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub(crate) exp: Option<i64>,
    /// When it was issued, in seconds since 1970.
    pub(crate) iat: Option<i64>,
    /// When it begins, in seconds since 1970.
    pub(crate) nbf: Option<i64>,
    jti: Option<String>,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion")
    }
}

#[derive(serde::Deserialize)]
struct Header {
    alg: Option<Value>,
    kid: Option<Value>,
}

#[derive(serde::Deserialize)]
struct Claims {
    iss: Option<Value>,
    sub: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    iat: Option<Value>,
    nbf: Option<Value>,
    jti: Option<Value>,
}

impl Assertion {
    /// Reads an assertion. White space around it is dropped.
    ///
    /// # Errors
    /// What it is instead, in words that go on after "it": never a part of it.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > ASSERTION_MAX_BYTES {
            return Err(format!("is longer than {ASSERTION_MAX_BYTES} bytes"));
        }
        if std::str::from_utf8(text).is_err() {
            return Err("is not UTF-8 text".to_owned());
        }
        let parts: Vec<&[u8]> = text.split(|b| *b == b'.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(format!("has {} of the three parts of a JWT", parts.len().min(99)));
        };
        let header: Header = part(header, "header")?;
        let claims: Claims = part(claims, "payload")?;
        // Its bytes are of no interest here, so its letters are enough.
        if !signature.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err("has a signature that is not base64url".to_owned());
        }
        let Some(Value::String(alg)) = header.alg else { return Err("has a header without `alg`".to_owned()) };
        let word = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let aud = match claims.aud {
            Some(Value::Array(list)) => list.into_iter().filter_map(|v| word(Some(v))).take(AUDIENCES_MAX).collect(),
            one => word(one).into_iter().collect(),
        };
        Ok(Self {
            token: SecretBytes::new(text.to_vec()).map_err(|e| format!("cannot be kept: {e}"))?,
            alg,
            kid: word(header.kid),
            iss: word(claims.iss),
            sub: word(claims.sub),
            aud,
            exp: date(claims.exp),
            iat: date(claims.iat),
            nbf: date(claims.nbf),
            // A number is no `jti` by the standard; whoever takes it for one takes it once.
            jti: claims.jti.filter(|v| !v.is_null()).map(|v| word(Some(v.clone())).unwrap_or_else(|| v.to_string())),
        })
    }

    /// Shows the assertion itself to `look` and to nobody else.
    pub(crate) fn expose<R>(&self, look: impl FnOnce(&str) -> R) -> R {
        // EXPOSE: handed on, as the ASCII text that it was read from.
        self.token.expose(|b| look(std::str::from_utf8(b).unwrap_or_default()))
    }

    /// Whether it is the same text.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.token.ct_eq(&other.token)
    }

    /// A name for an assertion that may be presented once, which does not tell it: SHA-256 over the purpose, the issuer and
    /// the `jti`, each of the two after its length as 8 bytes, most significant first. `None` where it has no `jti`.
    pub(crate) fn once(&self) -> Option<[u8; 32]> {
        let jti = self.jti.as_deref()?;
        let mut hash = Sha256::new_with_prefix("keyward/once/v1");
        for text in [self.iss.as_deref().unwrap_or_default(), jti] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        Some(hash.finalize().into())
    }
}

fn decode(part: &[u8], name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("has a {name} that is not base64url"))?;
    Ok(Zeroizing::new(bytes))
}

fn part<T: serde::de::DeserializeOwned>(part: &[u8], name: &str) -> Result<T, String> {
    json::object(&decode(part, name)?).map_err(|e| format!("has a {name} which is {e}, where a JSON object must be"))
}

/// A NumericDate, which may have a fraction (RFC 7519 section 2).
fn date(value: Option<Value>) -> Option<i64> {
    // The conversion saturates, so that a hostile number is a moment far away.
    value.as_ref().and_then(Value::as_f64).filter(|s| s.is_finite()).map(|s| s.floor() as i64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::stage::jwt;
    use proptest::prelude::*;

    #[test]
    fn an_assertion_is_read_and_the_rest_is_passed_over() {
        let claims =
            r#"{"iss":"https://i","sub":"s","aud":["a",1,"b"],"exp":1800000000.9,"iat":1.5e9,"nbf":"x","x":{"y":[]}}"#;
        let text = jwt(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, claims);
        let a = Assertion::read(format!(" {text}\n").as_bytes()).unwrap();
        assert_eq!((a.alg.as_str(), a.kid.as_deref(), a.iss.as_deref()), ("ES256", Some("k"), Some("https://i")));
        assert_eq!((a.sub.as_deref(), a.aud.join(" ").as_str()), (Some("s"), "a b"));
        assert_eq!((a.exp, a.iat, a.nbf, a.once()), (Some(1_800_000_000), Some(1_500_000_000), None, None));
        assert!(a.expose(|t| t == text));
        assert_eq!(format!("{a:?}"), "Assertion");
    }

    #[test]
    fn what_is_no_assertion_is_named_and_never_quoted() {
        let good = r#"{"alg":"RS256"}"#;
        for (text, why) in [
            (String::new(), "is empty"),
            (" \n ".to_owned(), "is empty"),
            ("SEKRIT".to_owned(), "has 1 of the three parts of a JWT"),
            ("SEK.RIT".to_owned(), "has 2 of the three parts of a JWT"),
            ("a.b.c.SEKRIT".to_owned(), "has 4 of the three parts of a JWT"),
            ("\u{e4}.SEKRIT.x".to_owned(), "has a header that is not base64url"),
            (jwt(good, "{}") + "=", "has a signature that is not base64url"),
            (jwt("[\"RS256\",\"SEKRIT\"]", "{}"), "has a header which is a JSON array, where a JSON object must be"),
            (jwt("{}", "{}"), "has a header without `alg`"),
            (jwt(r#"{"alg":1}"#, "{}"), "has a header without `alg`"),
            (jwt(good, "\"SEKRIT\""), "has a payload which is a JSON string, where a JSON object must be"),
            (jwt(good, r#"{"sub":"SEKRIT"#), "has a payload which is not JSON"),
            (
                jwt(good, r#"{"sub":"a","sub":"SEKRIT"}"#),
                "has a payload which is a JSON object with a member of another type, or one that is there twice",
            ),
            (jwt(good, &format!("{{\"a\":\"{}\"}}", "x".repeat(16_384))), "is longer than 16384 bytes"),
        ] {
            let error = Assertion::read(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(why), "{why}: {error}");
            assert!(!error.contains("SEKRIT"), "{error}");
        }
        assert_eq!(Assertion::read(b"\xff.\xfe").unwrap_err(), "is not UTF-8 text");
    }

    #[test]
    fn a_one_time_assertion_has_a_name_that_depends_on_issuer_and_jti_alone() {
        let once = |claims: &str| Assertion::read(jwt(r#"{"alg":"RS256"}"#, claims).as_bytes()).unwrap().once();
        // Computed by hand over "keyward/once/v1", 0000000000000001 "i", 0000000000000001 "1".
        let expected = "aa996f706343bd31";
        let name = once(r#"{"iss":"i","jti":"1"}"#).unwrap();
        assert_eq!(&hex::encode(name)[..16], expected);
        assert_eq!(once(r#"{"iss":"i","jti":"1","sub":"other","exp":5}"#), Some(name));
        for other in
            [r#"{"iss":"i","jti":"2"}"#, r#"{"iss":"i1","jti":""}"#, r#"{"jti":"i1"}"#, r#"{"iss":"","jti":"i1"}"#]
        {
            assert_ne!(once(other), Some(name), "{other}");
            assert!(once(other).is_some());
        }
        assert_eq!(once(r#"{"iss":"i","jti":1}"#), Some(name), "a number is taken for the text");
        assert_eq!(once(r#"{"iss":"i","jti":null}"#), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Assertion::read(&bytes);
        }

        #[test]
        fn no_header_or_payload_makes_it_panic(header in "\\PC{0,60}", claims in "[\\[\\]{}\",:0-9a-zE.+-]{0,80}") {
            let _ = Assertion::read(jwt(&header, &claims).as_bytes());
            let _ = Assertion::read(jwt(r#"{"alg":"RS256"}"#, &claims).as_bytes());
        }

        #[test]
        fn dates_of_any_size_are_read(seconds in any::<f64>()) {
            let claims = format!("{{\"exp\":{seconds:e}}}");
            if let Ok(a) = Assertion::read(jwt(r#"{"alg":"RS256"}"#, &claims).as_bytes()) {
                prop_assert_eq!(a.exp, Some(seconds.floor() as i64));
            }
        }

        #[test]
        fn every_text_of_claims_survives(sub in any::<String>(), jti in any::<String>()) {
            let claims = serde_json::json!({ "sub": sub, "jti": jti }).to_string();
            let a = Assertion::read(jwt(r#"{"alg":"RS256"}"#, &claims).as_bytes()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(a.sub, Some(sub));
            prop_assert_eq!(a.jti, Some(jti));
        }
    }
}
