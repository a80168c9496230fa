//! Runs: from the request to the end of the process, with what each holds.

use crate::broker::{Broker, Open, State, StoredProfile, Vault, entry, entry_of, facts};
use crate::fence;
use crate::files::SdkFiles;
use crate::gate::{self, Count, Holder, Opening};
use crate::grants::{ended as ended_grants, forget, row, take};
use crate::launchers::{Found, StoredLauncher};
use crate::operator::{is_person, word};
use crate::peer::Peer;
use crate::platform::{self, Exit, Watch, now};
use crate::program;
use crate::renew::{Cached, in_files};
use crate::vault::live_rows;
use crate::want::{self, Ground, Want, want_run, want_token};
use keyward_api::{
    DeliveredMsg, LeaseMsg, LostRun, OutlookMsg, PlanMsg, Proof, RevokeAnswer, RevokeRequest, RunAnswer, RunMsg,
    RunRequest, SetVariable, TokenAnswer, TokenRequest, UnsetVariable, WeakerMsg,
};
use keyward_core::audit::{Draft, Kind, Outcome};
use keyward_core::{
    Announcer, Asking, Boot, Counted, Credential, DeliveryMode, FileId, FileState, Form, Grant, GrantId, Keys, Lease,
    LeaseEnd, LeaseState, Mark, Name, Now, Plan, PlannedDelivery, ProcessId, Profile, Prospects, Role, Schedule, Wall,
    Wanted, Way, google_adc, interpreter, outlook, plan,
};
use keyward_diag::{Code, Fault};
use keyward_gateway::RunToken;
use keyward_secret::{SecretBytes, SecretText};
use keyward_store::{Changes, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Variables that a request may name.
const VARIABLES_MAX: usize = 4096;
/// Profiles of one run.
const PROFILES_MAX: usize = 16;
/// How long the file system of a program may take.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// Longest path of a program or project, in bytes: an entry with it must fit into the log whatever it holds.
const PATH_MAX_BYTES: usize = 2048;
/// How long entries about a run wait for the next one.
const GATHER: Duration = Duration::from_millis(50);
/// Live runs.
const RUNS_MAX: usize = 1000;
/// Those of them that hold what a run around them holds, which no person was asked about.
const NESTED_MAX: usize = 500;

/// Where the vault keeps the highest mark of the runs.
const MARK: &str = "runs.mark";

/// Id of a run (UUIDv7, RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId(pub(crate) Uuid);

/// Id of a lease (UUIDv7, RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseId(Uuid);

impl LeaseId {
    /// The number, as the gateway knows the lease.
    pub(crate) fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) process: ProcessId,
    pub(crate) app: String,
    pub(crate) app_verified: bool,
    /// The file that the process must have as its executable after exec.
    executable: Option<FileId>,
    /// When that file was changed last. `None` where a row does not say it.
    executable_changed: Option<i64>,
    /// Those of the program that asked, which the process still is before exec. Not kept over a crash.
    asked_by: Option<FileState>,
    /// What its program bears at most. `None` where a row does not say it.
    mark: Option<Mark>,
    pub(crate) project: String,
    /// Launcher that it was started from.
    launcher: Option<String>,
    pub(crate) started: Now,
    /// Connection on which the run was asked for.
    connection: u64,
    /// That connection closed, so the process has become its program (or has ended).
    exec_seen: bool,
    /// How it ended, while that is not recorded yet.
    pub(crate) ended: Option<Ended>,
    /// The program could not be executed.
    aborted: bool,
    /// Keyed digest of the arguments that the process must have after exec, where a grant names the script among them. Not
    /// kept over a crash.
    script: Option<[u8; 32]>,
    /// The program is the one that was named and no script or interpreter, which may go on to another one before anybody
    /// looks. Not kept over a crash.
    lasting: bool,
    /// Entries that wait for the next one of this run, or for [`GATHER`]: they record what has happened, so nothing waits
    /// for them, and a short run costs two commits instead of four.
    pending: Vec<Draft>,
    pub(crate) leases: Vec<HeldLease>,
}

/// A lease with where it went.
pub(crate) struct HeldLease {
    pub(crate) id: LeaseId,
    pub(crate) profile: Name,
    pub(crate) lease: Lease,
    pub(crate) variables: Vec<String>,
    /// What a file delivery consists of.
    pub(crate) form: Form,
    /// What a gateway delivery consists of.
    pub(crate) gateway: Option<Gated>,
    /// Why the last renewal failed; none since one succeeded.
    pub(crate) failure: Option<Fault>,
    /// Grant under which it was made: it ends no later than that.
    pub(crate) grant: Option<GrantId>,
    /// Lease of the run around under which it was made: it ends with that.
    under: Option<LeaseId>,
}

/// A lease at the gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gated {
    token: RunToken,
    /// Port that the run was given.
    port: u16,
    /// Calls so far, as far as they are recorded.
    uses: u64,
    last_use: Option<Wall>,
    /// What it has used of its fence, if it has one.
    counted: Option<Counted>,
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    exit: Option<Exit>,
    at: Now,
    /// Nothing more will be learnt about it.
    settled: bool,
}

/// The row of a run in the vault: what a broker needs to take a run up again after a crash. Times are microseconds on the
/// clock that counts from boot, valid within the boot named.
#[derive(Serialize, Deserialize)]
struct RunRow {
    pid: u32,
    start: u64,
    boot: String,
    app: String,
    app_verified: bool,
    executable: Option<FileId>,
    #[serde(default)]
    executable_changed: Option<i64>,
    #[serde(default)]
    mark: Option<u64>,
    /// The start of the program is in the log.
    start_recorded: bool,
    project: String,
    #[serde(default)]
    launcher: Option<String>,
    started_boot_us: u64,
    started_wall_us: i64,
    leases: Vec<LeaseRow>,
}

#[derive(Serialize, Deserialize)]
struct LeaseRow {
    id: Uuid,
    profile: String,
    file: bool,
    live: bool,
    issued_us: u64,
    until_us: u64,
    received_us: u64,
    life_us: Option<u64>,
    renewals: u64,
    variables: Vec<String>,
    /// The file delivery is the folder that SDKs read.
    #[serde(default)]
    sdk_files: bool,
    /// When it ended, if it is not live.
    #[serde(default)]
    ended_us: Option<u64>,
    #[serde(default)]
    gateway: Option<GatewayRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct GatewayRow {
    /// Digest of the run token, in hex.
    token: String,
    port: u16,
    uses: u64,
    last_use_us: Option<i64>,
    /// There is a file with the token, as Google's clients read it.
    adc: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<Counted>,
}

/// The highest mark that a run was given in a boot: kept by itself, since processes of a run outlive its row.
#[derive(Serialize, Deserialize)]
struct MarkRow {
    boot: String,
    mark: u64,
}

fn mark_row(mark: Mark) -> Write {
    let row = MarkRow { boot: platform::boot_id().unwrap_or_default(), mark: mark.0 };
    Write::PutMeta(MARK.to_owned(), serde_json::to_vec(&row).unwrap_or_default())
}

fn micros(at: Boot) -> u64 {
    u64::try_from(at.0.as_micros()).unwrap_or(u64::MAX)
}

fn boot(us: u64) -> Boot {
    Boot(Duration::from_micros(us))
}

impl GatewayRow {
    fn gated(&self) -> Option<Gated> {
        let token = RunToken(hex::decode(&self.token).ok()?.try_into().ok()?);
        let (last_use, counted) = (self.last_use_us.map(Wall), self.counted);
        Some(Gated { token, port: self.port, uses: self.uses, last_use, counted })
    }
}

impl Run {
    /// The run as a change of the vault.
    pub(crate) fn row(&self) -> Write {
        let leases = self.leases.iter().map(|held| LeaseRow {
            id: held.id.0,
            profile: held.profile.to_string(),
            file: held.lease.mode == DeliveryMode::File,
            live: held.lease.is_live(),
            issued_us: micros(held.lease.issued),
            until_us: micros(held.lease.until),
            received_us: micros(held.lease.credential.received()),
            life_us: held.lease.credential.ends().map(|e| micros(e) - micros(held.lease.credential.received())),
            renewals: held.lease.renewals,
            variables: held.variables.clone(),
            sdk_files: held.form == Form::SdkFiles,
            ended_us: held.lease.ended.map(micros),
            gateway: held.gateway.map(|gated| GatewayRow {
                token: hex::encode(gated.token.0),
                port: gated.port,
                uses: gated.uses,
                last_use_us: gated.last_use.map(|at| at.0),
                adc: held.form == Form::GoogleAdc,
                counted: gated.counted,
            }),
            grant: held.grant.map(|grant| grant.to_string()),
            under: held.under.map(LeaseId::uuid),
        });
        let row = RunRow {
            pid: self.process.pid,
            start: self.process.start,
            boot: platform::boot_id().unwrap_or_default(),
            app: self.app.clone(),
            app_verified: self.app_verified,
            executable: self.executable,
            executable_changed: self.executable_changed,
            mark: self.mark.map(|mark| mark.0),
            // What waits is written together with this row.
            start_recorded: self.exec_seen,
            project: self.project.clone(),
            launcher: self.launcher.clone(),
            started_boot_us: micros(self.started.boot),
            started_wall_us: self.started.wall.0,
            leases: leases.collect(),
        };
        let body = serde_json::to_string(&row).unwrap_or_default();
        Write::PutRun(keyward_store::Run { id: *self.id.0.as_bytes(), body })
    }

