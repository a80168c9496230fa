//! Anchors: where the log stood, kept outside of the database.
//!
//! The anchor file is two slots of 128 bytes, written in turn, so that a torn write leaves the other one:
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..8 | magic `KWANCHR1` |
//! | 8..16 | u64be generation; the slot with the higher one counts |
//! | 16..32 | vault id |
//! | 32..40 | u64be epoch of the vault |
//! | 40..48 | u64be seq of the last entry, 0 for an empty log |
//! | 48..80 | MAC of that entry, or the genesis hash |
//! | 80..96 | zeros |
//! | 96..128 | `HMAC-SHA256(anchor key, "keyward/anchor/v1" ‖ bytes 0..96)` |
//!
//! Nothing here reads or writes the file.

use crate::chain::MacKey;
use keyward_secret::Key32;
use std::fmt;
use subtle::ConstantTimeEq;

/// Bytes of one slot.
pub const ANCHOR_SLOT_BYTES: usize = 128;
/// Bytes of the file: two slots.
pub const ANCHOR_FILE_BYTES: usize = 2 * ANCHOR_SLOT_BYTES;

const MAGIC: &[u8; 8] = b"KWANCHR1";
const MACED_BYTES: usize = 96;

/// Where the log of a vault stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Identifier of the vault.
    pub vault: [u8; 16],
    /// Epoch of the vault.
    pub epoch: u64,
    /// Sequence number of the last entry; 0 for an empty log.
    pub seq: u64,
    /// MAC of that entry, or the genesis hash.
    pub mac: [u8; 32],
}

/// What an anchor file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorFile {
    /// The newest anchor that verifies.
    Found {
        /// How many anchors were written up to this one.
        generation: u64,
        /// The anchor.
        anchor: Anchor,
    },
    /// There are bytes, and no slot of them verifies under this key.
    Damaged,
}

/// The anchor key, ready to seal and check slots. Holds the scheduled HMAC and not the key.
pub struct AnchorKey(MacKey);

impl AnchorKey {
    /// Schedules the key of [`crate::VaultKey::derive_anchor`].
    pub fn new(anchor_key: &Key32) -> Self {
        Self(MacKey::new(anchor_key))
    }

    /// Encodes one slot. Generation `g` belongs at offset `(g % 2) * ANCHOR_SLOT_BYTES` of the file.
    pub fn encode(&self, generation: u64, anchor: &Anchor) -> [u8; ANCHOR_SLOT_BYTES] {
        let mut slot = [0; ANCHOR_SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..16].copy_from_slice(&generation.to_be_bytes());
        slot[16..32].copy_from_slice(&anchor.vault);
        slot[32..40].copy_from_slice(&anchor.epoch.to_be_bytes());
        slot[40..48].copy_from_slice(&anchor.seq.to_be_bytes());
        slot[48..80].copy_from_slice(&anchor.mac);
        let mac = self.mac(&slot);
        slot[MACED_BYTES..].copy_from_slice(&mac);
        slot
    }

    /// Reads the file: of the slots that verify, the one with the higher generation.
    pub fn newest(&self, file: &[u8]) -> AnchorFile {
        let newest = file
            .chunks_exact(ANCHOR_SLOT_BYTES)
            .take(2)
            .filter_map(|slot| self.decode(slot))
            .max_by_key(|(generation, _)| *generation);
        match newest {
            Some((generation, anchor)) if file.len() <= ANCHOR_FILE_BYTES => AnchorFile::Found { generation, anchor },
            _ => AnchorFile::Damaged,
        }
    }

    fn decode(&self, slot: &[u8]) -> Option<(u64, Anchor)> {
        let (generation, anchor) = fields(slot)?;
        let verifies: bool = self.mac(slot).ct_eq(slot.get(MACED_BYTES..)?).into();
        verifies.then_some((generation, anchor))
    }

    fn mac(&self, slot: &[u8]) -> [u8; 32] {
        self.0.mac(&[b"keyward/anchor/v1", &slot[..MACED_BYTES]])
    }
}

impl fmt::Debug for AnchorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnchorKey")
    }
}

impl AnchorFile {
    /// The newest anchor of a file whose key is not at hand (it belongs to another vault key). Nothing of it is verified:
    /// for choosing a higher epoch and for words only, never for trust.
    pub fn unverified(file: &[u8]) -> Option<Anchor> {
        let slots = file.chunks_exact(ANCHOR_SLOT_BYTES).take(2).filter_map(fields);
        slots.max_by_key(|(generation, _)| *generation).map(|(_, anchor)| anchor)
    }
}

fn fields(slot: &[u8]) -> Option<(u64, Anchor)> {
    let slot: &[u8; ANCHOR_SLOT_BYTES] = slot.try_into().ok()?;
    let u64_at = |at: usize| slot[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    if slot[..8] != *MAGIC || slot[80..MACED_BYTES] != [0; 16] {
        return None;
    }
    let vault = slot[16..32].try_into().ok()?;
    let mac = slot[48..80].try_into().ok()?;
    Some((u64_at(8), Anchor { vault, epoch: u64_at(32), seq: u64_at(40), mac }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AnchorKey {
        AnchorKey::new(&Key32::make(|k| k.fill(0x42)))
    }

    fn anchor(seq: u64) -> Anchor {
        Anchor { vault: [7; 16], epoch: 2, seq, mac: [9; 32] }
    }

    #[test]
    fn the_newer_slot_counts_wherever_it_lies() {
        let old = key().encode(5, &anchor(50));
        let new = key().encode(6, &anchor(51));
        let found = AnchorFile::Found { generation: 6, anchor: anchor(51) };
        assert_eq!(key().newest(&[old, new].concat()), found);
        assert_eq!(key().newest(&[new, old].concat()), found);
        assert_eq!(key().newest(&new), found);
    }

    #[test]
    fn a_torn_or_flipped_slot_leaves_the_other_one() {
        let old = key().encode(5, &anchor(50));
        let new = key().encode(6, &anchor(51));
        for at in 0..ANCHOR_SLOT_BYTES {
            let mut bad = new;
            bad[at] ^= 1;
            let kept = AnchorFile::Found { generation: 5, anchor: anchor(50) };
            assert_eq!(key().newest(&[bad, old].concat()), kept, "flip at {at}");
            let mut torn = [0; ANCHOR_SLOT_BYTES];
            torn[..at].copy_from_slice(&new[..at]);
            assert_eq!(key().newest(&[torn, old].concat()), kept, "torn at {at}");
            assert_eq!(key().newest(&[bad, bad].concat()), AnchorFile::Damaged);
        }
    }

    #[test]
    fn bytes_that_are_no_anchor_are_damaged() {
        for n in [0, 1, 127, 128, 129, 256, 257, 384, 4096] {
            assert_eq!(key().newest(&vec![0; n]), AnchorFile::Damaged, "{n}");
            assert_eq!(AnchorFile::unverified(&vec![0xff; n]), None);
        }
        let long = [key().encode(1, &anchor(1)).to_vec(), vec![0; 129]].concat();
        assert_eq!(key().newest(&long), AnchorFile::Damaged);
        let other = AnchorKey::new(&Key32::make(|k| k.fill(0x43)));
        assert_eq!(other.newest(&key().encode(1, &anchor(1))), AnchorFile::Damaged);
        assert_eq!(AnchorFile::unverified(&key().encode(1, &anchor(1))), Some(anchor(1)));
    }
}
