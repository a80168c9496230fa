//! Per-item envelopes: each stored secret is sealed by itself, under a key of its own.
//!
//! Item key = `HKDF-SHA256(seal key, info = "keyward/item/v1" ‖ item id (16) ‖ u64be(generation))`;
//! envelope = `nonce (24, random) ‖ XChaCha20-Poly1305(item key, nonce, plaintext, aad) `, where
//! `aad = item id (16) ‖ u64be(generation) ‖ kind`. Moving an envelope to another item, generation or kind makes it unopenable.

use crate::random::{RandomError, make_array};
use crate::vault_key::{derive, scrub_stack};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use keyward_secret::{Key32, SecretBytes};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// What an envelope belongs to. All three parts are authenticated; none is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// Identifier of the item.
    pub id: [u8; 16],
    /// How often the item was replaced; 1 for the first envelope. A generation is used for one plaintext only.
    pub generation: u64,
    /// Kind of the item, such as `secret`.
    pub kind: &'a str,
}

impl ItemRef<'_> {
    fn aad(&self) -> Vec<u8> {
        [&self.id, &self.generation.to_be_bytes()[..], self.kind.as_bytes()].concat()
    }

    fn cipher(&self, seal_key: &Key32) -> XChaCha20Poly1305 {
        let key = derive(seal_key, &[b"keyward/item/v1", &self.id, &self.generation.to_be_bytes()]);
        // EXPOSE: key schedule of the cipher, which wipes itself.
        key.expose(|k| XChaCha20Poly1305::new(<&Key>::from(k)))
    }
}

/// Sealing or opening an item failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The envelope does not verify: damaged, moved, or sealed under another key.
    #[error("the sealed item does not verify")]
    Damaged,
    /// No random nonce could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Seals `plaintext` for `item` with a random nonce and returns the envelope.
///
/// # Errors
/// [`SealError::Random`].
pub fn seal(seal_key: &Key32, item: &ItemRef<'_>, plaintext: &SecretBytes) -> Result<Vec<u8>, SealError> {
    let nonce: [u8; NONCE_BYTES] = make_array()?;
    let cipher = item.cipher(seal_key);
    let aad = item.aad();
    // EXPOSE: input of the cipher.
    let sealed = plaintext
        .expose(|msg| cipher.encrypt(<&XNonce>::from(&nonce), Payload { msg, aad: &aad }))
        .map_err(|_| SealError::Damaged)?;
    scrub_stack();
    Ok([&nonce[..], &sealed].concat())
}

/// Opens the envelope of `item`.
///
/// # Errors
/// [`SealError::Damaged`].
pub fn open(seal_key: &Key32, item: &ItemRef<'_>, envelope: &[u8]) -> Result<SecretBytes, SealError> {
    let Some((nonce, sealed)) = envelope.split_first_chunk::<NONCE_BYTES>() else { return Err(SealError::Damaged) };
    if sealed.len() <= TAG_BYTES {
        return Err(SealError::Damaged);
    }
    let plain = item
        .cipher(seal_key)
        .decrypt(<&XNonce>::from(nonce), Payload { msg: sealed, aad: &item.aad() })
        .map_err(|_| SealError::Damaged)?;
    scrub_stack();
    SecretBytes::new(plain).map_err(|_| SealError::Damaged)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key32 {
        Key32::make(|k| k.fill(0x42))
    }

    const ITEM: ItemRef<'static> = ItemRef { id: [7; 16], generation: 3, kind: "secret" };

    #[test]
    fn an_envelope_made_elsewhere_opens() {
        // Made by an independent implementation: see the comment in the file.
        let vector: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/seal.json")).unwrap();
        let envelope = hex::decode(vector["envelope"].as_str().unwrap()).unwrap();
        let plain = open(&key(), &ITEM, &envelope).unwrap();
        assert!(plain.expose(|p| p == vector["plaintext"].as_str().unwrap().as_bytes()));
    }

    #[test]
    fn short_envelopes_are_refused() {
        for n in 0..=NONCE_BYTES + TAG_BYTES {
            assert_eq!(open(&key(), &ITEM, &vec![0; n]).unwrap_err(), SealError::Damaged, "{n}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn opens_as_it_was_sealed_and_no_bit_may_change(plain in proptest::collection::vec(any::<u8>(), 1..300), at in any::<usize>(), bit in 0u8..8) {
            let secret = SecretBytes::new(plain.clone()).unwrap();
            let mut envelope = seal(&key(), &ITEM, &secret).unwrap();
            prop_assert!(open(&key(), &ITEM, &envelope).unwrap().expose(|p| p == plain));
            let at = at % envelope.len();
            envelope[at] ^= 1 << bit;
            prop_assert_eq!(open(&key(), &ITEM, &envelope).unwrap_err(), SealError::Damaged);
        }

        #[test]
        fn belongs_to_its_item_generation_kind_and_key(id_bit in 0usize..128, generation_bit in 0u32..64, kind in "[a-z]{1,8}", key_bit in 0usize..256) {
            let envelope = seal(&key(), &ITEM, &SecretBytes::new(b"plain".to_vec()).unwrap()).unwrap();
            let mut id = ITEM.id;
            id[id_bit / 8] ^= 1 << (id_bit % 8);
            let opens = |key: &Key32, item: &ItemRef<'_>| open(key, item, &envelope).is_ok();
            prop_assert!(!opens(&key(), &ItemRef { id, ..ITEM }), "another item");
            let generation = ITEM.generation ^ (1 << generation_bit);
            prop_assert!(!opens(&key(), &ItemRef { generation, ..ITEM }), "another generation");
            prop_assert_eq!(opens(&key(), &ItemRef { kind: &kind, ..ITEM }), kind == ITEM.kind);
            let other = Key32::make(|k| {
                k.fill(0x42);
                k[key_bit / 8] ^= 1 << (key_bit % 8);
            });
            prop_assert!(!opens(&other, &ITEM), "another key");
        }
    }
}
