//! Calls at the fences of their leases: who waits, who is asked, and what an answer is good for.
//!
//! A call that finds no room waits for a moment or for a person; all that wait at the same limit of a lease wait for one
//! answer, and a no counts for a minute, so that neither a client that tries again nor a hundred at once ask a hundred times.
//! The limits themselves are `keyward_core::Fenced`; the question is the broker's. Called by `authority` and `gate`, and by
//! `records` when a profile is stored.

use crate::approve::{BURST, BURST_OF_ONE};
use crate::broker::{Broker, State};
use crate::gate::Holder;
use crate::platform::now;
use keyward_core::{Attempt, Boot, Counted, Fence, Fenced, Limit, Name, Passing, Prices, Profile, model_name};
use keyward_diag::{Code, Fault};
use keyward_gateway::{Pattern, Route, Slot};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

/// Calls of a lease whose cost is not known yet, where the fence counts money: a fence may be passed by what these cost.
const SLOTS: usize = 16;
/// How long a no counts.
const REFUSED: Duration = Duration::from_secs(60);
/// Limits of one lease that wait for a person at a time.
const ASKED_MAX: usize = 4;
/// Limits of one lease whose no is remembered.
const REFUSED_MAX: usize = 64;
/// Calls of a lease that wait for a person at a time: each may hold a body.
const WAITING_MAX: usize = 16;

/// What a person said; `None` while nobody has.
type Said = Option<Result<(), Fault>>;

/// Where a lease stands within its fence, and what waits there.
pub(crate) struct Kept {
    /// The limits and what was used.
    pub(crate) fenced: Fenced,
    slots: Arc<Semaphore>,
    asked: BTreeMap<Limit, Arc<watch::Sender<Said>>>,
    refused: BTreeMap<Limit, (Boot, Fault)>,
    /// When a person was asked in the last seconds.
    recent: VecDeque<Boot>,
}

/// What a call does next.
pub(crate) enum Step {
    /// It goes on.
    Through,
    /// It asks again after this time.
    Wait(Duration),
    /// A person is to be asked; it waits for the answer.
    Ask(Question, watch::Receiver<Said>),
    /// A person is asked already; it waits for the answer.
    Join(watch::Receiver<Said>),
}

/// What a person is asked.
pub(crate) struct Question {
    /// The limit.
    pub(crate) limit: Limit,
    /// What was used.
    pub(crate) told: String,
    /// What a person reads: the question, and the limits.
    text: Vec<String>,
    said: Arc<watch::Sender<Said>>,
}

impl Kept {
    /// A lease that has used so much.
    pub(crate) fn new(fence: Fence, counted: Counted) -> Self {
        Self {
            fenced: Fenced::new(fence, counted),
            slots: Arc::new(Semaphore::new(SLOTS)),
            asked: BTreeMap::new(),
            refused: BTreeMap::new(),
            recent: VecDeque::new(),
        }
    }

    /// The places of calls whose cost is not known yet, if that is counted.
    pub(crate) fn slots(&self) -> Option<Arc<Semaphore>> {
        self.fenced.fence().usd.map(|_| Arc::clone(&self.slots))
    }

    /// What a call does.
    ///
    /// # Errors
    /// [`Code::FenceReached`] when a person said no a moment ago, too much waits for one, or one was asked too often.
    pub(crate) fn step(&mut self, attempt: Attempt<'_>, now: Boot) -> Result<Step, Fault> {
        let limit = match self.fenced.pass(attempt, now) {
            Passing::Through => return Ok(Step::Through),
            Passing::Wait(time) => return Ok(Step::Wait(time)),
            Passing::Ask(limit) => limit,
        };
        let reached = |why| {
            let [told, _] = self.fenced.told(&limit);
            Fault::new(Code::FenceReached).cause(told).cause(why)
        };
        if self.asked.values().map(|said| said.receiver_count()).sum::<usize>() >= WAITING_MAX {
            return Err(reached("other calls of the run wait for a person"));
        }
        if let Some(said) = self.asked.get(&limit) {
            return Ok(Step::Join(said.subscribe()));
        }
        self.refused.retain(|_, (at, _)| now.since(*at) < REFUSED);
        if let Some((_, fault)) = self.refused.get(&limit) {
            return Err(fault.clone());
        }
        if self.asked.len() >= ASKED_MAX {
            return Err(reached("other limits of the run wait for a person"));
        }
        // A call that hangs up leaves its place at once, and the next one would be asked about anew.
        self.recent.retain(|at| now.since(*at) < BURST);
        if self.recent.len() >= BURST_OF_ONE {
            return Err(reached("a person was asked a moment ago; ask again in some seconds"));
        }
        self.recent.push_back(now);
        let [told, more] = self.fenced.told(&limit);
        let (said, answer) = watch::channel(None);
        let said = Arc::new(said);
        self.asked.insert(limit.clone(), Arc::clone(&said));
        let question = format!("{told}. Allow {more}?");
        let text = std::iter::once(question).chain(self.fenced.fence().words()).collect();
        Ok(Step::Ask(Question { limit, told, text, said }, answer))
    }

