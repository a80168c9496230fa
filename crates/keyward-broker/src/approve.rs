//! Requests that wait for a person: cards, those who wait for the answer, and what an answer makes.
//!
//! A request without a live grant becomes a card. A yes is a grant, so that a delivery has one way: whoever waited, and
//! whoever comes again, goes by it. The rules of cards are `keyward_core::Approvals`'; here they meet the log and those who
//! wait. Never shows what it did not escape, and never counts an answer to something else than was shown.

use crate::broker::{Broker, State, entry, facts};
use crate::card;
use crate::grants::{EXTEND_AHEAD, added, make_id, moment, row};
use crate::operator::{is_person, marked, word};
use crate::peer::Peer;
use crate::platform::{self, now};
use crate::project::ProjectAsk;
use crate::runs::RunId;
use crate::want::{Ground, Want, Wanted};
use keyward_api::{ApprovalAnswerRequest, ApprovalMsg, ProcessMsg, WantedMsg};
use keyward_core::audit::{Draft, Kind, Outcome, at_text};
use keyward_core::{
    AppScope, Approval, ApprovalId, ApprovalKind, ApprovalState, Asked, Asker, Boot, Decision, DeliveryMode, Grant,
    GrantId, Grants, Name, Now, ProcessId, Question, Role, Span, Term,
};
use keyward_crypto::make_array;
use keyward_diag::{Code, Fault};
use keyward_store::{Changes, Filter, Store, Write};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Requests that may wait at once: each holds a connection.
const WAITING_MAX: usize = 64;
/// Those of one asker.
const WAITING_OF_ONE: usize = 8;
/// Places to wait that are kept for persons and for runs at a fence.
const WAITING_KEPT: usize = 16;
/// Cards that requesters can bring up in [`BURST`]: each is two entries at least, and something on a screen.
const BURST_MAX: usize = 24;
/// Those of one requester, and by themselves those at the fences of one run.
pub(crate) const BURST_OF_ONE: usize = 6;
/// See [`BURST_MAX`].
pub(crate) const BURST: Duration = Duration::from_secs(12);
/// Shortest time for which a person can allow an app in a project.
const SHORTEST_S: u64 = 60;

/// What is kept with a request: the card as it is shown, and what a yes does.
#[derive(Debug)]
pub(crate) struct Card {
    /// Without what changes while it is open.
    shown: ApprovalMsg,
    /// How often each profile of it was allowed and denied before.
    before: OnceLock<Vec<(u64, u64)>>,
    /// The card that took its place.
    replaced_by: OnceLock<ApprovalId>,
    plea: Plea,
}

impl Card {
    fn new(shown: ApprovalMsg, plea: Plea) -> Self {
        Self { shown, before: OnceLock::new(), replaced_by: OnceLock::new(), plea }
    }
}

/// What a yes does.
#[derive(Debug)]
enum Plea {
    /// Makes a grant for each of the profiles.
    Deliver(Box<Wish>),
    /// Lets those go on who wait, and nothing else.
    GoOn,
    /// Lets a run keep for another day what it holds under a grant.
    Extend(RunId, GrantId),
}

/// A yes to a request for deliveries, as grants are made of it.
#[derive(Debug)]
struct Wish {
    app: AppScope,
    project: Option<String>,
    profiles: Vec<(Name, DeliveryMode)>,
    outer: Option<RunId>,
    request: [u8; 32],
    /// The grants hold for an equal request alone.
    exact: bool,
    review: Option<(Write, Draft)>,
}

/// Who waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct Attending {
    waiting: Vec<Waiting>,
    /// Those who asked, each with whether it went away without waiting, and may come again.
    askers: BTreeMap<ProcessId, bool>,
}

/// One who waits for an answer.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    asker: Asker<RunId>,
    /// Where to tell the answer.
    tell: oneshot::Sender<ApprovalState>,
}

/// What the kernel and the project say of a request, read outside of the lock.
struct Seen {
    chain: Vec<ProcessMsg>,
    branch: Option<String>,
}

impl Broker {
    /// Goes on with a request that a live grant allows, or the operator has announced; asks a person for any other one.
    ///
    /// # Errors
    /// [`Code::ApprovalNeeded`] where the caller does not wait, [`Code::ApprovalDenied`], [`Code::ApprovalUnanswered`],
    /// [`Code::ApprovalOver`], [`Code::ApprovalFlood`].
    pub(crate) async fn permit(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        role: Role<RunId>,
        want: &mut Want,
        wait: bool,
    ) -> Result<(), Fault> {
        let missing = {
            let mut state = self.state_for_request().await?;
            let now = now();
            if self.launched_by_operator(&state, want, now) {
                return Ok(());
            }
            self.delivering(&mut state)?;
            let found = want.grounds(&state, now);
            if want.change().is_none() && found.iter().all(Option::is_some) {
                return Ok(());
            }
            missing(want, &found)
        };
        let seen = Seen { chain: card::chain(peer), branch: card::branch(&want.project).await };
        let answer = {
            let mut state = self.state_for_request().await?;
            let now = now();
            let shown = self.card(&state, want, &missing, &seen)?;
            // What is to be looked at first is no part of what comes again.
            want.request = card::digest(&ApprovalMsg { file_change: None, ..shown.clone() }, &want.whole);
            self.delivering(&mut state)?;
            let found = want.grounds(&state, now);
            if want.change().is_none() && found.iter().all(Option::is_some) {
                return Ok(());
            }
            let question = self.question(peer, role, want, &missing, shown, now)?;
            let asker = question.asker;
            if wait {
                room_to_wait(&state, asker, question.reserved)?;
            }
            let (id, counting) = self.ask(&mut state, question, Some(peer), now).await?;
            state.attending.entry(id).or_default().askers.insert(peer.process(), !wait);
            if !wait {
                let marked = marked(&state, peer, now.boot);
                drop(state);
                if let Some(counting) = counting {
                    // Whoever is told of the card reads all of it.
                    let _ = counting.await;
                }
                let fault = Fault::new(Code::ApprovalNeeded)
                    .cause(format!("run `keyward approve {id}` in a terminal of yours"));
                return Err(marked.into_iter().fold(fault, Fault::cause));
            }
            Self::attend(&mut state, id, asker, peer.connection())
        };
        self.answered(answer).await?;
        want.is_unchanged().await?;
        // What changed in the file was looked at with it.
        want.file = None;
        // It waited, and may have come to lie elsewhere meanwhile.
        let fresh = peer.refresh();
        let state = self.state_for_request().await?;
        let outer = |role| if let Role::InsideRun(run) = role { Some(run) } else { None };
        if outer(self.role(&state, &fresh)?) != want.outer {
            return Err(Fault::new(Code::RunGone).cause("the process lies in another run than when it asked"));
        }
        Ok(())
    }

