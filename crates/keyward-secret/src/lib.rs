//! Types that hold secrets, and the only way to look at one.
//!
//! Every secret of Keyward lives in one of these types: boxed, wiped on drop, without `Clone`, `Serialize`, `Display` or
//! `PartialEq`, and with a `Debug` that prints the type's name alone. The bytes are reached through `expose` only, as a
//! closure, so that a borrow cannot be stored; each call carries an `// EXPOSE:` comment with its reason, which
//! `cargo xtask tidy` counts. This crate never does I/O and never logs. Called by every crate that handles secrets.

mod alloc;
mod key;
mod text;

pub use alloc::WipingAllocator;
pub use key::Key32;
pub use text::{SecretText, secret_text};

use secrecy::{ExposeSecret, SecretBox};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Longest secret that Keyward stores or delivers, in bytes.
pub const SECRET_MAX_BYTES: usize = 32 * 1024;

/// Longest passphrase, in bytes.
pub const PASSPHRASE_MAX_BYTES: usize = 1024;

/// A secret was outside of its bounds; says which, never what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// No byte at all.
    Empty,
    /// More bytes than the type takes.
    TooLong {
        /// The bound, in bytes.
        max_bytes: usize,
    },
    /// Not UTF-8 where text is needed.
    NotText,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { max_bytes } => write!(f, "it is longer than {max_bytes} bytes"),
            Self::NotText => f.write_str("it is not UTF-8 text"),
        }
    }
}

impl std::error::Error for SecretError {}

/// Long-lived or short-lived secret bytes: an API key, a password, a token. 1 to [`SECRET_MAX_BYTES`] bytes.
pub struct SecretBytes(SecretBox<[u8]>);

impl SecretBytes {
    /// Takes the bytes over; the vector is wiped when they do not fit the bounds.
    ///
    /// # Errors
    /// [`SecretError::Empty`] or [`SecretError::TooLong`].
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, SecretError> {
        let checked = bounded(&bytes, SECRET_MAX_BYTES);
        if let Err(e) = checked {
            bytes.zeroize();
            return Err(e);
        }
        Ok(Self(SecretBox::new(exact(bytes))))
    }

    /// Shows the bytes to `look` and to nobody else.
    pub fn expose<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.0.expose_secret())
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.expose_secret().len()
    }

    /// Compares in constant time (the length is not hidden).
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.expose_secret().ct_eq(other.0.expose_secret()).into()
    }

    /// A second copy, for a second holder with a life of its own. Named so that it is never made by accident.
    pub fn dangerous_copy(&self) -> Self {
        Self(SecretBox::new(self.0.expose_secret().into()))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes")
    }
}

/// A passphrase as a person typed it. 1 to [`PASSPHRASE_MAX_BYTES`] bytes.
pub struct Passphrase(SecretBox<[u8]>);

impl Passphrase {
    /// Takes the bytes over; one final line end is dropped, since terminals and `echo` add it.
    ///
    /// # Errors
    /// [`SecretError::Empty`] or [`SecretError::TooLong`].
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, SecretError> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let checked = bounded(&bytes, PASSPHRASE_MAX_BYTES);
        if let Err(e) = checked {
            bytes.zeroize();
            return Err(e);
        }
        Ok(Self(SecretBox::new(exact(bytes))))
    }

    /// Shows the bytes to `look` and to nobody else.
    pub fn expose<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.0.expose_secret())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

fn bounded(bytes: &[u8], max_bytes: usize) -> Result<(), SecretError> {
    match bytes.len() {
        0 => Err(SecretError::Empty),
        n if n > max_bytes => Err(SecretError::TooLong { max_bytes }),
        _ => Ok(()),
    }
}

/// Moves into a box of the exact size and wipes the vector: `into_boxed_slice` would reallocate and leave a copy behind.
fn exact(mut bytes: Vec<u8>) -> Box<[u8]> {
    let boxed: Box<[u8]> = bytes.as_slice().into();
    bytes.zeroize();
    boxed
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(SecretBytes: Clone, PartialEq, fmt::Display, serde::Serialize);
    assert_not_impl_any!(Passphrase: Clone, PartialEq, fmt::Display, serde::Serialize);
    assert_not_impl_any!(SecretText: Clone, PartialEq, fmt::Display, serde::Serialize);
    assert_not_impl_any!(Key32: Clone, Copy, PartialEq, fmt::Display, serde::Serialize);

    #[test]
    fn bounds_are_kept() {
        assert_eq!(SecretBytes::new(vec![]).err(), Some(SecretError::Empty));
        assert!(SecretBytes::new(vec![1; SECRET_MAX_BYTES]).is_ok());
        assert_eq!(
            SecretBytes::new(vec![1; SECRET_MAX_BYTES + 1]).err(),
            Some(SecretError::TooLong { max_bytes: SECRET_MAX_BYTES })
        );
        assert_eq!(Passphrase::new(b"\n".to_vec()).err(), Some(SecretError::Empty));
    }

    #[test]
    fn a_passphrase_loses_one_line_end_only() {
        for (typed, kept) in [("a b\r\n", "a b"), ("a\n\n", "a\n"), ("a ", "a ")] {
            let p = Passphrase::new(typed.into()).unwrap_or_else(|e| panic!("{e}"));
            assert!(p.expose(|b| b == kept.as_bytes()), "{typed:?}");
        }
    }

    #[test]
    fn debug_prints_the_name_alone() {
        let secret = SecretBytes::new(b"hunter2".to_vec()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(format!("{secret:?}"), "SecretBytes");
    }
}
