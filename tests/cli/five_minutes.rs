//! `setup`, `profile add --from-env` and the flags of a federation, with the real programs.

use super::error;
use keyward_testkit::{Home, PASSPHRASE, Sandbox, Talk};
use serde_json::{Value, json};

const KEY: &str = "sk-ant-api03-the-key-of-this-test";

fn typed(text: &str) -> Vec<u8> {
    format!("{text}\r").into_bytes()
}

fn write(home: &Home, name: &str, text: &str) -> String {
    let path = home.root.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn names(home: &Home, what: &str) -> Vec<String> {
    let listed = home.keyward(&[what, "list", "--json"]).exits(0).json();
    listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// What `setup --no-input --json` says.
fn setup(home: &Home, more: &[&str]) -> Value {
    let args = [&["setup", "--no-input", "--json"], more].concat();
    let answer = home.keyward_in(&args, PASSPHRASE).exits(0);
    assert!(!answer.out.contains(KEY) && !answer.err.contains(KEY), "{}{}", answer.out, answer.err);
    answer.json()
}

fn told<'a>(report: &'a Value, variable: &str) -> &'a Value {
    let found = report["found"].as_array().unwrap();
    found.iter().find(|one| one["variable"] == variable).unwrap_or_else(|| panic!("no {variable}: {report}"))
}

#[test]
fn a_person_gets_from_a_key_in_the_shell_to_a_run() {
    let mut home = Home::new();
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("OPENAI_API_KEY", "sk-not-wanted");
    let bashrc = write(&home, ".bashrc", &format!("# mine\nexport ANTHROPIC_API_KEY='{KEY}'\n"));
    let mut talk = Talk::on_terminal(&home, &["keyward", "setup"], &[]);
    talk.until("New passphrase: ");
    talk.send(&typed(PASSPHRASE));
    talk.until("The same again: ");
    talk.send(&typed(PASSPHRASE));
    let asked = talk.until("[Y/n] ");
    assert!(asked.contains("Move ANTHROPIC_API_KEY (environment, sha-256 "), "{asked}");
    talk.send(&typed(""));
    talk.until("Move OPENAI_API_KEY");
    talk.until("[Y/n] ");
    talk.send(&typed("perhaps"));
    talk.until("[Y/n] ");
    talk.send(&typed("n"));
    talk.until("next: keyward run -- claude");
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains(KEY) && !answer.out.contains("horse"), "{}", answer.out);
    assert!(answer.out.contains("moved in as profile anthropic"), "{}", answer.out);
    assert!(answer.out.contains(&format!("still in {bashrc}:2: ")), "{}", answer.out);
    assert_eq!((names(&home, "secret"), names(&home, "profile")), (vec!["anthropic".into()], vec!["anthropic".into()]));
    let print = "printf '%s %s' \"$ANTHROPIC_API_KEY\" \"$ANTHROPIC_AUTH_TOKEN\"";
    // The terminal was a session of its own, and this process no shell that has unlocked there.
    home.unlock();
    let given = home.keyward(&["run", "--", "sh", "-c", print]).exits(0);
    assert!(given.out.starts_with(" kwr_"), "{}", given.out);
    let given = home.keyward(&["run", "--deliver", "env", "--", "sh", "-c", print]).exits(0);
    assert_eq!(given.out.trim_end(), KEY);
    assert_eq!(std::fs::read_to_string(&bashrc).unwrap().lines().count(), 2, "the file is not edited");
}

