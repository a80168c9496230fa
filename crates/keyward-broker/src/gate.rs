//! The gate between the gateway and the broker's state: which run token opens what, the credentials of live leases, and the
//! calls that were made with them.
//!
//! It has a lock of its own that is held for moments only, so that a call of a child waits for no commit and for no
//! exchange. It decides nothing that lasts: leases are opened, changed and ended here by `runs` and `renew`, while they hold
//! the broker's state, and an end counts from the moment that [`Gate::end`] returns. Tokens are kept as digests; whatever a
//! caller shows is hashed before it is looked up, and digests are compared in constant time. Calls wait here until `scribe`
//! writes them, 100 ms at most; when the log cannot take them, no further call begins. Called by `authority`.

use crate::fence::{Kept, Step};
use crate::runs::RunId;
use keyward_core::audit::{Draft, Kind, Outcome, PeerFacts, at_text};
use keyward_core::{
    Attempt, Boot, Counted, Credential, Fence, Freshness, Limit, Name, Now, ProcessId, Schedule, Target, Wall,
};
use keyward_diag::{Code, Fault, plain};
use keyward_gateway::{Admitted, Began, Caller, Denial, End, EndReason, Ended, Held, Route, RunToken, Upstream};
use keyward_secret::{SecretError, SecretText};
use keyward_store::Store;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

/// Calls that are not written yet, or whose end is not, at once.
const NOTED_MAX: usize = 65_536;
/// A call that waits longer than this to be written stops all further ones: the log does not take them.
const LATE: Duration = Duration::from_secs(5);
/// Most calls of one entry.
const USES_MAX: usize = 64;
/// Most text of the calls of one entry, in bytes; with names and escapes an entry stays within what the log takes.
const TEXT_MAX_BYTES: usize = 16 * 1024;
/// Longest path in the log, in characters.
const PATH_MAX: usize = 512;
/// Leases that are over and still known, so that their token is told from one that never was.
const OVER_MAX: usize = 4096;
/// Refusals of different leases and reasons that wait to be written.
const DENIALS_MAX: usize = 1024;
/// Shortest time between two entries about refusals, and between two events about calls of one lease.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes a run token: its text, and the digest that is all that is kept of it.
///
/// # Errors
/// [`Code::Internal`] when the system has no random bytes.
pub(crate) fn make_token() -> Result<(SecretText, RunToken), Fault> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let internal = |e: &dyn std::fmt::Display| Fault::new(Code::Internal).cause(e);
    let bytes = zeroize::Zeroizing::new(keyward_crypto::make_array::<32>().map_err(|e| internal(&e))?);
    // Room from the start: a text that grew would leave its former content behind.
    let mut text = String::with_capacity(RunToken::PREFIX.len() + RunToken::CHARACTERS);
    text.push_str(RunToken::PREFIX);
    URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
    let text = SecretText::new(text).map_err(|e: SecretError| internal(&e))?;
    // EXPOSE: into its digest.
    let token = text.expose(|text| RunToken::of(text.as_bytes())).ok_or(Fault::new(Code::Internal))?;
    Ok((text, token))
}

/// The digest of a token as a key, compared in constant time.
#[derive(Clone, Copy)]
struct Key([u8; 32]);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// What the log says about a call besides the call: whose lease it was.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    /// The run.
    pub(crate) run: RunId,
    /// Its app.
    pub(crate) app: String,
    /// Whether the program was seen to be that app.
    pub(crate) app_verified: bool,
    /// Its project folder.
    pub(crate) project: String,
    /// The lease.
    pub(crate) lease: Uuid,
    /// The profile.
    pub(crate) profile: Name,
}

impl Holder {
    fn draft(&self, at: Wall, kind: Kind) -> Draft {
        Draft::new(at.0, kind)
            .run(self.run.to_string())
            .lease(self.lease.to_string())
            .profile(self.profile.as_str())
            .app(self.app.clone(), self.app_verified)
            .project(self.project.clone())
    }
}

/// A lease as the gateway sees it.
struct Door {
    holder: Arc<Holder>,
    token: RunToken,
    root: ProcessId,
    until: Boot,
    aim: Aim,
    /// Where it stands within its fence; there without one, once it came to a call that the profile's own list leaves out.
    fence: Option<Kept>,
    standing: Standing,
    ended: watch::Sender<Option<Ended>>,
    uses: u64,
    last_use: Option<Wall>,
    told: Option<Boot>,
    untold: bool,
}

/// Where the calls of a lease go.
#[derive(Clone)]
struct Aim {
    route: &'static Route,
    target: Arc<Target>,
    upstream: Arc<Upstream>,
    only: Arc<[String]>,
    fence: Option<Arc<Fence>>,
}

impl Aim {
    fn of(target: Target) -> Result<Self, Fault> {
        let route = Route::find(&target.route).ok_or_else(|| {
            Fault::new(Code::Internal).cause(format!("the gateway has no route `{}`", plain(&target.route, 40)))
        })?;
        let (upstream, only) = (Arc::new(target.upstream.clone()), Arc::from(target.only.as_slice()));
        let fence = target.fence.clone().map(Arc::new);
        Ok(Self { route, target: Arc::new(target), upstream, only, fence })
    }
}

/// Whether a token opens anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The program of the run was not seen yet.
    Shut,
    Open,
    Over(Ended),
}

/// The credential of a profile that live leases have.
struct Material {
    held: Held,
    schedule: Schedule,
}

/// One call.
struct Noted {
    number: u64,
    at: Wall,
    call: Arc<Call>,
    end: Option<End>,
}

struct Call {
    holder: Arc<Holder>,
    caller: Caller,
    program: Option<Arc<str>>,
    method: String,
    host: String,
    path: String,
}

/// Refusals of one lease for one reason.
struct Refused {
    holder: Option<Arc<Holder>>,
    count: u64,
    at: Wall,
    what: String,
    cause: Option<String>,
}

