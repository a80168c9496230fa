//! Replacing the vault key.
//!
//! | Step | A crash after it leaves |
//! |---|---|
//! | 1. close the database, its log moved in | the old vault |
//! | 2. copy it to `vault.db.draft`, encrypt the copy anew (`sqlite3_rekey_v2`), reseal every item, and every archive segment in a file beside it, record `vault.rekeyed` | the old vault; the draft and the files are removed at the next open |
//! | 3. write `anchor.new`, rename the draft to `vault.db.new` | the old vault; both are removed at the next open, since the old key does not open `vault.db.new` |
//! | 4. replace `vault.slots` — **the commit point** | the new vault: the next open sees that the new key opens `vault.db.new` and goes on |
//! | 5. remove `vault.db-wal`, rename `anchor.new` to `anchor`, then `vault.db.new` to `vault.db` | the new vault |
//! | 6. at the next open: remove the old files of the archive | the new vault |
//!
//! At each step exactly one passphrase opens the vault, and in the end no file that Keyward manages opens with the old one.
//! Former audit keys are kept, sealed under the new audit key, so that the entries before still verify.

use crate::archive::Archive;
use crate::backup::REPLACED;
use crate::db;
use crate::error::StoreError;
use crate::fault::fault;
use crate::model::{Changes, Item, Rekeyed, Write};
use crate::paths::{VaultLock, create_private, save_slots};
use crate::store::{Inner, Keys, META_FORMER, Store, clear_staged, finish_staged, former_ref, seal_stage};
use keyward_core::audit::Draft;
use keyward_crypto::{Anchor, AnchorKey, ArchiveKey, ChainKey, SealError, SlotFile, VaultKey, open, seal};
use keyward_secret::SecretBytes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Store {
    /// Replaces the vault key. `slots` is the slot file of [`SlotFile::rekey`] for `new`; `entry` (kind `vault.rekeyed`) becomes
    /// the first entry under the new audit key. Afterwards this store is closed, whatever the outcome: open it anew, with
    /// `new` after success and with `old` after an error. (After an error in the very last steps the slot file may be the
    /// new one already: load it again and see which passphrase opens it.)
    ///
    /// # Errors
    /// [`StoreError::Seal`] where an item does not open, [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::Damaged`]
    /// (where a file of the archive does not open, too; one that is missing goes on missing).
    pub async fn rekey(
        &self,
        lock: &VaultLock,
        slots: &SlotFile,
        old: &VaultKey,
        new: &VaultKey,
        entry: Draft,
    ) -> Result<Rekeyed, StoreError> {
        let mut inner = self.inner.lock().await;
        let anchored = inner.sync_anchor();
        let (head, epoch) = (inner.head, inner.epoch);
        // Closed also where its log cannot be moved in: the caller opens the file anew.
        inner.close("its key was replaced").await?;
        anchored?;
        let paths = &self.paths;
        let staged = async {
            clear_staged(paths)?;
            let (from, draft) = (paths.db(), paths.db_draft());
            let copied = tokio::task::spawn_blocking(move || {
                io::copy(&mut File::open(from)?, &mut create_private(&draft)?).map(drop)
            });
            let copied = copied.await.unwrap_or(Err(io::ErrorKind::Interrupted.into()));
            copied.map_err(|e| StoreError::io("copying", paths.db(), e))?;
            db::rekey(&paths.db_draft(), &old.derive_db(), &new.derive_db()).await?;
            fault("rekey.copied");
            let mut draft = Inner::open(&paths.db_draft(), &slots.vault_id(), new).await?;
            let writes = resealed(&mut draft, head.seq, old, new).await?;
            reseal_archive(&mut draft, paths.archive(), old, new).await?;
            fault("rekey.archived");
            let keys = Keys {
                vault_id: slots.vault_id(),
                chain: ChainKey::new(&new.derive_audit()),
                former: Vec::new(),
                anchor: Arc::new(AnchorKey::new(&new.derive_anchor())),
            };
            draft.commit(&keys, &Changes { writes, entries: vec![entry] }).await?;
            let end = draft.head;
            // A log that is broken keeps its mark inside of the database.
            draft.close("it is staged").await?;
            seal_stage(paths, &keys.anchor, &Anchor { vault: slots.vault_id(), epoch, seq: end.seq, mac: end.mac })?;
            fault("rekey.staged");
            Ok(())
        };
        if let Err(e) = staged.await {
            clear_staged(paths)?;
            return Err(e);
        }
        save_slots(lock, slots)?;
        finish_staged(paths, &new.derive_db()).await?;
        Ok(Rekeyed { older_copies: older_copies(&paths.data)? })
    }
}

/// Every item sealed under the new seal key, and the former audit keys, the one in use included, under the new audit key.
async fn resealed(draft: &mut Inner, head: u64, old: &VaultKey, new: &VaultKey) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::new();
    let (from, to) = (old.derive_seal(), new.derive_seal());
    let items: Vec<Item> = sqlx::query_as("SELECT * FROM item").fetch_all(draft.conn()?).await?;
    for Item { info, sealed } in items {
        let plain = open(&from, &info.as_ref(), &sealed)?;
        let sealed = seal(&to, &info.as_ref(), &plain)?;
        writes.push(Write::PutItem(Item { info, sealed }));
    }
    let (from, to) = (old.derive_audit(), new.derive_audit());
    let mut former = draft.former_keys(&from).await?;
    // EXPOSE: copied into the secret type that is sealed next.
    let ending = from.expose(|k| SecretBytes::new(k.to_vec())).map_err(|_| SealError::Damaged)?;
    former.push((head, ending));
    for (upto, key) in former {
        let sealed = seal(&to, &former_ref(upto), &key)?;
        writes.push(Write::PutMeta(format!("{META_FORMER}{upto:020}"), sealed));
    }
    Ok(writes)
}

/// Every archive segment in another file, sealed under the new keys.
async fn reseal_archive(draft: &mut Inner, folder: PathBuf, old: &VaultKey, new: &VaultKey) -> Result<(), StoreError> {
    let archive = Archive::load(draft.conn()?, folder, ArchiveKey::new(old.derive_archive())).await?;
    let (to, chain) = (ArchiveKey::new(new.derive_archive()), ChainKey::new(&new.derive_audit()));
    let from = ChainKey::new(&old.derive_audit());
    let resealed = tokio::task::spawn_blocking(move || archive.reseal(&from, &to, &chain));
    let resealed = resealed.await.unwrap_or(Err(StoreError::Unusable("the archive was not sealed anew")))?;
    Archive::replace(draft.conn()?, &resealed).await
}

/// Vaults that a restore moved aside.
fn older_copies(data: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(data).map_err(|e| StoreError::io("reading", data, e))?;
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(REPLACED.as_bytes()));
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
    found.sort();
    Ok(found)
}
