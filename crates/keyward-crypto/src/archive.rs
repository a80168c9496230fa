//! Archive segments: old entries of the log, sealed in files outside of the database.
//!
//! A segment is a row of pieces. Its key is `HKDF-SHA256(archive key, info = "keyward/segment/v1" ‖ segment id (16))`; a piece is
//! `nonce (24, random) ‖ XChaCha20-Poly1305(segment key, nonce, plaintext, aad = segment id (16) ‖ u64be(place))`, places counting
//! from 0. A piece at another place or in another segment does not open. Whether pieces are missing at the end shows in
//! the checkpoint of the segment ([`crate::ChainKey::checkpoint`]), not here. Nothing here reads or writes a file.

use crate::random::make_array;
use crate::seal::SealError;
use crate::vault_key::{derive, scrub_stack};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use keyward_secret::Key32;
use std::fmt;

const NONCE_BYTES: usize = 24;

/// The key of [`crate::VaultKey::derive_archive`], from which those of segments are derived.
pub struct ArchiveKey(Key32);

impl ArchiveKey {
    /// Takes the archive key.
    pub fn new(archive_key: Key32) -> Self {
        Self(archive_key)
    }

    /// Makes the key of one segment ready. An identifier is used for one segment only.
    pub fn segment(&self, id: [u8; 16]) -> SegmentKey {
        let key = derive(&self.0, &[b"keyward/segment/v1", &id]);
        // EXPOSE: key schedule of the cipher, which wipes itself.
        let cipher = key.expose(|k| Box::new(XChaCha20Poly1305::new(<&Key>::from(k))));
        scrub_stack();
        SegmentKey { id, cipher }
    }
}

impl fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchiveKey")
    }
}

/// The key of one segment, boxed so that moves leave no copies; wiped on drop.
pub struct SegmentKey {
    id: [u8; 16],
    cipher: Box<XChaCha20Poly1305>,
}

impl SegmentKey {
    /// Seals the piece at a place, with a random nonce.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, place: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = make_array()?;
        let payload = Payload { msg: plain, aad: &self.aad(place) };
        let sealed = self.cipher.encrypt(<&XNonce>::from(&nonce), payload).map_err(|_| SealError::Damaged)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens the piece at a place.
    ///
    /// # Errors
    /// [`SealError::Damaged`].
    pub fn open(&self, place: u64, piece: &[u8]) -> Result<Vec<u8>, SealError> {
        let Some((nonce, msg)) = piece.split_first_chunk::<NONCE_BYTES>() else { return Err(SealError::Damaged) };
        let payload = Payload { msg, aad: &self.aad(place) };
        self.cipher.decrypt(<&XNonce>::from(nonce), payload).map_err(|_| SealError::Damaged)
    }

    fn aad(&self, place: u64) -> [u8; 24] {
        let mut aad = [0; 24];
        aad[..16].copy_from_slice(&self.id);
        aad[16..].copy_from_slice(&place.to_be_bytes());
        aad
    }
}

impl fmt::Debug for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentKey")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn key(byte: u8) -> ArchiveKey {
        ArchiveKey::new(Key32::make(|k| k.fill(byte)))
    }

    #[test]
    fn a_piece_made_elsewhere_opens() {
        // Made by an independent implementation: see the comment in the file.
        let vector: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/archive.json")).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let piece = hex::decode(text("piece")).unwrap();
        assert_eq!(key(0x42).segment([7; 16]).open(3, &piece).unwrap(), text("plaintext").as_bytes());
    }

    #[test]
    fn a_piece_opens_at_its_place_in_its_segment_under_its_key_alone() {
        let segment = key(1).segment([7; 16]);
        let plain = b"entry".repeat(100);
        let piece = segment.seal(3, &plain).unwrap();
        assert_eq!(segment.open(3, &piece).unwrap(), plain);
        assert_ne!(segment.seal(3, &plain).unwrap(), piece, "nonces differ");
        assert_eq!(segment.open(2, &piece), Err(SealError::Damaged));
        assert_eq!(key(1).segment([8; 16]).open(3, &piece), Err(SealError::Damaged));
        assert_eq!(key(2).segment([7; 16]).open(3, &piece), Err(SealError::Damaged));
        for at in 0..piece.len() {
            let mut bad = piece.clone();
            bad[at] ^= 1;
            assert_eq!(segment.open(3, &bad), Err(SealError::Damaged), "byte {at}");
            assert_eq!(segment.open(3, &piece[..at]), Err(SealError::Damaged), "cut at {at}");
        }
    }
}
