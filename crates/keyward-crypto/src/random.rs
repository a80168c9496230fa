//! Random numbers of the operating system; the only place that draws them.

use keyward_secret::Key32;

/// The operating system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct RandomError;

/// Makes `N` random bytes that are not secret: a nonce, a salt, an identifier.
///
/// # Errors
/// [`RandomError`].
pub fn make_array<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// Makes a random 256-bit key in its own page.
///
/// # Errors
/// [`RandomError`].
pub fn make_key() -> Result<Key32, RandomError> {
    Key32::try_make(|page| getrandom::fill(page).map_err(|_| RandomError))
}
