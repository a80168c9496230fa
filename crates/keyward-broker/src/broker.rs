//! The broker's state, and the one lock around it.
//!
//! All decisions are made while the lock is held, and in it nothing waits for the network, a program or a person: exchanges
//! and key derivations run outside and come back with their result. The one exception is the anchor in the keyring, for which
//! the keyring is given two seconds. Requests that find too many others waiting are told so.

use crate::approve::{Attending, Card};
use crate::config::Config;
use crate::events::Events;
use crate::files::Deliveries;
use crate::gate::Gate;
use crate::launchers::StoredLauncher;
use crate::peer::Peer;
use crate::platform;
use crate::renew::Cached;
use crate::runs::{Run, RunId};
use crate::server::Connections;
use keyward_api::ExchangeMsg;
use keyward_api::place::Places;
use keyward_core::audit::{Draft, Kind, Outcome, PeerFacts};
use keyward_core::{
    ApprovalId, ApprovalKind, Approvals, Asker, Boot, Expected, Families, GrantId, Grants, KindSpec, Mark, Name, Now,
    Profile, Proofs, Refusals, Tools, Tries, Wall,
};
use keyward_diag::{Code, Fault};
use keyward_secret::{Key32, SecretBytes};
use keyward_store::{Changes, Item, Paths, Store, VaultLock, Write};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore, watch};

/// Requests that may wait for the state at once.
const WAITING: usize = 128;

/// The broker. One a process.
pub(crate) struct Broker {
    pub(crate) places: Places,
    pub(crate) paths: Paths,
    pub(crate) families: Families,
    pub(crate) tools: Tools,
    pub(crate) kinds: Vec<&'static KindSpec>,
    pub(crate) events: Events,
    pub(crate) gate: Gate,
    pub(crate) connections: Connections,
    pub(crate) started: Now,
    /// Wakes the timer, which then looks anew for what is due.
    pub(crate) wake: Notify,
    /// One key derivation at a time, a few may wait.
    pub(crate) derivation: Mutex<()>,
    pub(crate) derivations: Semaphore,
    pub(crate) stop: watch::Sender<bool>,
    /// One verification at a time.
    pub(crate) verifying: Mutex<()>,
    state: Mutex<State>,
    waiting: Semaphore,
    pub(crate) vault_lock: VaultLock,
    /// Why the vault is locked, where it is; kept apart from the state, which not every refusal has at hand.
    locked: SyncMutex<String>,
}

/// All that changes.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) vault: Vault,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) cache: BTreeMap<Name, Cached>,
    /// The last exchange of each profile.
    pub(crate) exchanges: BTreeMap<Name, ExchangeMsg>,
    /// Assertions out of variables of callers, by the variable.
    pub(crate) supplied: BTreeMap<String, SecretBytes>,
    /// Launches that were announced.
    pub(crate) expected: Expected,
    /// What has happened and could not be recorded, to be recorded as soon as that works.
    pub(crate) owed: Changes,
    pub(crate) refusals: Refusals,
    pub(crate) tries: Tries,
    /// The vault was opened since the broker started, so that all live runs are known.
    pub(crate) opened: bool,
    /// What persons have proven.
    pub(crate) proofs: Proofs,
    /// The highest mark that a run of this boot was given.
    pub(crate) mark: Option<Mark>,
    /// Requests that wait for a person, and the last that did.
    pub(crate) approvals: Approvals<RunId, Card>,
    /// Who waits for their answers.
    pub(crate) attending: BTreeMap<ApprovalId, Attending>,
    /// The last cards of requesters and of runs at a fence, with when each came up.
    pub(crate) recent_cards: VecDeque<(ApprovalKind, Asker<RunId>, Boot)>,
    /// Peers that will come again, with the facts that they showed.
    pub(crate) shown: VecDeque<Arc<Peer>>,
    /// Grants for a run about whose end somebody was asked.
    pub(crate) asked_to_extend: BTreeSet<GrantId>,
    /// Time spent in suspend, as of the last look.
    pub(crate) suspended: Duration,
    /// What the wall clock would have shown at boot, as of the last look, in microseconds since 1970 UTC.
    pub(crate) began: i64,
}

