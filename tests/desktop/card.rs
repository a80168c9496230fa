//! The card: what nobody has granted brings it to the screen, and what answers it.

use crate::Stage;
use crate::bus::Entry;
use keyward_testkit::{Home, Talk, alive, run, signal, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::time::Instant;

/// Title of the window, which no other one has.
const CARD: &str = "^Approval";
/// Title of the native prompt.
const PROMPT: &str = "^Allow a request";

/// A shell in which nobody has unlocked anything: who asks from it is a requester, and asks again from the same place.
struct Stranger(Talk);

impl Stranger {
    fn new(home: &Home) -> Self {
        Self(Talk::start(home.command("sh")))
    }

    /// Starts a run that waits for a person; its process.
    fn asks(&mut self) -> i32 {
        self.0.send(b"keyward run --wait -p pg --reason 'to try it' -- true & echo asked $!\n");
        self.0.until("asked ");
        self.0.line().parse().unwrap()
    }

    /// Waits for its end; its exit code.
    fn ended(&mut self, asking: i32) -> i32 {
        self.0.send(format!("wait {asking}; echo ended $?\n").as_bytes());
        self.0.until("ended ");
        self.0.line().parse().unwrap()
    }

    /// What was said in it about errors.
    fn said(&self) -> String {
        self.0.err()
    }
}

fn waiting(home: &Home) -> Vec<Value> {
    let all = home.keyward(&["approvals", "--json"]).exits(0).json();
    all.as_array().cloned().unwrap_or_default().into_iter().filter(|a| a["state"] == "open").collect()
}

/// The window that has the keyboard.
fn active(stage: &Stage) -> String {
    let mut asked = stage.home.command("xdotool");
    asked.env("DISPLAY", stage.display.name()).args(["getactivewindow"]);
    run(asked, b"").out.trim().to_owned()
}

fn granted(home: &Home) -> bool {
    home.audit_kinds().iter().any(|k| k == "credential.delivered" || k == "grant.added")
}

/// Presses a key on the card, whose page may still be on its way, until the window is gone. Where the main window is open, it
/// may have taken the keyboard back while it painted.
#[track_caller]
fn press_until_gone(stage: &Stage, key: &str) {
    wait_for("the end of the card", || {
        let card = stage.display.windows(&stage.home, CARD).into_iter().next();
        if let Some(card) = &card {
            stage.display.turn_to(&stage.home, card);
            stage.display.press(&stage.home, key);
        }
        card.is_none()
    });
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "a figure for whoever reads along; the one that counts is measured by the bench"
)]
fn a_request_brings_the_card_which_leaves_the_keyboard_where_it_is_and_denies_by_one_key() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-91", "DATABASE_URL");
    let _desktop = stage.desktop(&[]);
    let main = stage.display.focus(home, "^Keyward");
    wait_for("the profile in the menu", || stage.tray.find(&["Profiles", "pg"]).is_some());
    let mut stranger = Stranger::new(home);
    let begin = Instant::now();
    let asking = stranger.asks();
    wait_for("the card", || !stage.display.windows(home, CARD).is_empty());
    eprintln!("from the start of the request to the window of its card: {} ms", begin.elapsed().as_millis());
    assert_eq!(active(&stage), main, "what the person types goes where it went");
    let notice = stage.notifications.wait("wants pg");
    assert_eq!(notice.actions.len(), 2, "one button, and the click on it all: {notice:?}");
    wait_for("the tray that waits", || stage.tray.tooltip().contains("waits for you"));
    assert!(stage.tray.entries()[0].label.contains("wants pg"), "what waits stands first");
    // The keys of a person who was typing into another window do nothing to it.
    stage.display.press(home, "Escape");
    stage.display.press(home, "Return");
    assert_eq!(waiting(home).len(), 1);
    // The notification brings the keyboard to it.
    stage.notifications.invoke(&notice, "Look at it");
    wait_for("the keyboard on the card", || active(&stage) != main);
    // Deny has the focus: the key that confirms says no, as Esc does.
    press_until_gone(&stage, "Return");
    assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
    assert!(stranger.said().contains("approval.denied"), "{}", stranger.said());
    stage.display.gone(home, CARD);
    assert!(!granted(home));
    wait_for("the tray at rest", || !stage.tray.tooltip().contains("waits for you"));
}

