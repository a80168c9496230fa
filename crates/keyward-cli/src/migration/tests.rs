//! The steps and their order.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;
use crate::scene::Scene;
use keyward_find::find::workflow::exposed;
use serde_json::json;

fn profile(exchange: serde_json::Value) -> ProfileMsg {
    let profile = json!({"name": "ci", "issuer": "anthropic-federation", "delivery": "env", "variables": [],
        "max_ttl_s": 1, "leases": 0, "toml": "", "created_at": "", "updated_at": "", "last_exchange": exchange});
    serde_json::from_value(profile).unwrap()
}

fn exchange(scope: &str, life: u64, subject: &str) -> serde_json::Value {
    json!({"at": "", "ok": true, "scope": scope, "expires_in_s": life, "facts": {"assertion_subject": subject}})
}

fn told(scene: &Scene, profiles: Option<&[ProfileMsg]>) -> Vec<String> {
    let mut found = scene.found();
    let workflows = exposed(&scene.around, &mut found);
    let federation = Federation::from_environment(&scene.around);
    let steps = steps(&found, &federation, profiles, &workflows);
    let root = format!("{}/", scene.root.display());
    steps.iter().map(|s| format!("{} @{}", s.step, s.place.as_deref().unwrap_or_default().replace(&root, ""))).collect()
}

#[track_caller]
fn at(steps: &[String], text: &str) -> usize {
    steps.iter().position(|s| s.contains(text)).unwrap_or_else(|| panic!("no `{text}` in {steps:#?}"))
}

#[test]
fn the_key_is_unset_everywhere_before_it_is_revoked() {
    let scene = Scene::new(&[("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_AUTH_TOKEN", "")]);
    scene.file(".bashrc", "export ANTHROPIC_API_KEY=k\n");
    scene.file("proj/.env", "#\nANTHROPIC_API_KEY=k\n");
    scene.file("proj/.envrc", "export ANTHROPIC_AUTH_TOKEN=$(x)\n");
    scene.file(".claude/settings.json", "{\"env\":{\"ANTHROPIC_API_KEY\":\"k\"},\"apiKeyHelper\":\"/x\"}");
    let steps = told(&scene, Some(&[]));
    let rule = at(&steps, "workspace:inference");
    let add = at(&steps, "keyward profile add NAME --federation");
    let first = at(&steps, "unset ANTHROPIC_API_KEY @environment");
    for remove in [
        "remove ANTHROPIC_API_KEY @home/.bashrc:1",
        "remove ANTHROPIC_API_KEY @home/proj/.env:2",
        "remove ANTHROPIC_AUTH_TOKEN @home/proj/.envrc:1",
        "remove ANTHROPIC_API_KEY @home/.claude/settings.json:1",
        "remove apiKeyHelper @home/.claude/settings.json:1",
    ] {
        assert!(at(&steps, remove) > first, "{remove}");
    }
    let again = at(&steps, "keyward doctor");
    let revoke = at(&steps, "revoke the old key");
    assert!(rule < add && add < first && again + 1 == revoke && revoke + 1 == steps.len(), "{steps:#?}");
}

#[test]
fn scope_life_and_subject_of_an_exchange_are_judged() {
    let scene = Scene::new(&[]);
    let of = |scope: &str, life, subject: &str| told(&scene, Some(&[profile(exchange(scope, life, subject))]));
    let wide = of("workspace:developer", 3_600, "repo:o/r:pull_request");
    at(&wide, "narrow the scope of the rule: workspace:inference instead of workspace:developer @profile ci");
    at(&wide, "the rule gives 3600 s, the default; 600 s is enough");
    at(&wide, "match another subject than repo:o/r:pull_request");
    at(&of("org:admin", 600, "x"), "AT ONCE");
    at(&of("workspace:inference", 7_200, "x"), "the rule gives 7200 s; 600 s is enough");
    at(&of("workspace:inference", 600, "repo:o/*"), "exact subject");
    for (scope, life, subject) in [
        ("workspace:inference", 600, "repo:o/r:ref:refs/heads/main"),
        ("workspace:inference", 60, "system:serviceaccount:a:b"),
        ("workspace:inference", 600, "repo:o/pull_request:ref:refs/heads/main"),
    ] {
        assert_eq!(of(scope, life, subject).len(), 2, "{subject}: only to look again and to revoke");
    }
}

#[test]
fn a_profile_that_was_never_tried_is_tried_first() {
    let scene = Scene::new(&[]);
    for exchange in [serde_json::Value::Null, json!({"at": "", "ok": false, "code": "issuer.refused"})] {
        let steps = told(&scene, Some(&[profile(exchange)]));
        assert_eq!(at(&steps, "keyward profile test ci"), 0);
    }
}

#[test]
fn what_is_missing_or_not_seen_is_said() {
    let half = Scene::new(&[("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1")]);
    let steps = told(&half, None);
    assert_eq!(at(&steps, "ANTHROPIC_ORGANIZATION_ID and ANTHROPIC_IDENTITY_TOKEN_FILE are missing @environment"), 0);
    let whole = Scene::new(&[
        ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1"),
        ("ANTHROPIC_ORGANIZATION_ID", "o"),
        ("ANTHROPIC_IDENTITY_TOKEN", "a.b.c"),
    ]);
    at(&told(&whole, None), "keyward profile add NAME --from-env");
}

#[test]
fn workflows_that_others_can_start_are_named() {
    let scene = Scene::new(&[]);
    scene.file("proj/.github/workflows/ci.yml", "on: pull_request_target\npermissions:\n  id-token: write\n");
    scene.file("proj/.github/workflows/release.yaml", "on: push\npermissions:\n  id-token: write\n");
    let steps = told(&scene, Some(&[]));
    at(
        &steps,
        "run on pull_request_target, and let the rule match a subject that they do not have @home/proj/.github/workflows/ci.yml:3",
    );
    assert!(!steps.concat().contains("release.yaml"));
}
