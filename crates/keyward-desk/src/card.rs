//! The card window: which request it is opened for, and the one way to answer it.
//!
//! One window for one request; the next one that waits gets a window when that one is closed. The window says by its id what
//! it was opened for, and any other id is refused, so that a window which is being closed answers nothing else. What is
//! allowed is decided by the broker; here only the person is asked. Called by the commands, the hosts and the thread that
//! follows the events.

use crate::desk::{Desk, ask, done, duration};
use crate::look;
use crate::prompt::CardWindow;
use crate::types::{ApprovalNamed, ApprovalReply, CardView, Done, Theme};
use keyward_api::{ApprovalAnswerRequest, ApprovalMsg, ApprovalState, Decision, Proof, StatusAnswer, part};
use keyward_diag::{Code, Fault};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody reads a card sooner: the time from its window, or from the keyboard's coming to it, to an answer that allows.
const READ_TIME: Duration = Duration::from_millis(800);
/// Seconds for which `project` allows when nothing is said.
const PROJECT_S: u64 = 3_600;

/// What the card window is there for.
#[derive(Default)]
pub(crate) struct Cards(Mutex<State>);

#[derive(Default)]
struct State {
    shown: Option<Shown>,
    /// The one that the person asked for while another was shown.
    asked: Option<String>,
    /// Those whose window the person closed without an answer: they open again when asked for.
    put_off: Vec<String>,
}

struct Shown {
    id: String,
    /// When it was opened, or got the keyboard.
    since: Instant,
}

impl Desk {
    fn cards(&self) -> MutexGuard<'_, State> {
        self.cards.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the window for what waits, and closes one whose request is over. Asks the broker; a fault changes nothing.
    pub(crate) fn look_for_cards(&self) {
        let Ok(all) = self.approvals() else { return };
        let open: Vec<&str> = all.iter().filter(|a| a.state == ApprovalState::Open).map(|a| a.id.as_str()).collect();
        let mut state = self.cards();
        state.put_off.retain(|id| open.contains(&id.as_str()));
        let before = state.shown.as_ref().map(|shown| shown.id.clone());
        let stays = before.clone().filter(|id| open.contains(&id.as_str()));
        let asked = state.asked.take().filter(|id| open.contains(&id.as_str()));
        if stays.is_some() && asked.is_none() {
            return;
        }
        // The oldest stands first.
        let next = asked.clone().or_else(|| {
            let waits = |id: &&&str| !state.put_off.iter().any(|other| other == **id);
            open.iter().find(waits).map(|id| (*id).to_owned())
        });
        state.shown = next.clone().map(|id| Shown { id, since: Instant::now() });
        // Told under the lock, so that the windows come in the order of the states.
        match next {
            Some(id) if asked.is_some() => self.prompter.card(CardWindow::Raise(id)),
            Some(id) => self.prompter.card(CardWindow::Open(id)),
            None if before.is_some() => self.prompter.card(CardWindow::Close),
            None => {}
        }
    }

    /// The person has closed the window of this request: it is not opened again unasked. Blocks for a moment.
    pub fn card_closed(&self, id: &str) {
        let mut state = self.cards();
        if state.shown.as_ref().is_some_and(|shown| shown.id == id) {
            state.shown = None;
            state.put_off.push(id.to_owned());
        }
        drop(state);
        self.look_for_cards();
    }

    /// The keyboard has come to the card window: what is pressed at once was meant for another one.
    pub fn card_focused(&self) {
        if let Some(shown) = &mut self.cards().shown {
            shown.since = Instant::now();
        }
    }

