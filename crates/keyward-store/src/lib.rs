//! The vault on disk: SQLCipher through sqlx, the slot file and the anchor.
//!
//! The data folder holds `vault.db` (everything but old entries, encrypted), `vault.slots` (the wrapped vault key), `vault.lock`
//! (held by the one writer) and `archive` (old entries, encrypted); the state folder holds `anchor` (where the log stood). All
//! files have mode 0600, all folders 0700.
//! Every change goes through [`Store::commit`], which writes it and its audit entries in one transaction. This crate never
//! sees a passphrase or a plaintext secret, and never logs. Called by the broker.

mod anchor;
mod archive;
mod backup;
mod db;
mod error;
mod fault;
mod index;
mod model;
mod paths;
mod rekey;
mod review;
mod store;
mod verify;

pub use backup::{Backup, restore};
pub use error::{StoreError, slot_fault};
pub use fault::fault;
pub use model::{
    AnchorReport, ByOutcome, Changes, Filter, Found, Grant, HeadReport, Health, Item, ItemInfo, Launcher, Link, Order,
    Page, Profile, Rekeyed, Restored, Run, Summary, Use, VerifyReport, Write,
};
pub use paths::{Paths, VaultLock, check_folder, load_slots, save_slots};
pub use store::Store;
