//! The rules of the audit log: what an entry is, how it is linked, and what counts as a break.
//!
//! An entry's body is canonical JSON (RFC 8785) of all its fields but the links; the links and their formula are those of
//! [`keyward_crypto::ChainKey`]. A body never holds a secret and never a raw argument list. Nothing here stores or reads an
//! entry: the store feeds a [`Verifier`] and compares head and anchor with [`compare_anchor`].

use keyward_crypto::{AnchorFile, ChainKey, genesis};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;

/// Longest body of an entry, in bytes. The store refuses to append a longer one.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Most problems that one verification names; the rest are counted.
pub const PROBLEMS_MAX: usize = 1000;

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident $name:literal)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl $type {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in bodies, reports and filters.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The value of a name, if there is one.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let name = String::deserialize(d)?;
                Self::parse(&name).ok_or_else(|| serde::de::Error::custom("unknown name"))
            }
        }
    };
}

named! {
    /// What an entry records.
    Kind {
        /// A broker began to serve.
        BrokerStarted "broker.started"
        /// The vault was made; the first entry of every log.
        VaultInitialised "vault.initialised"
        /// The vault was opened, or operator rights were renewed.
        VaultUnlocked "vault.unlocked"
        /// An attempt to open the vault failed.
        VaultUnlockFailed "vault.unlock_failed"
        /// The vault was closed by command.
        VaultLocked "vault.locked"
        /// Operator rights ended for lack of use.
        VaultAutoLocked "vault.auto_locked"
        /// The vault key was replaced; the first entry under the new audit key.
        VaultRekeyed "vault.rekeyed"
        /// A slot was added.
        VaultSlotAdded "vault.slot_added"
        /// A slot was removed.
        VaultSlotRemoved "vault.slot_removed"
        /// A backup was written.
        VaultBackedUp "vault.backed_up"
        /// The vault was restored from a backup; `detail` names the gap.
        VaultRestored "vault.restored"
        /// A secret was stored or replaced.
        SecretSet "secret.set"
        /// A secret was shown.
        SecretRevealed "secret.revealed"
        /// A secret was removed.
        SecretRemoved "secret.removed"
        /// A profile was added.
        ProfileAdded "profile.added"
        /// A profile was changed.
        ProfileChanged "profile.changed"
        /// A profile was removed.
        ProfileRemoved "profile.removed"
        /// A profile was tried.
        ProfileTested "profile.tested"
        /// A run was asked for.
        RunRequested "run.requested"
        /// A request was decided.
        RunDecided "run.decided"
        /// A run's program was started.
        RunStarted "run.started"
        /// A run ended.
        RunEnded "run.ended"
        /// A run could not be watched any longer.
        RunUnwatched "run.unwatched"
        /// A credential was obtained for a run.
        LeaseIssued "lease.issued"
        /// A lease was renewed.
        LeaseRenewed "lease.renewed"
        /// A renewal failed.
        LeaseRenewFailed "lease.renew_failed"
        /// A lease reached its end.
        LeaseExpired "lease.expired"
        /// A lease ended with its run.
        LeaseReleased "lease.released"
        /// A lease was taken back.
        LeaseRevoked "lease.revoked"
        /// A credential was handed to a run.
        CredentialDelivered "credential.delivered"
        /// A credential was handed out for a helper protocol.
        TokenDelivered "token.delivered"
        /// A request was refused.
        RequestRefused "request.refused"
        /// The log was exported.
        AuditExported "audit.exported"
        /// The operator accepted the breaks found so far.
        AuditBreakAccepted "audit.break_accepted"
    }
}

named! {
    /// How the recorded step ended.
    Outcome {
        /// It was done.
        Ok "ok"
        /// It was not allowed.
        Refused "refused"
        /// It was tried and did not work.
        Failed "failed"
    }
}

named! {
    /// What is wrong at a sequence number.
    ProblemKind {
        /// The entry's MAC does not belong to its sequence number, link and body.
        MacMismatch "mac_mismatch"
        /// The MAC verifies, but the body is not what this program writes.
        BodyInvalid "body_invalid"
        /// The entry's link is not the MAC of the entry before it.
        PrevMismatch "prev_mismatch"
        /// The entry with this number is missing, and perhaps some after it.
        Gap "gap"
        /// The number does not rise: an entry is there twice or out of order.
        Duplicate "duplicate"
        /// The log ends before the entry that the anchor names.
        HeadBehindAnchor "head_behind_anchor"
        /// There is no anchor.
        AnchorMissing "anchor_missing"
        /// The entry that the anchor names has another MAC.
        AnchorOtherMac "anchor_other_mac"
        /// The anchor does not verify.
        AnchorDamaged "anchor_damaged"
        /// The anchor, or the slot file, belongs to another epoch of the vault than the database.
        AnchorOtherEpoch "anchor_other_epoch"
        /// The database file is not the one that was opened.
        DatabaseReplaced "database_replaced"
        /// A page of the database does not verify.
        DatabaseDamaged "database_damaged"
    }
}

