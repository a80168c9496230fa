//! What the gateway asks, answered: the broker as its [`Authority`], and the task that writes the calls into the log.
//!
//! The gate answers by itself wherever it can. The broker's state is asked only for a program that was not looked at yet,
//! and for a credential that is not there, or not good any longer.

use crate::broker::{Broker, State};
use crate::gate::{Answer, Have};
use crate::platform::now;
use keyward_core::Attempt;
use keyward_diag::{Code, Fault};
use keyward_gateway::{Admitted, Authority, Began, Denial, End, Held, RunToken, Slot};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long calls are gathered before they are written; what is left of 100 ms is for the commit.
const GATHER: Duration = Duration::from_millis(50);
/// How long after a write that failed the next one is tried.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the ends of calls are waited for that were just cut.
const SETTLE: Duration = Duration::from_millis(40);

/// The broker, as the gateway knows it.
pub(crate) struct Desk(pub(crate) Arc<Broker>);

impl Authority for Desk {
    async fn admit(&self, token: RunToken) -> Result<Admitted, Fault> {
        let gate = &self.0.gate;
        let run = match gate.admit(token, now())? {
            Answer::Opened(admitted) => return Ok(*admitted),
            Answer::Look(run) => run,
        };
        self.0.look_at(run).await;
        match gate.admit(token, now())? {
            Answer::Opened(admitted) => Ok(*admitted),
            Answer::Look(_) => Err(Fault::new(Code::GatewayUnverified).cause("the program has not begun")),
        }
    }

    async fn fence(&self, lease: Uuid, attempt: Attempt<'_>) -> Result<Slot, Fault> {
        self.0.pass_fence(lease, attempt).await
    }

    async fn credential(&self, lease: Uuid, refused: Option<u64>) -> Result<Held, Fault> {
        let gate = &self.0.gate;
        let profile = match gate.have(lease, refused, now().boot)? {
            Have::Held(held) => return Ok(held),
            Have::Ask(profile, _) => profile,
        };
        // Those who ask at once wait for one answer, each of them here and not in the queue for the state.
        let turn = gate.turn_of(&profile);
        let _turn = turn.lock().await;
        let anew = match gate.have(lease, refused, now().boot)? {
            Have::Held(held) => return Ok(held),
            Have::Ask(_, anew) => anew,
        };
        let (credential, schedule) =
            if anew { self.0.obtain_anew(&profile).await? } else { self.0.obtain(&profile).await? };
        gate.keep(&profile, &credential, schedule);
        // It may have been taken back meanwhile. What was refused and is all there is counts as held: the client is told.
        match gate.have(lease, None, now().boot)? {
            Have::Held(held) => Ok(held),
            Have::Ask(..) => Err(Fault::new(Code::IssuerRefused).cause("the credential that it gave is over already")),
        }
    }

    fn began(&self, began: Began) -> Result<u64, Fault> {
        self.0.gate.began(&began, now())
    }

    fn ended(&self, number: u64, end: End) {
        self.0.gate.ended(number, end, now());
    }

    fn denied(&self, denial: Denial) {
        self.0.gate.denied(&denial, now());
    }
}

impl Broker {
    /// Writes the calls and refusals that wait, in one commit; says whether none is left that could be written.
    pub(crate) async fn write_uses(&self, state: &mut State) -> bool {
        let (Some(open), runs, _) = state.parts() else { return true };
        let batch = self.gate.take(now());
        let mut writes = Vec::new();
        for count in batch.counts {
            let Some(run) = runs.get_mut(&count.run) else { continue };
            if run.count_uses(count) {
                writes.push(run.row());
            }
        }
        let entries = batch.entries;
        if !entries.is_empty()
            && let Err(e) = open.commit(self, writes, entries.clone()).await
        {
            tracing::error!(code = %e.code, "calls through the gateway could not be recorded");
            self.gate.unwritten(entries);
            return false;
        }
        for event in batch.events {
            self.events.publish("use", &event);
        }
        true
    }

    /// Writes what waits and what ends within a moment, before the log is closed.
    pub(crate) async fn settle_uses(&self, state: &mut State) {
        let until = tokio::time::Instant::now() + SETTLE;
        while self.gate.any_under_way() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.write_uses(state).await;
    }
}

/// Writes calls into the log as they come, for ever.
pub(crate) async fn scribe(broker: Arc<Broker>) {
    loop {
        match broker.gate.waits(now().boot) {
            Some(left) => {
                tokio::select! {
                    () = broker.gate.due() => {}
                    () = tokio::time::sleep(left) => {}
                }
            }
            None => broker.gate.due().await,
        }
        tokio::time::sleep(GATHER).await;
        loop {
            let mut state = broker.state().await;
            if broker.write_uses(&mut state).await {
                break;
            }
            drop(state);
            tokio::time::sleep(AGAIN).await;
        }
    }
}
