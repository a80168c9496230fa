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

/// Most uses that one entry of kind `credential.used` stands for.
pub const USES_MAX: u16 = 64;

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
        /// A launcher was added.
        LauncherAdded "launcher.added"
        /// A launcher was changed.
        LauncherChanged "launcher.changed"
        /// A launcher was removed.
        LauncherRemoved "launcher.removed"
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
        /// A request waits for a person.
        ApprovalAsked "approval.asked"
        /// A person answered a request, or nobody did in time.
        ApprovalAnswered "approval.answered"
        /// All who had asked were gone before an answer.
        ApprovalWithdrawn "approval.withdrawn"
        /// A person proved the passphrase, and has the rights of an operator from then on.
        OperatorProven "operator.proven"
        /// A grant was made.
        GrantAdded "grant.added"
        /// A grant was changed.
        GrantChanged "grant.changed"
        /// A grant was taken back.
        GrantRevoked "grant.revoked"
        /// A grant reached its end.
        GrantExpired "grant.expired"
        /// A run came to a fence of its profile.
        FenceReached "fence.reached"
        /// A `keyward.toml` was looked at by a person and counts from then on.
        ProjectReviewed "project.reviewed"
        /// An assertion that may be presented once is about to be.
        AssertionPresented "assertion.presented"
        /// It was not: there was no connection over which it could have been sent.
        AssertionWithdrawn "assertion.withdrawn"
        /// An issuer made a credential.
        ExchangeMade "exchange.made"
        /// An issuer made none.
        ExchangeFailed "exchange.failed"
        /// A credential was obtained for a run.
        LeaseIssued "lease.issued"
        /// A lease was renewed.
        LeaseRenewed "lease.renewed"
        /// A renewal failed.
        LeaseRenewFailed "lease.renew_failed"
        /// A credential ended before there was another one; the lease goes on.
        LeaseLapsed "lease.lapsed"
        /// A lease reached its end.
        LeaseExpired "lease.expired"
        /// A lease ended with its run.
        LeaseReleased "lease.released"
        /// A lease was taken back.
        LeaseRevoked "lease.revoked"
        /// A credential was handed to a run.
        CredentialDelivered "credential.delivered"
        /// A credential was shown.
        CredentialRevealed "credential.revealed"
        /// A credential was handed out for a helper protocol.
        TokenDelivered "token.delivered"
        /// A run was given a run token, with which it makes calls through the gateway. It holds no credential.
        GatewayOpened "gateway.opened"
        /// Calls were made with a credential through the gateway; `detail.uses` lists them, `detail.count` counts them.
        CredentialUsed "credential.used"
        /// A call ended after its entry was written.
        CredentialUseEnded "credential.use_ended"
        /// The gateway refused calls; `detail.count` counts them.
        GatewayRefused "gateway.refused"
        /// An issuer was asked to end a credential before its time; `detail.outcome` says what came of it.
        CredentialRevoked "credential.revoked"
        /// A setting was changed.
        SettingsChanged "settings.changed"
        /// A request was refused.
        RequestRefused "request.refused"
        /// Old entries were moved into an archive segment; `detail` names the first and the last one, and the file's digest.
        AuditArchived "audit.archived"
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
        /// What the review looks entries up by is not what the entries say: it may hide some.
        IndexMismatch "index_mismatch"
        /// The file of an archive segment is missing; it begins with this entry.
        ArchiveMissing "archive_missing"
        /// From this entry on an archive segment is not the one that its checkpoint names, or the checkpoint is not the one that
        /// was written.
        ArchiveMismatch "archive_mismatch"
    }
}

