//! The tray as plain data: glyph, tooltip and menu.
//!
//! Pure, made anew whenever the state changes. Times in it are times of day and not countdowns, so that nothing has to be
//! redrawn while nothing happens; the glyph alone changes at [`crate::next_due`]. Called by the host, which shows it.

use crate::bus::FromBus;
use crate::look::{app, asks, clock, end, fails, folder, is_open, keeps, live, name, near_from};
use crate::types::{Overview, Screen};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keyward_api::{Outlook, RunMsg, VaultState};

/// Longest name in the menu, in characters.
const NAME_MAX: usize = 40;
/// Most entries of one submenu; the window shows the rest.
const ENTRIES_MAX: usize = 30;

/// What the icon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Glyph {
    /// All is well.
    Good,
    /// A credential in use ends soon and is not renewed by itself.
    Soon,
    /// Something needs the person.
    Waiting,
    /// The vault is closed or absent, or no broker runs.
    Locked,
}

/// The tray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tray {
    /// The icon.
    pub glyph: Glyph,
    /// One line about the state.
    pub tooltip: String,
    /// The menu.
    pub menu: Vec<TrayItem>,
}

/// A part of the menu. Labels are bounded, escaped, and have `_` doubled, since a single one marks a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrayItem {
    /// A line between two groups.
    Separator,
    /// Something to click.
    Entry {
        /// Names it; the same thing has the same id in every menu.
        id: String,
        /// Its text.
        label: String,
        /// What a click asks for; an entry without is shown disabled.
        act: Option<FromBus>,
    },
    /// A submenu.
    Menu {
        /// As of an entry.
        id: String,
        /// Its text.
        label: String,
        /// What is in it; never empty.
        items: Vec<TrayItem>,
    },
}

impl TrayItem {
    /// What a click on the entry of this id asks for; searches submenus. `None` for an unknown id, as an old menu may send.
    pub fn find<'a>(items: &'a [Self], id: &str) -> Option<&'a FromBus> {
        items.iter().find_map(|item| match item {
            Self::Separator => None,
            Self::Entry { id: own, act, .. } => act.as_ref().filter(|_| own == id),
            Self::Menu { items, .. } => Self::find(items, id),
        })
    }
}

/// The tray for a state; `None` stands for a broker that does not answer.
pub fn tray(overview: Option<&Overview>, now: Timestamp, zone: &TimeZone) -> Tray {
    let (glyph, about) = state(overview, now, zone);
    Tray { glyph, tooltip: format!("Keyward: {about}"), menu: menu(overview, now, zone) }
}

fn state(overview: Option<&Overview>, now: Timestamp, zone: &TimeZone) -> (Glyph, String) {
    let Some(overview) = overview else { return (Glyph::Locked, "not running".to_owned()) };
    match overview.status.vault.state {
        VaultState::Absent => return (Glyph::Locked, "no vault yet".to_owned()),
        VaultState::Locked if overview.status.leases > 0 => {
            return (Glyph::Locked, format!("locked, {} alive", count(overview.runs.len())));
        }
        VaultState::Locked => return (Glyph::Locked, "locked".to_owned()),
        VaultState::Unlocked => {}
    }
    if overview.status.vault.audit_broken {
        return (Glyph::Waiting, "the audit log does not match what was recorded".to_owned());
    }
    match overview.approvals.as_slice() {
        [] => {}
        [approval] => return (Glyph::Waiting, format!("{}, and waits for you", asks(approval))),
        all => return (Glyph::Waiting, format!("{} requests wait for you", all.len())),
    }
    let failing = live(overview).filter(|(_, lease)| fails(lease)).min_by_key(|(_, lease)| end(lease));
    if let Some((run, lease)) = failing {
        let profile = name(&lease.profile, NAME_MAX);
        let text = match (lease.outlook.kind, end(lease)) {
            (Outlook::Fails, Some(at)) => format!("{} loses {profile} at {}", app(run), clock(at, now, zone)),
            _ => format!("{} is without {profile}", app(run)),
        };
        return (Glyph::Waiting, text);
    }
    let near = live(overview).filter(|(_, lease)| near_from(lease).is_some_and(|from| from <= now));
    if let Some((run, lease)) = near.min_by_key(|(_, lease)| end(lease)) {
        let at = end(lease).map(|at| format!(" ends at {}", clock(at, now, zone))).unwrap_or_default();
        let what = if keeps(lease) { "lease of " } else { "" };
        return (Glyph::Soon, format!("{what}{} of {}{at}", name(&lease.profile, NAME_MAX), app(run)));
    }
    match overview.runs.len() {
        0 => (Glyph::Good, "nothing is running".to_owned()),
        runs => (Glyph::Good, format!("{}, all is well", count(runs))),
    }
}

