//! Making, opening, closing and keeping the vault.

use crate::broker::{Broker, KeyringAnchor, Open, State, Vault, entry, entry_of, facts, failed};
use crate::keyring;
use crate::peer::Peer;
use crate::platform::{self, now};
use crate::runs::{Run, holds};
use keyward_api::{
    BackupRequest, BrokerStatus, InitRequest, LockAnswer, LostRun, Proof, RecoveryAnswer, RekeyAnswer, RekeyRequest,
    RestoreRequest, SlotAddRequest, SlotKind, SlotMsg, SlotRemoveRequest, StatusAnswer, UnlockAnswer, UnlockRequest,
    VaultState, VaultStatus,
};
use keyward_core::audit::{Kind, Outcome, at_text};
use keyward_core::{Expected, GrantId, Grants, Name, ProcessId, Wall};
use keyward_crypto::{KdfParams, SlotFile, VaultKey, calibrate, make_array};
use keyward_diag::{Code, Fault};
use keyward_secret::{Passphrase, SecretText};
use keyward_store::{
    Backup, Changes, Filter, Health, Order, Page, Store, StoreError, Write, load_slots, save_slots, slot_fault,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Shortest passphrase, in characters. Eight more classes of characters would not make up for a short one.
const PASSPHRASE_MIN_CHARS: usize = 12;

/// What a wrong proof left while no log was open: a file that anyone of the user can delete, read at the next unlock.
#[derive(Default, Serialize, Deserialize)]
struct WrongProofs {
    count: u64,
    first_us: i64,
    last_us: i64,
}

/// Whether the anchor in the keyring was compared.
enum Seen {
    /// The vault has no keyring slot, or the keyring has no anchor yet.
    Nothing,
    /// The keyring did not answer.
    Silent,
    /// It was.
    Compared,
}

/// Something that opens a slot.
enum Opener {
    Passphrase(Passphrase),
    Recovery(SecretText),
}

impl Broker {
    /// What is going on. Never needs the vault.
    pub(crate) async fn status(&self) -> StatusAnswer {
        let state = self.state().await;
        let at = now();
        let (vault, auto_locked, broken, left) = match &state.vault {
            Vault::Locked if self.vault_exists() => (VaultState::Locked, false, false, None),
            Vault::Locked => (VaultState::Absent, false, false, None),
            Vault::Open(open) if open.seal.is_none() => (VaultState::Locked, true, open.store.is_broken(), None),
            Vault::Open(open) => {
                let left = open.last_action.after(state.config.auto_lock).since(at.boot).as_secs();
                (VaultState::Unlocked, false, open.store.is_broken(), Some(left))
            }
        };
        let live = state.runs.values().filter(|r| r.ended.is_none());
        let leases = live.clone().flat_map(|r| &r.leases).filter(|l| l.lease.is_live()).count();
        StatusAnswer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vault: VaultStatus { state: vault, auto_locked, audit_broken: broken, auto_lock_in_s: left },
            broker: Some(BrokerStatus {
                pid: std::process::id(),
                started_at: self.started.wall.to_rfc3339(),
                rss_bytes: platform::rss_bytes(),
            }),
            runs: u32::try_from(live.count()).unwrap_or(u32::MAX),
            leases: u32::try_from(leases).unwrap_or(u32::MAX),
            gateway: Some(self.gate.address()),
            home: self.places.data.display().to_string(),
            now: Some(at_text(at.wall.0)),
        }
    }

    /// Makes the vault and leaves it open.
    pub(crate) async fn init(self: &Arc<Self>, peer: &Peer, request: InitRequest) -> Result<RecoveryAnswer, Fault> {
        if self.vault_exists() {
            return Err(Fault::new(Code::VaultExists));
        }
        let passphrase = strong(request.passphrase)?;
        let made = self
            .derive(move || {
                let kdf = measure();
                let id = make_array::<16>().map_err(|e| e.to_string())?;
                let key = VaultKey::make().map_err(|e| e.to_string())?;
                let slots = SlotFile::create(id, &key, &passphrase, kdf).map_err(|e| e.to_string())?;
                Ok::<_, String>((key, slots))
            })
            .await?;
        let (key, mut slots) = made.map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let recovery_key = match request.recovery {
            true => Some(slots.add_recovery(&key).map_err(|e| slot_fault(&e))?),
            false => None,
        };
        let mut state = self.state_for_request().await?;
        if self.vault_exists() {
            return Err(Fault::new(Code::VaultExists));
        }
        let first = entry_of(Kind::VaultInitialised, now(), peer).detail("recovery_key", request.recovery);
        let store = Store::create(&self.vault_lock, &slots, &key, first).await.map_err(|e| e.fault())?;
        self.opened(&mut state, store, &key, None).await?;
        self.unlocked_by(&mut state, peer, now());
        self.publish_vault("unlocked");
        Ok(RecoveryAnswer { recovery_key })
    }

    /// Opens the vault, or renews the person's rights when it is open.
    pub(crate) async fn unlock(self: &Arc<Self>, peer: &Peer, request: UnlockRequest) -> Result<UnlockAnswer, Fault> {
        if !self.vault_exists() {
            return Err(Fault::new(Code::VaultAbsent));
        }
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        let (key, by) = match (request.proof, request.keyring) {
            (Some(_), true) | (None, false) => {
                return Err(Fault::new(Code::RequestInvalid).cause("give either a proof or `keyring`"));
            }
            (Some(Proof::Passphrase(text)), false) => (self.prove(Proof::Passphrase(text)).await?, "passphrase"),
            (Some(Proof::Recovery(text)), false) => (self.prove(Proof::Recovery(text)).await?, "recovery"),
            (None, true) => {
                if !slots.has(keyward_crypto::SlotKind::Keyring) {
                    let fault = Fault::new(Code::VaultSlotUnknown).cause("the vault has no keyring slot");
                    return Err(fault.help("make one with `keyward vault slot add keyring`"));
                }
                let inner = keyring::load(slots.vault_id()).await?;
                (slots.open_keyring(&inner).map_err(|e| slot_fault(&e))?, "keyring")
            }
        };
        let mut state = self.state().await;
        self.unchanged(&slots)?;
        let at = now();
        if let Some(open) = state.open() {
            let draft = entry_of(Kind::VaultUnlocked, at, peer).detail("by", by).detail("was_open", true);
            open.commit(self, Vec::new(), vec![draft]).await?;
            open.seal = Some(key.derive_seal());
            open.last_action = at.boot;
            let marked = if by == "keyring" { None } else { self.unlocked_by(&mut state, peer, at) };
            self.publish_vault("unlocked");
            self.wake.notify_one();
            let warnings = warnings(state.open()).into_iter().chain(marked).collect();
            return Ok(UnlockAnswer { resumed_runs: live(&state), warnings });
        }
        let (store, health) = Store::open(&self.vault_lock, &slots, &key).await.map_err(|e| e.fault())?;
        let mut answer = self.opened(&mut state, store, &key, Some((peer, by))).await?;
        // All live runs are known by this time, so one of them gets nothing from it.
        if by != "keyring" {
            answer.warnings.extend(self.unlocked_by(&mut state, peer, at));
        }
        if let Health::Sound { past_anchor: 1.. } = health {
            answer
                .warnings
                .push("the broker ended unexpectedly last time; all entries of the log are there".to_owned());
        }
        self.publish_vault("unlocked");
        Ok(answer)
    }

    /// Takes an opened database into the state: profiles, runs, and the entries that were waiting.
    pub(crate) async fn opened(
        self: &Arc<Self>,
        state: &mut State,
        store: Store,
        key: &VaultKey,
        by: Option<(&Peer, &str)>,
    ) -> Result<UnlockAnswer, Fault> {
        let at = now();
        let mut open = Open {
            store: Arc::new(store),
            seal: Some(key.derive_seal()),
            profiles: std::collections::BTreeMap::new(),
            launchers: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            grants: Grants::default(),
            last_action: at.boot,
            keyring: keyring_anchor(&load_slots(&self.paths).map_err(|e| e.fault())?),
            unanchored: AtomicBool::new(true),
            unsynced: AtomicBool::new(true),
            synced: at.boot,
        };
        let seen = self.compare_keyring_anchor(&open.store, open.keyring).await?;
        self.load_profiles(&mut open).await?;
        self.load_launchers(&mut open).await?;
        self.load_secrets(&mut open).await?;
        let (mut writes, lost) = self.load_grants(&mut open, at).await?;
        writes.extend(self.resume_mark(state, &open).await?);
        for write in &state.owed.writes {
            if let Write::RemoveGrant(id) = write {
                open.grants.remove(GrantId(*id));
            }
            writes.push(write.clone());
        }
        let mut entries = state.owed.entries.clone();
        entries.extend(lost);
        if !state.opened {
            let started = match by {
                Some(_) => entry(Kind::BrokerStarted, self.started),
                // The vault was made a moment ago, and its log has no time before that.
                None => entry(Kind::BrokerStarted, at).detail("started_at", self.started.wall.to_rfc3339()),
            };
            let started = started.detail("version", env!("CARGO_PKG_VERSION"));
            entries.push(started.detail("pid", std::process::id()));
        }
        let wrong = self.wrong_proofs();
        if wrong.count > 0 {
            let draft = entry(Kind::VaultUnlockFailed, at).outcome(Outcome::Refused).detail("count", wrong.count);
            entries.push(
                draft
                    .detail("first_at", Wall(wrong.first_us).to_rfc3339())
                    .detail("last_at", Wall(wrong.last_us).to_rfc3339()),
            );
        }
        if let Some((peer, by)) = by {
            entries.push(entry_of(Kind::VaultUnlocked, at, peer).detail("by", by));
        }
        if !entries.is_empty() {
            writes.extend(live_rows(state));
            open.commit(self, writes, entries).await?;
        }
        state.owed = Changes::default();
        self.forget_wrong_proofs();
        self.gate.log(Some(Arc::clone(&open.store)));
        state.vault = Vault::Open(Box::new(open));
        let resumed = self.resume_runs(state).await;
        if resumed.is_err() {
            // What was not recorded did not happen.
            self.close_vault(state).await;
        }
        let (resumed_runs, mut warnings_of_runs) = resumed?;
        if let Seen::Silent = seen {
            warnings_of_runs.push("the keyring did not answer, so its anchor of the log was not compared".to_owned());
        }
        // From here on all live runs are known, so roles can be told.
        state.opened = true;
        let held: Vec<Name> = state.runs.values().flat_map(|r| &r.leases).map(|l| l.profile.clone()).collect();
        self.changed(state, &held).await;
        self.wake.notify_one();
        warnings_of_runs.extend(warnings(state.open()));
        Ok(UnlockAnswer { resumed_runs, warnings: warnings_of_runs })
    }

    /// Takes everything back and wipes all keys.
    pub(crate) async fn lock(self: &Arc<Self>, peer: &Peer) -> Result<LockAnswer, Fault> {
        let mut state = self.state().await;
        self.lock_now(&mut state, Some(peer)).await
    }

    /// As [`Broker::lock`], also for the stop of the broker. What cannot be recorded is taken back all the same.
    pub(crate) async fn lock_now(
        self: &Arc<Self>,
        state: &mut State,
        peer: Option<&Peer>,
    ) -> Result<LockAnswer, Fault> {
        if !self.vault_exists() {
            return Err(Fault::new(Code::VaultAbsent));
        }
        if state.open().is_none() {
            // The runs from before a crash are not known, but what they were given as files is.
            let found = self.deliveries().map(|d| d.remove_all()).unwrap_or_default();
            return Ok(LockAnswer {
                runs: found.into_iter().filter(|p| platform::pin(*p).is_some()).map(unknown_run).collect(),
            });
        }
        let at = now();
        self.locked_by("it was locked by hand");
        self.flush_refusals(state, at).await;
        self.write_uses(state).await;
        let held = state.runs.values().filter(|r| holds(r)).map(|run| (run.id, run.live()));
        let held: Vec<_> = held.collect();
        let mut draft = entry(Kind::VaultLocked, at).detail("runs", held.len());
        if let Some(peer) = peer {
            draft = draft.peer(facts(peer));
        }
        let mut entries = Self::take_pending(state);
        entries.push(draft);
        entries.extend(self.end_rights(state, at));
        let answer = self.revoke_leases(state, &held, peer, at, Changes::record(entries.clone())).await;
        if answer.is_err() {
            // It happens all the same, so it is recorded later.
            state.owe(Changes::record(entries));
        }
        self.settle_uses(state).await;
        if let Some(open) = state.open() {
            self.anchor_to_keyring(open).await;
        }
        self.close_vault(state).await;
        if let Ok(deliveries) = self.deliveries() {
            deliveries.remove_all();
        }
        self.connections.close_all_but(peer.map(Peer::connection));
        answer.map(|a| LockAnswer { runs: a.runs })
    }

    /// As a lock, at the end of the broker.
    pub(crate) async fn shut_down(self: &Arc<Self>) {
        let mut state = self.state().await;
        if let Err(e) = self.lock_now(&mut state, None).await
            && e.code != Code::VaultAbsent
        {
            tracing::error!(code = %e.code, "the stop could not be recorded");
        }
    }

    /// Ends the person's rights and wipes the seal key. Live leases go on, with the database open to record them.
    pub(crate) async fn auto_lock(&self, state: &mut State, why: &str) {
        let at = now();
        self.locked_by(why);
        let mut entries = vec![entry(Kind::VaultAutoLocked, at).detail("why", why)];
        entries.extend(self.end_rights(state, at));
        let (Some(open), runs, cache) = state.parts() else { return };
        open.seal = None;
        let recorded = open.commit(self, Vec::new(), entries.clone()).await;
        let used: Vec<Name> =
            runs.values().flat_map(|r| &r.leases).filter(|l| l.lease.renews()).map(|l| l.profile.clone()).collect();
        cache.retain(|name, _| used.contains(name));
        let runs_live = runs.values().any(|r| r.ended.is_none());
        if let Err(e) = recorded {
            tracing::error!(code = %e.code, "the auto-lock could not be recorded");
            state.owe(Changes::record(entries));
        }
        if !runs_live {
            self.close_vault(state).await;
        }
        self.publish_vault("locked");
    }

    /// Locks the vault when the machine slept since the last look.
    pub(crate) async fn notice_suspend(&self, state: &mut State) {
        let suspended = platform::time_in_suspend();
        // The two clocks are not read at one instant.
        let slept = suspended.saturating_sub(state.suspended) > Duration::from_secs(1);
        state.suspended = suspended;
        if slept && state.open().is_some_and(|o| o.seal.is_some()) {
            self.auto_lock(state, "the machine slept").await;
        }
    }

    /// Compares the log with the anchor in the keyring, where the vault uses one; says whether there was one.
    pub(crate) async fn check_keyring_anchor(&self, store: &Store) -> Result<bool, Fault> {
        let keyring = self.state().await.open().and_then(|open| open.keyring);
        Ok(matches!(self.compare_keyring_anchor(store, keyring).await?, Seen::Compared))
    }

    async fn compare_keyring_anchor(&self, store: &Store, keyring: Option<KeyringAnchor>) -> Result<Seen, Fault> {
        let Some(KeyringAnchor { vault, .. }) = keyring else { return Ok(Seen::Nothing) };
        match keyring::load_anchor(vault).await {
            Ok(bytes) => {
                let seen = store.check_second_anchor(&bytes).await.map_err(|e| e.fault())?;
                Ok(if seen { Seen::Compared } else { Seen::Nothing })
            }
            Err(fault) if fault.code == Code::KeyringMissing => Ok(Seen::Nothing),
            Err(_) => Ok(Seen::Silent),
        }
    }

    /// Writes the anchor into the keyring, where the vault uses one and entries were written since. A keyring that does not
    /// answer leaves it behind, which is no break.
    pub(crate) async fn anchor_to_keyring(&self, open: &mut Open) {
        let Some(keyring) = &mut open.keyring else { return };
        if !open.unanchored.swap(false, Ordering::Relaxed) {
            return;
        }
        keyring.written = now().boot;
        let (vault, anchor) = (keyring.vault, open.store.second_anchor().await);
        if let Some(anchor) = anchor
            && let Err(e) = keyring::store_anchor(vault, anchor).await
        {
            open.unanchored.store(true, Ordering::Relaxed);
            tracing::warn!(code = %e.code, "the anchor was not written to the keyring");
        }
    }

    /// Closes the database and wipes every key and credential.
    pub(crate) async fn close_vault(&self, state: &mut State) {
        self.write_uses(state).await;
        state.cache.clear();
        state.exchanges.clear();
        state.supplied.clear();
        state.expected = Expected::default();
        state.proofs.locked();
        self.gate.log(None);
        if let Vault::Open(open) = std::mem::replace(&mut state.vault, Vault::Locked)
            && let Err(e) = open.store.close().await
        {
            tracing::error!(code = %e.fault().code, "the vault was not closed cleanly");
        }
        self.publish_vault("locked");
    }

    /// Opens a slot of the vault with what a person showed. One derivation at a time; wrong proofs cost time and are counted.
    pub(crate) async fn prove(&self, proof: Proof) -> Result<VaultKey, Fault> {
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        self.prove_with(slots, proof).await
    }

    /// As [`Broker::prove`], for a slot file that was read before.
    pub(crate) async fn prove_with(&self, slots: SlotFile, proof: Proof) -> Result<VaultKey, Fault> {
        let opener = match proof {
            Proof::Passphrase(text) => Opener::Passphrase(passphrase(text)?),
            Proof::Recovery(text) => Opener::Recovery(text),
        };
        let Ok(_place) = self.derivations.try_acquire() else { return Err(Fault::new(Code::Busy)) };
        let _turn = self.derivation.lock().await;
        if let Some(left) = self.state().await.tries.wait(now().boot) {
            return Err(Fault::new(Code::VaultUnlockWait).cause(format!("wait {} s", left.as_secs() + 1)));
        }
        let opened = tokio::task::spawn_blocking(move || match opener {
            Opener::Passphrase(passphrase) => slots.open_passphrase(&passphrase),
            Opener::Recovery(identity) => slots.open_recovery(&identity),
        });
        let opened = opened.await.map_err(|_| Fault::new(Code::Internal).cause("the derivation broke off"))?;
        let mut state = self.state().await;
        match opened {
            Ok(key) => {
                state.tries.succeeded();
                Ok(key)
            }
            Err(error) => {
                let fault = slot_fault(&error);
                if matches!(fault.code, Code::VaultWrongPassphrase | Code::VaultWrongRecovery) {
                    state.tries.failed(now().boot);
                    self.count_wrong_proof(&mut state, &fault).await;
                }
                Err(fault)
            }
        }
    }

    /// Runs a derivation that is not a proof, in turn with the proofs.
    async fn derive<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let Ok(_place) = self.derivations.try_acquire() else { return Err(Fault::new(Code::Busy)) };
        let _turn = self.derivation.lock().await;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Fault::new(Code::Internal).cause("the derivation broke off"))
    }

    async fn count_wrong_proof(&self, state: &mut State, fault: &Fault) {
        let at = now();
        if let Some(open) = state.open() {
            let draft = entry(Kind::VaultUnlockFailed, at).outcome(Outcome::Refused).detail("code", fault.code.name());
            if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
                tracing::error!(code = %e.code, "a wrong proof could not be recorded");
            }
            return;
        }
        let mut wrong = self.wrong_proofs();
        if wrong.count == 0 {
            wrong.first_us = at.wall.0;
        }
        wrong.count += 1;
        wrong.last_us = at.wall.0;
        let text = serde_json::to_vec(&wrong).unwrap_or_default();
        if let Err(e) = write_private(&self.wrong_proofs_file(), &text) {
            tracing::error!(error = %e, "a wrong proof could not be counted");
        }
    }

    fn wrong_proofs_file(&self) -> PathBuf {
        self.places.state.join("wrong-proofs")
    }

    fn wrong_proofs(&self) -> WrongProofs {
        let bytes = std::fs::read(self.wrong_proofs_file()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn forget_wrong_proofs(&self) {
        // Most times there is none.
        let _ = std::fs::remove_file(self.wrong_proofs_file());
    }

    /// Lists the slots.
    pub(crate) fn slots(&self) -> Result<Vec<SlotMsg>, Fault> {
        if !self.vault_exists() {
            return Err(Fault::new(Code::VaultAbsent));
        }
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        let messages = slots.list().into_iter().map(|slot| {
            let (kind, about) = match slot.kind {
                keyward_crypto::SlotKind::Passphrase => (SlotKind::Passphrase, "opened by the passphrase"),
                keyward_crypto::SlotKind::Keyring => (
                    SlotKind::Keyring,
                    "opened by the keyring: any program you run can open the vault; protects a stolen disk only",
                ),
                keyward_crypto::SlotKind::Recovery => {
                    (SlotKind::Recovery, "opened by the recovery key, which was shown once")
                }
            };
            SlotMsg { slot: slot.id, kind, about: about.to_owned() }
        });
        Ok(messages.collect())
    }

    /// Adds a keyring or recovery slot.
    pub(crate) async fn slot_add(&self, peer: &Peer, request: SlotAddRequest) -> Result<RecoveryAnswer, Fault> {
        let before = load_slots(&self.paths).map_err(|e| e.fault())?;
        let key = self.prove_with(before.clone(), request.proof).await?;
        let mut slots = before.clone();
        let (word, recovery_key) = match request.kind {
            SlotKind::Passphrase => {
                return Err(Fault::new(Code::VaultSlotExists).help("change the passphrase with `keyward vault rekey`"));
            }
            SlotKind::Keyring => {
                let inner = slots.add_keyring(&key).map_err(|e| slot_fault(&e))?;
                keyring::store(slots.vault_id(), inner).await?;
                ("keyring", None)
            }
            SlotKind::Recovery => ("recovery", Some(slots.add_recovery(&key).map_err(|e| slot_fault(&e))?)),
        };
        let mut state = self.state_for_request().await?;
        let open = self.unlocked(&mut state)?;
        self.unchanged(&before)?;
        let draft = entry_of(Kind::VaultSlotAdded, now(), peer).detail("slot", word);
        open.commit(self, Vec::new(), vec![draft]).await?;
        save_slots(&self.vault_lock, &slots).map_err(|e| e.fault())?;
        open.keyring = keyring_anchor(&slots);
        self.anchor_to_keyring(open).await;
        Ok(RecoveryAnswer { recovery_key })
    }

    /// Refuses to go on when the slot file was changed since it was read: what was made from it would undo that change.
    pub(crate) fn unchanged(&self, before: &SlotFile) -> Result<(), Fault> {
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        let same = slots.to_bytes() == before.to_bytes();
        if same { Ok(()) } else { Err(Fault::new(Code::Busy).cause("the slots were changed meanwhile")) }
    }

    /// Removes a slot by its id or kind.
    pub(crate) async fn slot_remove(&self, peer: &Peer, request: SlotRemoveRequest) -> Result<(), Fault> {
        let before = load_slots(&self.paths).map_err(|e| e.fault())?;
        let key = self.prove_with(before.clone(), request.proof).await?;
        let mut slots = before.clone();
        let wanted = slots.list().into_iter().find(|s| s.id == request.slot || s.kind.name() == request.slot);
        let wanted = wanted.ok_or_else(|| Fault::new(Code::VaultSlotUnknown))?;
        let removed = slots.remove(&key, &wanted.id).map_err(|e| slot_fault(&e))?;
        {
            let mut state = self.state_for_request().await?;
            let open = self.unlocked(&mut state)?;
            self.unchanged(&before)?;
            let draft = entry_of(Kind::VaultSlotRemoved, now(), peer).detail("slot", removed.kind.name());
            open.commit(self, Vec::new(), vec![draft]).await?;
            save_slots(&self.vault_lock, &slots).map_err(|e| e.fault())?;
            open.keyring = keyring_anchor(&slots);
        }
        if removed.kind == keyward_crypto::SlotKind::Keyring {
            // The slot is gone; a key that stays in a keyring that does not answer opens nothing.
            let _ = keyring::remove(slots.vault_id()).await;
        }
        Ok(())
    }

    /// Replaces the vault key and the passphrase.
    ///
    /// The answer names the copies of the vault that it knows of: those keep the old passphrase.
    pub(crate) async fn rekey(&self, peer: &Peer, request: RekeyRequest) -> Result<RekeyAnswer, Fault> {
        let new_passphrase = strong(request.new_passphrase)?;
        let before = load_slots(&self.paths).map_err(|e| e.fault())?;
        let old = self.prove_with(before.clone(), request.proof).await?;
        let former = before.clone();
        let made = self.derive(move || {
            let kdf = measure();
            let new = VaultKey::make().map_err(|e| Fault::new(Code::Internal).cause(e))?;
            let slots = former.rekey(&new, &new_passphrase, kdf).map_err(|e| slot_fault(&e))?;
            Ok::<_, Fault>((new, slots))
        });
        let (new, mut slots) = made.await??;
        // A failure after this costs the keyring slot, never the vault.
        if before.has(keyward_crypto::SlotKind::Keyring) {
            let inner = slots.add_keyring(&new).map_err(|e| slot_fault(&e))?;
            keyring::store(slots.vault_id(), inner).await?;
        }
        let mut state = self.state().await;
        let open = self.unlocked(&mut state)?;
        self.unchanged(&before)?;
        let draft = entry_of(Kind::VaultRekeyed, now(), peer);
        let done = open.store.rekey(&self.vault_lock, &slots, &old, &new, draft).await;
        // The store is closed now, whichever key holds.
        let (key, slots) = match &done {
            Ok(_) => (&new, slots),
            Err(_) => (&old, load_slots(&self.paths).map_err(|e| e.fault())?),
        };
        match Store::open(&self.vault_lock, &slots, key).await {
            Ok((store, _)) => {
                open.store = Arc::new(store);
                self.gate.log(Some(Arc::clone(&open.store)));
                open.seal = Some(key.derive_seal());
                open.keyring = keyring_anchor(&slots);
                open.unanchored.store(true, Ordering::Relaxed);
                self.anchor_to_keyring(open).await;
                self.load_secrets(open).await?;
            }
            Err(error) => {
                self.close_vault(&mut state).await;
                return Err(error.fault());
            }
        }
        let rekeyed = done.map_err(|e| e.fault())?;
        let mut older_copies: Vec<String> = rekeyed.older_copies.iter().map(|p| p.display().to_string()).collect();
        older_copies.extend(backups(&open.store).await?);
        Ok(RekeyAnswer { older_copies })
    }

    /// Writes a backup.
    pub(crate) async fn backup(&self, peer: &Peer, request: BackupRequest) -> Result<(), Fault> {
        let path = absolute(&request.path)?;
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        let store = {
            let mut state = self.state_for_request().await?;
            let open = self.unlocked(&mut state)?;
            let draft = entry_of(Kind::VaultBackedUp, now(), peer).detail("file", path.display().to_string());
            open.commit(self, Vec::new(), vec![draft]).await?;
            Arc::clone(&open.store)
        };
        let Err(e) = store.backup(&slots, &path).await else { return Ok(()) };
        let fault = e.fault();
        let draft = failed(Kind::VaultBackedUp, now(), &fault).peer(facts(peer));
        let draft = draft.detail("file", path.display().to_string());
        if let Some(open) = self.state().await.open() {
            open.commit(self, Vec::new(), vec![draft]).await?;
        }
        Err(fault)
    }

    /// Puts a backup in place and opens it.
    pub(crate) async fn restore(self: &Arc<Self>, peer: &Peer, request: RestoreRequest) -> Result<UnlockAnswer, Fault> {
        let path = absolute(&request.path)?;
        if self.vault_exists() && !request.replace {
            return Err(Fault::new(Code::VaultExists)
                .help("add --replace to put the backup in its place; the vault there is moved aside"));
        }
        if !std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
            return Err(Fault::new(Code::FileUnreadable).cause(format!("{} is not a file", path.display())));
        }
        // Whoever replaces a vault shows that it is theirs; one whose slots are damaged opens for nobody.
        if let Ok(present) = load_slots(&self.paths) {
            let proof = request.present.as_ref().unwrap_or(&request.proof);
            self.prove_with(present, copy(proof)?).await?;
        }
        let read = tokio::task::spawn_blocking(move || Backup::read(&path)).await;
        let backup = read.map_err(|_| Fault::new(Code::Internal))?.map_err(|e| e.fault())?;
        let key = self.prove_with(backup.slots().clone(), request.proof).await.map_err(of_backup)?;
        let mut state = self.state().await;
        // The runs of a vault that is replaced unseen are not known, and the peer could be in one of them.
        let runs_known = state.opened || !self.vault_exists();
        if state.open().is_some() {
            self.lock_now(&mut state, Some(peer)).await?;
        }
        let restored =
            keyward_store::restore(&self.vault_lock, &backup, &key, now().wall.0, request.replace, Some(facts(peer)));
        let restored = restored.await.map_err(|e| e.fault())?;
        let slots = load_slots(&self.paths).map_err(|e| e.fault())?;
        let (store, _) = Store::open(&self.vault_lock, &slots, &key).await.map_err(|e: StoreError| e.fault())?;
        let mut answer = self.opened(&mut state, store, &key, Some((peer, "restore"))).await?;
        if runs_known {
            answer.warnings.extend(self.unlocked_by(&mut state, peer, now()));
        }
        if let Some(old) = restored.moved_to {
            answer.warnings.push(format!("the vault that was there lies in {}", old.display()));
        }
        self.publish_vault("unlocked");
        Ok(answer)
    }
}

