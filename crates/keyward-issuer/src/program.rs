//! Programs that print a credential or an assertion.
//!
//! A program is started by its absolute path with the arguments of the profile, never by a shell, in `/`, with an
//! environment of its own (`PATH`, `HOME`, `LANG` and what the profile names), no standard input, and in a process group
//! that is killed when its time is up or nobody waits for it. What it prints is never quoted anywhere. Called by the issuer
//! and by the identity source `command`.

use keyward_core::{Failure, FieldSpec, IssueError, SecretRef, Shape};
use keyward_diag::Code;
use keyward_secret::SecretBytes;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

const OUTPUT_MAX_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The fields by which a profile describes a program.
pub(crate) const FIELDS: &[FieldSpec] = &[
    FieldSpec {
        name: "argv",
        shape: Shape::Program,
        required: true,
        secret: false,
        about: "absolute path of the program, then its arguments",
    },
    FieldSpec {
        name: "env",
        shape: Shape::Variables,
        required: false,
        secret: false,
        about: "variables of the program; \"secret:NAME\" gives it a stored secret",
    },
    FieldSpec {
        name: "timeout",
        shape: Shape::Duration,
        required: false,
        secret: false,
        about: "how long it may take, 30s when left out, at most 2m",
    },
];

/// A program as a profile describes it.
pub(crate) struct Program<'a> {
    /// Its absolute path, then its arguments.
    pub(crate) argv: Vec<&'a str>,
    /// Its variables.
    pub(crate) env: Vec<(&'a str, Result<&'a str, SecretRef>)>,
    /// How long it may take; 30 s when left out, never more than 2 min.
    pub(crate) timeout: Option<Duration>,
    /// The code of a program that fails, …
    pub(crate) failed: Code,
    /// … of one that takes too long, …
    pub(crate) late: Code,
    /// … and of one that prints too much.
    pub(crate) long: Code,
}

impl Program<'_> {
    /// Runs the program to its end and gives what it printed, at most 64 KiB.
    ///
    /// # Errors
    /// Those of the codes, and a secret that is not among `secrets`.
    pub(crate) async fn run(self, secrets: &BTreeMap<String, SecretBytes>) -> Result<Zeroizing<Vec<u8>>, IssueError> {
        let failed = |cause: String| IssueError::passing(self.failed, cause);
        let (program, args) =
            self.argv.split_first().ok_or_else(|| failed("the profile names no program".to_owned()))?;
        let timeout = self.timeout.unwrap_or(TIMEOUT).min(TIMEOUT_MAX);
        let mut command = tokio::process::Command::new(program);
        command.args(args).current_dir("/").env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        if let Some(home) = std::env::var_os("HOME") {
            command.env("HOME", home);
        }
        for (name, value) in &self.env {
            match value {
                Ok(text) => command.env(name, text),
                Err(reference) => {
                    // EXPOSE: the profile gives this secret to this program.
                    secret(secrets, reference)?.expose(|bytes| {
                        use std::os::unix::ffi::OsStrExt;
                        command.env(name, std::ffi::OsStr::from_bytes(bytes));
                    });
                    &mut command
                }
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            let failure = if stays(&e) { Failure::Refused } else { Failure::Passing(None) };
            IssueError { failure, ..failed(format!("{program} did not start: {e}")) }
        })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let stdout = child.stdout.take().ok_or_else(|| failed("no pipe".to_owned()))?;
        let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX_BYTES + 1));
        let work = async {
            let read = stdout.take(OUTPUT_MAX_BYTES as u64 + 1).read_to_end(&mut output).await;
            read.map_err(|e| failed(format!("its output could not be read: {e}")))?;
            if output.len() > OUTPUT_MAX_BYTES {
                return Err(IssueError::passing(self.long, format!("it printed more than {OUTPUT_MAX_BYTES} bytes")));
            }
            child.wait().await.map_err(|e| failed(format!("it could not be waited for: {e}")))
        };
        let ended = tokio::time::timeout(timeout, work).await;
        drop(group);
        let status = ended.map_err(|_| {
            IssueError::passing(self.late, format!("{program} ran longer than {} s", timeout.as_secs()))
        })??;
        if !status.success() {
            let how = status.code().map_or_else(|| "was killed".to_owned(), |c| format!("ended with exit code {c}"));
            return Err(failed(format!("{program} {how}; run it by hand to see what it says")));
        }
        Ok(output)
    }
}

/// Whether a program that did not start never will: there is none, it may not be run, or it is nothing that can be run. All
/// else, such as a lack of memory or of processes, or a program that is being replaced, may pass.
fn stays(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | InvalidInput)
        || error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error())
}

/// A secret that a profile refers to.
///
/// # Errors
/// [`Code::SecretUnknown`].
pub(crate) fn secret<'s>(
    secrets: &'s BTreeMap<String, SecretBytes>,
    reference: &SecretRef,
) -> Result<&'s SecretBytes, IssueError> {
    secrets
        .get(reference.0.as_str())
        .ok_or_else(|| IssueError::refused(Code::SecretUnknown, format!("the profile refers to `{}`", reference.0)))
}

/// Kills what the program left behind in its process group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // The group may be gone already, which is as good.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_cannot_be_run_is_given_up() {
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::NOEXEC, Errno::INVAL] {
            assert!(stays(&errno.into()), "{errno}");
        }
        for errno in [Errno::AGAIN, Errno::NOMEM, Errno::TXTBSY, Errno::MFILE, Errno::NFILE, Errno::IO, Errno::INTR] {
            assert!(!stays(&errno.into()), "{errno}");
        }
    }
}
