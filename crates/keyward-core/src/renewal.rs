//! When a credential is renewed, and how long a failing issuer is left alone.

use crate::Boot;
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

/// Pause after failures: 1 s doubling to 60 s, each shortened by up to a quarter at random so that brokers do not march in
/// step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until: Option<Boot>,
}

impl Backoff {
    /// Counts a failure at `now`; `jitter` is a random number in 0..=255.
    pub fn failed(&mut self, now: Boot, jitter: u8) {
        let base = Duration::from_secs(1 << self.failures.min(6)).min(Duration::from_secs(60));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.after(base - base * u32::from(jitter) / 1024));
    }

    /// Forgets the failures.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When the next try may be made; `None` means at once.
    pub fn until(self, now: Boot) -> Option<Boot> {
        self.until.filter(|at| *at > now)
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
        assert_eq!(Schedule::new(at(1), None).freshness(at(1 << 40)), Freshness::Fresh);
    }

    #[test]
    fn pauses_double_to_a_minute_and_a_success_forgets() {
        let mut b = Backoff::default();
        for want in [1, 2, 4, 8, 16, 32, 60, 60] {
            b.failed(at(0), 0);
            assert_eq!(b.until(at(0)), Some(at(want)));
        }
        b.failed(at(0), 255);
        assert!(b.until(at(0)).is_some_and(|t| t > at(45) && t < at(60)));
        b.succeeded();
        assert_eq!(b.until(at(0)), None);
    }
}
