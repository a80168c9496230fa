//! Tokens as a program that an issuer of kind `command` runs would print them.
//!
//! The token is random and worth nothing: no service accepts it. Never remembers what it made.

use std::time::Duration;

/// Shortest life without `--fast-lives`: shorter ones end before a broker would refresh them.
const SHORTEST: Duration = Duration::from_secs(60);

/// Longest life.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Random bytes of a token; twice as many hex digits are printed.
const TOKEN_BYTES: usize = 24;

/// Parses a life: a whole number and `s`, `m` or `h`, at least one second and at most 24 hours.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    let mut rest = text.chars();
    let unit_s = match rest.next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        _ => return Err("a life ends in s, m or h, as in 60s".into()),
    };
    let digits = rest.as_str();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a life is a whole number and a unit, as in 60s".into());
    }
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_s));
    match number.map(Duration::from_secs) {
        Some(life) if life >= Duration::from_secs(1) && life <= LONGEST => Ok(life),
        _ => Err("a life is at least 1s and at most 24h".into()),
    }
}

/// Makes the line of JSON: the token is `prefix` and 48 random hex digits, `expires_in` is in seconds.
///
/// Fails for a life under a minute without `fast_lives`, and when the system has no randomness.
pub(crate) fn mint(life: Duration, prefix: &str, fast_lives: bool) -> Result<String, String> {
    if life < SHORTEST && !fast_lives {
        return Err(format!("a life under {} s needs --fast-lives", SHORTEST.as_secs()));
    }
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|e| format!("no randomness: {e}"))?;
    let token = format!("{prefix}{}", hex::encode(random));
    Ok(format!("{}\n", serde_json::json!({"token": token, "expires_in": life.as_secs()})))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn lives_are_whole_numbers_with_a_unit_between_a_second_and_a_day() {
        for (text, seconds) in [("1s", 1), ("60s", 60), ("5m", 300), ("24h", 86_400)] {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "s", "60", "0s", "-1s", "+1s", "1.5h", " 1s", "25h", "86401s", "1d", "99999999999999999999h", "1µ"]
        {
            assert!(life(text).is_err(), "{text:?} passed");
        }
    }

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