    /// Whether the operator has announced this very launch, which names neither a form nor a time, and has started the process
    /// that asks. One of a profile that asks for the passphrase at each use is asked about all the same, and so is one that a
    /// terminal server has started: anybody could have asked it to.
    pub(crate) fn launched_by_operator(&self, state: &State, want: &Want, now: Now) -> bool {
        let announced = |launch| state.expected.is_granted(launch, &want.parents, now.boot);
        let announced = want.launcher.as_ref().is_some_and(|(launch, ..)| announced(launch));
        announced
            && want.outer.is_none()
            && want.usual
            && want.change().is_none()
            && !want.deliveries.iter().any(|w| w.profile.confirm)
    }

    /// The card of a request.
    fn card(&self, state: &State, want: &Want, missing: &[Name], seen: &Seen) -> Result<ApprovalMsg, Fault> {
        let outer = want.outer.and_then(|run| state.runs.get(&run));
        let asked: Vec<&Wanted> =
            want.deliveries.iter().filter(|wanted| missing.contains(&wanted.profile.name)).collect();
        let wanted = |wanted: &&Wanted| card::wanted(&wanted.profile, wanted.mode, wanted.ttl);
        let confirm = asked.iter().any(|wanted| wanted.profile.confirm);
        let ttl = asked.iter().map(|wanted| wanted.ttl).max();
        let what = match want.kind {
            ApprovalKind::Token => format!("the credential of {} itself", card::names(missing)),
            ApprovalKind::Run | ApprovalKind::Fence | ApprovalKind::Extend => card::names(missing),
        };
        let ttl = ttl.filter(|_| want.kind == ApprovalKind::Run);
        let lasting = match (want.kind, want.outer) {
            (_, Some(_)) if confirm => vec![],
            (ApprovalKind::Token, None) => vec![],
            _ => vec![Decision::Run],
        };
        let whoever = want.anything || want.kind == ApprovalKind::Token;
        let standing = !confirm && !whoever && want.in_project && want.outer.is_none();
        let standing = standing.then_some(Decision::Project);
        let choices = [Decision::Once].into_iter().chain(lasting).chain(standing);
        let mut said = Vec::new();
        for (name, is_said) in [
            ("app", !want.verified),
            ("program", !want.verified),
            ("project", !want.in_project),
            // Anybody can add a launcher.
            ("launcher", want.launcher.is_some()),
            ("command", want.command.is_some()),
            ("reason", want.reason.is_some()),
        ] {
            if is_said {
                said.push(name.to_owned());
            }
        }
        let change = want.change().map(|lines| lines.iter().map(|line| keyward_core::shown(line, 200)).collect());
        Ok(ApprovalMsg {
            id: String::new(),
            kind: wire_kind(want.kind),
            state: keyward_api::ApprovalState::Open,
            replaced_by: None,
            digest: String::new(),
            question: card::question(&want.app, &what, ttl, &want.project, outer.map(|run| run.app.as_str())),
            app: card::name(&want.app),
            program: keyward_core::shown(&want.program.path, card::PATH_MAX),
            verified: want.verified,
            launcher: want.launcher.as_ref().map(|(_, name, _)| card::name(name)),
            chain: seen.chain.clone(),
            outer_run: want.outer.map(|run| run.to_string()),
            outer_app: outer.map(|run| card::name(&run.app)),
            project: keyward_core::shown(&want.project, card::PATH_MAX),
            branch: seen.branch.clone(),
            command: want.command.clone(),
            reason: want.reason.as_deref().map(card::reason),
            said,
            wanted: asked.iter().map(wanted).collect(),
            file_change: change,
            merged: 1,
            asked_at: String::new(),
            changed_at: String::new(),
            until: String::new(),
            choices: choices.map(wire_decision).collect(),
            confirm,
        })
    }

    fn question(
        &self,
        peer: &Peer,
        role: Role<RunId>,
        want: &Want,
        missing: &[Name],
        shown: ApprovalMsg,
        now: Now,
    ) -> Result<Question<RunId, Card>, Fault> {
        let app = match &want.launcher {
            // Whoever has the other end of the pipe gets it, whatever the program is that asks.
            _ if want.kind == ApprovalKind::Token => AppScope::Any,
            Some(launch) if launch.2 => AppScope::Launcher(launch.0.launcher, want.program.file),
            _ => AppScope::Program(want.program.clone()),
        };
        let asked = want.deliveries.iter().filter(|wanted| missing.contains(&wanted.profile.name));
        let text = want.file.as_ref().map(ProjectAsk::digest).unwrap_or_default();
        let review = want.file.as_ref().filter(|file| file.change.is_some());
        let wish = Wish {
            app,
            project: want.in_project.then(|| want.project.clone()),
            profiles: asked.map(|wanted| (wanted.profile.name.clone(), wanted.mode)).collect(),
            outer: want.outer,
            request: want.request,
            exact: shown.confirm || !want.in_project || want.anything,
            review: review.map(|file| file.review(entry(Kind::ProjectReviewed, now))),
        };
        // A client is started anew for each request: who asks is the process that starts it.
        let started_by = peer.parents()?.first().filter(|parent| parent.pid > 1);
        Ok(Question {
            id: ApprovalId(make_array().map_err(|e| Fault::new(Code::Internal).cause(e))?),
            kind: want.kind,
            asker: match want.outer {
                Some(run) => Asker::Run(run),
                None => Asker::Process(started_by.copied().unwrap_or_else(|| peer.process())),
            },
            reserved: is_person(role),
            app: want.program.script.as_ref().unwrap_or(&want.program.path).clone(),
            project: want.project.clone(),
            profiles: missing.to_vec(),
            digest: card::digest(&shown, &[&want.whole, text.as_bytes()].concat()),
            choices: shown.choices.iter().copied().map(core_decision).collect(),
            body: Card::new(shown, Plea::Deliver(Box::new(wish))),
        })
    }

