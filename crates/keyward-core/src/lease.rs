//! A lease: the live hold of one run on one credential.

use crate::{Boot, DeliveryMode, Schedule};
use std::time::Duration;

/// State of a lease. Only `Live` and `RenewFailed` hold anything; `Lapsed` holds nothing until the next renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// In use and fresh.
    Live,
    /// In use; the last renewal failed.
    RenewFailed,
    /// The credential ended before there was another one, in a long sleep or while the issuer was down; a renewal brings the
    /// next.
    Lapsed,
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
            Self::Lapsed => "lapsed",
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
    /// When it ended, once it has.
    pub ended: Option<Boot>,
}

impl Lease {
    /// Issues a lease at `now` for at most `ttl`.
    pub fn issue(mode: DeliveryMode, credential: Schedule, ttl: Duration, now: Boot) -> Self {
        Self { mode, state: LeaseState::Live, issued: now, until: now.after(ttl), credential, renewals: 0, ended: None }
    }

    /// Whether it holds a credential, or is waiting for the next.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, LeaseState::Ended(_))
    }

    /// Whether its credential is kept fresh: a file can be rewritten under a running child, and the gateway puts the fresh one
    /// on each request; a variable stays as it is.
    pub fn renews(&self) -> bool {
        let can = self.mode != DeliveryMode::Env;
        self.is_live() && can && self.credential.ends().is_some_and(|end| end < self.until)
    }

    /// When its credential is renewed ahead of need; `None` where it is not.
    pub fn renew_at(&self) -> Option<Boot> {
        let at = match self.mode {
            DeliveryMode::Gateway => self.credential.advisory_at(),
            DeliveryMode::Env | DeliveryMode::File => self.credential.rewrite_at(),
        };
        at.filter(|_| self.renews())
    }

    /// When what it holds ends as things stand: the credential, or the lease where that is sooner. A run token lives as long
    /// as the lease, whatever credential it stands for.
    pub fn ends(&self) -> Boot {
        match self.mode {
            DeliveryMode::Gateway => self.until,
            DeliveryMode::Env | DeliveryMode::File => self.credential_ends(),
        }
    }

    /// When the credential ends, or the lease where that is sooner.
    pub(crate) fn credential_ends(&self) -> Boot {
        self.credential.ends().map_or(self.until, |end| end.min(self.until))
    }

    /// When it is over if nothing ends it before. A file can be written anew, and the gateway asks anew, so that such a lease
    /// outlives a credential that ended.
    pub fn last(&self) -> Boot {
        if self.mode == DeliveryMode::Env { self.ends() } else { self.until }
    }

    /// Whether a run that holds it has as much as a delivery would give to what runs inside of it: the same form, or a weaker
    /// one.
    pub fn covers(&self, delivery: DeliveryMode, now: Boot) -> bool {
        self.is_live() && now < self.last() && delivery >= self.mode
    }

    /// The next moment at which time ends something of it: the credential or the lease itself. A credential that lapsed
    /// ends no second time.
    pub fn due(&self) -> Boot {
        if self.state == LeaseState::Lapsed { self.until } else { self.ends() }
    }

    /// Takes a renewed credential. A lease that is over stays so.
    pub fn renewed(&mut self, credential: Schedule) {
        if self.is_live() {
            self.credential = credential;
            self.renewals += 1;
            self.state = LeaseState::Live;
        }
    }

    /// Notes a failed renewal; says whether it is the first since the last one that worked. A lease that is over, or whose
    /// credential is, stays so.
    pub fn renew_failed(&mut self) -> bool {
        let first = self.state == LeaseState::Live;
        if first {
            self.state = LeaseState::RenewFailed;
        }
        first
    }

    /// Ends the lease; says whether it was live before.
    pub fn end(&mut self, why: LeaseEnd, now: Boot) -> bool {
        let was = self.is_live();
        if was {
            self.state = LeaseState::Ended(why);
            self.ended = Some(now);
        }
        was
    }

    /// Ends the lease if its time is up; says whether it did.
    pub fn expire(&mut self, now: Boot) -> bool {
        let end = self.last();
        self.is_live() && now >= end && self.end(LeaseEnd::Expired, end)
    }

    /// Notes that the credential has ended while the lease goes on; says whether that is so and was not noted before. Never so
    /// with the gateway, where the next request gets another one or an error.
    pub fn lapse(&mut self, now: Boot) -> bool {
        let ends = now >= self.ends() && now < self.until;
        let lapses = self.is_live() && self.state != LeaseState::Lapsed && ends;
        if lapses {
            self.state = LeaseState::Lapsed;
        }
        lapses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Boot {
        Boot(Duration::from_secs(s))
    }

    #[test]
    fn a_lease_covers_its_own_form_and_weaker_ones_while_it_lasts() {
        use DeliveryMode::{Env, File, Gateway};
        let life = Schedule::new(at(0), Some(Duration::from_secs(60)));
        let lease = |mode| Lease::issue(mode, life, Duration::from_secs(600), at(0));
        let covered = |mode, now| [Env, File, Gateway].map(|asked| lease(mode).covers(asked, at(now)));
        assert_eq!(covered(Env, 1), [true, true, true]);
        assert_eq!(covered(File, 1), [false, true, true]);
        assert_eq!(covered(Gateway, 1), [false, false, true]);
        assert_eq!((covered(Env, 60), covered(File, 60)), ([false; 3], [false, true, true]));
        assert_eq!(covered(Gateway, 600), [false; 3]);
        let mut over = lease(Env);
        over.end(LeaseEnd::Revoked, at(1));
        assert!(!over.covers(Gateway, at(1)));
    }

    #[test]
    fn a_variable_cannot_be_written_anew_so_its_lease_ends_with_the_credential() {
        let life = Schedule::new(at(0), Some(Duration::from_secs(60)));
        let mut lease = Lease::issue(DeliveryMode::Env, life, Duration::from_secs(600), at(0));
        assert!(!lease.expire(at(59)) && lease.expire(at(60)));
        assert!(!lease.lapse(at(61)));
    }

    #[test]
    fn a_run_token_lives_as_long_as_its_lease_whatever_the_credential_does() {
        let life = Schedule::new(at(0), Some(Duration::from_secs(60)));
        let mut lease = Lease::issue(DeliveryMode::Gateway, life, Duration::from_secs(600), at(0));
        assert!(lease.renews() && lease.renew_at() == life.advisory_at());
        assert!(!lease.expire(at(599)) && !lease.lapse(at(300)) && lease.state == LeaseState::Live);
        assert_eq!((lease.ends(), lease.due()), (at(600), at(600)));
        assert!(lease.expire(at(600)) && lease.ended == Some(at(600)) && !lease.renews());
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
        /// Whatever happens: a lease that is over never lives again and never outlives its limit, one whose credential has
        /// ended holds nothing until the next renewal, and only renewals that it took while alive are counted.
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
                        prop_assert!(over || lease.state == LeaseState::Live);
                    }
                    Event::Fail => { lease.renew_failed(); }
                    Event::End(0) => { lease.end(LeaseEnd::Revoked, at(now)); over = true; }
                    Event::End(_) => { lease.end(LeaseEnd::Released, at(now)); over = true; }
                }
                lease.expire(at(now));
                over |= now >= limit;
                if lease.lapse(at(now)) {
                    prop_assert!(now >= end && !over);
                    prop_assert!(!lease.lapse(at(now)), "it is noted once");
                }
                prop_assert_eq!(lease.state == LeaseState::Lapsed, !over && now >= end);
                prop_assert_eq!(lease.is_live(), !over);
                prop_assert_eq!(lease.renewals, renewals);
                prop_assert!(!lease.renews() || !over);
            }
        }
    }
}
