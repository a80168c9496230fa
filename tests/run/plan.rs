//! Which credentials a run gets, how, and what it must not have beside them.

use crate::{entries, lease, program, sh, shell};
use keyward_testkit::{Home, run};
use serde_json::Value;

#[test]
fn variables_that_would_win_are_unset_and_reported_once() {
    let home = Home::with_vault();
    home.static_profile("claude", "s3cret", "ANTHROPIC_AUTH_TOKEN");
    let given = ["ANTHROPIC_API_KEY", "ANTHROPIC_PROFILE", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_OAUTH_TOKEN"];
    let mut command = home.keyward_command(&["run", "-p", "claude", "--", "env"]);
    command.envs(given.map(|name| (name, "shadow"))).env("ANTHROPIC_AUTH_TOKEN", "older").env("GH_TOKEN", "kept");
    command.env("ANTHROPIC_BASE_URL", "https://kept.example").env("MY_ANTHROPIC_API_KEY", "kept");
    let answer = run(command, b"").exits(0);
    let has = |line: &str| answer.out.lines().any(|l| l == line);
    assert!(!answer.out.contains("shadow") && !answer.out.contains("older"), "{}", answer.out);
    assert!(has("ANTHROPIC_AUTH_TOKEN=s3cret") && has("GH_TOKEN=kept") && has("MY_ANTHROPIC_API_KEY=kept"));
    assert!(has("ANTHROPIC_BASE_URL=https://kept.example"), "it only says where to");
    for name in given {
        let line = format!("keyward: unset {name} (so that profile claude alone counts)\n");
        assert_eq!(answer.err.matches(&line).count(), 1, "{}", answer.err);
    }
    assert!(answer.err.contains("keyward: replaced ANTHROPIC_AUTH_TOKEN (set by profile claude)\n"), "{}", answer.err);
    assert_eq!(answer.err.lines().count(), given.len() + 1, "{}", answer.err);
    let silent = home.keyward(&["run", "-p", "claude", "--", "true"]).exits(0);
    assert_eq!(silent.err, "", "nothing was there, nothing is said");
}

#[test]
fn a_variable_that_another_profile_delivers_is_no_shadow() {
    let home = Home::with_vault();
    home.static_profile("id", "akid", "AWS_ACCESS_KEY_ID");
    home.static_profile("key", "sekrit", "AWS_SECRET_ACCESS_KEY");
    let mut command = home.keyward_command(&["run", "-p", "id", "-p", "key", "--", "env"]);
    command.env("AWS_SESSION_TOKEN", "shadow").env("AWS_SECRET_ACCESS_KEY", "older").env("AWS_REGION", "kept");
    let answer = run(command, b"").exits(0);
    assert!(answer.out.contains("AWS_ACCESS_KEY_ID=akid\n") && answer.out.contains("AWS_SECRET_ACCESS_KEY=sekrit\n"));
    assert!(answer.out.contains("AWS_REGION=kept\n") && !answer.out.contains("AWS_SESSION_TOKEN"));
    let said = "keyward: replaced AWS_SECRET_ACCESS_KEY (set by profile key)\n\
                keyward: unset AWS_SESSION_TOKEN (so that profile id alone counts)\n";
    assert_eq!(answer.err, said);
}

#[test]
fn without_a_name_the_only_profile_is_taken() {
    let home = Home::with_vault();
    let none = home.keyward(&["run", "--", "true"]).exits(125).says("profile.not_named");
    assert!(none.err.contains("no profile yet") && none.err.contains("keyward profile add"), "{}", none.err);
    home.static_profile("only", "s3cret", "T");
    assert_eq!(home.keyward(&["run", "--", "sh", "-c", "echo $T"]).exits(0).out, "s3cret\n");
    home.static_profile("second", "other", "U");
    let many = home.keyward(&["run", "--", "true"]).exits(125).says("profile.not_named");
    assert!(many.err.contains("only, second"), "the list: {}", many.err);
    let misspelt = home.keyward(&["run", "-p", "secnd", "--", "true"]).exits(125).says("profile.unknown");
    assert!(misspelt.err.contains("only, second"), "{}", misspelt.err);
    let conflict = Home::with_vault();
    conflict.static_profile("a", "s3cret", "X");
    conflict.static_profile("b", "s3cret", "X");
    let refused = conflict.keyward(&["run", "-p", "a", "-p", "b", "--", "true"]).exits(125).says("delivery.conflict");
    assert!(refused.err.contains("`X` is set by `a` and by `b`"), "{}", refused.err);
    assert_eq!(entries(&conflict, "credential.delivered").len(), 0);
}

#[test]
fn a_dry_run_says_the_plan_and_does_nothing() {
    let home = Home::with_vault();
    let mint = crate::Mint::new(&home, "m", 60, "file", "OPENAI_API_KEY");
    let before = home.audit().len();
    let mut command =
        home.keyward_command(&["run", "-p", "m", "--ttl", "5m", "--dry-run", "--json", "--", "sh", "-c", "touch x"]);
    command.env("OPENAI_ADMIN_KEY", "kept");
    let plan = run(command, b"").exits(0).json();
    let row = &plan["plan"][0];
    assert_eq!((&row["profile"], &row["issuer"], &row["delivery"]), (&"m".into(), &"command".into(), &"file".into()));
    assert_eq!((&row["chosen_by"], &row["ttl_s"]), (&"profile".into(), &300.into()));
    assert_eq!(row["variables"], serde_json::json!(["OPENAI_API_KEY"]));
    assert!(row["gives_away"].as_str().unwrap().len() > 20);
    let words = home.keyward(&["run", "-p", "m", "--dry-run", "--deliver", "env", "--", "true"]).exits(0).out;
    assert!(words.contains("env (--deliver)") && words.contains("gives away:"), "{words}");
    assert_eq!((mint.count(), home.audit().len()), (0, before), "nothing was issued, nothing recorded");
    assert!(!home.root.join("x").exists(), "nothing ran");
    assert_eq!(home.keyward(&["ps", "--json"]).exits(0).out, "[]\n");
    home.keyward(&["run", "-p", "nobody", "--dry-run", "--", "true"]).exits(125).says("profile.unknown");
}

#[test]
fn explain_says_the_plan_on_standard_error_and_runs() {
    let home = Home::with_vault();
    home.static_profile("gh", "s3cret", "GITHUB_TOKEN");
    let mut command = home.keyward_command(&["run", "-p", "gh", "--explain", "--", "echo", "done"]);
    command.env("GH_TOKEN", "shadow");
    let answer = run(command, b"").exits(0);
    assert_eq!(answer.out, "done\n");
    for words in
        ["gh", "static", "env (profile)", "GITHUB_TOKEN", "gh gives away:", "GH_TOKEN is unset: token; first in gh"]
    {
        assert!(answer.err.contains(words), "{words}: {}", answer.err);
    }
    assert!(!answer.err.contains("s3cret") && !answer.err.contains("shadow"));
    assert_eq!(answer.err.matches("gh gives away:").count(), 1, "{}", answer.err);
}

#[test]
fn options_of_a_run_count_and_are_recorded() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.profile(
        "short",
        "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nenv = { S = \"token\" }\n[limits]\nmax_ttl = \"5m\"\n",
    );
    let seconds = |lease: &Value| {
        let at = |field: &str| {
            let text = lease[field].as_str().unwrap().to_owned();
            let clock = sh(&home, &format!("date -d {text} +%s")).exits(0).out;
            clock.trim().parse::<i64>().unwrap()
        };
        at("expires_at") - at("issued_at")
    };
    let asked = shell(&home, &["-p", "p", "--ttl", "10m", "--reason", "a \u{1b}[31mfix", "--deliver", "file"]);
    let held = lease(&home, asked.pid());
    assert_eq!((seconds(&held), &held["delivery"]), (600, &"file".into()));
    let longer = shell(&home, &["-p", "short", "--ttl", "2h"]);
    assert_eq!(seconds(&lease(&home, longer.pid())), 300, "the profile's limit wins");
    let requested = &entries(&home, "run.requested")[0];
    assert_eq!(requested["detail"]["reason"], "a \\u{1b}[31mfix", "escaped");
    assert_eq!(requested["detail"]["ttl_s"], 600);
    let delivered = &entries(&home, "credential.delivered")[0];
    assert_eq!((&delivered["detail"]["delivery"], &delivered["profile"]), (&"file".into(), &"p".into()));
    let long = "x".repeat(501);
    home.keyward(&["run", "-p", "p", "--reason", &long, "--", "true"]).exits(125).says("request.invalid");
}