    /// Makes a card, or counts the request on the one that is there; recorded before anybody can answer it. With a new card,
    /// gives the task that counts how such requests were answered before.
    async fn ask(
        self: &Arc<Self>,
        state: &mut State,
        question: Question<RunId, Card>,
        peer: Option<&Peer>,
        now: Now,
    ) -> Result<(ApprovalId, Option<JoinHandle<()>>), Fault> {
        self.end_unanswered(state, now).await;
        if let Some(peer) = peer
            && let Some(id) = asked_already(state, &question, peer.process())
        {
            return Ok((id, None));
        }
        let paced = !question.reserved || question.kind == ApprovalKind::Fence;
        if paced {
            hurried(state, &question, now)?;
        }
        let store = Arc::clone(&self.recording(state)?.store);
        let (id, app) = (question.id, question.body.shown.app.clone());
        let draft = card_entry(Kind::ApprovalAsked, now, &question)
            .detail("kind", kind_word(question.kind))
            .detail("question", question.body.shown.question.clone());
        let draft = match peer {
            Some(peer) => draft.peer(facts(peer)),
            None => draft,
        };
        let (kind, asker) = (question.kind, question.asker);
        let filter = Filter {
            kind: Some(Kind::ApprovalAnswered.name().to_owned()),
            app: Some(app.clone()),
            project: Some(question.project.clone()),
            ..Filter::default()
        };
        let profiles = question.profiles.clone();
        match state.approvals.ask(question, now) {
            Asked::New { replaced } => {
                if paced {
                    state.recent_cards.push_back((kind, asker, now.boot));
                }
                let mut entries = vec![draft];
                for former in replaced {
                    if let Some(former) = state.approvals.get(former) {
                        let _ = former.question.body.replaced_by.set(id);
                    }
                    entries.extend(self.withdrawn(state, former, "it was asked anew in another form", now));
                }
                if let Err(fault) = self.recording(state)?.commit(self, Vec::new(), entries).await {
                    state.approvals.withdraw(id, now);
                    return Err(fault);
                }
                self.wake.notify_one();
                let broker = Arc::clone(self);
                let counting = async move { broker.count_before(id, &store, filter, &profiles).await };
                Ok((id, Some(tokio::spawn(counting))))
            }
            Asked::Merged { id, count } => {
                let data = json!({"id": id.to_string(), "state": "open", "merged": count});
                self.events.publish("approval", &data);
                Ok((id, None))
            }
            Asked::CoolingDown(until) => {
                let left = until.since(now.boot).as_secs() + 1;
                Err(Fault::new(Code::ApprovalDenied)
                    .cause(format!("{app}: it is asked again in {left} s at the earliest")))
            }
            Asked::Full => Err(Fault::new(Code::ApprovalFlood)),
        }
    }

    /// Adds to a card how often each of its profiles was allowed and denied before. The log is read without the lock on the
    /// state, which it may take a while to read.
    async fn count_before(&self, id: ApprovalId, store: &Store, filter: Filter, profiles: &[Name]) {
        let before = answers_before(store, filter, profiles).await;
        let state = self.state().await;
        let Some(approval) = state.approvals.get(id) else { return };
        let _ = approval.question.body.before.set(before);
        if approval.state == ApprovalState::Open {
            let data = json!({"id": id.to_string(), "state": "open", "merged": approval.merged});
            self.events.publish("approval", &data);
        }
    }

    /// Waits with the others for the answer to a card.
    fn attend(
        state: &mut State,
        id: ApprovalId,
        asker: Asker<RunId>,
        connection: u64,
    ) -> oneshot::Receiver<ApprovalState> {
        let (tell, answer) = oneshot::channel();
        state.attending.entry(id).or_default().waiting.push(Waiting { connection, asker, tell });
        answer
    }