fn menu(overview: Option<&Overview>, now: Timestamp, zone: &TimeZone) -> Vec<TrayItem> {
    let mut items = Vec::new();
    if let Some(overview) = overview.filter(|o| o.status.vault.state != VaultState::Absent) {
        items.extend(approvals(overview));
        if is_open(overview) {
            items.push(launchers(overview));
        } else {
            items.push(entry("unlock", "Unlock…", FromBus::Open(Screen::Now)));
        }
        items.extend(runs(overview, now, zone));
        items.extend(profiles(overview));
        items.push(TrayItem::Separator);
        let vault = &overview.status.vault;
        let lockable = vault.state == VaultState::Unlocked || vault.auto_locked;
        items.push(entry_if(lockable, "lock", "Lock now", FromBus::Lock));
        items.push(entry_if(overview.status.leases > 0, "revoke-all", "Revoke everything", FromBus::RevokeAll));
        items.push(TrayItem::Separator);
    }
    items.push(entry("open", "Open Keyward", FromBus::Open(Screen::Now)));
    items.push(entry("quit", "Quit", FromBus::Quit));
    items
}

/// What waits for the person: each can be looked at or denied. It is allowed in its window alone.
fn approvals(overview: &Overview) -> Vec<TrayItem> {
    let mut items: Vec<_> = overview
        .approvals
        .iter()
        .take(ENTRIES_MAX)
        .map(|approval| {
            let what = format!("{} · {}", asks(approval), name(folder(&approval.project), NAME_MAX));
            let items = vec![
                entry(&format!("card/{}", approval.id), "Look at it…", FromBus::Card(approval.id.clone())),
                entry(&format!("deny/{}", approval.id), "Deny", FromBus::Deny(approval.id.clone())),
            ];
            TrayItem::Menu { id: format!("approval/{}", approval.id), label: label(&what), items }
        })
        .collect();
    if !items.is_empty() {
        items.push(TrayItem::Separator);
    }
    items
}

fn launchers(overview: &Overview) -> TrayItem {
    let mut items: Vec<_> = overview
        .launchers
        .iter()
        .take(ENTRIES_MAX)
        .map(|l| entry(&format!("launch/{}", l.name), &name(&l.name, NAME_MAX), FromBus::Launch(l.name.clone())))
        .collect();
    if items.is_empty() {
        items.push(entry("launchers", "Add a launcher…", FromBus::Open(Screen::Launchers)));
    }
    TrayItem::Menu { id: "launch".to_owned(), label: "Launch".to_owned(), items }
}

fn runs(overview: &Overview, now: Timestamp, zone: &TimeZone) -> Option<TrayItem> {
    let mut runs: Vec<(Option<Timestamp>, &RunMsg)> =
        overview.runs.iter().map(|run| (shortest(overview, run), run)).collect();
    // Those that end first stand first; those that hold nothing, last.
    runs.sort_by_key(|(at, run)| (at.is_none(), *at, run.pid));
    let items: Vec<_> = runs
        .into_iter()
        .take(ENTRIES_MAX)
        .map(|(at, run)| {
            let lapsed = live(overview).any(|(of, l)| of.run == run.run && l.outlook.kind == Outlook::Lapsed);
            let until = match at {
                _ if lapsed => "without a credential".to_owned(),
                Some(at) => format!("until {}", clock(at, now, zone)),
                None => "holds nothing".to_owned(),
            };
            let what = format!("{} · {} · {until}", app(run), name(folder(&run.project), NAME_MAX));
            let items = vec![
                entry(&format!("show/{}", run.run), "Show", FromBus::Open(Screen::Now)),
                entry_if(at.is_some(), &format!("stop/{}", run.run), "Stop", FromBus::StopRun(run.run.clone())),
            ];
            TrayItem::Menu { id: format!("run/{}", run.run), label: label(&what), items }
        })
        .collect();
    (!items.is_empty()).then(|| TrayItem::Menu { id: "runs".to_owned(), label: "Live runs".to_owned(), items })
}