#[derive(Default)]
struct Inner {
    tokens: HashMap<Key, Uuid>,
    doors: HashMap<Uuid, Door>,
    /// Leases that are over, the longest first.
    over: VecDeque<Uuid>,
    material: BTreeMap<Name, Material>,
    /// One question at a time to the issuer of a profile, or to the cache.
    asking: BTreeMap<Name, Arc<tokio::sync::Mutex<()>>>,
    editions: u64,
    /// The log, while the vault is open.
    log: Option<Arc<Store>>,
    number: u64,
    /// Not written.
    fresh: Vec<Noted>,
    oldest: Option<Boot>,
    /// Written without their end.
    under_way: HashMap<u64, Arc<Call>>,
    /// Those that have ended since.
    ends: Vec<Noted>,
    /// Fences that were reached.
    reached: Vec<Draft>,
    /// Entries that could not be written.
    unwritten: Vec<Draft>,
    failed: bool,
    denials: BTreeMap<(Option<Uuid>, Code), Refused>,
    denials_written: Option<Boot>,
}

/// See the module.
pub(crate) struct Gate {
    port: u16,
    inner: Mutex<Inner>,
    due: Notify,
}

/// A lease that begins, or is taken up again.
pub(crate) struct Opening {
    /// Whose it is.
    pub(crate) holder: Holder,
    /// Its token.
    pub(crate) token: RunToken,
    /// Root of the run.
    pub(crate) root: ProcessId,
    /// End of the lease.
    pub(crate) until: Boot,
    /// Calls so far.
    pub(crate) uses: u64,
    /// The last of them.
    pub(crate) last_use: Option<Wall>,
    /// What it has used of its fence, if it had one.
    pub(crate) counted: Option<Counted>,
}

/// What a token opens.
pub(crate) enum Answer {
    /// This.
    Opened(Box<Admitted>),
    /// The program of the run was not looked at yet.
    Look(RunId),
}

/// What there is of a credential.
pub(crate) enum Have {
    /// This one is good.
    Held(Held),
    /// None is: the profile is to be asked for, anew when the last one was refused.
    Ask(Name, bool),
}

/// What a lease has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Its run.
    pub(crate) run: RunId,
    /// The lease.
    pub(crate) lease: Uuid,
    /// Calls.
    pub(crate) uses: u64,
    /// The last of them.
    pub(crate) last_use: Option<Wall>,
    /// What of its fence, if it has one.
    pub(crate) counted: Option<Counted>,
}

/// What is to be written.
#[derive(Default)]
pub(crate) struct Batch {
    /// The entries.
    pub(crate) entries: Vec<Draft>,
    /// What leases have used.
    pub(crate) counts: Vec<Count>,
    /// Events about calls.
    pub(crate) events: Vec<Value>,
}

impl Gate {
    /// A gate without a lease, before a vault is open. `port` is that of the gateway on 127.0.0.1.
    pub(crate) fn new(port: u16) -> Self {
        Self { port, inner: Mutex::default(), due: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port of the gateway.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address of the gateway as children get it: the literal, since a name is looked up in a file that others write.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Tells of the log: it is there while the vault is open. With it every credential goes.
    pub(crate) fn log(&self, log: Option<Arc<Store>>) {
        let mut inner = self.inner();
        if log.is_none() {
            inner.material.clear();
        }
        inner.log = log;
        drop(inner);
        self.due.notify_one();
    }

    /// Opens a lease; it lets nothing through before [`Gate::begin`].
    ///
    /// # Errors
    /// [`Code::Internal`] for a route that the gateway has not.
    pub(crate) fn open(&self, opening: Opening, target: Target) -> Result<(), Fault> {
        let Opening { holder, token, root, until, uses, last_use, counted } = opening;
        let fence = target.fence.clone().map(|fence| Kept::new(fence, counted.unwrap_or_default()));
        let aim = Aim::of(target)?;
        let lease = holder.lease;
        let door = Door {
            holder: Arc::new(holder),
            token,
            root,
            until,
            aim,
            fence,
            standing: Standing::Shut,
            ended: watch::Sender::new(None),
            uses,
            last_use,
            told: None,
            untold: false,
        };
        let mut inner = self.inner();
        inner.tokens.insert(Key(token.0), lease);
        inner.doors.insert(lease, door);
        Ok(())
    }

    /// The program of a run was looked at and is not another one than it was decided for: its tokens count from here on.
    pub(crate) fn begin(&self, run: RunId, verified: bool) {
        for door in self.inner().doors.values_mut().filter(|d| d.holder.run == run) {
            door.holder = Arc::new(Holder { app_verified: verified, ..Holder::clone(&door.holder) });
            if door.standing == Standing::Shut {
                door.standing = Standing::Open;
            }
        }
    }

    /// Calls of a lease go elsewhere, or others are allowed: the profile was changed.
    ///
    /// # Errors
    /// As [`Gate::open`].
    pub(crate) fn turn(&self, lease: Uuid, target: Target) -> Result<(), Fault> {
        let fence = target.fence.clone();
        let aim = Aim::of(target)?;
        if let Some(door) = self.inner().doors.get_mut(&lease) {
            match (&mut door.fence, fence) {
                (Some(kept), Some(fence)) if door.aim.fence.is_some() => {
                    kept.fenced.change(fence);
                    if door.aim.only != aim.only {
                        kept.fenced.change_calls();
                    }
                }
                (kept, fence) => {
                    let counted = Counted { requests: door.uses, ..Counted::default() };
                    *kept = fence.map(|fence| Kept::new(fence, counted));
                }
            }
            door.aim = aim;
        }
        Ok(())
    }

    /// A lease that is not over goes on until another moment.
    pub(crate) fn prolong(&self, lease: Uuid, until: Boot) {
        if let Some(door) = self.inner().doors.get_mut(&lease) {
            door.until = until;
        }
    }

    /// Ends a lease: its token opens nothing once this returns, and calls under way are told.
    pub(crate) fn end(&self, lease: Uuid, how: Ended) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(door) = inner.doors.get_mut(&lease) else { return };
        if matches!(door.standing, Standing::Over(_)) {
            return;
        }
        door.standing = Standing::Over(how);
        door.ended.send_replace(Some(how));
        let profile = door.holder.profile.clone();
        let still = |d: &Door| d.holder.profile == profile && !matches!(d.standing, Standing::Over(_));
        if !inner.doors.values().any(still) {
            inner.material.remove(&profile);
            inner.asking.remove(&profile);
        }
        inner.over.push_back(lease);
        if inner.over.len() > OVER_MAX
            && let Some(door) = inner.over.pop_front().and_then(|first| inner.doors.remove(&first))
        {
            inner.tokens.remove(&Key(door.token.0));
        }
    }

    /// What a token opens.
    ///
    /// # Errors
    /// [`Code::GatewayToken`]; [`Code::LeaseRevoked`], [`Code::LeaseExpired`] and [`Code::LeaseOver`] for a token that was
    /// good once; [`Code::VaultLocked`], [`Code::AuditBroken`].
    pub(crate) fn admit(&self, token: RunToken, now: Now) -> Result<Answer, Fault> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let door = inner.tokens.get(&Key(token.0)).and_then(|lease| inner.doors.get(lease));
        let Some(door) = door else {
            // Which runs there are is known once the vault was opened.
            return Err(match inner.log {
                Some(_) => Fault::new(Code::GatewayToken).cause("the run token that it sends belongs to no run"),
                None => Fault::new(Code::VaultLocked),
            });
        };
        door.live(now.boot)?;
        inner.recording()?;
        if door.standing == Standing::Shut {
            return Ok(Answer::Look(door.holder.run));
        }
        let Aim { route, target, upstream, only, fence } = door.aim.clone();
        Ok(Answer::Opened(Box::new(Admitted {
            lease: door.holder.lease,
            root: door.root,
            route,
            upstream,
            placement: target.placement.clone(),
            only,
            containers: target.containers,
            fence,
            ended: door.ended.subscribe(),
        })))
    }

