//! The rules of the token endpoint and of the API.

use crate::harness::{Sandbox, changed, claims, hello};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_right_request_gets_a_token_that_works() {
    for alg in ["ES256", "RS256"] {
        let sandbox = Sandbox::start(&["--alg", alg, "--life", "5m"]);
        let mut request = sandbox.request();
        let beta = ("anthropic-beta", "oauth-2025-04-20,oidc-federation-2026-04-01");
        for (changes, headers) in [
            (json!({}), vec![JSON]),
            (json!({"workspace_id": "default"}), vec![JSON, beta]),
            (
                json!({
                    "workspace_id": sandbox.text("workspace_id"),
                    "service_account_id": sandbox.text("service_account_id"),
                }),
                vec![
                    ("content-type", "application/json; charset=utf-8"),
                    ("anthropic-beta", "x, oidc-federation-2026-04-01 ,oauth-2025-04-20"),
                ],
            ),
        ] {
            request = changed(&request, &changes);
            let answer = sandbox.send("POST", "/v1/oauth/token", &headers, &request.to_string());
            let body = answer.json();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(300)));
            assert_eq!(body["scope"], "workspace:developer");
            assert!(answer.header("request-id").is_some_and(|id| id.starts_with("req_")));
            let token = body["access_token"].as_str().unwrap();
            assert!(token.starts_with("sk-ant-oat01-"));
            let said = sandbox.message(token, &hello()).json();
            let line = sandbox.journal().pop().unwrap();
            assert_eq!(said["content"][0]["text"], format!("token {}", line["token"].as_str().unwrap()));
        }
        let stats = sandbox.stats();
        assert_eq!((&stats["asked"], &stats["exchanges"], &stats["refused"]), (&json!(3), &json!(3), &json!(0)));
        assert_eq!((&stats["messages"], &stats["live"]), (&json!(3), &json!(3)));
    }
}

