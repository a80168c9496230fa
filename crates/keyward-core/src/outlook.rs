//! What happens to a lease next, as far as the state that there is tells it.
//!
//! Never decides anything: it says what the lease, the schedule of its credential and the broker's timer will do, and it
//! must be changed with them. Called by whoever shows leases.

use crate::{Boot, DeliveryMode, Lease, LeaseEnd, LeaseState, render_duration};
use keyward_diag::{Code, Fault, plain};

/// Longest part of an error that goes into the words, in characters.
const CAUSE_MAX: usize = 200;

/// When the issuer of a profile is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// By itself never: nothing is kept with which it could be asked.
    Never,
    /// It is being asked.
    Now,
    /// At this moment, or at once where that is past.
    At(Boot),
    /// Once its identity source holds something else.
    OnChange,
}

/// Which keys are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// All of them.
    All,
    /// Those of the log: the vault locked itself, and what live leases need was kept.
    Log,
    /// None.
    None,
}

/// What the future of a lease depends on, besides the lease.
#[derive(Debug, Clone, Copy)]
pub struct Prospects<'f> {
    /// Which keys are in memory.
    pub keys: Keys,
    /// The log does not match its anchor, so that nothing is delivered.
    pub log_broken: bool,
    /// When the issuer is asked next.
    pub asking: Asking,
    /// Why the last renewal of this lease failed; `None` since one succeeded.
    pub failure: Option<&'f Fault>,
}

/// Which way a lease goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It gets another credential in time.
    Renews,
    /// It ends by itself, or has ended.
    Ends,
    /// No renewal is to be expected; the credential ends and the lease holds nothing.
    Fails,
    /// Its credential has ended already.
    Lapsed,
}

/// What happens to a lease next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Which way it goes.
    pub way: Way,
    /// When; for what has happened already, when it did.
    pub at: Boot,
    /// Why, as the rest of a sentence without a time.
    pub why: String,
    /// The error that stands in the way of renewal.
    pub code: Option<Code>,
    /// When renewal is tried again, where that is known.
    pub next_try: Option<Boot>,
}

/// Says what happens to a lease next.
pub fn outlook(lease: &Lease, prospects: &Prospects<'_>, now: Boot) -> Outlook {
    if let LeaseState::Ended(end) = lease.state {
        let why = match end {
            LeaseEnd::Expired => "its time was up",
            LeaseEnd::Revoked => "it was taken back",
            LeaseEnd::Released => "its run ended",
        };
        return ends(lease.ended.unwrap_or_else(|| lease.due()), why.to_owned());
    }
    if !lease.renews() {
        let over = lease.credential.ends().filter(|end| *end < lease.until);
        return match over {
            Some(end) => {
                debug_assert_eq!(lease.mode, DeliveryMode::Env);
                ends(end, "a variable cannot be renewed".to_owned())
            }
            None => {
                let limit = render_duration(lease.until.since(lease.issued));
                ends(lease.until, format!("the lease reaches its limit of {limit}"))
            }
        };
    }
    let end = lease.credential_ends();
    let lapsed = lease.state == LeaseState::Lapsed || now >= end;
    let stopped = match (prospects.log_broken, prospects.keys) {
        (true, _) => Some(Code::AuditBroken),
        (false, Keys::None) => Some(Code::VaultLocked),
        (false, Keys::Log | Keys::All) => None,
    };
    let next_try = match (stopped, prospects.asking) {
        (Some(_), _) | (None, Asking::Never | Asking::OnChange) => None,
        (None, Asking::Now) => Some(now),
        (None, Asking::At(at)) => Some(at.max(now)),
    };
    let stored_only = prospects.keys == Keys::Log && prospects.asking == Asking::Never;
    let asked_at_need = !matches!(prospects.asking, Asking::OnChange) && !stored_only;
    if lease.mode == DeliveryMode::Gateway && stopped.is_none() && prospects.failure.is_none() && asked_at_need {
        let at = next_try.unwrap_or(end).max(now);
        let why = "the gateway asks for another credential when a call needs one".to_owned();
        return Outlook { way: Way::Renews, at, why, code: None, next_try: None };
    }
    if !lapsed
        && prospects.failure.is_none()
        && let Some(at) = next_try.filter(|at| *at < end)
    {
        let why = "its file is written anew before the credential ends".to_owned();
        return Outlook { way: Way::Renews, at, why, code: None, next_try: None };
    }
    let (why, code) = match (stopped, prospects.failure, prospects.asking) {
        (Some(code), _, _) => (code.message().to_owned(), Some(code)),
        (None, Some(fault), Asking::OnChange) => {
            (format!("{}; the identity source must hold another assertion", words(fault)), Some(fault.code))
        }
        (None, Some(fault), _) => (words(fault), Some(fault.code)),
        (None, None, Asking::Never) if prospects.keys == Keys::Log => {
            ("the vault locked itself, and the issuer needs what is stored in it".to_owned(), Some(Code::VaultLocked))
        }
        (None, None, Asking::Never) => ("nothing asks its issuer for another credential".to_owned(), None),
        (None, None, Asking::OnChange) => ("the identity source must hold another assertion".to_owned(), None),
        (None, None, Asking::Now | Asking::At(_)) => {
            ("the credential ends before there is another one".to_owned(), None)
        }
    };
    // The limit ends it whatever a later try gives.
    let next_try = next_try.filter(|at| *at < lease.until);
    Outlook { way: if lapsed { Way::Lapsed } else { Way::Fails }, at: end, why, code, next_try }
}