    fn from_row(row: &keyward_store::Run) -> Option<(Self, String)> {
        let body: RunRow = serde_json::from_str(&row.body).ok()?;
        let leases = body.leases.into_iter().map(|l| {
            let gateway = match &l.gateway {
                Some(row) => Some(row.gated()?),
                None => None,
            };
            let mode = match (&gateway, l.file) {
                (Some(_), _) => DeliveryMode::Gateway,
                (None, true) => DeliveryMode::File,
                (None, false) => DeliveryMode::Env,
            };
            let credential = Schedule::new(boot(l.received_us), l.life_us.map(Duration::from_micros));
            let mut lease =
                Lease::issue(mode, credential, boot(l.until_us).since(boot(l.issued_us)), boot(l.issued_us));
            lease.renewals = l.renewals;
            if !l.live {
                let ended = l.ended_us.map_or_else(|| lease.ends(), boot);
                lease.end(LeaseEnd::Revoked, ended);
            }
            let form = match &l.gateway {
                Some(row) if row.adc => Form::GoogleAdc,
                _ if l.sdk_files => Form::SdkFiles,
                _ => Form::Bytes,
            };
            let profile = Name::parse(&l.profile).ok()?;
            let (variables, grant) = (l.variables, l.grant.as_deref().and_then(GrantId::parse));
            let (id, under) = (LeaseId(l.id), l.under.map(LeaseId));
            Some(HeldLease { id, profile, lease, variables, form, gateway, failure: None, grant, under })
        });
        let run = Self {
            id: RunId(Uuid::from_bytes(row.id)),
            process: ProcessId { pid: body.pid, start: body.start },
            app: body.app,
            app_verified: body.app_verified,
            executable: body.executable,
            executable_changed: body.executable_changed,
            asked_by: None,
            mark: body.mark.map(Mark),
            connection: 0,
            project: body.project,
            launcher: body.launcher,
            started: Now { boot: boot(body.started_boot_us), wall: Wall(body.started_wall_us) },
            exec_seen: body.start_recorded,
            ended: None,
            aborted: false,
            script: None,
            lasting: false,
            pending: Vec::new(),
            leases: leases.collect::<Option<Vec<_>>>()?,
        };
        Some((run, body.boot))
    }

    /// Launcher that it was started from.
    pub(crate) fn launcher(&self) -> Option<&str> {
        self.launcher.as_deref()
    }

    /// Whether the program that was seen is the one that was decided for, and nobody has written to its file since.
    fn becomes(&self, seen: Option<FileState>) -> bool {
        seen.is_some_and(|(device, inode, changed)| {
            self.executable == Some((device, inode)) && self.executable_changed.is_none_or(|known| known == changed)
        })
    }

    /// The places of the leases that hold something.
    pub(crate) fn live(&self) -> Vec<usize> {
        self.leases.iter().enumerate().filter(|(_, held)| held.lease.is_live()).map(|(n, _)| n).collect()
    }

    fn draft(&self, kind: Kind, now: Now) -> Draft {
        entry(kind, now).run(self.id.to_string()).app(self.app.clone(), self.app_verified).project(self.project.clone())
    }

    /// Takes over how often a lease was used; says whether the run has it.
    pub(crate) fn count_uses(&mut self, count: Count) -> bool {
        let Count { lease, uses, last_use, counted, .. } = count;
        let gated = self.leases.iter_mut().find(|l| l.id.0 == lease).and_then(|l| l.gateway.as_mut());
        gated.map(|gated| (gated.uses, gated.last_use, gated.counted) = (uses, last_use, counted)).is_some()
    }

    /// A lease as the gateway takes it.
    fn opening(&self, held: &HeldLease, gated: Gated) -> Opening {
        let holder = Holder {
            run: self.id,
            app: self.app.clone(),
            app_verified: self.app_verified,
            project: self.project.clone(),
            lease: held.id.0,
            profile: held.profile.clone(),
        };
        let Gated { token, uses, last_use, counted, .. } = gated;
        Opening { holder, token, root: self.process, until: held.lease.until, uses, last_use, counted }
    }

    fn lost(&self, held: &[usize]) -> LostRun {
        let leases = held.iter().filter_map(|n| self.leases.get(*n));
        let remains = leases.clone().filter_map(remains);
        LostRun {
            run: self.id.to_string(),
            app: self.app.clone(),
            pid: self.process.pid,
            profiles: leases.map(|l| l.profile.to_string()).collect(),
            remains: remains.collect(),
        }
    }

    fn message(&self, state: &State, now: Now) -> RunMsg {
        RunMsg {
            run: self.id.to_string(),
            pid: self.process.pid,
            app: self.app.clone(),
            app_verified: self.app_verified,
            project: self.project.clone(),
            started_at: self.started.wall.to_rfc3339(),
            launcher: self.launcher.clone(),
            leases: self.leases.iter().map(|l| l.message(state, now)).collect(),
        }
    }
}

impl HeldLease {
    fn message(&self, state: &State, now: Now) -> LeaseMsg {
        let shown = |at: Boot| now.wall_at(at).to_rfc3339();
        let next = outlook(&self.lease, &state.prospects(self), now.boot);
        LeaseMsg {
            lease: self.id.to_string(),
            profile: self.profile.to_string(),
            delivery: wire_mode(self.lease.mode),
            state: self.lease.state.word().to_owned(),
            issued_at: shown(self.lease.issued),
            expires_at: shown(self.lease.ends()),
            renewals: self.lease.renewals,
            // Neither a variable nor a file shows who reads it.
            uses: self.gateway.map(|gated| gated.uses),
            last_use_at: self.gateway.and_then(|gated| gated.last_use).map(Wall::to_rfc3339),
            received_at: shown(self.lease.credential.received()),
            renew_at: self.lease.renew_at().map(shown),
            limit_at: shown(self.lease.until),
            outlook: OutlookMsg {
                kind: match next.way {
                    Way::Renews => keyward_api::Outlook::Renews,
                    Way::Ends => keyward_api::Outlook::Ends,
                    Way::Fails => keyward_api::Outlook::Fails,
                    Way::Lapsed => keyward_api::Outlook::Lapsed,
                },
                at: shown(next.at),
                why: next.why,
                code: next.code.map(|code| code.name().to_owned()),
                next_try_at: next.next_try.map(shown),
            },
        }
    }
}

impl State {
    /// What the future of a lease depends on.
    fn prospects<'s>(&'s self, held: &'s HeldLease) -> Prospects<'s> {
        Prospects {
            keys: match &self.vault {
                Vault::Open(open) if open.seal.is_some() => Keys::All,
                Vault::Open(_) => Keys::Log,
                Vault::Locked => Keys::None,
            },
            log_broken: self.vault.opened().is_some_and(|open| open.store.is_broken()),
            asking: self.cache.get(&held.profile).map_or(Asking::Never, |c| c.asking(in_files(self, &held.profile))),
            failure: held.failure.as_ref(),
        }
    }
}

/// What cannot be taken back of a lease, in words.
fn remains(held: &HeldLease) -> Option<String> {
    let name = &held.profile;
    match (held.lease.mode, held.lease.credential.ends()) {
        (DeliveryMode::Env, None) => {
            Some(format!("`{name}` stays in the environment of the process and does not end by itself"))
        }
        (DeliveryMode::Env, Some(_)) => {
            Some(format!("`{name}` stays in the environment of the process until it ends by itself"))
        }
        (DeliveryMode::File, None) => {
            Some(format!("what was read of `{name}` from its file before stays good and does not end by itself"))
        }
        (DeliveryMode::File, Some(_)) => {
            Some(format!("what was read of `{name}` from its file before stays good until it ends by itself"))
        }
        (DeliveryMode::Gateway, _) => None,
    }
}

/// The wire's word for a delivery.
pub(crate) fn wire_mode(mode: DeliveryMode) -> keyward_api::DeliveryMode {
    match mode {
        DeliveryMode::Env => keyward_api::DeliveryMode::Env,
        DeliveryMode::File => keyward_api::DeliveryMode::File,
        DeliveryMode::Gateway => keyward_api::DeliveryMode::Gateway,
    }
}

/// The delivery that the wire names.
pub(crate) fn core_mode(mode: keyward_api::DeliveryMode) -> DeliveryMode {
    match mode {
        keyward_api::DeliveryMode::Env => DeliveryMode::Env,
        keyward_api::DeliveryMode::File => DeliveryMode::File,
        keyward_api::DeliveryMode::Gateway => DeliveryMode::Gateway,
    }
}

/// A run that was asked for, with what was seen of it.
struct Start {
    request: RunRequest,
    program: program::Program,
    /// Launcher that it is.
    found: Option<Found>,
    planned: Plan,
    right: Right,
}

/// By what right something is delivered.
enum Right {
    /// A person stands behind the peer, or it is a run that holds it already: the word for it.
    Person(&'static str),
    /// Live grants, or the announcement of an operator.
    Granted(Box<Want>),
}

/// A credential that was obtained for one of the planned deliveries.
pub(crate) type Obtained = (Arc<Credential>, Schedule);

/// How often a request is taken up again whose grant went to another one meanwhile.
const ATTEMPTS: usize = 3;

impl Broker {
    /// Decides and prepares a run: plans, asks a person where nothing allows it, obtains, records, delivers. The caller becomes
    /// the program afterwards.
    pub(crate) async fn run_start(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        role: Role<RunId>,
        mut request: RunRequest,
    ) -> Result<RunAnswer, Fault> {
        check(&request)?;
        let (proof, assertions) = (request.proof.take(), std::mem::take(&mut request.assertions));
        if matches!(role, Role::InsideRun(_)) && (request.dry_run || !assertions.is_empty()) {
            let cause = "the request comes from inside a run, which sees no plan and supplies no assertion";
            return Err(Fault::new(Code::PolicyDenied).cause(cause));
        }
        let program = look(&request).await?;
        let present: BTreeSet<String> = request.variables.iter().cloned().collect();
        let own;
        let (names, planned, file) = {
            let mut state = self.state_for_request().await?;
            let now = now();
            own = held_by(&state, role);
            let open = self.delivering(&mut state)?;
            if is_person(role) && !request.dry_run {
                open.last_action = now.boot;
            }
            // A run does not learn which profiles there are.
            let inside = matches!(role, Role::InsideRun(_));
            let bare = |fault: Fault| if inside { Fault::new(fault.code) } else { fault };
            let file = self.project_ask(open, peer, role, &request).await.map_err(bare)?;
            let asked = file.as_ref().map(|file| file.profiles.iter().map(Name::to_string).collect::<Vec<_>>());
            let named = asked.as_deref().unwrap_or(&request.profiles);
            let names = chosen(open, named).map_err(bare)?;
            let profiles = names.iter().filter_map(|n| open.profiles.get(n)).map(|p| p.profile.clone()).collect();
            let ttl = request.ttl_s.map(Duration::from_secs);
            let wanted = Wanted {
                program: &request.command.path,
                deliver: request.deliver.map(core_mode),
                ttl,
                present: &present,
                gateway: &self.gate.address(),
            };
            let planned = plan(profiles, &wanted, &self.families, &self.tools);
            (names.clone(), planned.map_err(|fault| untold(own.as_ref(), &names, fault))?, file)
        };
        let found = match &request.launcher {
            Some(launcher) => {
                let found = self.launcher_of(peer, launcher, &request.command, &names, program.file).await;
                Some(found.map_err(|fault| untold(own.as_ref(), &names, fault))?)
            }
            None => None,
        };
        let project = file.as_ref().map(|file| file.message(request.dry_run));
        let told = |planned: &Plan| RunAnswer { project: project.clone(), ..answer(planned) };
        if request.dry_run {
            return Ok(told(&planned));
        }
        let unattended = request.unattended && proof.is_none() && planned.deliveries.iter().any(|d| d.profile.confirm);
        let right = if is_person(role) && !unattended {
            self.confirmed(planned.deliveries.iter().map(|d| &d.profile), proof).await?;
            Right::Person(word(role))
        } else {
            Right::Granted(Box::new(want_run(peer, role, &request, &program, found.as_ref(), &planned, file).await?))
        };
        let wait = request.wait;
        let mut start = Start { request, program, found, planned, right };
        let mut assertions = Some(assertions);
        for _ in 0..ATTEMPTS {
            if let Right::Granted(want) = &mut start.right {
                self.permit(peer, role, want, wait).await?;
            }
            // Nobody chooses by which assertion a credential is made whom nothing allows to have it.
            self.supply(assertions.take().unwrap_or_default()).await?;
            let mut obtained = Vec::with_capacity(start.planned.deliveries.len());
            for delivery in &start.planned.deliveries {
                let credential = self.obtain(&delivery.profile.name).await?;
                if delivery.hand_over.mode == DeliveryMode::Env {
                    credential_text(&credential.0)?;
                }
                obtained.push(credential);
            }
            match self.deliver(peer, &start, obtained, told(&start.planned)).await {
                Err(fault) if fault.code == Code::ApprovalNeeded => {}
                delivered => return delivered,
            }
        }
        Err(Fault::new(Code::Busy).cause("others were quicker to use what was granted"))
    }

