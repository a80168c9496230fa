//! Requests that a person may have to allow: `run` and `token`.
//!
//! They are made without waiting first, so that whoever needs nobody pays for nothing. Where a person is needed, a terminal shows
//! the request, waits for an answer from elsewhere on a connection of its own, and takes the passphrase meanwhile; a caller
//! without a terminal is told the command to give, or waits when it said so. Never shows a prompt inside a run, whose proof
//! would be refused. Called by the commands `run`, `launch` and `token`.

use crate::broker::{Broker, obtain};
use crate::{card, input, out, process, project};
use keyward_api::{
    ApprovalAnswerRequest, ApprovalMsg, ApprovalState, Decision, ProjectFileMsg, Proof, RoleMsg, RunRequest,
    SuppliedAssertion, TokenRequest,
};
use keyward_client::{Client, Method, Response, Start};
use keyward_diag::{Code, Fault, plain};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::thread::JoinHandle;

/// Where the cause of `approval.needed` names the request.
const APPROVE: &str = "keyward approve ";

/// What such a request has beside its own matter.
pub(crate) trait Asks: Serialize {
    /// Where it goes.
    const PATH: &'static str;

    /// What is filled in while it is asked.
    fn open(&mut self) -> Open<'_>;
}

/// The fields of a request that are filled in while it is asked.
pub(crate) struct Open<'r> {
    /// The assertions that only this process has.
    assertions: &'r mut Vec<SuppliedAssertion>,
    /// Whether the broker holds it until a person answers.
    wait: &'r mut bool,
    /// Whether a person is asked by a card where a passphrase is needed.
    unattended: &'r mut bool,
    /// Proof of the person at the terminal.
    proof: &'r mut Option<Proof>,
    /// The file of the project, where it asks for what that names.
    project_file: Option<&'r mut ProjectFileMsg>,
}

impl Asks for RunRequest {
    const PATH: &'static str = "/v1/runs";

    fn open(&mut self) -> Open<'_> {
        let Self { assertions, wait, unattended, proof, project_file, .. } = self;
        Open { assertions, wait, unattended, proof, project_file: project_file.as_mut() }
    }
}

impl Asks for TokenRequest {
    const PATH: &'static str = "/v1/token";

    fn open(&mut self) -> Open<'_> {
        let Self { assertions, wait, unattended, proof, .. } = self;
        Open { assertions, wait, unattended, proof, project_file: None }
    }
}

/// Makes the request for the profiles `named`, and gets it allowed where that is needed and somebody is there to do it. With
/// `wait` it waits for an answer from elsewhere where there is no terminal to ask on.
///
/// # Errors
/// Those of the broker; [`Code::ApprovalNeeded`] with the command that allows it when nobody can be asked here.
pub(crate) fn ask<R: Asks, T: DeserializeOwned>(
    broker: &mut Broker<'_>,
    named: &[String],
    request: &mut R,
    wait: bool,
) -> Result<T, Fault> {
    let mut typed = 0;
    loop {
        let made = broker.supplying(named, |client, assertions| {
            if !assertions.is_empty() {
                *request.open().assertions = assertions;
            }
            obtain(client, R::PATH, request)
        });
        let fault = match made {
            Err(fault) => fault,
            made => return made,
        };
        match fault.code {
            Code::PassphraseNeeded if may_ask(broker) => {
                out::say(&words(&fault));
                *request.open().proof = Some(input::ask_passphrase(broker.places())?);
                typed += 1;
            }
            Code::PassphraseNeeded if !*request.open().unattended => *request.open().unattended = true,
            Code::VaultWrongPassphrase if request.open().proof.is_some() && typed < input::ATTEMPTS => {
                out::say(&format!("{}; try again", fault.message));
                *request.open().proof = Some(input::ask_passphrase(broker.places())?);
                typed += 1;
            }
            Code::ProjectUnreviewed if may_ask(broker) => {
                let file = request.open().project_file.filter(|file| file.reviewed.is_none());
                if !file.map(|file| project::review(file, &fault)).transpose()?.unwrap_or(false) {
                    return Err(fault);
                }
            }
            Code::ApprovalNeeded if may_ask(broker) => {
                *request.open().assertions = broker.assertions(named).unwrap_or_default();
                return process::unheard(|| on_terminal(broker, request, fault))?.json();
            }
            Code::ApprovalNeeded if wait && !*request.open().wait => {
                out::say(&format!("waiting for a person, at most two minutes: {}", words(&fault)));
                *request.open().assertions = broker.assertions(named).unwrap_or_default();
                *request.open().wait = true;
            }
            _ => return Err(fault),
        }
    }
}