#[test]
fn programs_with_rights_of_others_get_nothing() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let copy = |name: &str, more: &str| {
        let path = home.root.join(name).display().to_string();
        // One without the right to set file capabilities has it in a user namespace of its own.
        sh(&home, &format!("set -e; cp /usr/bin/env {path}; {}", more.replace('@', &path))).exits(0);
        path
    };
    let setuid = copy("setuid", "chmod 4755 @");
    let setgid = copy("setgid", "chmod 2755 @");
    let capable = copy("capable", "setcap cap_net_raw+ep @ 2>/dev/null || unshare -r setcap cap_net_raw+ep @");
    let script = program(&home, "script", &format!("#!{setuid}\n"), "755").display().to_string();
    for (path, why) in [(&setuid, "setuid"), (&setgid, "setgid"), (&capable, "capabilities"), (&script, "setuid")] {
        let refused = home.keyward(&["run", "-p", "p", "--", path]).exits(125).says("run.privileged");
        assert!(refused.err.contains(why) && refused.err.contains("--allow-privileged"), "{}", refused.err);
        home.keyward(&["run", "-p", "p", "--dry-run", "--", path]).exits(125).says("run.privileged");
    }
    assert_eq!(entries(&home, "credential.delivered").len(), 0);
    let allowed = home.keyward(&["run", "-p", "p", "--allow-privileged", "--", &setgid]).exits(0);
    assert!(allowed.out.contains("T=s3cret\n"));
    let plain = copy("plain", "chmod 755 @");
    home.keyward(&["run", "-p", "p", "--", &plain]).exits(0);
}
