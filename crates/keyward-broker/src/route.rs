//! From a request to the work: finds the route, tells the role, refuses what the role may not, and answers.

use crate::broker::{Broker, State};
use crate::operator::is_person;
use crate::peer::Peer;
use crate::platform::now;
use crate::records::not_a_person;
use crate::runs::RunId;
use crate::server::{Answer, Handler, Request};
use bytes::Bytes;
use keyward_api::{RouteId, find, part_text};
use keyward_core::{Act, May, Role, launcher_key, may};
use keyward_diag::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Peers that are kept because they come again.
const SHOWN_MAX: usize = 64;

/// Answers the requests of the LocalAPI.
pub(crate) struct Service(pub(crate) Arc<Broker>);

impl Handler for Service {
    async fn handle(&self, request: Request) -> Answer {
        let broker = Arc::clone(&self.0);
        // A caller that hangs up must not stop work between a record and what it records.
        let work = tokio::spawn(async move { broker.answer(request).await });
        work.await.unwrap_or_else(|_| Answer::Fault(Fault::new(Code::Internal).cause("the request broke off")))
    }

    fn closed(&self, peer: &Peer) {
        let (broker, process, connection) = (Arc::clone(&self.0), peer.process(), peer.connection());
        tokio::spawn(async move { broker.connection_closed(process, connection).await });
    }

    fn stopping(&self) {
        self.0.stop.send_replace(true);
    }
}

impl Broker {
    async fn answer(self: &Arc<Self>, request: Request) -> Answer {
        let peer = Arc::clone(&request.peer);
        match self.dispatch(request).await {
            Ok(answer) => answer,
            Err(fault) => {
                if matches!(fault.code, Code::ApprovalNeeded | Code::PassphraseNeeded) {
                    // It comes again with what was asked for.
                    remember(&mut *self.state().await, &peer);
                }
                if matches!(
                    fault.code,
                    Code::PolicyDenied | Code::PeerRefused | Code::RunPrivileged | Code::LauncherSecret
                ) {
                    let mut state = self.state().await;
                    self.refuse(&mut state, &peer, &fault);
                }
                Answer::Fault(fault)
            }
        }
    }

