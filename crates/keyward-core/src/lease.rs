//! A lease: the live hold of one run on one credential.

use crate::{Boot, DeliveryMode, Schedule};
use std::time::Duration;

/// State of a lease. Only `Live` and `RenewFailed` hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// In use and fresh.
    Live,
    /// In use; the last renewal failed.
    RenewFailed,
    /// Over.
    Ended(LeaseEnd),
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Its time was up.
    Expired,
    /// Taken back by a person or at lock.
    Revoked,
    /// The run ended.
    Released,
}

impl LeaseState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::RenewFailed => "renew_failed",
            Self::Ended(LeaseEnd::Expired) => "expired",
            Self::Ended(LeaseEnd::Revoked) => "revoked",
            Self::Ended(LeaseEnd::Released) => "released",
        }
    }
}

/// A lease. Holds no secret.
#[derive(Debug, Clone)]
pub struct Lease {
    /// How the credential was delivered.
    pub mode: DeliveryMode,
    /// State.
    pub state: LeaseState,
    /// When it was issued.
    pub issued: Boot,
    /// Its end, whatever the credential lives.
    pub until: Boot,
    /// Life of the credential that it holds.
    pub credential: Schedule,
    /// Renewals so far.
    pub renewals: u64,
}

impl Lease {
    /// Issues a lease at `now` for at most `ttl`.
    pub fn issue(mode: DeliveryMode, credential: Schedule, ttl: Duration, now: Boot) -> Self {
        Self { mode, state: LeaseState::Live, issued: now, until: now.after(ttl), credential, renewals: 0 }
    }

    /// Whether it holds a credential.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, LeaseState::Ended(_))
    }

    /// Whether its credential is kept fresh: only a file can be rewritten under a running child.
    pub fn renews(&self) -> bool {
        self.is_live() && self.mode == DeliveryMode::File && self.credential.ends().is_some_and(|end| end < self.until)
    }

    /// When it ends as things stand: at its limit, or with a credential that ends sooner and is not renewed any more.
    pub fn ends(&self) -> Boot {
        self.credential.ends().map_or(self.until, |end| end.min(self.until))
    }

    /// Takes a renewed credential. A lease that is over stays so.
    pub fn renewed(&mut self, credential: Schedule) {
        if self.is_live() {
            self.credential = credential;
            self.renewals += 1;
            self.state = LeaseState::Live;
        }
    }

    /// Notes a failed renewal. A lease that is over stays so.
    pub fn renew_failed(&mut self) {
        if self.is_live() {
            self.state = LeaseState::RenewFailed;
        }
    }

    /// Ends the lease; says whether it was live before.
    pub fn end(&mut self, why: LeaseEnd) -> bool {
        let was = self.is_live();
        if was {
            self.state = LeaseState::Ended(why);
        }
        was
    }

    /// Ends the lease if its time is up; says whether it did.
    pub fn expire(&mut self, now: Boot) -> bool {
        self.is_live() && now >= self.ends() && self.end(LeaseEnd::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Boot {
        Boot(Duration::from_secs(s))
    }

    #[derive(Debug, Clone)]
    enum Event {
        Wait(u64),
        Renew(u64),
        Fail,
        End(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..400_u64).prop_map(Event::Wait),
            (1..400_u64).prop_map(Event::Renew),
            Just(Event::Fail),
            (0..2_u8).prop_map(Event::End),
        ]
    }

    proptest! {
        /// Whatever happens: a lease that is over never lives again, never outlives its limit or its credential, and counts
        /// only renewals that it took while alive.
        #[test]
        fn a_lease_ends_once_and_in_time(ttl in 1..2_000_u64, life in 1..600_u64, events in prop::collection::vec(event(), 0..40)) {
            let mut now = 1_000;
            let start = Schedule::new(at(now), Some(Duration::from_secs(life)));
            let mut lease = Lease::issue(DeliveryMode::File, start, Duration::from_secs(ttl), at(now));
            let (limit, mut end, mut over, mut renewals) = (now + ttl, now + life, false, 0);
            for event in events {
                match event {
                    Event::Wait(s) => now += s,
                    Event::Renew(life) => {
                        lease.renewed(Schedule::new(at(now), Some(Duration::from_secs(life))));
                        if !over { end = now + life; renewals += 1; }
                    }
                    Event::Fail => lease.renew_failed(),
                    Event::End(0) => { lease.end(LeaseEnd::Revoked); over = true; }
                    Event::End(_) => { lease.end(LeaseEnd::Released); over = true; }
                }
                lease.expire(at(now));
                over |= now >= limit.min(end);
                prop_assert_eq!(lease.is_live(), !over);
                prop_assert_eq!(lease.renewals, renewals);
                prop_assert!(!lease.renews() || !over);
            }
        }
    }
}
