//! Credentials in memory: one exchange at a time for each profile, renewal in the background, and the clock behind both.

use crate::broker::{Broker, Open, State, entry, failed};
use crate::platform::{self, BootTimer, now, random_byte};
use crate::records::may_use_secrets;
use crate::runs::{HeldLease, RunId};
use keyward_api::{ExchangeMsg, HeldMsg, RenewAnswer, SuppliedAssertion};
use keyward_core::audit::{Kind, Outcome};
use keyward_core::{
    Asking, Backoff, Boot, Credential, DeliveryMode, Failure, Form, Freshness, IssueError, LeaseEnd, LeaseState, Name,
    Now, Once, Order, ProcessId, Profile, Revocation, Role, Schedule, Wall,
};
use keyward_crypto::ItemRef;
use keyward_diag::{Code, Fault, plain};
use keyward_secret::SecretBytes;
use keyward_store::{Changes, StoreError, Write};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// What a caller gets.
pub(crate) type Obtained = Result<(Arc<Credential>, Schedule), Fault>;

/// Shortest time between two exchanges of a profile that people ask for, after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// A credential that was made because its forerunner was refused is not dropped again for this long.
const ANEW_PAUSE: Duration = Duration::from_secs(10);

/// A failure that is recorded is not recorded again for this long while it stays the same.
const TOLD_PAUSE: Duration = Duration::from_secs(600);

/// How often an identity source is looked at whose change is waited for, while a run needs it.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// How often the wall clock is looked at while files of the SDKs are in use, which name an end by it.
const CLOCK_PAUSE: Duration = Duration::from_secs(30);

/// The wall clock is taken for moved when it is off by more; clocks that are kept in step move less at a time.
const CLOCK_MOVED: Duration = Duration::from_secs(2);

/// The anchor in the keyring is written at most this often.
const KEYRING_PAUSE: Duration = Duration::from_secs(60);

/// The anchor file is made durable at most this often; a power cut may leave it behind by that much, which is no break.
const SYNC_PAUSE: Duration = Duration::from_secs(5);

/// How often it is looked whether old entries of the log are to be archived.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(if MANY { 600 } else { 1 });

/// Entries of the log that stay in the database.
const ARCHIVE_KEEP: u64 = if MANY { 1_000_000 } else { 1_100 };

/// Entries of one archive segment.
const ARCHIVE_STEP: u32 = if MANY { 2_048 } else { 256 };

/// The log that tests have is a short one.
const MANY: bool = !cfg!(feature = "fault-points");

/// How long an issuer may take to end a credential.
const REVOCATION: Duration = Duration::from_secs(15);

/// How often the end of a run that could not be recorded is tried again.
const OWED_PAUSE: Duration = Duration::from_secs(5);

/// The credential of one profile, and the exchange that may be under way.
pub(crate) struct Cached {
    /// What the issuer needs, with the secrets that the profile names.
    order: Arc<Order>,
    credential: Option<(Arc<Credential>, Schedule)>,
    backoff: Backoff,
    failed: Option<(Fault, Boot)>,
    /// The last refusal, until an exchange succeeds or something changes.
    refused: Option<Fault>,
    /// What the identity source held at the last failure that a change of it can mend, where it can be looked at.
    seen: Option<[u8; 32]>,
    /// That failure was the lack of an assertion that was not presented before.
    no_assertion: bool,
    /// When it is looked at next.
    look_at: Boot,
    /// The last failure that is in the log, and since when: the same one again is recorded every ten minutes.
    told: Option<(Code, Boot)>,
    /// When a credential was last asked for because a caller saw its forerunner refused, and why there was none.
    anew: Option<(Boot, Option<Fault>)>,
    /// Such a caller waits for the exchange under way.
    refused_upstream: bool,
    /// Callers that wait for the exchange under way; `None` when none is.
    exchange: Option<Vec<oneshot::Sender<Obtained>>>,
    /// The task of the exchange under way, which ends with this entry: at lock no issuer works on.
    task: Option<AbortHandle>,
    /// A number of the profile's state: an exchange that began before a change does not count after it.
    edition: u64,
}

/// Why a credential is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// To use it: one that is good is taken from the cache.
    Good,
    /// A caller saw the one of the cache refused.
    Anew,
    /// To see what an exchange gives, also where the issuer was given up.
    Trial,
}

/// The profile's credential, or the answer to wait for.
enum Next {
    Now(Obtained),
    Wait(oneshot::Receiver<Obtained>),
    /// The issuer was given up; worth another try when the identity source changed since.
    GivenUp(Arc<Order>, Option<[u8; 32]>, Fault),
}

impl Broker {
    /// The credential of a profile: from the cache, from an exchange under way, or from a new one.
    pub(crate) async fn obtain(self: &Arc<Self>, name: &Name) -> Obtained {
        self.obtain_for(name, Want::Good).await
    }

    /// As [`Broker::obtain`], for a caller that saw the credential refused: exchanges anew, unless that was done a moment
    /// ago. The former credential stays in use until there is another one, since a caller can be wrong.
    pub(crate) async fn obtain_anew(self: &Arc<Self>, name: &Name) -> Obtained {
        self.obtain_for(name, Want::Anew).await
    }

    /// Makes an exchange to see what it gives. What it gives is kept: an assertion that may be presented once is not spent
    /// for nothing.
    pub(crate) async fn try_profile(self: &Arc<Self>, name: &Name) -> Obtained {
        self.obtain_for(name, Want::Trial).await
    }

