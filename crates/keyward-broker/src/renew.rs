//! Credentials in memory: one exchange at a time for each profile, renewal in the background, and the clock behind both.

use crate::broker::{Broker, Open, State, entry, failed};
use crate::platform::{self, BootTimer, now, random_byte};
use crate::runs::RunId;
use keyward_core::audit::Kind;
use keyward_core::{
    Backoff, Boot, Credential, DeliveryMode, Freshness, IssueError, LeaseEnd, Name, Now, Order, Profile, Schedule,
};
use keyward_crypto::ItemRef;
use keyward_diag::{Code, Fault};
use keyward_store::StoreError;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// What a caller gets.
pub(crate) type Obtained = Result<(Arc<Credential>, Schedule), Fault>;

/// Shortest time between two exchanges of a profile that people ask for, after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The anchor in the keyring is written at most this often.
const KEYRING_PAUSE: Duration = Duration::from_secs(60);

/// The anchor file is made durable at most this often; a power cut may leave it behind by that much, which is no break.
const SYNC_PAUSE: Duration = Duration::from_secs(5);

/// How often the end of a run that could not be recorded is tried again.
const OWED_PAUSE: Duration = Duration::from_secs(5);

/// The credential of one profile, and the exchange that may be under way.
pub(crate) struct Cached {
    /// What the issuer needs, with the secrets that the profile names.
    order: Arc<Order>,
    credential: Option<(Arc<Credential>, Schedule)>,
    backoff: Backoff,
    failed: Option<(Fault, Boot)>,
    /// Callers that wait for the exchange under way; `None` when none is.
    exchange: Option<Vec<oneshot::Sender<Obtained>>>,
    /// The task of the exchange under way, which ends with this entry: at lock no issuer works on.
    task: Option<AbortHandle>,
    /// A number of the profile's state: an exchange that began before a change does not count after it.
    edition: u64,
}

/// The profile's credential, or the answer to wait for.
enum Next {
    Now(Obtained),
    Wait(oneshot::Receiver<Obtained>),
}

impl Broker {
    /// The credential of a profile: from the cache, from an exchange under way, or from a new one.
    pub(crate) async fn obtain(self: &Arc<Self>, name: &Name) -> Obtained {
        let next = {
            let mut state = self.state_for_request().await?;
            self.next(&mut state, name).await?
        };
        match next {
            Next::Now(obtained) => obtained,
            Next::Wait(answer) => {
                answer.await.unwrap_or_else(|_| Err(Fault::new(Code::VaultLocked).cause("it was locked meanwhile")))
            }
        }
    }

