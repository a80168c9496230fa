//! Notifications as plain data: what to show and what to withdraw, from one state to the next.
//!
//! Pure. Each thing is told once: a lease that is near its end, a renewal that fails, a log that does not match. It is
//! withdrawn when it is over, and told again if it comes back. No text holds a secret. Called by the host, which shows them
//! and hands answers back as [`FromBus`].

use crate::bus::FromBus;
use crate::look::{app, asks, clock, end, fails, folder, is_open, keeps, live, name, near_from};
use crate::types::{NotificationSettings, Overview, Screen};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keyward_api::{ApprovalMsg, LeaseMsg, Outlook, RunMsg};
use std::collections::BTreeSet;

/// Longest name in a notification, in characters.
const NAME_MAX: usize = 40;
/// Most requests that are told at a time; the tray and the window show the rest.
const APPROVALS_MAX: usize = 4;
/// Longest reason, in characters.
const WHY_MAX: usize = 200;

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// A request waits for the person.
    ApprovalNeeded,
    /// A credential in use ends soon and is not renewed by itself.
    ExpiresSoon,
    /// A renewal failed.
    RefreshFailed,
    /// The log does not verify.
    ChainBroken,
}

/// A button of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeAction {
    /// Its key on the bus: `renew`, `open`.
    pub key: &'static str,
    /// Its text.
    pub label: &'static str,
    /// What it asks for.
    pub act: FromBus,
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Names it as long as it stands: one that is shown again under the same id replaces the old one.
    pub id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// One line of plain text.
    pub title: String,
    /// The rest, with `&`, `<` and `>` escaped, since servers read markup in it.
    pub body: String,
    /// Its buttons, the usual one first. A click on the notification itself is the last of them, which opens the window.
    pub actions: Vec<NoticeAction>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeChange {
    /// Show it.
    Show(Notice),
    /// Take the one of this id away.
    Withdraw(String),
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub struct Notices {
    told: BTreeSet<String>,
}

impl Notices {
    /// Nothing was told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has to be shown and withdrawn for a state; `None`, a broker that does not answer, changes nothing.
    pub fn plan(
        &mut self,
        overview: Option<&Overview>,
        settings: NotificationSettings,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Vec<NoticeChange> {
        let Some(overview) = overview else { return Vec::new() };
        let wanted = wanted(overview, settings, now, zone);
        let keep = |id: &String| {
            // While the vault is closed, nobody can tell whether the log matches.
            wanted.iter().any(|n| n.id == *id) || (id == CHAIN && settings.chain_broken && !is_open(overview))
        };
        let over: Vec<_> = self.told.iter().filter(|id| !keep(id)).cloned().collect();
        let mut changes = Vec::new();
        for id in over {
            self.told.remove(&id);
            changes.push(NoticeChange::Withdraw(id));
        }
        for notice in wanted {
            if self.told.insert(notice.id.clone()) {
                changes.push(NoticeChange::Show(notice));
            }
        }
        changes
    }
}

const CHAIN: &str = "chain-broken";

fn wanted(overview: &Overview, settings: NotificationSettings, now: Timestamp, zone: &TimeZone) -> Vec<Notice> {
    let mut out = Vec::new();
    if settings.approval_needed {
        out.extend(overview.approvals.iter().take(APPROVALS_MAX).map(approval_needed));
    }
    if settings.chain_broken && overview.status.vault.audit_broken {
        out.push(Notice {
            id: CHAIN.to_owned(),
            kind: NoticeKind::ChainBroken,
            title: "The audit log does not match".to_owned(),
            body: "It is not what was recorded before. Nothing is delivered until you have looked at it.".to_owned(),
            actions: vec![open(Screen::Audit)],
        });
    }
    if settings.refresh_failed {
        // Leases of one profile fail together: one notification tells of the one that ends first.
        let mut failing: Vec<_> = live(overview).filter(|(_, lease)| fails(lease)).collect();
        failing.sort_by_key(|(_, lease)| (lease.profile.clone(), end(lease)));
        failing.dedup_by_key(|(_, lease)| lease.profile.clone());
        out.extend(failing.into_iter().map(|(run, lease)| refresh_failed(run, lease, now, zone)));
    }
    if settings.expires_soon {
        let near = live(overview).filter(|(_, lease)| near_from(lease).is_some_and(|from| from <= now));
        out.extend(near.map(|(run, lease)| expires_soon(overview, run, lease, now, zone)));
    }
    out
}

/// Its one button opens the card: an answer on the bus proves no person.
fn approval_needed(approval: &ApprovalMsg) -> Notice {
    let place = name(folder(&approval.project), NAME_MAX);
    let times = if approval.merged > 1 { format!(" It was asked {} times.", approval.merged) } else { String::new() };
    Notice {
        id: format!("approval/{}", approval.id),
        kind: NoticeKind::ApprovalNeeded,
        title: asks(approval),
        body: escaped(&format!("In {place}. Nothing is given before you have answered in Keyward's window.{times}")),
        actions: vec![NoticeAction { key: "open", label: "Look at it", act: FromBus::Card(approval.id.clone()) }],
    }
}

fn refresh_failed(run: &RunMsg, lease: &LeaseMsg, now: Timestamp, zone: &TimeZone) -> Notice {
    let profile = name(&lease.profile, NAME_MAX);
    let what = match (lease.outlook.kind, end(lease)) {
        (Outlook::Fails, Some(at)) => format!("{} loses it at {}.", app(run), clock(at, now, zone)),
        _ => format!("{} is without it.", app(run)),
    };
    Notice {
        id: format!("refresh-failed/{}", lease.profile),
        kind: NoticeKind::RefreshFailed,
        title: format!("{profile} could not be renewed"),
        body: escaped(&format!("{what} {}", sentence(&lease.outlook.why))),
        actions: vec![
            NoticeAction { key: "renew", label: "Try again", act: FromBus::Renew(lease.profile.clone()) },
            open(Screen::Now),
        ],
    }
}

fn expires_soon(overview: &Overview, run: &RunMsg, lease: &LeaseMsg, now: Timestamp, zone: &TimeZone) -> Notice {
    let at = end(lease).map(|at| clock(at, now, zone)).unwrap_or_default();
    let mut actions = vec![open(Screen::Now)];
    // A stored secret is the same however often it is fetched.
    let stored = overview.profiles.iter().any(|p| p.name == lease.profile && p.issuer == "static");
    let profile = name(&lease.profile, NAME_MAX);
    let (title, mut body) = if keeps(lease) {
        let kept = format!("{} keeps what is in its variable.", app(run));
        (format!("The lease of {profile} ends at {at}"), format!("{} {kept}", sentence(&lease.outlook.why)))
    } else {
        (format!("{} loses {profile} at {at}", app(run)), sentence(&lease.outlook.why))
    };
    if !stored {
        body.push_str(" Renew makes a fresh credential for its next start.");
        actions.insert(0, NoticeAction { key: "renew", label: "Renew", act: FromBus::Renew(lease.profile.clone()) });
    }
    Notice {
        id: format!("expires-soon/{}", lease.lease),
        kind: NoticeKind::ExpiresSoon,
        title,
        body: escaped(&body),
        actions,
    }
}

fn open(screen: Screen) -> NoticeAction {
    NoticeAction { key: "open", label: "Open", act: FromBus::Open(screen) }
}

/// The rest of a sentence as one of its own.
fn sentence(rest: &str) -> String {
    let text = name(rest.trim().trim_end_matches('.'), WHY_MAX);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).chain(['.']).collect()).unwrap_or_default()
}

