//! When a credential is renewed, and how long a failing issuer is left alone.

use crate::{Boot, Failure};
use std::time::Duration;

/// How urgent a renewal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing to do.
    Fresh,
    /// Renew in the background while the credential is in use; serve it meanwhile.
    Advisory,
    /// Renew before it is served again.
    Mandatory,
}

/// The life of one credential on the clock that runs through suspend.
///
/// Renewal is wanted from min(120 s, life/2) before the end and needed from min(30 s, life/4) before it, so that short lives
/// do not lead to a renewal at every use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    received: Boot,
    life: Option<Duration>,
}

impl Schedule {
    /// A credential received at `received` which lives `life` from then on; `None` does not end by itself.
    pub fn new(received: Boot, life: Option<Duration>) -> Self {
        Self { received, life }
    }

    /// When it was received.
    pub fn received(self) -> Boot {
        self.received
    }

    /// When it ends.
    pub fn ends(self) -> Option<Boot> {
        self.life.map(|life| self.received.after(life))
    }

    /// When a renewal is wanted.
    pub fn advisory_at(self) -> Option<Boot> {
        self.life.map(|life| self.received.after(life - (life / 2).min(Duration::from_secs(120))))
    }

    /// When files that hold it must have been written anew: as [`Schedule::advisory_at`], and for lives of a minute or more
    /// not later than 35 s before the end. Some clients take a file that ends within 30 s for one that is over.
    pub fn rewrite_at(self) -> Option<Boot> {
        let life = self.life.filter(|life| *life >= Duration::from_secs(60));
        let early = life.map(|life| self.received.after(life - Duration::from_secs(35)));
        self.advisory_at().map(|at| early.map_or(at, |early| early.min(at)))
    }

    /// When a renewal is needed.
    pub fn mandatory_at(self) -> Option<Boot> {
        self.life.map(|life| self.received.after(life - (life / 4).min(Duration::from_secs(30))))
    }

    /// How urgent a renewal is at `now`.
    pub fn freshness(self, now: Boot) -> Freshness {
        if self.mandatory_at().is_some_and(|at| now >= at) {
            Freshness::Mandatory
        } else if self.advisory_at().is_some_and(|at| now >= at) {
            Freshness::Advisory
        } else {
            Freshness::Fresh
        }
    }
}

/// Longest time that an issuer may ask to be left alone.
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// Pause after a refusal: keys and rules that were changed a moment ago take up to a minute to be known everywhere.
const REFUSED_PAUSE: Duration = Duration::from_secs(40);

/// Pause after the last refusal, where nobody can see whether something changed.
const GIVEN_UP_PAUSE: Duration = Duration::from_secs(600);

/// First pause before an identity source that had no assertion is asked again.
const ASSERTION_PAUSE: Duration = Duration::from_secs(5);

/// Refusals in a row after which an issuer is left alone until something changes.
const REFUSALS_MAX: u32 = 3;

/// How a failing issuer is left alone.
///
/// Failures that may pass: 1 s doubling to 60 s, each shortened by up to a quarter at random so that brokers do not march
/// in step, and never less than the issuer asked for (at most an hour). Refusals: 40 s each, and after three in a row
/// nothing until something changes, or for ten minutes where no change can be seen. A missing assertion: 5 s doubling to
/// 60 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    refusals: u32,
    until: Option<Boot>,
    asked: bool,
}

impl Backoff {
    /// Counts a failure at `now`; `jitter` is a random number in 0..=255.
    pub fn failed(&mut self, now: Boot, failure: Failure, jitter: u8) {
        let shorter = |base: Duration| base - base * u32::from(jitter) / 1024;
        let doubled = |first: Duration, times: u32| (first * (1 << times.min(6))).min(Duration::from_secs(60));
        self.asked = false;
        let pause = match failure {
            Failure::Passing(asked) => {
                let base = doubled(Duration::from_secs(1), self.failures);
                self.failures = self.failures.saturating_add(1);
                self.asked = asked.is_some();
                asked.unwrap_or_default().min(ASKED_MAX).max(shorter(base))
            }
            Failure::Refused => {
                self.refusals = self.refusals.saturating_add(1);
                if self.given_up() { GIVEN_UP_PAUSE } else { shorter(REFUSED_PAUSE) }
            }
            Failure::NoAssertion => {
                let base = doubled(ASSERTION_PAUSE, self.failures);
                self.failures = self.failures.saturating_add(1);
                base
            }
        };
        self.until = Some(now.after(pause));
    }