/// The fault of a wrong proof, in words about the backup instead of the vault.
fn of_backup(fault: Fault) -> Fault {
    let message = match fault.code {
        Code::VaultWrongPassphrase => "the passphrase does not open the backup",
        Code::VaultWrongRecovery => "the recovery key does not open the backup",
        _ => return fault,
    };
    Fault { message: message.to_owned(), ..fault }.help("use the one of the day on which the backup was made")
}

/// The backups that the log knows of and that still exist.
async fn backups(store: &Store) -> Result<Vec<String>, Fault> {
    let filter = Filter { kind: Some(Kind::VaultBackedUp.name().to_owned()), ..Filter::default() };
    let page = Page { after: None, before: None, order: Order::NewestFirst, limit: 1_000 };
    let links = store.entries(page, &filter).await.map_err(|e| e.fault())?;
    let files = links.iter().filter_map(|l| l.entry().ok()?.detail.get("file")?.as_str().map(str::to_owned));
    let files: std::collections::BTreeSet<String> = files.filter(|f| Path::new(f).exists()).collect();
    Ok(files.into_iter().collect())
}

/// The live runs as changes of the vault, for entries that tell of them late.
pub(crate) fn live_rows(state: &State) -> Vec<Write> {
    match state.owed.entries.is_empty() {
        true => Vec::new(),
        false => state.runs.values().filter(|run| run.ended.is_none()).map(Run::row).collect(),
    }
}