/// Kernel facts of the process that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFacts {
    /// User id.
    pub uid: u32,
    /// Process id.
    pub pid: i32,
    /// Path of the executable, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// An entry before it has a place in the log. Holds no secret: `detail` names things and carries keyed digests.
///
/// Numbers in `detail` are written as RFC 8785 has it, as IEEE 754 doubles: larger integers than 2^53 belong in text.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// When, in microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// What.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Identifier of the run.
    pub run: Option<String>,
    /// Identifier of the lease.
    pub lease: Option<String>,
    /// Name of the profile.
    pub profile: Option<String>,
    /// Identifier of the grant.
    pub grant: Option<String>,
    /// The app.
    pub app: Option<String>,
    /// Whether the app was verified after exec.
    pub app_verified: Option<bool>,
    /// Project folder.
    pub project: Option<String>,
    /// The process.
    pub peer: Option<PeerFacts>,
    /// Everything else.
    pub detail: Map<String, Value>,
}

impl Draft {
    /// Begins an entry with outcome `ok` and nothing else.
    pub fn new(at_us: i64, kind: Kind) -> Self {
        Self {
            at_us,
            kind,
            outcome: Outcome::Ok,
            run: None,
            lease: None,
            profile: None,
            grant: None,
            app: None,
            app_verified: None,
            project: None,
            peer: None,
            detail: Map::new(),
        }
    }

    /// Sets the outcome.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Names the run.
    #[must_use]
    pub fn run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Names the lease.
    #[must_use]
    pub fn lease(mut self, lease: impl Into<String>) -> Self {
        self.lease = Some(lease.into());
        self
    }

    /// Names the profile.
    #[must_use]
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Names the grant.
    #[must_use]
    pub fn grant(mut self, grant: impl Into<String>) -> Self {
        self.grant = Some(grant.into());
        self
    }

    /// Names the app, and whether it was verified after exec.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>, verified: bool) -> Self {
        self.app = Some(app.into());
        self.app_verified = Some(verified);
        self
    }

    /// Names the project folder.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Adds the facts of the process.
    #[must_use]
    pub fn peer(mut self, peer: PeerFacts) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Adds one fact to `detail`.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// An entry as it stands in a body, for display.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Place in the log, from 1.
    pub seq: u64,
    /// When: RFC 3339, UTC, microseconds (`2026-11-21T03:04:05.123456Z`).
    pub at: String,
    /// What.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Identifier of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Identifier of the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Name of the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Identifier of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Whether the app was verified after exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_verified: Option<bool>,
    /// Project folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerFacts>,
    /// Everything else.
    pub detail: Map<String, Value>,
}

/// A body is not an entry that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not an entry of this version")]
pub struct EntryError;

impl EntryError {
    /// The error as people see it.
    pub fn fault(&self) -> keyward_diag::Fault {
        keyward_diag::Fault::new(keyward_diag::Code::AuditBroken).cause(self)
    }
}

impl Entry {
    /// Reads a body.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn parse(body: &[u8]) -> Result<Self, EntryError> {
        serde_json::from_slice(body).map_err(|_| EntryError)
    }
}

/// The body of a draft at its place: canonical JSON (RFC 8785) of the entry without `prev` and `mac`; absent fields are
/// left out.
pub fn body(seq: u64, draft: &Draft) -> Vec<u8> {
    let draft = draft.clone();
    let entry = Entry {
        seq,
        at: at_text(draft.at_us),
        kind: draft.kind,
        outcome: draft.outcome,
        run: draft.run,
        lease: draft.lease,
        profile: draft.profile,
        grant: draft.grant,
        app: draft.app,
        app_verified: draft.app_verified,
        project: draft.project,
        peer: draft.peer,
        detail: draft.detail,
    };
    serde_json_canonicalizer::to_vec(&entry)
        .unwrap_or_else(|_| unreachable!("texts, finite numbers and maps with text keys serialise"))
}

/// A time as entries write it: RFC 3339, UTC, microseconds. Fixed width between the years 0 and 9999, so that texts compare
/// as times do.
pub fn at_text(at_us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or_else(|_| {
        if at_us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }
    });
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last entry; 0 for an empty log.
    pub seq: u64,
    /// MAC of that entry, or the genesis hash.
    pub mac: [u8; 32],
}

impl Head {
    /// The head of the empty log of a vault.
    pub fn empty(vault_id: &[u8; 16]) -> Self {
        Self { seq: 0, mac: genesis(vault_id) }
    }
}

