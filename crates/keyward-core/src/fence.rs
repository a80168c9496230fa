//! Fences: limits of a profile that hold for each lease by the gateway.
//!
//! Says what a fence is and where a lease stands within it; never waits, asks nobody and sends nothing. Pure; called when a
//! profile is read, and by the broker for each call of a lease that has a fence.

use crate::{Boot, Usd};
use keyward_diag::plain;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;
use toml::{Table, Value};

/// Keys of the section.
pub(crate) const KEYS: [&str; 4] = ["requests_per_minute", "requests", "models", "usd"];

/// Most requests a minute that a fence may name: so many moments are kept for a lease.
const RATE_MAX: u32 = 6_000;
/// Most requests that a fence may name.
const REQUESTS_MAX: u64 = 1_000_000_000;
/// Most dollars that a fence may name.
const USD_MAX: f64 = 1_000_000.0;
/// Most patterns of models.
const MODELS_MAX: usize = 32;
/// Longest pattern of a model, in bytes.
const MODEL_MAX_BYTES: usize = 128;
/// Most characters of the name of a model that are shown.
const SHOWN_MAX: usize = 256;
/// Most models and calls that may be allowed besides, for one lease.
const BESIDES_MAX: usize = 64;
/// The time that a rate is counted over.
const MINUTE: Duration = Duration::from_secs(60);
/// How long a request waits for the minute to have room before a person is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// The limits of a profile, for each lease by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fence {
    /// Requests in any sixty seconds, 1 to 6,000.
    pub requests_per_minute: Option<u32>,
    /// Requests in all, at least one.
    pub requests: Option<u64>,
    /// Patterns of models, `*` for any text; empty for any model.
    pub models: Vec<String>,
    /// What the calls may cost together, by the list of prices.
    pub usd: Option<Usd>,
}

impl Fence {
    /// Reads the section of a profile; `None` where there is none.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub(crate) fn read(section: &Table) -> Result<Option<Self>, String> {
        if section.is_empty() {
            return Ok(None);
        }
        let whole = |key: &str, most: u64| match section.get(key) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| (1..=most).contains(n));
                number.map(Some).ok_or_else(|| format!("`fence.{key}` is not a whole number from 1 to {most}"))
            }
        };
        let rate = whole("requests_per_minute", RATE_MAX.into())?;
        let usd = match section.get("usd") {
            None => None,
            Some(value) => Some(dollars(value).ok_or("`fence.usd` is not an amount such as 5.00, at most 1000000")?),
        };
        Ok(Some(Self {
            requests_per_minute: rate.and_then(|n| u32::try_from(n).ok()),
            requests: whole("requests", REQUESTS_MAX)?,
            models: section.get("models").map_or(Ok(Vec::new()), patterns)?,
            usd,
        }))
    }

    /// Whether it looks at what is asked of a model and at what that costs, which only some APIs say.
    pub fn counts(&self) -> bool {
        !self.models.is_empty() || self.usd.is_some()
    }

    /// The limits in words, one a line.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.requests_per_minute.map(|n| format!("at most {n} requests a minute")));
        words.extend(self.requests.map(|n| format!("at most {n} requests a run")));
        if !self.models.is_empty() {
            words.push(format!("models: {}", self.models.join(", ")));
        }
        words.extend(self.usd.map(|usd| format!("at most {usd} a run, by the list prices that Keyward has")));
        words
    }
}

/// An amount above zero, to the millionth.
fn dollars(value: &Value) -> Option<Usd> {
    let amount = match value {
        Value::Float(amount) => *amount,
        Value::Integer(amount) => *amount as f64,
        _ => return None,
    };
    let fits = amount.is_finite() && amount > 0.0 && amount <= USD_MAX;
    fits.then(|| Usd((amount * 1e6).round() as u64)).filter(|usd| usd.0 > 0)
}