    /// Makes a credential anew and gives it to the leases that can take one. Beside a good credential a failure changes
    /// nothing; where there is none, the issuer is tried at once, whatever it answered before.
    pub(crate) async fn profile_renew(self: &Arc<Self>, role: Role<RunId>, name: &str) -> Result<RenewAnswer, Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        let want = {
            let state = self.state_for_request().await?;
            may_use_secrets(&state, role, &name)?;
            let held = state.cache.get(&name).and_then(|c| c.credential.as_ref());
            let good = held.is_some_and(|(_, s)| s.freshness(now().boot) != Freshness::Mandatory);
            if good { Want::Anew } else { Want::Trial }
        };
        let (_, schedule) = self.obtain_for(&name, want).await?;
        let state = self.state_for_request().await?;
        let leases = state.runs.values().filter(|run| run.ended.is_none()).flat_map(|run| &run.leases);
        let leases = leases.filter(|held| held.profile == name && held.lease.is_live());
        // What does not end is the same each time.
        let has = |held: &&HeldLease| schedule.ends().is_none() || held.lease.credential == schedule;
        let (renewed, unchanged): (Vec<_>, Vec<_>) =
            leases.partition(|held| held.lease.mode != DeliveryMode::Env && has(held));
        let count = |leases: Vec<_>| u32::try_from(leases.len()).unwrap_or(u32::MAX);
        Ok(RenewAnswer {
            expires_at: schedule.ends().map(|at| now().wall_at(at).to_rfc3339()),
            renewed: count(renewed),
            unchanged: count(unchanged),
        })
    }

    async fn obtain_for(self: &Arc<Self>, name: &Name, want: Want) -> Obtained {
        let next = self.next(&mut *self.state_for_request().await?, name, want).await?;
        let next = match next {
            Next::GivenUp(order, seen, fault) => {
                let held = look(&order).await;
                if held.is_none() || held == seen {
                    return Err(fault);
                }
                let mut state = self.state_for_request().await?;
                if let Some(cached) = state.cache.get_mut(name) {
                    cached.source_changed();
                }
                self.next(&mut state, name, want).await?
            }
            next => next,
        };
        match next {
            Next::Now(obtained) => obtained,
            Next::Wait(answer) => {
                answer.await.unwrap_or_else(|_| Err(Fault::new(Code::VaultLocked).cause("it was locked meanwhile")))
            }
            Next::GivenUp(_, _, fault) => Err(fault),
        }
    }

    async fn next(self: &Arc<Self>, state: &mut State, name: &Name, want: Want) -> Result<Next, Fault> {
        let now = now();
        // What is in the cache needs no seal key; what is not is ordered, and that asks for it.
        let open = self.recording(state)?;
        let profile = open.profiles.get(name).map(|p| p.profile.clone());
        let profile =
            profile.ok_or_else(|| Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`")))?;
        let issuer = keyward_issuer::find(profile.kind.kind).ok_or(Fault::new(Code::Internal))?;
        if !issuer.exchanges() {
            let order = self.order(state, profile)?;
            let credential = issuer.issue(&order).await.map_err(|e| e.fault)?;
            let schedule = Schedule::new(now.boot, credential.life);
            return Ok(Next::Now(Ok((Arc::new(credential), schedule))));
        }
        if !state.cache.contains_key(name) {
            let order = Arc::new(self.order(state, profile)?);
            state.cache.insert(name.clone(), Cached::new(order));
        }
        let Some(cached) = state.cache.get_mut(name) else { return Err(Fault::new(Code::Internal)) };
        if let Some((credential, schedule)) = &cached.credential {
            let freshness = schedule.freshness(now.boot);
            let anew = cached.anew.as_ref().filter(|(at, _)| now.boot.since(*at) < ANEW_PAUSE);
            let good = match (want, anew) {
                (Want::Good, _) => true,
                (Want::Anew, Some((at, fault))) if cached.exchange.is_none() => {
                    if let Some(fault) = fault {
                        let left = ANEW_PAUSE.saturating_sub(now.boot.since(*at)).as_secs().max(1);
                        let cause = format!("that was the answer a moment ago; it is asked again in {left} s");
                        return Ok(Next::Now(Err(fault.clone().cause(cause))));
                    }
                    true
                }
                (Want::Anew | Want::Trial, _) => false,
            };
            if good && freshness != Freshness::Mandatory {
                let found = (Arc::clone(credential), *schedule);
                if freshness == Freshness::Advisory && cached.may_renew(now.boot) {
                    self.exchange(name, cached);
                }
                return Ok(Next::Now(Ok(found)));
            }
        }
        if cached.exchange.is_none() {
            if want != Want::Trial {
                let held_back = cached.backoff.until(now.boot);
                if cached.backoff.given_up() && (cached.seen.is_some() || held_back.is_some()) {
                    let fault = cached.refused.clone().unwrap_or_else(|| Fault::new(Code::IssuerRefused));
                    let until = match (cached.seen, held_back) {
                        (None, Some(at)) => {
                            format!(
                                "for {} minutes, unless the profile or a secret of it changes",
                                minutes(at, now.boot)
                            )
                        }
                        _ => "until the profile, a secret of it or the assertion changes".to_owned(),
                    };
                    let fault = fault.cause(format!(
                        "it refused three times in a row and is not asked again {until}; `keyward profile test {name}` \
                         tries at once"
                    ));
                    return Ok(Next::GivenUp(Arc::clone(&cached.order), cached.seen, fault));
                }
                let recent = cached.failed.as_ref().filter(|(_, at)| now.boot.since(*at) < PAUSE);
                if let Some((fault, _)) = recent {
                    return Ok(Next::Now(Err(fault.clone())));
                }
                if let (Some(left), Some((fault, _))) = (cached.backoff.holds_back(now.boot), &cached.failed) {
                    let seconds = left.as_secs().max(1);
                    return Ok(Next::Now(Err(fault.clone().cause(format!("it is asked again in {seconds} s")))));
                }
            }
            self.exchange(name, cached);
        }
        cached.refused_upstream |= want == Want::Anew;
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
            // Looked at first: what changes while the issuer decides is a change.
            let seen = look(&order).await;
            let made = match keyward_issuer::find(order.profile.kind.kind) {
                Some(issuer) => issuer.issue(&order).await,
                None => Err(IssueError::refused(Code::Internal, "the issuer is gone")),
            };
            let now = now();
            broker.exchanged(&name, edition, made, seen, now).await;
        });
        cached.task = Some(task.abort_handle());
    }

    async fn exchanged(
        self: &Arc<Self>,
        name: &Name,
        edition: u64,
        made: Result<Credential, IssueError>,
        seen: Option<[u8; 32]>,
        now: Now,
    ) {
        let mut state = self.state().await;
        if state.cache.get(name).is_none_or(|c| c.edition != edition) {
            return;
        }
        if let Some(cached) = state.cache.get_mut(name)
            && cached.is_news(&made, now.boot)
        {
            self.record_exchange(&mut state, name, &made, now).await;
        }
        let Some(cached) = state.cache.get_mut(name) else { return };
        cached.task = None;
        let waiting = cached.exchange.take().unwrap_or_default();
        let refused_upstream = std::mem::take(&mut cached.refused_upstream);
        if made.is_ok() {
            cached.anew.take_if(|(_, fault)| fault.is_some());
        }
        if refused_upstream {
            cached.anew = Some((now.boot, made.as_ref().err().map(|e| e.fault.clone())));
        }
        let good = cached.credential.as_ref().is_some_and(|(_, s)| s.freshness(now.boot) != Freshness::Mandatory);
        // A caller who says that a good credential was refused can be wrong, or lie: that nothing better came of it changes
        // nothing for the others.
        let in_vain = refused_upstream && good && made.is_err();
        let obtained: Obtained = match made {
            Ok(credential) => {
                let schedule = Schedule::new(now.boot, credential.life);
                let credential = Arc::new(credential);
                cached.credential = Some((Arc::clone(&credential), schedule));
                cached.forget_failures();
                Ok((credential, schedule))
            }
            Err(error) if in_vain => Err(error.fault),
            Err(error) => Err(cached.note_failure(error, seen, now.boot)),
        };
        if !in_vain {
            self.renew_leases(&mut state, name, &obtained, now).await;
        }
        self.events.publish("exchange", &json!({"profile": name.as_str(), "ok": obtained.is_ok()}));
        for answer in waiting {
            // A caller that went away needs no answer.
            let _ = answer.send(obtained.as_ref().map(|(c, s)| (Arc::clone(c), *s)).map_err(Clone::clone));
        }
        self.wake.notify_one();
    }

    /// Records an exchange. What it made is delivered under entries of its own, so one that cannot be recorded here is told
    /// and nothing more.
    async fn record_exchange(&self, state: &mut State, name: &Name, made: &Result<Credential, IssueError>, now: Now) {
        let (draft, message) = match made {
            Ok(credential) => {
                let facts: BTreeMap<String, String> =
                    credential.facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
                let life = credential.life.map(|l| l.as_secs());
                let mut draft = entry(Kind::ExchangeMade, now).profile(name.as_str());
                for (fact, text) in &facts {
                    draft = draft.detail(fact, text.clone());
                }
                if let Some(scope) = &credential.scope {
                    draft = draft.detail("scope", scope.clone());
                }
                if let Some(life) = life {
                    draft = draft.detail("expires_in_s", life);
                }
                let (ok, code, scope) = (true, None, credential.scope.clone());
                let at = now.wall.to_rfc3339();
                (draft, ExchangeMsg { at, ok, code, scope, expires_in_s: life, facts })
            }
            Err(error) => {
                let (code, at) = (Some(error.fault.code.name().to_owned()), now.wall.to_rfc3339());
                let message =
                    ExchangeMsg { at, ok: false, code, scope: None, expires_in_s: None, facts: BTreeMap::new() };
                (failed(Kind::ExchangeFailed, now, &error.fault).profile(name.as_str()), message)
            }
        };
        state.exchanges.insert(name.clone(), message);
        let Some(open) = state.open() else { return };
        if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
            tracing::error!(code = %e.code, "an exchange could not be recorded");
        }
    }

    /// Takes assertions that only a caller has, for the profiles whose identity source is such a variable. They are kept
    /// until the vault is locked.
    ///
    /// # Errors
    /// [`Code::VaultLocked`] and the like; [`Code::IdentityInvalid`] for what has not the form of an assertion.
    pub(crate) async fn supply(self: &Arc<Self>, assertions: Vec<SuppliedAssertion>) -> Result<(), Fault> {
        if assertions.is_empty() {
            return Ok(());
        }
        let mut state = self.state_for_request().await?;
        for SuppliedAssertion { variable, assertion } in assertions {
            let open = self.delivering(&mut state)?;
            let profiles: Vec<Profile> = open
                .profiles
                .values()
                .filter(|p| p.profile.identity_variable() == Some(variable.as_str()))
                .map(|p| p.profile.clone())
                .collect();
            let assertion = assertion.into_bytes();
            let same = |known: &SecretBytes| known.ct_eq(&assertion);
            if profiles.is_empty() || state.supplied.get(&variable).is_some_and(same) {
                continue;
            }
            // EXPOSE: to see whether it has the form of an assertion.
            let checked = assertion.expose(keyward_issuer::check_assertion);
            checked.map_err(|e| Fault::new(Code::IdentityInvalid).cause(format!("`{variable}`: {e}")))?;
            state.supplied.insert(variable, assertion);
            for profile in profiles {
                let name = profile.name.clone();
                let order = Arc::new(self.order(&mut state, profile)?);
                if let Some(cached) = state.cache.get_mut(&name) {
                    cached.order = order;
                    cached.source_changed();
                }
            }
        }
        Ok(())
    }

    /// Gathers what an issuer needs: the profile, the secrets that it names, opened, and what a caller supplied.
    pub(crate) fn order(self: &Arc<Self>, state: &mut State, profile: Profile) -> Result<Order, Fault> {
        let supplied = profile.identity_variable().and_then(|v| state.supplied.get(v));
        let supplied = supplied.map(SecretBytes::dangerous_copy);
        let open = self.unlocked(state)?;
        let mut secrets = BTreeMap::new();
        let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
        for reference in profile.secrets() {
            let name = reference.0;
            let item = open.secrets.get(name.as_str()).ok_or_else(|| {
                let cause = format!("profile `{}` refers to `{name}`", profile.name);
                Fault::new(Code::SecretUnknown).cause(cause).help(format!("store it with `keyward secret set {name}`"))
            })?;
            let at = ItemRef { id: item.info.id, generation: item.info.generation, kind: &item.info.kind };
            let secret = keyward_crypto::open(seal, &at, &item.sealed).map_err(|e| StoreError::from(e).fault())?;
            secrets.insert(name.to_string(), secret);
        }
        let once = Arc::new(Presented { broker: Arc::downgrade(self), profile: profile.name.clone() });
        Ok(Order { profile, secrets, supplied, once })
    }

    /// Puts a renewed credential into the files of the leases that hold it, and before the gateway; recorded first.
    async fn renew_leases(&self, state: &mut State, name: &Name, obtained: &Obtained, now: Now) {
        let held: Vec<(RunId, usize)> = state
            .runs
            .values()
            .flat_map(|run| run.leases.iter().enumerate().map(move |(n, lease)| (run.id, n, lease)))
            .filter(|(_, _, held)| {
                held.profile == *name && held.lease.is_live() && held.lease.mode != DeliveryMode::Env
            })
            .map(|(run, n, _)| (run, n))
            .collect();
        let (Some(open), runs, _) = state.parts() else { return };
        for (id, n) in held {
            let Some(run) = runs.get_mut(&id) else { continue };
            let renewed = match obtained {
                Ok(made) => self.renew_lease(open, run, n, made, now).await,
                Err(fault) => Err(fault.clone()),
            };
            let (app, verified, process) = (run.app.clone(), run.app_verified, run.process);
            let Some(held) = run.leases.get_mut(n) else { continue };
            let told = |state: &str| json!({"lease": held.id.to_string(), "run": id.to_string(), "profile": name.as_str(), "state": state});
            held.failure = renewed.as_ref().err().cloned();
            if let Err(fault) = renewed {
                if !held.lease.renew_failed() {
                    continue;
                }
                let draft = failed(Kind::LeaseRenewFailed, now, &fault);
                let draft =
                    draft.run(id.to_string()).lease(held.id.to_string()).profile(name.as_str()).app(app, verified);
                if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
                    tracing::error!(run = %id, code = %e.code, "a failed renewal could not be recorded");
                }
                let mut data = told("renew_failed");
                data["code"] = json!(fault.code);
                self.events.publish("lease", &data);
            } else {
                let mut data = told("renewed");
                data["pid"] = json!(process.pid);
                self.events.publish("lease", &data);
            }
        }
    }

    async fn renew_lease(
        &self,
        open: &Open,
        run: &mut crate::runs::Run,
        n: usize,
        made: &(Arc<Credential>, Schedule),
        now: Now,
    ) -> Result<(), Fault> {
        if open.store.is_broken() {
            return Err(Fault::new(Code::AuditBroken));
        }
        let Some(held) = run.leases.get_mut(n) else { return Ok(()) };
        let before = held.lease.clone();
        held.lease.renewed(made.1);
        let ends = now.wall_at(held.lease.ends()).to_rfc3339();
        let draft = entry(Kind::LeaseRenewed, now)
            .run(run.id.to_string())
            .lease(held.id.to_string())
            .profile(held.profile.as_str())
            .app(run.app.clone(), run.app_verified)
            .project(run.project.clone())
            .detail("expires_at", ends)
            .detail("renewals", held.lease.renewals);
        let name = held.profile.clone();
        let row = run.row();
        let recorded = open.record_delivery(self, vec![row], vec![draft]).await;
        let written = recorded.and_then(|()| {
            let profile = &open.profiles.get(&name).ok_or(Fault::new(Code::ProfileUnknown))?.profile;
            let held = run.leases.get(n).ok_or(Fault::new(Code::Internal))?;
            if held.gateway.is_some() {
                self.gate.keep(&name, &made.0, made.1);
                return Ok(());
            }
            self.write_files(run.process, held, profile, made, now)
        });
        if let (Err(_), Some(held)) = (&written, run.leases.get_mut(n)) {
            held.lease = before;
        }
        written
    }

    /// Asks the issuers of these profiles to end credentials that no lease holds any longer. What comes of it is recorded when
    /// it is known; a vault that is locked meanwhile records it once it is open. That an issuer takes nothing back is recorded
    /// where somebody `asked` for it, and not at the end of each run.
    pub(crate) fn end_at_issuers(self: &Arc<Self>, state: &State, profiles: &BTreeSet<Name>, asked: bool) {
        for name in profiles.iter().filter(|name| Self::leases_of(state, name).is_empty()) {
            let Some(cached) = state.cache.get(name) else { continue };
            let Some((credential, _)) = cached.credential() else { continue };
            let (broker, name, order) = (Arc::clone(self), name.clone(), Arc::clone(&cached.order));
            tokio::spawn(async move {
                let Some(issuer) = keyward_issuer::find(order.profile.kind.kind) else { return };
                let answer = tokio::time::timeout(REVOCATION, issuer.revoke(&order, &credential)).await;
                let late =
                    || Revocation::Failed(Fault::new(Code::IssuerUnreachable).cause("it did not answer in time"));
                let outcome = answer.unwrap_or_else(|_| late());
                if asked || !matches!(outcome, Revocation::Impossible(_)) {
                    broker.ended_at_issuer(&name, &credential, outcome).await;
                }
            });
        }
    }

    async fn ended_at_issuer(&self, name: &Name, credential: &Arc<Credential>, outcome: Revocation) {
        let mut state = self.state().await;
        let draft = match outcome {
            Revocation::Done => {
                let same = |c: &Cached| c.credential.as_ref().is_some_and(|(held, _)| Arc::ptr_eq(held, credential));
                if let Some(cached) = state.cache.get_mut(name).filter(|c| same(c)) {
                    cached.credential = None;
                    self.gate.forget(name);
                }
                entry(Kind::CredentialRevoked, now()).detail("outcome", "done")
            }
            Revocation::Impossible(why) => {
                let draft = entry(Kind::CredentialRevoked, now()).outcome(Outcome::Failed);
                draft.detail("outcome", "impossible").detail("why", plain(&why, 500))
            }
            Revocation::Failed(fault) => failed(Kind::CredentialRevoked, now(), &fault).detail("outcome", "failed"),
        };
        let draft = draft.profile(name.as_str());
        let recorded = match state.open() {
            Some(open) => open.commit(self, Vec::new(), vec![draft.clone()]).await.is_ok(),
            None => false,
        };
        if !recorded {
            state.owe(Changes::record(vec![draft]));
        }
    }

    /// Forgets what was made from profiles that changed, or whose secrets did, and renews what is in use.
    pub(crate) async fn changed(self: &Arc<Self>, state: &mut State, names: &[Name]) {
        let now = now();
        for name in names {
            state.cache.remove(name);
            self.gate.forget(name);
            if in_use(state, name) {
                match self.next(state, name, Want::Good).await {
                    Ok(Next::Now(obtained)) => self.renew_leases(state, name, &obtained, now).await,
                    Ok(Next::Wait(_) | Next::GivenUp(..)) => {}
                    Err(fault) => self.renew_leases(state, name, &Err(fault), now).await,
                }
            }
        }
    }

    /// The earliest moment at which something is due.
    pub(crate) fn due(&self, state: &State) -> Option<Boot> {
        let expiries = state.runs.values().flat_map(|r| &r.leases).filter(|l| l.lease.is_live()).map(|l| l.lease.due());
        let renewals =
            state.cache.iter().filter(|(name, c)| c.exchange.is_none() && in_use(state, name)).map(|(name, c)| {
                if c.waits_for_change() {
                    return c.look_at;
                }
                let at = c.credential.as_ref().and_then(|(_, s)| ahead(*s, in_files(state, name)));
                let base = at.unwrap_or(Boot(Duration::ZERO));
                c.backoff_until().map_or(base, |b| b.max(base))
            });
        let (open, auto_lock) = match &state.vault {
            crate::broker::Vault::Open(open) => {
                (true, open.seal.is_some().then(|| open.last_action.after(state.config.auto_lock)))
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
        let clock = sdk_leases(state).next().map(|_| now().boot.after(CLOCK_PAUSE));
        let grants = state.vault.opened().and_then(|open| open.grants.next_due());
        let owed = (open && Self::owes(state)).then(|| now().boot.after(OWED_PAUSE));
        let refusals = if open { state.refusals.due() } else { None };
        expiries
            .chain(renewals)
            .chain(auto_lock)
            .chain(refusals)
            .chain(anchor)
            .chain(clock)
            .chain(owed)
            .chain(grants)
            .chain(state.approvals.next_due())
            .chain(Self::extension_due(state))
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
        self.notice_clock(&mut state, now);
        self.expire(&mut state, now).await;
        self.end_unanswered(&mut state, now).await;
        self.expire_grants(&mut state, now).await;
        let renewing: Vec<Name> = state
            .cache
            .iter()
            .filter(|(name, c)| in_use(&state, name) && c.wants_renewal(in_files(&state, name), now.boot))
            .map(|(name, _)| name.clone())
            .collect();
        self.look_again(&mut state, now.boot);
        for name in renewing {
            if let Some(cached) = state.cache.get_mut(&name) {
                self.exchange(&name, cached);
            }
        }
        let patience = state.config.auto_lock;
        let idle = |open: &Open| open.seal.is_some() && now.boot >= open.last_action.after(patience);
        if state.open().is_some_and(|open| idle(open)) {
            self.auto_lock(&mut state, &format!("no use for {} min (auto-lock)", patience.as_secs() / 60)).await;
        }
        self.flush_refusals(&mut state, now).await;
        self.record_owed(&mut state).await;
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
        // A credential that is over helps nobody; one that nobody uses is kept until then, for the next run. What failed is
        // remembered, so that nobody begins anew with it.
        let used: Vec<Name> = state.cache.keys().filter(|name| in_use(&state, name)).cloned().collect();
        let unlocked = state.open().is_some_and(|o| o.seal.is_some());
        state.cache.retain(|name, c| {
            if !unlocked {
                return used.contains(name);
            }
            used.contains(name)
                || c.exchange.is_some()
                || c.failed.is_some()
                || c.credential.as_ref().is_some_and(|(_, s)| s.ends().is_none_or(|e| e > now.boot))
        });
    }

    /// Writes the files of the SDKs anew after the wall clock was moved: the end that they name is told by it.
    fn notice_clock(&self, state: &mut State, now: Now) {
        let began = now.wall_at(Boot(Duration::ZERO)).0;
        let moved = began.abs_diff(std::mem::replace(&mut state.began, began));
        if Duration::from_micros(moved) <= CLOCK_MOVED {
            return;
        }
        let Some(open) = state.vault.opened() else { return };
        for (process, held) in sdk_leases(state) {
            let profile = open.profiles.get(&held.profile).map(|p| &p.profile);
            let made = state.cache.get(&held.profile).and_then(|c| c.credential.as_ref());
            let (Some(profile), Some(made)) = (profile, made) else { continue };
            if made.1 != held.lease.credential || held.lease.state == LeaseState::Lapsed {
                continue;
            }
            if let Err(e) = self.write_files(process, held, profile, made, now) {
                tracing::error!(lease = %held.id, code = %e.code, "the end of a credential could not be told anew");
            }
        }
    }

    /// Looks at the identity sources of profiles that were refused and that runs need.
    fn look_again(self: &Arc<Self>, state: &mut State, now: Boot) {
        let due: Vec<Name> = state
            .cache
            .iter()
            .filter(|(name, c)| c.waits_for_change() && c.exchange.is_none() && now >= c.look_at && in_use(state, name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(cached) = state.cache.get_mut(&name) else { continue };
            cached.look_at = now.after(LOOK_PAUSE);
            let (broker, order, edition) = (Arc::clone(self), Arc::clone(&cached.order), cached.edition);
            tokio::spawn(async move {
                let held = look(&order).await;
                let mut state = broker.state().await;
                let cached = state.cache.get_mut(&name).filter(|c| c.edition == edition && c.waits_for_change());
                if let Some(cached) = cached
                    && held.is_some()
                    && held != cached.seen
                {
                    cached.source_changed();
                    broker.wake.notify_one();
                }
            });
        }
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
        let draft = entry(Kind::RequestRefused, now).outcome(Outcome::Refused).detail("refused", Value::from(list));
        if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
            tracing::error!(code = %e.code, "refusals could not be recorded");
            for r in taken {
                (0..r.count.min(1000)).for_each(|_| refusals.note(&r.peer, &r.reason));
            }
        }
    }

    async fn expire(self: &Arc<Self>, state: &mut State, now: Now) {
        let (open, runs, _) = state.parts();
        let mut over = BTreeSet::new();
        let mut entries = Vec::new();
        let mut writes = Vec::new();
        for run in runs.values_mut() {
            let mut any = false;
            for n in 0..run.leases.len() {
                let Some(held) = run.leases.get_mut(n) else { continue };
                if held.lease.expire(now.boot) {
                    over.insert(held.profile.clone());
                    entries.push(self.take_back(run, n, LeaseEnd::Expired, now));
                    any = true;
                } else if held.lease.lapse(now.boot) {
                    entries.push(self.lapse(run, n, now));
                    any = true;
                }
            }
            if any {
                writes.push(run.row());
            }
        }
        let Some(open) = open else { return };
        if !entries.is_empty()
            && let Err(e) = open.commit(self, writes, entries.clone()).await
        {
            tracing::error!(code = %e.code, "expired leases could not be recorded");
            state.owe(Changes::record(entries));
        }
        self.end_at_issuers(state, &over, false);
        if !over.is_empty() {
            self.end_nested(state, now).await;
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
        Self {
            order,
            credential: None,
            backoff: Backoff::default(),
            failed: None,
            refused: None,
            seen: None,
            no_assertion: false,
            look_at: Boot(Duration::ZERO),
            told: None,
            anew: None,
            refused_upstream: false,
            exchange: None,
            task: None,
            edition,
        }
    }

    /// The credential that there is.
    pub(crate) fn credential(&self) -> Option<(Arc<Credential>, Schedule)> {
        self.credential.as_ref().map(|(credential, schedule)| (Arc::clone(credential), *schedule))
    }

    /// The life of the credential that there is, unless it is over.
    pub(crate) fn held(&self, now: Now) -> Option<HeldMsg> {
        let (_, schedule) = self.credential.as_ref()?;
        let shown = |at: Boot| now.wall_at(at).to_rfc3339();
        schedule.ends().is_none_or(|end| now.boot < end).then(|| HeldMsg {
            received_at: shown(schedule.received()),
            renew_at: schedule.rewrite_at().map(shown),
            expires_at: schedule.ends().map(shown),
        })
    }

    /// Takes an order that asks for the same credential.
    pub(crate) fn reorder(&mut self, order: Order) {
        self.order = Arc::new(order);
    }

    /// An exchange succeeded: the next failure is the first.
    fn forget_failures(&mut self) {
        self.backoff.forget();
        (self.failed, self.refused, self.seen, self.no_assertion) = (None, None, None, false);
    }

    /// The identity source holds something else: the next try begins anew, when the issuer wants to be asked.
    fn source_changed(&mut self) {
        self.backoff.forget_refusals();
        self.anew.take_if(|(_, fault)| fault.is_some());
        (self.failed, self.refused, self.seen, self.no_assertion) = (None, None, None, false);
    }

    /// Whether how an exchange ended is worth an entry: each credential is, and each failure that is not the one before.
    fn is_news(&mut self, made: &Result<Credential, IssueError>, now: Boot) -> bool {
        let code = made.as_ref().err().map(|e| e.fault.code);
        let again = self.told.is_some_and(|(told, at)| Some(told) == code && now.since(at) < TOLD_PAUSE);
        if !again {
            self.told = code.map(|code| (code, now));
        }
        !again
    }

    /// Whether a change of the identity source is waited for, and can be seen.
    fn waits_for_change(&self) -> bool {
        self.seen.is_some() && (self.backoff.given_up() || self.no_assertion)
    }

    /// Counts a failure; gives the words for those who wait.
    fn note_failure(&mut self, error: IssueError, seen: Option<[u8; 32]>, now: Boot) -> Fault {
        self.backoff.failed(now, error.failure, random_byte());
        self.no_assertion = error.failure == Failure::NoAssertion;
        if !matches!(error.failure, Failure::Passing(_)) {
            self.seen = seen;
        }
        let fault = match (error.failure, self.refused.clone()) {
            (Failure::Refused, _) => {
                self.refused = Some(error.fault.clone());
                error.fault
            }
            // The assertion went with the try that was refused: why it was is the better word.
            (Failure::NoAssertion, Some(refused)) if error.fault.code == Code::IdentitySpent => refused
                .cause("the assertion can be presented once and went with that try; Keyward waits for another one"),
            (Failure::NoAssertion | Failure::Passing(_), _) => error.fault,
        };
        self.failed = Some((fault.clone(), now));
        fault
    }

    /// When the issuer is asked next, as far as the timer decides it; `in_files` says whether files hold the credential.
    pub(crate) fn asking(&self, in_files: bool) -> Asking {
        let due = match &self.credential {
            Some((_, schedule)) => ahead(*schedule, in_files),
            None => Some(Boot(Duration::ZERO)),
        };
        match due {
            _ if self.exchange.is_some() => Asking::Now,
            _ if self.waits_for_change() => Asking::OnChange,
            Some(at) => Asking::At(self.backoff_until().map_or(at, |until| until.max(at))),
            None => Asking::Never,
        }
    }

    fn backoff_until(&self) -> Option<Boot> {
        self.backoff.until(Boot(Duration::ZERO))
    }

    /// No exchange is under way and none is held back.
    fn may_renew(&self, now: Boot) -> bool {
        self.exchange.is_none() && !self.waits_for_change() && self.backoff.until(now).is_none()
    }

    fn wants_renewal(&self, in_files: bool, now: Boot) -> bool {
        let due = |schedule: Schedule| ahead(schedule, in_files).is_some_and(|at| now >= at);
        self.credential.as_ref().is_none_or(|(_, s)| due(*s)) && self.may_renew(now)
    }
}

/// Remembers in the vault which assertions were presented.
struct Presented {
    broker: Weak<Broker>,
    profile: Name,
}

/// Where the vault keeps the digests of the assertions that were presented: 32 bytes of digest, 8 of the time, in
/// microseconds since 1970 UTC and big-endian, from which on it may forget, and 8 that stand for the profile.
const PRESENTED: &str = "once.presented";
const PRESENTED_BYTES: usize = 48;
/// Most digests that are kept for one profile; then its own that end first go, and nobody else's.
const PRESENTED_MAX: usize = 512;

impl Once for Presented {
    fn present(&self, digest: [u8; 32], until: Wall) -> Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + '_>> {
        Box::pin(async move {
            let broker = self.broker.upgrade().ok_or(Fault::new(Code::Internal))?;
            let mut state = broker.state().await;
            let open = state.open().ok_or(Fault::new(Code::VaultLocked))?;
            let now = now();
            let stored = open.store.meta(PRESENTED).await.map_err(|e| e.fault())?.unwrap_or_default();
            let Some(kept) = remember(&stored, digest, until, tag(&self.profile), now.wall) else { return Ok(false) };
            self.record(&broker, open, Kind::AssertionPresented, digest, kept, now).await?;
            Ok(true)
        })
    }

    fn withdraw(&self, digest: [u8; 32]) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + '_>> {
        Box::pin(async move {
            let broker = self.broker.upgrade().ok_or(Fault::new(Code::Internal))?;
            let mut state = broker.state().await;
            let open = state.open().ok_or(Fault::new(Code::VaultLocked))?;
            let stored = open.store.meta(PRESENTED).await.map_err(|e| e.fault())?.unwrap_or_default();
            let (records, _) = stored.as_chunks::<PRESENTED_BYTES>();
            let kept: Vec<_> = records.iter().filter(|r| !r.starts_with(&digest)).copied().collect();
            self.record(&broker, open, Kind::AssertionWithdrawn, digest, kept.concat(), now()).await
        })
    }
}

impl Presented {
    async fn record(
        &self,
        broker: &Broker,
        open: &Open,
        kind: Kind,
        digest: [u8; 32],
        kept: Vec<u8>,
        now: Now,
    ) -> Result<(), Fault> {
        let draft = entry(kind, now)
            .profile(self.profile.as_str())
            .detail("assertion", hex::encode(digest.get(..8).unwrap_or_default()));
        open.record_delivery(broker, vec![Write::PutMeta(PRESENTED.to_owned(), kept)], vec![draft]).await
    }
}

/// Stands for a profile in what is remembered of it.
fn tag(profile: &Name) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(profile.as_str().as_bytes()).into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// Adds a digest to those that are stored, without those that may be forgotten; `None` when it is there already.
fn remember(stored: &[u8], digest: [u8; 32], until: Wall, profile: [u8; 8], now: Wall) -> Option<Vec<u8>> {
    let (records, _) = stored.as_chunks::<PRESENTED_BYTES>();
    if records.iter().any(|r| r.starts_with(&digest)) {
        return None;
    }
    let ends = |r: &[u8; PRESENTED_BYTES]| {
        let time = r.get(32..40).and_then(|b| b.first_chunk::<8>());
        time.map_or(0, |b| i64::from_be_bytes(*b))
    };
    let mut kept: Vec<[u8; PRESENTED_BYTES]> = records.iter().filter(|r| ends(r) > now.0).copied().collect();
    let own = |r: &&[u8; PRESENTED_BYTES]| r.ends_with(&profile);
    while kept.iter().filter(own).count() >= PRESENTED_MAX {
        let first = kept.iter().enumerate().filter(|(_, r)| own(r)).min_by_key(|(_, r)| ends(r)).map(|(at, _)| at);
        kept.remove(first.unwrap_or_default());
    }
    let mut all = kept.concat();
    all.extend_from_slice(&digest);
    all.extend_from_slice(&until.0.to_be_bytes());
    all.extend_from_slice(&profile);
    Some(all)
}

/// What the identity source of an order holds, where looking at it costs nothing.
async fn look(order: &Order) -> Option<[u8; 32]> {
    keyward_issuer::find(order.profile.kind.kind)?.look(order).await
}

fn minutes(until: Boot, now: Boot) -> u64 {
    until.since(now).as_secs().div_ceil(60)
}

/// The live leases whose files name an end.
fn sdk_leases(state: &State) -> impl Iterator<Item = (ProcessId, &HeldLease)> {
    let leases = state.runs.values().flat_map(|run| run.leases.iter().map(|held| (run.process, held)));
    leases.filter(|(_, held)| held.lease.is_live() && held.form == Form::SdkFiles)
}

/// When a credential in use is renewed: in a file before its readers begin to do without it, before the gateway when it is
/// first worth it.
fn ahead(schedule: Schedule, in_files: bool) -> Option<Boot> {
    if in_files { schedule.rewrite_at() } else { schedule.advisory_at() }
}

/// Whether files of live leases hold the credential of this profile.
pub(crate) fn in_files(state: &State, name: &Name) -> bool {
    let mut leases = state.runs.values().flat_map(|r| &r.leases);
    leases.any(|l| l.profile == *name && l.lease.is_live() && l.lease.mode == DeliveryMode::File)
}

/// Whether a live lease wants this profile's credential kept fresh.
pub(crate) fn in_use(state: &State, name: &Name) -> bool {
    state
        .runs
        .values()
        .flat_map(|r| &r.leases)
        .any(|l| l.profile == *name && l.lease.is_live() && l.lease.mode != DeliveryMode::Env)
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

/// Moves old entries of the log into archive segments, for ever; looks once in a while, and never while it holds the state.
pub(crate) async fn archive(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(ARCHIVE_PAUSE).await;
        let open = |state: &mut State| state.open().map(|open| Arc::clone(&open.store));
        let Some(store) = open(&mut *broker.state().await) else { continue };
        loop {
            match store.archive_step(now().wall.0, ARCHIVE_KEEP, ARCHIVE_STEP).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    tracing::warn!(code = %e.fault().code, "old entries were not moved into the archive");
                    break;
                }
            }
            if let Some(open) = broker.state().await.open() {
                open.unanchored.store(true, Ordering::Relaxed);
                open.unsynced.store(true, Ordering::Relaxed);
            }
            broker.wake.notify_one();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::server::Connections;
    use keyward_api::place::Places;
    use keyward_crypto::{KdfParams, SlotFile, VaultKey};
    use keyward_secret::Passphrase;
    use keyward_store::{Changes, Store};
    use std::path::{Path, PathBuf};

    /// A broker of a throw-away home, with an open vault and the profile `p`.
    pub(crate) async fn open_broker(folder: &Path, toml: &str) -> Arc<Broker> {
        let home = folder.to_owned();
        let find = |name: &str| match name {
            "KEYWARD_HOME" => Some(home.join("kw").into_os_string()),
            "XDG_RUNTIME_DIR" => Some(home.clone().into_os_string()),
            _ => None,
        };
        let places = Places::find(&find, rustix::process::getuid().as_raw()).unwrap();
        places.make_all().unwrap();
        let broker = Broker::new(places, Connections::new(), 1).unwrap();
        let (id, key) = (keyward_crypto::make_array().unwrap(), VaultKey::make().unwrap());
        let passphrase = Passphrase::new(b"correct horse battery staple 42".to_vec()).unwrap();
        let slots = SlotFile::create(id, &key, &passphrase, KdfParams::FLOOR).unwrap();
        let draft = |kind| entry(kind, now());
        let store = Store::create(&broker.vault_lock, &slots, &key, draft(Kind::VaultInitialised)).await.unwrap();
        let profile = keyward_store::Profile {
            id: keyward_crypto::make_array().unwrap(),
            name: "p".to_owned(),
            body: toml.to_owned(),
            created_us: 0,
            updated_us: 0,
        };
        let writes = vec![Write::PutProfile(profile)];
        store.commit(Changes { writes, entries: vec![draft(Kind::ProfileAdded)] }).await.unwrap();
        broker.opened(&mut *broker.state().await, store, &key, None).await.unwrap();
        broker
    }

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap() * 4096
    }

    /// A private folder in memory, which goes with this value.
    pub(crate) struct Folder(pub(crate) PathBuf);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            use std::os::unix::fs::DirBuilderExt;
            let path = PathBuf::from("/dev/shm").join(format!("keyward-{name}-{}", std::process::id()));
            std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// `cargo xtask bench` reads the line that this prints.
    #[tokio::test]
    async fn ten_thousand_at_once_make_one_exchange() {
        const CALLERS: usize = 10_000;
        let folder = Folder::new("renew");
        let asked = folder.0.join("asked");
        let script = folder.0.join("mint");
        // The first credential lives for a second, so that what follows finds it expired; the exchange takes long enough that
        // all have asked before it ends.
        let text = format!(
            "echo >>{0}; sleep 1; [ $(wc -l <{0}) = 1 ] && life=1 || life=600; printf '{{\"token\":\"t\",\"expires_in\":%s}}' $life",
            asked.display()
        );
        std::fs::write(&script, text).unwrap();
        let toml = format!(
            "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", {script:?}]\n[delivery]\nenv = {{ T = \"token\" }}"
        );
        let broker = open_broker(&folder.0, &toml).await;
        let name = Name::parse("p").unwrap();
        broker.obtain(&name).await.unwrap();
        let exchanges = || std::fs::read_to_string(&asked).unwrap().lines().count();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(exchanges(), 1);

        let before = resident_bytes();
        let tasks: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (broker, name) = (Arc::clone(&broker), name.clone());
                tokio::spawn(async move { broker.obtain(&name).await.is_ok() })
            })
            .collect();
        let mut served = 0;
        let mut most = before;
        for (n, task) in tasks.into_iter().enumerate() {
            served += usize::from(task.await.unwrap());
            if n == 0 {
                // The first is answered once all have asked.
                most = resident_bytes();
            }
        }
        let growth = most.saturating_sub(before);
        let mut out = std::io::stdout().lock();
        std::io::Write::write_all(
            &mut out,
            format!("{{\"served\":{served},\"exchanges\":{},\"growth_bytes\":{growth}}}\n", exchanges() - 1).as_bytes(),
        )
        .unwrap();
        assert_eq!((served, exchanges()), (CALLERS, 2));
        assert!(growth <= 20_000_000, "{growth} bytes");
    }

    #[test]
    fn an_assertion_is_remembered_until_it_may_be_forgotten() {
        let at = |s: i64| Wall(s * 1_000_000);
        let (one, other) = ([1; 8], [2; 8]);
        let first = remember(&[], [1; 32], at(100), one, at(0)).unwrap();
        assert_eq!(first.len(), PRESENTED_BYTES);
        assert_eq!(remember(&first, [1; 32], at(100), other, at(0)), None, "by no profile");
        // Also when its time is over: what is there is never presented again.
        assert_eq!(remember(&first, [1; 32], at(300), one, at(200)), None);
        let two = remember(&first, [2; 32], at(150), other, at(50)).unwrap();
        assert_eq!(two.len(), 2 * PRESENTED_BYTES);
        let three = remember(&two, [3; 32], at(900), one, at(120)).unwrap();
        assert_eq!(three.len(), 2 * PRESENTED_BYTES, "the first may be forgotten");
        assert_eq!(remember(&three, [2; 32], at(1), one, at(120)), None);
        let flooded = (0..PRESENTED_MAX as u32 + 10).fold(three, |stored, n| {
            let mut digest = [9; 32];
            digest.split_at_mut(4).0.copy_from_slice(&n.to_be_bytes());
            remember(&stored, digest, at(1_000_000 + i64::from(n)), one, at(121)).unwrap()
        });
        assert_eq!(flooded.len(), (PRESENTED_MAX + 1) * PRESENTED_BYTES);
        assert_eq!(remember(&flooded, [2; 32], at(1), one, at(122)), None, "a flood of one profile spares the other's");
    }
}
