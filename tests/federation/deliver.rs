//! What a child gets, and what it must not have.

use crate::{ENV, FILES, federated};
use keyward_testkit::{Home, PASSPHRASE};

/// Variables that would win over the credential, or be sent beside it, each with something in it.
const SHADOWS: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_CONFIG_DIR",
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_WORKSPACE_ID",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
];

fn environment(home: &Home, more: &[&str]) -> (Vec<(String, String)>, String) {
    let answer = home.keyward(&[&["run", "-p", "claude"], more, &["--", "env"]].concat()).exits(0);
    let pairs = answer.out.lines().filter_map(|line| line.split_once('='));
    (pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(), answer.err)
}

fn get<'e>(environment: &'e [(String, String)], name: &str) -> Option<&'e str> {
    environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

#[test]
fn the_variable_comes_with_its_host_and_nothing_that_would_win_over_it() {
    let (mut home, sandbox) = federated(&["--life", "60s"], ENV);
    for name in SHADOWS {
        home.set(name, "stale");
    }
    home.set("ANTHROPIC_BASE_URL", "https://elsewhere.example");
    home.set("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: stale\nX-Team: a");
    let (environment, said) = environment(&home, &[]);
    assert!(get(&environment, "ANTHROPIC_AUTH_TOKEN").is_some_and(|t| t.starts_with("sk-ant-oat01-")));
    assert_eq!(get(&environment, "ANTHROPIC_BASE_URL"), Some(sandbox.said("base_url")));
    for name in SHADOWS.iter().chain(&["ANTHROPIC_CUSTOM_HEADERS"]).filter(|n| **n != "ANTHROPIC_AUTH_TOKEN") {
        assert_eq!(get(&environment, name), None, "{name}");
        assert!(said.contains(&format!("unset {name} ")), "{name} is not told:\n{said}");
    }
    for name in ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"] {
        assert!(said.contains(&format!("replaced {name} (set by profile claude)")), "{name} is not told:\n{said}");
    }
    assert!(!environment.iter().any(|(_, v)| v.contains("stale")), "{environment:?}");
}

#[test]
fn settings_of_claude_code_that_win_are_told() {
    let (home, _sandbox) = federated(&["--life", "60s"], FILES);
    let folder = home.root.join(".claude");
    std::fs::create_dir(&folder).unwrap();
    let settings =
        "{\n \"apiKeyHelper\": \"/bin/key\",\n \"env\": {\n  \"ANTHROPIC_API_KEY\": \"sk-ant-api03-stale\"\n }\n}\n";
    std::fs::write(folder.join("settings.json"), settings).unwrap();
    std::os::unix::fs::symlink("/bin/true", home.bin().join("claude")).unwrap();
    let said = home.keyward(&["run", "-p", "claude", "--", "claude"]).exits(0).err;
    for line in ["settings.json:2 sets apiKeyHelper", "settings.json:4 sets ANTHROPIC_API_KEY"] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("stale"), "{said}");
    let said = home.keyward(&["run", "-p", "claude", "--deliver", "env", "--", "claude"]).exits(0).err;
    assert!(said.contains("sets ANTHROPIC_API_KEY") && !said.contains("apiKeyHelper"), "{said}");
    assert_eq!(home.keyward(&["run", "-p", "claude", "--", "true"]).exits(0).err, "");
}

#[test]
fn the_files_of_the_sdks_are_the_usual_delivery() {
    let (mut home, sandbox) = federated(&["--life", "60s"], FILES);
    home.set("ANTHROPIC_API_KEY", "stale");
    home.set("ANTHROPIC_CUSTOM_HEADERS", "X-Team: a");
    let script = "cat $ANTHROPIC_CONFIG_DIR/configs/$ANTHROPIC_PROFILE.json; echo; \
                  cat $ANTHROPIC_CONFIG_DIR/credentials/$ANTHROPIC_PROFILE.json; echo; \
                  stat -c '%a %F' $ANTHROPIC_CONFIG_DIR $ANTHROPIC_CONFIG_DIR/*/*; stat -fc %T $ANTHROPIC_CONFIG_DIR; \
                  echo ${ANTHROPIC_API_KEY-none} ${ANTHROPIC_AUTH_TOKEN-none} $ANTHROPIC_CUSTOM_HEADERS; \
                  grep -l eyJ -r $ANTHROPIC_CONFIG_DIR /proc/self/environ";
    let answer = home.keyward(&["run", "-p", "claude", "--", "sh", "-c", script]);
    let lines: Vec<&str> = answer.out.lines().collect();
    let config: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(config["authentication"], serde_json::json!({"type": "user_oauth"}));
    assert_eq!(config["base_url"], sandbox.said("base_url"));
    let credential: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(credential["type"], "oauth_token");
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    assert!((now + 50..=now + 60).contains(&credential["expires_at"].as_i64().unwrap()), "{credential}");
    assert_eq!(lines[2..5], ["700 directory", "600 regular file", "600 regular file"]);
    assert!(["tmpfs", "ramfs"].contains(&lines[5]), "{}", lines[5]);
    assert_eq!(lines[6], "none none X-Team: a", "headers that carry no credential are the person's own");
    assert_eq!(lines.len(), 7, "the child sees an assertion: {}", answer.out);
}