/// The vault, from locked to open.
pub(crate) enum Vault {
    /// No key is in memory.
    Locked,
    /// The database is open.
    Open(Box<Open>),
}

/// An open vault.
pub(crate) struct Open {
    pub(crate) store: Arc<Store>,
    /// Absent after the auto-lock: stored secrets cannot be opened.
    pub(crate) seal: Option<Key32>,
    pub(crate) profiles: BTreeMap<Name, StoredProfile>,
    /// The launchers, by what they are found by.
    pub(crate) launchers: BTreeMap<String, StoredLauncher>,
    /// The stored secrets by name, sealed as they are in the database: a run need not read it.
    pub(crate) secrets: BTreeMap<String, Item>,
    /// What persons have allowed.
    pub(crate) grants: Grants<RunId>,
    pub(crate) last_action: Boot,
    /// The vault has a keyring slot, so the keyring keeps an anchor too.
    pub(crate) keyring: Option<KeyringAnchor>,
    /// Entries were written since the anchor in the keyring was.
    pub(crate) unanchored: AtomicBool,
    /// Entries were written since the anchor file was made durable, and when that was.
    pub(crate) unsynced: AtomicBool,
    pub(crate) synced: Boot,
}

/// The anchor in the operating system's keyring.
#[derive(Clone, Copy)]
pub(crate) struct KeyringAnchor {
    pub(crate) vault: [u8; 16],
    pub(crate) written: Boot,
}

/// A profile with its place in the vault.
#[derive(Clone)]
pub(crate) struct StoredProfile {
    pub(crate) id: [u8; 16],
    pub(crate) profile: Profile,
    pub(crate) created: Wall,
    pub(crate) updated: Wall,
}

impl Vault {
    /// The open vault, auto-locked or not.
    pub(crate) fn opened(&self) -> Option<&Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::Locked => None,
        }
    }
}

impl State {
    /// The open vault, auto-locked or not.
    pub(crate) fn open(&mut self) -> Option<&mut Open> {
        match &mut self.vault {
            Vault::Open(open) => Some(open),
            Vault::Locked => None,
        }
    }

    /// Keeps changes that hold although they could not be recorded.
    pub(crate) fn owe(&mut self, changes: Changes) {
        self.owed.writes.extend(changes.writes);
        self.owed.entries.extend(changes.entries);
    }

    /// Splits the state so that the open vault and the rest can be used side by side.
    pub(crate) fn parts(&mut self) -> (Option<&mut Open>, &mut BTreeMap<RunId, Run>, &mut BTreeMap<Name, Cached>) {
        let open = match &mut self.vault {
            Vault::Open(open) => Some(open.as_mut()),
            Vault::Locked => None,
        };
        (open, &mut self.runs, &mut self.cache)
    }
}

impl Open {
    /// Records entries together with the changes that they are about, durably.
    pub(crate) async fn commit(&self, broker: &Broker, writes: Vec<Write>, entries: Vec<Draft>) -> Result<(), Fault> {
        let mut told: Vec<_> = entries.iter().filter_map(event_of).collect();
        // One answer is an entry for each profile.
        told.dedup();
        let seqs = self.store.commit(Changes { writes, entries }).await.map_err(|e| e.fault())?;
        self.unanchored.store(true, Ordering::Relaxed);
        self.unsynced.store(true, Ordering::Relaxed);
        if let Some(seq) = seqs.last() {
            broker.events.publish("audit", &json!({"seq": seq}));
        }
        for (kind, data) in told {
            broker.events.publish(kind, &data);
        }
        Ok(())
    }

    /// As [`Open::commit`], for what must be recorded before a credential leaves.
    pub(crate) async fn record_delivery(
        &self,
        broker: &Broker,
        writes: Vec<Write>,
        entries: Vec<Draft>,
    ) -> Result<(), Fault> {
        self.commit(broker, writes, entries).await.map_err(|inner| {
            let fault = Fault::new(Code::AuditUnavailable).cause(&inner.message);
            inner.causes.iter().fold(fault, |f, cause| f.cause(cause))
        })
    }
}