    async fn answered(&self, answer: oneshot::Receiver<ApprovalState>) -> Result<(), Fault> {
        let mut stop = self.stop.subscribe();
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or(ApprovalState::Withdrawn),
            _ = stop.wait_for(|s| *s) => return Err(Fault::new(Code::VaultLocked).cause("the broker stops")),
        };
        match answer {
            ApprovalState::Allowed(_) => Ok(()),
            ApprovalState::Denied => Err(Fault::new(Code::ApprovalDenied)),
            ApprovalState::Unanswered => Err(Fault::new(Code::ApprovalUnanswered)),
            ApprovalState::Open | ApprovalState::Withdrawn => {
                self.unlocked(&mut *self.state_for_request().await?)?;
                Err(Fault::new(Code::ApprovalOver).cause(
                    "it was withdrawn: a profile of it was changed, or the same asker has asked for something else",
                ))
            }
        }
    }

    /// Tells those who wait how it ended.
    fn tell(state: &mut State, id: ApprovalId, how: ApprovalState) {
        for waiting in state.attending.remove(&id).unwrap_or_default().waiting {
            // One that went away needs no answer.
            let _ = waiting.tell.send(how);
        }
    }

    /// Tells those who wait that a card is withdrawn; gives the entries of it.
    fn withdrawn(&self, state: &mut State, id: ApprovalId, why: &str, now: Now) -> Vec<Draft> {
        Self::tell(state, id, ApprovalState::Withdrawn);
        let approval = state.approvals.get(id);
        approval
            .map(|approval| card_entry(Kind::ApprovalWithdrawn, now, &approval.question).detail("why", why))
            .into_iter()
            .collect()
    }

    /// The rights that persons have proven end, and nothing waits any longer: the vault is locked. Gives what is to be
    /// recorded of it.
    pub(crate) fn end_rights(&self, state: &mut State, now: Now) -> Vec<Draft> {
        state.proofs.locked();
        let ids = state.approvals.withdraw_where(now, |_| true);
        ids.into_iter().flat_map(|id| self.withdrawn(state, id, "the vault was locked", now)).collect()
    }

    /// A connection has closed: what was proven on it is over, and what it waited for alone is withdrawn.
    pub(crate) async fn stop_waiting(&self, state: &mut State, connection: u64, now: Now) {
        state.proofs.closed(connection);
        self.withdraw_without(state, |waiting| waiting.connection == connection, now).await;
    }

    /// A call at a fence waits no longer: what it waited for alone is withdrawn.
    pub(crate) async fn stop_at_fence(&self) {
        let mut state = self.state().await;
        self.withdraw_without(&mut state, |waiting| waiting.tell.is_closed(), now()).await;
    }

    /// Withdraws what only those have waited for that are gone.
    async fn withdraw_without(&self, state: &mut State, is_gone: impl Fn(&Waiting) -> bool, now: Now) {
        let mut left = Vec::new();
        for (id, attending) in &mut state.attending {
            let before = attending.waiting.len();
            attending.waiting.retain(|waiting| !is_gone(waiting));
            if attending.waiting.len() < before
                && attending.waiting.is_empty()
                && !attending.askers.values().any(|went| *went)
            {
                left.push(*id);
            }
        }
        let mut entries = Vec::new();
        for id in left {
            if state.approvals.withdraw(id, now) {
                entries.extend(self.withdrawn(state, id, "all who asked are gone", now));
            }
        }
        self.note(state, entries).await;
    }

    /// A run is over: nothing is asked about it any longer, nor from inside of it.
    pub(crate) async fn stop_asking(&self, state: &mut State, run: RunId, now: Now) {
        let ids = state.approvals.withdraw_where(now, |question| question.asker == Asker::Run(run));
        let entries = ids.into_iter().flat_map(|id| self.withdrawn(state, id, "the run has ended", now)).collect();
        self.note(state, entries).await;
    }

    /// A profile is another one, or gone: what was asked for it before was another question. Gives what is to be recorded of it.
    pub(crate) fn stop_asking_for(&self, state: &mut State, profile: &Name, why: &str, now: Now) -> Vec<Draft> {
        let ids = state.approvals.withdraw_where(now, |question| {
            matches!(question.kind, ApprovalKind::Run | ApprovalKind::Token) && question.profiles.contains(profile)
        });
        ids.into_iter().flat_map(|id| self.withdrawn(state, id, why, now)).collect()
    }

    /// Records what has happened; what cannot be recorded is recorded later.
    async fn note(&self, state: &mut State, entries: Vec<Draft>) {
        if entries.is_empty() {
            return;
        }
        let recorded = match state.open() {
            Some(open) => open.commit(self, Vec::new(), entries.clone()).await.is_ok(),
            None => false,
        };
        if !recorded {
            state.owe(Changes::record(entries));
        }
    }

    /// What nobody answered in time is answered with no.
    pub(crate) async fn end_unanswered(&self, state: &mut State, now: Now) {
        let mut entries = Vec::new();
        for id in state.approvals.unanswered(now) {
            Self::tell(state, id, ApprovalState::Unanswered);
            if let Some(approval) = state.approvals.get(id) {
                entries.extend(answer_entries(&approval.question, "unanswered", Outcome::Failed, now));
            }
        }
        self.note(state, entries).await;
    }

    /// All that waits, then the last answers.
    pub(crate) async fn approvals(&self) -> Result<Vec<ApprovalMsg>, Fault> {
        let mut state = self.state_for_request().await?;
        self.unlocked(&mut state)?;
        let now = now();
        Ok(state.approvals.iter().map(|approval| message(approval, now)).collect())
    }

    /// Answers a card. To allow takes a person: the connection of an operator, or a proof in the answer.
    pub(crate) async fn approval_answer(
        self: &Arc<Self>,
        peer: &Peer,
        role: Role<RunId>,
        id: &str,
        request: ApprovalAnswerRequest,
    ) -> Result<(), Fault> {
        let id = ApprovalId::parse(id).ok_or(Fault::new(Code::ApprovalUnknown))?;
        let decision = core_decision(request.decision);
        let mut digest = [0; 32];
        hex::decode_to_slice(&request.digest, &mut digest).map_err(|_| Fault::new(Code::ApprovalChanged))?;
        let life = request.for_s.map_or(Term::USUAL, Duration::from_secs);
        if life > Term::CEILING || life.as_secs() < SHORTEST_S {
            return Err(Fault::new(Code::RequestInvalid).cause("a time is 60 to 86,400 seconds"));
        }
        let by = match decision {
            Decision::Deny => None,
            Decision::Once | Decision::Run | Decision::Project => {
                let confirm = {
                    let mut state = self.state_for_request().await?;
                    self.unlocked(&mut state)?;
                    state.approvals.get(id).is_some_and(|approval| approval.question.body.shown.confirm)
                };
                if confirm && request.proof.is_none() {
                    let cause = "a profile of it asks for the passphrase at each use";
                    return Err(Fault::new(Code::PassphraseNeeded).cause(cause));
                }
                Some(self.person(role, request.proof).await?)
            }
        };
        let mut state = self.state_for_request().await?;
        let now = now();
        let open = self.unlocked(&mut state)?;
        if by.is_some() {
            open.last_action = now.boot;
        }
        self.end_unanswered(&mut state, now).await;
        // Looked at before the answer counts: a grant that is none by the rules would be in the vault for good.
        let grants = grants_of(&state, id, digest, decision, life, now)?;
        let successor = state.approvals.get(id).and_then(|approval| approval.question.body.replaced_by.get().copied());
        let approval = state.approvals.answer(id, digest, decision, now).map_err(|refused| {
            let told = successor.map(|id| format!("another request took its place: `keyward approve {id}`"));
            told.into_iter().fold(refused.fault(), Fault::cause)
        })?;
        let (answer, outcome) = match decision {
            Decision::Deny => ("denied", Outcome::Refused),
            Decision::Once | Decision::Run | Decision::Project => ("allowed", Outcome::Ok),
        };
        let mut entries: Vec<Draft> = answer_entries(&approval.question, answer, outcome, now)
            .into_iter()
            .map(|draft| {
                let draft = draft.peer(facts(peer)).detail("role", word(role));
                by.into_iter().fold(draft, |draft, by| draft.detail("by", by).detail("how", decision_word(decision)))
            })
            .collect();
        let (mut writes, mut extended) = (Vec::new(), None);
        if decision != Decision::Deny {
            match &approval.question.body.plea {
                Plea::Deliver(wish) => {
                    if let Some((write, draft)) = &wish.review {
                        writes.push(write.clone());
                        entries.push(draft.clone().peer(facts(peer)));
                    }
                }
                Plea::GoOn => {}
                Plea::Extend(run, grant) => extended = Some((*run, *grant)),
            }
        }
        writes.extend(grants.iter().map(row));
        entries.extend(grants.iter().map(|grant| added(grant, now, peer)));
        let how = if decision == Decision::Deny { ApprovalState::Denied } else { ApprovalState::Allowed(decision) };
        let recorded = match state.open() {
            Some(open) => open.commit(self, writes, entries).await,
            None => Err(self.closed()),
        };
        if let Err(fault) = recorded {
            // What was not recorded did not happen: nobody goes on by it.
            Self::tell(&mut state, id, ApprovalState::Withdrawn);
            return Err(fault);
        }
        if let Some(open) = state.open() {
            for grant in grants {
                let id = grant.id;
                // Those who wait are told all the same.
                if let Err(e) = open.grants.insert(grant) {
                    tracing::error!(grant = %id, "a grant could not be kept: {e}");
                }
            }
        }
        if let Some((run, grant)) = extended {
            self.extend_run(&mut state, run, grant, now).await?;
        }
        Self::tell(&mut state, id, how);
        self.wake.notify_one();
        Ok(())
    }

    /// Asks a person whether a run may go on at a fence, and waits for the answer, at most 120 s. Equal questions are one card.
    ///
    /// # Errors
    /// [`Code::ApprovalDenied`], [`Code::ApprovalUnanswered`], [`Code::ApprovalFlood`]; [`Code::RunGone`] for a run that is over.
    pub(crate) async fn await_fence(
        self: &Arc<Self>,
        run: RunId,
        profile: &Name,
        text: Vec<String>,
    ) -> Result<(), Fault> {
        let answer = {
            let mut state = self.state().await;
            let now = now();
            let (first, rest) = text.split_first().map_or(("goes on", &[][..]), |(first, rest)| (first.as_str(), rest));
            let about = self.about_run(&mut state, run, profile, ApprovalKind::Fence)?;
            let shown = ApprovalMsg {
                question: keyward_core::shown(first, 300),
                wanted: about
                    .wanted
                    .iter()
                    .cloned()
                    .map(|wanted| WantedMsg {
                        reach: rest.iter().map(|line| keyward_core::shown(line, 300)).collect(),
                        ..wanted
                    })
                    .collect(),
                choices: vec![keyward_api::Decision::Once],
                ..about
            };
            let question = of_run(run, profile, ApprovalKind::Fence, shown, Plea::GoOn)?;
            let asker = question.asker;
            room_to_wait(&state, asker, question.reserved)?;
            let (id, _) = self.ask(&mut state, question, None, now).await?;
            Self::attend(&mut state, id, asker, 0)
        };
        self.answered(answer).await
    }

    /// A card about a run that is there, without its question.
    fn about_run(
        &self,
        state: &mut State,
        run: RunId,
        profile: &Name,
        kind: ApprovalKind,
    ) -> Result<ApprovalMsg, Fault> {
        let gone = || Fault::new(Code::RunGone).cause("the run is over");
        let stored = self.recording(state)?.profiles.get(profile).map(|stored| stored.profile.clone());
        let stored = stored.ok_or_else(gone)?;
        let run = state.runs.get(&run).filter(|run| run.ended.is_none()).ok_or_else(gone)?;
        let held = run.leases.iter().find(|held| held.profile == *profile).ok_or_else(gone)?;
        let process = run.process;
        let name = platform::program_path(process);
        let name = name.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or("?");
        Ok(ApprovalMsg {
            id: String::new(),
            kind: wire_kind(kind),
            state: keyward_api::ApprovalState::Open,
            replaced_by: None,
            digest: String::new(),
            question: String::new(),
            app: card::name(&run.app),
            program: String::new(),
            verified: run.app_verified,
            launcher: run.launcher().map(card::name),
            chain: vec![ProcessMsg { pid: process.pid, name: card::name(name) }],
            outer_run: Some(run.id.to_string()),
            outer_app: Some(card::name(&run.app)),
            project: keyward_core::shown(&run.project, card::PATH_MAX),
            branch: None,
            command: None,
            reason: None,
            said: Vec::new(),
            wanted: vec![card::wanted(&stored, held.lease.mode, Duration::ZERO)],
            file_change: None,
            merged: 1,
            asked_at: String::new(),
            changed_at: String::new(),
            until: String::new(),
            choices: vec![keyward_api::Decision::Run],
            confirm: stored.confirm,
        })
    }

    /// Asks, once each, about the grants for a run that end soon, while the run uses them.
    pub(crate) async fn ask_extensions(self: &Arc<Self>, state: &mut State, now: Now) {
        for (run, grant, profile) in ending_soon(state, now) {
            state.asked_to_extend.insert(grant);
            let Ok(about) = self.about_run(state, run, &profile, ApprovalKind::Extend) else { continue };
            let question = format!("{} has used {profile} for a day; it ends in 15 minutes. May it go on?", about.app);
            let shown = ApprovalMsg { question, ..about };
            let Ok(question) = of_run(run, &profile, ApprovalKind::Extend, shown, Plea::Extend(run, grant)) else {
                continue;
            };
            match self.ask(state, question, None, now).await {
                Ok(_) => {}
                Err(fault) => tracing::warn!(run = %run, code = %fault.code, "nobody could be asked to extend a run"),
            }
        }
    }

    /// When somebody is to be asked about a grant for a run.
    pub(crate) fn extension_due(state: &State) -> Option<Boot> {
        of_runs(state).map(|(_, grant)| Boot(grant.until().0.saturating_sub(EXTEND_AHEAD))).min()
    }

    /// Lets a run keep for another day, as the profile allows, what it holds under a grant for runs.
    async fn extend_run(&self, state: &mut State, id: RunId, asked: GrantId, now: Now) -> Result<(), Fault> {
        let from = moment(now).ok_or_else(|| Fault::new(Code::PlatformUnsupported).cause("the boot cannot be told"))?;
        let term = Term::new(from, Term::CEILING).map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let (Some(open), runs, _) = state.parts() else { return Err(self.closed()) };
        let Some(run) = runs.get_mut(&id) else { return Err(Fault::new(Code::RunGone).cause("the run is over")) };
        let Some(grant) = open.grants.get(asked).filter(|grant| grant.span == Span::Run) else {
            return Err(Fault::new(Code::RunGone).cause("the grant is over"));
        };
        let grant = Grant { term, ..grant.clone() };
        let limit = open.profiles.get(&grant.profile).map_or(Term::USUAL, |stored| stored.profile.max_ttl);
        let until = now.boot.after(limit.min(Term::CEILING));
        let mut before = Vec::new();
        for held in run.leases.iter_mut().filter(|held| held.lease.is_live() && held.grant == Some(asked)) {
            before.push((held.id, held.lease.until));
            held.lease.until = held.lease.until.max(until);
        }
        let draft = entry(Kind::GrantChanged, now)
            .grant(asked.to_string())
            .profile(grant.profile.as_str())
            .run(id.to_string())
            .detail("until", term.until_wall().to_rfc3339());
        if let Err(fault) = open.commit(self, vec![row(&grant), run.row()], vec![draft]).await {
            // What was not recorded did not happen.
            for (lease, until) in before {
                let held = run.leases.iter_mut().find(|held| held.id == lease);
                held.into_iter().for_each(|held| held.lease.until = until);
            }
            return Err(fault);
        }
        for held in run.leases.iter().filter(|held| before.iter().any(|(lease, _)| *lease == held.id)) {
            self.gate.prolong(held.id.uuid(), held.lease.until);
        }
        open.grants.insert(grant).map_err(|e| Fault::new(Code::Internal).cause(e))?;
        state.asked_to_extend.remove(&asked);
        Ok(())
    }
}