/// Whether there is a person whose proof the broker takes: inside a run it takes none.
fn may_ask(broker: &mut Broker<'_>) -> bool {
    input::may_ask(broker.context()) && broker.me().is_ok_and(|me| me.role != RoleMsg::Inside)
}

/// The causes of a fault on one line, or its message where it has none.
fn words(fault: &Fault) -> String {
    let words = if fault.causes.is_empty() { fault.message.clone() } else { fault.causes.join("; ") };
    plain(&words, 400)
}

/// Shows the request that a fault names, and waits for the first answer: one from elsewhere, or the passphrase here.
fn on_terminal<R: Asks>(broker: &mut Broker<'_>, request: &mut R, needed: Fault) -> Result<Response, Fault> {
    let Some(mut card) = named_in(&needed).and_then(|id| open_card(broker, id)) else { return Err(needed) };
    *request.open().wait = true;
    let (answered, waiting) = wait_elsewhere(broker, request)?;
    show(&card);
    for attempt in 1.. {
        let Some(proof) = input::ask_passphrase_until(broker.places(), &answered)? else { break };
        let answer = ApprovalAnswerRequest {
            digest: card.digest.clone(),
            decision: Decision::Once,
            for_s: None,
            proof: Some(proof),
        };
        let fault = match broker.client().post::<_, ()>(&card::path(&card.id), &answer) {
            Ok(()) => break,
            Err(fault) => fault,
        };
        match fault.code {
            // What became of it is what the waiting request is told.
            Code::ApprovalOver | Code::ApprovalUnknown => break,
            _ if attempt >= input::ATTEMPTS => return Err(fault),
            Code::VaultWrongPassphrase => out::say(&format!("{}; try again", fault.message)),
            Code::ApprovalEarly | Code::ApprovalChanged => {
                let Some(changed) = open_card(broker, &card.id) else { break };
                out::say(&fault.message);
                card = changed;
                show(&card);
            }
            _ => return Err(fault),
        }
    }
    waiting.join().unwrap_or_else(|_| Err(Code::Internal.into()))
}

fn show(card: &ApprovalMsg) {
    out::explain(&card::text(card));
    out::explain("Answer in Keyward, or type the passphrase here to allow it once.");
}

/// The id of the request in the command that a cause tells.
fn named_in(fault: &Fault) -> Option<&str> {
    let told = fault.causes.iter().find_map(|cause| cause.split_once(APPROVE))?.1;
    let id = told.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    (!id.is_empty()).then_some(id)
}

/// The request of an id, while it waits.
fn open_card(broker: &mut Broker<'_>, id: &str) -> Option<ApprovalMsg> {
    let cards: Vec<ApprovalMsg> = broker.client().get("/v1/approvals").ok()?;
    cards.into_iter().find(|card| card.id == id && card.state == ApprovalState::Open)
}

/// Makes the request on a connection of its own, where it is held until it is answered; the connection ends with this process,
/// and the request with it. The first part is readable from then on.
fn wait_elsewhere<R: Asks>(
    broker: &Broker<'_>,
    request: &R,
) -> Result<(std::io::PipeReader, JoinHandle<Result<Response, Fault>>), Fault> {
    let fault = |e: std::io::Error| Fault::new(Code::InputNeeded).cause(e);
    let body = keyward_client::document(request)?;
    let places = broker.places().clone();
    let (answered, answer) = std::io::pipe().map_err(fault)?;
    let hold = move || {
        let held = Client::connect(&places, Start::Never).and_then(|mut c| c.call(Method::Post, R::PATH, Some(&body)));
        // Its end is the sign.
        drop(answer);
        held
    };
    Ok((answered, std::thread::Builder::new().spawn(hold).map_err(fault)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_the_command_that_its_cause_tells() {
        let named = |cause: &str| named_in(&Fault::new(Code::ApprovalNeeded).cause(cause)).map(str::to_owned);
        assert_eq!(named("run `keyward approve 7K2M9QXT` in a terminal of yours").as_deref(), Some("7K2M9QXT"));
        for cause in ["", "keyward approve", "run `keyward approve ", "run `keyward approve /v1` now"] {
            assert_eq!(named(cause), None, "{cause}");
        }
    }
}