    /// Asks for the passphrase where a profile does so at each use.
    async fn confirmed(&self, mut profiles: impl Iterator<Item = &Profile>, proof: Option<Proof>) -> Result<(), Fault> {
        let Some(profile) = profiles.find(|profile| profile.confirm) else { return Ok(()) };
        let cause = || format!("`{}` asks for the passphrase at each use", profile.name);
        let proof = proof.ok_or_else(|| Fault::new(Code::PassphraseNeeded).cause(cause()))?;
        self.prove(proof).await.map(drop)
    }

    async fn deliver(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        start: &Start,
        mut obtained: Vec<Obtained>,
        mut answer: RunAnswer,
    ) -> Result<RunAnswer, Fault> {
        let Start { request, program, found, planned, right } = start;
        let pidfd = peer.pidfd().map_err(|e| Fault::new(Code::PeerRefused).cause(e))?;
        let mut state = self.state_for_request().await?;
        let now = now();
        if !peer.is_alive() {
            return Err(Fault::new(Code::RunGone).cause("the process has ended"));
        }
        let bears = peer.mark().ok_or_else(|| Fault::new(Code::PeerRefused).cause("its limits cannot be read"))?;
        let mark = bears.of_run();
        if state.runs.values().any(|r| r.process == peer.process() && r.ended.is_none()) {
            return Err(Fault::new(Code::PolicyDenied).cause("the process is the root of a run already"));
        }
        if state.runs.len() >= RUNS_MAX {
            return Err(Fault::new(Code::Busy).cause(format!("there are {RUNS_MAX} live runs")));
        }
        let open = self.delivering(&mut state)?;
        let unchanged = planned
            .deliveries
            .iter()
            .all(|d| open.profiles.get(&d.profile.name).is_some_and(|p| p.profile.to_toml() == d.profile.to_toml()));
        if !unchanged {
            return Err(Fault::new(Code::RunGone).cause("a profile was changed meanwhile"));
        }
        for (delivery, obtained) in planned.deliveries.iter().zip(&mut obtained) {
            // It may have been renewed meanwhile, and this run was not there to be given the next one.
            if keyward_issuer::find(delivery.profile.kind.kind).is_some_and(|issuer| issuer.exchanges()) {
                let current = state.cache.get(&delivery.profile.name).and_then(Cached::credential);
                *obtained = current.ok_or_else(|| {
                    Fault::new(Code::RunGone).cause("a profile, or a secret of it, was changed meanwhile")
                })?;
            }
        }
        let launched = found.as_ref().map(|f| self.delivering(&mut state)?.launched(f, now.wall)).transpose()?;
        let (by, grounds) = self.by_right(&mut state, right, now)?;
        let nested = |run: &&Run| run.ended.is_none() && run.leases.iter().any(|held| held.under.is_some());
        if grounds.iter().any(|ground| ground.grant().is_none())
            && state.runs.values().filter(nested).count() >= NESTED_MAX
        {
            return Err(Fault::new(Code::Busy).cause(format!("there are {NESTED_MAX} live runs inside of runs")));
        }
        let grants: Vec<GrantId> = grounds.iter().filter_map(|ground| ground.grant()).collect();
        let parents = peer.parents()?;
        let expected = found.as_ref().and_then(|f| state.expected.take(&f.launch, parents, now.boot));
        let known = state.mark;
        let open = self.delivering(&mut state)?;
        let mut run = Run {
            id: RunId(Uuid::now_v7()),
            process: peer.process(),
            app: found.as_ref().map_or_else(|| program.app.clone(), |f| f.name.clone()),
            app_verified: false,
            executable: program.executable.map(|(device, inode, _)| (device, inode)),
            executable_changed: program.executable.map(|(.., changed)| changed),
            asked_by: platform::executable(peer.process().pid),
            mark: Some(mark),
            connection: peer.connection(),
            project: request.command.project.clone(),
            launcher: found.as_ref().map(|f| f.name.clone()),
            started: now,
            exec_seen: false,
            ended: None,
            aborted: false,
            script: None,
            lasting: false,
            pending: Vec::new(),
            leases: Vec::new(),
        };
        run.lasting = run.executable == Some(program.file) && !interpreter(&request.command.path);
        if let Right::Granted(want) = right
            && want.program.script.is_some()
        {
            let args = planned.deliveries.iter().flat_map(|d| &d.hand_over.args).chain(&request.command.args);
            run.script = Some(open.store.args_digest(&args.collect::<Vec<_>>()));
        }
        let mut tokens = Vec::with_capacity(obtained.len());
        for (n, (delivery, (_, schedule))) in planned.deliveries.iter().zip(&obtained).enumerate() {
            let ground = grounds.get(n).copied();
            let grant = ground.and_then(Ground::grant).and_then(|id| open.grants.get(id));
            let (ttl, under) = match (ground, grant) {
                (Some(Ground::Held(id, last)), _) => (delivery.ttl.min(last.since(now.boot)), Some(id)),
                (_, Some(grant)) => (grant.lease_life(delivery.ttl, now.boot), None),
                (_, None) => (delivery.ttl, None),
            };
            let made = match delivery.hand_over.mode {
                DeliveryMode::Gateway => Some(gate::make_token()?),
                DeliveryMode::Env | DeliveryMode::File => None,
            };
            let (text, token) = made.unzip();
            tokens.push(text);
            run.leases.push(HeldLease {
                id: LeaseId(Uuid::now_v7()),
                profile: delivery.profile.name.clone(),
                lease: Lease::issue(delivery.hand_over.mode, *schedule, ttl, now.boot),
                variables: delivery.hand_over.carriers.iter().cloned().collect(),
                form: delivery.hand_over.form,
                gateway: token.map(|token| Gated {
                    token,
                    port: self.gate.port(),
                    uses: 0,
                    last_use: None,
                    counted: None,
                }),
                failure: None,
                grant: grant.map(|grant| grant.id),
                under,
            });
        }
        let digest = hex::encode(open.store.args_digest(&request.command.args));
        let outer = if let Right::Granted(want) = right { want.outer } else { None };
        let entries = start_entries(&run, planned, request, &digest, (peer, by, expected, outer), now);
        let mut writes: Vec<Write> =
            [run.row()].into_iter().chain(launched.as_ref().map(StoredLauncher::row)).collect();
        let taken = take(open, &grants, Some(run.id), now);
        writes.extend(taken.after.iter().map(row));
        let higher = known.is_none_or(|known| known < mark);
        writes.extend(higher.then(|| mark_row(mark)));
        keyward_store::fault("deliver.before");
        if let Err(fault) = open.record_delivery(self, writes, entries).await {
            taken.undo(open);
            return Err(fault);
        }
        keyward_store::fault("deliver.after");
        self.tell_grants(&taken.after);
        if let (Some(launched), Some(found)) = (launched, found) {
            open.put_launcher(launched);
            self.events.publish("launcher", &json!({"name": found.name, "state": "launched"}));
        }

        let parts = run.leases.iter().zip(&planned.deliveries).zip(obtained.iter().zip(tokens));
        for ((held, delivery), (obtained, token)) in parts {
            let set = self.hand_over(&run, held, delivery, obtained, token, now);
            match set {
                Ok(variables) => answer.set.extend(variables),
                Err(fault) => {
                    self.undo(open, run, &fault, now).await;
                    return Err(fault);
                }
            }
            answer.delivered.push(DeliveredMsg {
                lease: held.id.to_string(),
                profile: held.profile.to_string(),
                delivery: wire_mode(held.lease.mode),
                variables: held.variables.clone(),
                expires_at: now.wall_at(held.lease.ends()).to_rfc3339(),
            });
        }
        answer.run = Some(run.id.to_string());
        self.connections.close_all_of(peer.process().pid, Some(peer.connection()));
        self.connections.run_began(peer.process());
        self.events.publish("run", &json!({"run": run.id.to_string(), "state": "starting"}));
        self.watch(run.id, pidfd);
        state.mark = state.mark.max(run.mark);
        state.runs.insert(run.id, run);
        self.wake.notify_one();
        Ok(answer)
    }