impl Broker {
    /// Makes the broker of a home: locked, with nothing but the lock on the vault's folder. `port` is that of the gateway.
    ///
    /// # Errors
    /// [`Code::VaultInUse`] when another broker holds the folder, [`Code::VaultFolderUnsafe`], [`Code::ConfigInvalid`].
    pub(crate) fn new(places: Places, connections: Connections, port: u16) -> Result<Arc<Self>, Fault> {
        let paths = Paths { data: places.data.clone(), state: places.state.clone() };
        let vault_lock = VaultLock::acquire(&paths).map_err(|e| e.fault())?;
        let config = Config::load(&places.config)?;
        let families = Families::built_in().map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let tools = Tools::built_in().map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let started = platform::now();
        let broker = Arc::new(Self {
            places,
            paths,
            families,
            tools,
            kinds: keyward_issuer::kinds(),
            events: Events::new(format!("{:x}", started.wall.0)),
            gate: Gate::new(port),
            connections,
            started,
            wake: Notify::new(),
            derivation: Mutex::new(()),
            derivations: Semaphore::new(8),
            stop: watch::Sender::new(false),
            verifying: Mutex::new(()),
            state: Mutex::new(State {
                config,
                vault: Vault::Locked,
                runs: BTreeMap::new(),
                cache: BTreeMap::new(),
                exchanges: BTreeMap::new(),
                supplied: BTreeMap::new(),
                expected: Expected::default(),
                owed: Changes::default(),
                refusals: Refusals::default(),
                tries: Tries::default(),
                opened: false,
                proofs: Proofs::default(),
                mark: None,
                approvals: Approvals::default(),
                attending: BTreeMap::new(),
                recent_cards: VecDeque::new(),
                shown: VecDeque::new(),
                asked_to_extend: BTreeSet::new(),
                suspended: platform::time_in_suspend(),
                began: started.wall_at(Boot(Duration::ZERO)).0,
            }),
            waiting: Semaphore::new(WAITING),
            vault_lock,
            locked: SyncMutex::new("it was not opened since the broker started".to_owned()),
        });
        if let Ok(deliveries) = broker.deliveries() {
            deliveries.sweep(|p| platform::pin(p).is_some());
        }
        Ok(broker)
    }

    /// The state, for the broker's own work.
    pub(crate) async fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// The state, for a request.
    ///
    /// # Errors
    /// [`Code::Busy`] when too many wait already. Lock and revoke use [`Broker::state`] and are never refused.
    pub(crate) async fn state_for_request(&self) -> Result<MutexGuard<'_, State>, Fault> {
        let Ok(_place) = self.waiting.try_acquire() else { return Err(Fault::new(Code::Busy)) };
        Ok(self.state.lock().await)
    }

    /// The folder with the file deliveries.
    ///
    /// # Errors
    /// [`Code::DeliveryFolder`] when no private memory-backed folder is there.
    pub(crate) fn deliveries(&self) -> Result<Deliveries, Fault> {
        Ok(Deliveries::new(self.places.delivery_folder()?))
    }

    /// Whether a vault has been made in this home.
    pub(crate) fn vault_exists(&self) -> bool {
        self.paths.vault_exists()
    }

    /// Keeps why the vault is locked from here on, in words.
    pub(crate) fn locked_by(&self, why: impl Into<String>) {
        *self.locked.lock().unwrap_or_else(PoisonError::into_inner) = why.into();
    }

    /// The fault of a vault that is not open, with why it is not.
    pub(crate) fn closed(&self) -> Fault {
        if !self.vault_exists() {
            return Fault::new(Code::VaultAbsent);
        }
        Fault::new(Code::VaultLocked).cause(&*self.locked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The open vault with its seal key there.
    pub(crate) fn unlocked<'s>(&self, state: &'s mut State) -> Result<&'s mut Open, Fault> {
        match &mut state.vault {
            Vault::Open(open) if open.seal.is_some() => Ok(open),
            Vault::Open(_) | Vault::Locked => Err(self.closed()),
        }
    }

    /// The open vault whose log is sound, auto-locked or not: for what a run holds already.
    pub(crate) fn recording<'s>(&self, state: &'s mut State) -> Result<&'s mut Open, Fault> {
        match &mut state.vault {
            Vault::Open(open) if open.store.is_broken() => Err(Fault::new(Code::AuditBroken)),
            Vault::Open(open) => Ok(open),
            Vault::Locked => Err(self.closed()),
        }
    }

    /// As [`Broker::unlocked`], and the log is sound.
    pub(crate) fn delivering<'s>(&self, state: &'s mut State) -> Result<&'s mut Open, Fault> {
        let open = self.unlocked(state)?;
        if open.store.is_broken() { Err(Fault::new(Code::AuditBroken)) } else { Ok(open) }
    }

    /// Counts a refusal; it is recorded with the next entry that is due.
    pub(crate) fn refuse(&self, state: &mut State, peer: &Peer, fault: &Fault) {
        let exe = peer.exe().map_or_else(|| "unknown".to_owned(), |p| p.display().to_string());
        state.refusals.note(&exe, fault.code.name());
        self.wake.notify_one();
    }

    /// Tells watching clients about the vault.
    pub(crate) fn publish_vault(&self, vault: &str) {
        self.events.publish("vault", &json!({"state": vault}));
    }
}

