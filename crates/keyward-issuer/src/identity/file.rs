//! `file`: an assertion in a file that somebody else rotates, such as a projected token of Kubernetes.
//!
//! Read anew for each exchange and never kept. Nothing leaves that is not a JWT, so that a profile cannot be made to send
//! any other file.

use super::{Reading, Source, none};
use crate::explain::ago;
use crate::jwt::{ASSERTION_MAX_BYTES, Assertion};
use crate::turn::{Hangs, Turns};
use crate::walk;
use jiff::Timestamp;
use keyward_core::{Failure, FieldSpec, Identity, IssueError, KindRole, KindSpec, Looking, Order, Shape, Usual, Wall};
use keyward_diag::{Code, Fault};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Identity source `file`.
pub(super) struct File;

/// White space around the assertion that is put up with, in bytes.
const SPACE_MAX_BYTES: usize = 256;

/// The reads of all profiles: a file system that does not answer is given up after this, and never holds more threads.
static TURNS: Turns = Turns::new(32, Duration::from_secs(10));

/// How long the rotation of an assertion that was presented is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// An assertion is stale when it is over for longer than this: the 30 s that the server puts up with, and the 5 min by which
/// the clock of this machine may be wrong.
const STALE: Duration = Duration::from_secs(330);

static SPEC: KindSpec = KindSpec {
    kind: "file",
    role: KindRole::Identity,
    about: "an assertion in a file that is rotated by somebody else, read anew for each exchange",
    fields: &[FieldSpec {
        name: "path",
        shape: Shape::Path,
        required: true,
        secret: false,
        about: "absolute path of the file",
    }],
    usual: Usual::NONE,
};

impl Source for File {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn read<'a>(&'a self, identity: &'a Identity, _order: &'a Order) -> Reading<'a> {
        Box::pin(async move {
            let held = hold(path(identity)).await.map_err(nothing)?;
            held.assertion(Timestamp::now().as_second())
        })
    }

    fn look<'a>(&'a self, identity: &'a Identity) -> Looking<'a> {
        Box::pin(async move { Some(digest(&hold(path(identity)).await)) })
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

fn path(identity: &Identity) -> PathBuf {
    PathBuf::from(identity.settings.text("path").unwrap_or_default())
}

fn nothing(fault: Fault) -> IssueError {
    IssueError { fault, failure: Failure::NoAssertion }
}

/// What a file held when it was read.
struct Held {
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    /// When it was written, in seconds since 1970.
    written: i64,
}

/// Reads the file on a thread that may block.
async fn hold(path: PathBuf) -> Result<Held, Fault> {
    let shown = path.clone();
    match TURNS.read(&shown, move || Held::read(path)).await {
        Ok(Some(held)) => held,
        Ok(None) => Err(walk::unreadable(&shown, "it was not read")),
        Err(Hangs) => Err(walk::unreadable(&shown, "its file system does not answer")),
    }
}

/// Stands for what the file holds, or for the reason why that is not known: a file that appears is a change too.
fn digest(held: &Result<Held, Fault>) -> [u8; 32] {
    let hash = match held {
        Ok(held) => Sha256::new_with_prefix("keyward/look/v1").chain_update(&*held.bytes),
        Err(fault) => Sha256::new_with_prefix("keyward/look/unreadable/v1").chain_update(fault.to_string()),
    };
    hash.finalize().into()
}

impl Held {
    fn read(path: PathBuf) -> Result<Self, Fault> {
        const MOST: usize = ASSERTION_MAX_BYTES + SPACE_MAX_BYTES;
        let failed = |e: std::io::Error| walk::unreadable(&path, e);
        let file = walk::open(&path)?;
        let written = file.metadata().and_then(|m| m.modified()).map_err(failed)?;
        let written = written.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed());
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 1));
        file.take(MOST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MOST {
            return Err(not_one(&path, &format!("is longer than {ASSERTION_MAX_BYTES} bytes")));
        }
        Ok(Self { path, bytes, written })
    }

    /// The assertion, unless it is over for so long that nobody rotates the file.
    fn assertion(self, now: i64) -> Result<Assertion, IssueError> {
        let assertion = Assertion::read(&self.bytes).map_err(|what| nothing(not_one(&self.path, &what)))?;
        let over = assertion.exp.map_or(0, |exp| now.saturating_sub(exp));
        if over <= STALE.as_secs().cast_signed() {
            return Ok(assertion);
        }
        let at = Wall(self.written.saturating_mul(1_000_000)).to_rfc3339();
        let cause = format!(
            "the assertion in {} expired {} by the clock of this machine: the file has not been rotated since {at}",
            self.path.display(),
            ago(over)
        );
        let mut error = none(Code::IdentityFailed, cause);
        error.fault =
            error.fault.help("see why the program that rotates the file stopped, and whether the clock is right");
        Err(error)
    }
}

fn not_one(path: &Path, what: &str) -> Fault {
    Fault::new(Code::IdentityInvalid).cause(format!("{}: it {what}", path.display()))
}

#[cfg(test)]
mod tests;
