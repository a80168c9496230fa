//! What a person has proven, and to whom it counts.
//!
//! Rights that a proof gives belong to a connection (operator) or to the shell from which a person has unlocked, end by
//! themselves, and never reach inside a run. The rules are `keyward_core::role`'s; here they meet the kernel's facts. Called
//! by `route` for each request, and by `vault` where a person unlocks.

use crate::broker::{Broker, State, entry_of};
use crate::peer::Peer;
use crate::platform::{self, now};
use crate::runs::RunId;
use keyward_api::{MeAnswer, OperatorAnswer, Proof, RoleMsg};
use keyward_core::audit::Kind;
use keyward_core::{Boot, Lineage, Now, Role, Root, Runs, role};
use keyward_diag::{Code, Fault};

/// The command line, as the kernel names its processes. What unlocks under another name was not started from a shell: the
/// parent of the desktop is the session, which starts everything else.
const COMMAND_LINE: &str = "keyward";
/// What a person is told whose terminal cannot be told from a run.
const MARKED: &str =
    "this terminal bears the mark of a run, so what is started here is asked about; open another one and unlock there";

/// The facts by which the role of a peer is decided.
///
/// # Errors
/// [`Code::PeerRefused`] when they cannot be read: what is not known counts against the peer.
fn facts(peer: &Peer) -> Result<Lineage<'_>, Fault> {
    Ok(Lineage { process: peer.process(), parents: peer.parents()?, mark: peer.mark(), connection: peer.connection() })
}

fn roots(state: &State) -> Vec<Root<RunId>> {
    let live = state.runs.values().filter(|run| run.ended.is_none());
    live.map(|run| Root { process: run.process, run: run.id }).collect()
}

/// The runs, as far as roles depend on them.
fn runs<'a>(state: &State, roots: &'a [Root<RunId>]) -> Runs<'a, RunId> {
    Runs { roots, mark: state.mark }
}

/// The words for a person whose request is asked about for nothing but what its terminal bears.
pub(crate) fn marked(state: &State, peer: &Peer, now: Boot) -> Option<&'static str> {
    let peer = facts(peer).ok()?;
    state.proofs.is_marked(peer, runs(state, &[]), now).then_some(MARKED)
}

impl Broker {
    /// The role of a peer now.
    ///
    /// # Errors
    /// [`Code::PeerRefused`] when its facts cannot be read.
    pub(crate) fn role(&self, state: &State, peer: &Peer) -> Result<Role<RunId>, Fault> {
        Ok(role(facts(peer)?, runs(state, &roots(state)), &state.proofs, state.opened, now().boot))
    }

    /// What the caller may do.
    pub(crate) async fn me(&self, peer: &Peer, role: Role<RunId>) -> Result<MeAnswer, Fault> {
        let state = self.state().await;
        let now = now();
        let until = state.proofs.until(role, facts(peer)?).map(|at| now.wall_at(at).to_rfc3339());
        let (role, run) = match role {
            Role::None => (RoleMsg::None, None),
            Role::InsideRun(run) => (RoleMsg::Inside, Some(run.to_string())),
            Role::Requester => (RoleMsg::Requester, None),
            Role::Shell => (RoleMsg::Shell, None),
            Role::Operator => (RoleMsg::Operator, None),
        };
        Ok(MeAnswer { role, run, until })
    }

    /// Makes the connection that of an operator; recorded first.
    pub(crate) async fn operator(&self, peer: &Peer, proof: Proof) -> Result<OperatorAnswer, Fault> {
        self.unlocked(&mut *self.state_for_request().await?)?;
        self.prove(proof).await?;
        let mut state = self.state_for_request().await?;
        let now = now();
        let open = self.unlocked(&mut state)?;
        let draft = entry_of(Kind::OperatorProven, now, peer).detail("connection", peer.connection());
        open.commit(self, Vec::new(), vec![draft]).await?;
        open.last_action = now.boot;
        let until = self.proven(&mut state, peer, now)?;
        Ok(OperatorAnswer { until })
    }

    /// A person has proven the passphrase or the recovery key on the connection of a peer, and the runs are known. Gives the
    /// moment until which it is an operator's.
    fn proven(&self, state: &mut State, peer: &Peer, now: Now) -> Result<String, Fault> {
        let roots = roots(state);
        let runs = runs(state, &roots);
        let until = state.proofs.operator(facts(peer)?, runs, now.boot);
        // It may have come to lie in a run since its request came.
        let until = until.ok_or_else(|| Fault::new(Code::PolicyDenied).cause("the request comes from inside a run"))?;
        self.connections.proven(peer.connection());
        Ok(now.wall_at(until).to_rfc3339())
    }

    /// As [`Broker::proven`], by a client that has opened or made the vault: the shell that it was started from may run and
    /// take without being asked, for a while. Gives nothing inside a run. Gives what the person is to be told of it.
    pub(crate) fn unlocked_by(&self, state: &mut State, peer: &Peer, now: Now) -> Option<String> {
        // Deriving the key took its time.
        let peer = &peer.refresh();
        self.proven(state, peer, now).ok()?;
        let command_line = platform::task_name(peer.process()).is_some_and(|name| name == COMMAND_LINE);
        // A shell starts its commands in its own session. A terminal emulator, a service manager and the like start each in one of
        // its own, and start whatever anybody asks them for.
        let started_by = peer.parents().ok().and_then(|parents| parents.first().copied());
        let from_shell = started_by.is_some_and(|parent| platform::in_session_of_parent(peer.process(), parent));
        let facts = facts(peer).ok().filter(|_| command_line && from_shell)?;
        let roots = roots(state);
        let runs = runs(state, &roots);
        state.proofs.shell(facts, runs, now.boot);
        facts.mark.is_some_and(|mark| runs.may_bear(mark)).then(|| MARKED.to_owned())
    }
}

/// Whether a person stands behind the peer without a proof in this very request.
pub(crate) fn is_person(role: Role<RunId>) -> bool {
    matches!(role, Role::Shell | Role::Operator)
}

/// The word for a role in the log.
pub(crate) fn word(role: Role<RunId>) -> &'static str {
    match role {
        Role::None => "none",
        Role::InsideRun(_) => "inside",
        Role::Requester => "requester",
        Role::Shell => "shell",
        Role::Operator => "operator",
    }
}
