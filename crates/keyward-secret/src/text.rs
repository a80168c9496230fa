//! Secret text, and the one way in which it crosses the LocalAPI.

use crate::{SECRET_MAX_BYTES, SecretBytes, SecretError};
use serde::{Deserialize, Deserializer};
use std::fmt;
use zeroize::Zeroize;

/// Secret UTF-8 text: the wire form of a passphrase, a recovery key or a delivered credential.
///
/// Can be read from a request as it is. Cannot be written by a derive: a field that must leave names
/// [`secret_text::serialize`] in `serialize_with`, which is what a reviewer greps for.
pub struct SecretText(SecretBytes);

impl SecretText {
    /// Takes the text over.
    ///
    /// # Errors
    /// [`SecretError::Empty`] or [`SecretError::TooLong`].
    pub fn new(text: String) -> Result<Self, SecretError> {
        SecretBytes::new(text.into_bytes()).map(Self)
    }

    /// Takes bytes over as text.
    ///
    /// # Errors
    /// [`SecretError::NotText`]; the bytes are wiped.
    pub fn from_bytes(bytes: SecretBytes) -> Result<Self, SecretError> {
        // EXPOSE: to see whether it is UTF-8.
        if bytes.expose(|b| std::str::from_utf8(b).is_err()) {
            return Err(SecretError::NotText);
        }
        Ok(Self(bytes))
    }

    /// Shows the text to `look` and to nobody else.
    pub fn expose<R>(&self, look: impl FnOnce(&str) -> R) -> R {
        // EXPOSE: handed on, as text.
        self.0.expose(|b| look(std::str::from_utf8(b).unwrap_or_default()))
    }

    /// The bytes, in the same allocation.
    pub fn into_bytes(self) -> SecretBytes {
        self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(d)?;
        if text.len() > SECRET_MAX_BYTES {
            text.zeroize();
        }
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

/// Named functions for `#[serde(serialize_with = …)]`.
pub mod secret_text {
    use super::SecretText;
    use serde::Serializer;

    /// Writes the secret into the answer of a route that is meant to carry it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(text: &SecretText, s: S) -> Result<S::Ok, S::Error> {
        // EXPOSE: the wire form of a field that carries a secret by design.
        text.expose(|t| s.serialize_str(t))
    }
}