fn patterns(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or("`fence.models` is not a list such as [\"claude-haiku-*\"]")?;
    if list.is_empty() || list.len() > MODELS_MAX {
        return Err(format!("`fence.models` names no model, or more than {MODELS_MAX}"));
    }
    let read = |value: &Value| {
        let text = value.as_str().filter(|text| (1..=MODEL_MAX_BYTES).contains(&text.len()))?;
        text.bytes().all(|b| b.is_ascii_graphic()).then(|| text.to_owned())
    };
    list.iter().map(read).collect::<Option<_>>().ok_or_else(|| {
        format!("`fence.models` holds what is no name of a model: printable ASCII of at most {MODEL_MAX_BYTES} bytes")
    })
}

/// Whether a text is as a pattern says, in which `*` stands for any text, the empty one too.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.is_empty()
}

/// A model as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model<'m> {
    /// As it was sent.
    pub sent: &'m str,
    /// As its maker writes it.
    pub name: &'m str,
}

/// What a request comes to the fence of its lease with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt<'a> {
    /// A request, of which nothing counts but that it is one.
    Request,
    /// A request that a model answers.
    Model(Model<'a>),
    /// A call that the profile's own list leaves out, and the list of the API has: its method and the pattern of its path. It is
    /// not counted; the request comes again as what it is besides.
    Call(&'a str),
}

/// One limit of a fence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Requests in a minute.
    Rate,
    /// Requests in all.
    Requests,
    /// What the calls cost together.
    Usd,
    /// A model that no pattern names, as it was sent.
    Model(String),
    /// A call that the profile's own list leaves out, as [`Attempt::Call`] says it.
    Call(String),
}

impl Limit {
    /// The word for it in the log: the key in the profile.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Rate => "requests_per_minute",
            Self::Requests => "requests",
            Self::Usd => "usd",
            Self::Model(_) => "models",
            Self::Call(_) => "only",
        }
    }
}

/// What a request does at a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passing {
    /// It goes on, and is counted.
    Through,
    /// It asks again after this time, which is at most ten seconds.
    Wait(Duration),
    /// A person decides.
    Ask(Limit),
}

/// What a lease has used of its fence. Survives a restart of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Requests that went through.
    pub requests: u64,
    /// What they cost, as far as their answers have ended.
    pub usd: Usd,
    /// How many requests a person has allowed in all, where it is more than the fence says.
    #[serde(default)]
    pub requests_until: Option<u64>,
    /// What a person has allowed them to cost, where it is more than the fence says.
    #[serde(default)]
    pub usd_until: Option<Usd>,
}

/// Where a lease stands within its fence.
#[derive(Debug)]
pub struct Fenced {
    fence: Fence,
    counted: Counted,
    /// When the requests of the last minute went through.
    minute: VecDeque<Boot>,
    /// Models and calls that a person has allowed besides.
    besides: BTreeSet<Limit>,
}

impl Fenced {
    /// A lease that has used so much.
    pub fn new(fence: Fence, counted: Counted) -> Self {
        Self { fence, counted, minute: VecDeque::new(), besides: BTreeSet::new() }
    }

    /// The limits.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// What was used.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes another fence: the profile was changed. What was used stays counted, what a person allowed besides ends.
    pub fn change(&mut self, fence: Fence) {
        if fence != self.fence {
            (self.counted.requests_until, self.counted.usd_until) = (None, None);
            self.besides.clear();
            self.fence = fence;
        }
    }

    /// The profile's own list of calls is another one: what a person allowed besides it ends.
    pub fn change_calls(&mut self) {
        self.besides.retain(|limit| !matches!(limit, Limit::Call(_)));
    }

