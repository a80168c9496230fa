//! Files of this user that other programs keep: the shared files of AWS, the credentials of gcloud.
//!
//! Opened by [`crate::walk`], so that nobody else can have put them there; bounded; and given up where their file system does
//! not answer. Never shows what a file holds. Called by the issuers of AWS and Google.

use crate::turn::{Hangs, Turns};
use crate::walk;
use keyward_core::{Failure, IssueError};
use keyward_diag::{Code, Fault};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Largest file, in bytes.
const MOST: usize = 256 * 1024;

static TURNS: Turns = Turns::new(8, Duration::from_secs(10));

/// Reads a file whole, at most 256 KiB; `None` where there is none.
///
/// # Errors
/// [`Code::IssuerFailed`] with the place on the path, for a file that others could have put there too.
pub(crate) async fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IssueError> {
    let read = || {
        let path = path.to_owned();
        move || now(&path)
    };
    let failed = |cause: &str| Fault::new(Code::IssuerFailed).cause(format!("{}: {cause}", path.display()));
    let fault = match TURNS.read(path, read()).await {
        Ok(Some(Ok(bytes))) => return Ok(bytes),
        Ok(Some(Err(fault))) => fault,
        Ok(None) => failed("it was not read"),
        Err(Hangs) => failed("its file system does not answer"),
    };
    Err(IssueError { fault, failure: Failure::Passing(None) })
}

fn now(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    if matches!(path.try_exists(), Ok(false)) {
        return Ok(None);
    }
    let failed =
        |cause: &dyn std::fmt::Display| Fault::new(Code::IssuerFailed).cause(format!("{}: {cause}", path.display()));
    let file = walk::open(path).map_err(|unreadable| {
        let fault = unreadable.causes.iter().fold(Fault::new(Code::IssuerFailed), |fault, cause| fault.cause(cause));
        fault.help(unreadable.help)
    })?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MOST as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() > MOST {
        return Err(failed(&format!("it is longer than {MOST} bytes")));
    }
    Ok(Some(bytes))
}

/// A file below the home folder of this user.
///
/// # Errors
/// [`Code::IssuerFailed`] where the broker has no `HOME`.
pub(crate) fn in_home(name: &str) -> Result<PathBuf, IssueError> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| IssueError::refused(Code::IssuerFailed, "the broker was started without HOME"))?;
    Ok(home.join(name))
}
