//! What can go wrong with a vault on disk.

use keyward_crypto::{KdfError, RandomError, SealError, SlotError};
use keyward_diag::{Code, Fault};
use std::io;
use std::path::PathBuf;

/// An operation on the vault's files failed. Nothing half-done counts: each operation says what it leaves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no vault.
    #[error("there is no vault in {}", .0.display())]
    Absent(PathBuf),
    /// There is a vault, and the operation would have replaced it.
    #[error("there is a vault in {}", .0.display())]
    Exists(PathBuf),
    /// A folder can be reached by others; the text names the cure.
    #[error("{0}")]
    Folder(String),
    /// Another process holds the vault.
    #[error("{} is locked by another process", .0.display())]
    InUse(PathBuf),
    /// A file could not be read or written.
    #[error("{doing} {}", .path.display())]
    Io {
        /// What was tried, such as `reading`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk, or the quota, is full.
    #[error("there is no space left")]
    DiskFull,
    /// The database does not open under this key, or a page of it does not verify.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The database was written by a newer program: it has a migration of this number.
    #[error("it has migration {0}, which this program does not know")]
    SchemaNewer(i64),
    /// A migration that was applied is not the one of this program.
    #[error("its migration {0} is not the one of this program")]
    SchemaChanged(i64),
    /// SQLite refused a statement for another reason.
    #[error("the database refused: {0}")]
    Database(String),
    /// The slot file is unreadable, or does not open.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// A sealed item does not verify.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No random numbers could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The file is not a backup, or is damaged.
    #[error("{0}")]
    Backup(&'static str),
    /// A change without an audit entry was refused.
    #[error("a change without an audit entry")]
    Unrecorded,
    /// An audit entry is longer than the log takes.
    #[error("an audit entry of {0} bytes is too long")]
    EntryTooLong(usize),
    /// An item or profile of this kind and name exists under another identifier.
    #[error("the name is taken")]
    NameTaken,
    /// A key of the store itself was to be overwritten.
    #[error("keys that begin with vault. or audit. belong to the store")]
    Reserved,
    /// There is no break to accept.
    #[error("the log is whole")]
    NotBroken,
    /// After a failure whose extent is unknown, or after closing, nothing is written until the vault is opened anew.
    #[error("the vault must be opened anew: {0}")]
    Unusable(&'static str),
}

impl StoreError {
    /// The error as people see it.
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Absent(_) => Code::VaultAbsent,
            Self::Exists(_) => Code::VaultExists,
            Self::Folder(_) => Code::VaultFolderUnsafe,
            Self::InUse(_) => Code::VaultInUse,
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                return Fault::new(Code::VaultIo)
                    .cause(format!("there is a file already: {}", path.display()))
                    .help("name another file");
            }
            Self::Io { source, path, .. } => {
                return Fault::new(Code::VaultIo)
                    .cause(self)
                    .cause(source)
                    .help(format!("mend {}, then try again", path.display()));
            }
            Self::Database(_) | Self::Unusable(_) => Code::VaultIo,
            Self::DiskFull => Code::VaultDiskFull,
            Self::Damaged(_) => Code::VaultDamaged,
            Self::SchemaNewer(_) => Code::VaultSchemaNewer,
            Self::SchemaChanged(_) => Code::VaultSchemaOlder,
            Self::Slots(e) => return slot_fault(e),
            Self::Seal(_) => Code::VaultSealDamaged,
            Self::Backup(_) => Code::VaultBackupDamaged,
            Self::NameTaken => Code::NameInvalid,
            Self::NotBroken => Code::AuditNotBroken,
            Self::Random(_) | Self::Unrecorded | Self::Reserved | Self::EntryTooLong(_) => Code::Internal,
        };
        Fault::new(code).cause(self)
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::DiskFull,
            _ => Self::Io { doing, path: path.into(), source },
        }
    }
}

/// A failure with the slot file as people see it. A wrong passphrase, a damaged file, an edited file and a missing keyring
/// slot are different codes.
pub fn slot_fault(error: &SlotError) -> Fault {
    let code = match error {
        SlotError::Damaged(_) => Code::VaultSlotsDamaged,
        SlotError::Newer(_) => Code::VaultSchemaNewer,
        SlotError::Tampered => Code::VaultSlotsTampered,
        SlotError::WrongPassphrase => Code::VaultWrongPassphrase,
        SlotError::WrongKeyringKey => Code::KeyringMissing,
        SlotError::WrongRecovery => Code::VaultWrongRecovery,
        SlotError::Unknown => Code::VaultSlotUnknown,
        SlotError::Exists(_) => Code::VaultSlotExists,
        SlotError::Needed => Code::VaultSlotNeeded,
        SlotError::Kdf(KdfError::Bounds(_) | KdfError::Salt(_)) => Code::VaultKdfBounds,
        _ => Code::Internal,
    };
    let (fault, cause) = (Fault::new(code), error.to_string());
    // Said once is enough.
    if cause == fault.message { fault } else { fault.cause(cause) }
}
