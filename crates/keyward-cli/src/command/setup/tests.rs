//! What is offered, under which name, and what comes next.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::scene::Scene;
use serde_json::json;

fn profile(name: &str, issuer: &str, variable: &str, toml: &str) -> ProfileMsg {
    let profile = json!({"name": name, "issuer": issuer, "delivery": "env", "variables": [variable], "max_ttl_s": 1, "leases": 0,
        "toml": toml, "created_at": "", "updated_at": ""});
    serde_json::from_value(profile).unwrap()
}

fn stock(profiles: Vec<ProfileMsg>, secrets: &[&str]) -> Stock {
    Stock { profiles, secrets: secrets.iter().map(|s| (*s).to_owned()).collect() }
}

fn offered(scene: &Scene) -> Vec<Offer> {
    offers(&mut scene.found(), &Federation::from_environment(&scene.around))
}

#[test]
fn each_secret_is_offered_once_with_all_of_its_places() {
    let scene = Scene::new(&[("ANTHROPIC_API_KEY", "k"), ("GH_TOKEN", "g")]);
    scene.file(".bashrc", "export ANTHROPIC_API_KEY=k\nexport GITHUB_TOKEN=h\n");
    scene.file("proj/.env", "ANTHROPIC_API_KEY=other\n");
    scene.file(".config/gh/hosts.yml", "github.com:\n  oauth_token: h\n");
    let offers = offered(&scene);
    let told: Vec<_> = offers.iter().map(|o| (o.variable.as_str(), o.also.len())).collect();
    let want = [("ANTHROPIC_API_KEY", 1), ("GH_TOKEN", 0), ("GITHUB_TOKEN", 1), ("ANTHROPIC_API_KEY", 0)];
    assert_eq!(told, want);
    assert_eq!(offers[0].place, Place::Environment);
}

#[test]
fn names_are_those_of_the_family_and_never_taken_ones() {
    let scene = Scene::new(&[("GITHUB_TOKEN", "k")]);
    let offer = offered(&scene).remove(0);
    assert_eq!(stock(vec![], &[]).free_name(&offer).as_deref(), Some("github"));
    assert_eq!(stock(vec![], &["github"]).free_name(&offer).as_deref(), Some("github-token"));
    let taken = stock(vec![profile("github-token", "static", "X", "")], &["github"]);
    assert_eq!(taken.free_name(&offer), None);
}

#[test]
fn what_the_vault_has_is_kept() {
    let scene = Scene::new(&[
        ("ANTHROPIC_AUTH_TOKEN", "k"),
        ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1"),
        ("ANTHROPIC_ORGANIZATION_ID", "o"),
        ("ANTHROPIC_IDENTITY_TOKEN_FILE", "/t"),
    ]);
    let offers = offered(&scene);
    let of_rule = |rule: &str| {
        let toml = format!("[issuer]\nkind = \"anthropic-federation\"\nfederation_rule_id = \"{rule}\"\n");
        stock(vec![profile("ci", FEDERATION, "ANTHROPIC_AUTH_TOKEN", &toml)], &[])
    };
    assert_eq!(offers[0].found_as, "ANTHROPIC_FEDERATION_RULE_ID", "the federation comes first");
    assert!(of_rule("fdrl_1").holds(&offers[0]).is_some());
    assert!(of_rule("fdrl_2").holds(&offers[0]).is_none());
    assert!(of_rule("fdrl_1").holds(&offers[1]).is_none(), "a federated token is not the key of the same variable");
    let held = stock(vec![profile("x", "static", "ANTHROPIC_AUTH_TOKEN", "")], &[]);
    assert!(held.holds(&offers[1]).is_some());
}

#[test]
fn the_next_command_names_an_agent_that_is_there() {
    let mut scene = Scene::new(&[]);
    let bin = scene.root.join("home/bin");
    let install = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = scene.file(&format!("bin/{name}"), "");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    install("codex");
    scene.around.variables.insert("PATH".into(), bin.into());
    let anthropic = || profile("anthropic", "static", "ANTHROPIC_API_KEY", "");
    let federated = || profile("ci", FEDERATION, "ANTHROPIC_AUTH_TOKEN", "");
    let openai = || profile("openai", "static", "OPENAI_API_KEY", "");
    let github = || profile("github", "static", "GITHUB_TOKEN", "");
    for (profiles, want) in [
        (vec![], "keyward secret set NAME"),
        (vec![anthropic()], "keyward run -- claude"),
        (vec![openai()], "keyward run -- codex"),
        (vec![anthropic(), openai()], "keyward run -p openai -- codex"),
        (vec![anthropic(), federated()], "keyward run -p ci -- claude"),
        (vec![github()], "keyward run -- codex"),
        (vec![github(), profile("x", "static", "X", "")], "keyward run -p github -- codex"),
    ] {
        assert_eq!(next(&stock(profiles, &[]), &scene.around), want);
    }
}

#[test]
fn what_still_holds_a_secret_is_said_and_no_text_of_others_breaks_the_screen() {
    let told = Told {
        family: "anthropic",
        variable: "ANTHROPIC_API_KEY".into(),
        place: "environment".into(),
        also: vec!["/h/\u{1b}[2J.bashrc:3".into()],
        profile: Some("anthropic".into()),
        moved: true,
        fingerprint: None,
        why: None,
    };
    let text = screen(&[told], &Found::default(), "keyward run -- claude");
    assert!(text.contains("moved in as profile anthropic") && text.contains(".bashrc:3: remove it"), "{text}");
    assert!(text.contains("unset it in this shell") && text.ends_with("next: keyward run -- claude\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}
