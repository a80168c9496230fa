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
    /// others chose. The number of an error of the system goes, since its words say the same.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(plain(&without_number(cause.to_string()), 400));
        self
    }

    /// Replaces the help of the table by one that names the exact command.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// The words of an error without ` (os error N)`, which the standard library puts after those of the system.
fn without_number(mut text: String) -> String {
    const BEFORE: &str = " (os error ";
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(BEFORE)).map(|at| from + at) {
        let rest = text.get(at + BEFORE.len()..).unwrap_or_default();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        match rest.as_bytes().get(digits) {
            Some(b')') if digits > 0 => text.replace_range(at..at + BEFORE.len() + digits + 1, ""),
            _ => from = at + BEFORE.len(),
        }
    }
    text
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

/// Makes text that others chose safe to print: each character that is [`unseen`] is escaped, and anything past `limit`
/// characters is cut with an ellipsis.
pub fn plain(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (n, c) in text.chars().enumerate() {
        if n == limit {
            out.push('…');
            break;
        }
        if unseen(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Makes text that others chose safe to decide by, on a card and in a terminal: each character that is [`unseen`] is
/// escaped, and what is longer than `limit` characters, escapes counted, loses its middle to an ellipsis, so that neither
/// its beginning nor its end can be pushed out of sight. Looks at no more of a long text than it shows.
pub fn shown(text: &str, limit: usize) -> String {
    let written = |c: char| if unseen(c) { c.escape_unicode().to_string() } else { c.to_string() };
    // As many whole characters as there is room for, escapes counted.
    let within = |room: usize, chars: &mut dyn Iterator<Item = char>| {
        let mut left = room;
        let fits = |part: &String| left.checked_sub(part.chars().count()).map(|rest| left = rest).is_some();
        chars.map(written).take_while(fits).collect::<Vec<_>>()
    };
    let head = within(limit, &mut text.chars());
    if head.len() == text.chars().take(limit + 1).count() {
        return head.concat();
    }
    let room = limit.saturating_sub(1);
    let head = within(room - room / 2, &mut text.chars());
    let mut tail = within(room / 2, &mut text.chars().rev());
    tail.reverse();
    head.concat() + "…" + &tail.concat()
}

/// Whether nobody sees a character as what it is: control, zero-width, bidirectional, line-breaking, tag, filling and
/// selecting characters, and those that look like nothing. The selector of emoji (U+FE0F) is none of them, and neither is
/// the space.
pub fn unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
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
    fn the_number_of_an_error_of_the_system_goes_and_nothing_else() {
        let cause = |text: &str| Fault::new(Code::Internal).cause(text).causes.concat();
        assert_eq!(cause(&format!("x: {}", std::io::Error::from_raw_os_error(2))), "x: No such file or directory");
        assert_eq!(cause("a (os error 2); b (os error 13) c"), "a; b c");
        for text in ["a (os error)", "a (os error x)", "a (os error 2", "(os error 2)", " (os error -1)"] {
            assert_eq!(cause(text), text);
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
            "error[vault.locked]: the vault is locked\n  cause: no use for 15 minutes\n  help:  run `keyward unlock`, or open Keyward from the tray"
        );
        let more = fault.cause("the screen was locked").to_string();
        assert!(more.contains("\n  cause: no use for 15 minutes\n       - the screen was locked\n  help:"), "{more}");
    }

    #[test]
    fn text_of_others_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}c", 40), "a\\u{1b}[2Jb\\u{a}\\u{202e}c");
        assert_eq!(plain("abcdef", 3), "abc…");
    }

    #[test]
    fn nothing_of_a_shown_text_is_hidden_moved_or_pushed_out_of_sight() {
        for (text, want) in [
            ("npm run dev", "npm run dev"),
            ("häßlich 日本 👩", "häßlich 日本 👩"),
            ("⚙\u{fe0f}", "⚙\u{fe0f}"),
            ("", ""),
            ("a\u{1b}]0;t\u{7}b", "a\\u{1b}]0;t\\u{7}b"),
            ("a\u{9b}2Jb", "a\\u{9b}2Jb"),
            ("a\r\nb\tc\u{85}d\u{7f}", "a\\u{d}\\u{a}b\\u{9}c\\u{85}d\\u{7f}"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c"),
            ("\u{202e}exe\u{2066}\u{61c}\u{200f}", "\\u{202e}exe\\u{2066}\\u{61c}\\u{200f}"),
            ("pro\u{200b}d\u{200d}\u{2060}\u{feff}\u{ad}", "pro\\u{200b}d\\u{200d}\\u{2060}\\u{feff}\\u{ad}"),
            ("x\u{e0041}\u{e007f}\u{e0100}", "x\\u{e0041}\\u{e007f}\\u{e0100}"),
            ("\u{3164}\u{115f}\u{2800}\u{ffa0}\u{34f}", "\\u{3164}\\u{115f}\\u{2800}\\u{ffa0}\\u{34f}"),
            ("\0", "\\u{0}"),
        ] {
            assert_eq!(shown(text, 80), want, "{text:?}");
        }
        assert_eq!(shown("abcdefghij", 10), "abcdefghij");
        assert_eq!(shown("abcdefghijk", 10), "abcde…hijk");
        assert_eq!(shown("ab\n", 7), "ab\\u{a}");
        // An escape is whole or not there.
        assert_eq!(shown("ab\ncd\nef", 10), "ab…ef");
        assert_eq!((shown("abc", 1), shown("abc", 0), shown("abc", 2)), ("…".into(), "…".into(), "a…".into()));
        let long = format!("rm{}-rf /", "\u{202e}x \n".repeat(100_000));
        for limit in 2..200 {
            let cut = shown(&long, limit);
            assert!(cut.chars().count() <= limit && !cut.chars().any(unseen), "{limit}: {cut}");
            assert!(cut.starts_with('r') && (limit < 4 || cut.ends_with('/')), "{limit}: {cut}");
        }
    }
}