    /// Takes the answer, and wakes who waits. `None`: nobody does any longer.
    pub(crate) fn answered(&mut self, limit: &Limit, answer: Said, now: Boot) {
        let said = self.asked.remove(limit);
        match &answer {
            Some(Ok(())) => self.fenced.more(limit),
            Some(Err(fault)) if self.refused.len() < REFUSED_MAX => {
                self.refused.insert(limit.clone(), (now, fault.clone()));
            }
            Some(Err(_)) | None => {}
        }
        if let Some(said) = said {
            said.send_replace(answer);
        }
    }
}

impl Broker {
    /// Lets a call through the fence of its lease; waits where there is no room.
    ///
    /// # Errors
    /// [`Code::FenceReached`] when nobody allowed more; those of the gate when the lease is over.
    pub(crate) async fn pass_fence(self: &Arc<Self>, lease: Uuid, attempt: Attempt<'_>) -> Result<Slot, Fault> {
        loop {
            // Held while it is decided, so that what was spent is known but for so many; not while it waits.
            let slots = self.gate.slots(lease).filter(|_| matches!(attempt, Attempt::Model(_)));
            let slot = match slots {
                Some(slots) => Some(slots.acquire_owned().await.map_err(|e| Fault::new(Code::Internal).cause(e))?),
                None => None,
            };
            let (step, holder) = self.gate.fence(lease, attempt, now())?;
            let mut answer = match step {
                Step::Through => return Ok(slot),
                Step::Wait(time) => {
                    drop(slot);
                    tokio::time::sleep(time).await;
                    continue;
                }
                Step::Ask(question, answer) => {
                    tokio::spawn(ask(Arc::clone(self), holder, question));
                    answer
                }
                Step::Join(answer) => answer,
            };
            drop(slot);
            // Without an answer, those who asked before are gone, and it asks for itself.
            if let Ok(said) = answer.wait_for(Option::is_some).await
                && let Some(Err(fault)) = &*said
            {
                return Err(fault.clone());
            }
        }
    }
}

/// Asks a person, as long as a call waits for it.
async fn ask(broker: Arc<Broker>, holder: Arc<Holder>, question: Question) {
    let Question { limit, told, text, said } = question;
    let answer = tokio::select! {
        () = said.closed() => None,
        answer = broker.await_fence(holder.run, &holder.profile, text) => Some(answer),
    };
    let nobody = answer.is_none();
    let answer = answer.map(|answer| answer.map_err(|fault| reached(&told, fault)));
    broker.gate.answered(holder.lease, &limit, answer, now());
    if nobody {
        broker.stop_at_fence().await;
    }
}

/// What a client is told that waited in vain.
fn reached(told: &str, why: Fault) -> Fault {
    match why.code {
        Code::ApprovalDenied | Code::ApprovalUnanswered | Code::ApprovalFlood | Code::ApprovalOver => {
            let fault = Fault::new(Code::FenceReached).cause(told).cause(why.message);
            fault.help(
                "ask a person to allow more, or to change [fence] or [gateway] only in the profile; it is not asked again for a minute",
            )
        }
        _ => why,
    }
}

/// Whether the credential of a profile may be handed out by itself: not with a fence, which nobody would keep then.
///
/// # Errors
/// [`Code::DeliveryImpossible`].
pub(crate) fn check_token(state: &State, name: &Name) -> Result<(), Fault> {
    let stored = state.vault.opened().and_then(|open| open.profiles.get(name));
    match stored.and_then(|stored| stored.profile.fence()) {
        None => Ok(()),
        Some(_) => Err(Fault::new(Code::DeliveryImpossible)
            .cause(format!("`{name}` has a fence, which the gateway alone keeps"))
            .help(format!(
                "run the program with `keyward run -p {name} -- CMD`, so that its calls go through the gateway"
            ))),
    }
}