#[test]
fn a_second_run_changes_nothing() {
    let mut home = Home::new();
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("GITHUB_TOKEN", "ghp_x");
    write(&home, ".env", "STRIPE_API_KEY=sk_live_x\n");
    let first = setup(&home, &["--passphrase-stdin"]);
    assert_eq!((&first["vault"], &first["next"]), (&json!("made"), &json!("keyward run -p anthropic -- claude")));
    let key = told(&first, "ANTHROPIC_API_KEY");
    assert_eq!(
        (&key["family"], &key["place"], &key["profile"], &key["moved"]),
        (&json!("anthropic"), &json!("environment"), &json!("anthropic"), &json!(true))
    );
    let in_file = told(&first, "STRIPE_API_KEY");
    assert_eq!((&in_file["moved"], in_file["place"].as_str().unwrap().ends_with(".env:1")), (&json!(false), true));
    let log = home.audit_kinds().len();
    let second = setup(&home, &[]);
    assert_eq!(second["vault"], "was_open");
    for variable in ["ANTHROPIC_API_KEY", "GITHUB_TOKEN"] {
        let one = told(&second, variable);
        assert_eq!((&one["moved"], one["profile"].is_string()), (&json!(false), true), "{one}");
    }
    assert_eq!(home.audit_kinds().len(), log, "nothing was changed, so nothing is in the log");
    home.keyward(&["lock"]).exits(0);
    home.keyward(&["setup", "--no-input"]).exits(3).says("vault.locked");
    assert_eq!(setup(&home, &["--passphrase-stdin"])["vault"], "opened");
    assert_eq!(told(&setup(&home, &["--all"]), "STRIPE_API_KEY")["profile"], "stripe");
    assert_eq!(names(&home, "secret"), ["anthropic", "github", "stripe"]);
}

#[test]
fn another_key_of_the_same_name_is_not_taken_for_the_one_that_was_moved() {
    let mut home = Home::new();
    home.set("ANTHROPIC_API_KEY", "sk-ant-api03-one");
    write(&home, ".env", "ANTHROPIC_API_KEY=sk-ant-api03-other\n");
    let report = setup(&home, &["--all", "--passphrase-stdin"]);
    let list = report["found"].as_array().unwrap();
    let of = |moved: bool| list.iter().find(|f| f["variable"] == "ANTHROPIC_API_KEY" && f["moved"] == moved).unwrap();
    assert_ne!(of(true)["fingerprint"], of(false)["fingerprint"]);
    assert!(of(false)["why"].as_str().unwrap().contains("another key") && of(false)["profile"].is_null(), "{report}");
    // A later run cannot know which of the two the vault has, and says so.
    let again = setup(&home, &["--all"]);
    assert!(again["found"].to_string().contains("see that it is this key before you remove it"), "{again}");
}

#[test]
fn a_secret_of_the_same_name_is_never_replaced() {
    let mut home = Home::with_vault();
    home.secret("anthropic", "another");
    home.static_profile("mine", "kept", "GITHUB_TOKEN");
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("GITHUB_TOKEN", "ghp_x");
    let report = setup(&home, &[]);
    assert_eq!(told(&report, "ANTHROPIC_API_KEY")["profile"], "anthropic-api-key");
    assert_eq!(told(&report, "GITHUB_TOKEN")["profile"], "mine", "{report}");
    let token = |profile: &str| home.keyward(&["token", profile]).exits(0).out;
    assert_eq!((token("mine").trim(), token("anthropic-api-key").trim()), ("kept", KEY));
    let kept = home.keyward_in(&["secret", "reveal", "anthropic", "--passphrase-stdin"], PASSPHRASE).exits(0);
    assert_eq!(kept.out, "another");
}

#[test]
fn a_question_that_is_broken_off_leaves_nothing_half_done() {
    let mut home = Home::with_vault();
    home.set("ANTHROPIC_API_KEY", KEY);
    let mut talk = Talk::on_terminal(&home, &["keyward", "setup"], &[]);
    talk.until("[Y/n] ");
    talk.send(b"\x03");
    assert_eq!(talk.end().exit, 130);
    assert!(names(&home, "secret").is_empty() && names(&home, "profile").is_empty());
    // The end of input is a no.
    let mut talk = Talk::on_terminal(&home, &["keyward", "setup"], &[]);
    talk.until("[Y/n] ");
    talk.send(b"\x04");
    talk.until("you said no");
    talk.end().exits(0);
    assert!(names(&home, "secret").is_empty() && names(&home, "profile").is_empty());
}

#[test]
fn nobody_is_asked_where_nobody_is() {
    let home = Home::new();
    assert!(error(&home, &["setup"], 1)["help"].as_str().unwrap().contains("setup --no-input"));
    home.keyward(&["setup"]).exits(1).says("input.needed");
    home.keyward(&["setup", "--no-input"]).exits(4).says("passphrase.needed");
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "absent");
    home.keyward_in(&["setup", "--no-input", "--passphrase-stdin"], "weak").exits(1).says("vault.weak_passphrase");
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "absent");
}

