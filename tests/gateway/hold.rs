//! What the child holds, and what the log says of its calls.

use crate::{KEY, ask, call, entries, home, lease, profile, shell};
use keyward_testkit::{Talk, wait_at_most, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn calls_work_and_the_child_never_holds_the_key() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    let pid = child.pid();
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("REALKEY"), "{environment}");
    let token = ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN");
    assert!(token.starts_with("kwr_") && token.len() == 47, "{token}");
    let base = ask(&mut child, "echo $ANTHROPIC_BASE_URL");
    assert!(base.starts_with("http://127.0.0.1:"), "{base}");

    let heads = upstream.seen();
    assert_eq!(heads.len(), 1);
    assert!(!heads[0].contains("kwr_") && heads[0].contains(KEY), "{}", heads[0]);
    let all = serde_json::to_string(&home.audit()).unwrap();
    assert!(!all.contains("REALKEY") && !all.contains(&token), "{all}");
    assert!(!all.contains("credential.delivered"), "no credential was handed over");
    let opened = &entries(&home, "gateway.opened", 1)[0];
    assert_eq!((&opened["detail"]["host"], &opened["detail"]["port"]), (&"127.0.0.1".into(), &upstream.port.into()));
}

#[test]
fn an_answer_that_repeats_its_address_does_not_hand_over_the_key_in_the_query() {
    let (home, upstream) = home();
    profile(&home, &upstream, "q", "[gateway]\nquery = \"key\"\nonly = [\"GET /{rest...}\"]\n");
    let mut child = shell(&home, "q");
    let fetch = |options: &str| {
        format!(
            "echo $(curl -s {options} -w ' %{{http_code}}' -m 20 -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" \"$ANTHROPIC_BASE_URL/dir?a=1\" | tr -d '\\r\\n')"
        )
    };
    let moved = ask(&mut child, &fetch("-i"));
    assert!(moved.ends_with(" 308") && moved.contains("location: /dir/?a=1&key=withheld"), "{moved}");
    assert!(!moved.contains("REALKEY") && !moved.contains("x-url"), "{moved}");
    assert!(ask(&mut child, &fetch("-L")).ends_with(" 200"), "who is sent on comes there");
    let heads = upstream.seen();
    assert_eq!(heads.len(), 3);
    assert!(heads[2].starts_with(&format!("GET /dir/?a=1&key={KEY} ")), "{}", heads[2]);
}

#[test]
fn a_query_that_names_another_method_goes_nowhere() {
    let (home, upstream) = home();
    profile(&home, &upstream, "m", "[gateway]\nonly = [\"POST /x/{id}\"]\n");
    let mut child = shell(&home, "m");
    for query in ["", "a=1&method=x", "ct=1&req=2"] {
        assert!(ask(&mut child, &post("/x/1", query)).ends_with(" 200"), "{query}");
    }
    for query in [
        "%24httpMethod=DELETE&%24ct=application/json",
        "_method=DELETE",
        "%5FMETHOD=DELETE",
        "a=1&X-HTTP-Method-Override=DELETE",
        "%24req=x",
    ] {
        let refused = ask(&mut child, &post("/x/1", query));
        assert!(refused.ends_with(" 400") && refused.contains("gateway.request_malformed"), "{query}: {refused}");
        assert!(refused.contains("the query names another method"), "{refused}");
    }
    assert_eq!(upstream.seen().len(), 3);
}

fn post(path: &str, query: &str) -> String {
    format!(
        "echo $(curl -s -w ' %{{http_code}}' -m 20 -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" -d '{{}}' \"$ANTHROPIC_BASE_URL{path}?{query}\" | tr -d '\\n')"
    )
}