#[test]
fn the_keyboard_alone_allows_with_the_passphrase_typed_in_a_native_window() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-92", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    let mut stranger = Stranger::new(home);
    let asking = stranger.asks();
    stage.display.focus(home, CARD);
    screen.to_card();
    screen.wait("said by the requester");
    screen.wait("to try it");
    let asleep = "return [...document.querySelectorAll('.allow button')].map((one) => one.disabled)";
    wait_for("the buttons to wake", || screen.script(asleep)[0] == false);
    assert_eq!(screen.script("return document.activeElement.className.includes('deny')"), true);
    stage.display.press(home, "Tab");
    stage.display.press(home, "space");
    stage.answer(PROMPT, "not the passphrase at all");
    stage.prove(PROMPT);
    assert_eq!(stranger.ended(asking), 0, "{}", stranger.said());
    stage.display.gone(home, CARD);
    // Proven a moment ago: the next one asks for no passphrase. Once was once.
    let asking = stranger.asks();
    stage.display.focus(home, CARD);
    screen.to_card();
    wait_for("the buttons to wake", || screen.script(asleep)[0] == false);
    stage.display.press(home, "Tab");
    stage.display.press(home, "space");
    assert_eq!(stranger.ended(asking), 0, "{}", stranger.said());
    let log = home.audit();
    let answers = log.iter().filter(|e| e["kind"] == "approval.answered").count();
    assert_eq!(answers, 2, "{log:?}");
}

#[test]
fn equal_requests_are_one_card_with_their_number_and_it_sleeps_when_it_changes() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-93", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    let mut stranger = Stranger::new(home);
    let first = stranger.asks();
    stage.display.focus(home, CARD);
    screen.to_card();
    wait_for("the buttons to wake", || {
        screen.script("return document.querySelector('.allow button').disabled") == false
    });
    // The pointer is on it when another request comes.
    screen.script(
        "window.slept = false;
         new MutationObserver(() => { if (document.querySelector('.allow button')?.disabled) window.slept = true; })
           .observe(document.body, { subtree: true, attributes: true, childList: true });",
    );
    let second = stranger.asks();
    screen.wait("Asked 2 times");
    wait_for("the buttons to sleep", || screen.script("return window.slept") == true);
    assert_eq!(screen.script("return document.activeElement.className.includes('deny')"), true);
    assert_eq!((stage.display.windows(home, CARD).len(), waiting(home).len()), (1, 1));
    stage.display.press(home, "Escape");
    for asking in [first, second] {
        assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
    }
    assert!(stranger.said().contains("approval.denied"), "{}", stranger.said());
    stage.display.gone(home, CARD);
}

#[test]
fn a_card_that_is_over_closes_and_one_that_was_closed_unanswered_waits_in_the_tray() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-94", "DATABASE_URL");
    let desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let mut stranger = Stranger::new(home);
    let asking = stranger.asks();
    wait_for("the card", || !stage.display.windows(home, CARD).is_empty());
    stage.display.close(home, CARD);
    stage.display.gone(home, CARD);
    assert_eq!(waiting(home).len(), 1, "closing the window is no answer");
    let wants = |entry: &Entry| entry.label.contains("wants pg");
    let entry = stage.tray.entries().into_iter().find(wants).unwrap();
    stage.tray.click(&[&entry.label, "Look at it"]);
    stage.display.focus(home, CARD);
    // Who asked is gone.
    signal(asking, Signal::KILL);
    stage.display.gone(home, CARD);
    assert!(alive(desktop.pid()) && waiting(home).is_empty() && !granted(home));
    // Denied from the tray, which takes away.
    let asking = stranger.asks();
    wait_for("the entry", || stage.tray.entries().iter().any(wants));
    let entry = stage.tray.entries().into_iter().find(wants).unwrap();
    stage.tray.click(&[&entry.label, "Deny"]);
    assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
    stage.display.gone(home, CARD);
}

/// Processes of WebKit below this one.
fn of_webkit(pid: i32) -> usize {
    let below = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        Some(name.starts_with("WebKit") && state != "Z" && parent == pid.to_string())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(below).filter(|is| *is).count()
}