    /// Forgets the failures: one succeeded, or something changed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// When the next try may be made in the background; `None` means at once.
    pub fn until(self, now: Boot) -> Option<Boot> {
        self.until.filter(|at| *at > now)
    }

    /// How long people who wait are held back from `now` on: as long as the issuer asked for, and before the third try after
    /// a refusal, so that a rule or key that was just mended has the time to be known.
    pub fn holds_back(self, now: Boot) -> Option<Duration> {
        self.until(now).filter(|_| self.asked || self.refusals == REFUSALS_MAX - 1).map(|at| at.since(now))
    }

    /// Something changed: refusals no longer count. What the issuer asked for still holds.
    pub fn forget_refusals(&mut self) {
        self.refusals = 0;
        if !self.asked {
            self.forget();
        }
    }

    /// The issuer refused three times in a row: it is not asked again until something changes.
    pub fn given_up(self) -> bool {
        self.refusals >= REFUSALS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Boot {
        Boot(Duration::from_secs(s))
    }

    #[test]
    fn thresholds_scale_with_short_lives() {
        for (life, advisory, mandatory) in [(3600, 3480, 3570), (60, 30, 45), (200, 100, 170), (240, 120, 210)] {
            let s = Schedule::new(at(1000), Some(Duration::from_secs(life)));
            assert_eq!(s.advisory_at(), Some(at(1000 + advisory)), "{life}");
            assert_eq!(s.mandatory_at(), Some(at(1000 + mandatory)), "{life}");
            assert_eq!(s.freshness(at(1000 + advisory - 1)), Freshness::Fresh);
            assert_eq!(s.freshness(at(1000 + advisory)), Freshness::Advisory);
            assert_eq!(s.freshness(at(1000 + mandatory)), Freshness::Mandatory);
        }
        for (life, rewrite) in [(3600, 3480), (60, 25), (66, 31), (72, 36), (58, 29), (6, 3)] {
            let s = Schedule::new(at(1000), Some(Duration::from_secs(life)));
            assert_eq!(s.rewrite_at().map(|at| at.0.as_secs()), Some(1000 + rewrite), "{life}");
        }
        assert_eq!(Schedule::new(at(1), None).freshness(at(1 << 40)), Freshness::Fresh);
    }

    #[test]
    fn pauses_double_to_a_minute_and_a_success_forgets() {
        let mut b = Backoff::default();
        for want in [1, 2, 4, 8, 16, 32, 60, 60] {
            b.failed(at(0), Failure::Passing(None), 0);
            assert_eq!((b.until(at(0)), b.holds_back(at(0))), (Some(at(want)), None));
        }
        b.failed(at(0), Failure::Passing(None), 255);
        assert!(b.until(at(0)).is_some_and(|t| t > at(45) && t < at(60)));
        b.forget();
        assert_eq!(b.until(at(0)), None);
    }

    #[test]
    fn what_the_issuer_asks_for_is_kept_within_an_hour() {
        let mut b = Backoff::default();
        b.failed(at(10), Failure::Passing(Some(Duration::from_secs(90))), 255);
        assert_eq!((b.until(at(10)), b.holds_back(at(30))), (Some(at(100)), Some(Duration::from_secs(70))));
        b.failed(at(0), Failure::Passing(Some(Duration::from_secs(1 << 40))), 0);
        assert_eq!(b.until(at(0)), Some(at(3600)));
        b.failed(at(0), Failure::Passing(Some(Duration::ZERO)), 0);
        assert_eq!(b.until(at(0)), Some(at(4)), "a zero does not shorten the pause");
    }

    #[test]
    fn three_refusals_end_it_and_other_failures_do_not() {
        let mut b = Backoff::default();
        for want in [5, 10, 20, 40, 60, 60] {
            b.failed(at(0), Failure::NoAssertion, 0);
            assert_eq!((b.until(at(0)), b.holds_back(at(0)), b.given_up()), (Some(at(want)), None, false));
        }
        b.forget();
        for (given_up, pause, held_back) in [(false, 40, None), (false, 40, Some(40)), (true, 600, None)] {
            b.failed(at(0), Failure::Refused, 0);
            assert_eq!((b.given_up(), b.until(at(0))), (given_up, Some(at(pause))));
            assert_eq!(b.holds_back(at(0)), held_back.map(Duration::from_secs));
        }
        b.forget_refusals();
        assert_eq!((b.given_up(), b.until(at(0))), (false, None));
        b.failed(at(0), Failure::Passing(Some(Duration::from_secs(90))), 0);
        b.forget_refusals();
        assert_eq!(b.until(at(0)), Some(at(90)), "what the issuer asked for holds");
    }
}
