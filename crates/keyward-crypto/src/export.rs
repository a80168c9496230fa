//! The export key: Ed25519 (RFC 8032), so that others can check an exported log without a key of the vault.
//!
//! Signed message: `"keyward/export/v1" ‖ SHA-256 of the exported stream`. Public keys are written as `kwpub1:` followed by
//! 64 hexadecimal digits.

use crate::random::{RandomError, make_key};
use crate::vault_key::scrub_stack;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use keyward_secret::{Key32, SecretBytes};
use std::fmt;
use std::str::FromStr;

/// Bytes of a signature.
pub const EXPORT_SIGNATURE_BYTES: usize = 64;

const PREFIX: &str = "kwpub1:";

/// Signing or checking an export failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The stored key is not 32 bytes long.
    #[error("the export key is damaged")]
    Key,
    /// The text is not a public key of this form.
    #[error("not a public key: it is written as kwpub1: and 64 hexadecimal digits")]
    PublicKey,
    /// The signature does not belong to these bytes and this key.
    #[error("the signature does not verify")]
    Signature,
    /// No random key could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The private export key of a vault: the 32-byte seed of RFC 8032.
#[derive(Debug)]
pub struct ExportKey(Key32);

impl ExportKey {
    /// Makes a fresh key.
    ///
    /// # Errors
    /// [`ExportError::Random`].
    pub fn make() -> Result<Self, ExportError> {
        Ok(Self(make_key()?))
    }

    /// Takes a stored seed.
    ///
    /// # Errors
    /// [`ExportError::Key`] unless it is 32 bytes long.
    pub fn from_seed(seed: &SecretBytes) -> Result<Self, ExportError> {
        Key32::try_make(|page| {
            // EXPOSE: copied into the page of the key.
            seed.expose(|s| {
                if s.len() == page.len() {
                    page.copy_from_slice(s);
                    Ok(())
                } else {
                    Err(ExportError::Key)
                }
            })
        })
        .map(Self)
    }

    /// The seed, for sealing it into the vault.
    ///
    /// # Errors
    /// None for a key that exists; the bound of [`SecretBytes`] is larger.
    pub fn seed(&self) -> Result<SecretBytes, ExportError> {
        // EXPOSE: copied into another secret type.
        self.0.expose(|s| SecretBytes::new(s.to_vec())).map_err(|_| ExportError::Key)
    }

    /// Signs the SHA-256 digest of an exported stream.
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; EXPORT_SIGNATURE_BYTES] {
        let signature = self.with(|key| key.sign(&message(digest)).to_bytes());
        scrub_stack();
        signature
    }

    /// The key that others check with.
    pub fn public(&self) -> PublicKey {
        let public = PublicKey(self.with(|key| key.verifying_key()));
        scrub_stack();
        public
    }

    #[inline(never)]
    fn with<R>(&self, act: impl FnOnce(&SigningKey) -> R) -> R {
        // EXPOSE: input of the signature; the expanded key wipes itself.
        self.0.expose(|seed| act(&SigningKey::from_bytes(seed)))
    }
}

/// The public export key of a vault. Prints and parses as `kwpub1:` and hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks the signature over the SHA-256 digest of an exported stream. Weak keys and signatures that are malleable are
    /// refused.
    ///
    /// # Errors
    /// [`ExportError::Signature`].
    pub fn verify(&self, digest: &[u8; 32], signature: &[u8]) -> Result<(), ExportError> {
        let signature = Signature::from_slice(signature).map_err(|_| ExportError::Signature)?;
        self.0.verify_strict(&message(digest), &signature).map_err(|_| ExportError::Signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, ExportError> {
        let mut bytes = [0; 32];
        let digits = text.trim().strip_prefix(PREFIX).ok_or(ExportError::PublicKey)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ExportError::PublicKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ExportError::PublicKey)?;
        if key.is_weak() { Err(ExportError::PublicKey) } else { Ok(Self(key)) }
    }
}

fn message(digest: &[u8; 32]) -> Vec<u8> {
    [&b"keyward/export/v1"[..], digest].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn signs_what_an_independent_implementation_accepts() {
        // Made with OpenSSL from the same seed.
        let vector: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/export.json")).unwrap();
        let key = ExportKey::from_seed(&SecretBytes::new(vec![0x42; 32]).unwrap()).unwrap();
        assert_eq!(key.public().to_string(), vector["public"].as_str().unwrap());
        assert_eq!(hex::encode(key.sign(&[7; 32])), vector["signature"].as_str().unwrap());
        assert!(key.seed().unwrap().expose(|s| s == [0x42; 32]));
    }

    #[test]
    fn another_digest_key_or_signature_is_refused() {
        let key = ExportKey::make().unwrap();
        let signature = key.sign(&[7; 32]);
        key.public().verify(&[7; 32], &signature).unwrap();
        assert_eq!(key.public().verify(&[8; 32], &signature), Err(ExportError::Signature));
        assert_eq!(ExportKey::make().unwrap().public().verify(&[7; 32], &signature), Err(ExportError::Signature));
        for at in 0..EXPORT_SIGNATURE_BYTES {
            let mut bad = signature;
            bad[at] ^= 1;
            assert!(key.public().verify(&[7; 32], &bad).is_err(), "{at}");
        }
        assert!(key.public().verify(&[7; 32], &signature[..63]).is_err());
        assert!(key.public().verify(&[7; 32], &[]).is_err());
    }

    #[test]
    fn public_keys_survive_their_text_and_others_are_refused() {
        let public = ExportKey::make().unwrap().public();
        assert_eq!(public.to_string().parse(), Ok(public.clone()));
        let text = public.to_string();
        // The last: the neutral element, under which anything verifies.
        let weak = format!("kwpub1:01{}", "00".repeat(31));
        for bad in
            ["", "kwpub1:", &text[..70], &text[7..], &format!("{text}0"), &text.replace("kwpub1", "kwpub2"), &weak]
        {
            assert_eq!(bad.parse::<PublicKey>(), Err(ExportError::PublicKey), "{bad}");
        }
        assert!(ExportKey::from_seed(&SecretBytes::new(vec![1; 31]).unwrap()).is_err());
    }
}
