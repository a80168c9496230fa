//! The orders, client by client.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::scene::Scene as Home;

/// Winner, then what is shadowed; the places are left out.
fn order(home: &Home, client: &str) -> Vec<String> {
    let client = look(home, client);
    let short = |c: &Contender| c.variable.split(" (").next().unwrap_or_default().to_owned();
    client.winner.iter().chain(&client.shadowed).map(short).collect()
}

fn look(home: &Home, client: &str) -> Client {
    clients(&home.found(), &home.around).into_iter().find(|c| c.client == client).unwrap()
}

const FEDERATED: [(&str, &str); 3] = [
    ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1"),
    ("ANTHROPIC_ORGANIZATION_ID", "o"),
    ("ANTHROPIC_IDENTITY_TOKEN_FILE", "/t"),
];

fn federated(more: &[(&'static str, &'static str)]) -> Home {
    Home::new(&[FEDERATED.as_slice(), more].concat())
}

const PYTHON: &str = "Anthropic Python SDK";
const TYPESCRIPT: &str = "Anthropic TypeScript SDK";
const GO: &str = "Anthropic Go SDK";
const CLAUDE: &str = "Claude Code";

#[test]
fn the_two_static_variables_have_opposite_orders() {
    let home = federated(&[("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_AUTH_TOKEN", "t")]);
    let (key, token, federation) = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "federation variables");
    for client in [PYTHON, TYPESCRIPT, GO, "ant"] {
        assert_eq!(order(&home, client), [key, token, federation], "{client}");
    }
    assert_eq!(order(&home, CLAUDE), [token, key, federation]);
    let python = look(&home, PYTHON);
    assert!(python.warnings.iter().any(|w| w.contains("both are sent")), "{:?}", python.warnings);
    assert!(python.warnings.iter().any(|w| w.contains("ANTHROPIC_API_KEY silently wins")), "{:?}", python.warnings);
}

#[test]
fn a_profile_on_disk_stands_elsewhere_in_each_sdk() {
    let federation = "federation variables";
    let default = federated(&[]);
    default.file(".config/anthropic/configs/default.json", "{\"authentication\":{\"type\":\"user_oauth\"}}");
    assert_eq!(order(&default, PYTHON), [federation, "profile default"]);
    assert_eq!(order(&default, GO), [federation, "profile default"]);
    assert_eq!(order(&default, TYPESCRIPT), ["profile default", federation], "a leftover file beats the federation");
    assert_eq!(order(&default, "ant"), [federation, "profile default"]);
    // With a pointer, Python takes the profile first, too.
    default.file(".config/anthropic/active_config", "default\n");
    assert_eq!(order(&default, PYTHON), ["profile default", federation]);
    assert_eq!(order(&default, GO), [federation, "profile default"]);
    // Claude Code ranks a login in the folder of the SDKs below its own.
    default.file(".claude/.credentials.json", "{\"claudeAiOauth\":{\"accessToken\":\"x\"}}");
    assert_eq!(order(&default, CLAUDE), [federation, "login of Claude Code", "profile default"]);
    default.file(".config/anthropic/configs/default.json", "{\"authentication\":{\"type\":\"oidc_federation\"}}");
    assert_eq!(order(&default, CLAUDE), [federation, "profile default", "login of Claude Code"]);
}

#[test]
fn a_named_profile_that_is_missing_fails_or_is_passed_over() {
    let home = federated(&[("ANTHROPIC_PROFILE", "gone")]);
    for client in [PYTHON, GO, "ant", CLAUDE] {
        let found = look(&home, client);
        let winner = found.winner.unwrap();
        assert!(winner.variable == "profile gone" && winner.fails.is_some(), "{client}: {winner:?}");
    }
    assert_eq!(order(&home, TYPESCRIPT), ["federation variables"]);
}

#[test]
fn xdg_config_home_counts_for_some_only() {
    let mut home = Home::new(&[]);
    let xdg = home.root.join("xdg");
    home.around.variables.insert("XDG_CONFIG_HOME".into(), xdg.into());
    home.file("../xdg/anthropic/configs/default.json", "{\"authentication\":{\"type\":\"user_oauth\"}}");
    assert_eq!(order(&home, GO), ["profile default"]);
    assert_eq!(order(&home, TYPESCRIPT), ["profile default"]);
    assert!(order(&home, PYTHON).is_empty());
}