impl ProblemKind {
    /// Whether it is about one entry or what begins with it, and not about the anchor, the index or the file as a whole.
    pub fn is_about_an_entry(self) -> bool {
        match self {
            Self::MacMismatch
            | Self::BodyInvalid
            | Self::PrevMismatch
            | Self::Gap
            | Self::Duplicate
            | Self::ArchiveMissing
            | Self::ArchiveMismatch => true,
            Self::HeadBehindAnchor
            | Self::AnchorMissing
            | Self::AnchorOtherMac
            | Self::AnchorDamaged
            | Self::AnchorOtherEpoch
            | Self::DatabaseReplaced
            | Self::DatabaseDamaged
            | Self::IndexMismatch => false,
        }
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
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or(if at_us < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
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
    /// Where: a sequence number; that of the anchor or of the head for problems with the anchor or the file, of the first
    /// entry of the block for one with the index.
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

    /// Whether two findings are the same problem: those about the anchor, the index or the file are, wherever the log ends by
    /// then.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.seq == other.seq || !self.kind.is_about_an_entry())
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
    /// The breaks, in the order in which they were met; at most [`PROBLEMS_MAX`] that nobody accepted.
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
    /// Problems named since the last acceptance.
    named: usize,
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

/// The detail of a `credential.used` entry that counts.
#[derive(Debug, Deserialize)]
struct Counted {
    count: u16,
}

/// The detail of a `vault.restored` entry that verification reads.
#[derive(Debug, Deserialize)]
struct Restored {
    from: u64,
    anchor_seq: u64,
}

/// What entries are looked up by, as it stands in a body. It depends on the stored bytes alone, so that whoever writes, checks
/// or reads an entry finds the same. A field that is absent is empty, and so are all of a body that is not understood.
#[derive(Debug, Default, Deserialize)]
pub struct Stamp<'b> {
    seq: u64,
    /// When, as it stands there.
    #[serde(borrow, default)]
    pub at: Cow<'b, str>,
    /// Name of the kind.
    #[serde(borrow)]
    pub kind: Cow<'b, str>,
    /// Name of the outcome.
    #[serde(borrow, default)]
    pub outcome: Cow<'b, str>,
    /// Identifier of the run.
    #[serde(borrow, default)]
    pub run: Cow<'b, str>,
    /// The app.
    #[serde(borrow, default)]
    pub app: Cow<'b, str>,
    /// Name of the profile.
    #[serde(borrow, default)]
    pub profile: Cow<'b, str>,
    /// Project folder.
    #[serde(borrow, default)]
    pub project: Cow<'b, str>,
    /// How many uses an entry of kind `credential.used` stands for: its `detail.count`, from 1 to [`USES_MAX`]; 1 where there is
    /// none or another one. 0 for all other kinds.
    #[serde(skip)]
    pub uses: u16,
}

impl<'b> Stamp<'b> {
    /// Reads a body; what is no JSON, or has a field of another type, gives the empty stamp.
    pub fn read(body: &'b [u8]) -> Self {
        let stamp: Self = serde_json::from_slice(body).unwrap_or_default();
        let uses = if stamp.kind == Kind::CredentialUsed.name() {
            let count = detail::<Counted>(body).map(|detail| detail.count);
            count.filter(|count| (1..=USES_MAX).contains(count)).unwrap_or(1)
        } else {
            0
        };
        Self { uses, ..stamp }
    }

    /// When, in microseconds since 1970 UTC; absent where the body does not tell.
    pub fn at_us(&self) -> Option<i64> {
        self.at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
    }
}

impl<'k> Verifier<'k> {
    /// Begins after `start`: [`Head::empty`] for a whole log. `former` holds the keys of before the last rekey, in rising
    /// order of `upto`.
    pub fn new(start: Head, former: &'k [Segment], key: &'k ChainKey) -> Self {
        Self { former, key, entries: 0, head: start, problems: Vec::new(), named: 0, more: 0, gaps: Vec::new() }
    }

    /// Checks the next entry as it is stored, and gives what its body says, verified or not.
    pub fn push<'b>(&mut self, seq: u64, prev: &[u8], mac: &[u8], body: &'b [u8]) -> Stamp<'b> {
        self.entries += 1;
        let stamp = Stamp::read(body);
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
            self.read(seq, &stamp, body);
        } else {
            self.problem(seq, ProblemKind::MacMismatch);
        }
        if seq >= expected {
            self.head = Head { seq, mac: stored.unwrap_or_default() };
        }
        stamp
    }

    /// Adds a problem that the caller found at this place of the log, so that a later acceptance can name it.
    pub fn name(&mut self, seq: u64, kind: ProblemKind) {
        self.problem(seq, kind);
    }

    /// Checks the link of an entry that cannot be read, and whose place is next.
    pub fn follow(&mut self, prev: &[u8]) {
        if prev != self.head.mac {
            self.problem(self.head.seq.saturating_add(1), ProblemKind::PrevMismatch);
        }
    }

    /// Goes on after `to`, since the entries up to it cannot be read; why is for [`Verifier::name`]. Never goes back.
    pub fn skip(&mut self, to: Head) {
        if to.seq > self.head.seq {
            self.head = to;
        }
    }

    /// Ends the check.
    pub fn finish(self) -> Findings {
        Findings { entries: self.entries, head: self.head, problems: self.problems, more: self.more, gaps: self.gaps }
    }

    /// Reads a body whose MAC verified; the entries that speak about the log itself take effect here.
    fn read(&mut self, seq: u64, stamp: &Stamp<'_>, body: &[u8]) {
        let understood = match Kind::parse(&stamp.kind).filter(|_| stamp.seq == seq) {
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
        // What the links do not show, such as an anchor that was ahead, is known from the acceptance alone.
        for named in &accepted.problems {
            let accepted = Problem { seq: named.seq, kind: named.kind, accepted: true };
            if !self.problems.contains(&accepted) {
                self.problems.push(accepted);
            }
        }
        self.named = self.problems.iter().filter(|problem| !problem.accepted).count();
        if accepted.every {
            self.more = 0;
        }
    }

    fn key_of(&self, seq: u64) -> &'k ChainKey {
        self.former.iter().find(|segment| seq <= segment.upto).map_or(self.key, |segment| &segment.key)
    }

    fn problem(&mut self, seq: u64, kind: ProblemKind) {
        if self.named < PROBLEMS_MAX {
            self.problems.push(Problem::new(seq, kind));
            self.named += 1;
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
    let named: Vec<Value> =
        problems.iter().filter(|p| !p.accepted).map(|p| json!({"seq": p.seq, "kind": p.kind.name()})).collect();
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
/// `anchor` is `None` where the file is missing; `at_anchor` is the stored MAC of the entry that the anchor names ([`genesis`]
/// for 0), where there is one. A head before the anchor is never accepted, neither is another MAC or epoch.
pub fn compare_anchor(
    anchor: Option<&AnchorFile>,
    vault_id: &[u8; 16],
    epoch: u64,
    head: Head,
    at_anchor: Option<[u8; 32]>,
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
    } else if at_anchor != Some(anchor.mac) {
        bad(ProblemKind::AnchorOtherMac, seq)
    } else {
        AnchorVerdict { state: "ok", seq, past_anchor: head.seq - anchor.seq, problem: None }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use keyward_crypto::{Anchor, AnchorKey};
    use keyward_secret::Key32;
    use proptest::prelude::*;
    use proptest::sample::Index;

    const VAULT: [u8; 16] = [7; 16];

    #[derive(Debug, Clone, PartialEq)]
    struct Stored {
        seq: u64,
        prev: Vec<u8>,
        mac: Vec<u8>,
        body: Vec<u8>,
    }

    fn chain_key() -> ChainKey {
        ChainKey::new(&Key32::make(|k| k.fill(0x42)))
    }

    fn anchor_key() -> AnchorKey {
        AnchorKey::new(&Key32::make(|k| k.fill(0x43)))
    }

    /// A log as the store keeps it, with its anchor file.
    #[derive(Debug, Clone)]
    struct Log {
        links: Vec<Stored>,
        anchor: Option<Vec<u8>>,
        epoch: u64,
    }

    impl Log {
        fn new() -> Self {
            Self { links: Vec::new(), anchor: None, epoch: 1 }
        }

        fn of(n: usize) -> Self {
            let mut log = Self::new();
            for i in 0..n {
                log.append(&Draft::new(i64::try_from(i).unwrap(), Kind::RunStarted).app("psql", true));
            }
            log.anchor();
            log
        }

        fn head(&self) -> Head {
            let last = self.links.last();
            last.map_or(Head::empty(&VAULT), |l| Head { seq: l.seq, mac: l.mac.clone().try_into().unwrap() })
        }

        fn append(&mut self, draft: &Draft) {
            let Head { seq, mac: prev } = self.head();
            let body = body(seq + 1, draft);
            let mac = chain_key().mac(seq + 1, &prev, &body);
            self.links.push(Stored { seq: seq + 1, prev: prev.to_vec(), mac: mac.to_vec(), body });
        }

        fn anchor(&mut self) {
            let Head { seq, mac } = self.head();
            let slot = anchor_key().encode(1, &Anchor { vault: VAULT, epoch: self.epoch, seq, mac });
            self.anchor = Some(slot.to_vec());
        }

        fn findings(&self) -> Findings {
            let key = chain_key();
            let mut verifier = Verifier::new(Head::empty(&VAULT), &[], &key);
            for l in &self.links {
                verifier.push(l.seq, &l.prev, &l.mac, &l.body);
            }
            verifier.finish()
        }

        fn verdict(&self) -> AnchorVerdict {
            let file = self.anchor.as_ref().map(|bytes| anchor_key().newest(bytes));
            let named = match &file {
                Some(AnchorFile::Found { anchor, .. }) => anchor.seq,
                Some(AnchorFile::Damaged) | None => 0,
            };
            let at_anchor = if named == 0 {
                Some(genesis(&VAULT))
            } else {
                let found = self.links.iter().find(|l| l.seq == named);
                found.and_then(|l| l.mac.clone().try_into().ok())
            };
            let head = self.findings().head;
            compare_anchor(file.as_ref(), &VAULT, self.epoch, head, at_anchor)
        }

        /// Everything that nobody accepted.
        fn problems(&self) -> Vec<Problem> {
            let mut all = self.findings().problems;
            all.extend(self.verdict().problem);
            all.retain(|p| !p.accepted);
            all
        }
    }

    fn kinds(problems: &[Problem]) -> Vec<(u64, ProblemKind)> {
        problems.iter().map(|p| (p.seq, p.kind)).collect()
    }

    #[test]
    fn a_body_is_canonical_json_with_the_present_fields_alone() {
        let draft = Draft::new(1_795_230_245_123_456, Kind::CredentialDelivered)
            .run("r1")
            .profile("pg")
            .app("Claude Code", false)
            .project("/home/a")
            .peer(PeerFacts { uid: 1000, pid: 42, exe: Some("/usr/bin/é".to_owned()) })
            .detail("z", 1)
            .detail("a", "\u{1b}");
        let body = body(7, &draft);
        let text = String::from_utf8(body.clone()).unwrap();
        assert_eq!(
            text,
            "{\"app\":\"Claude Code\",\"app_verified\":false,\"at\":\"2026-11-21T03:04:05.123456Z\",\
             \"detail\":{\"a\":\"\\u001b\",\"z\":1},\"kind\":\"credential.delivered\",\"outcome\":\"ok\",\
             \"peer\":{\"exe\":\"/usr/bin/é\",\"pid\":42,\"uid\":1000},\"profile\":\"pg\",\
             \"project\":\"/home/a\",\"run\":\"r1\",\"seq\":7}"
        );
        let entry = Entry::parse(&body).unwrap();
        assert_eq!((entry.seq, entry.kind, entry.run.as_deref()), (7, Kind::CredentialDelivered, Some("r1")));
        assert_eq!(entry.lease, None);
        assert_eq!(Entry::parse(b"{}"), Err(EntryError));
        assert_eq!(Entry::parse(&text.replace("\"seq\":7", "\"seq\":7,\"more\":1").into_bytes()), Err(EntryError));
    }

    #[test]
    fn times_have_a_fixed_width_and_never_fail() {
        assert_eq!(at_text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at_text(-1), "1969-12-31T23:59:59.999999Z");
        for at in [i64::MIN, i64::MAX] {
            assert!(at_text(at).ends_with('Z'));
        }
    }

    #[test]
    fn names_are_unique_and_survive_parsing() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(*kind));
        }
        for kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::parse(kind.name()), Some(*kind));
        }
        assert_eq!(Kind::parse("vault"), None);
    }

    #[test]
    fn entries_under_a_former_key_verify_with_it_and_with_no_other() {
        let (old, new) = (chain_key(), ChainKey::new(&Key32::make(|k| k.fill(0x44))));
        let mut log = Log::of(3);
        let Head { seq, mac: prev } = log.head();
        let body = body(seq + 1, &Draft::new(0, Kind::VaultRekeyed));
        let mac = new.mac(seq + 1, &prev, &body);
        log.links.push(Stored { seq: seq + 1, prev: prev.to_vec(), mac: mac.to_vec(), body });
        let check = |former: &[Segment], key: &ChainKey| {
            let mut verifier = Verifier::new(Head::empty(&VAULT), former, key);
            for l in &log.links {
                verifier.push(l.seq, &l.prev, &l.mac, &l.body);
            }
            kinds(&verifier.finish().problems)
        };
        let former = [Segment { upto: 3, key: old }];
        assert_eq!(check(&former, &new), []);
        assert_eq!(check(&[], &new).len(), 3);
        let short = [Segment { upto: 2, key: chain_key() }];
        assert_eq!(check(&short, &new), [(3, ProblemKind::MacMismatch)]);
    }

    #[test]
    fn an_acceptance_covers_what_it_names_and_nothing_else() {
        let mut log = Log::of(6);
        log.links[1].body[3] ^= 1;
        let found = log.problems();
        assert_eq!(kinds(&found), [(2, ProblemKind::MacMismatch)]);
        let head = log.head();
        log.append(&break_accepted(9, "known", &found, 0, head, Some(6), 2));
        log.epoch = 2;
        log.anchor();
        assert_eq!(log.problems(), []);
        assert!(log.findings().problems[0].accepted, "it stays visible");
        assert_eq!(log.findings().problems.len(), 1, "once");
        // The same kind elsewhere, and another kind at the same place, are new.
        log.links[3].body[3] ^= 1;
        log.links[1].prev[0] ^= 1;
        assert_eq!(kinds(&log.problems()), [(2, ProblemKind::PrevMismatch), (4, ProblemKind::MacMismatch)]);
    }

    #[test]
    fn an_accepted_break_that_no_link_shows_stays_visible() {
        let mut log = Log::of(4);
        let behind = Problem::new(4, ProblemKind::HeadBehindAnchor);
        let head = log.head();
        log.append(&break_accepted(9, "known", &[behind], 0, head, Some(6), 2));
        assert_eq!(log.findings().problems, [Problem { accepted: true, ..behind }]);
    }

    #[test]
    fn an_acceptance_that_was_forged_or_edited_covers_nothing() {
        let mut log = Log::of(4);
        log.links[1].body[3] ^= 1;
        let found = log.problems();
        let head = log.head();
        log.append(&break_accepted(9, "known", &found, 0, head, Some(4), 1));
        log.anchor();
        let last = log.links.last_mut().unwrap();
        last.body = body(5, &break_accepted(9, "edited", &found, 1, head, Some(4), 1));
        assert_eq!(kinds(&log.problems()), [(2, ProblemKind::MacMismatch), (5, ProblemKind::MacMismatch)]);
    }

    #[test]
    fn problems_past_the_bound_are_counted_and_can_be_accepted_as_a_whole() {
        let mut log = Log::of(PROBLEMS_MAX + 10);
        for l in &mut log.links {
            l.body[3] ^= 1;
        }
        let findings = log.findings();
        assert_eq!((findings.problems.len(), findings.more), (PROBLEMS_MAX, 10));
        let head = log.head();
        log.append(&break_accepted(9, "known", &findings.problems, findings.more, head, None, 1));
        let findings = log.findings();
        assert!(findings.more == 0 && findings.problems.iter().all(|p| p.accepted));
        let last = log.links.last_mut().unwrap();
        last.prev[0] ^= 1;
        let left: Vec<_> = log.findings().problems.into_iter().filter(|p| !p.accepted).collect();
        assert!(!left.is_empty() || log.findings().more > 0);
    }

    #[test]
    fn a_restore_is_a_gap_and_no_problem() {
        let mut log = Log::of(2);
        log.append(&restored(9, 2, 17, true, 2));
        log.anchor();
        assert_eq!(log.problems(), []);
        assert_eq!(log.findings().gaps, [RestoreGap { seq: 3, from: 2, anchor_seq: 17 }]);
    }

    #[test]
    fn a_body_whose_mac_verifies_must_still_be_ours() {
        let mut log = Log::of(1);
        for bad in [
            "",
            "{}",
            "{\"seq\":2}",
            "{\"seq\":9,\"kind\":\"run.started\"}",
            "{\"seq\":2,\"kind\":\"audit.break_accepted\"}",
        ] {
            log.links.truncate(1);
            let prev = log.head().mac;
            let mac = chain_key().mac(2, &prev, bad.as_bytes());
            log.links.push(Stored { seq: 2, prev: prev.to_vec(), mac: mac.to_vec(), body: bad.into() });
            assert_eq!(kinds(&log.findings().problems), [(2, ProblemKind::BodyInvalid)], "{bad}");
        }
    }

    #[derive(Debug, Clone)]
    enum Tamper {
        FlipBody(Index, Index, u8),
        FlipMac(Index, Index, u8),
        FlipPrev(Index, Index, u8),
        Renumber(Index, u8),
        Remove(Index),
        RemoveFirst,
        RemoveLast,
        Swap(Index, Index),
        SwapPlaces(Index, Index),
        Insert(Index, Index),
        CutTail(Index),
        Empty,
        OlderCopy(Index),
        RemoveAnchor,
        FlipAnchor(Index, u8),
        OtherEpoch,
    }

    fn tamper() -> impl Strategy<Value = Tamper> {
        let at = || any::<Index>();
        let bit = 0u8..8;
        prop_oneof![
            (at(), at(), bit.clone()).prop_map(|(i, j, b)| Tamper::FlipBody(i, j, b)),
            (at(), at(), bit.clone()).prop_map(|(i, j, b)| Tamper::FlipMac(i, j, b)),
            (at(), at(), bit.clone()).prop_map(|(i, j, b)| Tamper::FlipPrev(i, j, b)),
            (at(), bit.clone()).prop_map(|(i, b)| Tamper::Renumber(i, b)),
            at().prop_map(Tamper::Remove),
            Just(Tamper::RemoveFirst),
            Just(Tamper::RemoveLast),
            (at(), at()).prop_map(|(i, j)| Tamper::Swap(i, j)),
            (at(), at()).prop_map(|(i, j)| Tamper::SwapPlaces(i, j)),
            (at(), at()).prop_map(|(i, j)| Tamper::Insert(i, j)),
            at().prop_map(Tamper::CutTail),
            Just(Tamper::Empty),
            at().prop_map(Tamper::OlderCopy),
            Just(Tamper::RemoveAnchor),
            (at(), bit).prop_map(|(i, b)| Tamper::FlipAnchor(i, b)),
            Just(Tamper::OtherEpoch),
        ]
    }

    impl Tamper {
        fn apply(&self, log: &mut Log) {
            let n = log.links.len();
            let flip = |bytes: &mut Vec<u8>, j: &Index, b: u8| {
                let at = j.index(bytes.len());
                bytes[at] ^= 1 << b;
            };
            match self {
                Self::FlipBody(i, j, b) => flip(&mut log.links[i.index(n)].body, j, *b),
                Self::FlipMac(i, j, b) => flip(&mut log.links[i.index(n)].mac, j, *b),
                Self::FlipPrev(i, j, b) => flip(&mut log.links[i.index(n)].prev, j, *b),
                Self::Renumber(i, b) => {
                    log.links[i.index(n)].seq ^= 1 << b;
                    log.links.sort_by_key(|l| l.seq);
                }
                Self::Remove(i) => drop(log.links.remove(i.index(n))),
                Self::RemoveFirst => drop(log.links.remove(0)),
                Self::RemoveLast => drop(log.links.pop()),
                // The contents of two rows, their numbers staying.
                Self::Swap(i, j) => {
                    let (i, j) = (i.index(n), j.index(n));
                    let (a, b) = (log.links[i].clone(), log.links[j].clone());
                    log.links[i] = Stored { seq: a.seq, ..b.clone() };
                    log.links[j] = Stored { seq: b.seq, ..a };
                }
                // The order of two rows, as in an exported file.
                Self::SwapPlaces(i, j) => log.links.swap(i.index(n), j.index(n)),
                Self::Insert(i, j) => {
                    let row = log.links[j.index(n)].clone();
                    log.links.insert(i.index(n), row);
                }
                Self::CutTail(i) => log.links.truncate(i.index(n)),
                Self::Empty => log.links.clear(),
                Self::OlderCopy(i) => log.links.truncate(1 + i.index(n)),
                Self::RemoveAnchor => log.anchor = None,
                Self::FlipAnchor(i, b) => {
                    let Some(bytes) = &mut log.anchor else { panic!("there is an anchor") };
                    flip(bytes, i, *b);
                }
                Self::OtherEpoch => log.epoch += 1,
            }
        }
    }

    fn draft() -> impl Strategy<Value = Draft> {
        (any::<i64>(), 0..Kind::ALL.len(), proptest::option::of("\\PC{0,12}"), "\\PC{0,20}").prop_map(
            |(at, kind, app, text)| {
                let kind = match Kind::ALL[kind] {
                    Kind::AuditBreakAccepted | Kind::VaultRestored => Kind::RunEnded,
                    kind => kind,
                };
                let mut draft = Draft::new(at, kind).detail("text", text);
                draft.app = app;
                draft
            },
        )
    }

    fn log() -> impl Strategy<Value = Log> {
        (proptest::collection::vec(draft(), 1..12), 0usize..4).prop_map(|(drafts, past)| {
            let mut log = Log::new();
            let anchored = drafts.len().saturating_sub(past).max(1);
            for (i, draft) in drafts.iter().enumerate() {
                log.append(draft);
                if i + 1 == anchored {
                    log.anchor();
                }
            }
            log
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn an_honest_log_is_whole_and_reads_back(log in log()) {
            prop_assert_eq!(log.problems(), []);
            let verdict = log.verdict();
            prop_assert_eq!(verdict.past_anchor, log.head().seq - verdict.seq.unwrap());
            for l in &log.links {
                prop_assert_eq!(Entry::parse(&l.body).unwrap().seq, l.seq);
            }
        }

        #[test]
        fn any_tampering_is_found_unless_it_changed_nothing_that_the_anchor_covers(mut log in log(), tamper in tamper()) {
            let before = log.clone();
            tamper.apply(&mut log);
            // A log cut behind its anchor is what a crash leaves; nothing outside of the database knows better.
            let anchored = before.verdict().seq.unwrap();
            let crash = log.links.len() as u64 >= anchored
                && log.links[..] == before.links[..log.links.len().min(before.links.len())]
                && log.anchor == before.anchor
                && log.epoch == before.epoch;
            prop_assert_eq!(log.problems().is_empty(), crash, "{:?}", tamper);
        }
    }
}
