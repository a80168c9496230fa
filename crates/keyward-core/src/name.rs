//! Names of profiles and secrets.

use keyward_diag::{Code, Fault};
use std::fmt;

/// A name that a person gave: 1 to 64 ASCII letters, digits, `.`, `_` or `-`, the first a letter or digit. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that cannot be a name.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a name", keyward_diag::plain(.0, 64))]
pub struct NameError(String);

impl NameError {
    /// The words of the error.
    pub fn fault(&self) -> Fault {
        Fault::new(Code::NameInvalid).cause(self)
    }
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// [`NameError`] when the text breaks the rule of the type.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = (1..=64).contains(&text.len())
            && text.bytes().all(inner)
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if ok { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for (text, ok) in [
            ("a", true),
            ("pg-prod.2_x", true),
            ("9", true),
            ("", false),
            ("-a", false),
            ("a b", false),
            ("ä", false),
            ("a/b", false),
        ] {
            assert_eq!(Name::parse(text).is_ok(), ok, "{text:?}");
        }
        assert!(Name::parse(&"a".repeat(65)).is_err());
    }
}