    /// By what right a delivery is made at this moment: the word for it, and what allows each of it where that was asked.
    ///
    /// # Errors
    /// [`Code::ApprovalNeeded`] when what was found is not there any more.
    fn by_right(&self, state: &mut State, right: &Right, now: Now) -> Result<(&'static str, Vec<Ground>), Fault> {
        let want = match right {
            Right::Person(by) => return Ok((by, Vec::new())),
            Right::Granted(want) => want,
        };
        if self.launched_by_operator(state, want, now) {
            return Ok(("launch", Vec::new()));
        }
        self.delivering(state)?;
        let grounds = want.grounds(state, now).into_iter().collect::<Option<Vec<_>>>();
        let grounds = grounds.ok_or(Fault::new(Code::ApprovalNeeded))?;
        let by = if grounds.iter().any(|ground| ground.grant().is_some()) { "grant" } else { "run" };
        Ok((by, grounds))
    }

    /// Tells watching clients that grants were used.
    fn tell_grants(&self, taken: &[Grant<RunId>]) {
        for grant in taken {
            self.events.publish("grant", &json!({"id": grant.id.to_string(), "state": "used"}));
        }
    }

    /// Lets the calls of a lease through the gateway, once the program was seen; gives the content of the variables that carry
    /// the run token. No variable and no file holds the credential.
    fn open_gate(
        &self,
        run: &Run,
        held: &HeldLease,
        delivery: &PlannedDelivery,
        (credential, schedule): &Obtained,
        token: Option<SecretText>,
    ) -> Result<SecretText, Fault> {
        let internal = |e: &dyn fmt::Display| Fault::new(Code::Internal).cause(e);
        let target = delivery.profile.gateway.clone().ok_or_else(|| internal(&"the profile has no gateway"))?;
        let gated = held.gateway.zip(token).ok_or_else(|| internal(&"the lease has no token"));
        let (gated, token) = gated?;
        self.gate.open(run.opening(held, gated), target)?;
        self.gate.keep(&held.profile, credential, *schedule);
        if delivery.hand_over.form != Form::GoogleAdc {
            return Ok(token);
        }
        let (deliveries, id) = (self.deliveries()?, held.id.to_string());
        let path = deliveries.path(run.process, &id).display().to_string();
        let file = google_adc(&self.gate.address(), &path, &token).map_err(|e| internal(&e))?;
        deliveries.write(run.process, &id, &file)?;
        SecretText::new(path).map_err(|e| internal(&e))
    }

    /// Writes the files of a lease, lets its calls through the gateway, or gives the variables that hold the credential itself.
    fn hand_over(
        &self,
        run: &Run,
        held: &HeldLease,
        delivery: &PlannedDelivery,
        obtained: &Obtained,
        token: Option<SecretText>,
        now: Now,
    ) -> Result<Vec<SetVariable>, Fault> {
        let text = |text: String| SecretText::new(text).map_err(|e| Fault::new(Code::Internal).cause(e));
        let texts: Result<Vec<SecretText>, Fault> = match held.lease.mode {
            DeliveryMode::Env => held.variables.iter().map(|_| credential_text(&obtained.0)).collect(),
            DeliveryMode::File => {
                self.write_files(run.process, held, &delivery.profile, obtained, now)?;
                let path = self.deliveries()?.path(run.process, &held.id.to_string()).display().to_string();
                held.variables.iter().map(|_| text(path.clone())).collect()
            }
            DeliveryMode::Gateway => {
                let carried = self.open_gate(run, held, delivery, obtained, token)?;
                // EXPOSE: each variable of the child that carries it has a copy.
                held.variables.iter().map(|_| text(carried.expose(str::to_owned))).collect()
            }
        };
        let carriers = held.variables.iter().zip(texts?).map(|(name, secret)| Ok((name.clone(), secret)));
        let plain = delivery.hand_over.plain.iter().map(|(name, content)| Ok((name.clone(), text(content.clone())?)));
        carriers.chain(plain).map(|pair| pair.map(|(name, secret)| SetVariable { name, secret })).collect()
    }

    /// Writes or replaces the files of a lease.
    pub(crate) fn write_files(
        &self,
        process: ProcessId,
        held: &HeldLease,
        profile: &Profile,
        (credential, schedule): &Obtained,
        now: Now,
    ) -> Result<(), Fault> {
        let (deliveries, id) = (self.deliveries()?, held.id.to_string());
        match held.form {
            Form::Bytes => deliveries.write(process, &id, &credential.token),
            Form::SdkFiles => {
                let ends = schedule.ends().map(|at| now.wall_at(at));
                let files = SdkFiles { token: &credential.token, ends, endpoint: profile.endpoint() };
                deliveries.write_sdk(process, &id, &files)
            }
            // It holds the run token, which stays the same.
            Form::GoogleAdc => Ok(()),
        }
    }

    /// Takes a run back that was recorded but could not be delivered.
    async fn undo(&self, open: &mut Open, mut run: Run, fault: &Fault, now: Now) {
        let mut entries: Vec<Draft> =
            run.live().into_iter().map(|n| self.take_back(&mut run, n, LeaseEnd::Released, now)).collect();
        let draft = run.draft(Kind::RunEnded, now).outcome(Outcome::Failed).detail("code", fault.code.name());
        entries.push(draft);
        self.remove_files(&run);
        let grants = open.grants.of_run(run.id);
        let mut over = ended_grants(open, &grants, Kind::GrantExpired, "the run was not delivered to", now);
        over.writes.push(Write::RemoveRun(*run.id.0.as_bytes()));
        entries.extend(over.entries);
        forget(open, &grants);
        if let Err(e) = open.commit(self, over.writes, entries).await {
            tracing::error!(run = %run.id, code = %e.code, "a failed delivery could not be recorded");
        }
    }

    /// Ends a lease that was live and removes its file; gives the entry that records it. Ends it also when `end` found it
    /// over already, as expiry does.
    pub(crate) fn take_back(&self, run: &mut Run, n: usize, why: LeaseEnd, now: Now) -> Draft {
        let process = run.process;
        let kind = match why {
            LeaseEnd::Expired => Kind::LeaseExpired,
            LeaseEnd::Revoked => Kind::LeaseRevoked,
            LeaseEnd::Released => Kind::LeaseReleased,
        };
        let mut draft = run.draft(kind, now);
        let Some(held) = run.leases.get_mut(n) else { return draft };
        held.lease.end(why, now.boot);
        draft =
            draft.lease(held.id.to_string()).profile(held.profile.as_str()).detail("delivery", held.lease.mode.word());
        if held.gateway.is_some() {
            let ended = match why {
                LeaseEnd::Expired => keyward_gateway::Ended::Expired,
                LeaseEnd::Revoked => keyward_gateway::Ended::Revoked,
                LeaseEnd::Released => keyward_gateway::Ended::Released,
            };
            self.gate.end(held.id.0, ended);
        }
        if held.lease.mode == DeliveryMode::File || held.form == Form::GoogleAdc {
            let gone = self.deliveries().is_ok_and(|d| d.remove(process, &held.id.to_string()));
            draft = draft.detail("file_removed", gone);
        }
        // With the process its environment is gone.
        if why != LeaseEnd::Released
            && let Some(text) = remains(held)
        {
            draft = draft.detail("remains", text);
        }
        draft
    }

    /// Removes the file of a lease whose credential has ended; gives the entry that records it.
    pub(crate) fn lapse(&self, run: &Run, n: usize, now: Now) -> Draft {
        let draft = run.draft(Kind::LeaseLapsed, now);
        let Some(held) = run.leases.get(n) else { return draft };
        let id = held.id.to_string();
        let gone = self.deliveries().is_ok_and(|d| d.remove(run.process, &id));
        draft.lease(id).profile(held.profile.as_str()).detail("file_removed", gone)
    }

    fn remove_files(&self, run: &Run) {
        if let Ok(deliveries) = self.deliveries() {
            deliveries.remove_run(run.process);
        }
    }

    /// Watches the root process of a run until it ends.
    fn watch(self: &Arc<Self>, id: RunId, pidfd: OwnedFd) {
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            match Watch::new(pidfd) {
                Ok(watch) => {
                    watch.ended().await;
                    broker.run_over(id).await;
                    let mut exit = std::pin::pin!(watch.exit());
                    let exit = match tokio::time::timeout(GATHER, &mut exit).await {
                        Ok(exit) => exit,
                        Err(_) => {
                            broker.flush(id).await;
                            exit.await
                        }
                    };
                    broker.run_ended(id, exit).await;
                }
                Err(e) => {
                    tracing::error!(run = %id, error = %e, "a run cannot be watched");
                    broker.unwatched(id).await;
                }
            }
        });
    }

    /// The process has ended: what it held is taken back at once; how it ended is learnt later.
    async fn run_over(self: &Arc<Self>, id: RunId) {
        let mut state = self.state().await;
        let now = now();
        let Some(run) = state.runs.get_mut(&id) else { return };
        run.ended = Some(Ended { exit: None, at: now, settled: false });
        self.connections.run_over(run.process);
        if !run.exec_seen && !run.aborted {
            // It ended before anybody could look.
            note_start(run, platform::executable(run.process.pid), true, now);
        }
        let live = run.live();
        let entries: Vec<Draft> = live.into_iter().map(|n| self.take_back(run, n, LeaseEnd::Released, now)).collect();
        run.pending.extend(entries);
        self.remove_files(run);
        self.stop_asking(&mut state, id, now).await;
        self.end_nested(&mut state, now).await;
    }

