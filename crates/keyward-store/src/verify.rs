//! Checking the whole vault, and accepting what was found.

use crate::anchor;
use crate::archive::Opened;
use crate::db::{self, RawLink, Value};
use crate::error::StoreError;
use crate::index;
use crate::model::{AnchorReport, Changes, HeadReport, VerifyReport, Write};
use crate::paths::{VaultLock, load_slots, publish, read_bounded, save_slots};
use crate::store::{Inner, META_BROKEN, META_EPOCH, Store};
use keyward_core::audit::{Head, PeerFacts, Problem, ProblemKind, Verifier, break_accepted};
use keyward_crypto::{Anchor, AnchorFile, SlotFile, VaultKey};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries that are checked before other callers get their turn.
const CHUNK: u32 = 1000;

const NOTE: &str = "compared with the anchor in the state folder alone: \
                    a roll-back of the whole home, this anchor included, cannot be seen";

impl Store {
    /// Checks the whole log, archived entries included, what the review looks up, the anchor and every page of the file, in
    /// memory that does not grow.
    /// Commits go on while the log is read, and wait while the pages are checked (seconds for a gigabyte). A break is remembered:
    /// from then on [`Store::is_broken`] holds, across restarts, until it is accepted.
    ///
    /// A [`ProblemKind::IndexMismatch`] is a break as others are, since only somebody with the vault key can make one, and it
    /// may hide entries. It is named where the log shows no other break: any other explains it, and accepting mends it.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], [`StoreError::Io`]; damage is part of the report.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        Ok(self.examine(true).await?.0)
    }

    /// Does what [`Store::verify`] does but for the pages of the file: those that no entry is read from are not looked at, and
    /// no commit waits for more than some thousand entries.
    ///
    /// # Errors
    /// Those of [`Store::verify`].
    pub async fn verify_entries(&self) -> Result<VerifyReport, StoreError> {
        Ok(self.examine(false).await?.0)
    }

    /// The report, and whether pages or the file itself are wrong at this moment.
    async fn examine(&self, pages: bool) -> Result<(VerifyReport, bool), StoreError> {
        let keys = Arc::clone(&self.keys);
        let mut verifier = Verifier::new(Head::empty(&keys.vault_id), &keys.former, &keys.chain);
        let mut check = index::Check::default();
        let (mut damaged, mut unlike) = (None, false);
        // No entry goes into the archive while it is read here.
        let _still = self.moving.lock().await;
        let mut next = self.examine_archive(&mut verifier, &mut check, &mut unlike).await?;
        let mut inner = loop {
            let mut inner = self.inner.lock().await;
            let mut seen = 0;
            let mut raw = db::raw(inner.conn()?).await?;
            let scanned = raw.links(next, CHUNK, |link| {
                seen += 1;
                let stamp = verifier.push(u64::try_from(link.seq).unwrap_or(0), link.prev, link.mac, link.body);
                if !unlike {
                    check.push(link.seq, &stamp);
                }
            });
            // Tables that cannot be read are not those that were written.
            unlike |= check.compare(&mut raw).is_err();
            drop(raw);
            match scanned {
                Ok(Some(last)) if seen == CHUNK => next = last.saturating_add(1),
                // Under this lock the rest is checked, so that no commit comes between.
                Ok(_) => break inner,
                Err(StoreError::Damaged(_)) => {
                    damaged = Some(Problem::new(inner.head.seq, ProblemKind::DatabaseDamaged));
                    break inner;
                }
                Err(e) => return Err(e),
            }
            drop(inner);
            tokio::task::yield_now().await;
        };
        let findings = verifier.finish();
        let mut problems = findings.problems;
        let from = check.finish(&mut db::raw(inner.conn()?).await?).unwrap_or(Some(1)).or(unlike.then_some(1));
        let unlike = from.map(|seq| Problem::new(seq.unsigned_abs(), ProblemKind::IndexMismatch));
        problems.extend(match damaged {
            Some(problem) => Some(problem),
            None => inner.check_file(pages).await?,
        });
        let verdict = inner.compare(&self.paths, &keys).await;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(StoreError::Damaged(_)) => keyward_core::audit::AnchorVerdict {
                state: ProblemKind::DatabaseDamaged.name(),
                seq: None,
                past_anchor: 0,
                problem: None,
            },
            Err(e) => return Err(e),
        };
        problems.extend(verdict.problem);
        let other_epoch = Problem::new(inner.head.seq, ProblemKind::AnchorOtherEpoch);
        let later_slots = load_slots(&self.paths).is_ok_and(|slots| slots.epoch() > inner.epoch);
        if later_slots && !named(&problems, &other_epoch) {
            problems.push(other_epoch);
        }
        if problems.iter().all(|p| p.accepted) {
            problems.extend(unlike);
        }
        let unmendable = |p: &Problem| matches!(p.kind, ProblemKind::DatabaseDamaged | ProblemKind::DatabaseReplaced);
        let file_is_wrong = problems.iter().any(unmendable);
        let fresh = problems.iter().filter(|p| !p.accepted).copied().collect();
        let broken = inner.remember(fresh).await || findings.more > 0;
        if broken {
            self.broken.store(true, Ordering::Release);
        }
        for problem in &inner.remembered {
            if !named(&problems, problem) {
                problems.push(*problem);
            }
        }
        let report = VerifyReport {
            ok: !broken,
            entries: findings.entries,
            head: HeadReport { seq: findings.head.seq, mac: hex::encode(findings.head.mac) },
            anchor: AnchorReport { state: verdict.state.to_owned(), seq: verdict.seq },
            past_anchor: verdict.past_anchor,
            problems,
            more: findings.more,
            gaps: findings.gaps,
            note: NOTE.to_owned(),
        };
        Ok((report, file_is_wrong))
    }

    /// Checks the archive, and gives the first number that is not archived.
    async fn examine_archive(
        &self,
        verifier: &mut Verifier<'_>,
        check: &mut index::Check,
        unlike: &mut bool,
    ) -> Result<i64, StoreError> {
        let seq = |seq: i64| u64::try_from(seq).unwrap_or(0);
        let (mut number, mut place, mut hash) = (0, 0, Sha256::new());
        // Whether something of the segment does not open, and whether the last piece did not.
        let (mut wrong, mut lost) = (false, false);
        loop {
            let mut inner = self.inner.lock().await;
            let (mut db, archive) = inner.sources().await?;
            let Some(segment) = archive.segments.get(number) else {
                // The database has no entries of before: whoever put some there made them up, or copied them.
                let sql = c"SELECT seq, prev, mac, body FROM audit WHERE seq < ?1 ORDER BY seq LIMIT 1000";
                db.scan(sql, &[Value::Int(archive.next())], |row| {
                    let link = RawLink::of(row);
                    verifier.push(seq(link.seq), link.prev, link.mac, link.body);
                    ControlFlow::Continue(())
                })?;
                return Ok(archive.next());
            };
            let mac = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap_or_default();
            let pieces = segment.pieces();
            if let Some(piece) = pieces.get(place) {
                match archive.open(segment, *piece)? {
                    Opened::Entries(entries) => {
                        hash.update(&entries.sealed);
                        let links = entries.links();
                        if let Some(first) = links.first().filter(|_| lost) {
                            verifier.skip(Head { seq: seq(first.seq).saturating_sub(1), mac: mac(first.prev) });
                            lost = false;
                        }
                        for link in links {
                            let stamp = verifier.push(seq(link.seq), link.prev, link.mac, link.body);
                            if !*unlike {
                                check.push(link.seq, &stamp);
                            }
                        }
                        *unlike |= check.compare(&mut db).is_err();
                    }
                    Opened::Lost(why) => {
                        if !wrong {
                            verifier.name(seq(segment.first), why);
                        }
                        if place == 0 {
                            verifier.follow(&segment.prev);
                        }
                        (wrong, lost) = (true, true);
                    }
                }
                place += 1;
                drop(db);
                drop(inner);
                tokio::task::yield_now().await;
                continue;
            }
            let digested = segment.has_digest(std::mem::take(&mut hash));
            let whole = digested && segment.is_sealed(&self.keys.chain) && archive.has_length(segment);
            if !whole && !wrong {
                verifier.name(seq(segment.first), ProblemKind::ArchiveMismatch);
            }
            if lost || pieces.is_empty() {
                verifier.skip(Head { seq: seq(segment.last), mac: mac(&segment.mac) });
            }
            (number, place, wrong, lost) = (number + 1, 0, false, false);
        }
    }

    /// Verifies, makes what the review looks up anew, records that the operator accepts the breaks found, opens a new epoch and
    /// begins a new anchor. Returns the slot file of the new epoch, which is saved already.
    ///
    /// The order is database, anchor, slot file. A crash before the entry changes nothing but the lookup tables; one between the first two leaves the log broken (the anchor is of
    /// another epoch), to be accepted again; one between the last two leaves nothing to do.
    ///
    /// # Errors
    /// [`StoreError::NotBroken`]; [`StoreError::Damaged`] where pages of the file do not verify or the file was replaced under
    /// the open vault, which cannot be accepted; those of [`Store::commit`].
    pub async fn accept_break(
        &self,
        lock: &VaultLock,
        slots: &SlotFile,
        key: &VaultKey,
        at_us: i64,
        reason: &str,
        peer: Option<PeerFacts>,
    ) -> Result<SlotFile, StoreError> {
        let (report, file_is_wrong) = self.examine(true).await?;
        if report.ok {
            return Err(StoreError::NotBroken);
        }
        if file_is_wrong {
            return Err(StoreError::Damaged("this cannot be accepted; put back a backup".to_owned()));
        }
        let mut inner = self.inner.lock().await;
        let anchor = anchor::read(&self.paths.anchor())?.map(|bytes| self.keys.anchor.newest(&bytes));
        let anchored = match anchor {
            Some(AnchorFile::Found { anchor, .. }) => anchor.epoch,
            Some(AnchorFile::Damaged) | None => 0,
        };
        let epoch = inner.epoch.max(anchored).max(slots.epoch()) + 1;
        let mut entry =
            break_accepted(at_us, reason, &report.problems, report.more, inner.head, report.anchor.seq, epoch);
        entry.peer = peer;
        inner.rebuild_index().await?;
        let writes = vec![
            Write::PutMeta(META_EPOCH.to_owned(), epoch.to_be_bytes().to_vec()),
            Write::PutMeta(META_BROKEN.to_owned(), Vec::new()),
        ];
        inner.commit(&self.keys, &Changes { writes, entries: vec![entry] }).await?;
        inner.epoch = epoch;
        inner.remembered.clear();
        let begun = Anchor { vault: self.keys.vault_id, epoch, seq: inner.head.seq, mac: inner.head.mac };
        let path = self.paths.anchor();
        publish(&anchor::stage_first(&path, &self.keys.anchor, &begun)?, &path)?;
        let slots = slots.clone().with_epoch(key, epoch)?;
        save_slots(lock, &slots)?;
        inner.anchor = anchor::AnchorWriter::open(&path, Arc::clone(&self.keys.anchor))?;
        self.broken.store(false, Ordering::Release);
        Ok(slots)
    }
}

