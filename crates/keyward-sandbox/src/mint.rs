//! Tokens as a program that an issuer of kind `command` runs would print them.
//!
//! The token is random and worth nothing: no service accepts it. Never remembers what it made.

use crate::{random_hex, span};
use std::time::Duration;

/// Random bytes of a token; twice as many hex digits are printed.
const TOKEN_BYTES: usize = 24;

/// Makes the line of JSON: the token is `prefix` and 48 random hex digits, `expires_in` is in seconds.
///
/// Fails for a life under a minute without `fast_lives`, and when the system has no randomness.
pub(crate) fn mint(life: Duration, prefix: &str, fast_lives: bool) -> Result<String, String> {
    span::long_enough(life, fast_lives)?;
    let token = format!("{prefix}{}", random_hex(TOKEN_BYTES)?);
    Ok(format!("{}\n", serde_json::json!({"token": token, "expires_in": life.as_secs()})))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_minted_line_is_json_and_no_two_tokens_are_the_same() {
        let line = || mint(Duration::from_secs(60), "sb-", false).unwrap();
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let (one, two) = (line(), line());
        assert!(one.ends_with("}\n") && one.lines().count() == 1, "{one:?}");
        assert_eq!(read(&one)["expires_in"], 60);
        let token = read(&one)["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("sb-") && token.len() == 3 + 2 * TOKEN_BYTES, "{token}");
        assert_ne!(read(&one)["token"], read(&two)["token"]);
    }

    #[test]
    fn a_prefix_cannot_leave_its_string() {
        let line = mint(Duration::from_secs(60), "\",\n\"expires_in\":9", false).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["expires_in"], 60);
    }

    #[test]
    fn short_lives_need_the_flag() {
        let short = Duration::from_secs(59);
        assert!(mint(short, "sb-", false).is_err());
        assert!(mint(short, "sb-", true).is_ok());
    }
}