    /// Takes back what was delivered inside of runs and is over with them.
    pub(crate) async fn end_nested(self: &Arc<Self>, state: &mut State, now: Now) {
        // As with any other revocation, what was taken back and could not be recorded is owed.
        if !Self::nested_over(state).is_empty()
            && let Err(e) = self.revoke_leases(state, &[], None, now, Changes::default()).await
        {
            tracing::error!(code = %e.code, "what ended with a run around it could not be recorded");
        }
    }

    /// The live leases whose lease in the run around is over, or whose grant is for a run around that is.
    fn nested_over(state: &State) -> Vec<(RunId, Vec<usize>)> {
        let live = || state.runs.values().filter(|run| run.ended.is_none());
        let is_live = |id| live().any(|run| run.leases.iter().any(|held| held.id == id && held.lease.is_live()));
        let around = |id| state.vault.opened()?.grants.get(id)?.run;
        let over = |run: &Run, held: &HeldLease| {
            let gone = |outer| outer != run.id && !live().any(|run| run.id == outer);
            held.under.is_some_and(|id| !is_live(id)) || held.grant.and_then(around).is_some_and(gone)
        };
        let held = |run: &Run| -> Vec<usize> {
            run.live().into_iter().filter(|n| run.leases.get(*n).is_some_and(|held| over(run, held))).collect()
        };
        let found = live().map(|run| (run.id, held(run)));
        found.filter(|(_, held)| !held.is_empty()).collect()
    }

    /// Records what waits about a run.
    async fn flush(&self, id: RunId) {
        let mut state = self.state().await;
        let (Some(open), runs, _) = state.parts() else { return };
        let Some(run) = runs.get_mut(&id).filter(|r| !r.pending.is_empty()) else { return };
        match open.commit(self, vec![run.row()], run.pending.clone()).await {
            Ok(()) => run.pending.clear(),
            Err(e) => tracing::error!(run = %id, code = %e.code, "what happened to a run could not be recorded"),
        }
    }

    async fn run_ended(self: &Arc<Self>, id: RunId, exit: Option<Exit>) {
        let mut state = self.state().await;
        let Some(run) = state.runs.get_mut(&id) else { return };
        run.ended = Some(Ended { exit, at: run.ended.map_or_else(now, |e| e.at), settled: true });
        let profiles = run.leases.iter().map(|held| held.profile.clone()).collect();
        self.write_uses(&mut state).await;
        self.end_at_issuers(&state, &profiles, false);
        self.record_ended(&mut state).await;
        self.events.publish("run", &json!({"run": id.to_string(), "state": "ended"}));
        self.wake.notify_one();
    }

    /// Records the ends of runs that are settled; without the vault, or on a full disk, they wait for another time.
    pub(crate) async fn record_ended(&self, state: &mut State) {
        let (Some(open), runs, _) = state.parts() else { return };
        let settled: Vec<RunId> = runs.values().filter(|r| r.ended.is_some_and(|e| e.settled)).map(|r| r.id).collect();
        for id in settled {
            let Some((run, ended)) = runs.get_mut(&id).and_then(|r| r.ended.map(|e| (r, e))) else { continue };
            let grants = open.grants.of_run(id);
            let mut over = ended_grants(open, &grants, Kind::GrantExpired, "the run has ended", ended.at);
            over.writes.push(Write::RemoveRun(*id.0.as_bytes()));
            let entries: Vec<Draft> = run.pending.iter().cloned().chain([ended_entry(run, ended)]).collect();
            match open.commit(self, over.writes, [entries, over.entries].concat()).await {
                Ok(()) => {
                    forget(open, &grants);
                    runs.remove(&id);
                }
                Err(e) => tracing::error!(run = %id, code = %e.code, "the end of a run could not be recorded"),
            }
        }
        let idle = open.seal.is_none() && runs.values().all(|r| r.ended.is_some());
        if idle {
            // After the auto-lock the last run was the only reason to keep the database open.
            self.close_vault(state).await;
        }
    }

    /// Takes the entries that wait about runs, to be recorded with others.
    pub(crate) fn take_pending(state: &mut State) -> Vec<Draft> {
        state.runs.values_mut().flat_map(|run| std::mem::take(&mut run.pending)).collect()
    }

    /// Whether something waits to be recorded.
    pub(crate) fn owes(state: &State) -> bool {
        !state.owed.entries.is_empty() || state.runs.values().any(|r| r.ended.is_some_and(|e| e.settled))
    }

    async fn unwatched(&self, id: RunId) {
        let mut state = self.state().await;
        let (open, runs, _) = state.parts();
        let (Some(open), Some(run)) = (open, runs.get(&id)) else { return };
        let draft = run.draft(Kind::RunUnwatched, now()).outcome(Outcome::Failed);
        if let Err(e) = open.commit(self, Vec::new(), vec![draft]).await {
            tracing::error!(run = %id, code = %e.code, "an unwatched run could not be recorded");
        }
    }

    /// A connection closed: a process that was about to become a program has done so, or has ended.
    pub(crate) async fn connection_closed(self: &Arc<Self>, peer: ProcessId, connection: u64) {
        let mut state = self.state().await;
        let now = now();
        self.stop_waiting(&mut state, connection, now).await;
        let found = state
            .runs
            .values()
            .find(|r| r.process == peer && r.connection == connection && !r.exec_seen && r.ended.is_none());
        let Some(id) = found.map(|run| run.id) else { return };
        let same = runs_its_script(&state, id);
        let Some(run) = state.runs.get_mut(&id) else { return };
        let seen = platform::executable(run.process.pid);
        self.begin(run, seen, same, now);
        self.end_nested(&mut state, now).await;
    }

    /// The gateway was called by a run whose program was not looked at yet: a first call may come before the end of the
    /// connection was noticed.
    pub(crate) async fn look_at(self: &Arc<Self>, id: RunId) {
        let mut state = self.state().await;
        let now = now();
        let same = runs_its_script(&state, id);
        let Some(run) = state.runs.get_mut(&id).filter(|r| !r.exec_seen && r.ended.is_none()) else { return };
        let seen = platform::executable(run.process.pid);
        // Before exec it still is the program that asked.
        if seen.is_some() && seen == run.asked_by && !run.becomes(seen) {
            return;
        }
        self.begin(run, seen, same, now);
        self.end_nested(&mut state, now).await;
    }

    /// The process of a run has become the program `seen`. Where that is another one than was decided for, `same` says that
    /// it runs another script, or a client of its own did not mark it as a run, what it holds is taken back: at the gateway before it was ever good, of files and variables
    /// what was not read before.
    fn begin(self: &Arc<Self>, run: &mut Run, seen: Option<FileState>, same: bool, now: Now) {
        let bears = platform::mark(run.process.pid);
        let same = same && run.mark.zip(bears).is_none_or(|(most, bears)| bears <= most);
        note_start(run, seen, same, now);
        self.let_through(run, seen, same, now);
        self.events.publish("run", &json!({"run": run.id.to_string(), "state": "started"}));
        self.flush_soon(run.id);
    }

    /// Lets calls of a run through the gateway, or takes back what it holds there when its program is another one, or cannot
    /// be read. A script whose interpreter is found at run time is no other one.
    fn let_through(&self, run: &mut Run, seen: Option<FileState>, same: bool, now: Now) {
        if run.app_verified || (seen.is_some() && same && run.executable.is_none()) {
            self.gate.begin(run.id, run.app_verified);
            return;
        }
        // A program that could not be read may be the right one, and has ended: there is nothing more to keep from it.
        let sure = seen.is_some() && (run.lasting || !same);
        let other = |n: &usize| sure || run.leases.get(*n).is_some_and(|held| held.gateway.is_some());
        let refused: Vec<usize> = run.live().into_iter().filter(other).collect();
        for n in refused {
            let draft = self.take_back(run, n, LeaseEnd::Revoked, now);
            run.pending.push(
                draft.outcome(Outcome::Refused).detail("alarm", "the program is not the one that was decided for"),
            );
        }
    }

