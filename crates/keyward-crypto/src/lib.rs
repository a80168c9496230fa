//! Envelopes, key derivation, key slots and the chain MAC.
//!
//! Everything here is a function of its arguments: no file, clock, network or environment is read. The operating system's
//! random numbers are drawn by the `make` functions and by those whose documentation says so. Errors never quote a key,
//! a passphrase or a plaintext. Called by the core (chain rules), the store (files) and the broker (unlocking).

mod anchor;
mod archive;
mod chain;
mod export;
mod kdf;
mod random;
mod seal;
mod slots;
mod vault_key;

pub use anchor::{ANCHOR_FILE_BYTES, ANCHOR_SLOT_BYTES, Anchor, AnchorFile, AnchorKey};
pub use archive::{ArchiveKey, SegmentKey};
pub use chain::{ChainKey, genesis};
pub use export::{EXPORT_SIGNATURE_BYTES, ExportError, ExportKey, PublicKey};
pub use kdf::{KdfError, KdfParams, calibrate, derive_from_passphrase};
pub use random::{RandomError, make_array, make_key};
pub use seal::{ItemRef, SealError, open, seal};
pub use slots::{SLOTS_MAX_BYTES, SlotError, SlotFile, SlotInfo, SlotKind};
pub use vault_key::VaultKey;
