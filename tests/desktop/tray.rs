//! The tray, read and clicked over D-Bus as a panel does it.

use crate::Stage;
use keyward_testkit::{PASSPHRASE, alive, wait_for};

#[test]
fn a_launcher_is_launched_and_its_run_is_shown_stopped_and_gone() {
    let stage = Stage::with_vault();
    stage.home.static_profile("pg", "kw-secret-71", "DATABASE_URL");
    let add = ["launcher", "add", "sleeper", "--no-terminal", "-p", "pg", "--", "sleep", "600"];
    stage.home.keyward(&add).exits(0);
    // A click in the tray proves no person: it goes by a grant.
    let grant = ["grant", "add", "--profile", "pg", "--launcher", "sleeper", "--passphrase-stdin"];
    stage.home.keyward_in(&grant, PASSPHRASE).exits(0);
    let screen = stage.screen();
    stage.tray.click(&["Launch", "sleeper"]);
    screen.wait("sleeper");
    let runs = || stage.home.keyward(&["ps", "--json"]).exits(0).json();
    wait_for("the run", || runs()[0]["app"] == "sleeper");
    let pid = i32::try_from(runs()[0]["pid"].as_i64().unwrap()).unwrap();
    // In Apps too, as held.
    screen.click("Apps");
    screen.wait_until("the app and the profile in the matrix", |t| t.contains("sleeper") && t.contains("pg"));
    stage.tray.click(&["Live runs", "sleeper", "Stop"]);
    wait_for("the end of the lease", || runs()[0]["leases"][0]["state"] == "revoked" || runs()[0].is_null());
    // Stop takes back; the program itself is the person's.
    assert!(alive(pid));
    keyward_testkit::signal(pid, rustix::process::Signal::TERM);
    wait_for("an empty list", || runs().as_array().is_some_and(Vec::is_empty));
}

#[test]
fn lock_from_the_tray_takes_everything_back_and_the_screen_says_so() {
    let stage = Stage::with_vault();
    stage.home.static_profile("pg", "kw-secret-72", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    let before = stage.tray.picture();
    stage.tray.click(&["Lock now"]);
    screen.wait("The vault is locked");
    assert_eq!(stage.home.keyward(&["status", "--json"]).json()["vault"]["state"], "locked");
    wait_for("another glyph", || stage.tray.picture() != before);
    wait_for("the state in words", || stage.tray.tooltip().contains("locked"));
    assert!(stage.tray.find(&["Launch"]).is_none(), "a locked vault launches nothing");
    screen.click("Unlock…");
    stage.answer("Unlock the vault", "not the passphrase at all");
    stage.prove("Unlock the vault");
    screen.wait("Nothing is running");
}

#[test]
fn the_icon_opens_a_window_and_closing_it_leaves_the_tray() {
    let stage = Stage::with_vault();
    let desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    assert!(stage.display.windows(&stage.home, "^Keyward").is_empty(), "it was started hidden");
    stage.tray.activate();
    stage.display.focus(&stage.home, "^Keyward");
    // As the close button of a window manager does.
    stage.display.close(&stage.home, "^Keyward");
    stage.display.gone(&stage.home, "^Keyward");
    assert!(alive(desktop.pid()));
    // A second start opens the window of the first and ends.
    let mut second = stage.desktop(&[]);
    assert_eq!(second.end(), Some(0));
    stage.display.focus(&stage.home, "^Keyward");
}

#[test]
fn quit_asks_and_leaves_runs_alive() {
    let stage = Stage::with_vault();
    stage.home.static_profile("pg", "kw-secret-73", "DATABASE_URL");
    let mut run = stage.home.keyward_command(&["run", "-p", "pg", "--", "sleep", "600"]);
    let mut run = run.spawn().unwrap();
    let mut desktop = stage.desktop(&["--hidden"]);
    wait_for("the run in the menu", || stage.tray.find(&["Live runs"]).is_some());
    stage.tray.click(&["Quit"]);
    stage.display.focus(&stage.home, "Quit Keyward");
    stage.display.press(&stage.home, "Escape");
    stage.display.gone(&stage.home, "Quit Keyward");
    assert!(alive(desktop.pid()), "closing the question is no yes");
    stage.tray.click(&["Quit"]);
    stage.display.focus(&stage.home, "Quit Keyward");
    stage.display.press(&stage.home, "alt+l");
    assert_eq!(desktop.end(), Some(0));
    let lease = stage.home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0].clone();
    assert_eq!(lease["state"], "live", "{lease}");
    // So does a crash.
    let crashed = stage.desktop(&["--hidden"]);
    drop(crashed);
    assert_eq!(stage.home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0]["state"], "live");
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn quit_in_the_settings_asks_as_the_tray_does() {
    let stage = Stage::with_vault();
    stage.home.static_profile("pg", "kw-secret-78", "DATABASE_URL");
    let mut run = stage.home.keyward_command(&["run", "-p", "pg", "--", "sleep", "600"]);
    let mut run = run.spawn().unwrap();
    let screen = stage.screen();
    screen.wait("keeps the value");
    screen.click("Settings");
    screen.click("Quit Keyward…");
    stage.display.focus(&stage.home, "Quit Keyward");
    stage.display.press(&stage.home, "Escape");
    stage.display.gone(&stage.home, "Quit Keyward");
    assert!(stage.tray.find(&["Quit"]).is_some(), "closing the question is no yes");
    screen.click("Quit Keyward…");
    stage.display.focus(&stage.home, "Quit Keyward");
    stage.display.press(&stage.home, "alt+l");
    stage.tray.gone();
    let lease = stage.home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0].clone();
    assert_eq!(lease["state"], "live", "{lease}");
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn copy_from_the_tray_asks_for_the_passphrase_and_is_recorded() {
    let stage = Stage::with_vault();
    stage.home.static_profile("pg", "kw-secret-74", "DATABASE_URL");
    let _desktop = stage.desktop(&["--hidden"]);
    wait_for("the profile in the menu", || stage.tray.find(&["Profiles", "pg"]).is_some());
    stage.tray.click(&["Profiles", "pg", "Copy"]);
    let title = "Copy the credential of";
    stage.display.focus(&stage.home, title);
    assert_eq!(stage.display.clipboard(&stage.home), "", "nothing is copied unasked");
    stage.display.press(&stage.home, "Escape");
    stage.display.gone(&stage.home, title);
    assert!(!stage.home.audit_kinds().iter().any(|k| k == "credential.revealed"));
    stage.tray.click(&["Profiles", "pg", "Copy"]);
    // The person was elsewhere, so that the field is a step away.
    stage.display.focus(&stage.home, title);
    stage.display.press(&stage.home, "alt+p");
    stage.answer(title, PASSPHRASE);
    wait_for("the credential on the clipboard", || stage.display.clipboard(&stage.home) == "kw-secret-74");
    assert!(stage.home.audit_kinds().iter().any(|k| k == "credential.revealed"));
}
