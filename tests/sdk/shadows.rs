//! What is left over in the shell and in the home does not win over the credential.

use crate::{ENV, FILES, Sdk, all_went_well, call, federated, newest};
use keyward_testkit::Home;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

/// Variables that choose a credential, each with something stale in it.
const STALE: &[(&str, &str)] = &[
    ("ANTHROPIC_API_KEY", "sk-ant-api03-stale"),
    ("ANTHROPIC_AUTH_TOKEN", "sk-ant-oat01-stale"),
    ("ANTHROPIC_CONFIG_DIR", "/nowhere/stale"),
    ("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: sk-ant-api03-stale\nx-team: stale"),
    ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_stale"),
    ("ANTHROPIC_IDENTITY_TOKEN", "eyJhbGciOiJFUzI1NiJ9.e30.stale"),
    ("ANTHROPIC_IDENTITY_TOKEN_FILE", "/nowhere/stale"),
    ("ANTHROPIC_ORGANIZATION_ID", "00000000-0000-0000-0000-000000000000"),
    ("ANTHROPIC_PROFILE", "stale"),
    ("ANTHROPIC_SERVICE_ACCOUNT_ID", "svac_stale"),
    ("ANTHROPIC_WORKSPACE_ID", "wrkspc_stale"),
    ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-stale"),
];

/// Variables that the delivery itself sets, so that they are replaced and not unset.
fn is_carrier(more: &str, name: &str) -> bool {
    let carriers: &[&str] =
        if more == FILES { &["ANTHROPIC_CONFIG_DIR", "ANTHROPIC_PROFILE"] } else { &["ANTHROPIC_AUTH_TOKEN"] };
    carriers.contains(&name)
}

/// Leaves the active profile of an SDK in the home, with a token that nothing accepts.
fn leave_a_profile(home: &Home) {
    let folder = home.root.join(".config/anthropic");
    let credentials = folder.join("credentials/left.json");
    for part in ["configs", "credentials"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    let config =
        json!({"version": "1.0", "authentication": {"type": "user_oauth"}, "base_url": "https://stale.example"});
    std::fs::write(folder.join("configs/left.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("active_config"), "left\n").unwrap();
    let credential = json!({"version": "1.0", "type": "oauth_token", "access_token": "sk-ant-oat01-stale"});
    std::fs::write(&credentials, credential.to_string()).unwrap();
    std::fs::set_permissions(&credentials, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn stale_variables_and_profiles_do_not_win_and_are_reported() {
    for more in ["", FILES, ENV] {
        let (mut home, sandbox) = federated(&["--life", "10m"], more);
        leave_a_profile(&home);
        for (name, value) in STALE {
            home.set(name, value);
        }
        home.set("ANTHROPIC_BASE_URL", "https://stale.example");
        for sdk in Sdk::BOTH {
            let said = call(&home, sdk, &["ask"]);
            assert_eq!(said.out.trim_end(), newest(&sandbox), "{sdk:?} {more:?}");
            for (name, value) in STALE.iter().filter(|(name, _)| !is_carrier(more, name)) {
                assert!(said.err.contains(&format!("unset {name} ")), "{name} is not reported:\n{}", said.err);
                assert!(!said.err.contains(value), "{name} is shown:\n{}", said.err);
            }
            assert!(!said.err.contains("sk-ant-"), "{}", said.err);
        }
        all_went_well(&sandbox);
        assert_eq!((sandbox.count("messages"), sandbox.count("asked")), (2, 1));
    }
}

#[test]
fn each_stale_credential_alone_does_not_win_either() {
    // Some of them hide others, so that all at once would not show each.
    for name in ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS"] {
        let (mut home, sandbox) = federated(&["--life", "10m"], FILES);
        let (_, value) = STALE.iter().find(|(stale, _)| *stale == name).unwrap();
        home.set(name, value);
        for sdk in Sdk::BOTH {
            assert_eq!(call(&home, sdk, &["ask"]).out.trim_end(), newest(&sandbox), "{sdk:?} {name}");
        }
        all_went_well(&sandbox);
    }
}
