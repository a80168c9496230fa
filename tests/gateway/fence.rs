//! Fences: calls wait for a person at a limit of the profile, go on with what the person allows, and are refused in the API's
//! own shape otherwise.

use crate::{Upstream, ask, call, entries, home, profile, shell};
use keyward_testkit::{Home, PASSPHRASE, Talk, wait_at_most, wait_for};
use serde_json::Value;
use std::time::Duration;

/// A call of 1,000 tokens each way, at 3 and 15 dollars a million.
const HELLO: &str = "{\"model\":\"claude-sonnet-4-6\"}";

/// One call for a model: its body and, at the end, its status.
fn message(talk: &mut Talk, body: &str) -> String {
    ask(talk, &line(body))
}

fn line(body: &str) -> String {
    format!(
        "echo $(curl -s -w ' %{{http_code}}' -m 60 -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" -H 'content-type: application/json' -d '{body}' \"$ANTHROPIC_BASE_URL/v1/messages\" | tr -d '\\n')"
    )
}

/// Begins a call in the background of the shell; its answer goes to a file.
fn begin(talk: &mut Talk, name: &str, body: &str) {
    assert_eq!(ask(talk, &format!("({} >{name}) & echo begun", line(body))), "begun");
}

/// What the call in the background was answered, once it was.
#[track_caller]
fn answered(home: &Home, name: &str) -> String {
    let mut text = String::new();
    wait_for(&format!("the answer {name}"), || {
        text = std::fs::read_to_string(home.root.join(name)).unwrap_or_default();
        text.ends_with('\n')
    });
    text
}

/// The only request that waits for a person.
#[track_caller]
fn card(home: &Home) -> Value {
    let mut cards = Vec::new();
    wait_for("a request that waits for a person", || {
        let all = home.keyward(&["approvals", "--json"]).exits(0).json();
        cards = all.as_array().unwrap().clone();
        !cards.is_empty()
    });
    assert_eq!(cards.len(), 1, "{cards:?}");
    cards.remove(0)
}

#[track_caller]
fn approve(home: &Home, card: &Value) {
    let args = ["approve", card["id"].as_str().unwrap(), "--passphrase-stdin"];
    let said = home.keyward_in(&args, PASSPHRASE).exits(0).err;
    assert!(said.contains("the fence lets through: ") && !said.contains("allowed once"), "{said}");
}

#[track_caller]
fn deny(home: &Home, card: &Value) {
    home.keyward(&["deny", card["id"].as_str().unwrap()]).exits(0);
}

fn fenced(limits: &str) -> (Home, Upstream, Talk) {
    let (home, upstream) = home();
    profile(&home, &upstream, "f", &format!("[fence]\n{limits}\n"));
    let child = shell(&home, "f");
    (home, upstream, child)
}

#[test]
fn a_plan_names_the_fence_and_what_asks_each_time() {
    let (home, upstream) = home();
    profile(&home, &upstream, "f", "[fence]\nrequests = 3\n");
    let plan = home.keyward(&["run", "-p", "f", "--dry-run", "--json", "--", "sh"]).exits(0).json();
    assert_eq!(plan["plan"][0]["fence"], serde_json::json!(["at most 3 requests a run"]), "{plan}");
    assert_eq!(plan["plan"][0]["confirm"], false);
    let told = home.keyward(&["run", "-p", "f", "--dry-run", "--ttl", "30h", "--", "sh"]).exits(0).out;
    assert!(told.contains("f is fenced") && told.contains("--ttl is cut to 24 h for f"), "{told}");
}