#[test]
fn each_call_is_in_the_log_with_the_process_that_made_it() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    for _ in 0..3 {
        assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    }
    let mut used = Vec::new();
    wait_for("three uses", || {
        used = home.audit().into_iter().filter(|e| e["kind"] == "credential.used").collect();
        used.iter().map(|e| e["detail"]["count"].as_u64().unwrap()).sum::<u64>() == 3
    });
    for entry in &used {
        assert_eq!(
            (&entry["app"], &entry["app_verified"], &entry["profile"]),
            (&"sh".into(), &true.into(), &"k".into())
        );
        assert_eq!(entry["detail"]["process"], "exact", "{entry}");
        assert_ne!(entry["peer"]["pid"], child.pid(), "the shell's child made it");
        assert!(entry["peer"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/curl")), "which has ended: {entry}");
        let uses = entry["detail"]["uses"].as_array().unwrap();
        assert_eq!(entry["detail"]["count"], uses.len());
        for one in uses {
            assert_eq!((&one["method"], &one["path"]), (&"POST".into(), &"/v1/messages".into()), "no query: {one}");
            assert!(one["host"].as_str().unwrap().starts_with("127.0.0.1"), "{one}");
            assert!(one["at"].is_string() && one["number"].is_u64());
        }
    }
    // One that was written before its end has an entry of that besides.
    let mut ended = Vec::new();
    wait_for("the ends of three uses", || {
        let entries = home.audit().into_iter();
        let of_uses = entries.filter(|e| e["kind"] == "credential.used" || e["kind"] == "credential.use_ended");
        let uses = of_uses.flat_map(|e| e["detail"]["uses"].as_array().unwrap().clone());
        ended = uses.filter(|one| one["status"] == 200).collect();
        ended.len() == 3
    });
    assert!(ended.iter().all(|one| one["request_id"] == "req_77" && one["sent"] == 2 && one["received"] == 11));
    let seen = lease(&home);
    assert_eq!((&seen["delivery"], &seen["uses"]), (&"gateway".into(), &3.into()), "{seen}");
    assert!(seen["last_use_at"].is_string());
    assert_eq!(upstream.seen().len(), 3);
    home.keyward(&["audit", "verify"]).exits(0);

    child.send(b"exit 0\n");
    child.end().exits(0);
    assert_eq!(entries(&home, "run.ended", 1)[0]["detail"]["uses"], 3);
}

#[test]
fn a_run_is_refused_a_stronger_form_of_what_it_was_given() {
    let (home, _upstream) = home();
    let mut child = shell(&home, "k");
    let refused = ask(&mut child, "keyward token k 2>&1 | tr '\\n' ' '; echo");
    assert!(refused.contains("policy.denied") && refused.contains("gateway"), "{refused}");
    assert!(!refused.contains("REALKEY"));
    // A run inside of it would hold it in another form, which a person is asked about.
    let refused = ask(&mut child, "keyward run -p k --deliver env -- env 2>&1 | tr '\\n' ' '; echo");
    assert!(refused.contains("approval.needed") && !refused.contains("REALKEY"), "{refused}");
    let cards = home.keyward(&["approvals", "--json"]).exits(0).json();
    assert!(cards[0]["outer_run"].is_string() && cards[0]["wanted"][0]["delivery"] == "env", "{cards}");
}

#[test]
fn what_the_profile_does_not_name_is_not_called() {
    let (home, upstream) = home();
    profile(&home, &upstream, "narrow", "[gateway]\nonly = [\"POST /v1/messages/count_tokens\"]\n");
    let mut child = shell(&home, "narrow");
    let refused = ask(&mut child, &post("/v1/oauth/token", ""));
    assert!(refused.ends_with(" 403") && refused.contains("gateway.not_allowed"), "{refused}");
    assert!(upstream.seen().is_empty());
    let cards = home.keyward(&["approvals", "--json"]).exits(0).json();
    assert_eq!(cards, serde_json::json!([]), "nobody is asked about what makes credentials");
    let entry = &entries(&home, "gateway.refused", 1)[0];
    assert_eq!((&entry["profile"], &entry["detail"]["code"]), (&"narrow".into(), &"gateway.not_allowed".into()));
}

#[test]
fn calls_outlive_credentials_that_are_short() {
    let (home, upstream) = home();
    let (mint, count) = (home.root.join("mint"), home.root.join("count"));
    // Each lives for six seconds and has a number of its own.
    let text =
        format!("echo >>{0}; printf '{{\"token\":\"{KEY}-%s\",\"expires_in\":6}}' $(($(wc -l <{0})))", count.display());
    std::fs::write(&mint, text).unwrap();
    let toml = format!(
        "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", {mint:?}]\n[delivery]\nmode = \"gateway\"\nenv = {{ T = \"token\" }}\n[gateway]\nbase_url = \"http://127.0.0.1:{}\"\nheader = \"x-api-key\"\nonly = [\"POST /v1/messages\"]\n",
        upstream.port
    );
    home.profile("minted", &toml);
    let mut child = Talk::start(home.keyward_command(&["run", "-p", "k", "-p", "minted", "--", "sh"]));
    let mut numbers = BTreeSet::new();
    wait_at_most(Duration::from_secs(60), "three credentials", || {
        assert_eq!(call_with(&mut child, "$T"), "200");
        let key = |head: &String| head.lines().find_map(|line| line.strip_prefix("x-api-key: ").map(str::to_owned));
        numbers.extend(upstream.seen().last().and_then(key));
        numbers.len() >= 3
    });
    assert!(!ask(&mut child, "echo $T").contains("REALKEY"));
    let renewed = home.audit_kinds().iter().filter(|kind| *kind == "lease.renewed").count();
    assert!(renewed >= 2, "{renewed}");
    wait_for("the renewals", || {
        let leases = home.keyward(&["ps", "--json"]).exits(0).json()[0]["leases"].clone();
        leases.as_array().unwrap().iter().any(|l| l["profile"] == "minted" && l["renewals"].as_u64().unwrap() >= 2)
    });
}

/// The status of one call with the token in a variable.
fn call_with(child: &mut Talk, variable: &str) -> String {
    let line = format!(
        "curl -s -o /dev/null -w '%{{http_code}}\\n' -m 20 -d '{{}}' -H \"x-api-key: {variable}\" \"$ANTHROPIC_BASE_URL/v1/messages\""
    );
    ask(child, &line)
}