/// One break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Where: a sequence number; that of the anchor or of the head for problems with the anchor or the file.
    pub seq: u64,
    /// What.
    pub kind: ProblemKind,
    /// Whether the operator accepted it. It stays visible for ever.
    pub accepted: bool,
}

impl Problem {
    /// A problem that nobody accepted.
    pub fn new(seq: u64, kind: ProblemKind) -> Self {
        Self { seq, kind, accepted: false }
    }
}

/// The gap that a restore left: entries after `from`, up to at least `anchor_seq`, are not in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreGap {
    /// Sequence number of the `vault.restored` entry.
    pub seq: u64,
    /// Last entry of the backup.
    pub from: u64,
    /// What the anchor named at the time of the restore; 0 where there was none.
    pub anchor_seq: u64,
}

/// A former audit key and the last entry that it links.
#[derive(Debug)]
pub struct Segment {
    /// Last sequence number under this key.
    pub upto: u64,
    /// The key.
    pub key: ChainKey,
}

/// What a [`Verifier`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// How many entries were seen.
    pub entries: u64,
    /// The last entry, as stored.
    pub head: Head,
    /// The breaks, in the order in which they were met; at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub more: u64,
    /// The gaps that restores left. No problems, and never hidden.
    pub gaps: Vec<RestoreGap>,
}

/// Checks a log entry by entry, in memory that does not grow with it.
///
/// After a broken link it goes on from the stored MAC, so that one edit is one problem (plus the link of the next entry)
/// and not one per later entry.
#[derive(Debug)]
pub struct Verifier<'k> {
    former: &'k [Segment],
    key: &'k ChainKey,
    entries: u64,
    head: Head,
    problems: Vec<Problem>,
    more: u64,
    gaps: Vec<RestoreGap>,
}

/// The detail of an `audit.break_accepted` entry that verification reads.
#[derive(Debug, Deserialize)]
struct Acceptance {
    upto: u64,
    problems: Vec<Named>,
    every: bool,
}

/// A problem as an acceptance names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Named {
    seq: u64,
    kind: ProblemKind,
}

/// The detail of a `vault.restored` entry that verification reads.
#[derive(Debug, Deserialize)]
struct Restored {
    from: u64,
    anchor_seq: u64,
}

/// The fields of a body that verification reads.
#[derive(Debug, Deserialize)]
struct Stamp<'b> {
    seq: u64,
    #[serde(borrow)]
    kind: Cow<'b, str>,
}

impl<'k> Verifier<'k> {
    /// Begins after `start`: [`Head::empty`] for a whole log. `former` holds the keys of before the last rekey, in rising
    /// order of `upto`.
    pub fn new(start: Head, former: &'k [Segment], key: &'k ChainKey) -> Self {
        Self {
            former,
            key,
            entries: 0,
            head: start,
            problems: Vec::new(),
            more: 0,
            gaps: Vec::new(),
        }
    }

    /// Checks the next entry as it is stored.
    pub fn push(&mut self, seq: u64, prev: &[u8], mac: &[u8], body: &[u8]) {
        self.entries += 1;
        let expected = self.head.seq.saturating_add(1);
        if seq < expected {
            self.problem(seq, ProblemKind::Duplicate);
        } else if seq > expected {
            self.problem(expected, ProblemKind::Gap);
        } else if prev != self.head.mac {
            self.problem(seq, ProblemKind::PrevMismatch);
        }
        let stored: Option<[u8; 32]> = mac.try_into().ok();
        let right = match <&[u8; 32]>::try_from(prev) {
            Ok(prev) => Some(self.key_of(seq).mac(seq, prev, body)),
            Err(_) => None,
        };
        if right.is_some() && right == stored {
            self.read(seq, body);
        } else {
            self.problem(seq, ProblemKind::MacMismatch);
        }
        if seq >= expected {
            self.head = Head { seq, mac: stored.unwrap_or_default() };
        }
    }

    /// Ends the check.
    pub fn finish(self) -> Findings {
        Findings {
            entries: self.entries,
            head: self.head,
            problems: self.problems,
            more: self.more,
            gaps: self.gaps,
        }
    }

    /// Reads a body whose MAC verified; the entries that speak about the log itself take effect here.
    fn read(&mut self, seq: u64, body: &[u8]) {
        let stamp = serde_json::from_slice::<Stamp<'_>>(body).ok().filter(|stamp| stamp.seq == seq);
        let understood = match stamp.and_then(|stamp| Kind::parse(&stamp.kind)) {
            Some(Kind::AuditBreakAccepted) => detail(body).map(|accepted| self.accept(&accepted)),
            Some(Kind::VaultRestored) => detail(body).map(|Restored { from, anchor_seq }| {
                self.gaps.push(RestoreGap { seq, from, anchor_seq });
            }),
            Some(_) => Some(()),
            None => None,
        };
        if understood.is_none() {
            self.problem(seq, ProblemKind::BodyInvalid);
        }
    }

