//! Turns at a file system that may never answer: whoever reads a path takes one, and keeps it until the read really ends.
//!
//! A thread that hangs in the kernel cannot be ended, so it must not be joined by others: a path is read by one at a time,
//! the number of all reads is bounded, and who finds one that hangs is told so at once. Never reads anything itself. Called by
//! the identity source `file` and by [`crate::own_file`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// The reads that are under way.
pub(crate) struct Turns {
    under_way: Mutex<BTreeMap<PathBuf, Instant>>,
    ended: Notify,
    most: usize,
    patience: Duration,
}

/// There is no answer: this read, or the ones before it, take longer than the patience.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hangs;

impl Turns {
    /// At most `most` reads at a time, each of which hangs when it takes longer than `patience`.
    pub(crate) const fn new(most: usize, patience: Duration) -> Self {
        Self { under_way: Mutex::new(BTreeMap::new()), ended: Notify::const_new(), most, patience }
    }

    /// Runs `read` on a thread that may block, after the read of the same path that is under way. `None` where the runtime
    /// ends or `read` panics.
    ///
    /// # Errors
    /// [`Hangs`]: at once where a read in the way hangs, and after the patience where this one does. It goes on then, alone,
    /// and what it gives is dropped.
    pub(crate) async fn read<T: Send + 'static>(
        &'static self,
        path: &Path,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Hangs> {
        let reading = async {
            let turn = self.take(path).await?;
            let reading = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                read()
            });
            Ok(reading.await.ok())
        };
        timeout(self.patience, reading).await.unwrap_or(Err(Hangs))
    }

    async fn take(&'static self, path: &Path) -> Result<Turn, Hangs> {
        loop {
            // Asked for before the look, so that no end between the two is missed.
            let ended = self.ended.notified();
            if let Some(turn) = self.try_take(path)? {
                return Ok(turn);
            }
            ended.await;
        }
    }

    fn try_take(&'static self, path: &Path) -> Result<Option<Turn>, Hangs> {
        let mut under_way = self.under_way();
        let hangs = |began: &Instant| began.elapsed() >= self.patience;
        match under_way.get(path) {
            Some(began) if hangs(began) => Err(Hangs),
            Some(_) => Ok(None),
            None if under_way.len() < self.most => {
                under_way.insert(path.to_owned(), Instant::now());
                Ok(Some(Turn { turns: self, path: path.to_owned() }))
            }
            None if under_way.values().all(hangs) => Err(Hangs),
            None => Ok(None),
        }
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Instant>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, which ends when it is dropped.
struct Turn {
    turns: &'static Turns,
    path: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.under_way().remove(&self.path);
        self.turns.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};

    const LONG: Duration = Duration::from_secs(60);

    /// A read that ends when the sender goes.
    fn hung() -> (Sender<()>, impl FnOnce() + Send + 'static) {
        let (sender, receiver) = channel();
        (sender, move || assert!(receiver.recv().is_err()))
    }

    /// Waits until the read is known to hang, which is measured from its begin and not from the call.
    async fn hang_of(turns: &'static Turns, path: &Path) {
        while turns.under_way()[path].elapsed() < turns.patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end_of_all(turns: &'static Turns) {
        while !turns.under_way().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_joined_by_no_other_until_it_really_ends() {
        static TURNS: Turns = Turns::new(2, Duration::from_secs(1));
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let (release, read) = hung();
        assert_eq!(TURNS.read(a, read).await, Err(Hangs));
        hang_of(&TURNS, a).await;
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let ran = ran.clone();
            assert_eq!(TURNS.try_take(a).err(), Some(Hangs), "at once");
            assert_eq!(TURNS.read(a, move || ran.fetch_add(1, Ordering::SeqCst)).await, Err(Hangs));
        }
        assert_eq!((ran.load(Ordering::SeqCst), TURNS.under_way().len()), (0, 1));
        assert_eq!(TURNS.read(b, || 7).await, Ok(Some(7)), "another path is read");

        // All turns hang, so that no path at all is read.
        let (release_b, read) = hung();
        assert_eq!(TURNS.read(b, read).await, Err(Hangs));
        hang_of(&TURNS, b).await;
        assert_eq!(TURNS.read(Path::new("/c"), || 7).await, Err(Hangs));
        drop((release, release_b));
        end_of_all(&TURNS).await;
        assert_eq!(TURNS.read(a, || 7).await, Ok(Some(7)));
    }

    #[tokio::test]
    async fn reads_of_one_path_wait_for_each_other() {
        static TURNS: Turns = Turns::new(32, LONG);
        static READING: AtomicUsize = AtomicUsize::new(0);
        let reads: Vec<_> = (0..50)
            .map(|n| {
                tokio::spawn(TURNS.read(Path::new("/a"), move || {
                    let others = READING.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    READING.fetch_sub(1, Ordering::SeqCst);
                    (n, others)
                }))
            })
            .collect();
        for (n, read) in reads.into_iter().enumerate() {
            assert_eq!(read.await.unwrap(), Ok(Some((n, 0))));
        }
    }

    #[tokio::test]
    async fn a_turn_is_kept_where_nobody_waits_for_its_read_any_longer() {
        static TURNS: Turns = Turns::new(1, LONG);
        let (release, read) = hung();
        let first = tokio::spawn(TURNS.read(Path::new("/a"), read));
        while TURNS.under_way().is_empty() {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(
            TURNS.try_take(Path::new("/a")).unwrap().is_none() && TURNS.try_take(Path::new("/b")).unwrap().is_none()
        );
        drop(release);
        end_of_all(&TURNS).await;
    }
}