/// When the run loses the first of its credentials.
fn shortest(overview: &Overview, run: &RunMsg) -> Option<Timestamp> {
    live(overview).filter(|(of, _)| of.run == run.run).filter_map(|(_, lease)| end(lease)).min()
}

fn profiles(overview: &Overview) -> Option<TrayItem> {
    let mut all: Vec<_> = overview.profiles.iter().collect();
    // Those in use first, so that a cut takes none of them.
    all.sort_by_key(|p| (p.leases == 0, p.name.clone()));
    let items: Vec<_> = all
        .into_iter()
        .take(ENTRIES_MAX)
        .map(|p| {
            // A stored secret is the same however often it is fetched.
            let live = (p.leases > 0 || p.held.is_some()) && p.issuer != "static";
            let items = vec![
                entry_if(live, &format!("renew/{}", p.name), "Renew", FromBus::Renew(p.name.clone())),
                entry(&format!("copy/{}", p.name), "Copy…", FromBus::AskToCopy(p.name.clone())),
            ];
            TrayItem::Menu { id: format!("profile/{}", p.name), label: label(&name(&p.name, NAME_MAX)), items }
        })
        .collect();
    (!items.is_empty()).then(|| TrayItem::Menu { id: "profiles".to_owned(), label: "Profiles".to_owned(), items })
}

fn entry(id: &str, text: &str, act: FromBus) -> TrayItem {
    entry_if(true, id, text, act)
}

fn entry_if(enabled: bool, id: &str, text: &str, act: FromBus) -> TrayItem {
    TrayItem::Entry { id: id.to_owned(), label: label(text), act: enabled.then_some(act) }
}

/// In a menu a single `_` marks the key of an entry (dbusmenu, `label`), so that each is doubled.
fn label(text: &str) -> String {
    text.replace('_', "__")
}

