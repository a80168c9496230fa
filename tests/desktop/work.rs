//! A day with the window open.

use crate::Stage;
use crate::screen::Screen;
use keyward_testkit::{Home, Sandbox, wait_for};
use serde_json::Value;

fn lease(home: &Home) -> Value {
    home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"][0].clone()
}

/// Seconds by which the countdown of the only lease differs from what is left until its end.
fn off(screen: &Screen) -> Option<f64> {
    let script = "const time = document.querySelector('.left time');
        const units = {s: 1, min: 60, h: 3600, d: 86400};
        const shown = [...time.innerText.matchAll(/([0-9]+) ([a-z]+)/g)].reduce((sum, [, n, unit]) => sum + n * units[unit], 0);
        return Math.abs((Date.parse(time.dateTime) - Date.now()) / 1000 - shown)";
    screen.script(script).as_f64()
}

#[test]
fn a_federated_profile_is_made_tested_and_renews_on_the_screen() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    let sandbox = Sandbox::start(home, &["--life", "10s", "--fast-lives"]);
    let screen = stage.screen();
    screen.click("Profiles");
    screen.wait("Profiles");
    screen.click("Add a profile");
    screen.click_at("//button[starts-with(normalize-space(.), 'Anthropic')]");
    screen.wait("Save");
    screen.fill("Name", "claude");
    screen.fill("Federation rule ID", sandbox.said("federation_rule_id"));
    screen.fill("Organization ID", "not an id");
    screen.fill("Path", sandbox.said("identity_token_file"));
    screen.click_at("//summary[starts-with(normalize-space(.), 'Variables, limits')]");
    screen.fill("Base URL", sandbox.said("base_url"));
    screen.click("Save");
    // The broker's words about what is wrong, at the form.
    screen.wait("UUID");
    screen.fill("Organization ID", sandbox.said("organization_id"));
    screen.fill("Service account ID", sandbox.said("service_account_id"));
    screen.fill("Workspace ID", sandbox.said("workspace_id"));
    screen.click("Save");
    screen.click("Test");
    screen.wait("Subject of the assertion");
    // By file, so that what is shown ends with the credential.
    let mut run =
        home.keyward_command(&["run", "-p", "claude", "--deliver", "file", "--", "sleep", "600"]).spawn().unwrap();
    screen.click("Now");
    screen.wait("claude");
    // Counted as the broker counts.
    let said = lease(home)["expires_at"].as_str().unwrap().to_owned();
    let shown = screen.script("return document.querySelector('.left time').dateTime");
    assert_eq!(shown.as_str(), Some(said.as_str()));
    let off = off(&screen).unwrap();
    assert!(off <= 1.5, "the countdown is {off} s off:\n{}", screen.text());
    wait_for("a renewal", || lease(home)["renewals"].as_u64() > Some(0));
    screen.wait("renewed ");
    run.kill().unwrap();
    run.wait().unwrap();
    screen.wait("Nothing is running");
}

#[test]
fn what_is_revoked_on_the_screen_is_gone() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-75", "DATABASE_URL");
    let mut run = home.keyward_command(&["run", "-p", "pg", "--", "sleep", "600"]).spawn().unwrap();
    let screen = stage.screen();
    screen.click("Revoke…");
    screen.click("Revoke");
    wait_for("the end of the lease", || {
        let lease = lease(home);
        lease.is_null() || lease["state"] == "revoked"
    });
    // What it holds in a variable cannot be taken back, and the screen does not hide it.
    screen.wait("What could not be taken back");
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn the_log_is_filtered_and_exported_with_a_passphrase() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    for name in ["pg", "stripe"] {
        home.static_profile(name, &format!("kw-secret-{name}"), "DATABASE_URL");
        home.keyward(&["run", "-p", name, "--", "true"]).exits(0);
    }
    let screen = stage.screen();
    screen.click("Audit");
    screen.wait_until("entries of both", |t| t.contains("pg") && t.contains("stripe"));
    screen.wait("verified");
    screen.fill("Search in entries", "stripe");
    screen.wait_until("entries of one", |t| t.contains("stripe") && !t.contains("given pg"));
    screen.click_at("//button[starts-with(normalize-space(.), 'Export these')]");
    // The file dialog of the toolkit, with the suggested name.
    let title = "Export the audit log";
    stage.display.focus(home, title);
    stage.display.press(home, "ctrl+a");
    let file = home.root.join("export.jsonl");
    stage.display.write(home, &file.display().to_string());
    stage.display.press(home, "Return");
    stage.prove("Export the audit log — Keyward");
    wait_for("the file", || file.exists());
    let text = std::fs::read_to_string(&file).unwrap();
    let trailer: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let (key, file) = (trailer["trailer"]["key"].as_str().unwrap(), file.display().to_string());
    home.keyward(&["audit", "verify", "--file", &file, "--pubkey", key]).exits(0);
    assert!(text.contains("stripe") && !text.contains("\"profile\":\"pg\""), "{text}");
}

#[test]
fn a_broker_that_is_killed_comes_back_on_the_screen_without_a_reload() {
    let stage = Stage::with_vault();
    let home = &stage.home;
    home.static_profile("pg", "kw-secret-76", "DATABASE_URL");
    let screen = stage.screen();
    screen.wait("Nothing is running");
    screen.script("window.kept = 'yes'");
    home.crash_broker();
    screen.wait("The vault is locked");
    screen.click("Unlock…");
    stage.prove("Unlock the vault");
    screen.wait("Nothing is running");
    assert_eq!(screen.script("return window.kept"), "yes");
}