    /// What waits for the person, oldest first, then the last answers.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn approvals(&self) -> Result<Vec<ApprovalMsg>, Fault> {
        self.get("/v1/approvals")
    }

    /// Opens the window of a request and gives it the keyboard.
    ///
    /// # Errors
    /// Those of the broker; [`Code::ApprovalUnknown`]; [`Code::ApprovalOver`] for one that does not wait.
    pub fn approval_show(&self, request: ApprovalNamed) -> Result<Done, Fault> {
        self.waiting(&request.id)?;
        let mut state = self.cards();
        state.put_off.retain(|id| *id != request.id);
        state.asked = Some(request.id);
        drop(state);
        self.look_for_cards();
        Ok(done())
    }

    /// Says no, whatever was shown of it.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn approval_deny(&self, request: ApprovalNamed) -> Result<Done, Fault> {
        let approval = self.waiting(&request.id)?;
        let denied = self.deny(&approval);
        // Another one merged with it meanwhile.
        let denied = match denied {
            Err(fault) if fault.code == Code::ApprovalChanged => self.deny(&self.waiting(&request.id)?),
            denied => denied,
        };
        denied?;
        self.look_for_cards();
        Ok(done())
    }

    /// What the card window was opened for.
    ///
    /// # Errors
    /// Those of the broker; [`Code::ApprovalOver`] for another request than that.
    pub fn card(&self, request: ApprovalNamed) -> Result<CardView, Fault> {
        self.shown_since(&request.id)?;
        let status: StatusAnswer = self.get("/v1/status")?;
        let mut all = self.approvals()?;
        let at = all.iter().position(|approval| approval.id == request.id).ok_or(Code::ApprovalUnknown)?;
        let approval = all.swap_remove(at);
        Ok(CardView {
            now: status.now.unwrap_or_else(|| jiff::Timestamp::now().to_string()),
            theme: self.theme().unwrap_or(Theme::System),
            home: self.around.home.as_ref().map(|home| home.display().to_string()),
            approval,
            others: all.iter().filter(|approval| approval.state == ApprovalState::Open).count(),
        })
    }

    /// Answers the request that the card window was opened for. To allow takes the passphrase, unless it was proven lately;
    /// for profiles that ask at each use, always.
    ///
    /// # Errors
    /// Those of the broker; [`Code::ApprovalOver`] for another request than that; [`Code::ApprovalChanged`] when something
    /// else was shown, before anything is asked; [`Code::ApprovalEarly`].
    pub fn approval_answer(&self, request: ApprovalReply) -> Result<Done, Fault> {
        let since = self.shown_since(&request.id)?;
        let allows = request.decision != Decision::Deny;
        if allows && since.elapsed() < READ_TIME {
            return Err(Code::ApprovalEarly.into());
        }
        let path = format!("/v1/approvals/{}", part(&request.id));
        let body = |proof: Option<Proof>| ApprovalAnswerRequest {
            digest: request.digest.clone(),
            decision: request.decision,
            for_s: request.for_s,
            proof,
        };
        let answered = if allows {
            let approval = self.waiting(&request.id)?;
            if approval.digest != request.digest {
                return Err(Code::ApprovalChanged.into());
            }
            let ask = ask("Allow a request", &words(&approval, request.decision, request.for_s));
            if approval.confirm {
                let _turn = self.turn()?;
                let answer = |proof| self.pool.at_once(|client| client.post::<_, ()>(&path, &body(Some(proof))));
                self.proven(ask, answer)?.done
            } else {
                self.as_operator(ask, |client| client.post::<_, ()>(&path, &body(None)))?.is_some()
            }
        } else {
            self.pool.at_once(|client| client.post::<_, ()>(&path, &body(None)))?;
            true
        };
        if answered {
            self.look_for_cards();
        }
        Ok(Done { done: answered, notes: Vec::new() })
    }

    fn deny(&self, approval: &ApprovalMsg) -> Result<(), Fault> {
        let path = format!("/v1/approvals/{}", part(&approval.id));
        let digest = approval.digest.clone();
        let body = ApprovalAnswerRequest { digest, decision: Decision::Deny, for_s: None, proof: None };
        self.pool.at_once(|client| client.post(&path, &body))
    }

    /// The request of this id, which waits.
    fn waiting(&self, id: &str) -> Result<ApprovalMsg, Fault> {
        let found = self.approvals()?.into_iter().find(|approval| approval.id == id).ok_or(Code::ApprovalUnknown)?;
        if found.state == ApprovalState::Open { Ok(found) } else { Err(Code::ApprovalOver.into()) }
    }

    /// Since when the window of this request has the person's eyes.
    fn shown_since(&self, id: &str) -> Result<Instant, Fault> {
        let state = self.cards();
        let shown = state.shown.as_ref().filter(|shown| shown.id == id);
        shown.map(|shown| shown.since).ok_or_else(|| Code::ApprovalOver.into())
    }
}

/// What is allowed, in lines for the prompt, by the broker's words and not by those of the web view.
fn words(approval: &ApprovalMsg, decision: Decision, for_s: Option<u64>) -> String {
    let span = match decision {
        Decision::Deny => "no".to_owned(),
        Decision::Once => "once".to_owned(),
        Decision::Run => "as long as the run lives, at most 24 h".to_owned(),
        Decision::Project => format!("this app in this project, for {}", duration(for_s.unwrap_or(PROJECT_S))),
    };
    let mut lines = vec![look::name(&approval.question, 300), format!("You allow it: {span}.")];
    if let Some(command) = &approval.command {
        lines.push(format!("Command, as the requester says it: {}", look::name(command, 300)));
    }
    if approval.confirm {
        lines.push("Its profile asks for the passphrase at each use.".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::tests::approval;

    #[test]
    fn a_prompt_says_what_the_broker_says_and_for_how_long() {
        let mut asked = approval("A", "codex", "pg");
        asked.question = "codex wants pg\n\u{202e}".to_owned();
        let said = words(&asked, Decision::Once, Some(1));
        assert_eq!(said, "codex wants pg\\u{a}\\u{202e}\nYou allow it: once.");
        asked.command = Some("codex \u{1b}[2J".repeat(100));
        asked.confirm = true;
        let said = words(&asked, Decision::Project, None);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[1], "You allow it: this app in this project, for 1 h.");
        assert!(lines[2].starts_with("Command, as the requester says it: codex \\u{1b}[2J"), "{said}");
        assert!(lines.len() == 4 && lines[2].chars().count() < 350, "{said}");
        assert!(words(&asked, Decision::Project, Some(600)).contains("for 10 min."));
        assert!(words(&asked, Decision::Run, None).contains("at most 24 h"));
    }
}