/// Sets the variables by which the SDKs federate with the sandbox.
fn federate(home: &mut Home, sandbox: &Sandbox) {
    for (variable, field) in [
        ("ANTHROPIC_BASE_URL", "base_url"),
        ("ANTHROPIC_FEDERATION_RULE_ID", "federation_rule_id"),
        ("ANTHROPIC_ORGANIZATION_ID", "organization_id"),
        ("ANTHROPIC_SERVICE_ACCOUNT_ID", "service_account_id"),
        ("ANTHROPIC_IDENTITY_TOKEN_FILE", "identity_token_file"),
    ] {
        home.set(variable, sandbox.said(field));
    }
}

#[test]
fn a_federation_of_the_environment_becomes_a_profile_that_works() {
    let mut home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &[]);
    federate(&mut home, &sandbox);
    home.set("ANTHROPIC_API_KEY", KEY);
    let bashrc = write(&home, ".bashrc", &format!("export ANTHROPIC_API_KEY={KEY}\n"));
    let added = home.keyward(&["profile", "add", "ci", "--from-env", "--json"]).exits(0);
    assert!(added.err.contains(&format!("ANTHROPIC_API_KEY ({bashrc}:1) shadows the federation")), "{}", added.err);
    assert!(!added.err.contains(KEY) && !added.out.contains(KEY), "{}{}", added.out, added.err);
    assert_eq!(added.json()["issuer"], "anthropic-federation");
    let places: Vec<_> = added.json()["shadowed_by"].as_array().unwrap().iter().map(|s| s["place"].clone()).collect();
    assert_eq!(places, [json!("environment"), json!(format!("{bashrc}:1"))]);
    assert_eq!(home.keyward(&["profile", "test", "ci", "--json"]).exits(0).json()["ok"], true);
    assert!(names(&home, "secret").is_empty(), "the key is not taken");
    // The same by flags, and what setup offers.
    let [base, rule, organization, account, file] =
        ["base_url", "federation_rule_id", "organization_id", "service_account_id", "identity_token_file"]
            .map(|field| sandbox.said(field).to_owned());
    let flags = ["--base-url", &base, "--rule", &rule, "--organization", &organization, "--service-account", &account];
    let add = [&["profile", "add", "flags", "--federation", "--identity-file", &file], flags.as_slice()].concat();
    home.keyward(&add).exits(0);
    let toml = |name: &str| home.keyward(&["profile", "show", name, "--toml"]).exits(0).out;
    assert_eq!(toml("flags"), toml("ci"));
    let report = setup(&home, &[]);
    assert_eq!(told(&report, "ANTHROPIC_FEDERATION_RULE_ID")["profile"], "ci", "it is there already");
}

#[test]
fn what_an_environment_lacks_is_named() {
    let mut home = Home::with_vault();
    let nothing = error(&home, &["profile", "add", "p", "--from-env"], 1);
    assert_eq!(nothing["code"], "profile.incomplete");
    home.set("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_01AbC");
    home.set("ANTHROPIC_ORGANIZATION_ID", "");
    home.set("ANTHROPIC_API_KEY", KEY);
    let half = error(&home, &["profile", "add", "p", "--from-env"], 1);
    assert_eq!(half["code"], "profile.incomplete", "half a federation never becomes a key");
    let causes = half["causes"].to_string();
    for variable in ["ANTHROPIC_ORGANIZATION_ID", "ANTHROPIC_IDENTITY_TOKEN_FILE", "ANTHROPIC_IDENTITY_TOKEN"] {
        assert!(causes.contains(variable), "{half}");
    }
    assert!(!causes.contains("ANTHROPIC_FEDERATION_RULE_ID"), "{half}");
    let by_flags = error(&home, &["profile", "add", "p", "--federation", "--rule", "fdrl_01AbC"], 1);
    let causes = by_flags["causes"].to_string();
    assert_eq!(by_flags["code"], "profile.incomplete");
    assert_eq!(causes, "[\"--organization and --identity-file are missing\"]", "the flags, as they are typed");
    let nothing_at_all = error(&home, &["profile", "add", "p"], 2);
    assert_eq!(nothing_at_all["code"], "usage");
    assert!(names(&home, "profile").is_empty() && names(&home, "secret").is_empty());
}

