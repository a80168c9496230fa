//! What went wrong, in words: one table from error code to message, help and exit code.
//!
//! Every error that crosses the LocalAPI, reaches a terminal or a screen is a [`Fault`]: a [`Code`] with the words of
//! this table and the causes that the failing layer added. This crate never holds a secret, never does I/O, and never
//! decides: it only names. Called by every other crate.

mod code;

pub use code::Code;

use serde::{Deserialize, Serialize};
use std::fmt;

/// An error as a person or a program sees it.
///
/// Serialises as `{code, message, causes, help, exit}`. Holds no secret: causes are written by the layers, which name
/// things but never quote a secret, an assertion or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Dotted name, stable across releases (`vault.locked`).
    pub code: Code,
    /// One sentence in lower case, without a full stop.
    pub message: String,
    /// What led to it, outermost first; may be empty.
    pub causes: Vec<String>,
    /// What to do about it.
    pub help: String,
    /// Exit status of the command line for this code.
    pub exit: u8,
}

impl Fault {
    /// Makes the fault of `code` with the words of the table.
    pub fn new(code: Code) -> Self {
        let row = code.row();
        Self { code, message: row.message.to_owned(), causes: Vec::new(), help: row.help.to_owned(), exit: row.exit }
    }

    /// Adds a cause. Control characters are escaped and the text is cut at 400 characters, since causes quote names that
    /// others chose.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(plain(&cause.to_string(), 400));
        self
    }

    /// Replaces the help of the table by one that names the exact command.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Fault {
    /// Renders the block that the command line prints: `error[code]: message`, then a `cause:` line with further causes as a
    /// list below it, and a `help:` line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.message)?;
        for (n, cause) in self.causes.iter().enumerate() {
            write!(f, "\n  {} {cause}", if n == 0 { "cause:" } else { "     -" })?;
        }
        if !self.help.is_empty() {
            write!(f, "\n  help:  {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Makes text that others chose safe to print: control, bidirectional and line-breaking characters are escaped, and
/// anything past `limit` characters is cut with an ellipsis.
pub fn plain(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (n, c) in text.chars().enumerate() {
        if n == limit {
            out.push('…');
            break;
        }
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || bidi || matches!(c, '\u{2028}' | '\u{2029}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_words_help_and_an_exit_code_of_the_table() {
        for code in Code::ALL {
            let row = code.row();
            assert!(!row.message.is_empty() && !row.help.is_empty(), "{code}");
            assert!(!row.message.ends_with('.'), "{code}: a message has no full stop");
            assert!(matches!(row.exit, 1..=7 | 70 | 126 | 127), "{code}: exit {}", row.exit);
            assert_eq!(Code::parse(code.name()), Some(*code));
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(before, names.len());
    }

    #[test]
    fn a_fault_prints_as_one_block_and_survives_json() {
        let fault = Fault::new(Code::VaultLocked).cause("no use for 15 minutes");
        assert_eq!(
            fault.to_string(),
            "error[vault.locked]: the vault is locked\n  cause: no use for 15 minutes\n  help:  run `keyward unlock`"
        );
        let more = fault.cause("the screen was locked").to_string();
        assert!(more.contains("\n  cause: no use for 15 minutes\n       - the screen was locked\n  help:"), "{more}");
    }

    #[test]
    fn text_of_others_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}c", 40), "a\\u{1b}[2Jb\\u{a}\\u{202e}c");
        assert_eq!(plain("abcdef", 3), "abc…");
    }
}