/// Checks of a profile what only the gateway knows: the calls that it limits itself to, and whether its API says what a fence
/// counts.
///
/// # Errors
/// [`Code::ProfileInvalid`], with what is wrong.
pub(crate) fn check(profile: &Profile) -> Result<(), Fault> {
    let invalid = |cause: String| Fault::new(Code::ProfileInvalid).cause(cause);
    let Some(target) = &profile.gateway else { return Ok(()) };
    for call in &target.only {
        Pattern::parse(call).map_err(|e| invalid(format!("`gateway.only`: {e}")))?;
    }
    let Some(fence) = target.fence.as_ref().filter(|fence| fence.counts()) else { return Ok(()) };
    if !Route::find(&target.route).is_some_and(Route::counts) {
        let key = if fence.usd.is_some() { "usd" } else { "models" };
        let fault =
            invalid(format!("`fence.{key}` is for APIs of models, and `{}` is none that is known", target.route));
        return Err(fault.help("leave it out, or limit the calls with `requests` and `[gateway] only`"));
    }
    let prices = Prices::built_in();
    let unknown = |model: &&String| {
        let name = model_name(&target.route, model);
        !model.contains('*') && prices.is_none_or(|prices| prices.find(&target.route, name).is_none())
    };
    match fence.models.iter().find(unknown).filter(|_| fence.usd.is_some()) {
        None => Ok(()),
        Some(model) => {
            let fault = invalid(format!("`fence.usd` cannot count `{model}`, which the list of prices does not have"));
            Err(fault.help("leave one of the two out"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use keyward_core::{Families, Model};

    fn fence(requests: u64) -> Fence {
        Fence { requests_per_minute: None, requests: Some(requests), models: Vec::new(), usd: None }
    }

    fn at(s: u64) -> Boot {
        Boot(Duration::from_secs(s))
    }

    #[tokio::test]
    async fn all_who_wait_at_a_limit_wait_for_one_answer() {
        let mut kept = Kept::new(fence(1), Counted::default());
        assert!(matches!(kept.step(Attempt::Request, at(0)), Ok(Step::Through)));
        let Ok(Step::Ask(question, mut first)) = kept.step(Attempt::Request, at(0)) else { panic!("nobody is asked") };
        assert_eq!(question.text[0], "1 requests so far; the limit is 1. Allow 1 more?");
        let Ok(Step::Join(mut second)) = kept.step(Attempt::Request, at(1)) else { panic!("it is asked twice") };
        kept.answered(&question.limit, Some(Ok(())), at(2));
        for answer in [&mut first, &mut second] {
            assert_eq!(*answer.wait_for(Option::is_some).await.unwrap(), Some(Ok(())));
        }
        assert!(matches!(kept.step(Attempt::Request, at(2)), Ok(Step::Through)), "a portion of one");
        assert!(matches!(kept.step(Attempt::Request, at(2)), Ok(Step::Ask(..))));
    }

    #[test]
    fn a_no_counts_for_a_minute_and_for_its_limit_alone() {
        let mut kept = Kept::new(Fence { models: vec!["a".to_owned()], ..fence(1) }, Counted::default());
        let model = |name| Attempt::Model(Model { sent: name, name });
        assert!(matches!(kept.step(Attempt::Request, at(0)), Ok(Step::Through)));
        let Ok(Step::Ask(question, _answer)) = kept.step(Attempt::Request, at(0)) else { panic!("nobody is asked") };
        let no = reached(&question.told, Fault::new(Code::ApprovalDenied));
        assert_eq!((no.code, no.causes.len()), (Code::FenceReached, 2));
        kept.answered(&question.limit, Some(Err(no)), at(10));
        assert_eq!(kept.step(Attempt::Request, at(69)).err().unwrap().code, Code::FenceReached);
        assert!(matches!(kept.step(model("b"), at(69)), Ok(Step::Ask(..))), "another limit");
        assert!(matches!(kept.step(Attempt::Request, at(70)), Ok(Step::Ask(..))));
    }

    #[test]
    fn who_asks_under_many_names_waits_for_few_answers() {
        let mut kept = Kept::new(Fence { models: vec!["a".to_owned()], ..fence(9) }, Counted::default());
        let names: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
        let asked = names.iter().map(|name| kept.step(Attempt::Model(Model { sent: name, name }), at(0)));
        let asked: Vec<_> = asked.collect();
        assert_eq!(asked.iter().filter(|step| matches!(step, Ok(Step::Ask(..)))).count(), ASKED_MAX);
        assert_eq!(asked.iter().filter(|step| step.is_err()).count(), 100 - ASKED_MAX);
        for name in &names {
            let no = Some(Err(Fault::new(Code::FenceReached)));
            kept.answered(&Limit::Model(name.clone()), no, at(0));
        }
        assert_eq!(kept.refused.len(), REFUSED_MAX);
    }

    #[test]
    fn who_hangs_up_is_asked_about_six_times_in_twelve_seconds() {
        let mut kept = Kept::new(fence(1), Counted { requests: 1, ..Counted::default() });
        for _ in 0..BURST_OF_ONE {
            let Ok(Step::Ask(question, answer)) = kept.step(Attempt::Request, at(0)) else { panic!("nobody is asked") };
            drop(answer);
            kept.answered(&question.limit, None, at(0));
        }
        let refused = kept.step(Attempt::Request, at(11)).err().unwrap();
        assert_eq!((refused.code, refused.causes.len()), (Code::FenceReached, 2));
        assert!(matches!(kept.step(Attempt::Request, at(12)), Ok(Step::Ask(..))));
    }

    #[test]
    fn few_calls_of_a_lease_wait_for_a_person() {
        let mut kept = Kept::new(fence(1), Counted { requests: 1, ..Counted::default() });
        let mut answers = Vec::new();
        for _ in 0..WAITING_MAX {
            match kept.step(Attempt::Request, at(0)) {
                Ok(Step::Ask(_, answer) | Step::Join(answer)) => answers.push(answer),
                _ => panic!("{} wait", answers.len()),
            }
        }
        assert_eq!(kept.step(Attempt::Request, at(0)).err().unwrap().code, Code::FenceReached);
        answers.pop();
        assert!(matches!(kept.step(Attempt::Request, at(0)), Ok(Step::Join(_))));
    }

    #[test]
    fn nobody_who_waits_leaves_no_question_behind() {
        let mut kept = Kept::new(fence(1), Counted { requests: 1, ..Counted::default() });
        let Ok(Step::Ask(question, answer)) = kept.step(Attempt::Request, at(0)) else { panic!("nobody is asked") };
        drop(answer);
        assert_eq!(question.said.receiver_count(), 0);
        kept.answered(&question.limit, None, at(0));
        assert!(matches!(kept.step(Attempt::Request, at(0)), Ok(Step::Ask(..))));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_when_it_is_stored() {
        let families = Families::built_in().unwrap();
        let check = |toml: &str| {
            let profile = Profile::parse(Name::parse("k").unwrap(), toml, &keyward_issuer::kinds(), &families);
            check(&profile.unwrap_or_else(|e| panic!("{toml}: {e}"))).map_err(|fault| fault.causes.join("; "))
        };
        let known = |provider: &str, more: &str| {
            format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"{provider}\"\n{more}")
        };
        let bare = |more: &str| {
            format!(
                "[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n[delivery]\nenv = {{ K = \"token\" }}\n[gateway]\nbase_url = \"https://a.example\"\nonly = [\"GET /\"]\n{more}"
            )
        };
        for good in [
            known("anthropic", ""),
            known("anthropic", "[fence]\nusd = 5\nmodels = [\"claude-haiku-*\", \"claude-opus-4-6\"]"),
            known("anthropic", "[gateway]\nonly = [\"POST /v1/messages\"]\n[fence]\nrequests = 5"),
            known("github", "[fence]\nrequests = 5"),
            known("anthropic", "[fence]\nmodels = [\"claude-of-tomorrow\"]"),
            bare("[fence]\nrequests_per_minute = 5"),
        ] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        for (bad, words) in [
            (known("anthropic", "[gateway]\nonly = [\"POST /v1/{a}{b}\"]"), "more than one placeholder"),
            (known("anthropic", "[gateway]\nonly = [\"GET /v1/{rest...}/x\"]"), "stands alone and at the end"),
            (known("github", "[fence]\nusd = 5"), "`github` is none"),
            (known("github", "[fence]\nmodels = [\"x\"]"), "`fence.models`"),
            (bare("[fence]\nusd = 5"), "`generic` is none"),
            (
                known("anthropic", "[fence]\nusd = 5\nmodels = [\"claude-of-tomorrow\"]"),
                "cannot count `claude-of-tomorrow`",
            ),
        ] {
            assert!(check(&bad).unwrap_err().contains(words), "{bad}: {:?}", check(&bad));
        }
    }
}