#[test]
fn a_key_of_the_environment_is_stored_and_never_printed() {
    let mut home = Home::with_vault();
    home.set("ANTHROPIC_API_KEY", KEY);
    home.set("MY_OWN_TOKEN", "own-s3cret");
    let added = home.keyward(&["profile", "add", "a", "--from-env", "--json"]).exits(0);
    assert_eq!((&added.json()["variable"], added.out.contains(KEY)), (&json!("ANTHROPIC_API_KEY"), false));
    let own = home.keyward(&["profile", "add", "own", "--from-env", "--variable", "MY_OWN_TOKEN"]).exits(0);
    assert!(!own.err.contains("own-s3cret"), "{}", own.err);
    let given = home.keyward(&["run", "-p", "own", "--", "sh", "-c", "printf %s \"$MY_OWN_TOKEN\""]).exits(0);
    assert_eq!(given.out, "own-s3cret");
    home.set("GH_TOKEN", "ghp_x");
    let which = error(&home, &["profile", "add", "b", "--from-env"], 1);
    assert!(which["code"] == "input.needed" && which.to_string().contains("ANTHROPIC_API_KEY and GH_TOKEN"), "{which}");
    for (variable, code) in [
        ("GITHUB_TOKEN", "profile.incomplete"),
        ("NO_SUCH_VARIABLE", "profile.incomplete"),
        ("HOME", "delivery.variable_refused"),
        ("KEYWARD_HOME", "delivery.variable_refused"),
    ] {
        let refused = error(&home, &["profile", "add", "c", "--from-env", "--variable", variable], 1);
        assert_eq!(refused["code"], code, "{variable}: {refused}");
    }
    assert_eq!(names(&home, "secret"), ["a", "own"], "a secret without its profile is taken back");
}

#[test]
fn a_key_of_foundry_beside_an_application_is_not_chosen_for_the_person() {
    let mut home = Home::with_vault();
    home.set("ANTHROPIC_FOUNDRY_API_KEY", "f0undry-key");
    home.set("AZURE_CLIENT_ID", "c");
    let add = ["profile", "add", "f", "--from-env"];
    home.set("AZURE_TENANT_ID", "t");
    let both = error(&home, &add, 1);
    for name in ["ANTHROPIC_FOUNDRY_API_KEY", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "entra-client-credentials"] {
        assert!(both["code"] == "input.needed" && both.to_string().contains(name), "{name}: {both}");
    }
    home.keyward(&[&add[..], &["--variable", "ANTHROPIC_FOUNDRY_API_KEY"]].concat()).exits(0);
    assert_eq!(names(&home, "secret"), ["f"]);
}

#[test]
fn a_name_that_is_taken_keeps_what_it_has() {
    let mut home = Home::with_vault();
    home.static_profile("taken", "kept", "OTHER");
    home.secret("alone", "kept");
    home.set("ANTHROPIC_API_KEY", KEY);
    for name in ["taken", "alone"] {
        home.keyward(&["profile", "add", name, "--from-env"]).exits(1);
        let kept = home.keyward_in(&["secret", "reveal", name, "--passphrase-stdin"], PASSPHRASE).exits(0);
        assert_eq!(kept.out, "kept", "{name}");
    }
    // A profile without a secret of its name: the secret that was just stored goes again.
    home.profile(
        "bare",
        "[issuer]\nkind = \"static\"\nsecret = \"secret:alone\"\n[delivery]\nenv = { X = \"token\" }\n",
    );
    home.keyward(&["profile", "add", "bare", "--from-env"]).exits(1).says("profile.exists");
    assert_eq!(names(&home, "secret"), ["alone", "taken"]);
}

#[test]
fn kinds_show_what_is_required_and_what_is_secret() {
    let home = Home::with_vault();
    let text = home.keyward(&["profile", "kinds"]).exits(0).out;
    let (issuers, sources) = text.split_once("Identity sources").unwrap();
    assert!(issuers.starts_with("Issuers") && issuers.contains("anthropic-federation: "), "{text}");
    assert!(issuers.contains("required, secret"), "{text}");
    for source in ["file: ", "command: ", "oauth-client-credentials: ", "env-token: "] {
        assert!(sources.contains(source), "{source}: {text}");
    }
}