    /// Decides about a request.
    pub fn pass(&mut self, attempt: Attempt<'_>, now: Boot) -> Passing {
        let Fence { requests_per_minute, requests, models, usd } = &self.fence;
        if let Attempt::Call(call) = attempt {
            let limit = Limit::Call(call.to_owned());
            return if self.besides.contains(&limit) { Passing::Through } else { Passing::Ask(limit) };
        }
        if let Attempt::Model(model) = attempt {
            let named = |pattern: &String| fits(pattern, model.sent) || fits(pattern, model.name);
            if !models.is_empty() && !models.iter().any(named) {
                let limit = Limit::Model(model.sent.to_owned());
                if !self.besides.contains(&limit) {
                    return Passing::Ask(limit);
                }
            }
            if usd.is_some_and(|usd| self.counted.usd >= self.counted.usd_until.unwrap_or(usd)) {
                return Passing::Ask(Limit::Usd);
            }
        }
        if requests.is_some_and(|most| self.counted.requests >= self.counted.requests_until.unwrap_or(most)) {
            return Passing::Ask(Limit::Requests);
        }
        if let Some(rate) = *requests_per_minute {
            while self.minute.front().is_some_and(|first| now.since(*first) >= MINUTE) {
                self.minute.pop_front();
            }
            let full = self.minute.len() >= usize::try_from(rate).unwrap_or(usize::MAX);
            if let Some(first) = self.minute.front().filter(|_| full) {
                let left = MINUTE.saturating_sub(now.since(*first));
                return if left <= PATIENCE { Passing::Wait(left) } else { Passing::Ask(Limit::Rate) };
            }
            self.minute.push_back(now);
        }
        self.counted.requests = self.counted.requests.saturating_add(1);
        Passing::Through
    }

    /// A person allowed more: one more portion of the same size from what was used so far, one more minute, this model, or calls
    /// of this form.
    pub fn more(&mut self, limit: &Limit) {
        let Counted { requests, usd, .. } = self.counted;
        match limit {
            Limit::Rate => self.minute.clear(),
            Limit::Requests => {
                self.counted.requests_until = self.fence.requests.map(|portion| requests.saturating_add(portion));
            }
            Limit::Usd => self.counted.usd_until = self.fence.usd.map(|portion| usd.plus(portion)),
            Limit::Model(_) | Limit::Call(_) if self.besides.len() < BESIDES_MAX => {
                self.besides.insert(limit.clone());
            }
            Limit::Model(_) | Limit::Call(_) => {}
        }
    }

    /// Adds what a request has cost.
    pub fn spend(&mut self, usd: Usd) {
        self.counted.usd = self.counted.usd.plus(usd);
    }