/// For the body of a notification (Desktop Notifications Specification, "Markup").
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::look::tests::{approval, lease, now, open as state, run};
    use keyward_api::VaultState;
    use serde_json::{Value, json};

    const ALL: NotificationSettings =
        NotificationSettings { approval_needed: true, expires_soon: true, refresh_failed: true, chain_broken: true };

    fn with(leases: Vec<Value>) -> Overview {
        state(vec![run("r", "codex", leases)], &["p", "q"])
    }

    /// The changes as `+id` and `-id`.
    fn plan(notices: &mut Notices, overview: Option<&Overview>, settings: NotificationSettings) -> Vec<String> {
        let changes = notices.plan(overview, settings, now(), &TimeZone::UTC).into_iter();
        let line = |change| match change {
            NoticeChange::Show(notice) => format!("+{}", notice.id),
            NoticeChange::Withdraw(id) => format!("-{id}"),
        };
        changes.map(line).collect()
    }

    fn only(overview: &Overview) -> Notice {
        let changes = Notices::new().plan(Some(overview), ALL, now(), &TimeZone::UTC);
        match <[NoticeChange; 1]>::try_from(changes) {
            Ok([NoticeChange::Show(notice)]) => notice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_thing_is_told_once_and_withdrawn_when_it_is_over() {
        let mut broken = with(vec![]);
        broken.status.vault.audit_broken = true;
        let mut locked = with(vec![]);
        locked.status.vault.state = VaultState::Locked;
        let off = NotificationSettings { refresh_failed: false, ..ALL };
        let near = || with(vec![lease("1", "p", "ends", 4)]);
        let mut auto_locked = near();
        auto_locked.status.vault.state = VaultState::Locked;
        let failing =
            || with(vec![lease("1", "p", "fails", 4), lease("2", "p", "fails", 9), lease("3", "q", "lapsed", 0)]);
        let steps: Vec<(Option<Overview>, NotificationSettings, &[&str])> = vec![
            (Some(with(vec![])), ALL, &[]),
            (Some(with(vec![lease("1", "p", "ends", 30)])), ALL, &[]),
            (Some(near()), ALL, &["+expires-soon/1"]),
            (Some(near()), ALL, &[]),
            (None, ALL, &[]),
            (Some(near()), ALL, &[]),
            (Some(failing()), ALL, &["-expires-soon/1", "+refresh-failed/p", "+refresh-failed/q"]),
            (Some(with(vec![lease("1", "p", "renews", 60)])), ALL, &["-refresh-failed/p", "-refresh-failed/q"]),
            (Some(failing()), off, &[]),
            (Some(failing()), ALL, &["+refresh-failed/p", "+refresh-failed/q"]),
            (Some(failing()), off, &["-refresh-failed/p", "-refresh-failed/q"]),
            (Some(broken.clone()), ALL, &["+chain-broken"]),
            (Some(locked), ALL, &[]),
            (Some(broken), ALL, &[]),
            (Some(with(vec![])), ALL, &["-chain-broken"]),
            (Some(auto_locked), ALL, &["+expires-soon/1"]),
            (Some(with(vec![])), ALL, &["-expires-soon/1"]),
        ];
        let mut notices = Notices::new();
        for (n, (overview, settings, want)) in steps.into_iter().enumerate() {
            assert_eq!(plan(&mut notices, overview.as_ref(), settings), want, "step {n}");
        }
    }

    #[test]
    fn the_words_and_the_buttons() {
        let near = only(&with(vec![lease("1", "p", "ends", 4)]));
        assert_eq!((near.kind, near.title.as_str()), (NoticeKind::ExpiresSoon, "codex loses p at 12:04"));
        assert_eq!(near.body, "A variable cannot be renewed. Renew makes a fresh credential for its next start.");
        let keys = |n: &Notice| n.actions.iter().map(|a| (a.key, a.act.clone())).collect::<Vec<_>>();
        let renew = ("renew", FromBus::Renew("p".into()));
        assert_eq!(keys(&near), [renew.clone(), ("open", FromBus::Open(Screen::Now))]);

        let mut stored = with(vec![lease("1", "p", "ends", 4)]);
        stored.profiles[0].issuer = "static".into();
        assert_eq!(keys(&only(&stored)), [("open", FromBus::Open(Screen::Now))], "nothing would be fresh");

        let mut limited = lease("1", "p", "ends", 4);
        (limited["delivery"], limited["limit_at"]) = (json!("env"), limited["outlook"]["at"].clone());
        limited["outlook"]["why"] = json!("the lease reaches its limit of 1 h");
        let kept = only(&with(vec![limited]));
        assert_eq!(kept.title, "The lease of p ends at 12:04");
        assert!(kept.body.starts_with("The lease reaches its limit of 1 h. codex keeps what is in its variable."));

        let mut failing = lease("1", "p", "fails", 4);
        failing["outlook"]["why"] = json!("the issuer refuses: <b>invalid_grant</b> & more.");
        let failed = only(&with(vec![failing]));
        assert_eq!((failed.kind, failed.title.as_str()), (NoticeKind::RefreshFailed, "p could not be renewed"));
        assert_eq!(
            failed.body,
            "codex loses it at 12:04. The issuer refuses: &lt;b&gt;invalid_grant&lt;/b&gt; &amp; more."
        );
        assert_eq!(keys(&failed), [renew, ("open", FromBus::Open(Screen::Now))]);

        let mut broken = with(vec![]);
        broken.status.vault.audit_broken = true;
        assert_eq!(keys(&only(&broken)), [("open", FromBus::Open(Screen::Audit))]);
    }

    #[test]
    fn a_request_is_told_with_one_button_that_opens_its_window() {
        let mut waiting = with(vec![]);
        waiting.approvals = vec![approval("A1", "<b>codex", "pg")];
        let notice = only(&waiting);
        assert_eq!((notice.kind, notice.title.as_str()), (NoticeKind::ApprovalNeeded, "<b>codex wants pg"));
        assert!(notice.body.starts_with("In shop. Nothing is given"), "{}", notice.body);
        let acts: Vec<_> = notice.actions.iter().map(|a| &a.act).collect();
        assert_eq!(acts, [&FromBus::Card("A1".into())]);
        let mut notices = Notices::new();
        assert_eq!(plan(&mut notices, Some(&waiting), ALL), ["+approval/A1"]);
        assert_eq!(plan(&mut notices, Some(&waiting), ALL), [""; 0]);
        let off = NotificationSettings { approval_needed: false, ..ALL };
        assert_eq!(plan(&mut notices, Some(&waiting), off), ["-approval/A1"]);
        assert_eq!(plan(&mut notices, Some(&waiting), ALL), ["+approval/A1"]);
        assert_eq!(plan(&mut notices, Some(&with(vec![])), ALL), ["-approval/A1"]);
        waiting.approvals = (0..100).map(|n| approval(&format!("N{n}"), "a", "p")).collect();
        assert_eq!(plan(&mut notices, Some(&waiting), ALL).len(), APPROVALS_MAX, "a flood is not shown as one");
        waiting.approvals = vec![approval("E", "x\n\u{202e}<i>", &"&".repeat(500))];
        waiting.approvals[0].project = "/<u>&\n".to_owned();
        let notice = only(&waiting);
        let all = format!("{}{}", notice.title, notice.body);
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}') && !notice.body.contains('<'), "{all}");
    }

    #[test]
    fn hostile_names_and_reasons_are_bounded_and_escaped() {
        let evil = "<img src=x>\n\u{202e}&";
        let mut failing = lease("1", &evil.repeat(50), "fails", 4);
        failing["outlook"]["why"] = json!(evil.repeat(500));
        let notice = only(&state(vec![run("r", evil, vec![failing])], &[]));
        let all = format!("{}{}", notice.title, notice.body);
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all}");
        assert!(!notice.body.contains(['<', '>']) && all.chars().count() < 1_500, "{all}");
    }
}