fn ends(at: Boot, why: String) -> Outlook {
    Outlook { way: Way::Ends, at, why, code: None, next_try: None }
}

/// An error as part of a sentence.
fn words(fault: &Fault) -> String {
    match fault.causes.first() {
        Some(cause) => format!("{}: {}", fault.message, plain(cause, CAUSE_MAX)),
        None => fault.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;
    use std::time::Duration;

    fn at(s: u64) -> Boot {
        Boot(Duration::from_secs(s))
    }

    /// A lease issued at 1000 for `ttl` seconds, with a credential received then that lives for `life`.
    fn lease(mode: DeliveryMode, life: Option<u64>, ttl: u64) -> Lease {
        let credential = Schedule::new(at(1000), life.map(Duration::from_secs));
        Lease::issue(mode, credential, Duration::from_secs(ttl), at(1000))
    }

    const WELL: Prospects<'static> =
        Prospects { keys: Keys::All, log_broken: false, asking: Asking::Never, failure: None };

    #[test]
    fn what_cannot_be_renewed_ends_and_says_why() {
        use DeliveryMode::{Env, File};
        for (mode, life, ttl, want_at, want_why) in [
            (Env, Some(600), 86_400, 1600, "a variable cannot be renewed"),
            (Env, None, 86_400, 87_400, "the lease reaches its limit of 24h"),
            (Env, Some(7200), 5400, 6400, "the lease reaches its limit of 1h30m"),
            (File, None, 600, 1600, "the lease reaches its limit of 10m"),
            // Another credential would not outlive the lease.
            (File, Some(600), 600, 1600, "the lease reaches its limit of 10m"),
            (File, Some(900), 600, 1600, "the lease reaches its limit of 10m"),
        ] {
            for asking in [Asking::Never, Asking::At(at(1300)), Asking::OnChange] {
                for (keys, log_broken) in [(Keys::All, true), (Keys::Log, false), (Keys::None, false)] {
                    let prospects = Prospects { keys, log_broken, asking, ..WELL };
                    let seen = outlook(&lease(mode, life, ttl), &prospects, at(1200));
                    let want = Outlook {
                        way: Way::Ends,
                        at: at(want_at),
                        why: want_why.to_owned(),
                        code: None,
                        next_try: None,
                    };
                    assert_eq!(seen, want, "{mode:?} {life:?} {ttl} {prospects:?}");
                }
            }
        }
    }

    #[test]
    fn the_gateway_asks_when_a_call_needs_it_unless_something_stands_in_the_way() {
        let held = |life, ttl| lease(DeliveryMode::Gateway, life, ttl);
        let refused = Fault::new(Code::IssuerRefused);
        let seen = |prospects: Prospects<'_>, now| outlook(&held(Some(600), 3600), &prospects, at(now));
        for (asking, now, when) in [
            (Asking::Never, 1500, 1600),
            (Asking::At(at(1480)), 1470, 1480),
            (Asking::Now, 1500, 1500),
            // A credential that ended is no harm while nobody calls.
            (Asking::Never, 1700, 1700),
        ] {
            let seen = seen(Prospects { asking, ..WELL }, now);
            assert_eq!((seen.way, seen.at, seen.code), (Way::Renews, at(when), None), "{asking:?} {now}");
        }
        let failing = Prospects { asking: Asking::At(at(1550)), failure: Some(&refused), ..WELL };
        assert_eq!((seen(failing, 1500).way, seen(failing, 1500).at), (Way::Fails, at(1600)));
        assert_eq!((seen(failing, 1700).way, seen(failing, 1700).code), (Way::Lapsed, Some(Code::IssuerRefused)));
        assert_eq!(seen(Prospects { keys: Keys::None, ..WELL }, 1500).code, Some(Code::VaultLocked));
        assert_eq!(seen(Prospects { log_broken: true, ..WELL }, 1500).code, Some(Code::AuditBroken));
        assert_eq!(seen(Prospects { keys: Keys::Log, ..WELL }, 1500).code, Some(Code::VaultLocked));
        // A stored secret does not end by itself: the lease does.
        for (life, ttl) in [(None, 3600), (Some(7200), 3600)] {
            let seen = outlook(&held(life, ttl), &WELL, at(1500));
            assert_eq!((seen.way, seen.at), (Way::Ends, at(4600)));
        }
    }

    #[test]
    fn what_is_over_says_when_and_why() {
        for (end, why) in [
            (LeaseEnd::Expired, "its time was up"),
            (LeaseEnd::Revoked, "it was taken back"),
            (LeaseEnd::Released, "its run ended"),
        ] {
            let mut over = lease(DeliveryMode::File, Some(600), 3600);
            over.end(end, at(1100));
            let seen = outlook(&over, &Prospects { asking: Asking::Now, ..WELL }, at(1200));
            assert_eq!((seen.way, seen.at, seen.why.as_str()), (Way::Ends, at(1100), why));
        }
    }

    #[test]
    fn a_file_is_renewed_unless_something_stands_in_the_way() {
        let refused = Fault::new(Code::IssuerRefused).cause("the rule\nwants another subject").cause("second");
        let locked = Fault::new(Code::VaultLocked);
        let message = |code: Code| code.message().to_owned();
        let refused_words = "the issuer refused the exchange: the rule\\u{a}wants another subject".to_owned();
        let anew = "its file is written anew before the credential ends".to_owned();
        let waits = "the identity source must hold another assertion";
        let ended = "the credential ends before there is another one".to_owned();
        let kept = "the vault locked itself, and the issuer needs what is stored in it".to_owned();
        let (none, some) = (None, Some(&refused));
        // The credential ends at 1600, the lease at 4600; it is 1500, or 1700 in the rows of what has lapsed.
        let table = [
            // Keys, broken log, asking, failure, lapsed → way, why, code, next try.
            (Keys::All, false, Asking::At(at(1550)), none, false, Way::Renews, anew.clone(), None, None),
            (Keys::All, false, Asking::At(at(1400)), none, false, Way::Renews, anew.clone(), None, None),
            (Keys::All, false, Asking::Now, none, false, Way::Renews, anew.clone(), None, None),
            (Keys::Log, false, Asking::At(at(1550)), none, false, Way::Renews, anew.clone(), None, None),
            (Keys::Log, false, Asking::Never, none, false, Way::Fails, kept, Some(Code::VaultLocked), None),
            (
                Keys::Log,
                false,
                Asking::Never,
                Some(&locked),
                false,
                Way::Fails,
                message(Code::VaultLocked),
                Some(Code::VaultLocked),
                None,
            ),
            (
                Keys::None,
                false,
                Asking::Now,
                none,
                false,
                Way::Fails,
                message(Code::VaultLocked),
                Some(Code::VaultLocked),
                None,
            ),
            (
                Keys::All,
                true,
                Asking::At(at(1550)),
                some,
                false,
                Way::Fails,
                message(Code::AuditBroken),
                Some(Code::AuditBroken),
                None,
            ),
            (
                Keys::All,
                false,
                Asking::At(at(1540)),
                some,
                false,
                Way::Fails,
                refused_words.clone(),
                Some(Code::IssuerRefused),
                Some(at(1540)),
            ),
            // A try that is due is made at once.
            (
                Keys::All,
                false,
                Asking::At(at(1400)),
                some,
                false,
                Way::Fails,
                refused_words.clone(),
                Some(Code::IssuerRefused),
                Some(at(1500)),
            ),
            (
                Keys::All,
                false,
                Asking::Now,
                some,
                false,
                Way::Fails,
                refused_words.clone(),
                Some(Code::IssuerRefused),
                Some(at(1500)),
            ),
            (
                Keys::All,
                false,
                Asking::OnChange,
                some,
                false,
                Way::Fails,
                format!("{refused_words}; {waits}"),
                Some(Code::IssuerRefused),
                None,
            ),
            (Keys::All, false, Asking::OnChange, none, false, Way::Fails, waits.to_owned(), None, None),
            // Asked too late, and so late that the limit comes first.
            (Keys::All, false, Asking::At(at(1650)), none, false, Way::Fails, ended.clone(), None, Some(at(1650))),
            (Keys::All, false, Asking::At(at(4600)), none, false, Way::Fails, ended.clone(), None, None),
            (Keys::All, false, Asking::Now, none, true, Way::Lapsed, ended.clone(), None, Some(at(1700))),
            (
                Keys::All,
                false,
                Asking::At(at(1730)),
                some,
                true,
                Way::Lapsed,
                refused_words,
                Some(Code::IssuerRefused),
                Some(at(1730)),
            ),
            (
                Keys::All,
                true,
                Asking::Now,
                none,
                true,
                Way::Lapsed,
                message(Code::AuditBroken),
                Some(Code::AuditBroken),
                None,
            ),
        ];
        for (n, (keys, log_broken, asking, failure, lapsed, way, why, code, next_try)) in table.into_iter().enumerate()
        {
            let mut held = lease(DeliveryMode::File, Some(600), 3600);
            let now = if lapsed { at(1700) } else { at(1500) };
            assert_eq!(held.lapse(now), lapsed);
            let seen = outlook(&held, &Prospects { keys, log_broken, asking, failure }, now);
            let when = if way == Way::Renews { seen.at } else { at(1600) };
            assert_eq!(seen, Outlook { way, at: when, why, code, next_try }, "row {n}");
            assert!(seen.at >= now || way != Way::Renews, "row {n}");
        }
        let renewed =
            |asking| outlook(&lease(DeliveryMode::File, Some(600), 3600), &Prospects { asking, ..WELL }, at(1500)).at;
        assert_eq!([renewed(Asking::At(at(1550))), renewed(Asking::At(at(1)))], [at(1550), at(1500)]);
    }
}
