//! Wrong passphrases cost time.

use crate::Boot;
use std::time::Duration;

/// Counts wrong proofs: after the third in a row each further try waits, 1 s doubling to 5 min.
#[derive(Debug, Default)]
pub struct Tries {
    wrong: u32,
    until: Option<Boot>,
}

impl Tries {
    /// How long the next try has to wait at `now`; `None` means not at all.
    pub fn wait(&self, now: Boot) -> Option<Duration> {
        self.until.map(|at| at.since(now)).filter(|left| !left.is_zero())
    }

    /// Counts a wrong proof.
    pub fn failed(&mut self, now: Boot) {
        self.wrong = self.wrong.saturating_add(1);
        if self.wrong >= 3 {
            let pause = Duration::from_secs(1 << (self.wrong - 3).min(9)).min(Duration::from_secs(300));
            self.until = Some(now.after(pause));
        }
    }

    /// Wrong proofs since the last right one.
    pub fn wrong(&self) -> u32 {
        self.wrong
    }

    /// Forgets them after a right proof.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_the_third_wrong_try() {
        let mut tries = Tries::default();
        let now = Boot(Duration::from_secs(50));
        for want in [None, None, Some(1), Some(2), Some(4), Some(8)] {
            tries.failed(now);
            assert_eq!(tries.wait(now), want.map(Duration::from_secs));
        }
        (0..20).for_each(|_| tries.failed(now));
        assert_eq!(tries.wait(now), Some(Duration::from_secs(300)));
        assert_eq!(tries.wait(now.after(Duration::from_secs(300))), None);
        tries.succeeded();
        assert_eq!((tries.wait(now), tries.wrong()), (None, 0));
    }
}