    fn flush_soon(self: &Arc<Self>, id: RunId) {
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            broker.flush(id).await;
        });
    }

    /// The caller could not become its program: what it holds is taken back. The process stays the root of its run until it
    /// ends, since it may have kept what it was given.
    pub(crate) async fn run_abort(self: &Arc<Self>, peer: &Peer, id: &str) -> Result<(), Fault> {
        let mut state = self.state().await;
        let now = now();
        let (open, runs, _) = state.parts();
        let run = runs.values_mut().find(|r| r.id.to_string() == id && r.process == peer.process());
        let run = run.ok_or(Fault::new(Code::RunUnknown))?;
        let live = run.live();
        let taken: Vec<Draft> = live.into_iter().map(|n| self.take_back(run, n, LeaseEnd::Released, now)).collect();
        run.pending.extend(taken);
        run.aborted = true;
        self.remove_files(run);
        if let Some(open) = open
            && !run.pending.is_empty()
        {
            open.commit(self, vec![run.row()], run.pending.clone()).await?;
            run.pending.clear();
        }
        self.end_nested(&mut state, now).await;
        Ok(())
    }

    /// The live runs that a role may see.
    pub(crate) async fn runs(&self, role: Role<RunId>) -> Vec<RunMsg> {
        let state = self.state().await;
        let now = now();
        let visible = |run: &&Run| match role {
            Role::InsideRun(own) => run.id == own,
            Role::None | Role::Requester | Role::Shell | Role::Operator => true,
        };
        state.runs.values().filter(|r| r.ended.is_none()).filter(visible).map(|r| r.message(&state, now)).collect()
    }

    /// One credential for a helper protocol.
    pub(crate) async fn token(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        role: Role<RunId>,
        request: TokenRequest,
    ) -> Result<TokenAnswer, Fault> {
        let TokenRequest { profile, refresh, wait, unattended, proof, reason, assertions } = request;
        let name = Name::parse(&profile).map_err(|e| e.fault())?;
        if reason.as_ref().is_some_and(|reason| reason.len() > 500) {
            return Err(Fault::new(Code::RequestInvalid).cause("the reason is longer than 500 bytes"));
        }
        let run = if let Role::InsideRun(run) = role { Some(run) } else { None };
        if !assertions.is_empty() && run.is_some() {
            let cause = "a run cannot choose the assertion by which its credential is made";
            return Err(Fault::new(Code::PolicyDenied).cause(cause));
        }
        let (held, profile) = {
            let mut state = self.state_for_request().await?;
            let own = held_by(&state, role);
            let untold = |fault| untold(own.as_ref(), std::slice::from_ref(&name), fault);
            fence::check_token(&state, &name).map_err(untold)?;
            let held = match run {
                Some(run) => self.holds_itself(&state, run, &name)?,
                None => false,
            };
            // A helper asks again and again without a person, so this is no action of one; after the auto-lock a run still gets
            // what it holds.
            let open = if held { self.recording(&mut state)? } else { self.delivering(&mut state)? };
            let stored = open.profiles.get(&name).map(|stored| stored.profile.clone());
            let unknown = || Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`"));
            (held, stored.ok_or_else(|| untold(unknown()))?)
        };
        let mut right = if held {
            Right::Person("run")
        } else if is_person(role) && !(unattended && proof.is_none() && profile.confirm) {
            self.confirmed(std::iter::once(&profile), proof).await?;
            Right::Person(word(role))
        } else {
            let wanted = want::Wanted { mode: DeliveryMode::Env, ttl: profile.max_ttl, profile };
            Right::Granted(Box::new(want_token(peer, role, wanted, reason).await?))
        };
        let mut assertions = Some(assertions);
        for _ in 0..ATTEMPTS {
            if let Right::Granted(want) = &mut right {
                self.permit(peer, role, want, wait).await?;
            }
            self.supply(assertions.take().unwrap_or_default()).await?;
            let (credential, schedule) =
                if refresh { self.obtain_anew(&name).await? } else { self.obtain(&name).await? };
            match self.hand_token(peer, run, held, &name, &right, (&credential, schedule)).await {
                Err(fault) if fault.code == Code::ApprovalNeeded => {}
                handed => return handed,
            }
        }
        Err(Fault::new(Code::Busy).cause("others were quicker to use what was granted"))
    }

    /// Records that a helper gets a credential, and gives it.
    async fn hand_token(
        &self,
        peer: &Peer,
        run: Option<RunId>,
        held: bool,
        name: &Name,
        right: &Right,
        (credential, schedule): (&Credential, Schedule),
    ) -> Result<TokenAnswer, Fault> {
        let token = token_text(credential)?;
        let mut state = self.state_for_request().await?;
        let now = now();
        fence::check_token(&state, name)?;
        // It may have been taken back while the issuer worked.
        if let Some(run) = run.filter(|_| held)
            && !self.holds_itself(&state, run, name)?
        {
            return Err(Fault::new(Code::PolicyDenied).cause(format!("the run does not hold `{name}` any longer")));
        }
        let (by, grounds) = self.by_right(&mut state, right, now)?;
        let grants: Vec<GrantId> = grounds.into_iter().filter_map(Ground::grant).collect();
        let mut draft = entry_of(Kind::TokenDelivered, now, peer).profile(name.as_str()).detail("by", by);
        draft = match (run.and_then(|id| state.runs.get(&id)), right) {
            (Some(run), _) => {
                let lease = run.leases.iter().find(|l| l.profile == *name && l.lease.is_live());
                let draft = draft.run(run.id.to_string()).project(run.project.clone());
                let draft = draft.app(run.app.clone(), run.app_verified);
                lease.into_iter().fold(draft, |draft, lease| draft.lease(lease.id.to_string()))
            }
            (None, Right::Granted(want)) => {
                let draft = draft.app(want.app.clone(), want.verified);
                if want.project.is_empty() { draft } else { draft.project(want.project.clone()) }
            }
            (None, Right::Person(_)) => program_of(peer).into_iter().fold(draft, |draft, app| draft.app(app, false)),
        };
        if let Some(grant) = grants.first() {
            draft = draft.grant(grant.to_string());
        }
        let open = if held { self.recording(&mut state)? } else { self.delivering(&mut state)? };
        let kind = open.profiles.get(name).map_or("", |p| p.profile.kind.kind).to_owned();
        let taken = take(open, &grants, None, now);
        if let Err(fault) = open.record_delivery(self, taken.after.iter().map(row).collect(), vec![draft]).await {
            taken.undo(open);
            return Err(fault);
        }
        self.tell_grants(&taken.after);
        Ok(token_answer(token, kind, schedule, now))
    }

    /// Shows the credential of a profile to the person who proves that it is theirs; recorded before it leaves.
    pub(crate) async fn profile_reveal(
        self: &Arc<Self>,
        peer: &Peer,
        name: &str,
        proof: Proof,
    ) -> Result<TokenAnswer, Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        self.prove(proof).await?;
        self.delivering(&mut *self.state_for_request().await?)?.last_action = now().boot;
        let (credential, schedule) = self.obtain(&name).await?;
        let token = token_text(&credential)?;
        let mut state = self.state_for_request().await?;
        let now = now();
        let open = self.delivering(&mut state)?;
        let stored = open.profiles.get(&name);
        let stored = stored.ok_or_else(|| Fault::new(Code::RunGone).cause("the profile was removed meanwhile"))?;
        let kind = stored.profile.kind.kind.to_owned();
        let ends = schedule.ends().map(|at| now.wall_at(at).to_rfc3339());
        let draft = entry_of(Kind::CredentialRevealed, now, peer).profile(name.as_str()).detail("expires_at", ends);
        open.record_delivery(self, Vec::new(), vec![draft]).await?;
        Ok(token_answer(token, kind, schedule, now))
    }

    /// Whether a run holds the credential of a profile itself at this moment.
    ///
    /// # Errors
    /// [`Code::PolicyDenied`] when it holds a weaker form of it.
    fn holds_itself(&self, state: &State, id: RunId, name: &Name) -> Result<bool, Fault> {
        let held = |run: &&Run| run.ended.is_none();
        let leases = state.runs.get(&id).filter(held).map_or(&[][..], |run| &run.leases);
        let mut held = leases.iter().filter(|l| l.profile == *name && l.lease.is_live()).peekable();
        if held.peek().is_none() {
            return Ok(false);
        }
        if held.all(|l| l.lease.mode == DeliveryMode::Gateway) {
            let cause = format!("the run holds `{name}` through the gateway, and no stronger form of it");
            return Err(Fault::new(Code::PolicyDenied)
                .cause(cause)
                .help("call the API with the address and the token that the run was given; for the credential itself start the run with `--deliver env`"));
        }
        Ok(true)
    }

    /// Takes back what a person, or a run for itself, names.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        peer: &Peer,
        role: Role<RunId>,
        request: RevokeRequest,
    ) -> Result<RevokeAnswer, Fault> {
        let mut state = self.state().await;
        let now = now();
        let inside = matches!(role, Role::InsideRun(_));
        let own = |run: &Run| match role {
            Role::InsideRun(id) => run.id == id,
            Role::None | Role::Requester | Role::Shell | Role::Operator => true,
        };
        let hits = |run: &Run, held: &HeldLease| match &request {
            RevokeRequest::All => true,
            RevokeRequest::Target(target) => held.profile.as_str() == target || names_run(run, target),
        };
        let chosen: Vec<(RunId, Vec<usize>)> = state
            .runs
            .values()
            .filter(|run| run.ended.is_none() && own(run))
            .map(|run| {
                let held =
                    run.leases.iter().enumerate().filter(|(_, l)| l.lease.is_live() && hits(run, l)).map(|(n, _)| n);
                (run.id, held.collect::<Vec<_>>())
            })
            .filter(|(_, held)| !held.is_empty())
            .collect();
        if let (true, RevokeRequest::Target(target)) = (chosen.is_empty(), &request) {
            let known = state.runs.values().any(|r| names_run(r, target))
                || state.open().is_some_and(|o| o.profiles.keys().any(|n| n.as_str() == target));
            if !known {
                return Err(Fault::new(Code::RunUnknown)
                    .cause(format!("nothing is named `{}`", keyward_diag::plain(target, 64))));
            }
        }
        let mut more = Changes::default();
        if let (RevokeRequest::All, false, Some(open)) = (&request, inside, state.open()) {
            let ids: Vec<GrantId> = open.grants.iter().map(|grant| grant.id).collect();
            more = ended_grants(open, &ids, Kind::GrantRevoked, "everything was taken back", now);
            // They open nothing from here on, whether or not the log can take it.
            forget(open, &ids);
        }
        let answer = self.revoke_leases(&mut state, &chosen, Some(peer), now, more.clone()).await;
        if answer.is_err() {
            state.owe(more);
        }
        self.wake.notify_one();
        answer
    }

    /// The live leases of a profile.
    pub(crate) fn leases_of(state: &State, profile: &Name) -> Vec<(RunId, Vec<usize>)> {
        Self::leases_where(state, |held| held.profile == *profile)
    }

    /// The live leases for which something is so.
    pub(crate) fn leases_where(state: &State, which: impl Fn(&HeldLease) -> bool) -> Vec<(RunId, Vec<usize>)> {
        let held = |run: &Run| {
            let leases = run.leases.iter().enumerate();
            leases.filter(|(_, l)| l.lease.is_live() && which(l)).map(|(n, _)| n).collect::<Vec<_>>()
        };
        let runs = state.runs.values().filter(|run| run.ended.is_none()).map(|run| (run.id, held(run)));
        runs.filter(|(_, held)| !held.is_empty()).collect()
    }

    /// Takes what a changed profile says about its calls over to the live leases of it.
    pub(crate) fn turn_leases(&self, state: &State, profile: &Profile) -> Result<(), Fault> {
        let Some(target) = &profile.gateway else { return Ok(()) };
        let leases = state.runs.values().flat_map(|run| &run.leases);
        let mut gated = leases.filter(|l| l.profile == profile.name && l.lease.is_live() && l.gateway.is_some());
        gated.try_for_each(|held| self.gate.turn(held.id.0, target.clone()))
    }

    /// Revokes leases, together with further changes: the files go first, so that even a log that cannot be written leaves nothing behind.
    pub(crate) async fn revoke_leases(
        self: &Arc<Self>,
        state: &mut State,
        chosen: &[(RunId, Vec<usize>)],
        peer: Option<&Peer>,
        now: Now,
        more: Changes,
    ) -> Result<RevokeAnswer, Fault> {
        let mut answer = RevokeAnswer { leases: 0, runs: Vec::new() };
        let (mut entries, mut writes, mut profiles) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut chosen, mut nested) = (chosen.to_vec(), false);
        loop {
            let (_, runs, _) = state.parts();
            for (id, held) in &chosen {
                let Some(run) = runs.get_mut(id) else { continue };
                answer.runs.push(run.lost(held));
                profiles.extend(held.iter().filter_map(|n| run.leases.get(*n)).map(|held| held.profile.clone()));
                for n in held {
                    let draft = self.take_back(run, *n, LeaseEnd::Revoked, now);
                    let draft = if nested { draft.detail("why", "the run around holds it no longer") } else { draft };
                    entries.push(match peer {
                        Some(peer) => draft.peer(facts(peer)),
                        None => draft,
                    });
                    answer.leases += 1;
                }
                writes.push(run.row());
            }
            // With what a run holds goes what runs inside of it hold by that.
            chosen = Self::nested_over(state);
            nested = true;
            if chosen.is_empty() {
                break;
            }
        }
        let taken = entries.clone();
        entries.extend(more.entries);
        writes.extend(more.writes);
        self.end_at_issuers(state, &profiles, true);
        let (open, _, _) = state.parts();
        if let (Some(open), false) = (open, entries.is_empty())
            && let Err(e) = open.commit(self, writes, entries).await
        {
            // What was taken back stays so.
            state.owe(Changes::record(taken));
            return Err(e);
        }
        Ok(answer)
    }

    /// Records what happened before and could not be recorded then.
    pub(crate) async fn record_owed(&self, state: &mut State) {
        let Changes { mut writes, entries } = state.owed.clone();
        writes.extend(live_rows(state));
        let Some(open) = state.open().filter(|_| !entries.is_empty()) else { return };
        match open.commit(self, writes, entries).await {
            Ok(()) => state.owed = Changes::default(),
            Err(e) => tracing::error!(code = %e.code, "what happened before could still not be recorded"),
        }
    }

    /// Opens what a run from before a crash holds at the gateway. What was given another port, which somebody else may have by
    /// this time, or has lost its profile, is over; gives the entries that record it.
    fn reopen(&self, profiles: &BTreeMap<Name, StoredProfile>, run: &mut Run, now: Now) -> Vec<Draft> {
        let mut entries = Vec::new();
        for n in 0..run.leases.len() {
            let Some((held, gated)) = run.leases.get(n).and_then(|held| Some((held, held.gateway?))) else { continue };
            let target = profiles.get(&held.profile).and_then(|stored| stored.profile.gateway.clone());
            let (live, same_port) = (held.lease.is_live(), gated.port == self.gate.port());
            let why = match target.map(|target| self.gate.open(run.opening(held, gated), target)) {
                Some(Ok(())) if same_port => None,
                Some(Ok(())) => Some("the gateway has another port since, and the run was told the former one"),
                Some(Err(_)) | None => Some("the profile says no more where its calls go"),
            };
            match (live, why) {
                (true, Some(why)) => entries.push(self.take_back(run, n, LeaseEnd::Revoked, now).detail("why", why)),
                (true, None) if run.exec_seen => self.gate.begin(run.id, run.app_verified),
                (true, None) => {}
                // Still known, so that its token is told from one that never was.
                (false, _) => self.gate.end(held.id.0, keyward_gateway::Ended::Revoked),
            }
        }
        entries
    }

    /// Takes up the highest mark of the runs of this boot; gives what the vault does not know of it.
    pub(crate) async fn resume_mark(&self, state: &mut State, open: &Open) -> Result<Option<Write>, Fault> {
        let kept = open.store.meta(MARK).await.map_err(|e| e.fault())?.unwrap_or_default();
        let kept: Option<MarkRow> = serde_json::from_slice(&kept).ok();
        let kept = kept.filter(|row| row.boot == platform::boot_id().unwrap_or_default()).map(|row| Mark(row.mark));
        state.mark = state.mark.max(kept);
        Ok(state.mark.filter(|mark| Some(*mark) != kept).map(mark_row))
    }

    /// Takes up the runs of the table after the vault was opened: pins those that live, records the end of the others.
    /// Gives how many live, what could not be watched, and what is to be recorded.
    pub(crate) async fn resume_runs(self: &Arc<Self>, state: &mut State) -> Result<(u32, Vec<String>), Fault> {
        let now = now();
        let this_boot = platform::boot_id().unwrap_or_default();
        let Vault::Open(open) = &state.vault else { return Ok((0, Vec::new())) };
        let rows = open.store.runs().await.map_err(|e| e.fault())?;
        let (mut resumed, mut warnings) = (0, Vec::new());
        let (mut entries, mut writes, mut pinned, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let id = RunId(Uuid::from_bytes(row.id));
            if let Some(known) = state.runs.get(&id) {
                // The broker lived on while the vault was locked; an end in that time waits to be recorded.
                if known.ended.is_none() {
                    resumed += 1;
                }
                continue;
            }
            let Some((mut run, boot)) = Run::from_row(&row) else {
                warnings.push(format!("the record of run {id} is not understood; it is not watched"));
                continue;
            };
            match (boot == this_boot).then(|| platform::pin(run.process)).flatten() {
                Some(pidfd) => {
                    resumed += 1;
                    for held in run.leases.iter_mut().filter(|held| held.lease.is_live()) {
                        let granted = held.grant.and_then(|id| open.grants.get(id));
                        held.lease.until = granted.map_or(held.lease.until, |g| held.lease.until.min(g.until()));
                    }
                    entries.extend(self.reopen(&open.profiles, &mut run, now));
                    if !run.exec_seen {
                        let seen = platform::executable(run.process.pid);
                        self.begin(&mut run, seen, true, now);
                    }
                    writes.push(run.row());
                    self.connections.run_began(run.process);
                    pinned.push((run.id, pidfd));
                    state.runs.insert(run.id, run);
                }
                None => {
                    let live = run.live();
                    entries.extend(live.into_iter().map(|n| self.take_back(&mut run, n, LeaseEnd::Released, now)));
                    let ended = Ended { exit: None, at: now, settled: true };
                    entries.push(ended_entry(&run, ended).detail("unseen", true));
                    writes.push(Write::RemoveRun(row.id));
                    let grants = open.grants.of_run(run.id);
                    let over = ended_grants(open, &grants, Kind::GrantExpired, "the run has ended", now);
                    entries.extend(over.entries);
                    writes.extend(over.writes);
                    gone.extend(grants);
                    self.remove_files(&run);
                }
            }
        }
        for (id, pidfd) in pinned {
            self.watch(id, pidfd);
        }
        if !entries.is_empty() {
            let Some(open) = state.open() else { return Ok((0, Vec::new())) };
            open.commit(self, writes, entries).await?;
            forget(open, &gone);
        }
        self.end_nested(state, now).await;
        self.record_ended(state).await;
        Ok((resumed, warnings))
    }
}

/// Whether the process of a run has the arguments that it was decided for, where a grant names the script among them. What
/// cannot be read of a process counts against it.
fn runs_its_script(state: &State, id: RunId) -> bool {
    let (Some(run), Some(open)) = (state.runs.get(&id), state.vault.opened()) else { return true };
    let Some(digest) = run.script else { return true };
    platform::arguments(run.process).is_some_and(|args| open.store.args_digest(&args) == digest)
}

/// Sees which program the process has become, and notes the entry of it.
fn note_start(run: &mut Run, seen: Option<FileState>, same: bool, now: Now) {
    run.exec_seen = true;
    run.app_verified = run.becomes(seen) && same;
    let mut draft = run.draft(Kind::RunStarted, now).detail("pid", run.process.pid);
    if !run.app_verified {
        let why = match (seen, run.executable) {
            (None, _) => "the program could not be read after exec",
            (Some(_), _) if !same => "the process runs another script than the one it named",
            (_, None) => "a script whose interpreter is found at run time",
            (Some((device, inode, _)), Some(file)) if file == (device, inode) => {
                "the file of the program was written to after it was looked at"
            }
            (Some(_), Some(_)) => "the process runs another program than the one it named",
        };
        draft = draft.detail("unverified", why);
    }
    run.pending.push(draft);
}

fn ended_entry(run: &Run, ended: Ended) -> Draft {
    let seconds = ended.at.boot.since(run.started.boot).as_secs();
    let profiles: Vec<&str> = run.leases.iter().map(|l| l.profile.as_str()).collect();
    let mut draft = run
        .draft(Kind::RunEnded, ended.at)
        .detail("seconds", seconds)
        .detail("profiles", profiles)
        .detail("started_at", run.started.wall.to_rfc3339());
    if !run.leases.is_empty() && run.leases.iter().all(|held| held.gateway.is_some()) {
        let uses: u64 = run.leases.iter().filter_map(|held| held.gateway).map(|gated| gated.uses).sum();
        draft = draft.detail("uses", uses);
    }
    if run.aborted {
        draft = draft.outcome(Outcome::Failed).detail("code", Code::RunNotExecutable.name());
    }
    match ended.exit {
        Some(Exit::Code(code)) => draft.detail("exit", code),
        Some(Exit::Signal(signal)) => draft.detail("signal", signal),
        // The kernel tells it only once the parent has collected the process.
        None => draft.detail("exit", Value::Null),
    }
}

fn token_text(credential: &Credential) -> Result<SecretText, Fault> {
    SecretText::from_bytes(credential.token.dangerous_copy()).map_err(|e| Fault::new(Code::DeliveryValue).cause(e))
}

fn token_answer(token: SecretText, kind: String, schedule: Schedule, now: Now) -> TokenAnswer {
    let ends = schedule.ends();
    TokenAnswer {
        token,
        kind,
        expires_at: ends.map(|at| now.wall_at(at).to_rfc3339()),
        expires_in_s: ends.map(|at| at.since(now.boot).as_secs()),
    }
}

/// The name of the program that a peer runs, as far as the kernel tells.
fn program_of(peer: &Peer) -> Option<String> {
    let name = peer.exe()?.file_name()?.to_string_lossy().into_owned();
    Some(name.strip_suffix(" (deleted)").map_or(name.clone(), str::to_owned))
}

/// Whether `target` is the id of a run, or the end of one of at least six characters.
fn names_run(run: &Run, target: &str) -> bool {
    let id = run.id.to_string();
    id == target || (target.len() >= 6 && id.ends_with(target))
}

/// Looks at the program; outside of the runtime's thread where its file system may not answer.
async fn look(request: &RunRequest) -> Result<program::Program, Fault> {
    let (path, allow) = (request.command.path.clone(), request.allow_privileged);
    if let Some(looked) = program::look_at_once(&path, allow) {
        return looked;
    }
    let looked = tokio::task::spawn_blocking(move || program::look(&path, allow));
    match tokio::time::timeout(LOOK, looked).await {
        Ok(Ok(program)) => program,
        Ok(Err(_)) => Err(Fault::new(Code::Internal).cause("looking at the program broke off")),
        Err(_) => Err(Fault::new(Code::RunNotFound).cause("the file system of the program does not answer")),
    }
}

/// The profiles of which a run holds something, where one asks.
fn held_by(state: &State, role: Role<RunId>) -> Option<BTreeSet<Name>> {
    let Role::InsideRun(run) = role else { return None };
    let leases = state.runs.get(&run).map_or(&[][..], |run| &run.leases);
    Some(leases.iter().filter(|held| held.lease.is_live()).map(|held| held.profile.clone()).collect())
}

/// What a run is told of why it does not get what `names` say: of profiles that it holds the code, of others the same whether
/// they exist or not. Anybody else is told all of it.
fn untold(own: Option<&BTreeSet<Name>>, names: &[Name], fault: Fault) -> Fault {
    match own {
        None => fault,
        Some(own) if names.iter().all(|name| own.contains(name)) => Fault::new(fault.code),
        Some(_) => Fault::new(Code::ProfileUnknown),
    }
}

fn check(request: &RunRequest) -> Result<(), Fault> {
    let invalid = |cause: &str| Err(Fault::new(Code::RequestInvalid).cause(cause));
    if request.variables.len() > VARIABLES_MAX {
        return invalid("the environment has too many variables");
    }
    if request.profiles.len() > PROFILES_MAX {
        return invalid("a run takes at most 16 profiles");
    }
    if request.profiles.iter().collect::<BTreeSet<_>>().len() != request.profiles.len() {
        return invalid("a profile is named twice");
    }
    if request.reason.as_ref().is_some_and(|r| r.len() > 500) {
        return invalid("the reason is longer than 500 bytes");
    }
    if request.command.path.len() > PATH_MAX_BYTES || request.command.project.len() > PATH_MAX_BYTES {
        return invalid("the path of the program or of the project is longer than 2048 bytes");
    }
    if !request.command.project.starts_with('/') {
        return invalid("the path of the project is not absolute");
    }
    if request.ttl_s == Some(0) {
        return invalid("the time to live is zero");
    }
    Ok(())
}

/// The profiles of a request: those that it names, or the only one there is.
pub(crate) fn chosen(open: &Open, named: &[String]) -> Result<Vec<Name>, Fault> {
    let all = || open.profiles.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
    if named.is_empty() {
        let mut names = open.profiles.keys();
        return match (names.next(), names.next()) {
            (Some(only), None) => Ok(vec![only.clone()]),
            (None, _) => Err(Fault::new(Code::ProfileNotNamed)
                .cause("there is no profile yet")
                .help("add one with `keyward profile add NAME --from FILE`")),
            (Some(_), Some(_)) => Err(Fault::new(Code::ProfileNotNamed).cause(format!("there are: {}", all()))),
        };
    }
    named
        .iter()
        .map(|text| {
            let name = Name::parse(text).map_err(|e| e.fault())?;
            if open.profiles.contains_key(&name) {
                Ok(name)
            } else {
                let there = all();
                let there = if there.is_empty() { "none".to_owned() } else { there };
                Err(Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`; there are: {there}")))
            }
        })
        .collect()
}

