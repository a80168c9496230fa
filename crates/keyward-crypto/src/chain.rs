//! The MAC that links audit entries, and the keyed digest of a command line.
//!
//! `mac = HMAC-SHA256(audit key, "keyward/audit/v1" ‖ u64be(seq) ‖ prev (32) ‖ u64be(len(body)) ‖ body)`; `prev` of the first
//! entry is `SHA-256("keyward/genesis/v1" ‖ vault id (16))`. There is no unkeyed form.

use crate::vault_key::{scrub_frames, scrub_stack};
use hmac::{Hmac, KeyInit, Mac};
use keyward_secret::Key32;
use sha2::{Digest, Sha256};
use std::fmt;

/// HMAC-SHA256 (RFC 2104) with the key scheduled once, boxed so that moves leave no copies; wiped on drop.
pub(crate) struct MacKey(Box<Hmac<Sha256>>);

impl MacKey {
    pub(crate) fn new(key: &Key32) -> Self {
        // EXPOSE: key schedule of HMAC.
        let mac = key.expose(|k| Hmac::<Sha256>::new_from_slice(k).map(Box::new));
        scrub_stack();
        Self(mac.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")))
    }

    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mac = self.compute(parts);
        // The states that it worked on are as good as the key.
        scrub_frames();
        mac
    }

    #[inline(never)]
    fn compute(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = (*self.0).clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The audit key, ready to link entries. Holds the scheduled HMAC and not the key.
pub struct ChainKey(MacKey);

impl ChainKey {
    /// Schedules the audit key of [`crate::VaultKey::derive_audit`].
    pub fn new(audit_key: &Key32) -> Self {
        Self(MacKey::new(audit_key))
    }

    /// MAC of one entry. `prev` is the MAC of the entry before it, or [`genesis`].
    pub fn mac(&self, seq: u64, prev: &[u8; 32], body: &[u8]) -> [u8; 32] {
        let len = (body.len() as u64).to_be_bytes();
        self.0.mac(&[b"keyward/audit/v1", &seq.to_be_bytes(), prev, &len, body])
    }

    /// MAC of the checkpoint of an archive segment: `HMAC-SHA256(audit key, "keyward/checkpoint/v1" ‖ checkpoint)`. The bytes are
    /// the caller's.
    pub fn checkpoint(&self, checkpoint: &[u8]) -> [u8; 32] {
        self.0.mac(&[b"keyward/checkpoint/v1", checkpoint])
    }

    /// Keyed digest of an argument list, so that the log can tell two command lines apart without holding them:
    /// `HMAC-SHA256(audit key, "keyward/args/v1" ‖ u64be(count) ‖ (u64be(len) ‖ argument)…)`.
    pub fn args_digest<A: AsRef<[u8]>>(&self, argv: &[A]) -> [u8; 32] {
        let mut input = b"keyward/args/v1".to_vec();
        input.extend((argv.len() as u64).to_be_bytes());
        for arg in argv {
            input.extend((arg.as_ref().len() as u64).to_be_bytes());
            input.extend(arg.as_ref());
        }
        let digest = self.0.mac(&[&input]);
        zeroize::Zeroize::zeroize(&mut input);
        digest
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey")
    }
}

/// `prev` of the first entry of a vault.
pub fn genesis(vault_id: &[u8; 16]) -> [u8; 32] {
    Sha256::new().chain_update(b"keyward/genesis/v1").chain_update(vault_id).finalize().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_mac_is_hmac_sha256_of_rfc_4231() {
        // Test case 1 has a key of 20 bytes; HMAC pads with zeros, so the same key padded to 32 bytes gives the same MAC.
        let key = Key32::make(|k| k[..20].fill(0x0b));
        assert_eq!(
            hex::encode(MacKey::new(&key).mac(&[b"Hi ", b"There"])),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn links_genesis_and_digests_match_those_made_elsewhere() {
        let vector: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/chain.json")).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap().to_owned();
        let chain = ChainKey::new(&Key32::make(|k| k.fill(0x42)));
        let first = genesis(&[7; 16]);
        assert_eq!(hex::encode(first), text("genesis"));
        let one = chain.mac(1, &first, text("body").as_bytes());
        assert_eq!(hex::encode(one), text("mac_1"));
        assert_eq!(hex::encode(chain.mac(2, &one, b"")), text("mac_2"));
        assert_eq!(hex::encode(chain.args_digest(&["ls", "-l", ""])), text("args"));
        assert_eq!(hex::encode(chain.checkpoint(b"checkpoint")), text("checkpoint"));
    }

    #[test]
    fn argument_lists_that_join_to_the_same_text_differ() {
        let chain = ChainKey::new(&Key32::make(|k| k.fill(1)));
        assert_ne!(chain.args_digest(&["ab", "c"]), chain.args_digest(&["a", "bc"]));
        assert_ne!(chain.args_digest(&["a", ""]), chain.args_digest(&["a"]));
    }
}