impl Wish {
    /// The grants of a yes.
    fn grants(&self, decision: Decision, life: Duration, now: Now) -> Result<Vec<Grant<RunId>>, Fault> {
        let from = moment(now).ok_or_else(|| Fault::new(Code::PlatformUnsupported).cause("the boot cannot be told"))?;
        let (span, life, uses) = match decision {
            Decision::Deny => return Ok(Vec::new()),
            Decision::Once => (Span::Once, Term::CLAIM, Some(1)),
            Decision::Run => (Span::Run, Term::CEILING, None),
            Decision::Project => (Span::Standing, life, None),
        };
        let exact = span == Span::Once || (span == Span::Run && (self.exact || self.outer.is_none()));
        let made = self.profiles.iter().map(|(profile, weakest)| {
            Ok(Grant {
                id: make_id()?,
                span,
                app: self.app.clone(),
                project: self.project.clone(),
                profile: profile.clone(),
                weakest: *weakest,
                term: Term::new(from, life).map_err(|e| Fault::new(Code::Internal).cause(e))?,
                uses_left: uses,
                run: self.outer,
                request: exact.then_some(self.request),
                created: now.wall,
                allowed: 0,
                last_allowed: None,
            })
        });
        made.collect()
    }
}

/// The apps of the requests that the broker remembers, by the digest of each.
pub(crate) fn apps_asked(state: &State) -> BTreeMap<[u8; 32], String> {
    let asked = state.approvals.iter().filter_map(|approval| match &approval.question.body {
        Card { shown, plea: Plea::Deliver(wish), .. } => Some((wish.request, shown.app.clone())),
        Card { .. } => None,
    });
    asked.collect()
}