    /// What is said about a limit that was reached: what was used, and what allowing more gives.
    pub fn told(&self, limit: &Limit) -> [String; 2] {
        let Fence { requests_per_minute, requests, models, usd } = &self.fence;
        let Counted { requests: made, usd: spent, .. } = self.counted;
        match limit {
            Limit::Rate => {
                let rate = requests_per_minute.unwrap_or_default();
                [format!("{rate} requests in a minute, which is the limit"), format!("{rate} more at once")]
            }
            Limit::Requests => {
                let portion = requests.unwrap_or_default();
                [format!("{made} requests so far; the limit is {portion}"), format!("{portion} more")]
            }
            Limit::Usd => {
                let portion = usd.unwrap_or_default();
                [format!("{spent} so far; the limit is {portion}"), format!("{portion} more")]
            }
            Limit::Model(model) => [
                format!("the model {}; the limit is {}", plain(model, SHOWN_MAX), models.join(", ")),
                "this model as long as the run lives".to_owned(),
            ],
            Limit::Call(call) => [
                format!("{}, which the profile's list leaves out", plain(call, SHOWN_MAX)),
                "calls of this form as long as the run lives".to_owned(),
            ],
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn read(text: &str) -> Result<Option<Fence>, String> {
        Fence::read(&toml::from_str(text).unwrap())
    }

    fn fenced(text: &str) -> Fenced {
        Fenced::new(read(text).unwrap().unwrap(), Counted::default())
    }

    fn at(ms: u64) -> Boot {
        Boot(Duration::from_millis(ms))
    }

    fn model(name: &str) -> Attempt<'_> {
        Attempt::Model(Model { sent: name, name })
    }

    #[test]
    fn a_section_is_read_or_refused() {
        assert_eq!(read(""), Ok(None));
        let all = "requests_per_minute = 60\nrequests = 1000\nmodels = [\"claude-*\"]\nusd = 5.00";
        let fence = read(all).unwrap().unwrap();
        assert_eq!(
            (fence.requests_per_minute, fence.requests, fence.usd),
            (Some(60), Some(1000), Some(Usd(5_000_000)))
        );
        assert_eq!(fence.words().len(), 4);
        assert_eq!(read("usd = 5").unwrap().unwrap().usd, Some(Usd(5_000_000)));
        assert_eq!(read("usd = 0.29").unwrap().unwrap().usd, Some(Usd(290_000)));
        for bad in [
            "requests = 0",
            "requests = -1",
            "requests = 1.5",
            "requests = \"1\"",
            "requests = 1000000001",
            "requests_per_minute = 0",
            "requests_per_minute = 6001",
            "usd = 0",
            "usd = -1.0",
            "usd = inf",
            "usd = nan",
            "usd = 0.0000001",
            "usd = 1000001",
            "usd = \"5\"",
            "models = []",
            "models = \"x\"",
            "models = [1]",
            "models = [\"\"]",
            "models = [\"a b\"]",
            "models = [\"\\u202e\"]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        for (pattern, text, fitting) in [
            ("*", "", true),
            ("*", "x", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("*b*", "ac", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b", false),
            ("a**b", "ab", true),
            ("a.c", "abc", false),
            ("a?c", "abc", false),
            ("A", "a", false),
        ] {
            assert_eq!(fits(pattern, text), fitting, "{pattern} {text}");
        }
    }

    #[test]
    fn requests_are_counted_and_a_portion_more_is_one_portion() {
        let mut fenced = fenced("requests = 3");
        for _ in 0..3 {
            assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Through);
        }
        for _ in 0..3 {
            assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Ask(Limit::Requests));
        }
        fenced.more(&Limit::Requests);
        // It survives a restart as it stands.
        let mut fenced = Fenced::new(fenced.fence().clone(), fenced.counted());
        let through = (0..9).filter(|_| fenced.pass(Attempt::Request, at(0)) == Passing::Through).count();
        assert_eq!((through, fenced.counted().requests), (3, 6));
        fenced.change(read("requests = 4").unwrap().unwrap());
        assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Ask(Limit::Requests), "six are more than four");
    }

