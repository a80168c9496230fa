//! What the program has to say without a window: lines on standard error, which the session keeps in its journal.
//!
//! Never a name of a profile, and never a secret.

use std::io::Write as _;

/// Says one line.
pub(crate) fn line(text: &str) {
    // A session without standard error loses it.
    drop(writeln!(std::io::stderr(), "keyward-desktop: {text}"));
}
