//! Auto-lock: the person's rights end, what runs goes on.

use keyward_testkit::{Home, Talk, wait_at_most, wait_for};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

/// Writes the settings of a home in which there is nothing yet.
fn configure(home: &Home, text: &str) {
    let config = home.keyward_home().join("config");
    DirBuilder::new().recursive(true).mode(0o700).create(&config).unwrap();
    std::fs::write(config.join("config.toml"), text).unwrap();
}

/// The one test that waits for a minute, the shortest time that the setting takes.
#[test]
fn auto_lock_ends_the_persons_rights_and_lets_live_leases_go_on() {
    let home = Home::new();
    configure(&home, "auto_lock = \"1m\"\n");
    home.init();
    home.static_profile("p", "s3cret", "T");
    let sandbox = home.bin().join("keyward-sandbox");
    home.profile(
        "m",
        &format!(
            "[issuer]\nkind = \"command\"\nargv = [\"{}\", \"mint\", \"--life\", \"8s\", \"--fast-lives\"]\n\
             [delivery]\nmode = \"file\"\nenv = {{ T_FILE = \"token\" }}\n",
            sandbox.display()
        ),
    );
    let mut child = Talk::start(home.keyward_command(&["run", "-p", "m", "--", "sh"]));
    child.send(b"echo $T_FILE\n");
    let path = PathBuf::from(child.line());
    let vault = || home.keyward(&["status", "--json"]).exits(0).json()["vault"].clone();
    let left = vault()["auto_lock_in_s"].as_u64().unwrap();
    assert!((1..=60).contains(&left), "{left}");
    wait_at_most(Duration::from_secs(75), "the auto-lock", || vault()["auto_locked"] == true);
    assert_eq!(vault()["state"], "locked");
    let held = std::fs::read_to_string(&path).unwrap();
    for _ in 0..2 {
        let held = std::fs::read_to_string(&path).unwrap();
        let renewed = || std::fs::read_to_string(&path).is_ok_and(|now| now != held);
        wait_at_most(Duration::from_secs(20), "a renewal after the auto-lock", renewed);
    }
    child.send(b"keyward token m >/dev/null 2>&1 && echo held; keyward token p 2>&1 | grep -o 'vault.locked'\n");
    assert_eq!((child.line(), child.line()), ("held".to_owned(), "vault.locked".to_owned()), "what the run holds");
    let refused = home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("vault.locked");
    assert!(refused.err.contains("cause: no use for 1 min (auto-lock)"), "{}", refused.err);
    home.keyward(&["run", "-p", "m", "--", "true"]).exits(125).says("vault.locked");
    home.keyward(&["token", "m"]).exits(3).says("vault.locked");
    home.keyward_in(&["secret", "set", "p"], "x").exits(3).says("vault.locked");
    home.keyward(&["profile", "test", "m"]).exits(3).says("vault.locked");
    let listed = home.keyward(&["ps", "--json"]).exits(0).json();
    assert_eq!(listed[0]["leases"][0]["state"], "live", "{listed}");
    home.unlock();
    assert_eq!(vault()["state"], "unlocked");
    assert_eq!(home.keyward(&["run", "-p", "p", "--", "sh", "-c", "printf %s \"$T\""]).exits(0).out, "s3cret");
    let kinds = home.audit_kinds();
    let at = kinds.iter().position(|k| k == "vault.auto_locked").unwrap();
    let unlocked = kinds.iter().rposition(|k| k == "vault.unlocked").unwrap();
    let renewals = kinds[at..unlocked].iter().filter(|k| *k == "lease.renewed").count();
    assert!(renewals >= 2, "{kinds:?}");
    assert_ne!(std::fs::read_to_string(&path).unwrap(), held);
    home.keyward(&["audit", "verify"]).exits(0);
    child.send(b"exit\n");
    child.end().exits(0);
    wait_for("the end of its file", || !path.exists());
}

#[test]
fn settings_that_are_not_understood_stop_the_start_with_words() {
    for text in ["auto_lock = \"5s\"", "auto_lock = 5", "autolock = \"5m\"", "auto_lock = \"30h\"", "["] {
        let home = Home::new();
        configure(&home, text);
        let refused = home.keyward_in(&["init", "--passphrase-stdin"], keyward_testkit::PASSPHRASE);
        refused.exits(1).says("config.invalid");
    }
}