fn answer(planned: &Plan) -> RunAnswer {
    let plan = planned.deliveries.iter().map(|d| PlanMsg {
        profile: d.profile.name.to_string(),
        issuer: d.profile.kind.kind.to_owned(),
        delivery: wire_mode(d.hand_over.mode),
        chosen_by: d.choice.word().to_owned(),
        why: d.why.clone(),
        variables: d.hand_over.carriers.iter().chain(d.hand_over.plain.keys()).cloned().collect(),
        gives_away: d.hand_over.mode.gives_away().to_owned(),
        weaker: d.weaker.map(|mode| WeakerMsg { delivery: wire_mode(mode), gives_away: mode.gives_away().to_owned() }),
        upstream: d.upstream().map(|upstream| format!("{}:{}", upstream.host, upstream.port)),
        ttl_s: d.ttl.as_secs(),
        fence: d.profile.fence().map(|fence| fence.words()).unwrap_or_default(),
        confirm: d.profile.confirm,
    });
    let unset = planned.unset.iter().map(|u| UnsetVariable {
        name: u.variable.clone(),
        profile: u.profile.clone(),
        why: u.why.clone(),
    });
    RunAnswer {
        run: None,
        plan: plan.collect(),
        delivered: Vec::new(),
        set: Vec::new(),
        unset: unset.collect(),
        args: planned.deliveries.iter().flat_map(|d| &d.hand_over.args).cloned().collect(),
        project: None,
    }
}