fn count(runs: usize) -> String {
    if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::tests::{approval, at, lease, now, open, run};
    use serde_json::json;

    fn shown(overview: Option<&Overview>) -> Tray {
        tray(overview, now(), &TimeZone::UTC)
    }

    /// The menu as lines: id, label, and `-` for a disabled entry.
    fn lines(items: &[TrayItem]) -> Vec<String> {
        items
            .iter()
            .flat_map(|item| match item {
                TrayItem::Separator => vec!["---".to_owned()],
                TrayItem::Entry { id, label, act } => {
                    vec![format!("{}{id}: {label}", if act.is_some() { "" } else { "-" })]
                }
                TrayItem::Menu { id, label, items } => {
                    let below = lines(items).into_iter().map(|line| format!("  {line}"));
                    std::iter::once(format!("{id}: {label} >")).chain(below).collect()
                }
            })
            .collect()
    }

    fn labels(items: &[TrayItem]) -> Vec<String> {
        let of = |item: &TrayItem| match item {
            TrayItem::Separator => Vec::new(),
            TrayItem::Entry { label, .. } => vec![label.clone()],
            TrayItem::Menu { label, items, .. } => std::iter::once(label.clone()).chain(labels(items)).collect(),
        };
        items.iter().flat_map(of).collect()
    }

    #[test]
    fn the_glyph_says_the_worst_that_is_true() {
        let with = |leases| open(vec![run("r", "codex", leases)], &[]);
        let renews = || lease("1", "p", "renews", 3);
        let vault = |state, auto_locked, audit_broken| {
            let mut o = with(vec![lease("1", "p", "fails", 3)]);
            (o.status.vault.state, o.status.vault.auto_locked) = (state, auto_locked);
            o.status.vault.audit_broken = audit_broken;
            o
        };
        let mut ended = lease("2", "p", "lapsed", -5);
        ended["state"] = json!("revoked");
        let mut broken = open(vec![], &[]);
        broken.status.vault.audit_broken = true;
        for (state, glyph, words) in [
            (open(vec![], &[]), Glyph::Good, "Keyward: nothing is running"),
            (with(vec![renews()]), Glyph::Good, "Keyward: 1 run, all is well"),
            (with(vec![lease("1", "p", "ends", 30)]), Glyph::Good, "Keyward: 1 run, all is well"),
            (with(vec![renews(), ended]), Glyph::Good, "Keyward: 1 run, all is well"),
            (with(vec![renews(), lease("2", "p", "ends", 4)]), Glyph::Soon, "Keyward: p of codex ends at 12:04"),
            (
                with(vec![lease("1", "p", "ends", 4), lease("2", "q", "fails", 9)]),
                Glyph::Waiting,
                "Keyward: codex loses q at 12:09",
            ),
            (with(vec![lease("1", "p", "lapsed", -1)]), Glyph::Waiting, "Keyward: codex is without p"),
            (broken, Glyph::Waiting, "Keyward: the audit log does not match what was recorded"),
            (vault(VaultState::Locked, true, true), Glyph::Locked, "Keyward: locked, 1 run alive"),
            (vault(VaultState::Absent, false, false), Glyph::Locked, "Keyward: no vault yet"),
        ] {
            let tray = shown(Some(&state));
            assert_eq!((tray.glyph, tray.tooltip.as_str()), (glyph, words));
        }
        assert_eq!((shown(None).glyph, shown(None).tooltip.as_str()), (Glyph::Locked, "Keyward: not running"));
    }

    #[test]
    fn the_menu_of_an_open_vault() {
        let mut held = lease("3", "q", "ends", 25 * 60);
        held["delivery"] = json!("env");
        let mut named = run("r2", "claude", vec![lease("2", "q", "renews", 5), held]);
        named["launcher"] = json!("Claude_Code");
        let state = open(vec![named, run("r1", "codex", vec![lease("1", "q", "ends", 65)])], &["p", "q"]);
        let tray = shown(Some(&state));
        assert_eq!(
            lines(&tray.menu),
            [
                "launch: Launch >",
                "  launch/p: p",
                "  launch/q: q",
                "runs: Live runs >",
                "  run/r1: codex · shop · until 13:05 >",
                "    show/r1: Show",
                "    stop/r1: Stop",
                // Renewed until its limit, which is sooner than the end of the other.
                "  run/r2: Claude__Code · shop · until 22:00 >",
                "    show/r2: Show",
                "    stop/r2: Stop",
                "profiles: Profiles >",
                "  profile/q: q >",
                "    renew/q: Renew",
                "    copy/q: Copy…",
                "  profile/p: p >",
                "    -renew/p: Renew",
                "    copy/p: Copy…",
                "---",
                "lock: Lock now",
                "revoke-all: Revoke everything",
                "---",
                "open: Open Keyward",
                "quit: Quit",
            ]
        );
        for (id, act) in [
            ("launch/q", Some(FromBus::Launch("q".into()))),
            ("stop/r1", Some(FromBus::StopRun("r1".into()))),
            ("renew/q", Some(FromBus::Renew("q".into()))),
            ("renew/p", None),
            ("copy/p", Some(FromBus::AskToCopy("p".into()))),
            ("revoke-all", Some(FromBus::RevokeAll)),
            ("runs", None),
            ("", None),
        ] {
            assert_eq!(TrayItem::find(&tray.menu, id), act.as_ref(), "{id}");
        }
    }

    #[test]
    fn what_waits_stands_first_and_can_be_looked_at_or_denied_and_nothing_else() {
        let mut state = open(vec![run("r1", "codex", vec![lease("1", "q", "fails", 65)])], &["q"]);
        state.approvals = vec![approval("A1", "claude", "pg_prod"), approval("B2", "codex\u{202e}", "q")];
        let tray = shown(Some(&state));
        assert_eq!((tray.glyph, tray.tooltip.as_str()), (Glyph::Waiting, "Keyward: 2 requests wait for you"));
        let all = lines(&tray.menu);
        assert_eq!(
            all[..7],
            [
                "approval/A1: claude wants pg__prod · shop >",
                "  card/A1: Look at it…",
                "  deny/A1: Deny",
                "approval/B2: codex\\u{202e} wants q · shop >",
                "  card/B2: Look at it…",
                "  deny/B2: Deny",
                "---",
            ]
        );
        assert_eq!(TrayItem::find(&tray.menu, "card/A1"), Some(&FromBus::Card("A1".into())));
        assert_eq!(TrayItem::find(&tray.menu, "deny/B2"), Some(&FromBus::Deny("B2".into())));
        state.approvals.truncate(1);
        assert_eq!(shown(Some(&state)).tooltip, "Keyward: claude wants pg_prod, and waits for you");
        state.approvals.extend((0..100).map(|n| approval(&format!("N{n}"), "a", "p")));
        let cards = lines(&shown(Some(&state)).menu).into_iter().filter(|line| line.contains("Look at it"));
        assert_eq!(cards.count(), ENTRIES_MAX);
    }

    #[test]
    fn what_a_closed_vault_offers() {
        assert_eq!(lines(&shown(None).menu), ["open: Open Keyward", "quit: Quit"]);
        let mut state = open(vec![], &[]);
        let all = lines(&shown(Some(&state)).menu);
        assert!(all.contains(&"  launchers: Add a launcher…".to_owned()) && all.contains(&"lock: Lock now".to_owned()));
        assert!(all.contains(&"-revoke-all: Revoke everything".to_owned()), "{all:?}");
        state.status.vault.state = VaultState::Locked;
        let all = lines(&shown(Some(&state)).menu);
        assert!(all.contains(&"unlock: Unlock…".to_owned()) && all.contains(&"-lock: Lock now".to_owned()), "{all:?}");
        // What the auto-lock leaves alive can still be taken back.
        state.status.vault.auto_locked = true;
        assert!(lines(&shown(Some(&state)).menu).contains(&"lock: Lock now".to_owned()));
        state.status.vault.state = VaultState::Absent;
        assert_eq!(lines(&shown(Some(&state)).menu), ["open: Open Keyward", "quit: Quit"]);
    }

    #[test]
    fn hostile_names_stay_in_their_line_and_long_lists_are_cut() {
        let evil = "x_\n\u{202e}<b>&\u{1b}";
        let mut evil_run = run("r", evil, vec![lease("1", evil, "ends", 2)]);
        evil_run["project"] = json!(format!("/a/{}", evil.repeat(1_000)));
        let state = open(vec![evil_run], &[evil]);
        let tray = shown(Some(&state));
        let all = labels(&tray.menu).join("|") + &tray.tooltip;
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all}");
        assert!(all.contains("x__\\u{a}\\u{202e}") && all.chars().count() < 600, "{all}");
        // The name itself is what is acted on.
        assert_eq!(TrayItem::find(&tray.menu, &format!("launch/{evil}")), Some(&FromBus::Launch(evil.into())));

        let many: Vec<_> = (0..500).map(|n| run(&format!("r{n}"), "a", vec![lease("1", "p", "ends", n)])).collect();
        let names: Vec<String> = (0..500).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let menu = shown(Some(&open(many, &names))).menu;
        assert!(lines(&menu).len() < 250);
        assert!(TrayItem::find(&menu, "stop/r0").is_some(), "what ends first is kept");
    }

    #[test]
    fn what_holds_nothing_or_is_lapsed_says_so() {
        let state = open(vec![run("a", "a", vec![]), run("b", "b", vec![lease("1", "p", "lapsed", -3)])], &[]);
        let all = lines(&shown(Some(&state)).menu);
        let wanted =
            ["  run/b: b · shop · without a credential >", "  run/a: a · shop · holds nothing >", "    -stop/a: Stop"];
        for want in wanted {
            assert!(all.contains(&want.to_owned()), "{want}: {all:?}");
        }
        assert_eq!(at(0), crate::look::tests::NOW);
    }
}