#[test]
fn a_usual_host_is_not_taken_from_the_environment() {
    let (mut home, sandbox) = federated(&["--life", "60s"], ENV);
    let toml = sandbox.profile("kind = \"file\"\npath = \"/nowhere\"", ENV);
    let usual: String = toml.lines().filter(|l| !l.starts_with("base_url")).collect::<Vec<_>>().join("\n");
    home.profile("usual", &usual);
    home.set("ANTHROPIC_BASE_URL", "https://elsewhere.example");
    let plan = home.keyward(&["run", "-p", "usual", "--dry-run", "--json", "--", "true"]).exits(0).json();
    assert_eq!(plan["unset"][0]["name"], "ANTHROPIC_BASE_URL", "{plan}");
    assert_eq!(plan["plan"][0]["variables"], serde_json::json!(["ANTHROPIC_AUTH_TOKEN"]));
}

#[test]
fn a_profile_that_lacks_fields_is_refused_with_each_named() {
    let home = Home::with_vault();
    let file = home.root.join("p.toml");
    std::fs::write(&file, "[issuer]\nkind = \"anthropic-federation\"\n[issuer.identity]\nkind = \"file\"\n").unwrap();
    let said = home.keyward(&["profile", "add", "p", "--from", "p.toml"]).exits(1).says("profile.incomplete");
    for field in ["issuer.federation_rule_id", "issuer.organization_id", "issuer.identity.path"] {
        assert!(said.err.contains(field), "{field}: {}", said.err);
    }
    std::fs::write(&file, "[issuer]\nkind = \"anthropic-federation\"\nfederation_rule_id = \"rule\"\n").unwrap();
    let said = home.keyward(&["profile", "add", "p", "--from", "p.toml"]).exits(1).says("profile.invalid");
    assert!(said.err.contains("fdrl_"), "{}", said.err);
}

#[test]
fn other_identity_sources_bring_the_assertion_too() {
    let (home, sandbox) = federated(&["--life", "60s"], ENV);
    home.keyward_in(&["secret", "set", "idp"], &std::fs::read_to_string(sandbox.said("client_secret_file")).unwrap())
        .exits(0);
    let client = |auth: &str| {
        format!(
            "kind = \"oauth-client-credentials\"\ntoken_url = {:?}\nclient_id = {:?}\nclient_secret = \"secret:idp\"\n\
             auth = {auth:?}\naudience = {:?}",
            sandbox.said("token_url"),
            sandbox.said("client_id"),
            sandbox.said("audience")
        )
    };
    home.profile("basic", &sandbox.profile(&client("client_secret_basic"), ENV));
    home.profile("post", &sandbox.profile(&client("client_secret_post"), ENV));
    let argv = format!("kind = \"command\"\nargv = [\"/bin/cat\", {:?}]", sandbox.token_file());
    home.profile("cat", &sandbox.profile(&argv, ENV));
    for name in ["basic", "post", "cat"] {
        let said = home.keyward(&["profile", "test", name, "--json"]).exits(0).json();
        assert_eq!(said["expires_in_s"], 60, "{name}: {said}");
    }
    assert_eq!(sandbox.count("idp_tokens"), 2);
}

#[test]
fn under_any_name_the_child_gets_neither_the_assertion_nor_another_credential() {
    let (mut home, sandbox) = federated(&["--life", "60s"], ENV);
    let assertion = std::fs::read_to_string(sandbox.token_file()).unwrap();
    home.profile("ci", &sandbox.profile("kind = \"env-token\"\nvariable = \"CI_JOB_JWT\"", ENV));
    let own = "[delivery]\nmode = \"file\"\nenv = { MY_TOK = \"token\" }";
    sandbox.federate(&home, "own", own);
    for name in ["CI_JOB_JWT", "ANTHROPIC_IDENTITY_TOKEN"] {
        home.set(name, assertion.trim());
    }
    home.set("ANTHROPIC_API_KEY", "stale");
    home.set("ANTHROPIC_AUTH_TOKEN", "stale");
    for profile in ["ci", "own"] {
        let out = home.keyward(&["run", "-p", profile, "--", "env"]).exits(0).out;
        assert!(!out.contains("ANTHROPIC_IDENTITY_TOKEN=") && !out.contains("stale"), "{profile}: {out}");
        assert_eq!(out.contains("CI_JOB_JWT="), profile == "own", "only the profile that reads it takes it away");
    }
}

#[test]
fn a_profile_that_moves_to_another_host_takes_back_what_runs_hold() {
    let (home, sandbox) = federated(&["--life", "60s"], FILES);
    let mut child = crate::shell(&home);
    let folder = crate::ask(&mut child, "echo $ANTHROPIC_CONFIG_DIR");
    let toml = sandbox.profile(&format!("kind = \"file\"\npath = {:?}", sandbox.token_file()), "");
    let edit = |toml: &str| {
        std::fs::write(home.root.join("edit.toml"), toml).unwrap();
        home.keyward_in(&["profile", "edit", "claude", "--from", "edit.toml", "--passphrase-stdin"], PASSPHRASE)
            .exits(0);
    };
    // A shorter limit concerns no credential.
    edit(&format!("{toml}[limits]\nmax_ttl = \"1h\"\n"));
    assert_eq!(crate::lease(&home)["state"], "live");
    home.keyward(&["token", "claude"]).exits(0);
    assert_eq!(sandbox.count("asked"), 1, "the credential stays");
    edit(&toml.replace("http://127.0.0.1", "http://localhost"));
    assert_eq!(crate::lease(&home)["state"], "revoked");
    assert!(!std::path::Path::new(&folder).exists());
}
