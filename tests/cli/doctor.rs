//! `doctor` with the real programs.

use keyward_testkit::{Home, Sandbox};
use serde_json::{Value, json};

const KEY: &str = "sk-ant-api03-the-key-of-this-test";

fn doctor(home: &Home) -> Value {
    let answer = home.keyward(&["doctor", "--json"]).exits(0);
    assert!(!answer.out.contains(KEY) && answer.err.is_empty(), "{}{}", answer.out, answer.err);
    answer.json()
}

fn family<'a>(report: &'a Value, client: &str) -> &'a Value {
    let families = report["families"].as_array().unwrap();
    families.iter().find(|f| f["client"] == client).unwrap_or_else(|| panic!("no {client}: {report}"))
}

fn steps(report: &Value) -> Vec<String> {
    let steps = report["migration"].as_array().unwrap().iter();
    steps.map(|s| format!("{} @{}", s["step"].as_str().unwrap(), s["where"].as_str().unwrap_or_default())).collect()
}

#[test]
fn it_says_what_wins_with_file_and_line_and_starts_no_broker() {
    let mut home = Home::new();
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("ANTHROPIC_AUTH_TOKEN", "another-secret");
    home.set("GH_TOKEN", "");
    let root = home.root.display().to_string();
    std::fs::write(home.root.join(".zshrc"), format!("\n\nexport ANTHROPIC_API_KEY=\"{KEY}\"\n")).unwrap();
    std::fs::write(home.root.join(".env"), "OPENAI_API_KEY=sk-in-the-file\n").unwrap();
    std::fs::create_dir(home.root.join(".claude")).unwrap();
    let settings = r#"{"env": {"ANTHROPIC_AUTH_TOKEN": "of-the-settings"}}"#;
    std::fs::write(home.root.join(".claude/settings.json"), settings).unwrap();
    let report = doctor(&home);
    let python = family(&report, "Anthropic Python SDK");
    assert_eq!(
        (&python["winner"]["variable"], &python["winner"]["place"]),
        (&json!("ANTHROPIC_API_KEY"), &json!("environment"))
    );
    assert_eq!(python["winner"]["written"][0]["place"], format!("{root}/.zshrc:3"));
    assert_eq!(python["shadowed"][0]["variable"], "ANTHROPIC_AUTH_TOKEN");
    let claude = family(&report, "Claude Code");
    assert_eq!(claude["winner"]["place"], format!("{root}/.claude/settings.json:1"));
    assert_eq!(
        (&claude["winner"]["line"], &claude["shadowed"][1]["variable"]),
        (&json!(1), &json!("ANTHROPIC_API_KEY"))
    );
    let openai = family(&report, "OpenAI SDKs");
    assert_eq!((&openai["winner"], &openai["dormant"][0]["line"]), (&Value::Null, &json!(1)));
    assert!(family(&report, "gh")["warnings"][0].as_str().unwrap().contains("set and empty"));
    let steps = steps(&report);
    for want in
        ["unset ANTHROPIC_API_KEY @environment".to_owned(), format!("remove ANTHROPIC_API_KEY @{root}/.zshrc:3")]
    {
        assert!(steps.contains(&want), "{want}: {steps:#?}");
    }
    assert!(steps.last().unwrap().contains("revoke the old key"), "{steps:#?}");
    let text = home.keyward(&["doctor"]).exits(0).out;
    assert!(text.contains(&format!("{root}/.zshrc:3")) && text.contains("Migration\n"), "{text}");
    for secret in [KEY, "another-secret", "of-the-settings", "sk-in-the-file"] {
        assert!(!text.contains(secret) && !report.to_string().contains(secret), "{secret}");
    }
    assert_eq!((&report["broker"], home.broker_pid()), (&json!("none"), None));
    assert!(!home.keyward_home().exists(), "nothing is made");
}

#[test]
fn it_judges_the_exchanges_of_profiles_that_federate() {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &[]);
    sandbox.federate(&home, "ci", "");
    assert_eq!(steps(&doctor(&home))[0], "make an exchange: `keyward profile test ci`, then this again @profile ci");
    home.keyward(&["profile", "test", "ci"]).exits(0);
    let report = doctor(&home);
    let profile = &report["profiles"][0];
    assert_eq!(
        (&profile["name"], &profile["identity"], &report["broker"]),
        (&json!("ci"), &json!("file"), &json!("open"))
    );
    let (scope, life) = (profile["scope"].as_str().unwrap(), profile["expires_in_s"].as_u64().unwrap());
    let steps = steps(&report);
    let has = |text: &str| steps.iter().any(|s| s.contains(text) && s.ends_with("@profile ci"));
    assert_eq!(has("narrow the scope"), scope.contains("workspace:developer"), "{scope}: {steps:#?}");
    assert_eq!(has("shorten the life"), life > 600, "{life}: {steps:#?}");
    assert!(!steps.iter().any(|s| s.contains("keyward profile add")), "{steps:#?}");
    home.keyward(&["lock"]).exits(0);
    let locked = doctor(&home);
    assert_eq!((&locked["broker"], &locked["profiles"]), (&json!("locked"), &json!([])));
}

#[test]
fn hostile_files_neither_hang_it_nor_end_it() {
    let home = Home::new();
    let fifo = home.root.join(".bashrc");
    keyward_testkit::run(
        {
            let mut command = home.command("mkfifo");
            command.arg(&fifo);
            command
        },
        b"",
    )
    .exits(0);
    std::os::unix::fs::symlink("/dev/zero", home.root.join(".profile")).unwrap();
    std::fs::create_dir_all(home.root.join(".claude/settings.json")).unwrap();
    std::fs::write(home.root.join(".env"), [b'A', b'=', 0xff, 0xfe, b'\n']).unwrap();
    std::fs::write(home.root.join(".npmrc"), "x\u{1b}[2J:_authToken=t\n").unwrap();
    let report = doctor(&home);
    let unread = report["unread"].to_string();
    for file in [".bashrc", ".profile", "settings.json"] {
        assert!(unread.contains(file), "{file}: {unread}");
    }
    let text = home.keyward(&["doctor"]).exits(0).out;
    assert!(!text.contains('\u{1b}') && text.contains("not read: "), "{text:?}");
}

#[test]
fn what_was_moved_in_is_not_offered_again() {
    let mut home = Home::with_vault();
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("OPENAI_API_KEY", "sk-x");
    let text = || home.keyward(&["doctor"]).exits(0).out;
    assert_eq!(text().matches("can be moved in").count(), 2, "{}", text());
    home.keyward(&["profile", "add", "work", "--from-env", "--variable", "ANTHROPIC_API_KEY"]).exits(0);
    let after = text();
    assert!(after.contains("profile work stands for ANTHROPIC_API_KEY already"), "{after}");
    assert_eq!(after.matches("can be moved in").count(), 1, "{after}");
}