    async fn dispatch(self: &Arc<Self>, request: Request) -> Result<Answer, Fault> {
        let Request { peer, method, path, last_event_id, body } = request;
        let (path, query) = path.split_once('?').map_or((path.as_str(), ""), |(p, q)| (p, q));
        let (route, part) = find(method.as_str(), path).ok_or_else(|| {
            let cause = format!("there is no {} {}", method.as_str(), keyward_diag::plain(path, 80));
            Fault::new(Code::RequestInvalid).cause(cause)
        })?;
        let part = part.unwrap_or_default();
        let (role, peer) = {
            let mut state = self.state().await;
            self.notice_suspend(&mut state).await;
            let now = now();
            state.proofs.heard(peer.connection(), now.boot);
            let role = self.role(&state, &peer)?;
            // Only what a person does keeps the vault open.
            if is_person(role)
                && is_action(route.id)
                && let Some(open) = state.open()
            {
                open.last_action = now.boot;
            }
            (role, recalled(&state, peer))
        };
        if let Err(fault) = self.allow(role, route.id) {
            // What is not there needs nobody who may remove it.
            return Err(match self.removable(role, route.id, part).await {
                Err(missing) if missing.code != Code::VaultLocked => missing,
                Ok(()) | Err(_) => fault,
            });
        }
        match route.id {
            RouteId::Status => json(&self.status().await),
            RouteId::Me => json(&self.me(&peer, role).await?),
            RouteId::Operator => json(&self.operator(&peer, read(&body)?).await?),
            RouteId::Approvals => json(&self.approvals().await?),
            RouteId::ApprovalAnswer => empty(self.approval_answer(&peer, role, part, read(&body)?).await),
            RouteId::Grants => json(&self.grants().await?),
            RouteId::GrantAdd => json(&self.grant_add(&peer, role, read(&body)?).await?),
            RouteId::GrantEdit => json(&self.grant_edit(&peer, role, part, read(&body)?).await?),
            RouteId::GrantRevoke => empty(self.grant_revoke(&peer, part).await),
            RouteId::Init => json(&self.init(&peer, read(&body)?).await?),
            RouteId::Unlock => json(&self.unlock(&peer, read(&body)?).await?),
            RouteId::Lock => json(&self.lock(&peer).await?),
            RouteId::Rekey => json(&self.rekey(&peer, read(&body)?).await?),
            RouteId::Slots => json(&self.slots()?),
            RouteId::SlotAdd => json(&self.slot_add(&peer, read(&body)?).await?),
            RouteId::SlotRemove => empty(self.slot_remove(&peer, read(&body)?).await),
            RouteId::Backup => empty(self.backup(&peer, read(&body)?).await),
            RouteId::Restore => json(&self.restore(&peer, read(&body)?).await?),
            RouteId::Secrets => json(&self.secrets().await?),
            RouteId::SecretPut => empty(self.secret_put(&peer, role, part, read(&body)?).await),
            RouteId::SecretRemove => empty(self.secret_remove(&peer, part).await),
            RouteId::SecretReveal => json(&self.secret_reveal(&peer, part, read(&body)?).await?),
            RouteId::Kinds => json(&self.kinds()),
            RouteId::Profiles => json(&self.profiles().await?),
            RouteId::ProfileAdd => empty(self.profile_add(&peer, read(&body)?).await),
            RouteId::Profile => json(&self.profile(part).await?),
            RouteId::ProfileEdit => empty(self.profile_edit(&peer, part, read(&body)?).await),
            RouteId::ProfileRemove => empty(self.profile_remove(&peer, part).await),
            RouteId::ProfileTest => json(&self.profile_test(&peer, role, part, read(&body)?).await?),
            RouteId::ProfileRenew => json(&self.profile_renew(role, part).await?),
            RouteId::ProfileReveal => json(&self.profile_reveal(&peer, part, read(&body)?).await?),
            RouteId::Launchers => json(&self.launchers().await?),
            RouteId::LauncherAdd => empty(self.launcher_add(&peer, read(&body)?).await),
            RouteId::LauncherEdit => empty(self.launcher_edit(&peer, &text(part)?, read(&body)?).await),
            RouteId::LauncherRemove => empty(self.launcher_remove(&peer, &text(part)?).await),
            RouteId::LaunchExpect => json(&self.launch_expect(&peer, role, &text(part)?, read(&body)?).await?),
            RouteId::Settings => json(&self.settings().await),
            RouteId::SettingsPut => empty(self.settings_put(&peer, read(&body)?).await),
            RouteId::RunStart => json(&self.run_start(&peer, role, read(&body)?).await?),
            RouteId::RunAbort => empty(self.run_abort(&peer, part).await),
            RouteId::Runs => json(&self.runs(role).await),
            RouteId::RunsPast => json(&self.runs_past(query).await?),
            RouteId::Apps => json(&self.apps(query).await?),
            RouteId::Token => json(&self.token(&peer, role, read(&body)?).await?),
            RouteId::Revoke => json(&self.revoke(&peer, role, read(&body)?).await?),
            RouteId::Audit => json(&self.audit(query).await?),
            RouteId::AuditSummary => json(&self.audit_summary(query).await?),
            RouteId::AuditVerify => json(&self.verify(query).await?),
            RouteId::AuditExport => {
                let body = self.export(&peer, read(&body)?).await?;
                Ok(Answer::Stream { content_type: "application/jsonl", body })
            }
            RouteId::AuditAcceptBreak => empty(self.accept_break(&peer, read(&body)?).await),
            RouteId::AuditEntry => json(&self.audit_entry(part).await?),
            RouteId::Events => {
                Ok(Answer::Stream { content_type: "text/event-stream", body: self.follow(last_event_id) })
            }
            RouteId::BrokerStop => {
                self.stop.send_replace(true);
                Ok(Answer::Empty)
            }
        }
    }

    /// What a role may ask at all. Proofs are asked for on top of this by the routes that need them.
    fn allow(&self, role: Role<RunId>, route: RouteId) -> Result<(), Fault> {
        let act = act(route);
        match (may(&role, act), role) {
            // A route without a body has no place for a proof.
            (May::Proof, _) if act == Act::Remove => Err(not_a_person("to remove something")),
            (May::Yes | May::Ask | May::Proof, _) => Ok(()),
            (May::No, Role::None) => Err(self.closed()),
            (May::No, _) => {
                let cause = "the request comes from inside a run, which gets only what the run was given";
                Err(Fault::new(Code::PolicyDenied).cause(cause))
            }
        }
    }

    /// Whether there is what a route would remove, for a role that may see it.
    ///
    /// # Errors
    /// As the route itself has them for what is not there.
    async fn removable(&self, role: Role<RunId>, route: RouteId, part: &str) -> Result<(), Fault> {
        if may(&role, act(route)) != May::Proof {
            return Ok(());
        }
        match route {
            RouteId::ProfileRemove => self.profile(part).await.map(drop),
            RouteId::SecretRemove => {
                let unknown = || Fault::new(Code::SecretUnknown).cause("no secret has this name");
                self.secrets().await?.iter().find(|secret| secret.name == part).map(drop).ok_or_else(unknown)
            }
            RouteId::LauncherRemove => {
                let key = launcher_key(&text(part)?);
                let unknown = || Fault::new(Code::LauncherUnknown).cause("no launcher has this name");
                let launchers = self.launchers().await?;
                launchers.iter().find(|found| launcher_key(&found.name) == key).map(drop).ok_or_else(unknown)
            }
            _ => Ok(()),
        }
    }

