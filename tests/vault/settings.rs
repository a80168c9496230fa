//! The settings through the LocalAPI: shown, changed with proof, in effect at once.

use crate::{entries, with_profile};
use keyward_testkit::{Home, PASSPHRASE, Wire, wait_for};
use serde_json::{Value, json};

#[track_caller]
fn api(home: &Home, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Wire::once(&home.socket(), method, path, &[], body.as_bytes()).unwrap().json()
}

fn shown(home: &Home) -> Value {
    api(home, "GET", "/v1/settings", &Value::Null)
}

fn set(home: &Home, seconds: u64, passphrase: &str) -> Value {
    api(home, "PUT", "/v1/settings", &json!({"auto_lock_s": seconds, "proof": {"passphrase": passphrase}}))
}

fn left(home: &Home) -> u64 {
    home.keyward(&["status", "--json"]).exits(0).json()["vault"]["auto_lock_in_s"].as_u64().unwrap()
}

#[test]
fn a_setting_is_in_effect_at_once_and_outlives_the_broker() {
    let home = with_profile("s3cret");
    let file = home.keyward_home().join("config/config.toml");
    std::fs::write(&file, "# mine\nauto_lock = \"15m\" # at work\n").unwrap();
    assert_eq!(shown(&home), json!({"auto_lock_s": 900}));
    for seconds in [0, 59, 86_401] {
        assert_eq!(set(&home, seconds, PASSPHRASE)["code"], "request.invalid", "{seconds}");
    }
    assert_eq!(set(&home, 60, "wrong horse battery staple")["code"], "vault.wrong_passphrase");
    assert_eq!(api(&home, "PUT", "/v1/settings", &json!({"auto_lock_s": 60}))["code"], "request.invalid", "no proof");
    assert!(left(&home) > 60 && entries(&home, "settings.changed").is_empty());

    assert_eq!(set(&home, 120, PASSPHRASE), Value::Null);
    assert_eq!(shown(&home), json!({"auto_lock_s": 120}));
    assert!((60..=120).contains(&left(&home)), "{}", left(&home));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\nauto_lock = \"2m\" # at work\n");
    let changed = entries(&home, "settings.changed");
    assert_eq!(
        (&changed[0]["detail"]["auto_lock_s"], &changed[0]["detail"]["former_auto_lock_s"]),
        (&120.into(), &900.into())
    );

    home.keyward(&["lock"]).exits(0);
    assert_eq!(shown(&home), json!({"auto_lock_s": 120}), "they can be seen while it is locked");
    assert_eq!(set(&home, 900, PASSPHRASE)["code"], "vault.locked");
    home.keyward(&["broker", "restart"]).exits(0);
    assert_eq!(shown(&home), json!({"auto_lock_s": 120}));
    home.unlock();
    std::fs::write(&file, "auto_lock = [").unwrap();
    assert_eq!(set(&home, 900, PASSPHRASE)["code"], "config.invalid");
    assert_eq!(
        (std::fs::read_to_string(&file).unwrap().as_str(), shown(&home)),
        ("auto_lock = [", json!({"auto_lock_s": 120}))
    );
}

#[test]
fn reading_and_helpers_do_not_keep_the_vault_open() {
    let home = with_profile("s3cret");
    let before = left(&home);
    let polls = [
        "/v1/status",
        "/v1/runs",
        "/v1/runs/past",
        "/v1/apps",
        "/v1/profiles",
        "/v1/profiles/p",
        "/v1/launchers",
        "/v1/settings",
        "/v1/secrets",
        "/v1/kinds",
        "/v1/vault/slots",
        "/v1/audit",
        "/v1/audit/summary",
        "/v1/audit/entries/1",
        "/v1/audit/verify",
    ];
    wait_for("two seconds of the auto-lock", || {
        for path in polls {
            let answer = api(&home, "GET", path, &Value::Null);
            assert!(answer.get("code").is_none(), "{path}: {answer}");
        }
        api(&home, "POST", "/v1/profiles/p/renew", &Value::Null);
        home.keyward(&["token", "p"]).exits(0);
        home.keyward(&["run", "-p", "p", "--dry-run", "--", "true"]).exits(0);
        left(&home) + 2 <= before
    });
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
    assert!(left(&home) + 1 >= before, "a run is an action");
}

#[test]
fn times_are_counted_against_the_clock_of_the_broker() {
    let home = with_profile("s3cret");
    let now = || home.keyward(&["status", "--json"]).exits(0).json()["now"].as_str().unwrap().to_owned();
    let (first, second) = (now(), now());
    assert!(first < second && first.len() == "2026-11-21T03:04:05.123456Z".len(), "{first} {second}");
}