#[test]
fn without_a_window_the_first_card_was_prepared_unseen_and_nothing_of_that_stays() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-99", "DATABASE_URL");
    let desktop = stage.desktop(&["--hidden"]);
    let mut seen = false;
    wait_for("a view that nobody sees", || {
        seen |= !stage.display.windows(home, "(?i)keyward|approval").is_empty();
        of_webkit(desktop.pid()) > 0
    });
    wait_for("its end", || {
        seen |= !stage.display.windows(home, "(?i)keyward|approval").is_empty();
        of_webkit(desktop.pid()) == 0
    });
    assert!(!seen, "no window was shown");
    let before = active(&stage);
    let mut stranger = Stranger::new(home);
    let asking = stranger.asks();
    wait_for("the card", || !stage.display.windows(home, CARD).is_empty());
    assert_eq!(active(&stage), before, "the keyboard stays where it is");
    press_until_gone(&stage, "Escape");
    assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
    assert!(!granted(home));
}

#[test]
fn what_comes_over_the_bus_opens_windows_at_most() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-95", "DATABASE_URL");
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let mut shell = Stranger::new(home);
    let asking = shell.asks();
    let notice = stage.notifications.wait("wants pg");
    let stranger = stage.tray.stranger(&stage.bus);
    let id = waiting(home)[0]["id"].as_str().unwrap().to_owned();
    let keys = ["approve", "allow", "once", "run", "project", "open", "default", "deny"];
    for key in keys.into_iter().map(str::to_owned).chain([format!("card/{id}"), format!("approval/{id}/once")]) {
        // To the one that shows it, to all, and by the server itself.
        stage.notifications.forge(&stranger, &notice, &key);
        stage.notifications.forge_to_all(&stranger, &notice, &key);
        stage.notifications.invoke_key(&notice, &key);
    }
    // The name of the server in other hands.
    stage.notifications.taken_over(&stranger);
    for key in ["approve", "allow", "once", "default"] {
        stage.notifications.forge(&stranger, &notice, key);
        stage.notifications.forge_to_all(&stranger, &notice, key);
    }
    assert_eq!(waiting(home).len(), 1, "it waits as before");
    assert!(stage.display.windows(home, PROMPT).is_empty());
    // Every entry of the menu, what denies among them.
    stranger.click_all();
    assert_eq!(shell.ended(asking), 125, "{}", shell.said());
    home.unlock();
    assert!(!granted(home));
    for never in ["credential.revealed", "profile.changed", "operator.proven"] {
        assert!(!home.audit_kinds().iter().any(|k| k == never), "{never}");
    }
}

#[test]
fn each_window_gives_its_own_commands_alone() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-96", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    let mut stranger = Stranger::new(home);
    let asking = stranger.asks();
    stage.display.focus(home, CARD);
    let approval = waiting(home)[0].clone();
    let (id, digest) = (approval["id"].as_str().unwrap(), approval["digest"].as_str().unwrap());
    let call = "window.ended = [];
        const call = (name, request) => window.__TAURI_INTERNALS__.invoke(name, request).then(
          (said) => window.ended.push({ name, said }), (fault) => window.ended.push({ name, fault }));";
    let answer = format!("{{ request: {{ id: '{id}', digest: '{digest}', decision: 'once', for_s: null }} }}");
    let ended = |n: usize| {
        let said = || screen.script("return window.ended").as_array().cloned().unwrap_or_default();
        wait_for("the end of the calls", || said().len() == n);
        said()
    };
    // The main window answers no card.
    screen.script(&format!("{call} call('approval_answer', {answer}); call('card', {{ request: {{ id: '{id}' }} }});"));
    for end in ended(2) {
        assert!(end["said"].is_null() && end["fault"].is_string(), "{end}");
    }
    // The card answers its own request alone, and gives no other command.
    screen.to_card();
    screen.wait("said by the requester");
    screen.script(&format!(
        "{call} for (const name of ['overview', 'revoke', 'grants', 'grant_save', 'profile_reveal', 'vault_unlock', 'approvals',
           'approval_show', 'approval_deny', 'launch', 'quit', 'plugin:event|emit', 'plugin:window|create'])
           call(name, {{ request: {{ name: 'pg' }} }});
         call('card', {{ request: {{ id: 'AAAAAAAA' }} }});
         call('approval_answer', {{ request: {{ id: 'AAAAAAAA', digest: '{digest}', decision: 'once', for_s: null }} }});
         call('approval_answer', {{ request: {{ id: '{id}', digest: 'ff', decision: 'project', for_s: 86400 }} }});"
    ));
    for end in ended(16) {
        match end["name"].as_str().unwrap() {
            "card" => assert_eq!(end["fault"]["code"], "approval.over", "{end}"),
            "approval_answer" => {
                let code = end["fault"]["code"].as_str().unwrap();
                let want = ["approval.over", "approval.changed", "approval.too_early"];
                assert!(want.contains(&code), "{end}");
            }
            _ => assert!(end["said"].is_null() && end["fault"].is_string(), "{end}"),
        }
    }
    assert!(stage.display.windows(home, PROMPT).is_empty(), "nobody was asked for the passphrase");
    assert_eq!(waiting(home).len(), 1);
    stage.display.focus(home, CARD);
    stage.display.press(home, "Escape");
    assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
}