    /// The stream of events, from where the client left.
    fn follow(self: &Arc<Self>, last_seen: Option<String>) -> mpsc::Receiver<Bytes> {
        let (send, receive) = mpsc::channel(16);
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let (mut at, missed) = broker.events.start(last_seen.as_deref());
            // The first bytes tell the client that it is connected.
            let hello = if missed { broker.events.reset() } else { ": connected\n\n".to_owned() };
            if send.send(Bytes::from(hello)).await.is_err() {
                return;
            }
            let mut stop = broker.stop.subscribe();
            loop {
                let (next, text) = tokio::select! {
                    found = broker.events.after(at) => found,
                    () = send.closed() => return,
                    _ = stop.wait_for(|s| *s) => return,
                };
                at = next;
                if send.send(Bytes::from(text)).await.is_err() {
                    return;
                }
            }
        });
        receive
    }
}

/// Keeps a peer whose facts can be seen, since it hides them before it comes again.
fn remember(state: &mut State, peer: &Arc<Peer>) {
    state.shown.retain(|shown| shown.is_alive() && shown.process() != peer.process());
    if peer.cwd().is_some() {
        state.shown.push_back(Arc::clone(peer));
        if state.shown.len() > SHOWN_MAX {
            state.shown.pop_front();
        }
    }
}

/// The peer with what it showed before, where it is hidden by this time.
fn recalled(state: &State, peer: Arc<Peer>) -> Arc<Peer> {
    let earlier = state.shown.iter().find(|shown| shown.process() == peer.process());
    match earlier.filter(|_| peer.executable().is_none() || peer.cwd().is_none()) {
        Some(earlier) => Arc::new(peer.recalling(earlier)),
        None => peer,
    }
}

/// What a route does, as far as roles tell it apart.
fn act(route: RouteId) -> Act {
    use RouteId as R;
    match route {
        R::Status | R::Me | R::Kinds | R::Runs => Act::Status,
        R::Init | R::Unlock | R::Lock | R::Restore | R::Slots | R::Settings | R::Events | R::BrokerStop => Act::Open,
        R::Approvals
        | R::Grants
        | R::Secrets
        | R::Profiles
        | R::Profile
        | R::Launchers
        | R::RunsPast
        | R::Apps
        | R::Audit
        | R::AuditSummary
        | R::AuditVerify
        | R::AuditEntry
        | R::Backup
        | R::LaunchExpect => Act::Look,
        R::SecretPut | R::ProfileAdd | R::ProfileTest | R::ProfileRenew | R::LauncherAdd => Act::Add,
        R::SecretRemove | R::ProfileRemove | R::LauncherRemove => Act::Remove,
        R::Rekey
        | R::SlotAdd
        | R::SlotRemove
        | R::SecretReveal
        | R::ProfileEdit
        | R::ProfileReveal
        | R::LauncherEdit
        | R::SettingsPut
        | R::AuditExport
        | R::AuditAcceptBreak => Act::Change,
        R::RunAbort | R::Revoke => Act::GiveBack,
        // Saying no is among them, and what says yes asks for more.
        R::ApprovalAnswer | R::GrantRevoke => Act::TakeBack,
        R::GrantAdd | R::GrantEdit => Act::Decide,
        R::Operator => Act::Prove,
        R::RunStart | R::Token => Act::Deliver,
    }
}

/// Whether a route is an action of a person who has not proven anything in the request itself.
fn is_action(route: RouteId) -> bool {
    use RouteId as R;
    matches!(
        route,
        R::SecretPut
            | R::SecretRemove
            | R::ProfileAdd
            | R::ProfileRemove
            | R::ProfileTest
            | R::LauncherAdd
            | R::LauncherRemove
    )
}

fn json<T: Serialize>(value: &T) -> Result<Answer, Fault> {
    let body = serde_json::to_vec(value).map_err(|e| Fault::new(Code::Internal).cause(e))?;
    Ok(Answer::Json { status: 200, body: Zeroizing::new(body) })
}

fn empty(done: Result<(), Fault>) -> Result<Answer, Fault> {
    done.map(|()| Answer::Empty)
}

/// The name of a launcher as it stands in a path.
fn text(part: &str) -> Result<String, Fault> {
    part_text(part).ok_or_else(|| Fault::new(Code::RequestInvalid).cause("the path is not percent-encoded UTF-8"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    // The parser would fill a form from a list, field by field.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Fault::new(Code::RequestInvalid).cause("the body is a list"));
    }
    serde_json::from_slice(body).map_err(|e| {
        // The parser's own message may quote what it read, so only its class and place are told.
        let what = match e.classify() {
            serde_json::error::Category::Data => "is not of the form that the route takes",
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => "is not JSON",
        };
        Fault::new(Code::RequestInvalid).cause(format!("the body {what} (line {}, column {})", e.line(), e.column()))
    })
}
