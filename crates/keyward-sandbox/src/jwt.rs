//! JSON Web Tokens: makes them as the identity provider and checks them as the token endpoint (RFC 7515, 7518, 7519).
//!
//! The check is written from the published rules of the token endpoint alone and shares no code with the issuer that it
//! tests. Keys are made at start or at a rotation and never leave memory; only their public halves do, as a JWKS
//! (RFC 7517). Reads no clock: the time is an argument. Called by [`crate::idp`] and [`crate::token`].

use crate::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::{SignatureEncoding as _, Signer as _, Verifier as _};
use rsa::pkcs1v15;
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Map, Value, json};

/// Bits of an RSA key: the least that RFC 7518, section 3.3, allows.
const RSA_BITS: usize = 2048;

/// Tolerance for `exp`, `nbf` and `iat`, in seconds.
const SKEW_S: f64 = 30.0;

/// Largest `exp` − `iat`, in seconds: the default `max_jwt_lifetime_seconds` of an issuer.
const LIFE_MAX_S: f64 = 3600.0;

/// How the identity provider signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[value(name = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    #[value(name = "ES256")]
    Es256,
}

impl Alg {
    /// The name of RFC 7518, section 3.1.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// A signing key of the identity provider.
pub(crate) struct Key {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rs(Box<pkcs1v15::SigningKey<Sha256>>),
    Es(p256::ecdsa::SigningKey),
}

impl Key {
    /// Makes a key with a random `kid`. An RSA key takes a good part of a second.
    ///
    /// Fails when the system has no randomness.
    pub(crate) fn make(alg: Alg) -> Result<Self, String> {
        let kid = format!("sandbox-{}", crate::random_hex(8)?);
        let pair = match alg {
            Alg::Es256 => Pair::Es(p256::ecdsa::SigningKey::random(&mut OsRng)),
            Alg::Rs256 => {
                let key =
                    rsa::RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|e| format!("no RSA key was made: {e}"))?;
                Pair::Rs(Box::new(pkcs1v15::SigningKey::new(key)))
            }
        };
        Ok(Self { kid, pair })
    }

    /// Its name.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The private half of an RSA key, as a PEM block in PKCS #8 (RFC 7468 section 10).
    ///
    /// Fails for a key of another kind.
    pub(crate) fn pem(&self) -> Result<String, String> {
        let Pair::Rs(pair) = &self.pair else { return Err("the key is not an RSA key".into()) };
        let key: &rsa::RsaPrivateKey = pair.as_ref().as_ref();
        let der =
            rsa::pkcs8::EncodePrivateKey::to_pkcs8_der(key).map_err(|e| format!("the key was not written: {e}"))?;
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_bytes());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// Which algorithm it signs with.
    pub(crate) fn alg(&self) -> Alg {
        match self.pair {
            Pair::Rs(_) => Alg::Rs256,
            Pair::Es(_) => Alg::Es256,
        }
    }

    /// The JSON Web Key Set with the public half alone.
    pub(crate) fn jwks(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = match &self.pair {
            Pair::Rs(pair) => {
                let public: &rsa::RsaPrivateKey = pair.as_ref().as_ref();
                json!({"kty": "RSA", "n": b64(&public.n().to_bytes_be()), "e": b64(&public.e().to_bytes_be())})
            }
            Pair::Es(pair) => {
                let point = pair.verifying_key().to_encoded_point(false);
                let half = |half: Option<&p256::FieldBytes>| b64(half.map(|h| h.as_slice()).unwrap_or_default());
                json!({"kty": "EC", "crv": "P-256", "x": half(point.x()), "y": half(point.y())})
            }
        };
        let mut key = key;
        for (name, value) in [("kid", self.kid.as_str()), ("alg", self.alg().name()), ("use", "sig")] {
            key[name] = value.into();
        }
        json!({"keys": [key]})
    }

    /// Signs `claims` with the usual header.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> String {
        self.sign_with(&json!({"alg": self.alg().name(), "kid": self.kid, "typ": "JWT"}), claims)
    }

    fn sign_with(&self, header: &Value, claims: &Map<String, Value>) -> String {
        let part = |value: String| URL_SAFE_NO_PAD.encode(value);
        let body = part(header.to_string()) + "." + &part(Value::Object(claims.clone()).to_string());
        let signature: Vec<u8> = match &self.pair {
            Pair::Rs(pair) => pair.sign(body.as_bytes()).to_vec(),
            Pair::Es(pair) => {
                let signature: p256::ecdsa::Signature = pair.sign(body.as_bytes());
                signature.to_vec()
            }
        };
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verifies(&self, body: &[u8], signature: &[u8]) -> bool {
        match &self.pair {
            Pair::Rs(pair) => {
                let key: &rsa::RsaPrivateKey = pair.as_ref().as_ref();
                let verifier = pkcs1v15::VerifyingKey::<Sha256>::new(key.to_public_key());
                pkcs1v15::Signature::try_from(signature).is_ok_and(|s| verifier.verify(body, &s).is_ok())
            }
            Pair::Es(pair) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|s| pair.verifying_key().verify(body, &s).is_ok()),
        }
    }
}