/// The grants that an answer makes; none where it does not count.
///
/// # Errors
/// [`Code::GrantInvalid`] for one that breaks the rules, and where there is no room.
fn grants_of(
    state: &State,
    id: ApprovalId,
    digest: [u8; 32],
    decision: Decision,
    life: Duration,
    now: Now,
) -> Result<Vec<Grant<RunId>>, Fault> {
    let invalid = |cause: String| Fault::new(Code::GrantInvalid).cause(cause);
    let asked = |a: &&Approval<RunId, Card>| {
        a.state == ApprovalState::Open && a.question.digest == digest && a.question.choices.contains(&decision)
    };
    let Some(Plea::Deliver(wish)) = state.approvals.get(id).filter(asked).map(|a| &a.question.body.plea) else {
        return Ok(Vec::new());
    };
    let grants = wish.grants(decision, life, now)?;
    grants.iter().try_for_each(Grant::check).map_err(invalid)?;
    let there = state.vault.opened().map_or(0, |open| open.grants.iter().count());
    if there + grants.len() > Grants::<RunId>::MAX {
        return Err(invalid(format!("there are {there} grants already, and {} is the most", Grants::<RunId>::MAX)));
    }
    Ok(grants)
}

/// Refuses who finds no place to wait for an answer.
fn room_to_wait(state: &State, asker: Asker<RunId>, reserved: bool) -> Result<(), Fault> {
    let waiting = || state.attending.values().flat_map(|attending| &attending.waiting);
    let places = if reserved { WAITING_MAX } else { WAITING_MAX - WAITING_KEPT };
    let own = waiting().filter(|waiting| waiting.asker == asker).count();
    if own >= WAITING_OF_ONE || waiting().count() >= places {
        return Err(Fault::new(Code::ApprovalFlood).cause("too many wait for an answer"));
    }
    Ok(())
}

/// Refuses a card that would come too soon after others, unless the same waits already. Fences are counted by themselves, and
/// by their run alone.
fn hurried(state: &mut State, question: &Question<RunId, Card>, now: Now) -> Result<(), Fault> {
    state.recent_cards.retain(|(.., at)| now.boot.since(*at) < BURST);
    let at_fence = question.kind == ApprovalKind::Fence;
    let alike = || state.recent_cards.iter().filter(|(kind, ..)| (*kind == ApprovalKind::Fence) == at_fence);
    let own = alike().filter(|(_, asker, _)| *asker == question.asker).count();
    let room = own < BURST_OF_ONE && (at_fence || alike().count() < BURST_MAX);
    let mut open = state.approvals.iter().filter(|a| a.state == ApprovalState::Open);
    match room || open.any(|a| a.question.digest == question.digest) {
        true => Ok(()),
        false => {
            Err(Fault::new(Code::ApprovalFlood).cause("others were asked a moment ago; ask again in some seconds"))
        }
    }
}

/// The card of this very request that waits already, where this process has asked for it before: a client that learnt its id
/// comes back to wait.
fn asked_already(state: &State, question: &Question<RunId, Card>, process: ProcessId) -> Option<ApprovalId> {
    let same = |a: &&Approval<RunId, Card>| a.state == ApprovalState::Open && a.question.digest == question.digest;
    let id = state.approvals.iter().find(same)?.question.id;
    state.attending.get(&id)?.askers.contains_key(&process).then_some(id)
}

/// The profiles for which a person is asked: those that nothing allows, or all where only the project's file is new.
fn missing(want: &Want, found: &[Option<Ground>]) -> Vec<Name> {
    let all = || want.deliveries.iter().map(|wanted| wanted.profile.name.clone());
    let missing: Vec<Name> = all().zip(found).filter(|(_, ground)| ground.is_none()).map(|(name, _)| name).collect();
    if missing.is_empty() { all().collect() } else { missing }
}

fn of_run(
    run: RunId,
    profile: &Name,
    kind: ApprovalKind,
    shown: ApprovalMsg,
    plea: Plea,
) -> Result<Question<RunId, Card>, Fault> {
    Ok(Question {
        id: ApprovalId(make_array().map_err(|e| Fault::new(Code::Internal).cause(e))?),
        kind,
        asker: Asker::Run(run),
        // A person has let the run begin; strangers cannot take its place.
        reserved: true,
        app: shown.app.clone(),
        project: shown.project.clone(),
        profiles: vec![profile.clone()],
        digest: card::digest(&shown, &[]),
        choices: shown.choices.iter().copied().map(core_decision).collect(),
        body: Card::new(shown, plea),
    })
}

/// The grants for a run under which live runs hold something, each once.
fn of_runs(state: &State) -> impl Iterator<Item = (RunId, &Grant<RunId>)> {
    let open = state.vault.opened();
    let live = state.runs.values().filter(|run| run.ended.is_none());
    let held =
        live.flat_map(|run| run.leases.iter().filter(|held| held.lease.is_live()).map(|held| (run.id, held.grant)));
    held.filter_map(move |(run, grant)| Some((run, open?.grants.get(grant?)?)))
        .filter(|(_, grant)| grant.span == Span::Run && !state.asked_to_extend.contains(&grant.id))
}

fn ending_soon(state: &State, now: Now) -> Vec<(RunId, GrantId, Name)> {
    let soon = now.boot.after(EXTEND_AHEAD);
    let ending = of_runs(state).filter(|(_, grant)| grant.until() <= soon);
    ending.map(|(run, grant)| (run, grant.id, grant.profile.clone())).collect()
}

/// How often requests of an app in a project were allowed and denied for each profile, as the log tells it.
async fn answers_before(store: &Store, filter: Filter, profiles: &[Name]) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for profile in profiles {
        let filter = Filter { profile: Some(profile.as_str().to_owned()), ..filter.clone() };
        let hours = store.summary(&filter).await.map(|summary| summary.hours).unwrap_or_default();
        counts.push(hours.iter().fold((0, 0), |(ok, refused), (_, by)| (ok + by.ok, refused + by.refused)));
    }
    counts
}

