//! Times as people write and read them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Reads a length of time: a number with `s`, `m`, `h` or `d`, or several of them (`1h30m`). Gives seconds, at least one.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let wrong = || "write a number with s, m, h or d, such as 30m or 1h30m".to_owned();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let unit = match tail.as_bytes().first() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            Some(_) | None => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(unit).and_then(|s| total.checked_add(s)).ok_or_else(wrong)?;
        rest = &tail[1..];
    }
    match (total, text) {
        (0, "") => Err(wrong()),
        (0, _) => Err("the shortest is 1s".to_owned()),
        _ => Ok(total),
    }
}

/// As [`duration`], for what a grant can hold: 60 seconds to a day, which is the ceiling of the broker.
pub(crate) fn grant_life(text: &str) -> Result<u64, String> {
    match duration(text)? {
        ..60 => Err("the shortest is 1m".to_owned()),
        seconds @ 60..=86_400 => Ok(seconds),
        _ => Err("the longest is 24h".to_owned()),
    }
}

/// Reads a moment: RFC 3339, a date (its begin in UTC), or how long ago (`2h`). Gives RFC 3339 in UTC.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    moment_at(text, Timestamp::now())
}

fn moment_at(text: &str, now: Timestamp) -> Result<String, String> {
    let wrong = || "write a time such as 2026-11-21T08:00:00Z or 2026-11-21, or how long ago such as 2h".to_owned();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.to_string());
    }
    if let Ok(date) = text.parse::<Date>()
        && text.len() == 10
    {
        return date.to_zoned(TimeZone::UTC).map(|z| z.timestamp().to_string()).map_err(|_| wrong());
    }
    let ago = duration(text).ok().and_then(|s| i64::try_from(s).ok()).ok_or_else(wrong)?;
    now.checked_sub(SignedDuration::from_secs(ago)).map(|at| at.to_string()).map_err(|_| wrong())
}

/// `12 min`, `ended`; the text itself when it is no time.
pub(crate) fn left(at: &str) -> String {
    match seconds_from_now(at) {
        None => at.to_owned(),
        Some(..=0) => "ended".to_owned(),
        Some(s) => words(s.unsigned_abs()),
    }
}

/// `3 min ago`; the text itself when it is no time.
pub(crate) fn ago(at: &str) -> String {
    match seconds_from_now(at) {
        None => at.to_owned(),
        Some(s) => format!("{} ago", words(s.min(0).unsigned_abs())),
    }
}

/// `2026-11-21 08:00:00`, in UTC; the text itself when it is no time.
pub(crate) fn clock(at: &str) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A length of time in its largest fitting unit.
pub(crate) fn words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn seconds_from_now(at: &str) -> Option<i64> {
    Some(at.parse::<Timestamp>().ok()?.as_second() - Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_bound() {
        for (text, seconds) in [("30m", 1_800), ("1h30m", 5_400), ("90s", 90), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "30", "m", "-5m", "1.5h", "0s", "5 m", "5min", "99999999999999999999s", "999999999999999999d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(
            duration("0s").is_err_and(|why| why.contains("1s")) && duration("").is_err_and(|why| why.contains("30m"))
        );
    }

    #[test]
    fn a_grant_holds_for_a_minute_to_a_day() {
        for (text, seconds) in [("60s", 60), ("1m", 60), ("24h", 86_400), ("1d", 86_400), ("23h59m", 86_340)] {
            assert_eq!(grant_life(text), Ok(seconds), "{text}");
        }
        for (text, bound) in
            [("59s", "1m"), ("0s", "1s"), ("24h1s", "24h"), ("48h", "24h"), ("2d", "24h"), ("soon", "30m")]
        {
            assert!(grant_life(text).is_err_and(|why| why.contains(bound)), "{text}");
        }
    }

    #[test]
    fn moments_are_exact_dates_or_ago() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2h", "2026-11-21T08:00:00Z"),
            ("7d", "2026-11-14T10:00:00Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2026-11-21T09:00:00+01:00", "2026-11-21T08:00:00Z"),
        ] {
            assert_eq!(moment_at(text, now).unwrap(), at);
        }
        for text in ["", "yesterday", "2026-13-01", "11-21", "9999999999d"] {
            assert!(moment_at(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_read_well() {
        let told: Vec<_> = [59, 119, 120, 7_199, 7_200, 172_800].map(words).into();
        assert_eq!(told, ["59 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
        assert_eq!((left("1970-01-01T00:00:00Z").as_str(), left("soon").as_str()), ("ended", "soon"));
        assert!(left("2999-01-01T00:00:00Z").ends_with(" d"));
        assert_eq!(clock("2026-11-21T08:00:00.123456Z"), "2026-11-21 08:00:00");
    }
}
