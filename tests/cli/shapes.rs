//! The fields of `--json` that other programs rely on: they may become more, and none may go.

use crate::waiting_run;
use keyward_testkit::{Home, PASSPHRASE};
use serde_json::Value;

/// A command, its input, and the fields of its output. `[]` stands for every element of a list that has at least one.
const SHAPES: &[(&[&str], &str, &[&str])] = &[
    (
        &["status"],
        "",
        &["version", "vault.state", "broker.pid", "broker.started_at", "broker.rss_bytes", "runs", "leases", "home"],
    ),
    (&["status"], "", &["me.role", "waiting"]),
    (
        &["grant", "add", "--profile", "p", "--passphrase-stdin"],
        PASSPHRASE,
        &["grant", "span", "profile", "weakest", "created_at", "until", "allowed"],
    ),
    (&["grant", "list"], "", &["[].grant", "[].span", "[].profile", "[].weakest", "[].until", "[].allowed"]),
    (&["doctor"], "", &["machine.[].fact", "machine.[].value", "machine.[].ok", "machine.[].means"]),
    (
        &["ps"],
        "",
        &[
            "[].run",
            "[].pid",
            "[].app",
            "[].app_verified",
            "[].project",
            "[].started_at",
            "[].leases.[].lease",
            "[].leases.[].profile",
            "[].leases.[].delivery",
            "[].leases.[].state",
            "[].leases.[].issued_at",
            "[].leases.[].expires_at",
            "[].leases.[].renewals",
            "[].leases.[].uses",
        ],
    ),
    (&["secret", "list"], "", &["[].name", "[].created_at", "[].updated_at"]),
    (&["secret", "reveal", "p", "--passphrase-stdin"], PASSPHRASE, &["secret", "base64"]),
    (&["profile", "list"], "", &["[].name", "[].issuer", "[].delivery", "[].variables.[]", "[].max_ttl_s", "[].toml"]),
    (&["profile", "show", "p"], "", &["name", "issuer", "delivery", "variables.[]", "created_at", "updated_at"]),
    (&["profile", "test", "p"], "", &["ok", "kind", "scope", "expires_in_s"]),
    (
        &["profile", "kinds"],
        "",
        &["[].kind", "[].role", "[].about", "[].fields.[].name", "[].fields.[].required", "[].fields.[].secret"],
    ),
    (&["token", "p"], "", &["token", "kind", "expires_at", "expires_in_s"]),
    (
        &["run", "-p", "p", "--dry-run", "--", "true"],
        "",
        &[
            "plan.[].profile",
            "plan.[].delivery",
            "plan.[].variables.[]",
            "plan.[].gives_away",
            "plan.[].ttl_s",
            "unset",
        ],
    ),
    (
        &["audit", "list"],
        "",
        &["[].seq", "[].prev", "[].mac", "[].entry.seq", "[].entry.at", "[].entry.kind", "[].entry.outcome"],
    ),
    (&["audit", "show", "1"], "", &["seq", "prev", "mac", "entry.kind"]),
    (
        &["audit", "verify"],
        "",
        &["ok", "entries", "head.seq", "head.mac", "anchor.state", "anchor.seq", "anchor.seen.[]", "problems", "gaps"],
    ),
    (&["vault", "slot", "list"], "", &["[].slot", "[].kind", "[].about"]),
    (&["vault", "slot", "add", "recovery", "--passphrase-stdin"], PASSPHRASE, &["recovery_key"]),
    (&["unlock", "--passphrase-stdin"], PASSPHRASE, &["resumed_runs", "warnings"]),
    (
        &["revoke", "p"],
        "",
        &["leases", "runs.[].run", "runs.[].app", "runs.[].pid", "runs.[].profiles.[]", "runs.[].remains.[]"],
    ),
    (&["lock"], "", &["runs"]),
    (&["broker", "restart"], "", &["version", "vault.state", "broker.pid"]),
];

/// Fails unless the field is there.
fn has(value: &Value, path: &str) -> Result<(), String> {
    let (first, rest) = path.split_once('.').map_or((path, ""), |(first, rest)| (first, rest));
    let missing = || format!("`{first}` is missing in {value}");
    let inner: Vec<&Value> = if first == "[]" {
        value.as_array().filter(|list| !list.is_empty()).ok_or_else(missing)?.iter().collect()
    } else {
        vec![value.get(first).ok_or_else(missing)?]
    };
    if rest.is_empty() { Ok(()) } else { inner.into_iter().try_for_each(|v| has(v, rest)) }
}

#[test]
fn every_report_has_its_fields() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let child = waiting_run(&home, "p");
    for (args, input, fields) in SHAPES {
        let answer = home.keyward_in(&[&["--json"], *args].concat(), input).exits(0);
        assert_eq!(answer.out.lines().count(), 1, "one document on one line: {args:?}");
        let value = answer.json();
        for field in *fields {
            has(&value, field).unwrap_or_else(|e| panic!("{args:?} {field}: {e}"));
        }
    }
    drop(child);
}

#[test]
fn a_missing_field_is_noticed() {
    let value = serde_json::json!([{"a": {"b": null}}, {"a": {}}]);
    assert_eq!((has(&value, "[].a"), has(&value, "[].a.b").is_err()), (Ok(()), true));
    assert!(has(&serde_json::json!([]), "[].a").is_err(), "an empty list shows nothing");
}

#[test]
fn words_in_json_have_a_fixed_set() {
    let home = Home::new();
    let state = || home.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"].clone();
    assert_eq!(state(), "absent");
    home.init();
    assert_eq!(state(), "unlocked");
    home.keyward(&["lock"]).exits(0);
    assert_eq!(state(), "locked");
    home.stop_broker();
    let status = home.keyward(&["status", "--json"]).exits(0).json();
    assert_eq!((&status["vault"]["state"], status.get("broker")), (&"locked".into(), None));
    let kinds = home.keyward(&["profile", "kinds", "--json"]).exits(0).json();
    let kinds: Vec<_> = kinds.as_array().unwrap().iter().map(|k| (k["kind"].clone(), k["role"].clone())).collect();
    for kind in ["static", "command"] {
        assert!(kinds.contains(&(kind.into(), "issuer".into())), "{kinds:?}");
    }
}