#[test]
fn half_a_federation_is_named_field_by_field() {
    let home = Home::new(&[("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1"), ("ANTHROPIC_ORGANIZATION_ID", "")]);
    for client in [PYTHON, TYPESCRIPT, GO, CLAUDE] {
        let found = look(&home, client);
        assert!(found.winner.is_none(), "{client}");
        let named = |w: &String| w.contains("ANTHROPIC_ORGANIZATION_ID and ANTHROPIC_IDENTITY_TOKEN_FILE are missing");
        assert!(found.warnings.iter().any(named), "{client}: {:?}", found.warnings);
    }
    let fails = look(&home, "ant").winner.unwrap().fails.unwrap();
    assert!(fails.contains("ANTHROPIC_ORGANIZATION_ID"), "{fails}");
    let profile = Home::new(&[("ANTHROPIC_ORGANIZATION_ID", "o")]);
    profile.file(".config/anthropic/configs/default.json", "{\"authentication\":{\"type\":\"oidc_federation\"}}");
    let fails = look(&profile, GO).winner.unwrap().fails.unwrap();
    assert_eq!(fails, "it lacks authentication.federation_rule_id, authentication.identity_token.path");
}

#[test]
fn empty_variables_are_told_for_each_client() {
    let home = Home::new(&[
        ("ANTHROPIC_API_KEY", ""),
        ("ANTHROPIC_FEDERATION_RULE_ID", ""),
        ("GH_TOKEN", ""),
        ("PGPASSWORD", ""),
    ]);
    for client in [PYTHON, TYPESCRIPT, GO, "ant", CLAUDE, "gh", "PostgreSQL (libpq)"] {
        let found = look(&home, client);
        assert!(found.winner.is_none(), "{client}");
        assert!(found.warnings.iter().any(|w| w.contains("is set and empty")), "{client}: {:?}", found.warnings);
    }
    assert!(look(&home, GO).warnings.iter().any(|w| w.contains("ANTHROPIC_FEDERATION_RULE_ID is set and empty")));
    assert!(look(&home, "OpenAI SDKs").warnings.is_empty());
}

#[test]
fn settings_of_claude_code_win_over_the_environment() {
    let home = Home::new(&[("ANTHROPIC_AUTH_TOKEN", "t"), ("CLAUDE_CODE_OAUTH_TOKEN", "o")]);
    home.file(".claude/settings.json", "{\"env\":{\"ANTHROPIC_API_KEY\":\"k\"},\"apiKeyHelper\":\"/x\"}");
    let names = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "apiKeyHelper", "CLAUDE_CODE_OAUTH_TOKEN"];
    assert_eq!(order(&home, CLAUDE), names);
    home.file("proj/.claude/settings.json", "{\"env\":{\"ANTHROPIC_AUTH_TOKEN\":\"s\"}}");
    let found = look(&home, CLAUDE);
    assert!(found.winner.unwrap().place.0.to_string().ends_with("proj/.claude/settings.json:1"));
    assert!(found.warnings.iter().any(|w| w.contains("`keyward run` hands over") && w.contains("proj/.claude")));
    assert_eq!(order(&home, PYTHON), ["ANTHROPIC_AUTH_TOKEN"], "other programs do not read these settings");
}

#[test]
fn switches_of_claude_code_come_first_when_they_are_on() {
    for (value, first) in
        [("1", "CLAUDE_CODE_USE_BEDROCK"), ("TRUE", "CLAUDE_CODE_USE_BEDROCK"), ("0", "ANTHROPIC_API_KEY")]
    {
        let home = Home::new(&[("CLAUDE_CODE_USE_BEDROCK", value), ("ANTHROPIC_API_KEY", "k")]);
        assert_eq!(order(&home, CLAUDE)[0], first, "{value}");
    }
}