/// What an assertion claims, read without a look at its signature.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    /// A claim that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is a NumericDate of RFC 7519, in seconds since 1970.
    pub(crate) fn time(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// The audiences: `aud` is a string or an array of strings.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        match self.0.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// An assertion taken apart.
#[derive(Debug)]
pub(crate) struct Assertion<'t> {
    body: &'t str,
    signature: Vec<u8>,
    header: Map<String, Value>,
    /// What it claims.
    pub(crate) claims: Claims,
}

/// Takes a compact JWS apart: three parts, base64url without padding, header and claims JSON objects in which no name
/// stands twice.
pub(crate) fn parse(token: &str) -> Option<Assertion<'_>> {
    let (body, signature) = token.rsplit_once('.')?;
    let (header, claims) = body.split_once('.')?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty());
    Some(Assertion {
        body,
        signature: bytes(signature)?,
        header: json::object(&bytes(header)?).ok()?,
        claims: Claims(json::object(&bytes(claims)?).ok()?),
    })
}

/// Checks the header, the signature, `iss` and the times at `now_s`, in seconds since 1970. Fails with the reason that
/// the journal shows. The rule's own wishes, `aud` and `sub`, are not looked at.
pub(crate) fn verify(assertion: &Assertion<'_>, key: &Key, issuer: &str, now_s: f64) -> Result<(), &'static str> {
    check_signature(assertion, key)?;
    let claims = &assertion.claims;
    if claims.text("iss") != Some(issuer) {
        return Err("issuer");
    }
    if claims.text("sub").is_none_or(str::is_empty) {
        return Err("subject_missing");
    }
    check_times(claims, now_s)
}

/// Checks the header and the signature alone.
pub(crate) fn check_signature(assertion: &Assertion<'_>, key: &Key) -> Result<(), &'static str> {
    let field = |name: &str| assertion.header.get(name).and_then(Value::as_str);
    let alg = field("alg").unwrap_or_default();
    if ![Alg::Rs256, Alg::Es256].iter().any(|known| known.name() == alg) {
        return Err("algorithm");
    }
    // RFC 7515, section 4.1.11: an extension that is not understood makes the token invalid.
    if assertion.header.contains_key("crit") {
        return Err("critical_header");
    }
    match field("kid") {
        None => return Err("kid_missing"),
        Some(kid) if kid != key.kid => return Err("unknown_kid"),
        Some(_) if alg != key.alg().name() => return Err("algorithm"),
        Some(_) => {}
    }
    if !key.verifies(assertion.body.as_bytes(), &assertion.signature) {
        return Err("bad_signature");
    }
    Ok(())
}

/// Checks `iat`, `exp` and `nbf` at `now_s`.
pub(crate) fn check_times(claims: &Claims, now_s: f64) -> Result<(), &'static str> {
    let iat = claims.time("iat").ok_or("issued_at_missing")?;
    let exp = claims.time("exp").ok_or("expiry_missing")?;
    if iat > now_s + SKEW_S {
        return Err("issued_in_future");
    }
    if exp <= now_s - SKEW_S {
        return Err("expired");
    }
    if exp - iat > LIFE_MAX_S {
        return Err("life_too_long");
    }
    match claims.0.get("nbf").map(Value::as_f64) {
        Some(None) => Err("not_before_malformed"),
        Some(Some(nbf)) if nbf > now_s + SKEW_S => Err("not_yet_valid"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const NOW: f64 = 1_800_000_000.0;
    const ISSUER: &str = "http://127.0.0.1:1/idp";

    fn claims(change: Value) -> Map<String, Value> {
        let mut claims = json!({"iss": ISSUER, "sub": "a", "aud": "b", "iat": NOW, "exp": NOW + 300.0});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut claims = claims.as_object().unwrap().clone();
        claims.retain(|_, value| !value.is_null());
        claims
    }

    fn check(token: &str, key: &Key) -> Result<(), &'static str> {
        verify(&parse(token).ok_or("not_a_jwt")?, key, ISSUER, NOW)
    }

    #[test]
    fn both_algorithms_sign_what_they_verify_and_nothing_else() {
        let keys = [Key::make(Alg::Es256).unwrap(), Key::make(Alg::Rs256).unwrap()];
        for key in &keys {
            let token = key.sign(&claims(json!({})));
            assert_eq!(check(&token, key), Ok(()));
            for other in [Key::make(key.alg()).unwrap(), Key::make(Alg::Es256).unwrap()] {
                assert_eq!(check(&token, &other), Err("unknown_kid"));
                let same_name = Key { kid: key.kid.clone(), pair: other.pair };
                let expected = if same_name.alg() == key.alg() { "bad_signature" } else { "algorithm" };
                assert_eq!(check(&token, &same_name), Err(expected));
            }
            let (body, _) = token.rsplit_once('.').unwrap();
            for signature in [URL_SAFE_NO_PAD.encode([0; 64]), URL_SAFE_NO_PAD.encode([7; 256]), "AA".into()] {
                assert_eq!(check(&format!("{body}.{signature}"), key), Err("bad_signature"));
            }
        }
    }

    #[test]
    fn a_jwks_holds_the_public_half_alone() {
        for (alg, names) in [
            (Alg::Es256, ["alg", "crv", "kid", "kty", "use", "x", "y"].as_slice()),
            (Alg::Rs256, ["alg", "e", "kid", "kty", "n", "use"].as_slice()),
        ] {
            let jwks = Key::make(alg).unwrap().jwks();
            let key = jwks["keys"][0].as_object().unwrap();
            assert_eq!(key.keys().map(String::as_str).collect::<Vec<_>>(), names);
            assert!(key.values().all(|value| value.as_str().is_some_and(|text| !text.is_empty())));
        }
    }

    #[test]
    fn headers_outside_of_the_rules_are_refused() {
        let key = Key::make(Alg::Es256).unwrap();
        for (header, reason) in [
            (json!({"alg": "none", "kid": key.kid}), "algorithm"),
            (json!({"alg": "HS256", "kid": key.kid}), "algorithm"),
            (json!({"alg": "es256", "kid": key.kid}), "algorithm"),
            (json!({"alg": 5, "kid": key.kid}), "algorithm"),
            (json!({"kid": key.kid}), "algorithm"),
            (json!({"alg": "RS256", "kid": key.kid}), "algorithm"),
            (json!({"alg": "ES256"}), "kid_missing"),
            (json!({"alg": "ES256", "kid": 7}), "kid_missing"),
            (json!({"alg": "ES256", "kid": "other"}), "unknown_kid"),
            (json!({"alg": "ES256", "kid": key.kid, "crit": ["b64"], "b64": false}), "critical_header"),
        ] {
            assert_eq!(check(&key.sign_with(&header, &claims(json!({}))), &key), Err(reason), "{header}");
        }
    }

    #[test]
    fn claims_outside_of_the_rules_are_refused_and_the_skew_is_thirty_seconds() {
        let key = Key::make(Alg::Es256).unwrap();
        for (change, expected) in [
            (json!({"iss": format!("{ISSUER}/")}), Err("issuer")),
            (json!({"iss": null}), Err("issuer")),
            (json!({"sub": null}), Err("subject_missing")),
            (json!({"sub": ""}), Err("subject_missing")),
            (json!({"iat": null}), Err("issued_at_missing")),
            (json!({"iat": "now"}), Err("issued_at_missing")),
            (json!({"iat": NOW + 29.0}), Ok(())),
            (json!({"iat": NOW + 31.0}), Err("issued_in_future")),
            (json!({"exp": null}), Err("expiry_missing")),
            (json!({"iat": NOW - 300.0, "exp": NOW - 29.0}), Ok(())),
            (json!({"iat": NOW - 300.0, "exp": NOW - 31.0}), Err("expired")),
            (json!({"exp": NOW + 3600.0}), Ok(())),
            (json!({"exp": NOW + 3601.0}), Err("life_too_long")),
            (json!({"nbf": NOW + 29.0}), Ok(())),
            (json!({"nbf": NOW + 31.0}), Err("not_yet_valid")),
            (json!({"nbf": "soon"}), Err("not_before_malformed")),
        ] {
            assert_eq!(check(&key.sign(&claims(change.clone())), &key), expected, "{change}");
        }
    }

    #[test]
    fn what_is_no_compact_jws_is_not_taken_apart() {
        let key = Key::make(Alg::Es256).unwrap();
        let good = key.sign(&claims(json!({})));
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let twice = format!("{}.{}.AA", part(r#"{"alg":"ES256","alg":"none"}"#), part("{}"));
        for bad in [
            String::new(),
            "a.b".into(),
            "..".into(),
            format!("{good}="),
            format!("{good}."),
            format!(" {good}"),
            format!("{good}\n"),
            format!("x.{good}"),
            format!("{}.{}.AA", part("[]"), part("{}")),
            format!("{}.{}.AA", part("{}"), part("null")),
            twice,
        ] {
            assert!(parse(&bad).is_none(), "{bad:?} was taken apart");
        }
    }

    #[test]
    fn an_audience_is_a_string_or_an_array() {
        for (aud, expected) in [
            (json!("a"), vec!["a"]),
            (json!(["a", "b"]), vec!["a", "b"]),
            (json!([1, "b"]), vec!["b"]),
            (json!({"a": 1}), vec![]),
        ] {
            let claims = Claims(claims(json!({"aud": aud})));
            assert_eq!(claims.audiences(), expected);
        }
    }
}
