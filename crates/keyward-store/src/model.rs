//! What goes into the vault and comes out of it.

use keyward_core::audit::{Draft, Entry, EntryError, Kind, Outcome, Problem, RestoreGap};
use serde::Serialize;
use std::path::PathBuf;

/// A sealed item without its envelope. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemInfo {
    /// Identifier; part of what the envelope authenticates.
    pub id: [u8; 16],
    /// Kind, such as `secret`; part of what the envelope authenticates.
    pub kind: String,
    /// Name, unique within the kind.
    pub name: String,
    /// How often it was replaced; part of what the envelope authenticates.
    pub generation: u64,
    /// First stored, in microseconds since 1970 UTC.
    pub created_us: i64,
    /// Last replaced, in microseconds since 1970 UTC.
    pub updated_us: i64,
}

/// A sealed item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub info: ItemInfo,
    /// The envelope of [`keyward_crypto::seal`].
    pub sealed: Vec<u8>,
}

/// A profile as it is stored: the body is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Identifier.
    pub id: [u8; 16],
    /// Name, unique.
    pub name: String,
    /// Text of the profile, without secrets.
    pub body: String,
    /// First stored, in microseconds since 1970 UTC.
    pub created_us: i64,
    /// Last changed, in microseconds since 1970 UTC.
    pub updated_us: i64,
}

/// A launcher as it is stored: the body is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// Identifier.
    pub id: [u8; 16],
    /// Name, unique.
    pub name: String,
    /// Text of the launcher, without secrets.
    pub body: String,
    /// First stored, in microseconds since 1970 UTC.
    pub created_us: i64,
    /// Last changed, in microseconds since 1970 UTC.
    pub updated_us: i64,
    /// Last launched, in microseconds since 1970 UTC.
    pub launched_us: Option<i64>,
}

/// A live run as it is stored: the body is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Identifier.
    pub id: [u8; 16],
    /// Text, without secrets.
    pub body: String,
}

/// A grant as it is stored: the body is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Identifier.
    pub id: [u8; 5],
    /// Text, without secrets.
    pub body: String,
}

/// One change of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores an item, or replaces the one with its identifier.
    PutItem(Item),
    /// Removes an item; nothing happens where there is none.
    RemoveItem([u8; 16]),
    /// Stores a profile, or replaces the one with its identifier.
    PutProfile(Profile),
    /// Removes a profile; nothing happens where there is none.
    RemoveProfile([u8; 16]),
    /// Stores a launcher, or replaces the one with its identifier.
    PutLauncher(Launcher),
    /// Removes a launcher; nothing happens where there is none.
    RemoveLauncher([u8; 16]),
    /// Stores a run, or replaces the one with its identifier.
    PutRun(Run),
    /// Removes a run; nothing happens where there is none.
    RemoveRun([u8; 16]),
    /// Stores a grant, or replaces the one with its identifier.
    PutGrant(Grant),
    /// Removes a grant; nothing happens where there is none.
    RemoveGrant([u8; 5]),
    /// Stores a value of the caller under a key. Keys of the store itself begin with `vault.` or `audit.`, and are refused.
    PutMeta(String, Vec<u8>),
}

/// Changes and the entries that record them: all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The changes, in order.
    pub writes: Vec<Write>,
    /// The entries, in order; at least one.
    pub entries: Vec<Draft>,
}

impl Changes {
    /// Entries without a change.
    pub fn record(entries: Vec<Draft>) -> Self {
        Self { writes: Vec::new(), entries }
    }
}

/// State of the log when the vault was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last links and the anchor match.
    Sound {
        /// Entries after the anchor: a crash left it behind.
        past_anchor: u64,
    },
    /// They do not; nothing must be delivered until the operator accepts it.
    Broken {
        /// What was found now or before.
        problems: Vec<Problem>,
    },
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Place in the log.
    pub seq: u64,
    /// MAC of the entry before; 32 bytes unless somebody changed it.
    pub prev: Vec<u8>,
    /// MAC; 32 bytes unless somebody changed it.
    pub mac: Vec<u8>,
    /// Canonical JSON.
    pub body: Vec<u8>,
}