    async fn next(self: &Arc<Self>, state: &mut State, name: &Name) -> Result<Next, Fault> {
        let now = now();
        let open = self.delivering(state)?;
        let profile = open.profiles.get(name).map(|p| p.profile.clone());
        let profile =
            profile.ok_or_else(|| Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`")))?;
        let issuer = keyward_issuer::find(profile.kind.kind).ok_or(Fault::new(Code::Internal))?;
        if !issuer.exchanges() {
            let order = order(open, profile)?;
            let credential = issuer.issue(&order).await.map_err(|e| e.fault())?;
            let schedule = Schedule::new(now.boot, credential.life);
            return Ok(Next::Now(Ok((Arc::new(credential), schedule))));
        }
        if !state.cache.contains_key(name) {
            let order = Arc::new(order(self.delivering(state)?, profile)?);
            state.cache.insert(name.clone(), Cached::new(order));
        }
        let Some(cached) = state.cache.get_mut(name) else { return Err(Fault::new(Code::Internal)) };
        if let Some((credential, schedule)) = &cached.credential {
            let freshness = schedule.freshness(now.boot);
            if freshness != Freshness::Mandatory {
                let found = (Arc::clone(credential), *schedule);
                if freshness == Freshness::Advisory
                    && cached.exchange.is_none()
                    && cached.backoff.until(now.boot).is_none()
                {
                    self.exchange(name, cached);
                }
                return Ok(Next::Now(Ok(found)));
            }
        }
        if let Some((fault, at)) = &cached.failed
            && cached.exchange.is_none()
            && now.boot.since(*at) < PAUSE
        {
            return Ok(Next::Now(Err(fault.clone())));
        }
        if cached.exchange.is_none() {
            self.exchange(name, cached);
        }
        let (answer, wait) = oneshot::channel();
        cached.exchange.get_or_insert_default().push(answer);
        Ok(Next::Wait(wait))
    }

    /// Starts the one exchange of a profile.
    fn exchange(self: &Arc<Self>, name: &Name, cached: &mut Cached) {
        cached.exchange = Some(Vec::new());
        let (broker, name, order, edition) =
            (Arc::clone(self), name.clone(), Arc::clone(&cached.order), cached.edition);
        let task = tokio::spawn(async move {
            let made = match keyward_issuer::find(order.profile.kind.kind) {
                Some(issuer) => issuer.issue(&order).await,
                None => {
                    Err(IssueError { code: Code::Internal, cause: "the issuer is gone".to_owned(), permanent: true })
                }
            };
            let now = now();
            broker.exchanged(&name, edition, made, now).await;
        });
        cached.task = Some(task.abort_handle());
    }

    async fn exchanged(self: &Arc<Self>, name: &Name, edition: u64, made: Result<Credential, IssueError>, now: Now) {
        let mut state = self.state().await;
        let Some(cached) = state.cache.get_mut(name).filter(|c| c.edition == edition) else { return };
        cached.task = None;
        let waiting = cached.exchange.take().unwrap_or_default();
        let obtained: Obtained = match made {
            Ok(credential) => {
                let schedule = Schedule::new(now.boot, credential.life);
                let credential = Arc::new(credential);
                cached.credential = Some((Arc::clone(&credential), schedule));
                cached.backoff.succeeded();
                cached.failed = None;
                Ok((credential, schedule))
            }
            Err(error) => {
                let fault = error.fault();
                cached.backoff.failed(now.boot, random_byte());
                cached.failed = Some((fault.clone(), now.boot));
                Err(fault)
            }
        };
        self.renew_leases(&mut state, name, &obtained, now).await;
        for answer in waiting {
            // A caller that went away needs no answer.
            let _ = answer.send(obtained.as_ref().map(|(c, s)| (Arc::clone(c), *s)).map_err(Clone::clone));
        }
        self.wake.notify_one();
    }

    /// Puts a renewed credential into the files of the leases that hold it; recorded first.
    async fn renew_leases(&self, state: &mut State, name: &Name, obtained: &Obtained, now: Now) {
        let held: Vec<(RunId, usize)> = state
            .runs
            .values()
            .flat_map(|run| run.leases.iter().enumerate().map(move |(n, lease)| (run.id, n, lease)))
            .filter(|(_, _, held)| {
                held.profile == *name && held.lease.is_live() && held.lease.mode == DeliveryMode::File
            })
            .map(|(run, n, _)| (run, n))
            .collect();
        let (Some(open), runs, _) = state.parts() else { return };
        for (id, n) in held {
            let Some(run) = runs.get_mut(&id) else { continue };
            let renewed = match obtained {
                Ok((credential, schedule)) => self.renew_lease(open, run, n, credential, *schedule, now).await,
                Err(fault) => Err(fault.clone()),
            };
            let (app, verified, process) = (run.app.clone(), run.app_verified, run.process);
            let Some(held) = run.leases.get_mut(n) else { continue };
            if let Err(fault) = renewed {
                held.lease.renew_failed();
                let draft = failed(Kind::LeaseRenewFailed, now, &fault);
                let draft =
                    draft.run(id.to_string()).lease(held.id.to_string()).profile(name.as_str()).app(app, verified);
                if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
                    tracing::error!(run = %id, code = %e.code, "a failed renewal could not be recorded");
                }
                self.events.publish(
                    "lease",
                    &json!({"lease": held.id.to_string(), "state": "renew_failed", "code": fault.code}),
                );
            } else {
                self.events
                    .publish("lease", &json!({"lease": held.id.to_string(), "state": "renewed", "pid": process.pid}));
            }
        }
    }

    async fn renew_lease(
        &self,
        open: &Open,
        run: &mut crate::runs::Run,
        n: usize,
        credential: &Credential,
        schedule: Schedule,
        now: Now,
    ) -> Result<(), Fault> {
        if open.store.is_broken() {
            return Err(Fault::new(Code::AuditBroken));
        }
        let Some(held) = run.leases.get_mut(n) else { return Ok(()) };
        let before = held.lease.clone();
        held.lease.renewed(schedule);
        let ends = now.wall_at(held.lease.ends()).to_rfc3339();
        let draft = entry(Kind::LeaseRenewed, now)
            .run(run.id.to_string())
            .lease(held.id.to_string())
            .profile(held.profile.as_str())
            .app(run.app.clone(), run.app_verified)
            .project(run.project.clone())
            .detail("expires_at", ends)
            .detail("renewals", held.lease.renewals);
        let (process, lease_id) = (run.process, held.id.to_string());
        let row = run.row();
        let written = match open.record_delivery(self, vec![row], vec![draft]).await {
            Ok(()) => self.deliveries().and_then(|d| d.write(process, &lease_id, &credential.token)),
            Err(e) => Err(e),
        };
        if let (Err(_), Some(held)) = (&written, run.leases.get_mut(n)) {
            held.lease = before;
        }
        written
    }

    /// Makes an exchange that nothing is kept of, for `profile test`.
    pub(crate) async fn try_profile(&self, name: &Name) -> Result<Credential, Fault> {
        let order = {
            let mut state = self.state_for_request().await?;
            let open = self.delivering(&mut state)?;
            let profile = open.profiles.get(name).map(|p| p.profile.clone());
            order(open, profile.ok_or(Fault::new(Code::ProfileUnknown))?)?
        };
        let issuer = keyward_issuer::find(order.profile.kind.kind).ok_or(Fault::new(Code::Internal))?;
        issuer.issue(&order).await.map_err(|e| e.fault())
    }

    /// Forgets what was made from profiles that changed, or whose secrets did, and renews what is in use.
    pub(crate) async fn changed(self: &Arc<Self>, state: &mut State, names: &[Name]) {
        let now = now();
        for name in names {
            state.cache.remove(name);
            let in_use = state
                .runs
                .values()
                .flat_map(|r| &r.leases)
                .any(|l| l.profile == *name && l.lease.is_live() && l.lease.mode == DeliveryMode::File);
            if in_use {
                match self.next(state, name).await {
                    Ok(Next::Now(obtained)) => self.renew_leases(state, name, &obtained, now).await,
                    Ok(Next::Wait(_)) => {}
                    Err(fault) => self.renew_leases(state, name, &Err(fault), now).await,
                }
            }
        }
    }

    /// The earliest moment at which something is due.
    pub(crate) fn due(&self, state: &State) -> Option<Boot> {
        let expiries =
            state.runs.values().flat_map(|r| &r.leases).filter(|l| l.lease.is_live()).map(|l| l.lease.ends());
        let renewals =
            state.cache.iter().filter(|(name, c)| c.exchange.is_none() && in_use(state, name)).map(|(_, c)| {
                let at = c.credential.as_ref().and_then(|(_, s)| s.advisory_at());
                let base = at.unwrap_or(Boot(Duration::ZERO));
                c.backoff_until().map_or(base, |b| b.max(base))
            });
        let (open, auto_lock) = match &state.vault {
            crate::broker::Vault::Open(open) => {
                (true, open.seal.is_some().then(|| open.last_action.after(self.config.auto_lock)))
            }
            crate::broker::Vault::Locked => (false, None),
        };
        let anchor = match &state.vault {
            crate::broker::Vault::Open(open) if open.unanchored.load(Ordering::Relaxed) => {
                open.keyring.map(|k| k.written.after(KEYRING_PAUSE))
            }
            crate::broker::Vault::Open(_) | crate::broker::Vault::Locked => None,
        };
        // Files of runs from before a crash go with their processes also while the vault is locked.
        let orphans = !state.opened && self.deliveries().is_ok_and(|d| !d.runs().is_empty());
        let orphans = orphans.then(|| now().boot.after(OWED_PAUSE));
        let sync = match &state.vault {
            crate::broker::Vault::Open(open) if open.unsynced.load(Ordering::Relaxed) => {
                Some(open.synced.after(SYNC_PAUSE))
            }
            crate::broker::Vault::Open(_) | crate::broker::Vault::Locked => None,
        };
        let owed = (open && Self::owes_an_end(state)).then(|| now().boot.after(OWED_PAUSE));
        let refusals = if open { state.refusals.due() } else { None };
        expiries
            .chain(renewals)
            .chain(auto_lock)
            .chain(refusals)
            .chain(anchor)
            .chain(owed)
            .chain(orphans)
            .chain(sync)
            .min()
    }

    /// Does what is due.
    pub(crate) async fn tick(self: &Arc<Self>) {
        let now = now();
        let mut state = self.state().await;
        if !state.opened
            && let Ok(deliveries) = self.deliveries()
        {
            // The runs are not known yet, but their processes are.
            deliveries.sweep(|p| platform::pin(p).is_some());
        }
        self.notice_suspend(&mut state).await;
        self.expire(&mut state, now).await;
        let renewing: Vec<Name> = state
            .cache
            .iter()
            .filter(|(name, c)| c.exchange.is_none() && c.wants_renewal(now.boot) && in_use(&state, name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in renewing {
            if let Some(cached) = state.cache.get_mut(&name) {
                self.exchange(&name, cached);
            }
        }
        let idle = |open: &Open| open.seal.is_some() && now.boot >= open.last_action.after(self.config.auto_lock);
        if state.open().is_some_and(|open| idle(open)) {
            self.auto_lock(&mut state, "no action of the person").await;
        }
        self.flush_refusals(&mut state, now).await;
        self.record_ended(&mut state).await;
        if let Some(open) = state.open()
            && now.boot >= open.synced.after(SYNC_PAUSE)
            && open.unsynced.swap(false, Ordering::Relaxed)
        {
            open.synced = now.boot;
            if let Err(e) = open.store.sync_anchor().await {
                tracing::error!(code = %e.fault().code, "the anchor could not be made durable");
            }
        }
        if let Some(open) = state.open()
            && open.keyring.is_some_and(|k| now.boot >= k.written.after(KEYRING_PAUSE))
        {
            self.anchor_to_keyring(open).await;
        }
        // A credential that is over helps nobody; one that nobody uses is kept until then, for the next run.
        let used: Vec<Name> = state.cache.keys().filter(|name| in_use(&state, name)).cloned().collect();
        let unlocked = state.open().is_some_and(|o| o.seal.is_some());
        state.cache.retain(|name, c| {
            if !unlocked {
                return used.contains(name);
            }
            used.contains(name)
                || c.exchange.is_some()
                || c.credential.as_ref().is_some_and(|(_, s)| s.ends().is_none_or(|e| e > now.boot))
        });
    }

    /// Records the refusals that wait, if an entry is due.
    pub(crate) async fn flush_refusals(&self, state: &mut State, now: Now) {
        let (refusals, vault) = (&mut state.refusals, &mut state.vault);
        let crate::broker::Vault::Open(open) = vault else { return };
        let taken = refusals.take(now.boot);
        if taken.is_empty() {
            return;
        }
        let list: Vec<Value> =
            taken.iter().map(|r| json!({"exe": r.peer, "reason": r.reason, "count": r.count})).collect();
        let draft = entry(Kind::RequestRefused, now)
            .outcome(keyward_core::audit::Outcome::Refused)
            .detail("refused", Value::from(list));
        if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
            tracing::error!(code = %e.code, "refusals could not be recorded");
            for r in taken {
                (0..r.count.min(1000)).for_each(|_| refusals.note(&r.peer, &r.reason));
            }
        }
    }

    async fn expire(&self, state: &mut State, now: Now) {
        let (open, runs, _) = state.parts();
        let mut entries = Vec::new();
        let mut writes = Vec::new();
        for run in runs.values_mut() {
            let mut any = false;
            for n in 0..run.leases.len() {
                let expired = run.leases.get_mut(n).is_some_and(|l| l.lease.expire(now.boot));
                if expired {
                    entries.push(self.take_back(run, n, LeaseEnd::Expired, now));
                    any = true;
                }
            }
            if any {
                writes.push(run.row());
            }
        }
        let Some(open) = open else { return };
        if !entries.is_empty()
            && let Err(e) = open.commit(self, writes, entries).await
        {
            tracing::error!(code = %e.code, "expired leases could not be recorded");
        }
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Cached {
    fn new(order: Arc<Order>) -> Self {
        let edition = u64::from_le_bytes(keyward_crypto::make_array().unwrap_or_default());
        Self { order, credential: None, backoff: Backoff::default(), failed: None, exchange: None, task: None, edition }
    }

    fn backoff_until(&self) -> Option<Boot> {
        self.backoff.until(Boot(Duration::ZERO))
    }

    fn wants_renewal(&self, now: Boot) -> bool {
        let due = self.credential.as_ref().is_none_or(|(_, s)| s.freshness(now) != Freshness::Fresh);
        due && self.backoff.until(now).is_none()
    }
}

/// Whether a live lease wants this profile's credential kept fresh.
pub(crate) fn in_use(state: &State, name: &Name) -> bool {
    state
        .runs
        .values()
        .flat_map(|r| &r.leases)
        .any(|l| l.profile == *name && l.lease.is_live() && l.lease.mode == DeliveryMode::File)
}

/// Gathers what an issuer needs: the profile and the secrets that it names, opened.
fn order(open: &Open, profile: Profile) -> Result<Order, Fault> {
    let mut secrets = BTreeMap::new();
    let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
    for reference in profile.secrets() {
        let name = reference.0;
        let item = open.secrets.get(name.as_str()).ok_or_else(|| {
            let fault = Fault::new(Code::SecretUnknown).cause(format!("profile `{}` refers to `{name}`", profile.name));
            fault.help(format!("store it with `keyward secret set {name}`"))
        })?;
        let at = ItemRef { id: item.info.id, generation: item.info.generation, kind: &item.info.kind };
        let secret = keyward_crypto::open(seal, &at, &item.sealed).map_err(|e| StoreError::from(e).fault())?;
        secrets.insert(name.to_string(), secret);
    }
    Ok(Order { profile, secrets })
}

/// Runs what is due, for ever. Sleeps on the clock that runs through suspend.
pub(crate) async fn clock(broker: Arc<Broker>, timer: BootTimer) {
    loop {
        let due = {
            let state = broker.state().await;
            broker.due(&state)
        };
        tokio::select! {
            () = broker.wake.notified() => {}
            () = timer.sleep_until(due) => {}
        }
        broker.tick().await;
    }
}