#[test]
fn a_launch_from_the_tray_asks_and_one_from_the_window_is_the_operators() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-97", "DATABASE_URL");
    home.keyward(&["launcher", "add", "sleeper", "--no-terminal", "-p", "pg", "--", "sleep", "600"]).exits(0);
    let screen = stage.screen();
    screen.wait("Nothing is running");
    stage.tray.click(&["Launch", "sleeper"]);
    stage.display.focus(home, CARD);
    assert_eq!(home.keyward(&["ps", "--json"]).exits(0).json().as_array().map(Vec::len), Some(0));
    press_until_gone(&stage, "Escape");
    // In the window the person proves to be there, and nothing else is asked.
    screen.click("sleeper");
    stage.prove("^Launch");
    screen.wait_until("the run", |text| text.contains("left") && text.contains("sleeper"));
    assert!(stage.display.windows(home, CARD).is_empty());
    let runs = home.keyward(&["ps", "--json"]).exits(0).json();
    let pid = runs[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    signal(pid, Signal::TERM);
}

#[test]
fn a_restarted_desktop_shows_the_card_again_and_is_nobody_until_the_passphrase_is_typed() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-98", "DATABASE_URL");
    let first = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let mut stranger = Stranger::new(home);
    let asking = stranger.asks();
    stage.display.focus(home, CARD);
    drop(first);
    // Started again by somebody who would rather be inside of it.
    for (name, value) in [
        ("LD_PRELOAD", "/nonexistent.so"),
        ("LD_AUDIT", "/nonexistent.so"),
        ("GTK_MODULES", "x"),
        ("WEBKIT_EXEC_PATH", "/nonexistent"),
    ] {
        let mut desktop = home.command(home.bin().join("keyward-desktop"));
        crate::screen::environment(&mut desktop, &stage.bus, &stage.display);
        let said = run(
            {
                desktop.arg("--hidden").env(name, value);
                desktop
            },
            b"",
        )
        .exits(1);
        assert!(said.err.contains("desktop.environment") && said.err.contains(name), "{name}: {}", said.err);
    }
    assert!(stage.display.windows(home, CARD).is_empty());
    assert_eq!(waiting(home).len(), 1, "it waits for a window that shows it");
    let screen = stage.screen();
    stage.display.focus(home, CARD);
    screen.to_card();
    let asleep = "return document.querySelector('.allow button')?.disabled";
    wait_for("the buttons to wake", || screen.script(asleep) == false);
    stage.display.press(home, "Tab");
    stage.display.press(home, "space");
    stage.display.focus(home, PROMPT);
    stage.display.press(home, "Escape");
    stage.display.gone(home, PROMPT);
    screen.wait("the passphrase was not given");
    assert!(waiting(home).len() == 1 && !granted(home));
    stage.display.focus(home, CARD);
    stage.display.press(home, "Escape");
    assert_eq!(stranger.ended(asking), 125, "{}", stranger.said());
}
