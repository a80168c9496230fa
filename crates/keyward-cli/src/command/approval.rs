//! `keyward approvals`, `approve` and `deny`: what waits for a person, and the answers.

use super::Outcome;
use crate::args::Context;
use crate::broker::Broker;
use crate::card;
use crate::input::ProofArgs;
use crate::table::table;
use crate::{out, time};
use jiff::Timestamp;
use keyward_api::{ApprovalAnswerRequest, ApprovalKind, ApprovalMsg, ApprovalState, Decision};
use keyward_diag::{Code, Fault, plain};
use std::time::Duration;

/// From the last change of what is shown to the first answer that the broker takes.
const READING_TIME: Duration = Duration::from_millis(800);

/// List the requests that wait for a person
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Also those that were answered since the broker started, at most a hundred
    #[arg(long)]
    all: bool,
}

/// Show a request and allow it
///
/// Asks for the passphrase each time. What is allowed is what was shown: where the request has changed meanwhile, the answer
/// is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// Id of the request, as `approvals` shows it
    id: String,
    /// Allow it one time; so it is without --run and --project
    #[arg(long, conflicts_with_all = ["run", "project"])]
    once: bool,
    /// Allow it as long as the run lives, at most 24 hours
    #[arg(long, conflicts_with = "project")]
    run: bool,
    /// Allow it to this app in this project, for a time
    #[arg(long)]
    project: bool,
    /// How long, from 1m to 24h; 1h when left out
    #[arg(long = "for", value_name = "TIME", value_parser = time::grant_life, requires = "project")]
    for_s: Option<u64>,
    #[command(flatten)]
    proof: ProofArgs,
}

/// Refuse a request
///
/// The same request is then refused for a minute without being shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Deny {
    /// Id of the request, as `approvals` shows it
    id: String,
}

impl List {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut cards = all(&mut Broker::open(context)?)?;
        cards.retain(|card| self.all || card.state == ApprovalState::Open);
        if context.json {
            out::json(&cards)?;
        } else if cards.is_empty() {
            out::say("nothing waits for a person");
        } else {
            let rows: Vec<_> = cards.iter().map(row).collect();
            out::text(&table(&["request", "question", "asked by", "asked", "times", "state"], &rows))?;
        }
        Ok(0)
    }
}

fn row(card: &ApprovalMsg) -> Vec<String> {
    // The first of them is most often this command line, and the next one whoever has started it.
    let by = card::chain(card.chain.get(..2).unwrap_or(&card.chain));
    let asked = time::ago(&card.asked_at);
    vec![card.id.clone(), card.question.clone(), by, asked, card.merged.to_string(), card::state(card)]
}

impl Approve {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let decision = match (self.run, self.project) {
            (true, _) => Decision::Run,
            (false, true) => Decision::Project,
            (false, false) => Decision::Once,
        };
        let mut broker = Broker::open(context)?;
        broker.outside()?;
        let card = open(all(&mut broker)?, &self.id)?;
        if !card.choices.contains(&decision) {
            return Err(no_choice(&card, decision).into());
        }
        out::explain(&card::text(&card));
        let proof = self.proof.proof(context, broker.places())?;
        let answer =
            ApprovalAnswerRequest { digest: card.digest.clone(), decision, for_s: self.for_s, proof: Some(proof) };
        std::thread::sleep(unread(&card.changed_at, Timestamp::now()));
        broker.unlocked(|client| client.post::<_, ()>(&card::path(&card.id), &answer))?;
        out::say(&allowed(&card, decision));
        Ok(0)
    }
}

impl Deny {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut broker = Broker::open(context)?;
        broker.outside()?;
        let card = open(all(&mut broker)?, &self.id)?;
        let answer =
            ApprovalAnswerRequest { digest: card.digest.clone(), decision: Decision::Deny, for_s: None, proof: None };
        broker.unlocked(|client| client.post::<_, ()>(&card::path(&card.id), &answer))?;
        out::say(&format!("denied: {}", plain(&card.question, 400)));
        Ok(0)
    }
}

fn all(broker: &mut Broker<'_>) -> Result<Vec<ApprovalMsg>, Fault> {
    broker.unlocked(|client| client.get("/v1/approvals"))
}

/// The request of an id, in upper or lower case, which must still wait.
fn open(cards: Vec<ApprovalMsg>, id: &str) -> Result<ApprovalMsg, Fault> {
    let found = cards.iter().find(|card| card.id.eq_ignore_ascii_case(id)).cloned();
    let unknown = || Fault::new(Code::ApprovalUnknown).cause(format!("nothing has the id `{}`", plain(id, 40)));
    let card = found.ok_or_else(unknown)?;
    if let Some(last) = successor(&cards, &card) {
        let cause = format!("the same asker has asked anew: look at `keyward approve {}`", plain(&last.id, 40));
        return Err(Fault::new(Code::ApprovalOver).cause(cause));
    }
    match card.state {
        ApprovalState::Open => Ok(card),
        ApprovalState::Allowed | ApprovalState::Denied | ApprovalState::Unanswered | ApprovalState::Withdrawn => {
            Err(Fault::new(Code::ApprovalOver).cause(format!("it was {}", card::state(&card))))
        }
    }
}