    /// The credential of a lease, as far as there is one; `refused` is the edition that the upstream refused.
    ///
    /// # Errors
    /// As [`Gate::admit`].
    pub(crate) fn have(&self, lease: Uuid, refused: Option<u64>, now: Boot) -> Result<Have, Fault> {
        let inner = self.inner();
        let door = inner.doors.get(&lease).ok_or(Fault::new(Code::GatewayToken))?;
        door.live(now)?;
        inner.recording()?;
        let profile = &door.holder.profile;
        Ok(match inner.material.get(profile) {
            Some(Material { held, .. }) if refused == Some(held.edition) => Have::Ask(profile.clone(), true),
            Some(Material { held, schedule }) if schedule.freshness(now) != Freshness::Mandatory => {
                Have::Held(held.clone())
            }
            Some(_) | None => Have::Ask(profile.clone(), false),
        })
    }

    /// The turn of those who ask for a profile.
    pub(crate) fn turn_of(&self, profile: &Name) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.inner().asking.entry(profile.clone()).or_default())
    }

    /// Keeps a credential for the live leases of its profile, if there are any. The same bytes are no other edition.
    pub(crate) fn keep(&self, profile: &Name, credential: &Arc<Credential>, schedule: Schedule) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let of = |d: &Door| d.holder.profile == *profile && !matches!(d.standing, Standing::Over(_));
        if !inner.doors.values().any(of) {
            return;
        }
        let same = inner.material.get(profile).filter(|m| m.held.credential.token.ct_eq(&credential.token));
        let edition = same.map_or_else(
            || {
                inner.editions += 1;
                inner.editions
            },
            |same| same.held.edition,
        );
        let held = Held { credential: Arc::clone(credential), edition };
        inner.material.insert(profile.clone(), Material { held, schedule });
    }

    /// Forgets the credential of a profile that changed: what was made before is used no more.
    pub(crate) fn forget(&self, profile: &Name) {
        self.inner().material.remove(profile);
    }

    /// The places of calls whose cost is not known yet, where the fence of a lease counts money.
    pub(crate) fn slots(&self, lease: Uuid) -> Option<Arc<Semaphore>> {
        self.inner().doors.get(&lease)?.fence.as_ref()?.slots()
    }

    /// What a request does at the fence of its lease. Where it is to wait for a person and is the first, the reaching is noted.
    ///
    /// # Errors
    /// As [`Gate::admit`]; [`Code::FenceReached`] when more was refused a moment ago.
    pub(crate) fn fence(&self, lease: Uuid, attempt: Attempt<'_>, now: Now) -> Result<(Step, Arc<Holder>), Fault> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let door = inner.doors.get_mut(&lease).ok_or(Fault::new(Code::GatewayToken))?;
        door.live(now.boot)?;
        let holder = Arc::clone(&door.holder);
        if door.fence.is_none() && matches!(attempt, Attempt::Call(_)) {
            door.fence = Some(Kept::new(Fence::default(), Counted::default()));
        }
        let Some(kept) = &mut door.fence else { return Ok((Step::Through, holder)) };
        let step = kept.step(attempt, now.boot)?;
        if let Step::Ask(question, _) = &step {
            let draft = holder.draft(now.wall, Kind::FenceReached);
            inner.reached.push(draft.detail("fence", question.limit.word()).detail("told", question.told.as_str()));
            self.due.notify_one();
        }
        Ok((step, holder))
    }

    /// What a person said about a fence, or that nobody waits any longer (`None`).
    pub(crate) fn answered(&self, lease: Uuid, limit: &Limit, answer: Option<Result<(), Fault>>, now: Now) {
        let mut inner = self.inner();
        let Some(door) = inner.doors.get_mut(&lease) else { return };
        if let Some(kept) = &mut door.fence {
            kept.answered(limit, answer, now.boot);
        }
    }

    /// Notes that a call is about to be made; gives its number.
    ///
    /// # Errors
    /// As [`Gate::admit`]; [`Code::AuditUnavailable`] when the log does not take what was noted before.
    pub(crate) fn began(&self, began: &Began, now: Now) -> Result<u64, Fault> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let door = inner.doors.get_mut(&began.lease).ok_or(Fault::new(Code::GatewayToken))?;
        door.live(now.boot)?;
        match &inner.log {
            None => return Err(Fault::new(Code::VaultLocked)),
            Some(log) if log.is_broken() => return Err(Fault::new(Code::AuditBroken)),
            Some(_) => {}
        }
        let late = inner.oldest.is_some_and(|oldest| now.boot.since(oldest) > LATE);
        let noted = inner.fresh.len() + inner.under_way.len() + inner.ends.len();
        if inner.failed || late || noted >= NOTED_MAX {
            return Err(Fault::new(Code::AuditUnavailable).cause("calls that were made before are not written yet"));
        }
        door.uses += 1;
        (door.last_use, door.untold) = (Some(now.wall), true);
        inner.number += 1;
        let call = Call {
            holder: Arc::clone(&door.holder),
            caller: began.caller,
            program: began.program.clone(),
            method: plain(&began.method, 20),
            host: plain(&began.host, 255),
            path: plain(&began.path, PATH_MAX),
        };
        inner.fresh.push(Noted { number: inner.number, at: now.wall, call: Arc::new(call), end: None });
        if inner.oldest.is_none() {
            inner.oldest = Some(now.boot);
            self.due.notify_one();
        }
        Ok(inner.number)
    }

    /// Notes the end of a call.
    pub(crate) fn ended(&self, number: u64, end: End, now: Now) {
        let mut inner = self.inner();
        let usd = end.usd;
        let mut of = None;
        if let Ok(at) = inner.fresh.binary_search_by_key(&number, |noted| noted.number) {
            if let Some(noted) = inner.fresh.get_mut(at) {
                of = Some(noted.call.holder.lease);
                noted.end = Some(end);
            }
        } else if let Some(call) = inner.under_way.remove(&number) {
            of = Some(call.holder.lease);
            inner.ends.push(Noted { number, at: now.wall, call, end: Some(end) });
            self.due.notify_one();
        }
        if let (Some(usd), Some(door)) = (usd, of.and_then(|lease| inner.doors.get_mut(&lease)))
            && let Some(kept) = &mut door.fence
        {
            kept.fenced.spend(usd);
            door.untold = true;
        }
    }

    /// Notes a refusal, with the lease that it was of: also with one that is over, by its token.
    pub(crate) fn denied(&self, denial: &Denial, now: Now) {
        let mut inner = self.inner();
        let lease = denial.lease.or_else(|| inner.tokens.get(&Key(denial.token?.0)).copied());
        let holder = lease.and_then(|lease| inner.doors.get(&lease)).map(|door| Arc::clone(&door.holder));
        self.refuse(&mut inner, holder, &denial.fault, &denial.what, now);
    }

    fn refuse(&self, inner: &mut Inner, holder: Option<Arc<Holder>>, fault: &Fault, what: &str, now: Now) {
        let key = (holder.as_ref().map(|h| h.lease), fault.code);
        let first = inner.denials.is_empty();
        if let Some(refused) = inner.denials.get_mut(&key) {
            refused.count = refused.count.saturating_add(1);
        } else if inner.denials.len() < DENIALS_MAX {
            let (what, cause) = (plain(what, PATH_MAX), fault.causes.first().map(|c| plain(c, 200)));
            inner.denials.insert(key, Refused { holder, count: 1, at: now.wall, what, cause });
        }
        if first {
            self.due.notify_one();
        }
    }

    /// Resolves once something is to be written.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// Whether calls wait whose end was not noted yet.
    pub(crate) fn any_under_way(&self) -> bool {
        let inner = self.inner();
        !inner.under_way.is_empty() || inner.fresh.iter().any(|noted| noted.end.is_none())
    }

    /// Takes what is to be written. It counts as written unless [`Gate::unwritten`] gives it back.
    pub(crate) fn take(&self, now: Now) -> Batch {
        let (mut batch, fresh, ends, refused) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let mut batch = Batch { entries: std::mem::take(&mut inner.unwritten), ..Batch::default() };
            batch.entries.append(&mut inner.reached);
            (inner.oldest, inner.failed) = (None, false);
            let fresh = std::mem::take(&mut inner.fresh);
            inner.under_way.extend(fresh.iter().filter(|n| n.end.is_none()).map(|n| (n.number, Arc::clone(&n.call))));
            for door in inner.doors.values_mut().filter(|d| d.untold) {
                door.tell(now, &mut batch);
            }
            let pause = inner.denials_written.is_some_and(|written| now.boot.since(written) < PAUSE);
            let refused = if pause { BTreeMap::new() } else { std::mem::take(&mut inner.denials) };
            if !refused.is_empty() {
                inner.denials_written = Some(now.boot);
            }
            (batch, fresh, std::mem::take(&mut inner.ends), refused)
        };
        // Texts are made without the lock.
        batch.entries.extend(entries(Kind::CredentialUsed, &fresh));
        batch.entries.extend(entries(Kind::CredentialUseEnded, &ends));
        batch.entries.extend(refused.into_iter().map(|((_, code), refused)| refused.draft(code)));
        batch
    }

    /// Gives back entries that could not be written: no call begins before they are.
    pub(crate) fn unwritten(&self, entries: Vec<Draft>) {
        let mut inner = self.inner();
        inner.failed = true;
        inner.unwritten = entries;
    }

    /// How long until something that waits may be told or written; `None` when nothing
    /// waits, or no log is there.
    pub(crate) fn waits(&self, now: Boot) -> Option<Duration> {
        let inner = self.inner();
        inner.log.as_ref()?;
        let told = inner.doors.values().filter(|d| d.untold).map(|d| d.told);
        let denials = (!inner.denials.is_empty()).then_some(inner.denials_written);
        let left = |last: Option<Boot>| last.map_or(Duration::ZERO, |last| PAUSE.saturating_sub(now.since(last)));
        told.chain(denials).map(left).min()
    }
}