#[test]
fn where_a_variable_is_written_is_told_beside_it() {
    let home = Home::new(&[("ANTHROPIC_API_KEY", "k")]);
    home.file(".bashrc", "\nexport ANTHROPIC_API_KEY=k\n");
    home.file("proj/.env", "ANTHROPIC_API_KEY=other\nANTHROPIC_AUTH_TOKEN=t\n");
    let found = look(&home, PYTHON);
    let written: Vec<String> = found.winner.unwrap().written.iter().map(|p| p.0.to_string()).collect();
    assert!(written.len() == 1 && written[0].ends_with(".bashrc:2"), "{written:?}");
    let dormant: Vec<_> =
        found.dormant.iter().map(|d| format!("{} {}", d.variable, d.place.0.line().unwrap())).collect();
    assert_eq!(dormant, ["ANTHROPIC_API_KEY 1", "ANTHROPIC_AUTH_TOKEN 2"]);
    let claude = look(&home, CLAUDE);
    let would_win = |w: &String| w.starts_with("ANTHROPIC_AUTH_TOKEN in ") && w.contains("would win");
    assert!(claude.warnings.iter().any(would_win), "{:?}", claude.warnings);
    assert!(!found.warnings.iter().any(would_win), "{:?}", found.warnings);
}

#[test]
fn headers_that_authenticate_are_told_without_their_text() {
    let home = Home::new(&[("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: hunter2\nx: y"), ("ANTHROPIC_API_KEY", "k")]);
    for client in [PYTHON, TYPESCRIPT, GO, CLAUDE] {
        let warnings = look(&home, client).warnings.concat();
        assert!(warnings.contains("holds x-api-key") && !warnings.contains("hunter2"), "{client}: {warnings}");
    }
}

#[test]
fn the_other_clients_have_orders_of_their_own() {
    let home = Home::new(&[
        ("GITHUB_TOKEN", "a"),
        ("GH_TOKEN", "b"),
        ("GEMINI_API_KEY", "c"),
        ("GOOGLE_API_KEY", "d"),
        ("GOOGLE_GENAI_USE_VERTEXAI", "true"),
        ("AWS_ACCESS_KEY_ID", "e"),
        ("AWS_SECRET_ACCESS_KEY", "f"),
        ("AWS_PROFILE", "p"),
        ("PGPASSWORD", "g"),
        ("PGSERVICE", "s"),
        ("OPENAI_API_KEY", "h"),
    ]);
    home.file(".config/gh/hosts.yml", "github.com:\n  oauth_token: x\n");
    home.file(".aws/config", "[profile p]\ncredential_process = /x\n[default]\nsso_session = s\n");
    home.file(".pg_service.conf", "[s]\npassword=x\n");
    home.file(".pgpass", "h:1:d:u:p\n");
    home.file(".codex/auth.json", "{\"tokens\":{\"access_token\":\"x\"}}");
    assert_eq!(order(&home, "gh"), ["GH_TOKEN", "GITHUB_TOKEN", "login of gh at github.com"]);
    assert_eq!(order(&home, "Gemini"), ["GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_API_KEY", "GEMINI_API_KEY"]);
    assert_eq!(order(&home, "AWS SDKs and command line"), ["AWS_ACCESS_KEY_ID", "credential_process of [p]"]);
    assert_eq!(order(&home, "PostgreSQL (libpq)"), ["password of service s", "PGPASSWORD", "password for d at h"]);
    assert_eq!(order(&home, "OpenAI SDKs"), ["OPENAI_API_KEY"]);
    assert_eq!(order(&home, "Codex"), ["login of Codex"]);
    assert!(look(&home, "Codex").warnings.iter().any(|w| w.starts_with("OPENAI_API_KEY")));
    let half = Home::new(&[("AWS_ACCESS_KEY_ID", "e")]);
    assert!(look(&half, "AWS SDKs and command line").winner.unwrap().fails.is_some());
}

#[test]
fn a_machine_without_credentials_has_nothing_to_tell() {
    let home = Home::new(&[]);
    for client in clients(&home.found(), &home.around) {
        assert!(client.winner.is_none() && client.shadowed.is_empty() && client.warnings.is_empty(), "{client:?}");
    }
}