/// The entry of what happened to a card.
fn card_entry(kind: Kind, now: Now, question: &Question<RunId, Card>) -> Draft {
    let profiles: Vec<&str> = question.profiles.iter().map(Name::as_str).collect();
    let draft = entry(kind, now)
        .app(question.body.shown.app.clone(), question.body.shown.verified)
        .project(question.project.clone())
        .detail("approval", question.id.to_string())
        .detail("profiles", profiles);
    match question.asker {
        Asker::Run(run) => draft.run(run.to_string()),
        Asker::Process(_) => draft,
    }
}

/// The entries of an answer: one a profile, so that answers can be counted by it.
fn answer_entries(question: &Question<RunId, Card>, answer: &str, outcome: Outcome, now: Now) -> Vec<Draft> {
    let of = |profile: &Name| {
        let draft = card_entry(Kind::ApprovalAnswered, now, question);
        draft.profile(profile.as_str()).outcome(outcome).detail("answer", answer)
    };
    question.profiles.iter().map(of).collect()
}

fn message(approval: &Approval<RunId, Card>, now: Now) -> ApprovalMsg {
    use keyward_api::ApprovalState as Wire;
    let card = &approval.question.body;
    let mut wanted = card.shown.wanted.clone();
    for (wanted, (allowed, denied)) in wanted.iter_mut().zip(card.before.get().into_iter().flatten()) {
        (wanted.allowed_before, wanted.denied_before) = (*allowed, *denied);
    }
    let asked_at = at_text(approval.asked.wall.0);
    ApprovalMsg {
        id: approval.question.id.to_string(),
        state: match approval.state {
            ApprovalState::Open => Wire::Open,
            ApprovalState::Allowed(_) => Wire::Allowed,
            ApprovalState::Denied => Wire::Denied,
            ApprovalState::Unanswered => Wire::Unanswered,
            ApprovalState::Withdrawn => Wire::Withdrawn,
        },
        digest: hex::encode(approval.question.digest),
        replaced_by: card.replaced_by.get().map(ApprovalId::to_string),
        merged: approval.merged,
        // What is shown of it never changes: another request is another card.
        changed_at: asked_at.clone(),
        asked_at,
        until: at_text(now.wall_at(approval.until).0),
        wanted,
        ..card.shown.clone()
    }
}

fn kind_word(kind: ApprovalKind) -> &'static str {
    match kind {
        ApprovalKind::Run => "run",
        ApprovalKind::Token => "token",
        ApprovalKind::Fence => "fence",
        ApprovalKind::Extend => "extend",
    }
}

fn wire_kind(kind: ApprovalKind) -> keyward_api::ApprovalKind {
    match kind {
        ApprovalKind::Run => keyward_api::ApprovalKind::Run,
        ApprovalKind::Token => keyward_api::ApprovalKind::Token,
        ApprovalKind::Fence => keyward_api::ApprovalKind::Fence,
        ApprovalKind::Extend => keyward_api::ApprovalKind::Extend,
    }
}

fn decision_word(decision: Decision) -> &'static str {
    match decision {
        Decision::Deny => "deny",
        Decision::Once => "once",
        Decision::Run => "run",
        Decision::Project => "project",
    }
}

fn wire_decision(decision: Decision) -> keyward_api::Decision {
    match decision {
        Decision::Deny => keyward_api::Decision::Deny,
        Decision::Once => keyward_api::Decision::Once,
        Decision::Run => keyward_api::Decision::Run,
        Decision::Project => keyward_api::Decision::Project,
    }
}