#[test]
fn requests_wait_at_the_fence_together_and_go_on_with_one_portion_more() {
    let (home, upstream, mut child) = fenced("requests = 3");
    for _ in 0..3 {
        assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    }
    for name in ["a", "b", "c"] {
        begin(&mut child, name, "{}");
    }
    let waits = card(&home);
    assert_eq!((&waits["kind"], upstream.seen().len()), (&"fence".into(), 3), "{waits}");
    assert!(waits.to_string().contains("the limit is 3"), "{waits}");
    approve(&home, &waits);
    for name in ["a", "b", "c"] {
        assert_eq!(answered(&home, name).trim(), r#"{"ok":true} 200"#);
    }
    assert_eq!((upstream.seen().len(), entries(&home, "fence.reached", 1).len()), (6, 1));
    begin(&mut child, "d", "{}");
    deny(&home, &card(&home));
    let refused = answered(&home, "d");
    assert!(refused.trim().ends_with(" 403") && refused.contains("fence.reached"), "{refused}");
    assert!(refused.contains("permission_error") && refused.contains("a person said no"), "{refused}");
    let refused = call(&mut child);
    assert!(refused.ends_with(" 403") && refused.contains("fence.reached"), "nobody is asked again: {refused}");
    let reached = entries(&home, "fence.reached", 2);
    assert_eq!((&reached[0]["profile"], &reached[0]["detail"]["fence"]), (&"f".into(), &"requests".into()));
    assert_eq!(upstream.seen().len(), 6);
    home.keyward(&["audit", "verify"]).exits(0);
}

#[test]
fn a_hundred_at_once_are_let_through_as_often_as_the_fence_says() {
    let (home, upstream, mut child) = fenced("requests = 7");
    let each = "curl -s -o /dev/null -w '%{http_code}\\n' -m 100 -d '{}' -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" \"$ANTHROPIC_BASE_URL/v1/messages\"";
    // What stands for the number is in no run token.
    let all = format!("(seq 100 | xargs -P 100 -I @ {each} >all; echo over >over) & echo begun");
    assert_eq!(ask(&mut child, &all), "begun");
    // A hundred programs have to start first.
    wait_at_most(Duration::from_secs(60), "seven calls", || upstream.seen().len() == 7);
    deny(&home, &card(&home));
    wait_at_most(Duration::from_secs(100), "the end of all", || home.root.join("over").exists());
    let all = std::fs::read_to_string(home.root.join("all")).unwrap();
    let with = |status: &str| all.lines().filter(|line| *line == status).count();
    assert_eq!((with("200"), with("403"), upstream.seen().len()), (7, 93, 7), "{all}");
    entries(&home, "fence.reached", 1);
    assert_eq!(entries(&home, "approval.asked", 1).len(), 1);
}

#[test]
fn a_model_that_is_not_named_waits_and_one_that_is_hidden_is_refused() {
    let (home, upstream, mut child) = fenced("models = [\"claude-sonnet-*\"]");
    assert!(message(&mut child, HELLO).ends_with(" 200"));
    for odd in [
        "{\"model\":\"claude-sonnet-4-6\",\"model\":\"claude-opus-4-6\"}",
        "{\"model\":\"claude-sonnet-4-6\",\"MODEL\":\"claude-opus-4-6\"}",
        "model=claude-sonnet-4-6",
        "{}",
    ] {
        let refused = message(&mut child, odd);
        assert!(refused.ends_with(" 400") && refused.contains("gateway.request_malformed"), "{refused}");
    }
    assert_eq!(upstream.seen().len(), 1);
    let opus = "{\"model\":\"claude-opus-4-6\"}";
    begin(&mut child, "a", opus);
    let waits = card(&home);
    assert!(waits.to_string().contains("claude-opus-4-6"), "{waits}");
    approve(&home, &waits);
    assert!(answered(&home, "a").trim().ends_with(" 200"));
    assert!(message(&mut child, opus).ends_with(" 200"), "as long as the run lives");
    assert_eq!(upstream.seen().len(), 3);
}

/// A model that is named, and an adviser among the tools that is not.
const ADVISED: &str = "{\"model\":\"claude-sonnet-4-6\",\"tools\":[{\"type\":\"advisor_20260301\",\"name\":\"advisor\",\"model\":\"claude-opus-4-6\"}]}";

#[test]
fn a_model_among_the_tools_waits_too_and_is_not_counted_as_the_cheap_one() {
    let (home, upstream, mut child) = fenced("models = [\"claude-sonnet-*\"]");
    begin(&mut child, "a", ADVISED);
    let waits = card(&home);
    assert!(waits.to_string().contains("the model claude-opus-4-6"), "{waits}");
    assert!(upstream.seen().is_empty());
    deny(&home, &waits);
    let refused = answered(&home, "a");
    assert!(refused.trim().ends_with(" 403") && refused.contains("fence.reached"), "{refused}");
    assert!(upstream.seen().is_empty(), "nothing left");
    let said = "{\"model\":\"claude-sonnet-4-6\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_use\",\"input\":{\"model\":\"claude-opus-4-6\"}}]}]}";
    assert!(message(&mut child, said).ends_with(" 200"), "what was said is no model");

    profile(&home, &upstream, "m", "[fence]\nusd = 5.00\n");
    let mut child = shell(&home, "m");
    let refused = message(&mut child, ADVISED);
    assert!(refused.ends_with(" 403") && refused.contains("fence.uncounted"), "{refused}");
    assert!(refused.contains("claude-opus-4-6") && upstream.seen().len() == 1, "{refused}");
}

#[test]
fn money_is_counted_by_the_answers_and_stays_counted_over_a_crash() {
    let (home, upstream, mut child) = fenced("usd = 0.03");
    assert!(message(&mut child, HELLO).ends_with(" 200"));
    let refused = message(&mut child, "{\"model\":\"claude-of-tomorrow\"}");
    assert!(refused.ends_with(" 403") && refused.contains("fence.uncounted"), "{refused}");
    assert!(message(&mut child, HELLO).ends_with(" 200"));
    wait_for("the cost of both in the log", || {
        let all = home.audit();
        let uses = all.iter().flat_map(|e| e["detail"]["uses"].as_array().into_iter().flatten());
        uses.filter(|one| one["usd"] == "$0.02").count() == 2
    });
    home.crash_broker();
    home.unlock();
    begin(&mut child, "a", HELLO);
    let waits = card(&home);
    assert!(waits.to_string().contains("$0.04 so far; the limit is $0.03"), "{waits}");
    assert_eq!(upstream.seen().len(), 2);
    approve(&home, &waits);
    assert!(answered(&home, "a").trim().ends_with(" 200"));
    assert!(upstream.seen().iter().all(|head| head.to_ascii_lowercase().contains("accept-encoding: identity")));
}

#[test]
fn a_question_goes_with_who_waited_for_it() {
    let (home, _upstream, mut child) = fenced("requests = 1");
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    begin(&mut child, "a", "{}");
    card(&home);
    home.keyward(&["revoke", "f"]).exits(0);
    let refused = answered(&home, "a");
    assert!(refused.trim().ends_with(" 403") && refused.contains("lease.revoked"), "{refused}");
    wait_for("an end of the question", || {
        home.keyward(&["approvals", "--json"]).exits(0).json().as_array().unwrap().is_empty()
    });
}

#[test]
fn a_fence_leaves_nothing_but_the_gateway_and_what_it_cannot_keep_is_not_stored() {
    let (home, _upstream, mut child) = fenced("requests = 5");
    home.keyward(&["run", "-p", "f", "--deliver", "env", "--", "true"]).exits(125).says("delivery.impossible");
    let refused = home.keyward(&["token", "f"]).says("delivery.impossible");
    assert!(!refused.out.contains("REALKEY"), "{refused:?}");
    let refused = ask(&mut child, "keyward token f 2>&1 | tr '\\n' ' '; echo");
    assert!(!refused.contains("REALKEY") && refused.contains("delivery.impossible"), "{refused}");
    let file = home.root.join("odd.toml");
    for (more, words) in [
        ("provider = \"github\"\n[fence]\nusd = 5\n", "APIs of models"),
        ("provider = \"anthropic\"\n[gateway]\nonly = [\"POST /v1/{a}{b}\"]\n", "more than one placeholder"),
        ("provider = \"anthropic\"\n[delivery]\nmode = \"env\"\n[fence]\nrequests = 1\n", "kept by the gateway"),
        ("[delivery]\nenv = { K = \"token\" }\n[fence]\nrequests = 1\n", "nothing says where requests go"),
    ] {
        std::fs::write(&file, format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n{more}")).unwrap();
        let refused = home.keyward(&["profile", "add", "odd", "--from", file.to_str().unwrap()]).exits(1);
        assert!(refused.err.contains("profile.invalid") && refused.err.contains(words), "{refused:?}");
    }
}

#[test]
fn a_call_that_the_profile_leaves_out_waits_and_is_let_through_as_long_as_the_run_lives() {
    let (home, upstream) = home();
    profile(&home, &upstream, "f", "[gateway]\nonly = [\"POST /v1/messages/count_tokens\"]\n");
    let mut child = shell(&home, "f");
    begin(&mut child, "a", "{}");
    let waits = card(&home);
    let question =
        "POST /v1/messages, which the profile's list leaves out. Allow calls of this form as long as the run lives?";
    assert_eq!((&waits["kind"], &waits["question"]), (&"fence".into(), &question.into()), "{waits}");
    assert!(
        home.keyward(&["approvals"]).exits(0).out.contains("POST /v1/messages, which the profile's list leaves out")
    );
    assert!(upstream.seen().is_empty());
    approve(&home, &waits);
    assert_eq!(answered(&home, "a").trim(), r#"{"ok":true} 200"#);
    for _ in 0..3 {
        assert_eq!(call(&mut child), r#"{"ok":true} 200"#, "nobody is asked again");
    }
    let reached = &entries(&home, "fence.reached", 1)[0];
    assert_eq!((&reached["profile"], &reached["detail"]["fence"]), (&"f".into(), &"only".into()));
    assert_eq!(reached["detail"]["told"], "POST /v1/messages, which the profile's list leaves out");

    let other = "(curl -s -w ' %{http_code}' -m 60 -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" -d '{}' \"$ANTHROPIC_BASE_URL/v1/files\" | tr -d '\\n' >b; echo >>b) & echo begun";
    assert_eq!(ask(&mut child, other), "begun");
    let waits = card(&home);
    assert!(waits.to_string().contains("POST /v1/files, which"), "the other call was not allowed: {waits}");
    deny(&home, &waits);
    let refused = answered(&home, "b");
    assert!(refused.trim().ends_with(" 403") && refused.contains("fence.reached"), "{refused}");
    assert!(refused.contains("permission_error") && refused.contains("a person said no"), "{refused}");
    assert_eq!(upstream.seen().len(), 4);
}
