//! Two clocks, both as arguments: one that runs through suspend and never jumps, and the wall's.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A moment on the clock that counts from boot and runs through suspend (`CLOCK_BOOTTIME`). Lifetimes are counted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub Duration);

impl Boot {
    /// The moment `by` later.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Time from `earlier` to this moment; zero when it lies after.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment of the wall clock, in microseconds since 1970 UTC. For people and for the log; never decides within a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub i64);

impl Wall {
    /// RFC 3339 in UTC, to the second.
    pub fn to_rfc3339(self) -> String {
        Timestamp::from_microsecond(self.0)
            .and_then(|t| t.round(jiff::Unit::Second))
            .map_or_else(|_| "out of range".to_owned(), |t| t.to_string())
    }

    /// The moment `by` later.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Decides.
    pub boot: Boot,
    /// Is shown.
    pub wall: Wall,
}

impl Now {
    /// What the wall clock will show at `at`, if nobody moves it.
    pub fn wall_at(self, at: Boot) -> Wall {
        if at >= self.boot {
            self.wall.after(at.since(self.boot))
        } else {
            Wall(self.wall.0.saturating_sub(i64::try_from(self.boot.since(at).as_micros()).unwrap_or(i64::MAX)))
        }
    }
}

/// Reads a duration as people write it: `90s`, `15m`, `1h30m`, `2d`. Whole seconds, above zero, at most 366 days.
///
/// # Errors
/// One sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is not a duration such as 90s, 15m or 1h", keyward_diag::plain(text, 40));
    // The library reads more forms than we want to document.
    if !text.bytes().all(|b| b.is_ascii_digit() || b"smhd".contains(&b)) || text.ends_with(|c: char| c.is_ascii_digit())
    {
        return Err(wrong());
    }
    let days = text.split_once('d').map(|(n, rest)| (n.parse::<i64>(), rest));
    let (extra, rest) = match days {
        Some((Ok(n), rest)) if (0..=366).contains(&n) => (n * 86_400, rest),
        Some(_) => return Err(wrong()),
        None => (0, text),
    };
    let base =
        if rest.is_empty() { SignedDuration::ZERO } else { rest.parse::<SignedDuration>().map_err(|_| wrong())? };
    let seconds = base.as_secs().saturating_add(extra);
    if base.subsec_nanos() != 0 || !(1..=366 * 86_400).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

/// Writes a duration the way [`parse_duration`] reads it, without zero parts: `1h30m`, `45s`. Days begin at two, since a day
/// of a lease is 24 hours everywhere else.
pub fn render_duration(duration: Duration) -> String {
    let s = duration.as_secs();
    let days = if s < 2 * 86_400 { 0 } else { s / 86_400 };
    let parts = [(days, 'd'), (s / 3_600 - days * 24, 'h'), (s / 60 % 60, 'm'), (s % 60, 's')];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h30m", 5_400), ("2d", 172_800), ("1d2h", 93_600)] {
            let read = parse_duration(text);
            assert_eq!(read, Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(parse_duration(&render_duration(Duration::from_secs(seconds))), read);
        }
        assert_eq!(
            [86_400, 93_600, 172_799].map(|s| render_duration(Duration::from_secs(s))),
            ["24h", "26h", "47h59m59s"]
        );
        assert_eq!(render_duration(Duration::from_secs(180_000)), "2d2h");
        for text in ["", "5", "s", "-5s", "0s", "1.5s", "5 minutes", "400d", "9999999999h", "1h\n"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_wall_is_derived_from_the_boot_clock() {
        let now = Now { boot: Boot(Duration::from_secs(100)), wall: Wall(1_000_000_000_000_000) };
        assert_eq!(now.wall_at(Boot(Duration::from_secs(160))).to_rfc3339(), "2001-09-09T01:47:40Z");
        assert_eq!(now.wall_at(Boot(Duration::from_secs(40))).to_rfc3339(), "2001-09-09T01:45:40Z");
    }
}