/// What watching clients are told of an entry once it is recorded.
fn event_of(draft: &Draft) -> Option<(&'static str, Value)> {
    let state = draft.kind.name().split_once('.').map_or("", |(_, state)| state);
    match draft.kind {
        Kind::ProfileAdded | Kind::ProfileChanged | Kind::ProfileRemoved => {
            Some(("profile", json!({"name": draft.profile, "state": state})))
        }
        Kind::LauncherAdded | Kind::LauncherChanged | Kind::LauncherRemoved => {
            Some(("launcher", json!({"name": draft.detail.get("launcher"), "state": state})))
        }
        Kind::ApprovalAsked => Some(("approval", json!({"id": draft.detail.get("approval"), "state": "open"}))),
        Kind::ApprovalAnswered => {
            let how = draft.detail.get("answer");
            Some(("approval", json!({"id": draft.detail.get("approval"), "state": how})))
        }
        Kind::ApprovalWithdrawn => Some(("approval", json!({"id": draft.detail.get("approval"), "state": state}))),
        Kind::GrantAdded | Kind::GrantChanged | Kind::GrantRevoked | Kind::GrantExpired => {
            Some(("grant", json!({"id": draft.grant, "state": state})))
        }
        Kind::SettingsChanged => Some(("settings", json!({}))),
        Kind::LeaseExpired | Kind::LeaseReleased | Kind::LeaseRevoked | Kind::LeaseLapsed => {
            let data = json!({"lease": draft.lease, "run": draft.run, "profile": draft.profile, "state": state});
            Some(("lease", data))
        }
        _ => None,
    }
}

/// Starts an entry.
pub(crate) fn entry(kind: Kind, now: Now) -> Draft {
    Draft::new(now.wall.0, kind)
}

/// Starts the entry of what a peer did.
pub(crate) fn entry_of(kind: Kind, now: Now, peer: &Peer) -> Draft {
    entry(kind, now).peer(facts(peer))
}

/// Starts the entry of something that failed.
pub(crate) fn failed(kind: Kind, now: Now, fault: &Fault) -> Draft {
    entry(kind, now)
        .outcome(Outcome::Failed)
        .detail("code", fault.code.name())
        .detail("causes", Value::from(fault.causes.clone()))
}

/// The facts of a peer that the log keeps.
pub(crate) fn facts(peer: &Peer) -> PeerFacts {
    PeerFacts {
        uid: peer.uid(),
        pid: peer.process().pid.cast_signed(),
        exe: peer.exe().map(|p| p.display().to_string()),
    }
}
