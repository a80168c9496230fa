//! How the state looks to a person: which leases need one, since when, and texts that are safe to show.
//!
//! Pure. Called by the tray and by the notifications, which must agree.

use crate::types::Overview;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keyward_api::{ApprovalKind, ApprovalMsg, DeliveryMode, LeaseMsg, Outlook, RunMsg, VaultState};
use keyward_diag::plain;

/// A lease that ends by itself is near its end from so long before on, or from the last tenth of its life if that is later.
const NEAR: SignedDuration = SignedDuration::from_mins(5);

/// The leases that live, with their runs.
pub(crate) fn live(overview: &Overview) -> impl Iterator<Item = (&RunMsg, &LeaseMsg)> {
    let of_run = |run| std::iter::repeat(run);
    overview
        .runs
        .iter()
        .flat_map(move |run: &RunMsg| of_run(run).zip(&run.leases))
        .filter(|(_, lease)| matches!(lease.state.as_str(), "live" | "renew_failed" | "lapsed"))
}

/// The vault is open: the keys are in memory.
pub(crate) fn is_open(overview: &Overview) -> bool {
    overview.status.vault.state == VaultState::Unlocked
}

/// Renewal of the lease fails, or came too late.
pub(crate) fn fails(lease: &LeaseMsg) -> bool {
    matches!(lease.outlook.kind, Outlook::Fails | Outlook::Lapsed)
}

/// From when on the lease is near its end; `None` for one that does not end by itself.
pub(crate) fn near_from(lease: &LeaseMsg) -> Option<Timestamp> {
    if lease.outlook.kind != Outlook::Ends {
        return None;
    }
    let end = time(&lease.outlook.at)?;
    let life = time(&lease.received_at).map_or(SignedDuration::ZERO, |begin| end.duration_since(begin));
    end.checked_sub(NEAR.min(life / 10).max(SignedDuration::ZERO)).ok()
}

/// The next time after `now` at which the tray or a notification changes although nothing happens in the broker: the one
/// timer that is needed. `None` while nothing is due.
pub fn next_due(overview: Option<&Overview>, now: Timestamp) -> Option<Timestamp> {
    live(overview?).filter_map(|(_, lease)| near_from(lease)).filter(|at| *at > now).min()
}

/// When the app loses what the lease gives it: the limit where it is renewed until then.
pub(crate) fn end(lease: &LeaseMsg) -> Option<Timestamp> {
    time(if lease.outlook.kind == Outlook::Renews { &lease.limit_at } else { &lease.outlook.at })
}

/// What the lease gave stays with the app when it ends: the lease reaches its limit, and the variable holds what it held.
pub(crate) fn keeps(lease: &LeaseMsg) -> bool {
    lease.delivery == DeliveryMode::Env && lease.outlook.kind == Outlook::Ends && end(lease) >= time(&lease.limit_at)
}

/// A time of the LocalAPI.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The time of day, with the day where that is another one.
pub(crate) fn clock(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let form = if at.date() == now.date() { "%H:%M" } else { "%-d %b %H:%M" };
    at.strftime(form).to_string()
}