#[test]
fn every_malformed_request_is_refused_with_its_reason() {
    let sandbox = Sandbox::start(&[]);
    let good = sandbox.request();
    let long = "a".repeat(16_385);
    for (changes, reason) in [
        (json!({"scope": "workspace:developer"}), "unknown_field"),
        (json!({"Assertion": "x"}), "unknown_field"),
        (json!({"grant_type": null}), "field_missing"),
        (json!({"grant_type": "client_credentials"}), "grant_type"),
        (json!({"assertion": null}), "field_missing"),
        (json!({"assertion": ""}), "field_malformed"),
        (json!({"assertion": 5}), "field_malformed"),
        (json!({"assertion": long}), "assertion_too_large"),
        (json!({"federation_rule_id": null}), "field_missing"),
        (json!({"federation_rule_id": "fdrl-01"}), "rule_malformed"),
        (json!({"federation_rule_id": "fdrl_"}), "rule_malformed"),
        (json!({"federation_rule_id": ["fdrl_01"]}), "field_malformed"),
        (json!({"organization_id": null}), "field_missing"),
        (json!({"organization_id": "org_01"}), "organization_malformed"),
        (json!({"service_account_id": ""}), "field_malformed"),
        (json!({"service_account_id": "account"}), "service_account_malformed"),
        (json!({"workspace_id": ""}), "field_malformed"),
        (json!({"workspace_id": "Default"}), "workspace_malformed"),
    ] {
        let answer = sandbox.exchange(&changed(&good, &changes));
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_request_error"), "{changes}");
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("request-id"), "{changes}");
        assert_eq!(sandbox.reason(), reason, "{changes}");
    }
    let text = good.to_string();
    let null = text.replacen('{', r#"{"workspace_id":null,"#, 1);
    let twice = text.replacen('{', r#"{"grant_type":"x","#, 1);
    let huge = " ".repeat(32 * 1024) + &text;
    for (method, headers, body, status, reason) in [
        ("GET", vec![JSON], "", 405, "method"),
        ("PUT", vec![JSON], &text, 405, "method"),
        ("POST", vec![], &text, 400, "content_type"),
        ("POST", vec![("content-type", "application/x-www-form-urlencoded")], &text, 400, "content_type"),
        ("POST", vec![("content-type", "text/application/json")], &text, 400, "content_type"),
        ("POST", vec![JSON, ("authorization", "Bearer x")], &text, 400, "credential_header"),
        ("POST", vec![JSON, ("x-api-key", "x")], &text, 400, "credential_header"),
        ("POST", vec![JSON, ("anthropic-beta", "oauth-2025-04-20")], &text, 400, "beta"),
        ("POST", vec![JSON, ("anthropic-beta", "oauth-2025-04-20,oidc-federation-2026-04-011")], &text, 400, "beta"),
        ("POST", vec![JSON, ("anthropic-beta", "")], &text, 400, "beta"),
        ("POST", vec![JSON], "", 400, "not_json"),
        ("POST", vec![JSON], "[]", 400, "not_json"),
        ("POST", vec![JSON], &twice, 400, "not_json"),
        ("POST", vec![JSON], &null, 400, "field_malformed"),
        ("POST", vec![JSON], &huge, 413, "body_too_large"),
    ] {
        let answer = sandbox.send(method, "/v1/oauth/token", &headers, body);
        assert_eq!(answer.status, status, "{reason}: {answer:?}");
        assert_eq!(sandbox.reason(), reason);
    }
    let stats = sandbox.stats();
    assert_eq!((&stats["exchanges"], &stats["live"]), (&json!(0), &json!(0)));
    assert_eq!(stats["asked"], stats["refused"]);
}

#[test]
fn what_does_not_match_is_refused_opaquely_in_each_generation() {
    let sandbox = Sandbox::start(&[]);
    let other_uuid = "00000000-0000-4000-8000-000000000000";
    let now = claims(&sandbox.assertion())["iat"].as_i64().unwrap();
    // What is changed in the request, what in the claims of the assertion, and the reason.
    let cases = [
        (json!({"federation_rule_id": "fdrl_01other"}), json!({}), "unknown_rule"),
        (json!({"organization_id": other_uuid}), json!({}), "organization"),
        (json!({"service_account_id": "svac_01other"}), json!({}), "service_account"),
        (json!({"workspace_id": "wrkspc_01other"}), json!({}), "workspace"),
        (json!({"assertion": "no.jwt"}), json!({}), "not_a_jwt"),
        (json!({}), json!({"iss": "http://127.0.0.1:1/idp"}), "issuer"),
        (json!({}), json!({"aud": "https://api.anthropic.com/"}), "audience"),
        (json!({}), json!({"aud": null}), "audience"),
        (json!({}), json!({"sub": "Sandbox:agent"}), "match_subject"),
        (json!({}), json!({"sub": null}), "subject_missing"),
        (json!({}), json!({"iat": null}), "issued_at_missing"),
        (json!({}), json!({"exp": null}), "expiry_missing"),
        (json!({}), json!({"iat": now + 120, "exp": now + 240}), "issued_in_future"),
        (json!({}), json!({"iat": now - 300, "exp": now - 60}), "expired"),
        (json!({}), json!({"exp": now + 4000}), "life_too_long"),
        (json!({}), json!({"nbf": now + 120}), "not_yet_valid"),
    ];
    for (generation, status, kind) in
        [("400", 400, "invalid_grant"), ("401", 401, "authentication_error"), ("rfc6749", 400, "invalid_grant")]
    {
        sandbox.turn("refusals", json!({"as": generation}));
        for (changes, claims, reason) in &cases {
            sandbox.turn("issue", json!({"claims": claims}));
            let answer = sandbox.exchange(&changed(&sandbox.request(), changes));
            assert_eq!((answer.status, answer.error().as_str()), (status, kind), "{reason} as {generation}");
            assert!(!answer.body.contains(reason), "{answer:?}");
            assert_eq!(answer.json()["error"].is_string(), generation == "rfc6749");
            assert_eq!(sandbox.reason(), *reason);
        }
        sandbox.turn("issue", json!({"claims": {"aud": ["a", "https://api.anthropic.com"]}}));
        assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
    }
}

#[test]
fn a_forged_assertion_is_refused() {
    let (sandbox, other) = (Sandbox::start(&[]), Sandbox::start(&[]));
    let good = sandbox.assertion();
    let parts: Vec<&str> = good.split('.').collect();
    let foreign = other.assertion();
    let b64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let claimed = claims(&good).to_string().replace("sandbox:agent", "sandbox:admin");
    let foreign_signature = foreign.rsplit('.').next().unwrap();
    for (assertion, reason) in [
        (format!("{}.{}.{}", parts[0], b64(&claimed), parts[2]), "bad_signature"),
        (format!("{}.{}.{foreign_signature}", parts[0], parts[1]), "bad_signature"),
        (format!("{}.{}.{}", b64(r#"{"alg":"none"}"#), parts[1], parts[2]), "algorithm"),
        (format!("{}.{}.", b64(r#"{"alg":"none"}"#), parts[1]), "not_a_jwt"),
        (foreign.clone(), "unknown_kid"),
    ] {
        let answer = sandbox.exchange(&changed(&sandbox.request(), &json!({"assertion": assertion})));
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_grant"), "{reason}");
        assert_eq!(sandbox.reason(), reason);
    }
}

#[test]
fn the_rule_can_be_changed_and_a_workspace_be_required() {
    let sandbox = Sandbox::start(&[]);
    for (rule, reason) in [
        (json!({"subject": "sandbox:client"}), Some("match_subject")),
        (json!({"subject": "sandbox:agent"}), None),
        (json!({"subject": "sandbox:a*"}), None),
        (json!({"audience": "other"}), Some("audience")),
        (json!({"audience": "https://api.anthropic.com"}), None),
        (json!({"issuer": "https://idp.example"}), Some("issuer")),
        (json!({"issuer": sandbox.text("issuer")}), None),
    ] {
        sandbox.turn("rule", rule.clone());
        let answer = sandbox.exchange(&sandbox.request());
        assert_eq!(answer.status, if reason.is_some() { 400 } else { 200 }, "{rule}");
        assert_eq!(sandbox.reason(), json!(reason), "{rule}");
    }
    sandbox.turn("rule", json!({"workspace_required": true, "life_s": 90}));
    let answer = sandbox.exchange(&sandbox.request());
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_request_error"));
    assert!(answer.body.contains("workspace_id_required"));
    assert_eq!(sandbox.reason(), "workspace_id_required");
    let named = changed(&sandbox.request(), &json!({"workspace_id": sandbox.text("workspace_id")}));
    assert_eq!(sandbox.exchange(&named).json()["expires_in"], 90);
}

#[test]
fn shifted_clocks_decide_about_assertions_and_leave_live_tokens_alone() {
    let sandbox = Sandbox::start(&["--life", "10m"]);
    let token = sandbox.token();
    for (shift, reason) in [
        (json!({"server_s": 20}), None),
        (json!({"server_s": -20}), None),
        (json!({"server_s": 360}), Some("expired")),
        (json!({"server_s": -60}), Some("issued_in_future")),
        (json!({"server_s": 0, "idp_s": 60}), Some("issued_in_future")),
        (json!({"idp_s": -360}), Some("expired")),
        (json!({"server_s": -360}), None),
    ] {
        sandbox.turn("clock", shift.clone());
        sandbox.turn("issue", json!({}));
        let answer = sandbox.exchange(&sandbox.request());
        assert_eq!(answer.status, if reason.is_some() { 400 } else { 200 }, "{shift}");
        assert_eq!(sandbox.reason(), json!(reason), "{shift}");
        assert_eq!(sandbox.message(&token, &hello()).status, 200);
    }
}

#[test]
fn a_token_lives_at_most_twice_as_long_as_its_assertion() {
    let sandbox = Sandbox::start(&["--life", "1h", "--assertion-life", "100s"]);
    let life = sandbox.exchange(&sandbox.request()).json()["expires_in"].as_u64().unwrap();
    assert!((61..=200).contains(&life), "{life}");
    let now = claims(&sandbox.assertion())["iat"].as_i64().unwrap();
    sandbox.turn("issue", json!({"claims": {"exp": now + 2}}));
    assert_eq!(sandbox.exchange(&sandbox.request()).json()["expires_in"], 60);
}

#[test]
fn tokens_die_of_age_and_by_revocation() {
    let sandbox = Sandbox::start(&["--life", "1s", "--fast-lives"]);
    let token = sandbox.token();
    let refused = crate::harness::until(|| Some(sandbox.message(&token, &hello())).filter(|a| a.status != 200));
    assert_eq!((refused.status, refused.error().as_str()), (401, "authentication_error"));
    assert_eq!(sandbox.reason(), "token_not_live");
    assert_eq!(sandbox.stats()["live"], 0);
    sandbox.turn("rule", json!({"life_s": 600}));
    let tokens = [sandbox.token(), sandbox.token()];
    assert_eq!(sandbox.stats()["live"], 2);
    sandbox.turn("revoke", json!({}));
    assert!(tokens.iter().all(|token| sandbox.message(token, &hello()).status == 401));
    assert_eq!(sandbox.message(&sandbox.token(), &hello()).status, 200);
}

#[test]
fn a_one_time_assertion_passes_once_whatever_became_of_its_answer() {
    let sandbox = Sandbox::start(&["--one-time"]);
    let request = sandbox.request();
    assert_eq!(sandbox.exchange(&request).status, 200);
    let again = sandbox.exchange(&request);
    assert_eq!((again.status, again.error().as_str()), (401, "authentication_error"));
    assert_eq!(again.json()["error"]["message"], "Authentication failed");
    assert_eq!(sandbox.reason(), "jti_reused");
    sandbox.turn("issue", json!({}));
    let request = sandbox.request();
    sandbox.turn("fault", json!({"at": "token", "fault": "500"}));
    assert_eq!(sandbox.exchange(&request).status, 500);
    assert_eq!(sandbox.exchange(&request).status, 401);
    sandbox.turn("issue", json!({"claims": {"sub": "else"}}));
    let request = sandbox.request();
    assert_eq!(sandbox.exchange(&request).status, 400);
    assert_eq!(sandbox.exchange(&request).status, 401);
    sandbox.turn("refusals", json!({"as": "rfc6749"}));
    let again = sandbox.exchange(&request);
    assert_eq!((again.status, again.json()["error"].clone()), (400, json!("invalid_grant")));
    assert_eq!(sandbox.stats()["replays"], 4);
    // A token without an id is not subject to it.
    sandbox.turn("issue", json!({"claims": {"jti": null}}));
    assert!((0..2).all(|_| sandbox.exchange(&sandbox.request()).status == 200));
}

#[test]
fn a_rotated_key_takes_the_old_assertions_with_it() {
    for alg in ["ES256", "RS256"] {
        let sandbox = Sandbox::start(&["--alg", alg]);
        let keys = || sandbox.send("GET", "/idp/jwks", &[], "").json()["keys"].take();
        let (before, old) = (keys(), sandbox.request());
        sandbox.turn("rotate-keys", json!({}));
        let after = keys();
        assert_eq!(after.as_array().unwrap().len(), 1);
        assert_ne!(before[0]["kid"], after[0]["kid"]);
        assert_eq!(after[0]["alg"], alg);
        assert_eq!(sandbox.exchange(&old).status, 400);
        assert_eq!(sandbox.reason(), "unknown_kid");
        assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
    }
}

#[test]
fn the_api_takes_live_bearer_tokens_alone() {
    let sandbox = Sandbox::start(&[]);
    let bearer = format!("Bearer {}", sandbox.token());
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let version = ("anthropic-version", "2023-06-01");
    let unknown = format!("Bearer sk-ant-oat01-{}", "a".repeat(64));
    for (headers, reason) in [
        (vec![], "no_credential"),
        (vec![("x-api-key", token)], "api_key"),
        (vec![("authorization", token)], "not_bearer"),
        (vec![("authorization", "Bearer ")], "not_bearer"),
        (vec![("authorization", "Basic eA==")], "not_bearer"),
        (vec![("authorization", &unknown)], "token_not_live"),
        (vec![("authorization", &bearer), ("authorization", &bearer)], "two_credentials"),
        (vec![("authorization", &bearer), ("x-api-key", "sk-ant-api03-stale")], "two_credentials"),
    ] {
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/v1/models"] {
            let headers: Vec<_> = headers.iter().copied().chain([version, JSON]).collect();
            let method = if path == "/v1/models" { "GET" } else { "POST" };
            let answer = sandbox.send(method, path, &headers, &hello().to_string());
            assert_eq!((answer.status, answer.error().as_str()), (401, "authentication_error"), "{reason} {path}");
            assert_eq!(sandbox.reason(), reason);
        }
    }
    assert_eq!(sandbox.stats()["unauthorized"], 8 * 3);
    let both = [("authorization", bearer.as_str()), ("x-api-key", token), version, JSON];
    assert_eq!(sandbox.send("POST", "/v1/messages?beta=true", &both, &hello().to_string()).status, 200);
    let counted = sandbox.send("POST", "/v1/messages/count_tokens", &both, &hello().to_string());
    assert!(counted.json()["input_tokens"].is_u64());
    let models = sandbox.send("GET", "/v1/models", &both[..3], "").json();
    assert_eq!(models["data"][0]["type"], "model");
    assert_eq!(sandbox.stats()["messages"], 1);
    for (headers, changes, reason) in [
        (&both[..1], json!({}), "version_missing"),
        (&both[..3], json!({}), "content_type"),
        (&both[..], json!({"model": null}), "field_missing"),
        (&both[..], json!({"messages": []}), "field_missing"),
        (&both[..], json!({"max_tokens": 0}), "field_missing"),
    ] {
        let answer = sandbox.send("POST", "/v1/messages", headers, &changed(&hello(), &changes).to_string());
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_request_error"), "{reason}");
        assert_eq!(sandbox.reason(), reason);
    }
}

/// Names and data of server-sent events.
fn events(body: &str) -> Vec<(String, Value)> {
    let split = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    };
    body.split_terminator("\n\n").map(split).collect()
}

#[test]
fn a_stream_has_the_events_that_sdks_expect() {
    let sandbox = Sandbox::start(&[]);
    let token = sandbox.token();
    let stream = changed(&hello(), &json!({"stream": true}));
    let waiting = changed(&stream, &json!({"messages": [{"role": "user", "content": "wait 1"}]}));
    for (body, dots) in [(stream, 0), (waiting, 10)] {
        let answer = sandbox.message(&token, &body);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let events = events(&answer.body);
        assert!(events.iter().all(|(name, data)| data["type"] == **name));
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["message_start", "content_block_start"]);
        assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
        let deltas = &events[2..events.len() - 3];
        assert!(deltas.iter().all(|(name, _)| name == "content_block_delta"));
        let text: String = deltas.iter().map(|(_, data)| data["delta"]["text"].as_str().unwrap()).collect();
        let print = sandbox.journal().pop().unwrap()["token"].as_str().unwrap().to_owned();
        let expected = format!("{}token {print}", if dots > 0 { ".".repeat(dots) + " " } else { String::new() });
        assert_eq!(text, expected);
        assert!(events[events.len() - 2].1["usage"]["output_tokens"].is_u64());
    }
    let waited = changed(&hello(), &json!({"messages": [{"role": "user", "content": "wait 1"}]}));
    assert!(sandbox.message(&token, &waited).json()["content"][0]["text"].is_string());
}

#[test]
fn switches_need_their_header_and_known_fields() {
    let sandbox = Sandbox::start(&[]);
    for headers in [
        [].as_slice(),
        &[("x-keyward-sandbox", "0")],
        &[("x-keyward-sandbox", "1"), ("origin", "http://127.0.0.1")],
        &[("x-keyward-sandbox", "1"), ("origin", "null")],
    ] {
        for (method, path) in [("GET", "stats"), ("GET", "journal"), ("POST", "revoke"), ("POST", "fault")] {
            let answer = sandbox.send(method, &format!("/sandbox/{path}"), headers, "{}");
            assert_eq!(answer.status, 403, "{headers:?} {path}");
        }
    }
    for (name, body) in [
        ("fault", "{}"),
        ("fault", r#"{"at":"token"}"#),
        ("fault", r#"{"at":"moon","fault":"hang"}"#),
        ("fault", r#"{"at":"token","fault":"sulk"}"#),
        ("fault", r#"{"at":"messages","fault":"empty_token"}"#),
        ("fault", r#"{"at":"token","fault":"hang","times":-1}"#),
        ("fault", r#"{"at":"token","fault":"hang","time":1}"#),
        ("clock", r#"{"server_s":1.5}"#),
        ("clock", r#"{"server":1}"#),
        ("refusals", r#"{"as":"402"}"#),
        ("refusals", "{}"),
        ("rule", r#"{"subject":""}"#),
        ("rule", r#"{"life_s":59}"#),
        ("rule", r#"{"workspace_required":"yes"}"#),
        ("rule", r#"{"subject":"x","subjects":"y"}"#),
        ("issue", r#"{"claims":[]}"#),
        ("issue", r#"{"claim":{}}"#),
        ("revoke", r#"{"all":true}"#),
        ("clear", "[]"),
    ] {
        assert_eq!(sandbox.switch(name, body).status, 400, "{name} {body}");
    }
    assert_eq!(sandbox.switch("dance", "").status, 404);
    // None of them did anything.
    assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
    assert_eq!(sandbox.send("GET", "/elsewhere", &[], "").status, 404);
}

#[test]
fn the_journal_tells_what_happened_and_holds_no_secret() {
    let sandbox = Sandbox::start(&["--one-time"]);
    let assertion = sandbox.assertion();
    let headers = [JSON, ("user-agent", "probe/1"), ("anthropic-beta", "oauth-2025-04-20,oidc-federation-2026-04-01")];
    let answer = sandbox.send("POST", "/v1/oauth/token", &headers, &sandbox.request().to_string());
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let line = sandbox.journal().pop().unwrap();
    assert_eq!((&line["path"], &line["status"]), (&json!("/v1/oauth/token"), &json!(200)));
    assert_eq!((&line["method"], &line["user_agent"]), (&json!("POST"), &json!("probe/1")));
    assert_eq!((&line["sub"], &line["aud"]), (&json!("sandbox:agent"), &json!(["https://api.anthropic.com"])));
    assert_eq!(line["beta"], headers[2].1);
    assert_eq!(line["request_id"].as_str(), answer.header("request-id"));
    assert_eq!((line["token"].as_str().unwrap().len(), line["jti"].as_str().unwrap().len()), (8, 8));
    assert!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')) && line["reason"].is_null());
    let file = sandbox.folder.0.join("token");
    std::fs::write(&file, &token).unwrap();
    assert_eq!(line["token"].as_str().unwrap(), crate::harness::fingerprint(&file));

    // Secrets where they do not belong.
    let secret = sandbox.file("client_secret_file");
    let bearer = format!("Bearer {token}");
    sandbox.send("GET", &format!("/v1/{token}?key={assertion}"), &[("user-agent", &assertion)], "");
    sandbox.send("POST", "/v1/messages", &[("anthropic-beta", &bearer), ("x-api-key", &token)], &assertion);
    sandbox.exchange(&changed(&sandbox.request(), &json!({assertion.as_str(): 1})));
    sandbox.turn("issue", json!({"claims": {"sub": token, "aud": [assertion]}}));
    sandbox.exchange(&sandbox.request());
    sandbox.message(&token, &hello());
    for at in ["token", "messages", "idp"] {
        sandbox.turn("fault", json!({"at": at, "fault": "echo"}));
    }
    sandbox.exchange(&sandbox.request());
    sandbox.message(&token, &hello());
    sandbox.send("POST", "/idp/token", &[], &format!("client_secret={secret}"));
    sandbox.switch("fault", &json!({"at": token}).to_string());

    let text = std::fs::read_to_string(sandbox.text("journal")).unwrap();
    assert!(text.lines().count() > 10);
    let jti = claims(&assertion)["jti"].as_str().unwrap().to_owned();
    for secret in [&assertion, &token, &secret, &jti, &sandbox.assertion()] {
        for piece in [secret.as_str(), &secret[secret.len() - 20..]] {
            assert!(!text.contains(piece), "{piece} stands in the journal");
        }
    }
}
