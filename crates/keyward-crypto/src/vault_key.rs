//! The vault key and what is derived from it (HKDF-SHA256, RFC 5869).
//!
//! Every derivation is `HKDF-Expand(HKDF-Extract(salt = none, vault key), info = label, 32 bytes)`. Derived keys are
//! written into their own pages; the working stack is overwritten afterwards, since the last HMAC block of HKDF *is* the key.

use crate::random::{RandomError, make_key};
use hkdf::Hkdf;
use keyward_secret::Key32;
use sha2::Sha256;
use zeroize::Zeroize;

/// The key of a vault: 256 random bits, made once and kept only wrapped in the slot file.
///
/// Never encrypts anything by itself; all uses go through the keys derived from it.
#[derive(Debug)]
pub struct VaultKey(Key32);

impl VaultKey {
    /// Makes a fresh vault key.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn make() -> Result<Self, RandomError> {
        make_key().map(Self)
    }

    /// Raw key of the SQLCipher database, label `keyward/db/v1`.
    pub fn derive_db(&self) -> Key32 {
        derive(&self.0, &[b"keyward/db/v1"])
    }

    /// Key from which the keys of sealed items are derived, label `keyward/seal/v1`.
    pub fn derive_seal(&self) -> Key32 {
        derive(&self.0, &[b"keyward/seal/v1"])
    }

    /// Key of the audit chain, label `keyward/audit/v1`.
    pub fn derive_audit(&self) -> Key32 {
        derive(&self.0, &[b"keyward/audit/v1"])
    }

    /// Key of the MAC over the slot file, label `keyward/slots/v1`.
    pub fn derive_slots(&self) -> Key32 {
        derive(&self.0, &[b"keyward/slots/v1"])
    }

    /// Key of the MAC over anchors, label `keyward/anchor/v1`.
    pub fn derive_anchor(&self) -> Key32 {
        derive(&self.0, &[b"keyward/anchor/v1"])
    }

    /// Key from which those of archive segments are derived, label `keyward/archive/v1`.
    pub fn derive_archive(&self) -> Key32 {
        derive(&self.0, &[b"keyward/archive/v1"])
    }

    pub(crate) fn from_key(key: Key32) -> Self {
        Self(key)
    }

    pub(crate) fn key(&self) -> &Key32 {
        &self.0
    }
}

/// `HKDF-SHA256(ikm, salt = none, info = the parts one after the other)`, 32 bytes.
pub(crate) fn derive(ikm: &Key32, info: &[&[u8]]) -> Key32 {
    let out = expand(ikm, info);
    scrub_stack();
    out
}

#[inline(never)]
fn expand(ikm: &Key32, info: &[&[u8]]) -> Key32 {
    // EXPOSE: input of HKDF-Extract.
    let hkdf = ikm.expose(|k| Hkdf::<Sha256>::new(None, k));
    Key32::try_make(|okm| hkdf.expand_multi_info(info, okm))
        .unwrap_or_else(|_| unreachable!("32 bytes are one block of HKDF-SHA256"))
}

/// Overwrites the part of the stack that the functions called before this one used.
#[inline(never)]
pub(crate) fn scrub_stack() {
    let mut used = [0xffu8; 16 * 1024];
    used.zeroize();
}

/// As [`scrub_stack`] for a few small frames: cheap enough for each entry of a log.
#[inline(never)]
pub(crate) fn scrub_frames() {
    std::hint::black_box(&mut [0u8; 4 * 1024]);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn hex_of(key: &Key32) -> String {
        key.expose(|k| hex::encode(k))
    }

    #[test]
    fn the_formula_is_hkdf_sha256_of_rfc_5869_without_salt() {
        // RFC 5869, test case 3: no salt, no info, 22 bytes of 0x0b. The crate is called as `expand` calls it, which takes
        // keys of 32 bytes only.
        let mut okm = [0; 42];
        Hkdf::<Sha256>::new(None, &[0x0b; 22]).expand_multi_info(&[b""], &mut okm).unwrap();
        assert_eq!(
            hex::encode(okm),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        );
    }

    #[test]
    fn each_label_gives_its_own_known_key() {
        let vault = VaultKey(Key32::make(|k| k.fill(0x42)));
        let vectors: Vec<(String, String)> =
            serde_json::from_str(include_str!("../tests/vectors/derive.json")).unwrap();
        let ours = [
            ("keyward/db/v1", vault.derive_db()),
            ("keyward/seal/v1", vault.derive_seal()),
            ("keyward/audit/v1", vault.derive_audit()),
            ("keyward/slots/v1", vault.derive_slots()),
            ("keyward/anchor/v1", vault.derive_anchor()),
            ("keyward/archive/v1", vault.derive_archive()),
        ];
        let ours: Vec<(String, String)> = ours.iter().map(|(label, key)| ((*label).to_owned(), hex_of(key))).collect();
        assert_eq!(ours, vectors);
    }
}