impl Link {
    /// Reads the body. Never checks the links: that is [`crate::Store::verify`].
    ///
    /// # Errors
    /// [`EntryError`] where the body is not an entry of this version.
    pub fn entry(&self) -> Result<Entry, EntryError> {
        Entry::parse(&self.body)
    }
}

/// Which entries to read. All given fields must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The app.
    pub app: Option<String>,
    /// Name of the profile.
    pub profile: Option<String>,
    /// Project folder.
    pub project: Option<String>,
    /// Identifier of the run.
    pub run: Option<String>,
    /// Kind, or the part before its dot (`lease`).
    pub kind: Option<String>,
    /// Outcome.
    pub outcome: Option<Outcome>,
    /// At or after, in microseconds since 1970 UTC.
    pub since_us: Option<i64>,
    /// Before, in microseconds since 1970 UTC.
    pub until_us: Option<i64>,
    /// Text that the body contains as it is stored, in upper or lower case.
    pub text: Option<String>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The entries, in the order that was asked for.
    pub links: Vec<Link>,
    /// The search stopped for lack of patience: in its direction everything up to this entry, it included, was looked at.
    pub looked_to: Option<u64>,
    /// End of the log when the search began.
    pub head: u64,
}

/// Entries by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByOutcome {
    /// With outcome `ok`.
    pub ok: u64,
    /// With outcome `refused`.
    pub refused: u64,
    /// With outcome `failed`.
    pub failed: u64,
}

/// How the entries of a log lie in time, and which names they carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries that match.
    pub total: u64,
    /// Entries in the whole log.
    pub entries: u64,
    /// Entries that match, by the hour since 1970 UTC, rising; hours without any are left out.
    pub hours: Vec<(i64, ByOutcome)>,
    /// The apps of the whole log with their entries, most first; so the others.
    pub apps: Vec<(String, u64)>,
    /// The profiles.
    pub profiles: Vec<(String, u64)>,
    /// The project folders.
    pub projects: Vec<(String, u64)>,
    /// The kinds.
    pub kinds: Vec<(String, u64)>,
}

/// Entries of one kind that an app and a profile share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The kind.
    pub kind: Kind,
    /// The app.
    pub app: String,
    /// The profile.
    pub profile: String,
    /// How many.
    pub count: u64,
    /// How many uses of the credential they stand for; 0 for all kinds but `credential.used`.
    pub uses: u64,
    /// Time of the first one, as it stands there.
    pub first_at: String,
    /// Time of the last one.
    pub last_at: String,
}

/// Direction of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Rising sequence numbers.
    #[default]
    OldestFirst,
    /// Falling sequence numbers.
    NewestFirst,
}

/// One page of entries, by sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only entries after this one.
    pub after: Option<u64>,
    /// Only entries before this one.
    pub before: Option<u64>,
    /// Direction.
    pub order: Order,
    /// Most entries to read.
    pub limit: u32,
}

/// The end of the log in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadReport {
    /// Sequence number; 0 for an empty log.
    pub seq: u64,
    /// MAC, in hexadecimal.
    pub mac: String,
}

/// The anchor in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnchorReport {
    /// `ok`, or the name of the problem.
    pub state: String,
    /// Sequence number that it names, where it verifies.
    pub seq: Option<u64>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whether there is no problem that the operator has not accepted.
    pub ok: bool,
    /// Entries seen.
    pub entries: u64,
    /// End of the log.
    pub head: HeadReport,
    /// The anchor.
    pub anchor: AnchorReport,
    /// Entries after the anchor: a crash left it behind.
    pub past_anchor: u64,
    /// Breaks, accepted ones included; those that were found before and are not visible at the moment too.
    pub problems: Vec<Problem>,
    /// How many more problems there are than could be named.
    pub more: u64,
    /// Gaps that restores left.
    pub gaps: Vec<RestoreGap>,
    /// What this verification cannot see.
    pub note: String,
}

/// What a rekey left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekeyed {
    /// Folders with vaults that a restore moved aside: they keep their old passphrases.
    pub older_copies: Vec<PathBuf>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Last entry of the backup.
    pub from: u64,
    /// What the anchor named before; 0 where there was none.
    pub anchor_seq: u64,
    /// New epoch of the vault.
    pub epoch: u64,
    /// Where the vault that was there before lies now.
    pub moved_to: Option<PathBuf>,
}