/// The credential as the text of a variable.
fn credential_text(credential: &Credential) -> Result<SecretText, Fault> {
    // EXPOSE: a variable cannot hold a NUL byte.
    if credential.token.expose(|b| b.contains(&0)) {
        return Err(Fault::new(Code::DeliveryValue).cause("it holds a NUL byte"));
    }
    let copy: SecretBytes = credential.token.dangerous_copy();
    SecretText::from_bytes(copy).map_err(|e| Fault::new(Code::DeliveryValue).cause(e))
}

/// The entries that must be durable before anything leaves: the request, the decision, each lease and each delivery.
/// `by` says by what right, `expected` who announced the launch, and `outer` from inside of which run it was asked.
fn start_entries(
    run: &Run,
    planned: &Plan,
    request: &RunRequest,
    digest: &str,
    (peer, by, expected, outer): (&Peer, &str, Option<Announcer>, Option<RunId>),
    now: Now,
) -> Vec<Draft> {
    let names: Vec<&str> = run.leases.iter().map(|l| l.profile.as_str()).collect();
    let mut asked = run
        .draft(Kind::RunRequested, now)
        .peer(facts(peer))
        .detail("profiles", names.clone())
        .detail("arguments", digest);
    if let Some(reason) = &request.reason {
        asked = asked.detail("reason", keyward_diag::plain(reason, 500));
    }
    if let Some(ttl) = request.ttl_s {
        asked = asked.detail("ttl_s", ttl);
    }
    if let Some(launcher) = &run.launcher {
        asked = asked.detail("launcher", launcher.as_str());
    }
    if let Some(by) = expected {
        asked = asked.detail("expected", true).detail("expected_by", by.process.pid);
    }
    let grants: Vec<String> = run.leases.iter().filter_map(|held| held.grant).map(|grant| grant.to_string()).collect();
    let mut decided = run.draft(Kind::RunDecided, now).detail("profiles", names).detail("by", by);
    if let Some(outer) = outer {
        decided = decided.detail("outer_run", outer.to_string());
    }
    if let Some(first) = grants.first() {
        decided = decided.grant(first.clone()).detail("grants", grants.clone());
    }
    let mut entries = vec![asked, decided];
    for (held, delivery) in run.leases.iter().zip(&planned.deliveries) {
        let of = |kind| {
            let draft = run.draft(kind, now).lease(held.id.to_string()).profile(held.profile.as_str());
            held.grant.into_iter().fold(draft, |draft, grant| draft.grant(grant.to_string()))
        };
        entries.push(
            of(Kind::LeaseIssued)
                .detail("issuer", delivery.profile.kind.kind)
                .detail("expires_at", now.wall_at(held.lease.ends()).to_rfc3339()),
        );
        let gateway = delivery.profile.gateway.as_ref().filter(|_| held.gateway.is_some());
        let handed = of(if gateway.is_some() { Kind::GatewayOpened } else { Kind::CredentialDelivered })
            .detail("delivery", held.lease.mode.word())
            .detail("variables", held.variables.clone())
            .detail("pid", run.process.pid);
        entries.push(gateway.into_iter().fold(handed, |draft, target| {
            draft.detail("host", target.upstream.host.as_str()).detail("port", target.upstream.port)
        }));
    }
    entries
}

/// Whether anything of a run is live.
pub(crate) fn holds(run: &Run) -> bool {
    run.ended.is_none() && run.leases.iter().any(|l| !matches!(l.lease.state, LeaseState::Ended(_)))
}