/// Whether a list has this problem; one that was accepted is another one.
fn named(problems: &[Problem], wanted: &Problem) -> bool {
    problems.iter().any(|known| !known.accepted && known.is_same(wanted))
}

impl Inner {
    /// Checks every page of the file, the salt that no page covers, and that the file is still the one that was opened.
    async fn check_file(&mut self, pages: bool) -> Result<Option<Problem>, StoreError> {
        let head = self.head.seq;
        let problem = |kind| Ok(Some(Problem::new(head, kind)));
        if !self.is_in_place() {
            return problem(ProblemKind::DatabaseReplaced);
        }
        if !pages {
            return Ok(None);
        }
        let path = self.path().to_owned();
        let pages = async {
            self.checkpoint().await?;
            let conn = self.conn()?;
            let salt = db::lines(conn, "PRAGMA cipher_salt").await?;
            let bad = db::lines(conn, "PRAGMA cipher_integrity_check").await?;
            Ok::<_, StoreError>((salt, bad))
        };
        let (salt, bad) = match pages.await {
            Ok(found) => found,
            Err(StoreError::Damaged(_) | StoreError::Database(_)) => return problem(ProblemKind::DatabaseDamaged),
            Err(e) => return Err(e),
        };
        let stored = read_bounded(&path, 16).map_err(|e| StoreError::io("reading", path, e))?;
        if !bad.is_empty() || salt != [hex::encode(stored)] {
            return problem(ProblemKind::DatabaseDamaged);
        }
        Ok(None)
    }
}