    #[test]
    fn a_minute_has_so_many_and_its_end_is_waited_for() {
        let mut fenced = fenced("requests_per_minute = 2");
        assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Through);
        assert_eq!(fenced.pass(Attempt::Request, at(30_000)), Passing::Through);
        assert_eq!(fenced.pass(Attempt::Request, at(40_000)), Passing::Ask(Limit::Rate));
        assert_eq!(fenced.pass(Attempt::Request, at(50_000)), Passing::Wait(Duration::from_secs(10)));
        assert_eq!(fenced.pass(Attempt::Request, at(60_000)), Passing::Through);
        assert_eq!(fenced.pass(Attempt::Request, at(60_000)), Passing::Ask(Limit::Rate));
        fenced.more(&Limit::Rate);
        let through = (0..9).filter(|_| fenced.pass(Attempt::Request, at(60_000)) == Passing::Through).count();
        assert_eq!(through, 2);
    }

    #[test]
    fn money_ends_what_a_model_answers_and_nothing_else() {
        let mut fenced = fenced("usd = 1.00");
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Through);
        fenced.spend(Usd(999_999));
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Through);
        fenced.spend(Usd(4_000_000));
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Ask(Limit::Usd));
        assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Through, "it costs nothing");
        fenced.more(&Limit::Usd);
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Through, "a whole portion from there");
        fenced.spend(Usd(1_000_000));
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Ask(Limit::Usd));
        fenced.spend(Usd(u64::MAX));
        assert_eq!(fenced.pass(model("m"), at(0)), Passing::Ask(Limit::Usd));
    }

    #[test]
    fn a_model_is_named_as_sent_or_as_its_maker_does() {
        let mut fenced = fenced("models = [\"claude-haiku-*\"]");
        assert_eq!(fenced.pass(model("claude-haiku-4-5"), at(0)), Passing::Through);
        let sent = "us.anthropic.claude-haiku-4-5-v1:0";
        assert_eq!(fenced.pass(Attempt::Model(Model { sent, name: "claude-haiku-4-5-v1:0" }), at(0)), Passing::Through);
        let other = Limit::Model("claude-opus-5".to_owned());
        assert_eq!(fenced.pass(model("claude-opus-5"), at(0)), Passing::Ask(other.clone()));
        fenced.more(&other);
        assert_eq!(fenced.pass(model("claude-opus-5"), at(0)), Passing::Through);
        assert!(
            matches!(fenced.pass(model("claude-opus-5-5"), at(0)), Passing::Ask(Limit::Model(_))),
            "that one alone"
        );
        for n in 0..2 * BESIDES_MAX {
            fenced.more(&Limit::Model(n.to_string()));
        }
        assert_eq!(fenced.besides.len(), BESIDES_MAX);
    }

    #[test]
    fn a_call_that_the_list_leaves_out_is_asked_about_by_itself_and_counts_as_none() {
        let mut fenced = fenced("requests = 1");
        let limit = |call: &str| Limit::Call(call.to_owned());
        let (post, get) = ("POST /v1/files", "GET /v1/files");
        assert_eq!(fenced.pass(Attempt::Call(post), at(0)), Passing::Ask(limit(post)));
        fenced.more(&limit(post));
        for _ in 0..9 {
            assert_eq!(fenced.pass(Attempt::Call(post), at(0)), Passing::Through);
        }
        assert_eq!(fenced.pass(Attempt::Call(get), at(0)), Passing::Ask(limit(get)), "that one alone");
        fenced.more(&Limit::Model(get.to_owned()));
        assert_eq!(fenced.pass(Attempt::Call(get), at(0)), Passing::Ask(limit(get)), "a model is no call");
        assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Through);
        assert_eq!(fenced.pass(Attempt::Request, at(0)), Passing::Ask(Limit::Requests));
        fenced.change_calls();
        assert_eq!(fenced.pass(Attempt::Call(post), at(0)), Passing::Ask(limit(post)));
    }

    #[test]
    fn what_is_told_holds_no_odd_characters() {
        let fenced = fenced("models = [\"a\"]\nrequests = 2\nusd = 1\nrequests_per_minute = 1");
        let odd = "x\u{202e}\n".to_owned();
        for limit in [Limit::Rate, Limit::Requests, Limit::Usd, Limit::Model(odd.clone()), Limit::Call(odd)] {
            assert!(fenced.told(&limit).concat().is_ascii(), "{limit}: {:?}", fenced.told(&limit));
        }
    }

    proptest::proptest! {
        /// Whatever comes when: never more in any sixty seconds, and never more in all, than the fence and a person said.
        #[test]
        fn no_fence_is_passed(
            rate in 1..5_u32, most in 1..20_u64,
            steps in proptest::collection::vec((0..20_000_u64, proptest::bool::ANY), 1..120),
        ) {
            let fence = Fence { requests_per_minute: Some(rate), requests: Some(most), models: Vec::new(), usd: None };
            let (mut fenced, mut now, mut passed, mut allowed) = (Fenced::new(fence, Counted::default()), 0, Vec::new(), most);
            for (step, yes) in steps {
                now += step;
                match fenced.pass(Attempt::Request, at(now)) {
                    Passing::Through => passed.push(now),
                    Passing::Wait(time) => proptest::prop_assert!(time <= PATIENCE),
                    Passing::Ask(limit) if yes && limit == Limit::Requests => {
                        fenced.more(&limit);
                        allowed = passed.len() as u64 + most;
                    }
                    Passing::Ask(_) => {}
                }
                proptest::prop_assert!(passed.len() as u64 <= allowed);
            }
            for (n, first) in passed.iter().enumerate() {
                let within = passed[n..].iter().filter(|at| *at - first < 60_000).count();
                proptest::prop_assert!(within <= rate as usize);
            }
        }
    }
}
