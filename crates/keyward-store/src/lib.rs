//! The vault on disk: SQLCipher through sqlx, the slot file and the anchor.
//!
//! The data folder holds `vault.db` (everything, encrypted), `vault.slots` (the wrapped vault key) and `vault.lock` (held
//! by the one writer); the state folder holds `anchor` (where the log stood). All files have mode 0600, both folders 0700.
//! Every change goes through [`Store::commit`], which writes it and its audit entries in one transaction. This crate never
//! sees a passphrase or a plaintext secret, and never logs. Called by the broker.

mod anchor;
mod backup;
mod db;
mod error;
mod fault;
mod model;
mod paths;
mod rekey;
mod store;
mod verify;

pub use backup::{Backup, restore};
pub use error::{StoreError, slot_fault};
pub use fault::fault;
pub use model::{
    AnchorReport, Changes, Filter, HeadReport, Health, Item, ItemInfo, Link, Order, Page, Profile, Rekeyed, Restored,
    Run, VerifyReport, Write,
};
pub use paths::{Paths, VaultLock, check_folder, load_slots, save_slots};
pub use store::Store;