    fn accept(&mut self, accepted: &Acceptance) {
        for problem in &mut self.problems {
            let named = Named { seq: problem.seq, kind: problem.kind };
            if problem.seq <= accepted.upto && (accepted.every || accepted.problems.contains(&named)) {
                problem.accepted = true;
            }
        }
        if accepted.every {
            self.more = 0;
        }
    }

    fn key_of(&self, seq: u64) -> &'k ChainKey {
        self.former.iter().find(|segment| seq <= segment.upto).map_or(self.key, |segment| &segment.key)
    }

    fn problem(&mut self, seq: u64, kind: ProblemKind) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(seq, kind));
        } else {
            self.more += 1;
        }
    }
}

fn detail<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Detail<T> {
        detail: T,
    }
    serde_json::from_slice::<Detail<T>>(body).ok().map(|d| d.detail)
}

/// The entry by which an operator accepts the breaks of a log. From then on exactly these problems count as accepted; the
/// epoch of the vault rises, and a new anchor begins.
///
/// `head` is the end of the log before the entry. `more` is [`Findings::more`]: where there are more problems than can be
/// named, all up to `head` are accepted.
pub fn break_accepted(
    at_us: i64,
    reason: &str,
    problems: &[Problem],
    more: u64,
    head: Head,
    anchor_seq: Option<u64>,
    epoch: u64,
) -> Draft {
    let named: Vec<Value> = problems
        .iter()
        .filter(|p| !p.accepted)
        .map(|p| json!({"seq": p.seq, "kind": p.kind.name()}))
        .collect();
    Draft::new(at_us, Kind::AuditBreakAccepted)
        .detail("upto", head.seq)
        .detail("problems", named)
        .detail("every", more > 0)
        .detail("reason", reason)
        .detail("anchor_seq", anchor_seq)
        .detail("head_seq", head.seq)
        .detail("epoch", epoch)
}

/// The entry that a restore writes. `from` is the last entry of the backup, `anchor_seq` what the anchor named before
/// (0 where there was none), `anchor_verified` whether that anchor could be checked with the key of the backup.
pub fn restored(at_us: i64, from: u64, anchor_seq: u64, anchor_verified: bool, epoch: u64) -> Draft {
    Draft::new(at_us, Kind::VaultRestored)
        .detail("from", from)
        .detail("anchor_seq", anchor_seq)
        .detail("anchor_verified", anchor_verified)
        .detail("epoch", epoch)
}

/// What an anchor says about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorVerdict {
    /// `ok`, or the name of the problem.
    pub state: &'static str,
    /// Sequence number that the anchor names, where it verifies.
    pub seq: Option<u64>,
    /// Entries after the anchor. They chain on and are accepted: a crash may leave the anchor behind.
    pub past_anchor: u64,
    /// The problem, if there is one.
    pub problem: Option<Problem>,
}

/// Compares the end of a log with its anchor.
///
/// `anchor` is `None` where the file is missing; `mac_at` gives the stored MAC of an entry ([`genesis`] for 0). A head before
/// the anchor is never accepted, neither is another MAC or epoch.
pub fn compare_anchor(
    anchor: Option<&AnchorFile>,
    vault_id: &[u8; 16],
    epoch: u64,
    head: Head,
    mac_at: impl FnOnce(u64) -> Option<[u8; 32]>,
) -> AnchorVerdict {
    let bad = |kind: ProblemKind, seq: Option<u64>| AnchorVerdict {
        state: kind.name(),
        seq,
        past_anchor: 0,
        problem: Some(Problem::new(seq.unwrap_or(head.seq), kind)),
    };
    let anchor = match anchor {
        None => return bad(ProblemKind::AnchorMissing, None),
        Some(AnchorFile::Damaged) => return bad(ProblemKind::AnchorDamaged, None),
        Some(AnchorFile::Found { anchor, .. }) => anchor,
    };
    let seq = Some(anchor.seq);
    if anchor.vault != *vault_id {
        bad(ProblemKind::AnchorDamaged, None)
    } else if anchor.epoch != epoch {
        bad(ProblemKind::AnchorOtherEpoch, seq)
    } else if head.seq < anchor.seq {
        bad(ProblemKind::HeadBehindAnchor, seq)
    } else if mac_at(anchor.seq) != Some(anchor.mac) {
        bad(ProblemKind::AnchorOtherMac, seq)
    } else {
        AnchorVerdict { state: "ok", seq, past_anchor: head.seq - anchor.seq, problem: None }
    }
}