/// A text that others chose, for one line of at most `limit` characters: what moves the cursor, turns the line or cannot be
/// seen is escaped.
pub(crate) fn name(text: &str, limit: usize) -> String {
    let unseen = |c: char| {
        matches!(
            c,
            '\u{61c}' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
    };
    let (mut shown, mut length) = (String::new(), 0);
    for c in text.chars() {
        let piece = if unseen(c) { c.escape_unicode().to_string() } else { plain(c.encode_utf8(&mut [0; 4]), 1) };
        length += piece.chars().count();
        if length > limit {
            shown.push('…');
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// The app of a run as a person knows it: the launcher, else the program.
pub(crate) fn app(run: &RunMsg) -> String {
    name(run.launcher.as_deref().unwrap_or(&run.app), 40)
}

/// Who wants what, in one line: `codex wants pg-prod`. The question itself is on the card.
pub(crate) fn asks(approval: &ApprovalMsg) -> String {
    let who = name(approval.launcher.as_deref().unwrap_or(&approval.app), 40);
    let wanted: Vec<_> = approval.wanted.iter().map(|w| name(&w.profile, 40)).collect();
    let wants = match approval.kind {
        ApprovalKind::Run | ApprovalKind::Token => "wants",
        ApprovalKind::Fence => "wants more of",
        ApprovalKind::Extend => "wants to keep",
    };
    name(&format!("{who} {wants} {}", wanted.join(", ")), 120)
}

/// The last part of a folder's path.
pub(crate) fn folder(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(path)
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::{Value, json};

    /// The moment at which the states of the tests are looked at.
    pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";

    pub(crate) fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// A time so many minutes after [`NOW`].
    pub(crate) fn at(minutes: i64) -> String {
        (now() + SignedDuration::from_mins(minutes)).to_string()
    }

    /// A lease that was received an hour ago, whose outlook is `kind` in so many minutes, and whose limit is in ten hours.
    pub(crate) fn lease(id: &str, profile: &str, kind: &str, minutes: i64) -> Value {
        let state = match kind {
            "fails" => "renew_failed",
            "lapsed" => "lapsed",
            _ => "live",
        };
        json!({
            "lease": id, "profile": profile, "delivery": "file", "state": state, "issued_at": at(-60),
            "expires_at": at(minutes), "renewals": 0, "uses": null, "received_at": at(-60), "limit_at": at(600),
            "outlook": {"kind": kind, "at": at(minutes), "why": "a variable cannot be renewed"},
        })
    }

    pub(crate) fn run(id: &str, app: &str, leases: Vec<Value>) -> Value {
        json!({
            "run": id, "pid": 7, "app": app, "app_verified": true, "project": "/home/a/shop", "started_at": at(-60),
            "leases": leases,
        })
    }

    /// A request that waits, of `app` for `profile`.
    pub(crate) fn approval(id: &str, app: &str, profile: &str) -> ApprovalMsg {
        let document = json!({
            "id": id, "kind": "run", "state": "open", "digest": "0", "question": "?", "app": app, "program": "/bin/x",
            "verified": false, "chain": [], "project": "/home/a/shop", "said": [], "merged": 1, "asked_at": NOW,
            "changed_at": NOW, "until": at(2), "choices": ["once"], "confirm": false,
            "wanted": [{
                "profile": profile, "issuer": "static", "reach": [], "delivery": "env", "gives_away": "", "ttl_s": 60,
                "confirm": false, "allowed_before": 0, "denied_before": 0,
            }],
        });
        serde_json::from_value(document).unwrap()
    }

    /// A state with an open vault and one profile and launcher of each name.
    pub(crate) fn open(runs: Vec<Value>, names: &[&str]) -> Overview {
        let leases: usize = runs.iter().map(|r| r["leases"].as_array().map_or(0, Vec::len)).sum();
        let of = |name: &&str| {
            let live = runs.iter().flat_map(|r| r["leases"].as_array().unwrap()).filter(|l| l["profile"] == **name);
            json!({
                "name": name, "issuer": "command", "delivery": "file", "variables": ["T"], "max_ttl_s": 3600,
                "leases": live.count(), "toml": "", "created_at": NOW, "updated_at": NOW,
            })
        };
        let launcher = |name: &&str| {
            json!({
                "name": name, "command": ["x"], "profiles": [name], "terminal": true, "created_at": NOW, "updated_at": NOW,
            })
        };
        let document = json!({
            "now": NOW,
            "status": {
                "version": "1", "runs": runs.len(), "leases": leases, "home": "/x",
                "vault": {"state": "unlocked", "auto_locked": false, "audit_broken": false},
            },
            "approvals": [],
            "profiles": names.iter().map(of).collect::<Vec<_>>(),
            "launchers": names.iter().map(launcher).collect::<Vec<_>>(),
            "runs": runs,
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn the_one_timer_is_the_next_lease_that_comes_near_its_end() {
        let of = |leases: Vec<Value>| next_due(Some(&open(vec![run("r", "a", leases)], &[])), now());
        let in_minutes = |m| Some(at(m).parse::<Timestamp>().unwrap());
        assert_eq!(next_due(None, now()), None);
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![lease("1", "p", "renews", 3), lease("2", "p", "fails", 3)]), None);
        assert_eq!(of(vec![lease("1", "p", "ends", 60), lease("2", "p", "ends", 30)]), in_minutes(25));
        assert_eq!(of(vec![lease("1", "p", "ends", 3), lease("2", "p", "ends", 30)]), in_minutes(25), "3 min is near");
        let mut short = lease("1", "p", "ends", 10);
        short["received_at"] = json!(at(0));
        assert_eq!(of(vec![short]), in_minutes(9), "the last tenth of ten minutes");
        let mut locked = open(vec![run("r", "a", vec![lease("1", "p", "ends", 60)])], &[]);
        locked.status.vault.state = VaultState::Locked;
        assert_eq!(next_due(Some(&locked), now()), in_minutes(55), "what the auto-lock leaves alive ends all the same");
    }

    #[test]
    fn hostile_times_and_names_do_no_harm() {
        let mut odd = lease("1", "p", "ends", 1);
        odd["outlook"]["at"] = json!("-009999-01-02T00:00:00Z");
        odd["received_at"] = json!("9999-12-30T22:00:00Z");
        let odd = open(vec![run("r", "a", vec![odd])], &[]);
        assert_eq!(next_due(Some(&odd), now()), None);
        for (text, want) in [
            ("a\nb\u{1b}[2J", "a\\u{a}b\\u{1b}[2J"),
            ("\u{202e}gnp\u{2066}", "\\u{202e}gnp\\u{2066}"),
            ("a\u{200b}b\u{61c}\u{feff}", "a\\u{200b}b\\u{61c}\\u{feff}"),
            ("Größe ✓", "Größe ✓"),
        ] {
            assert_eq!(name(text, 40), want);
        }
        assert_eq!(name(&"x".repeat(100_000), 5), "xxxxx…");
        assert_eq!((folder("/a/b/"), folder("/"), folder("")), ("b", "/", ""));
    }

    #[test]
    fn who_wants_what_is_one_short_line_whatever_it_holds() {
        let mut asked = approval("A", "codex", "pg");
        assert_eq!(asks(&asked), "codex wants pg");
        asked.launcher = Some("Codex in shop".into());
        asked.kind = ApprovalKind::Fence;
        assert_eq!(asks(&asked), "Codex in shop wants more of pg");
        asked.launcher = Some("x\n\u{202e}".repeat(100));
        asked.wanted = vec![asked.wanted[0].clone(); 200];
        let line = asks(&asked);
        assert!(line.chars().count() <= 121 && !line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line}");
    }

    #[test]
    fn a_time_of_another_day_names_it() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let of = |minutes| clock(at(minutes).parse().unwrap(), now(), &zone);
        assert_eq!(
            (of(5).as_str(), of(600).as_str(), of(-15 * 60).as_str()),
            ("14:05", "22 Nov 00:00", "20 Nov 23:00")
        );
    }
}