impl Inner {
    fn recording(&self) -> Result<(), Fault> {
        match &self.log {
            None => Err(Fault::new(Code::VaultLocked)),
            Some(log) if log.is_broken() => Err(Fault::new(Code::AuditBroken)),
            Some(_) => Ok(()),
        }
    }
}

impl Door {
    fn live(&self, now: Boot) -> Result<(), Fault> {
        let over = match self.standing {
            Standing::Over(how) => Some(how),
            Standing::Shut | Standing::Open => (now >= self.until).then_some(Ended::Expired),
        };
        let code = match over {
            None => return Ok(()),
            Some(Ended::Expired) => Code::LeaseExpired,
            Some(Ended::Revoked) => Code::LeaseRevoked,
            Some(Ended::Released) => Code::LeaseOver,
        };
        Err(Fault::new(code).cause(format!("profile `{}`", self.holder.profile)))
    }
}

impl Door {
    /// Adds what is told of its calls; an event about them comes once in a while.
    fn tell(&mut self, now: Now, batch: &mut Batch) {
        let holder = &self.holder;
        let counted = self.fence.as_ref().filter(|_| self.aim.fence.is_some()).map(|kept| kept.fenced.counted());
        let (run, lease) = (holder.run, holder.lease);
        batch.counts.push(Count { run, lease, uses: self.uses, last_use: self.last_use, counted });
        if self.told.is_none_or(|told| now.boot.since(told) >= PAUSE) {
            (self.told, self.untold) = (Some(now.boot), false);
            batch.events.push(json!({
                "lease": holder.lease.to_string(),
                "run": holder.run.to_string(),
                "profile": holder.profile.as_str(),
                "uses": self.uses,
                "at": self.last_use.map(Wall::to_rfc3339),
            }));
        }
    }
}

