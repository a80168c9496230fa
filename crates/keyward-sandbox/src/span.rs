//! Spans of time on the command line.

use std::time::Duration;

/// Longest span: two days.
const LONGEST: Duration = Duration::from_secs(48 * 60 * 60);

/// Shortest life of a token without `--fast-lives`.
pub(crate) const LIFE_MIN: Duration = Duration::from_secs(60);

/// Longest life of a token.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a whole number and `ms`, `s`, `m` or `h`, at most 48 hours.
pub(crate) fn any(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return Err("a span is a whole number and ms, s, m or h, as in 60s".into()),
    };
    let span = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).map(Duration::from_millis);
    span.filter(|span| *span <= LONGEST).ok_or_else(|| "a span is a whole number and a unit, at most 48h".into())
}

/// As [`any`], but not zero.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    any(text).and_then(|span| if span.is_zero() { Err("it is zero".into()) } else { Ok(span) })
}

/// The life of a token: whole seconds, at least one and at most 24 hours.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    let life = positive(text)?;
    if life.subsec_nanos() != 0 || life > LIFE_MAX {
        return Err("a life is a whole number of seconds, at most 24h".into());
    }
    Ok(life)
}

/// Takes the life of a token.
///
/// Fails for one that ends before a broker would refresh it, unless `fast_lives`.
pub(crate) fn long_enough(life: Duration, fast_lives: bool) -> Result<(), String> {
    if life < LIFE_MIN && !fast_lives {
        return Err(format!("a life under {} s needs --fast-lives", LIFE_MIN.as_secs()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_a_bound() {
        for (text, ms) in [("0s", 0), ("200ms", 200), ("60s", 60_000), ("5m", 300_000), ("48h", 172_800_000)] {
            assert_eq!(any(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "60", "-1s", "+1s", "1.5h", " 1s", "1 s", "49h", "1d", "99999999999999999999h", "1µs"] {
            assert!(any(text).is_err(), "{text:?} passed");
        }
        assert!(positive("0s").is_err() && positive("1ms").is_ok());
    }

    #[test]
    fn lives_are_whole_seconds_up_to_a_day_and_short_ones_need_the_flag() {
        for (text, seconds) in [("1s", 1), ("60s", 60), ("1000ms", 1), ("5m", 300), ("24h", 86_400)] {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["0s", "500ms", "1500ms", "25h", "86401s", "", "x"] {
            assert!(life(text).is_err(), "{text:?} passed");
        }
        let short = Duration::from_secs(59);
        assert!(long_enough(short, false).is_err() && long_enough(short, true).is_ok());
        assert!(long_enough(LIFE_MIN, false).is_ok());
    }
}