/// A run from before a crash that lost its files.
fn unknown_run(process: ProcessId) -> LostRun {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
    LostRun {
        run: String::new(),
        app: keyward_diag::plain(name.trim(), 64),
        pid: process.pid,
        profiles: Vec::new(),
        remains: vec!["what was delivered by environment is not known before the vault is opened".to_owned()],
    }
}

/// What the broker keeps of the keyring slot, if there is one.
fn keyring_anchor(slots: &SlotFile) -> Option<KeyringAnchor> {
    let has = slots.has(keyward_crypto::SlotKind::Keyring);
    has.then(|| KeyringAnchor { vault: slots.vault_id(), written: now().boot })
}

fn live(state: &State) -> u32 {
    u32::try_from(state.runs.values().filter(|r| r.ended.is_none()).count()).unwrap_or(u32::MAX)
}

fn warnings(open: Option<&mut Open>) -> Vec<String> {
    match open {
        Some(open) if open.store.is_broken() => {
            vec!["the audit log does not match what was recorded before: nothing is delivered; see `keyward audit verify`".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// A second copy of a proof, for two vaults with the same passphrase.
fn copy(proof: &Proof) -> Result<Proof, Fault> {
    let text = |t: &SecretText| {
        // EXPOSE: into a copy that is wiped as the first one is.
        t.expose(|t| SecretText::new(t.to_owned())).map_err(|e| Fault::new(Code::RequestInvalid).cause(e))
    };
    Ok(match proof {
        Proof::Passphrase(t) => Proof::Passphrase(text(t)?),
        Proof::Recovery(t) => Proof::Recovery(text(t)?),
    })
}

/// A passphrase from the wire, with a final line end dropped.
fn passphrase(text: SecretText) -> Result<Passphrase, Fault> {
    // EXPOSE: from the wire's type into the passphrase's own.
    let bytes = text.expose(|t| t.as_bytes().to_vec());
    Passphrase::new(bytes).map_err(|e| Fault::new(Code::VaultWrongPassphrase).cause(e))
}

/// A new passphrase: long enough, and not one character over and over.
fn strong(text: SecretText) -> Result<Passphrase, Fault> {
    let passphrase =
        passphrase(text).map_err(|f| Fault { causes: f.causes, ..Fault::new(Code::VaultWeakPassphrase) })?;
    // EXPOSE: its length and variety are judged.
    let (chars, different) = passphrase.expose(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let different: std::collections::BTreeSet<char> = text.chars().collect();
        (text.chars().count(), different.len())
    });
    if chars < PASSPHRASE_MIN_CHARS {
        return Err(Fault::new(Code::VaultWeakPassphrase).cause(format!("it has {chars} characters")));
    }
    if different < 6 {
        return Err(
            Fault::new(Code::VaultWeakPassphrase).cause(format!("it has only {different} different characters"))
        );
    }
    Ok(passphrase)
}

/// Parameters for about half a second on this machine.
fn measure() -> KdfParams {
    calibrate(|params| {
        let begin = now().boot;
        if let Ok(passphrase) = Passphrase::new(b"calibration".to_vec()) {
            // Only the time counts.
            let _ = keyward_crypto::derive_from_passphrase(&passphrase, &[0; 16], params);
        }
        now().boot.since(begin)
    })
}

fn absolute(path: &str) -> Result<PathBuf, Fault> {
    let path = Path::new(path);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(Fault::new(Code::RequestInvalid).cause("the path is not absolute"))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