impl Refused {
    fn draft(self, code: Code) -> Draft {
        let draft = match &self.holder {
            Some(holder) => holder.draft(self.at, Kind::GatewayRefused),
            None => Draft::new(self.at.0, Kind::GatewayRefused),
        };
        let draft = draft.outcome(Outcome::Refused).detail("code", code.name()).detail("count", self.count);
        let draft = if self.what.is_empty() { draft } else { draft.detail("what", self.what) };
        self.cause.into_iter().fold(draft, |draft, cause| draft.detail("cause", cause))
    }
}

/// Whose calls stand in one entry: those of a lease, a process and its program.
type Group<'c> = (Uuid, Option<(u32, ProcessId)>, Option<&'c str>);

/// Puts calls of one lease, process and program together.
fn entries(kind: Kind, calls: &[Noted]) -> Vec<Draft> {
    let mut groups: Vec<(Vec<&Noted>, usize)> = Vec::new();
    let mut open: HashMap<Group<'_>, usize> = HashMap::new();
    for noted in calls {
        let call = &noted.call;
        let text = call.method.len() + call.host.len() + call.path.len();
        let key = (call.holder.lease, who(call.caller), call.program.as_deref());
        let place = open.get(&key).copied().filter(|&place| {
            groups.get(place).is_some_and(|(calls, size)| calls.len() < USES_MAX && size + text <= TEXT_MAX_BYTES)
        });
        let place = place.unwrap_or_else(|| {
            groups.push((Vec::new(), 0));
            open.insert(key, groups.len() - 1);
            groups.len() - 1
        });
        if let Some((calls, size)) = groups.get_mut(place) {
            calls.push(noted);
            *size += text;
        }
    }
    groups.iter().filter_map(|(calls, _)| entry(kind, calls)).collect()
}

fn who(caller: Caller) -> Option<(u32, ProcessId)> {
    match caller {
        Caller::Exact(process) => Some((1, process)),
        Caller::OneOf(of, process) => Some((of, process)),
        Caller::Unknown => None,
    }
}

fn entry(kind: Kind, calls: &[&Noted]) -> Option<Draft> {
    let first = calls.first()?;
    let caller = first.call.caller;
    let process = match caller {
        Caller::Exact(_) => "exact".to_owned(),
        Caller::OneOf(of, _) => format!("one of {of}"),
        Caller::Unknown => "unknown".to_owned(),
    };
    let uses: Vec<Value> = calls.iter().map(|noted| noted.shown()).collect();
    let draft = first.call.holder.draft(first.at, kind).detail("process", process);
    let draft = draft.detail("count", uses.len()).detail("uses", uses);
    Some(match who(caller) {
        Some((_, process)) => draft.peer(PeerFacts {
            uid: rustix::process::getuid().as_raw(),
            pid: process.pid.cast_signed(),
            exe: first.call.program.as_deref().map(str::to_owned),
        }),
        None => draft,
    })
}

