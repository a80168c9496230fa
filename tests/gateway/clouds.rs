//! Credentials of the clouds that lie on the machine: found as the SDKs find them, and used by the gateway alone.

use crate::ask;
use keyward_testkit::{Home, Sandbox, Talk};
use serde_json::Value;

/// A sandbox whose credentials live for a while.
fn home() -> (Home, Sandbox) {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &["--life", "10m"]);
    (home, sandbox)
}

/// Adds a profile for keys of AWS that the shared files of the sandbox lead to.
#[track_caller]
fn aws(home: &Home, sandbox: &Sandbox, name: &str, more: &str) {
    let said = |field: &str| sandbox.said(field).to_owned();
    let toml = format!(
        "[issuer]\nkind = \"aws-credentials\"\nsource = \"profile\"\nconfig_file = \"{}\"\ncredentials_file = \"{}\"\n\
         sts_url = \"{}\"\nsso_url = \"{}\"\nsso_cache = \"{}\"\n{more}",
        said("aws_config_file"),
        said("aws_shared_credentials_file"),
        said("aws_sts_url"),
        said("aws_sso_url"),
        said("aws_sso_cache"),
    );
    home.profile(name, &toml);
}

/// One call to Bedrock from a run of the profile: the body of the answer.
#[track_caller]
fn converse(home: &Home, profile: &str) -> String {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let mut child = Talk::start(home.keyward_command(&["run", "-p", profile, "--", "sh"]));
    let said = ask(
        &mut child,
        &format!(
            "echo $(curl -s -m 20 -H \"x-api-key: $AWS_ACCESS_KEY_ID\" -H 'content-type: application/json' -d '{body}' \"$AWS_ENDPOINT_URL_BEDROCK_RUNTIME/model/m/converse\")"
        ),
    );
    child.send(b"exit 0\n");
    child.end().exits(0);
    said
}

#[test]
fn keys_of_a_role_an_identity_token_and_a_login_sign_for_bedrock() {
    let (home, sandbox) = home();
    for shared in ["role", "web", "login", "keys"] {
        let more = format!("profile = \"{shared}\"\nbase_url = \"{}\"\n", sandbox.said("base_url"));
        aws(&home, &sandbox, shared, &more);
        let said = converse(&home, shared);
        assert!(said.contains("token "), "{shared}: {said}");
        let written = home.keyward(&["profile", "show", shared, "--toml"]).exits(0).out;
        assert_eq!(written.contains("region = \"us-east-1\""), shared != "keys", "{shared}: {written}");
    }
    assert_eq!((sandbox.count("messages"), sandbox.count("unauthorized")), (4, 0));
    // The role through two others, the token and the login.
    assert_eq!(sandbox.count("aws_keys"), 4);
    let log = serde_json::to_string(&home.audit()).unwrap();
    assert!(log.contains("role/sandbox-top") && !log.contains("s/+"), "{log}");
}

#[test]
fn claude_code_on_bedrock_gets_the_address_and_signs_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let (mut home, sandbox) = home();
    aws(&home, &sandbox, "b", &format!("profile = \"keys\"\nbase_url = \"{}\"\n", sandbox.said("base_url")));
    // A program is known by the name of its file.
    let claude = home.root.join("claude");
    std::fs::write(&claude, "#!/bin/sh\nexec env\n").unwrap();
    std::fs::set_permissions(&claude, std::fs::Permissions::from_mode(0o700)).unwrap();
    for stale in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CLAUDE_CODE_USE_MANTLE"] {
        home.set(stale, "stale");
    }
    let environment = home.keyward(&["run", "-p", "b", "--", claude.to_str().unwrap()]).exits(0).out;
    let value = |name: &str| environment.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    for on in ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_SKIP_BEDROCK_AUTH"] {
        assert_eq!(value(on), Some("1"), "{environment}");
    }
    let address = value("ANTHROPIC_BEDROCK_BASE_URL").unwrap();
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    assert_eq!(value("AWS_ENDPOINT_URL_BEDROCK_RUNTIME"), Some(address));
    assert!(value("AWS_BEARER_TOKEN_BEDROCK").is_some_and(|token| token.starts_with("kwr_")), "{environment}");
    assert_eq!(value("AWS_REGION"), Some("us-east-1"));
    assert!(!environment.contains("stale"), "{environment}");
}

#[test]
fn the_region_of_the_shared_profile_is_where_the_gateway_goes_and_what_it_signs_for() {
    let (home, sandbox) = home();
    let config = home.root.join("config-of-aws");
    std::fs::write(&config, "[default]\nregion = eu-west-1\n[profile other]\nregion = eu-west-2\n").unwrap();
    let files = format!("config_file = \"{}\"\n", config.display());
    let file = |more: &str| format!("[issuer]\nkind = \"aws-credentials\"\nsource = \"instance\"\n{files}{more}");
    home.profile("usual", &file(""));
    home.profile("other", &file("profile = \"other\"\n"));
    home.profile("said", &file("region = \"us-west-2\"\n"));
    for (profile, region) in [("usual", "eu-west-1"), ("other", "eu-west-2"), ("said", "us-west-2")] {
        let plan: Value = home.keyward(&["run", "-p", profile, "--dry-run", "--json", "--", "true"]).exits(0).json();
        let told = plan.to_string();
        assert!(told.contains(&format!("bedrock-runtime.{region}.amazonaws.com")), "{profile}: {told}");
    }
    // It stays where it is until the profile is stored again: nobody moves it by a file.
    std::fs::write(&config, "[default]\nregion = eu-north-1\n").unwrap();
    let told = home.keyward(&["run", "-p", "usual", "--dry-run", "--json", "--", "true"]).exits(0).out;
    assert!(told.contains("bedrock-runtime.eu-west-1."), "{told}");
    drop(sandbox);
}

#[test]
fn an_account_of_others_is_exchanged_and_impersonated_for_vertex() {
    let (home, sandbox) = home();
    let toml = format!(
        "[issuer]\nkind = \"google-adc\"\nregion = \"us-east5\"\ncredentials_file = \"{}\"\nbase_url = \"{}\"\n",
        sandbox.said("google_external_account_file"),
        sandbox.said("base_url"),
    );
    home.profile("g", &toml);
    let written = home.keyward(&["profile", "show", "g", "--toml"]).exits(0).out;
    assert!(written.contains(&format!("project = \"{}\"", sandbox.said("google_project"))), "{written}");
    let tested = home.keyward(&["profile", "test", "g", "--json"]).exits(0).json();
    assert_eq!(tested["facts"]["service_account"], "agent@sandbox-project.iam.gserviceaccount.com", "{tested}");
    assert_eq!(sandbox.count("google_tokens"), 2, "one of the exchange, one of the account");
    let project = home.keyward(&["run", "-p", "g", "--", "sh", "-c", "echo $ANTHROPIC_VERTEX_PROJECT_ID"]).exits(0).out;
    assert_eq!(project.trim(), sandbox.said("google_project"));
}
