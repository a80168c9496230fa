//! Grants: the rows of the vault, the routes under `/v1/grants`, and what ends a grant.
//!
//! Which grant a request goes by is `keyward_core::Grants`' to find. Here grants are stored and removed in the commit that
//! records it, so that neither exists without the other. A lease that was made under a grant ends no later than the grant.

use crate::approve::apps_asked;
use crate::broker::{Broker, Open, State, entry, entry_of};
use crate::launchers::{StoredLauncher, looked};
use crate::operator::word;
use crate::peer::Peer;
use crate::platform::{self, now};
use crate::program;
use crate::runs::{HeldLease, RunId, wire_mode};
use keyward_api::{GrantMsg, GrantPutRequest, GrantSpan, Proof};
use keyward_core::audit::{Draft, Kind};
use keyward_core::{
    AppScope, DeliveryMode, FileState, Grant, GrantId, Moment, Name, Now, Program, Role, Span, Term, Tools, Wall,
    deliverable, interpreter, launcher_key, reloaded,
};
use keyward_crypto::make_array;
use keyward_diag::{Code, Fault};
use keyward_store::{Changes, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Shortest grant that a person can make.
const SHORTEST: Duration = Duration::from_secs(60);
/// Longest path, in bytes.
const PATH_MAX_BYTES: usize = 2048;
/// How long before the end of a grant for a run a person is asked whether it shall go on.
pub(crate) const EXTEND_AHEAD: Duration = Duration::from_secs(15 * 60);

/// The text of a grant in the vault. Times are microseconds: on the clock that counts from the boot named, and since 1970 UTC.
#[derive(Serialize, Deserialize)]
struct Row {
    span: String,
    app: AppRow,
    /// The file of the launcher's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launcher_file: Option<FileState>,
    project: Option<String>,
    profile: String,
    weakest: DeliveryWord,
    boot: Uuid,
    from_boot_us: u64,
    from_wall_us: i64,
    life_us: u64,
    uses_left: Option<u32>,
    run: Option<Uuid>,
    request: Option<String>,
    created_us: i64,
    allowed: u64,
    last_allowed_us: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AppRow {
    Any,
    Program { path: String, file: Option<(u64, u64, i64)>, script: Option<String> },
    Launcher(Uuid),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DeliveryWord {
    Env,
    File,
    Gateway,
}

impl DeliveryWord {
    fn of(mode: DeliveryMode) -> Self {
        match mode {
            DeliveryMode::Env => Self::Env,
            DeliveryMode::File => Self::File,
            DeliveryMode::Gateway => Self::Gateway,
        }
    }

    fn mode(self) -> DeliveryMode {
        match self {
            Self::Env => DeliveryMode::Env,
            Self::File => DeliveryMode::File,
            Self::Gateway => DeliveryMode::Gateway,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The moment on both clocks, with the boot. `None` where the boot cannot be told; then no grant holds.
pub(crate) fn moment(now: Now) -> Option<Moment> {
    let boot = platform::boot_id().ok()?;
    Some(Moment { boot_id: *Uuid::parse_str(&boot).ok()?.as_bytes(), boot: now.boot, wall: now.wall })
}

/// Makes the id of a grant.
pub(crate) fn make_id() -> Result<GrantId, Fault> {
    make_array().map(GrantId).map_err(|e| Fault::new(Code::Internal).cause(e))
}

/// The words for how long a grant holds.
fn span_word(span: Span) -> &'static str {
    match span {
        Span::Once => "once",
        Span::Run => "run",
        Span::Standing => "standing",
    }
}

/// A grant as a change of the vault; one that is used up is removed.
pub(crate) fn row(grant: &Grant<RunId>) -> Write {
    if grant.uses_left == Some(0) {
        return Write::RemoveGrant(grant.id.0);
    }
    let from = grant.term.from();
    let row = Row {
        span: span_word(grant.span).to_owned(),
        app: match &grant.app {
            AppScope::Any => AppRow::Any,
            AppScope::Program(Program { path, file, script }) => {
                AppRow::Program { path: path.clone(), file: *file, script: script.clone() }
            }
            AppScope::Launcher(id, _) => AppRow::Launcher(Uuid::from_bytes(*id)),
        },
        launcher_file: if let AppScope::Launcher(_, file) = grant.app { file } else { None },
        project: grant.project.clone(),
        profile: grant.profile.to_string(),
        weakest: DeliveryWord::of(grant.weakest),
        boot: Uuid::from_bytes(from.boot_id),
        from_boot_us: micros(from.boot.0),
        from_wall_us: from.wall.0,
        life_us: micros(grant.term.life()),
        uses_left: grant.uses_left,
        run: grant.run.map(|run| run.0),
        request: grant.request.map(hex::encode),
        created_us: grant.created.0,
        allowed: grant.allowed,
        last_allowed_us: grant.last_allowed.map(|at| at.0),
    };
    let body = serde_json::to_string(&row).unwrap_or_default();
    Write::PutGrant(keyward_store::Grant { id: grant.id.0, body })
}

fn from_row(stored: &keyward_store::Grant) -> Option<Grant<RunId>> {
    let row: Row = serde_json::from_str(&stored.body).ok()?;
    let boot = keyward_core::Boot(Duration::from_micros(row.from_boot_us));
    let from = Moment { boot_id: *row.boot.as_bytes(), boot, wall: Wall(row.from_wall_us) };
    let request = match row.request {
        Some(text) => Some(hex::decode(text).ok()?.try_into().ok()?),
        None => None,
    };
    Some(Grant {
        id: GrantId(stored.id),
        span: match row.span.as_str() {
            "once" => Span::Once,
            "run" => Span::Run,
            "standing" => Span::Standing,
            _ => return None,
        },
        app: match row.app {
            AppRow::Any => AppScope::Any,
            AppRow::Program { path, file, script } => AppScope::Program(Program { path, file, script }),
            AppRow::Launcher(id) => AppScope::Launcher(*id.as_bytes(), row.launcher_file),
        },
        project: row.project,
        profile: Name::parse(&row.profile).ok()?,
        weakest: row.weakest.mode(),
        term: Term::new(from, Duration::from_micros(row.life_us)).ok()?,
        uses_left: row.uses_left,
        run: row.run.map(RunId),
        request,
        created: Wall(row.created_us),
        allowed: row.allowed,
        last_allowed: row.last_allowed_us.map(Wall),
    })
}

/// What an entry says of a grant.
fn described(draft: Draft, grant: &Grant<RunId>) -> Draft {
    let mut draft = draft
        .grant(grant.id.to_string())
        .profile(grant.profile.as_str())
        .detail("span", span_word(grant.span))
        .detail("weakest", grant.weakest.word())
        .detail("until", grant.term.until_wall().to_rfc3339());
    match &grant.app {
        AppScope::Any => {}
        AppScope::Program(program) => {
            draft = draft.detail("program", program.path.as_str());
            if let Some(script) = &program.script {
                draft = draft.detail("script", script.as_str());
            }
        }
        AppScope::Launcher(id, _) => draft = draft.detail("launcher_id", Uuid::from_bytes(*id).to_string()),
    }
    if let Some(project) = &grant.project {
        draft = draft.project(project.clone());
    }
    if let Some(run) = grant.run {
        draft = draft.run(run.to_string());
    }
    if let Some(uses) = grant.uses_left {
        draft = draft.detail("uses", uses);
    }
    draft
}

/// The entry that a grant was made.
pub(crate) fn added(grant: &Grant<RunId>, now: Now, peer: &Peer) -> Draft {
    described(entry_of(Kind::GrantAdded, now, peer), grant)
}

/// What removes grants, with the entries that say why. The vault changes once this is committed; then [`forget`] follows.
pub(crate) fn ended(open: &Open, ids: &[GrantId], kind: Kind, why: &str, now: Now) -> Changes {
    let used_up = |id: GrantId| open.grants.used_up(now.boot).find(move |grant| grant.id == id);
    let grants: Vec<_> = ids.iter().filter_map(|id| open.grants.get(*id).or_else(|| used_up(*id))).collect();
    Changes {
        writes: grants.iter().map(|grant| Write::RemoveGrant(grant.id.0)).collect(),
        entries: grants.iter().map(|grant| described(entry(kind, now), grant).detail("why", why)).collect(),
    }
}

/// Takes grants out of memory that were removed from the vault.
pub(crate) fn forget(open: &mut Open, ids: &[GrantId]) {
    for id in ids {
        open.grants.remove(*id);
    }
}

/// Grants that a delivery takes, before and after it.
pub(crate) struct Taken {
    before: Vec<Grant<RunId>>,
    /// As they are afterwards: what the vault keeps of them.
    pub(crate) after: Vec<Grant<RunId>>,
}

impl Taken {
    /// The delivery was not recorded, so it did not happen.
    pub(crate) fn undo(self, open: &mut Open) {
        for grant in self.before {
            let id = grant.id;
            if let Err(e) = open.grants.insert(grant) {
                tracing::error!(grant = %id, "a grant could not be put back: {e}");
            }
        }
    }
}

/// Counts a delivery on grants; a grant for one run that has none is from here on that of the run `made`.
pub(crate) fn take(open: &mut Open, ids: &[GrantId], made: Option<RunId>, now: Now) -> Taken {
    let before = ids.iter().filter_map(|id| open.grants.get(*id)).cloned().collect();
    let moment = moment(now);
    let after = ids.iter().filter_map(|id| open.grants.take(*id, made, moment.as_ref()?)).collect();
    Taken { before, after }
}

impl Broker {
    /// Reads the grants of the vault, and gives what is to be recorded of those that hold no more, with what changes in the
    /// vault: in another boot the wall clock says what is left, and one that was set back voids all. A row that is no grant by
    /// the rules is removed, and keeps no vault closed.
    pub(crate) async fn load_grants(&self, open: &mut Open, now: Now) -> Result<(Vec<Write>, Vec<Draft>), Fault> {
        let rows = open.store.grants().await.map_err(|e| e.fault())?;
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (mut stored, mut wrong) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let read = from_row(row).ok_or_else(|| "it cannot be read".to_owned());
            match read.and_then(|grant| grant.check().map(|()| grant)) {
                Ok(grant) => stored.push(grant),
                Err(why) => wrong.push((GrantId(row.id), why)),
            }
        }
        let head = open.store.head().await.seq;
        let last = open.store.entry(head).await.map_err(|e| e.fault())?;
        let last = last.and_then(|link| keyward_core::audit::Stamp::read(&link.body).at_us()).map(Wall);
        let (live, void) = match moment(now) {
            Some(moment) => reloaded(stored, moment, last),
            None => (Vec::new(), stored),
        };
        let mut writes: Vec<Write> = void.iter().map(|grant| Write::RemoveGrant(grant.id.0)).collect();
        let kept: BTreeMap<_, _> = rows.iter().map(|row| (row.id, &row.body)).collect();
        let why = "it ended while the vault was closed";
        let entries = void.iter().map(|grant| described(entry(Kind::GrantExpired, now), grant).detail("why", why));
        let mut entries: Vec<Draft> = entries.collect();
        for grant in live {
            let (id, write) = (grant.id, row(&grant));
            if let Err(why) = open.grants.insert(grant) {
                wrong.push((id, why));
                continue;
            }
            if !matches!(&write, Write::PutGrant(row) if kept.get(&row.id) == Some(&&row.body)) {
                writes.push(write);
            }
        }
        for (id, why) in wrong {
            writes.push(Write::RemoveGrant(id.0));
            entries.push(entry(Kind::GrantExpired, now).grant(id.to_string()).detail("why", why));
        }
        Ok((writes, entries))
    }

    /// The person behind a request that decides: proven on this connection, or in the request itself. Gives the word for it.
    ///
    /// # Errors
    /// [`Code::PassphraseNeeded`] without either; those of a wrong proof.
    pub(crate) async fn person(&self, role: Role<RunId>, proof: Option<Proof>) -> Result<&'static str, Fault> {
        match (role, proof) {
            (_, Some(proof)) => self.prove(proof).await.map(|_| "proof"),
            (Role::Operator, None) => Ok("operator"),
            (_, None) => Err(Fault::new(Code::PassphraseNeeded)),
        }
    }

    /// All grants that hold, and those that are used up, those that end first first.
    pub(crate) async fn grants(&self) -> Result<Vec<GrantMsg>, Fault> {
        let mut state = self.state_for_request().await?;
        let asked = apps_asked(&state);
        let (now, open) = (now(), &*self.unlocked(&mut state)?);
        let held = open.grants.iter().filter(|grant| now.boot < grant.until());
        let mut grants: Vec<_> = held.chain(open.grants.used_up(now.boot)).collect();
        grants.sort_by_key(|grant| (grant.until(), grant.id));
        let told = |grant: &Grant<RunId>| {
            let app = |request| asked.get(&request).cloned().unwrap_or_else(|| "?".to_owned());
            GrantMsg { equal_to: grant.request.map(app), ..message(open, grant, now) }
        };
        Ok(grants.into_iter().map(told).collect())
    }

    /// Makes a grant ahead of its request.
    pub(crate) async fn grant_add(
        &self,
        peer: &Peer,
        role: Role<RunId>,
        mut request: GrantPutRequest,
    ) -> Result<GrantMsg, Fault> {
        let proof = request.proof.take();
        let scope = self.scope(&request).await?;
        let id = make_id()?;
        // What is wrong with it is told before anybody is asked for the passphrase.
        grant(self.unlocked(&mut *self.state_for_request().await?)?, &self.tools, &request, scope.clone(), id, now())?;
        let by = self.person(role, proof).await?;
        let mut state = self.state_for_request().await?;
        let now = now();
        let open = self.unlocked(&mut state)?;
        let grant = grant(open, &self.tools, &request, scope, id, now)?;
        self.put_grant(open, grant, Kind::GrantAdded, (peer, role, by), Vec::new(), now).await
    }

    /// Replaces a grant; what was allowed before it stays counted. What runs hold under it ends no later than it does.
    pub(crate) async fn grant_edit(
        &self,
        peer: &Peer,
        role: Role<RunId>,
        id: &str,
        mut request: GrantPutRequest,
    ) -> Result<GrantMsg, Fault> {
        let proof = request.proof.take();
        let scope = self.scope(&request).await?;
        let id = {
            let mut state = self.state_for_request().await?;
            let open = self.unlocked(&mut state)?;
            let id = editable(open, id)?.id;
            grant(open, &self.tools, &request, scope.clone(), id, now())?;
            id
        };
        let by = self.person(role, proof).await?;
        let mut state = self.state_for_request().await?;
        let now = now();
        let open = self.unlocked(&mut state)?;
        let grant = grant(open, &self.tools, &request, scope, id, now)?;
        let former = editable(open, &id.to_string())?;
        let grant =
            Grant { created: former.created, allowed: former.allowed, last_allowed: former.last_allowed, ..grant };
        let until = grant.until();
        let (Some(open), runs, _) = state.parts() else { return Err(self.closed()) };
        let (mut before, mut rows) = (Vec::new(), Vec::new());
        for (run_id, run) in runs.iter_mut() {
            let longer = |held: &&mut HeldLease| held.grant == Some(id) && until < held.lease.until;
            let held = run.leases.iter_mut().enumerate().filter(|(_, held)| longer(held));
            let shortened: Vec<_> =
                held.map(|(n, held)| (*run_id, n, std::mem::replace(&mut held.lease.until, until))).collect();
            rows.extend((!shortened.is_empty()).then(|| run.row()));
            before.extend(shortened);
        }
        let changed = self.put_grant(open, grant, Kind::GrantChanged, (peer, role, by), rows, now).await;
        if changed.is_err() {
            // What was not recorded did not happen.
            for (run, n, until) in before {
                let held = runs.get_mut(&run).and_then(|run| run.leases.get_mut(n));
                held.into_iter().for_each(|held| held.lease.until = until);
            }
        }
        self.wake.notify_one();
        changed
    }

    /// What a person names as the app and the project of a grant, looked at.
    async fn scope(&self, request: &GrantPutRequest) -> Result<Scope, Fault> {
        let scope = scope(request).await?;
        let launcher = match &request.launcher {
            Some(name) => Some(self.launcher_program(name).await?),
            None => None,
        };
        Ok(Scope { launcher, ..scope })
    }

    /// Puts a grant in place in one commit with further changes.
    async fn put_grant(
        &self,
        open: &mut Open,
        grant: Grant<RunId>,
        kind: Kind,
        (peer, role, by): (&Peer, Role<RunId>, &str),
        mut more: Vec<Write>,
        now: Now,
    ) -> Result<GrantMsg, Fault> {
        let id = grant.id;
        let draft = described(entry_of(kind, now, peer), &grant).detail("by", by).detail("role", word(role));
        more.push(row(&grant));
        let former = open.grants.insert(grant).map_err(|e| Fault::new(Code::GrantInvalid).cause(e))?;
        if let Err(fault) = open.commit(self, more, vec![draft]).await {
            // What was not recorded did not happen.
            open.grants.remove(id);
            if let Some(former) = former {
                let _ = open.grants.insert(former);
            }
            return Err(fault);
        }
        open.last_action = now.boot;
        self.wake.notify_one();
        let grant = open.grants.get(id).ok_or(Fault::new(Code::Internal))?;
        Ok(message(open, grant, now))
    }

    /// Takes a grant back, with all that runs hold under it.
    pub(crate) async fn grant_revoke(self: &Arc<Self>, peer: &Peer, id: &str) -> Result<(), Fault> {
        let mut state = self.state().await;
        let now = now();
        let open = match state.open() {
            Some(open) => open,
            None => return Err(self.closed()),
        };
        let ids = [known(open, id, now)?];
        self.revoke_grants(&mut state, &ids, peer, now, Changes::default()).await
    }

    /// Takes grants back in one commit with what runs hold under them, and with further changes.
    pub(crate) async fn revoke_grants(
        self: &Arc<Self>,
        state: &mut State,
        ids: &[GrantId],
        peer: &Peer,
        now: Now,
        mut more: Changes,
    ) -> Result<(), Fault> {
        let under = |grant: Option<GrantId>| grant.is_some_and(|id| ids.contains(&id));
        let held = Self::leases_where(state, |held| under(held.grant));
        let Some(open) = state.open() else { return Err(self.closed()) };
        let changes = ended(open, ids, Kind::GrantRevoked, "a person took it back", now);
        more.writes.extend(changes.writes);
        more.entries.extend(changes.entries.into_iter().map(|draft| draft.peer(crate::broker::facts(peer))));
        // They open nothing from here on, whether or not the log can take it.
        forget(open, ids);
        let revoked = self.revoke_leases(state, &held, Some(peer), now, more.clone()).await;
        if revoked.is_err() {
            state.owe(more);
        }
        self.wake.notify_one();
        revoked.map(drop)
    }

    /// Removes the grants whose time is over, and asks about those for a run that end soon.
    pub(crate) async fn expire_grants(self: &Arc<Self>, state: &mut State, now: Now) {
        let Some(moment) = moment(now) else { return };
        let Some(open) = state.open() else { return };
        let over = open.grants.expire(&moment);
        if !over.is_empty() {
            let writes = over.iter().map(|grant| Write::RemoveGrant(grant.id.0)).collect();
            let entries: Vec<_> = over.iter().map(|grant| described(entry(Kind::GrantExpired, now), grant)).collect();
            let over = Changes { writes, entries };
            if let Err(e) = open.commit(self, over.writes.clone(), over.entries.clone()).await {
                // They hold no more all the same.
                tracing::error!(code = %e.code, "expired grants could not be recorded");
                state.owe(over);
            }
        }
        // However it ended, nobody is asked about it again.
        let State { vault, asked_to_extend, .. } = state;
        asked_to_extend.retain(|id| vault.opened().is_some_and(|open| open.grants.get(*id).is_some()));
        self.ask_extensions(state, now).await;
    }
}

/// What a person names as the app and the project of a grant, looked at.
#[derive(Clone)]
struct Scope {
    program: Option<Program>,
    launcher: Option<(StoredLauncher, FileState)>,
    project: Option<String>,
}

/// Looks at the program and at the project of a grant, outside of the state's lock.
async fn scope(request: &GrantPutRequest) -> Result<Scope, Fault> {
    let invalid = |cause: &str| Err(Fault::new(Code::GrantInvalid).cause(cause));
    let (program, script, project) = (request.program.clone(), request.script.clone(), request.project.clone());
    if program.is_some() && request.launcher.is_some() {
        return invalid("it names a program and a launcher");
    }
    let paths = [&program, &script, &project];
    if paths.into_iter().flatten().any(|path| !path.starts_with('/') || path.len() > PATH_MAX_BYTES) {
        return invalid("a path is not absolute, or longer than 2048 bytes");
    }
    match (program.as_deref().map(interpreter), &script) {
        (Some(true), None) => return invalid("the program runs what its arguments say: name its script"),
        (Some(false) | None, Some(_)) => return invalid("a script goes with the interpreter that runs it"),
        (Some(true), Some(_)) | (Some(false) | None, None) => {}
    }
    looked(move || {
        let program = match program {
            Some(path) if script.is_none() && program::runs_arguments(&path) => {
                let cause =
                    format!("{path} leads to a program that runs what its arguments say: name that, and its script");
                return Err(Fault::new(Code::GrantInvalid).cause(cause));
            }
            Some(path) => {
                let file = Some(program::look(&path, true)?.state);
                Some(Program { path, file, script })
            }
            None => None,
        };
        // A request is in the folder that the kernel says, which has no links in its path.
        let real = |folder: String| match std::fs::canonicalize(&folder) {
            Ok(real) if real.is_dir() => Ok(real.display().to_string()),
            _ => Err(Fault::new(Code::GrantInvalid).cause(format!("{folder} is not a folder"))),
        };
        Ok(Scope { program, launcher: None, project: project.map(real).transpose()? })
    })
    .await
}

fn grant(
    open: &Open,
    tools: &Tools,
    request: &GrantPutRequest,
    scope: Scope,
    id: GrantId,
    now: Now,
) -> Result<Grant<RunId>, Fault> {
    let invalid = |cause: String| Fault::new(Code::GrantInvalid).cause(cause);
    let profile = Name::parse(&request.profile).map_err(|e| e.fault())?;
    let stored = open.profiles.get(&profile);
    let stored =
        stored.ok_or_else(|| Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{profile}`")))?;
    if stored.profile.confirm {
        return Err(invalid(format!("`{profile}` asks for the passphrase at each use")));
    }
    let weakest = request.weakest.map_or(DeliveryMode::Env, crate::runs::core_mode);
    let program = match (&scope.program, &scope.launcher) {
        (Some(program), _) => program.path.as_str(),
        (None, Some((launcher, _))) => launcher.written_program(),
        (None, None) => "",
    };
    deliverable(&stored.profile, tools, program, weakest)?;
    let app = match (scope.program, scope.launcher) {
        (Some(program), _) => AppScope::Program(program),
        (None, Some((read, file))) => {
            if !open.launchers.get(&launcher_key(read.name())).is_some_and(|stored| stored.is_still(&read)) {
                return Err(invalid("the launcher was changed meanwhile".to_owned()));
            }
            AppScope::Launcher(read.id, Some(file))
        }
        (None, None) => AppScope::Any,
    };
    let life = request.for_s.map_or(Term::USUAL, Duration::from_secs);
    if life < SHORTEST {
        return Err(invalid("it would hold for less than a minute".to_owned()));
    }
    if request.uses == Some(0) {
        return Err(invalid("it would allow nothing".to_owned()));
    }
    let from = moment(now).ok_or_else(|| Fault::new(Code::PlatformUnsupported).cause("the boot cannot be told"))?;
    Ok(Grant {
        id,
        span: Span::Standing,
        app,
        project: scope.project,
        profile,
        weakest,
        term: Term::new(from, life).map_err(invalid)?,
        uses_left: request.uses,
        run: None,
        request: None,
        created: now.wall,
        allowed: 0,
        last_allowed: None,
    })
}

/// A grant that can be changed.
fn editable(open: &Open, id: &str) -> Result<Grant<RunId>, Fault> {
    let found = GrantId::parse(id).and_then(|id| open.grants.get(id)).cloned();
    let grant = found.ok_or_else(|| Fault::new(Code::GrantUnknown).cause("none that is not used up has this id"))?;
    if grant.span != Span::Standing {
        let cause = "it was given for one request or one run, and can be revoked only";
        return Err(Fault::new(Code::GrantInvalid).cause(cause));
    }
    Ok(grant)
}

/// The id of a grant that there is, or that is used up: runs may hold something under it.
fn known(open: &Open, id: &str, now: Now) -> Result<GrantId, Fault> {
    let used_up = |id| open.grants.used_up(now.boot).any(|grant| grant.id == id);
    let found = GrantId::parse(id).filter(|id| open.grants.get(*id).is_some() || used_up(*id));
    found.ok_or(Fault::new(Code::GrantUnknown))
}

fn message(open: &Open, grant: &Grant<RunId>, now: Now) -> GrantMsg {
    let (program, launcher) = match &grant.app {
        AppScope::Any => (None, None),
        AppScope::Program(program) => (Some(program.clone()), None),
        AppScope::Launcher(id, _) => {
            let stored = open.launchers.values().find(|stored| stored.id == *id);
            (None, Some(stored.map_or_else(|| "?".to_owned(), |stored| stored.name().to_owned())))
        }
    };
    let (program, script) = program.map(|program| (program.path, program.script)).unzip();
    GrantMsg {
        grant: grant.id.to_string(),
        span: match grant.span {
            Span::Once => GrantSpan::Once,
            Span::Run => GrantSpan::Run,
            Span::Standing => GrantSpan::Standing,
        },
        profile: grant.profile.to_string(),
        program,
        script: script.flatten(),
        equal_to: None,
        launcher,
        project: grant.project.clone(),
        run: grant.run.map(|run| run.to_string()),
        weakest: wire_mode(grant.weakest),
        created_at: grant.created.to_rfc3339(),
        until: now.wall_at(grant.until()).to_rfc3339(),
        uses_left: grant.uses_left,
        allowed: grant.allowed,
        last_allowed_at: grant.last_allowed.map(Wall::to_rfc3339),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::renew::tests::{Folder, open_broker};
    use keyward_core::Grants;
    use std::os::unix::net::UnixStream;

    const PROFILE: &str = "[issuer]\nkind = \"command\"\nargv = [\"/bin/true\"]\n[delivery]\nenv = { T = \"token\" }\n";

    fn standing(n: u32) -> Grant<RunId> {
        let [a, b, c, d] = n.to_be_bytes();
        Grant {
            id: GrantId([1, a, b, c, d]),
            span: Span::Standing,
            app: AppScope::Launcher([7; 16], Some((1, 2, 3))),
            project: Some("/p".to_owned()),
            profile: Name::parse("p").unwrap(),
            weakest: DeliveryMode::Env,
            term: Term::new(moment(now()).unwrap(), Term::USUAL).unwrap(),
            uses_left: None,
            run: None,
            request: None,
            created: now().wall,
            allowed: 0,
            last_allowed: None,
        }
    }

    #[tokio::test]
    async fn a_row_that_is_no_grant_is_removed_and_keeps_no_vault_closed() {
        let folder = Folder::new("rows");
        let broker = open_broker(&folder.0, PROFILE).await;
        let mut state = broker.state().await;
        let open = state.open().unwrap();
        let unreadable = |id, body: &str| Write::PutGrant(keyward_store::Grant { id, body: body.to_owned() });
        let long = AppScope::Program(Program {
            path: "/usr/bin/python3".to_owned(),
            file: None,
            script: Some(format!("/{}", "x".repeat(2048))),
        });
        let rows = vec![
            row(&standing(1)),
            row(&Grant { project: Some(String::new()), ..standing(2) }),
            row(&Grant { app: long, ..standing(3) }),
            unreadable([9; 5], "{}"),
            unreadable([8; 5], "no JSON"),
        ];
        open.commit(&broker, rows, vec![entry(Kind::GrantAdded, now())]).await.unwrap();

        let (writes, entries) = broker.load_grants(open, now()).await.unwrap();
        let loaded: Vec<_> = open.grants.iter().cloned().collect();
        assert_eq!((loaded.len(), loaded[0].id, &loaded[0].app), (1, standing(1).id, &standing(1).app));
        let mut gone: Vec<_> = [standing(2).id, standing(3).id, GrantId([9; 5]), GrantId([8; 5])].into();
        gone.sort_unstable();
        let mut removed: Vec<_> = writes
            .iter()
            .map(|write| if let Write::RemoveGrant(id) = write { GrantId(*id) } else { GrantId([0; 5]) })
            .collect();
        removed.sort_unstable();
        assert_eq!(removed, gone);
        assert_eq!(entries.iter().map(|draft| draft.kind).collect::<Vec<_>>(), [Kind::GrantExpired; 4]);

        open.commit(&broker, writes, entries).await.unwrap();
        assert_eq!(open.store.grants().await.unwrap().len(), 1);
        let (writes, entries) = broker.load_grants(open, now()).await.unwrap();
        assert!(writes.is_empty() && entries.is_empty(), "they are gone for good");
    }

    #[tokio::test]
    async fn a_yes_without_room_is_refused_and_stores_nothing() {
        let folder = Folder::new("room");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Arc::new(Peer::pin(&ours, 1).unwrap().refresh());
        let request = serde_json::json!({"profiles": ["p"], "variables": [],
            "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        let asked = broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await;
        assert_eq!(asked.err().map(|fault| fault.code), Some(Code::ApprovalNeeded));
        let card = broker.approvals().await.unwrap().remove(0);
        for n in 0..u32::try_from(Grants::<RunId>::MAX).unwrap() {
            let grant = Grant { profile: Name::parse("other").unwrap(), ..standing(n) };
            broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        }

        let answer = serde_json::json!({"digest": card.digest, "decision": "once"});
        let answer = broker.approval_answer(&peer, Role::Operator, &card.id, serde_json::from_value(answer).unwrap());
        assert_eq!(answer.await.err().map(|fault| fault.code), Some(Code::GrantInvalid));
        assert_eq!(broker.approvals().await.unwrap()[0].state, keyward_api::ApprovalState::Open);
        assert!(broker.state().await.open().unwrap().store.grants().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_is_remembered_as_asked_about_a_grant_that_is_gone() {
        let folder = Folder::new("asked");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (kept, gone) = (standing(1), standing(2));
        let ids = [kept.id, gone.id];
        {
            let mut state = broker.state().await;
            let open = state.open().unwrap();
            open.grants.insert(kept).unwrap();
            open.grants.insert(gone).unwrap();
            state.asked_to_extend.extend(ids);
            forget(state.open().unwrap(), &ids[1..]);
        }
        broker.tick().await;
        assert_eq!(broker.state().await.asked_to_extend.iter().copied().collect::<Vec<_>>(), [ids[0]]);
    }
}
