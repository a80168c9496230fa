//! Refusals are recorded, but nobody can fill the disk with them.

use crate::Boot;
use std::collections::BTreeMap;
use std::time::Duration;

/// Peers and reasons that are told apart between two entries; the rest is counted together.
const KEPT: usize = 16;

/// So many refusals of one sort since the last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCount {
    /// Who (a program, as far as the kernel told) and what.
    pub peer: String,
    /// Code of the refusal.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Merges refusals: at most one entry a second, whatever is tried.
#[derive(Debug, Default)]
pub struct Refusals {
    waiting: BTreeMap<(String, String), u64>,
    others: u64,
    last: Option<Boot>,
}

impl Refusals {
    /// Time between two entries.
    pub const PAUSE: Duration = Duration::from_secs(1);

    /// Counts a refusal.
    pub fn note(&mut self, peer: &str, reason: &str) {
        // Whoever is refused chose its own path: sixteen of them must fit into an entry.
        let key = (keyward_diag::plain(peer, 200), reason.to_owned());
        if self.waiting.len() < KEPT || self.waiting.contains_key(&key) {
            *self.waiting.entry(key).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// When an entry is due; `None` when nothing waits.
    pub fn due(&self) -> Option<Boot> {
        let waits = !self.waiting.is_empty() || self.others > 0;
        waits.then(|| self.last.map_or(Boot(Duration::ZERO), |last| last.after(Self::PAUSE)))
    }

    /// Takes what is to be recorded, if an entry is due at `now`.
    pub fn take(&mut self, now: Boot) -> Vec<RefusedCount> {
        if self.due().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.last = Some(now);
        let mut out: Vec<_> = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|((peer, reason), count)| RefusedCount { peer, reason, count })
            .collect();
        let others = std::mem::take(&mut self.others);
        if others > 0 {
            out.push(RefusedCount { peer: "others".to_owned(), reason: "various".to_owned(), count: others });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_of_refusals_gives_one_entry_a_second_and_loses_no_count() {
        let mut refusals = Refusals::default();
        let (mut entries, mut counted) = (0, 0);
        for n in 0..10_000_u64 {
            refusals.note(&format!("/tmp/p{}", n % 50), "policy.denied");
            let now = Boot(Duration::from_millis(n));
            let taken = refusals.take(now);
            entries += usize::from(!taken.is_empty());
            assert!(taken.len() <= KEPT + 1);
            counted += taken.iter().map(|r| r.count).sum::<u64>();
        }
        counted += refusals.take(Boot(Duration::from_secs(100))).iter().map(|r| r.count).sum::<u64>();
        assert_eq!(counted, 10_000);
        assert_eq!(entries, 10);
    }
}