/// The last of the requests that took the place of one, where that waits.
fn successor<'c>(cards: &'c [ApprovalMsg], card: &ApprovalMsg) -> Option<&'c ApprovalMsg> {
    let by = |id: &str| cards.iter().find(|card| card.id == id);
    let mut last = by(card.replaced_by.as_deref()?)?;
    // No more steps than there are requests: what a broker says may go in a circle.
    for _ in 0..cards.len() {
        match last.replaced_by.as_deref().and_then(by) {
            Some(next) => last = next,
            None => break,
        }
    }
    (last.state == ApprovalState::Open).then_some(last)
}

/// What a yes has done.
fn allowed(card: &ApprovalMsg, decision: Decision) -> String {
    match (card.kind, decision) {
        (ApprovalKind::Fence, _) => match card.question.rsplit_once("Allow ") {
            Some((_, more)) => format!("the fence lets through: {}", plain(more.trim_end_matches('?'), 200)),
            None => "the fence lets the run go on".to_owned(),
        },
        (ApprovalKind::Extend, _) => "the run may go on for another day, as far as the profile allows".to_owned(),
        (_, Decision::Run) => "allowed as long as the run lives".to_owned(),
        (_, Decision::Project) => "allowed in this project for a time; `keyward grant list` shows how long".to_owned(),
        (_, Decision::Once | Decision::Deny) => "allowed once".to_owned(),
    }
}

fn no_choice(card: &ApprovalMsg, decision: Decision) -> Fault {
    let choices: Vec<&str> = card.choices.iter().copied().map(card::word).collect();
    Fault::new(Code::RequestInvalid)
        .cause(format!("this request cannot be allowed with {}", card::word(decision)))
        .help(format!("allow it with one of: {}", choices.join(", ")))
}

/// What is left of the time that the broker gives for reading: whoever types the passphrase in advance has read it in
/// `approvals`.
fn unread(changed_at: &str, now: Timestamp) -> Duration {
    let shown = changed_at.parse::<Timestamp>().map_or(Duration::ZERO, |at| now.duration_since(at).unsigned_abs());
    READING_TIME.saturating_sub(shown)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::card::tests::card;

    #[test]
    fn only_a_request_that_waits_is_answered() {
        let open = |id: &str, state: &str| open(vec![card(|c| c["state"] = state.into())], id).map(|card| card.id);
        assert_eq!(open("7k2m9qxt", "open").unwrap(), "7K2M9QXT");
        assert_eq!(open("7K2M9QX\u{1b}", "open").unwrap_err().code, Code::ApprovalUnknown);
        for state in ["allowed", "denied", "unanswered", "withdrawn"] {
            let fault = open("7K2M9QXT", state).unwrap_err();
            assert!(fault.code == Code::ApprovalOver && !fault.causes.is_empty(), "{fault}");
        }
    }

    #[test]
    fn a_request_that_was_asked_anew_names_the_last_one() {
        let asked = |id: &str, by: Option<&str>| {
            card(|c| {
                (c["id"], c["state"]) = (id.into(), if by.is_some() { "withdrawn" } else { "open" }.into());
                c["replaced_by"] = by.into();
            })
        };
        let cause = |cards| open(cards, "A").unwrap_err().causes.join("; ");
        let told = cause(vec![asked("C", None), asked("A", Some("B")), asked("B", Some("C"))]);
        assert!(told.contains("`keyward approve C`"), "{told}");
        for cards in [vec![asked("A", Some("A"))], vec![asked("A", Some("gone"))]] {
            assert_eq!(cause(cards), "it was withdrawn");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_names_those_that_do() {
        let fault = no_choice(&card(|_| {}), Decision::Project);
        assert!(fault.causes[0].contains("--project") && fault.help.contains("--once, --run"), "{fault}");
    }

    #[test]
    fn a_yes_says_what_it_has_done() {
        let told = |kind: &str, question: &str, decision| {
            let card = card(|c| {
                c["kind"] = kind.into();
                c["question"] = question.into();
            });
            allowed(&card, decision)
        };
        let fence = |question| told("fence", question, Decision::Once);
        assert_eq!(fence("20 requests so far; the limit is 20. Allow 20 more?"), "the fence lets through: 20 more");
        assert_eq!(fence("?\u{1b}[2J"), "the fence lets the run go on");
        assert!(!fence("Allow \u{1b}[2J?").contains('\u{1b}'));
        assert!(told("extend", "q", Decision::Run).contains("another day"));
        assert_eq!(told("run", "Allow me?", Decision::Once), "allowed once");
        assert!(told("token", "q", Decision::Project).contains("grant list"));
    }

    #[test]
    fn an_answer_waits_until_the_request_can_have_been_read() {
        let now: Timestamp = "2026-11-21T10:00:01Z".parse().unwrap();
        for (changed_at, left) in
            [("2026-11-21T10:00:01Z", 800), ("2026-11-21T10:00:00.5Z", 300), ("2026-11-21T09:00:00Z", 0), ("soon", 800)]
        {
            assert_eq!(unread(changed_at, now), Duration::from_millis(left), "{changed_at}");
        }
    }
}