fn core_decision(decision: keyward_api::Decision) -> Decision {
    match decision {
        keyward_api::Decision::Deny => Decision::Deny,
        keyward_api::Decision::Once => Decision::Once,
        keyward_api::Decision::Run => Decision::Run,
        keyward_api::Decision::Project => Decision::Project,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::renew::tests::{Folder, open_broker};
    use serde_json::json;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    const PROFILE: &str = "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"-c\", \"echo '{\\\"token\\\":\\\"t\\\",\\\"expires_in\\\":80000}'\"]\n\
        [delivery]\nenv = { T = \"token\" }\n";

    fn peer() -> (Arc<Peer>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Peer::pin(&ours, 1).unwrap().refresh()), theirs)
    }

    /// A grant for one run that holds for so long.
    fn grant_for(life: Duration, now: Now) -> Grant<RunId> {
        Grant {
            id: make_id().unwrap(),
            span: Span::Run,
            app: AppScope::Any,
            project: None,
            profile: Name::parse("p").unwrap(),
            weakest: DeliveryMode::Env,
            term: Term::new(moment(now).unwrap(), life).unwrap(),
            uses_left: None,
            run: None,
            request: None,
            created: now.wall,
            allowed: 0,
            last_allowed: None,
        }
    }

    #[tokio::test]
    async fn a_run_is_asked_about_once_before_its_grant_ends_and_goes_on() {
        let folder = Folder::new("extend");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (peer, _other) = peer();
        let grant = grant_for(Duration::from_secs(600), now());
        let id = grant.id;
        broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        let request =
            json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await.unwrap();
        let lease_end = async || {
            let state = broker.state().await;
            let held = &state.runs.values().next().unwrap().leases[0];
            assert_eq!(held.grant, Some(id));
            held.lease.until
        };
        let first = lease_end().await;
        assert!(first <= now().boot.after(Duration::from_secs(600)), "no later than its grant");

        broker.tick().await;
        broker.tick().await;
        let cards = broker.approvals().await.unwrap();
        assert_eq!(cards.len(), 1, "once");
        assert_eq!(
            (cards[0].kind, cards[0].choices.as_slice()),
            (wire_kind(ApprovalKind::Extend), &[keyward_api::Decision::Run][..])
        );
        let begin = Instant::now();
        loop {
            let answer = json!({"digest": cards[0].digest, "decision": "run"});
            let answer = serde_json::from_value(answer).unwrap();
            match broker.approval_answer(&peer, Role::Operator, &cards[0].id, answer).await {
                Ok(()) => break,
                Err(fault) if fault.code == Code::ApprovalEarly && begin.elapsed() < Duration::from_secs(60) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(fault) => panic!("{fault}"),
            }
        }
        let later = lease_end().await;
        assert!(later > first.after(Duration::from_secs(20 * 3600)), "{later:?} after {first:?}");
        let end = broker.state().await.open().unwrap().grants.get(id).unwrap().until();
        assert!(end >= later);
        broker.tick().await;
        assert_eq!(
            broker
                .approvals()
                .await
                .unwrap()
                .iter()
                .filter(|card| card.state == keyward_api::ApprovalState::Open)
                .count(),
            0
        );
    }

    #[tokio::test]
    async fn a_yes_extends_what_its_card_names_and_nothing_else() {
        let folder = Folder::new("extend-one");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (peer, _other) = peer();
        let toml = PROFILE.replace("T =", "U =");
        broker.profile_add(&peer, serde_json::from_value(json!({"name": "q", "toml": toml})).unwrap()).await.unwrap();
        for profile in ["p", "q"] {
            let profile = Name::parse(profile).unwrap();
            let grant = Grant { profile, ..grant_for(Duration::from_secs(600), now()) };
            broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        }
        let request = json!({"profiles": ["p", "q"], "variables": [],
            "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await.unwrap();
        let ends = async || {
            let state = broker.state().await;
            let leases = &state.runs.values().next().unwrap().leases;
            ["p", "q"].map(|name| leases.iter().find(|held| held.profile.as_str() == name).unwrap().lease.until)
        };
        let before = ends().await;
        let q = Name::parse("q").unwrap();
        broker.state().await.open().unwrap().profiles.get_mut(&q).unwrap().profile.confirm = true;
        broker.tick().await;
        let cards = broker.approvals().await.unwrap();
        let card = |name: &str| cards.iter().find(|card| card.wanted[0].profile == name).unwrap().clone();
        assert_eq!((card("p").confirm, card("q").confirm), (false, true));
        let answer = async |name: &str, decision: &str| {
            let answer = json!({"digest": card(name).digest, "decision": decision});
            let answer = || serde_json::from_value(answer.clone()).unwrap();
            loop {
                match broker.approval_answer(&peer, Role::Operator, &card(name).id, answer()).await {
                    Err(fault) if fault.code == Code::ApprovalEarly => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    answered => return answered.map_err(|fault| fault.code),
                }
            }
        };
        assert_eq!(answer("p", "run").await, Ok(()));
        let after = ends().await;
        assert!(after[0] > before[0].after(Duration::from_secs(20 * 3600)), "{after:?}");
        assert_eq!(after[1], before[1], "nobody was asked about it yet");
        assert_eq!(answer("q", "run").await, Err(Code::PassphraseNeeded));
        assert_eq!(answer("q", "deny").await, Ok(()));
        assert_eq!(ends().await, after);
    }

    #[tokio::test]
    async fn who_hangs_up_at_fences_brings_up_few_cards_and_takes_no_place_of_others() {
        let folder = Folder::new("fence-flood");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (peer, _other) = peer();
        let toml = PROFILE.replace("T =", "U =");
        broker.profile_add(&peer, serde_json::from_value(json!({"name": "q", "toml": toml})).unwrap()).await.unwrap();
        let grant = grant_for(Duration::from_secs(3600), now());
        broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        let request =
            json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await.unwrap();
        let run = *broker.state().await.runs.keys().next().unwrap();
        let mut refused = Vec::new();
        for n in 0..20 {
            let asking = Arc::clone(&broker);
            let text = vec![format!("{n} requests are used; 1 more?")];
            let wait = tokio::spawn(async move { asking.await_fence(run, &Name::parse("p").unwrap(), text).await });
            let open = || async {
                let state = broker.state().await;
                state.attending.values().any(|attending| !attending.waiting.is_empty())
            };
            while !wait.is_finished() && !open().await {
                tokio::task::yield_now().await;
            }
            wait.abort();
            if let Ok(answer) = wait.await {
                refused.push(answer.unwrap_err().code);
            }
            broker.stop_at_fence().await;
        }
        assert_eq!(broker.approvals().await.unwrap().len(), BURST_OF_ONE);
        assert_eq!(refused, [Code::ApprovalFlood; 20 - BURST_OF_ONE]);
        let token = serde_json::from_value(json!({"profile": "q"})).unwrap();
        let asked = broker.token(&peer, Role::InsideRun(run), token).await;
        assert_eq!(asked.map(drop).unwrap_err().code, Code::ApprovalNeeded, "requests are counted by themselves");
    }

    #[tokio::test]
    async fn the_log_is_not_read_while_the_state_is_held() {
        let folder = Folder::new("before");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (peer, _other) = peer();
        let grant = grant_for(Duration::from_secs(3600), now());
        broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        let request =
            json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await.unwrap();
        let profile = Name::parse("p").unwrap();
        let mut state = broker.state().await;
        let run = *state.runs.keys().next().unwrap();
        let shown = broker.about_run(&mut state, run, &profile, ApprovalKind::Fence).unwrap();
        let ask = || of_run(run, &profile, ApprovalKind::Fence, shown.clone(), Plea::GoOn).unwrap();
        let (id, counting) = broker.ask(&mut state, ask(), None, now()).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(state.approvals.get(id).unwrap().question.body.before.get(), None);
        let merged = broker.ask(&mut state, ask(), None, now()).await.unwrap();
        assert!(merged.0 == id && merged.1.is_none(), "it is counted once");
        drop(state);
        counting.unwrap().await.unwrap();
        let state = broker.state().await;
        assert_eq!(state.approvals.get(id).unwrap().question.body.before.get(), Some(&vec![(0, 0)]));
    }

    #[tokio::test]
    async fn a_fence_waits_for_a_person_and_equal_ones_are_one_card() {
        let folder = Folder::new("fence");
        let broker = open_broker(&folder.0, PROFILE).await;
        let (peer, _other) = peer();
        let (profile, gone) = (Name::parse("p").unwrap(), RunId(uuid::Uuid::nil()));
        let text = || vec!["10 requests are used; 10 more?".to_owned(), "requests\u{202e}".to_owned()];
        assert_eq!(broker.await_fence(gone, &profile, text()).await.unwrap_err().code, Code::RunGone);
        let grant = grant_for(Duration::from_secs(3600), now());
        broker.state().await.open().unwrap().grants.insert(grant).unwrap();
        let request =
            json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        broker.run_start(&peer, Role::Requester, serde_json::from_value(request).unwrap()).await.unwrap();
        let run = *broker.state().await.runs.keys().next().unwrap();
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let (broker, profile) = (Arc::clone(&broker), profile.clone());
                tokio::spawn(async move { broker.await_fence(run, &profile, text()).await })
            })
            .collect();
        let card = loop {
            let cards = broker.approvals().await.unwrap();
            match cards.into_iter().find(|card| card.merged == 3) {
                Some(card) => break card,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!((card.question.as_str(), card.outer_run), ("10 requests are used; 10 more?", Some(run.to_string())));
        let answer = json!({"digest": card.digest, "decision": "deny"});
        let answer = serde_json::from_value(answer).unwrap();
        broker.approval_answer(&peer, Role::Requester, &card.id, answer).await.unwrap();
        for wait in waits {
            assert_eq!(wait.await.unwrap().unwrap_err().code, Code::ApprovalDenied);
        }
    }
}