impl Noted {
    /// The call as the log has it; without an end it has its number, by which its end is found.
    fn shown(&self) -> Value {
        let Call { method, host, path, .. } = &*self.call;
        let mut shown =
            json!({"number": self.number, "at": at_text(self.at.0), "method": method, "host": host, "path": path});
        if let (Some(end), Some(fields)) = (&self.end, shown.as_object_mut()) {
            let bytes = |n: u64| Value::from(n.min(1 << 53));
            fields.insert("status".to_owned(), end.status.into());
            fields.insert("sent".to_owned(), bytes(end.sent));
            fields.insert("received".to_owned(), bytes(end.received));
            fields.insert("ms".to_owned(), bytes(u64::try_from(end.took.as_millis()).unwrap_or(u64::MAX)));
            if let Some(usd) = end.usd {
                fields.insert("usd".to_owned(), usd.to_string().into());
            }
            if let Some(id) = &end.request_id {
                fields.insert("request_id".to_owned(), plain(id, 128).into());
            }
            let broke_off = match end.reason {
                EndReason::Whole => None,
                EndReason::Client => Some("the client went away"),
                EndReason::Upstream => Some("the upstream broke off"),
                EndReason::Cut => Some("cut, since it was taken back"),
            };
            if let Some(why) = broke_off {
                fields.insert("ended".to_owned(), why.into());
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use keyward_core::audit::{BODY_MAX_BYTES, body};
    use keyward_core::{Model, Placement};
    use keyward_crypto::{KdfParams, SlotFile, VaultKey};
    use keyward_secret::{Passphrase, SecretBytes};
    use keyward_store::{Paths, VaultLock};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// An open log in a folder of its own.
    async fn log(name: &str) -> (Arc<Store>, Folder) {
        let folder = Folder(PathBuf::from("/dev/shm").join(format!("keyward-gate-{name}-{}", std::process::id())));
        let paths = Paths { data: folder.0.join("data"), state: folder.0.join("state") };
        for each in [&folder.0, &paths.data, &paths.state] {
            std::fs::DirBuilder::new().mode(0o700).create(each).unwrap();
        }
        let lock = VaultLock::acquire(&paths).unwrap();
        let (id, key) = (keyward_crypto::make_array().unwrap(), VaultKey::make().unwrap());
        let passphrase = Passphrase::new(b"correct horse battery staple 42".to_vec()).unwrap();
        let slots = SlotFile::create(id, &key, &passphrase, KdfParams::FLOOR).unwrap();
        let first = Draft::new(0, Kind::VaultInitialised);
        (Arc::new(Store::create(&lock, &slots, &key, first).await.unwrap()), folder)
    }

    fn at(ms: u64) -> Now {
        Now { boot: Boot(Duration::from_millis(ms)), wall: Wall(i64::try_from(ms).unwrap() * 1000) }
    }

    fn target() -> Target {
        Target {
            route: "anthropic".to_owned(),
            upstream: Upstream { tls: true, host: "api.anthropic.com".to_owned(), port: 443, base: String::new() },
            placement: Placement::Header("x-api-key".to_owned(), String::new()),
            only: vec!["POST /v1/messages".to_owned()],
            containers: false,
            fence: None,
        }
    }

    const RUN: Uuid = Uuid::from_u128(1);
    const ROOT: ProcessId = ProcessId { pid: 1 << 30, start: 7 };

    /// Opens the lease `n`, which ends at ten seconds.
    fn open(gate: &Gate, n: u128) -> (Uuid, RunToken) {
        let (lease, (_, token)) = (Uuid::from_u128(n), make_token().unwrap());
        let holder = Holder {
            run: RunId(RUN),
            app: "sh".to_owned(),
            app_verified: false,
            project: "/p".to_owned(),
            lease,
            profile: Name::parse("k").unwrap(),
        };
        let until = Boot(Duration::from_secs(10));
        gate.open(Opening { holder, token, root: ROOT, until, uses: 0, last_use: None, counted: None }, target())
            .unwrap();
        (lease, token)
    }

    fn code<T>(answer: Result<T, Fault>) -> Code {
        answer.err().unwrap_or_else(|| panic!("it was let through")).code
    }

    fn began(lease: Uuid, caller: Caller, path: &str) -> Began {
        let (method, host) = ("POST".to_owned(), "api.anthropic.com".to_owned());
        Began { lease, caller, program: Some("/bin/x".into()), method, host, path: path.to_owned() }
    }

    fn end(status: u16) -> End {
        let (request_id, took) = (Some("req_1".to_owned()), Duration::from_millis(12));
        End { status, request_id, sent: 2, received: 11, took, reason: EndReason::Whole, usd: None }
    }

    fn credential(token: &[u8]) -> Arc<Credential> {
        let token = SecretBytes::new(token.to_vec()).unwrap();
        Arc::new(Credential { token, life: None, scope: None, facts: BTreeMap::new() })
    }

    #[test]
    fn a_token_has_its_form_and_is_made_once() {
        let ((text, token), (_, other)) = (make_token().unwrap(), make_token().unwrap());
        // EXPOSE: the test looks at its form.
        text.expose(|text| {
            assert_eq!((text.len(), &text[..4]), (47, "kwr_"));
            assert_eq!(RunToken::of(text.as_bytes()), Some(token));
            assert_eq!(RunToken::of(&text.as_bytes()[..46]), None);
        });
        assert_ne!(token, other);
    }

    #[tokio::test]
    async fn a_token_opens_its_lease_while_that_is_live_and_its_program_was_seen() {
        let (log, _folder) = log("admit").await;
        let gate = Gate::new(1);
        let stranger = make_token().unwrap().1;
        assert_eq!(code(gate.admit(stranger, at(0))), Code::VaultLocked, "no run is known yet");
        gate.log(Some(log));
        let unknown = gate.admit(stranger, at(0)).err().unwrap();
        assert!(unknown.code == Code::GatewayToken && unknown.causes[0].contains("belongs to no run"), "{unknown}");
        let (first, token) = open(&gate, 1);
        let (_, second) = open(&gate, 2);
        assert!(matches!(gate.admit(token, at(0)), Ok(Answer::Look(run)) if run == RunId(RUN)));
        gate.begin(RunId(RUN), true);
        let Ok(Answer::Opened(admitted)) = gate.admit(token, at(0)) else { panic!("it is shut") };
        assert_eq!((admitted.lease, admitted.root, &*admitted.only), (first, ROOT, &target().only[..]));
        assert_eq!(*admitted.ended.borrow(), None);
        gate.end(first, Ended::Revoked);
        gate.end(first, Ended::Released);
        assert_eq!(*admitted.ended.borrow(), Some(Ended::Revoked), "the first end counts");
        assert_eq!(code(gate.admit(token, at(0))), Code::LeaseRevoked);
        assert_eq!(code(gate.began(&began(first, Caller::Unknown, "/"), at(0))), Code::LeaseRevoked);
        assert!(gate.admit(second, at(9_999)).is_ok());
        assert_eq!(code(gate.admit(second, at(10_000))), Code::LeaseExpired, "also before the timer saw it");
        gate.log(None);
        assert_eq!(code(gate.admit(second, at(0))), Code::VaultLocked);
    }

    #[tokio::test]
    async fn leases_that_are_over_are_forgotten_in_the_end() {
        let (log, _folder) = log("over").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (first, token) = open(&gate, 1);
        gate.end(first, Ended::Released);
        for n in 0..OVER_MAX {
            assert_eq!(code(gate.admit(token, at(0))), Code::LeaseOver);
            gate.end(open(&gate, 2 + n as u128).0, Ended::Released);
        }
        assert_eq!(code(gate.admit(token, at(0))), Code::GatewayToken);
        let inner = gate.inner();
        assert_eq!((inner.doors.len(), inner.tokens.len()), (OVER_MAX, OVER_MAX));
    }

    #[tokio::test]
    async fn other_bytes_are_another_edition_and_nothing_is_kept_for_nobody() {
        let (log, _folder) = log("keep").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (name, now) = (Name::parse("k").unwrap(), at(0).boot);
        let forever = Schedule::new(now, None);
        gate.keep(&name, &credential(b"a"), forever);
        assert!(gate.inner().material.is_empty(), "no lease has the profile");
        let (first, _) = open(&gate, 1);
        let (second, _) = open(&gate, 2);
        assert!(matches!(gate.have(first, None, now), Ok(Have::Ask(_, false))));
        let mut editions = Vec::new();
        for token in [&b"a"[..], b"a", b"b", b"a"] {
            gate.keep(&name, &credential(token), forever);
            let Ok(Have::Held(held)) = gate.have(first, None, now) else { panic!("none") };
            editions.push(held.edition);
        }
        assert!(editions[0] == editions[1] && editions[1] < editions[2] && editions[2] < editions[3]);
        assert!(matches!(gate.have(first, Some(editions[3]), now), Ok(Have::Ask(_, true))), "it was refused");
        assert!(matches!(gate.have(first, Some(editions[2]), now), Ok(Have::Held(_))), "a former one was");
        let short = Schedule::new(now, Some(Duration::from_secs(60)));
        gate.keep(&name, &credential(b"c"), short);
        assert!(matches!(gate.have(first, None, at(9_000).boot), Ok(Have::Held(_))));
        gate.end(first, Ended::Revoked);
        assert!(matches!(gate.have(second, None, now), Ok(Have::Held(_))));
        gate.end(second, Ended::Released);
        assert!(gate.inner().material.is_empty(), "the last lease took it along");
    }

    #[tokio::test]
    async fn calls_of_a_lease_and_process_stand_in_few_entries_that_the_log_takes() {
        let (log, _folder) = log("group").await;
        let gate = Gate::new(1);
        gate.log(Some(Arc::clone(&log)));
        let (lease, _) = open(&gate, 1);
        gate.begin(RunId(RUN), true);
        let other = ProcessId { pid: (1 << 30) + 1, start: 9 };
        let long = format!("/{}", "\"\u{e9}".repeat(4_000));
        for n in 0..200 {
            let caller = if n % 2 == 0 { Caller::Exact(ROOT) } else { Caller::OneOf(2, other) };
            let path = if n < 100 { "/v1/messages" } else { &long };
            let number = gate.began(&began(lease, caller, path), at(n)).unwrap();
            gate.ended(number, end(200), at(n));
        }
        let batch = gate.take(at(200));
        assert!(batch.entries.iter().all(|e| e.kind == Kind::CredentialUsed && e.outcome == Outcome::Ok));
        let counts: Vec<u64> = batch.entries.iter().map(|e| e.detail["count"].as_u64().unwrap()).collect();
        assert_eq!(counts.iter().sum::<u64>(), 200);
        assert!(counts.iter().all(|n| *n <= 64) && counts.len() < 20, "{counts:?}");
        assert!(batch.entries.iter().all(|e| body(1, e).len() < BODY_MAX_BYTES));
        let first = &batch.entries[0];
        assert_eq!((first.app_verified, &first.detail["process"]), (Some(true), &json!("exact")));
        assert_eq!(first.peer.as_ref().unwrap().pid, 1 << 30);
        assert_eq!(first.peer.as_ref().unwrap().exe.as_deref(), Some("/bin/x"), "as it was when it called");
        assert_eq!(first.detail["uses"][0]["request_id"], "req_1");
        assert!(batch.entries.iter().any(|e| e.detail["process"] == "one of 2"));
        assert_eq!(
            batch.counts,
            [Count { run: RunId(RUN), lease, uses: 200, last_use: Some(at(199).wall), counted: None }]
        );
        log.commit(keyward_store::Changes::record(batch.entries)).await.unwrap();
        assert!(gate.take(at(300)).entries.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_call_that_was_written_before_it_has_an_entry_of_its_own() {
        let (log, _folder) = log("end").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, _) = open(&gate, 1);
        let number = gate.began(&began(lease, Caller::Unknown, "/v1/messages"), at(0)).unwrap();
        let batch = gate.take(at(100));
        let one = &batch.entries[0].detail["uses"][0];
        assert_eq!((batch.entries.len(), one.get("status"), &one["number"]), (1, None, &json!(number)));
        assert!(gate.any_under_way() && gate.take(at(200)).entries.is_empty());
        gate.ended(number, End { reason: EndReason::Cut, ..end(200) }, at(5_000));
        gate.ended(number, end(500), at(5_001));
        let batch = gate.take(at(5_100));
        assert_eq!((batch.entries.len(), batch.entries[0].kind), (1, Kind::CredentialUseEnded));
        let one = &batch.entries[0].detail["uses"][0];
        assert_eq!((&one["number"], &one["status"], &one["received"]), (&json!(number), &json!(200), &json!(11)));
        assert_eq!(one["ended"], "cut, since it was taken back");
        assert!(!gate.any_under_way());
    }

    #[tokio::test]
    async fn no_call_begins_while_the_log_takes_none() {
        let (log, _folder) = log("closed").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, _) = open(&gate, 1);
        let call = began(lease, Caller::Unknown, "/v1/messages");
        gate.began(&call, at(0)).unwrap();
        let batch = gate.take(at(100));
        gate.unwritten(batch.entries);
        assert_eq!(code(gate.began(&call, at(200))), Code::AuditUnavailable);
        let again = gate.take(at(700));
        assert_eq!(again.entries.len(), 1, "what could not be written is not lost");
        gate.began(&call, at(800)).unwrap();
        assert_eq!(code(gate.began(&call, at(5_801))), Code::AuditUnavailable, "nothing was written for too long");
        gate.take(at(5_900));
        gate.end(lease, Ended::Revoked);
        let (lease, _) = open(&gate, 2);
        let call = began(lease, Caller::Unknown, "/v1/messages");
        // Two are under way already.
        for n in 2..NOTED_MAX {
            assert!(gate.began(&call, at(6_000)).is_ok(), "{n}");
        }
        assert_eq!(code(gate.began(&call, at(6_000))), Code::AuditUnavailable, "there is room for no more");
    }

    #[tokio::test]
    async fn refusals_are_counted_and_written_once_a_second() {
        let (log, _folder) = log("refuse").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, token) = open(&gate, 1);
        let denial = |lease, code| Denial { lease, token: None, fault: Fault::new(code), what: "GET /\n".to_owned() };
        for _ in 0..100 {
            gate.denied(&denial(None, Code::GatewayToken), at(0));
            gate.denied(&denial(Some(lease), Code::GatewayNotAllowed), at(0));
        }
        let entries = gate.take(at(0)).entries;
        let told: Vec<_> = entries.iter().map(|e| (e.lease.is_some(), e.detail["count"].clone())).collect();
        assert_eq!(told, [(false, json!(100)), (true, json!(100))]);
        assert!(entries.iter().all(|e| e.outcome == Outcome::Refused && e.detail["what"] == "GET /\\u{a}"));
        gate.end(lease, Ended::Revoked);
        for _ in 0..7 {
            let fault = gate.admit(token, at(10)).err().unwrap();
            gate.denied(&Denial { lease: None, token: Some(token), fault, what: "POST /v1".to_owned() }, at(10));
        }
        assert!(gate.take(at(999)).entries.is_empty());
        assert_eq!(gate.waits(at(999).boot), Some(Duration::from_millis(1)));
        let entries = gate.take(at(1000)).entries;
        assert_eq!((entries.len(), &entries[0].detail["count"], entries[0].run.is_some()), (1, &json!(7), true));
        assert_eq!(
            (entries[0].lease.clone(), &entries[0].detail["what"]),
            (Some(lease.to_string()), &json!("POST /v1"))
        );
        assert_eq!(gate.waits(at(1000).boot), None);
        for n in 0..2 * DENIALS_MAX {
            let (lease, _) = open(&gate, 10 + n as u128);
            gate.denied(&denial(Some(lease), Code::GatewayNotAllowed), at(3000));
        }
        assert_eq!(gate.take(at(3000)).entries.len(), DENIALS_MAX);
    }

    #[tokio::test]
    async fn what_a_call_costs_is_counted_and_kept_and_a_fence_that_is_reached_is_in_the_log() {
        let (log, _folder) = log("fence").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, _) = open(&gate, 1);
        let call = began(lease, Caller::Unknown, "/v1/messages");
        assert!(matches!(gate.fence(lease, Attempt::Request, at(0)), Ok((Step::Through, _))), "it has none");
        let number = gate.began(&call, at(0)).unwrap();
        let model = Attempt::Model(Model { sent: "m", name: "m" });
        let fence = |usd: u64| Fence {
            requests_per_minute: None,
            requests: None,
            models: Vec::new(),
            usd: Some(keyward_core::Usd(usd)),
        };
        gate.turn(lease, Target { fence: Some(fence(100)), ..target() }).unwrap();
        assert!(matches!(gate.fence(lease, model, at(0)), Ok((Step::Through, _))));
        gate.ended(number, End { usd: Some(keyward_core::Usd(100)), ..end(200) }, at(1));
        let batch = gate.take(at(100));
        let counted = batch.counts[0].counted.unwrap();
        assert_eq!((counted.requests, counted.usd.0), (2, 100), "one before it had a fence");
        assert_eq!(batch.entries[0].detail["uses"][0]["usd"], "$0.0001");
        let Ok((Step::Ask(question, _answer), _)) = gate.fence(lease, model, at(200)) else {
            panic!("nobody is asked")
        };
        assert!(matches!(gate.fence(lease, model, at(201)), Ok((Step::Join(_), _))));
        let entries = gate.take(at(300)).entries;
        assert_eq!(
            (entries.len(), entries[0].kind, &entries[0].detail["fence"]),
            (1, Kind::FenceReached, &json!("usd"))
        );
        gate.answered(lease, &question.limit, Some(Ok(())), at(400));
        assert!(matches!(gate.fence(lease, model, at(400)), Ok((Step::Through, _))));
        gate.turn(lease, Target { fence: Some(fence(50)), ..target() }).unwrap();
        assert!(matches!(gate.fence(lease, model, at(500)), Ok((Step::Ask(..), _))), "what is tightened holds at once");
        gate.turn(lease, target()).unwrap();
        assert!(matches!(gate.fence(lease, model, at(500)), Ok((Step::Through, _))));
        gate.end(lease, Ended::Revoked);
        assert_eq!(code(gate.fence(lease, model, at(500)).map(drop)), Code::LeaseRevoked);
    }

    #[tokio::test]
    async fn a_call_that_the_list_leaves_out_waits_without_a_fence_too_until_the_list_is_another() {
        let (log, _folder) = log("calls").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, _) = open(&gate, 1);
        let call = Attempt::Call("POST /v1/files");
        let allow = |ms| {
            let Ok((Step::Ask(question, _answer), _)) = gate.fence(lease, call, at(ms)) else {
                panic!("nobody is asked")
            };
            assert_eq!(question.told, "POST /v1/files, which the profile's list leaves out");
            gate.answered(lease, &question.limit, Some(Ok(())), at(ms));
            assert!(matches!(gate.fence(lease, call, at(ms)), Ok((Step::Through, _))));
        };
        allow(0);
        let entries = gate.take(at(100)).entries;
        let detail = &entries[0].detail;
        assert_eq!((entries.len(), &detail["fence"], detail["told"].is_string()), (1, &json!("only"), true));
        gate.began(&began(lease, Caller::Unknown, "/v1/files"), at(200)).unwrap();
        assert_eq!(gate.take(at(300)).counts[0].counted, None, "it has no fence");
        let fence = Fence { requests: Some(9), ..Fence::default() };
        let other = Target { only: vec!["GET /v1/models".to_owned()], ..target() };
        gate.turn(lease, Target { fence: Some(fence.clone()), ..target() }).unwrap();
        allow(400);
        gate.turn(lease, Target { fence: Some(fence.clone()), ..target() }).unwrap();
        assert!(matches!(gate.fence(lease, call, at(500)), Ok((Step::Through, _))), "the same list");
        gate.turn(lease, Target { fence: Some(fence), ..other.clone() }).unwrap();
        allow(600);
        gate.turn(lease, other).unwrap();
        allow(700);
    }

    #[tokio::test]
    async fn events_about_calls_come_once_a_second_and_the_last_one_tells_all() {
        let (log, _folder) = log("events").await;
        let gate = Gate::new(1);
        gate.log(Some(log));
        let (lease, _) = open(&gate, 1);
        let call = began(lease, Caller::Unknown, "/v1/messages");
        gate.began(&call, at(0)).unwrap();
        assert_eq!(gate.take(at(100)).events[0]["uses"], 1);
        gate.began(&call, at(200)).unwrap();
        assert!(gate.take(at(300)).events.is_empty());
        assert_eq!(gate.waits(at(300).boot), Some(Duration::from_millis(800)));
        assert_eq!(gate.take(at(1100)).events[0]["uses"], 2);
        assert_eq!(gate.waits(at(1100).boot), None);
    }
}
