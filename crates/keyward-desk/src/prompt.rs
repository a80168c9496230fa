//! Native prompts: where a person types or reads what the web view must not see.
//!
//! The host shows them: the desktop by windows of its own process, which other processes cannot read; a development host by
//! answers that were laid ready. Called by the commands of [`crate::Desk`].

use keyward_secret::SecretText;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Shortest passphrase, in characters. The broker has the same floor and decides.
const CHARS_MIN: usize = 12;
/// Fewest different characters of a passphrase.
const DIFFERENT_MIN: usize = 6;

/// What a prompt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What it is for: `Reveal “pg-prod”`.
    pub title: String,
    /// Why it is asked. Plain text, perhaps several lines.
    pub why: String,
    /// Why the last answer was not taken, if there was one.
    pub error: Option<String>,
}

/// What becomes of the runs when the desktop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuitAnswer {
    /// They keep their credentials.
    Leave,
    /// Everything is taken back first.
    Revoke,
}

/// What becomes of the card window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardWindow {
    /// It shows the request of this id, on top of the others, and does not take the keyboard.
    Open(String),
    /// As `Open`, and it gets the keyboard: the person asked for it.
    Raise(String),
    /// It is closed.
    Close,
}

/// Shows native prompts. Each call blocks until the person has answered; `None` when the prompt was closed.
///
/// Called from many threads; one prompt is shown at a time. Texts in it were bounded and escaped by the caller. The host names the
/// folder of the vault where that is not the usual one.
pub trait Prompter: Send + Sync {
    /// Asks for the passphrase of the vault, or its recovery key.
    fn passphrase(&self, ask: &Ask) -> Option<SecretText>;
    /// Asks for a new passphrase, twice, and shows its [`strength`]. Answers only with one that is not refused.
    fn new_passphrase(&self, ask: &Ask) -> Option<SecretText>;
    /// Asks for a secret that is to be stored.
    fn secret(&self, ask: &Ask) -> Option<SecretText>;
    /// Shows the recovery key; true once the person has confirmed that it is written down.
    fn show_recovery_key(&self, key: &SecretText) -> bool;
    /// Shows a secret until the person closes it, or for a while.
    fn show_secret(&self, title: &str, secret: &SecretText);
    /// Puts a secret on the clipboard, and clears it after 30 s if it is still there. Does not wait for that.
    fn copy(&self, secret: SecretText);
    /// Asks where to save a file; `suggested` is a file name without a folder.
    fn save_path(&self, title: &str, suggested: &str) -> Option<PathBuf>;
    /// Opens, raises or closes the card window, and returns at once. A window that was opened for another request is closed
    /// first. The host tells [`crate::Desk::card_closed`] when the person closes it.
    fn card(&self, window: CardWindow);
    /// Asks what becomes of `live` runs when the desktop ends; `None` lets it go on.
    fn quit(&self, live: usize) -> Option<QuitAnswer>;
    /// Ends the desktop. Asks nothing, and may return before the end.
    fn end(&self);
}

/// How good a new passphrase is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strength {
    /// 0: refused; 1 to 4: taken, from just enough to very good.
    pub level: u8,
    /// The same in words, or what is missing. Never quotes the passphrase.
    pub words: String,
}

/// Judges a new passphrase by the floor of the broker, and above it by length and variety. No dictionary is asked: a
/// sentence that others know counts as much as one that nobody does.
pub fn strength(passphrase: &str) -> Strength {
    let chars = passphrase.chars().count();
    let different = passphrase.chars().collect::<BTreeSet<_>>().len();
    let refused = |words: String| Strength { level: 0, words };
    if chars == 0 {
        return refused(format!("at least {CHARS_MIN} characters; four words that do not belong together are good"));
    }
    if passphrase.len() > keyward_secret::PASSPHRASE_MAX_BYTES {
        return refused(format!("too long: more than {} bytes", keyward_secret::PASSPHRASE_MAX_BYTES));
    }
    if chars < CHARS_MIN {
        return refused(format!("too short: {chars} of {CHARS_MIN} characters"));
    }
    if different < DIFFERENT_MIN {
        return refused(format!("too uniform: {different} of {DIFFERENT_MIN} different characters"));
    }
    let (level, words) = match (chars, different) {
        (28.., 12..) => (4, "very good"),
        (20.., 10..) => (3, "good"),
        (16.., 8..) => (2, "fair"),
        _ => (1, "enough; a longer one is better"),
    };
    Strength { level, words: words.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_refused_below_the_floor_and_never_quoted() {
        let long = "aB3 ".repeat(300);
        for (text, level, part) in [
            ("", 0, "at least 12"),
            ("12345", 0, "5 of 12"),
            ("aaaaaaaaaaaaaaaa", 0, "1 of 6"),
            ("ababababcdcdcdc", 0, "4 of 6"),
            (&long, 0, "too long"),
            ("abcdefabcdef", 1, "enough"),
            ("äöüßéèàâêîôû", 1, "enough"),
            ("abcdefghabcdefgh", 2, "fair"),
            ("correct horse battery", 3, "good"),
            ("correct horse battery staple", 4, "very good"),
        ] {
            let found = strength(text);
            assert_eq!(found.level, level, "{text}: {found:?}");
            assert!(found.words.contains(part), "{text}: {found:?}");
            assert!(text.is_empty() || !found.words.contains(text));
        }
    }
}
