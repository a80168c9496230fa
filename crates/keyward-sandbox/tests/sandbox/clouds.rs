//! The APIs and the token endpoints of the clouds, and the keys of the others.

use crate::harness::{Answer, Sandbox, hello, until};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{SignatureEncoding, Signer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
const CONVERSE: &str = "/model/anthropic.claude-v1%3A0/converse";

fn asked() -> Value {
    json!({"messages": [{"role": "user", "content": [{"text": "hello"}]}]})
}

fn invoked(version: &str) -> Value {
    json!({"anthropic_version": version, "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]})
}

#[test]
fn the_key_is_taken_in_both_headers_until_it_is_taken_back() {
    let sandbox = Sandbox::start(&[]);
    let (key, token) = (sandbox.file("anthropic_key_file"), sandbox.token());
    let bearer = format!("Bearer {key}");
    for headers in [[VERSION, ("x-api-key", &key)], [VERSION, ("authorization", &bearer)]] {
        assert_eq!(sandbox.post("/v1/messages", &headers, &hello()).status, 200);
    }
    sandbox.turn("beta", json!({"needed": true}));
    let bearer = format!("Bearer {token}");
    let answer = sandbox.post("/v1/messages", &[VERSION, ("authorization", &bearer)], &hello());
    assert_eq!((answer.status, sandbox.reason()), (401, json!("beta_missing")));
    let flag = ("anthropic-beta", "x,oauth-2025-04-20");
    assert_eq!(sandbox.post("/v1/messages", &[VERSION, flag, ("authorization", &bearer)], &hello()).status, 200);
    sandbox.turn("revoke", json!({}));
    assert_eq!(sandbox.post("/v1/messages", &[VERSION, flag, ("authorization", &bearer)], &hello()).status, 401);
    assert_eq!(sandbox.post("/v1/messages", &[VERSION, ("x-api-key", &key)], &hello()).status, 200);
    sandbox.turn("revoke", json!({"keys": true}));
    let answer = sandbox.post("/v1/messages", &[VERSION, ("x-api-key", &key)], &hello());
    assert_eq!((answer.status, answer.error().as_str()), (401, "authentication_error"));
}

#[test]
fn files_are_taken_in_parts() {
    let sandbox = Sandbox::start(&[]);
    let key = sandbox.file("anthropic_key_file");
    let body = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n12345\r\n--b--\r\n";
    let send = |flag: &str, kind: &str, body: &str| {
        let headers = [VERSION, ("x-api-key", &key), ("anthropic-beta", flag), ("content-type", kind)];
        sandbox.send("POST", "/v1/files", &headers, body)
    };
    let (flag, kind) = ("files-api-2025-04-14", "multipart/form-data; boundary=b");
    let answer = send(flag, kind, body);
    assert_eq!((answer.status, &answer.json()["size_bytes"]), (200, &json!(5)));
    for (flag, kind, body) in [("x", kind, body), (flag, "text/plain", body), (flag, kind, "--b\r\n"), (flag, kind, "")]
    {
        assert_eq!(send(flag, kind, body).status, 400, "{flag} {kind} {body}");
    }
}

#[test]
fn a_stream_has_as_many_events_as_it_was_told() {
    let sandbox = Sandbox::start(&[]);
    sandbox.turn("stream", json!({"events": 7, "pace_ms": 1}));
    let mut question = hello();
    question["stream"] = true.into();
    let key = sandbox.file("anthropic_key_file");
    let answer = sandbox.post("/v1/messages", &[VERSION, ("x-api-key", &key)], &question);
    assert_eq!(answer.body.matches("\"text\":\".\"").count(), 7);
    for bad in [json!({"events": 100_001}), json!({"pace_ms": 60_001}), json!({"event": 1})] {
        assert_eq!(sandbox.switch("stream", &bad.to_string()).status, 400, "{bad}");
    }
}

#[test]
fn openai_answers_both_of_its_apis_in_its_own_shape() {
    let sandbox = Sandbox::start(&[]);
    let bearer = format!("Bearer {}", sandbox.file("openai_key_file"));
    let auth = [("authorization", bearer.as_str())];
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let answer = sandbox.post("/openai/v1/chat/completions", &auth, &chat);
    assert!(answer.json()["choices"][0]["message"]["content"].as_str().unwrap().starts_with("token "), "{answer:?}");
    let said = sandbox.post("/openai/v1/responses", &auth, &json!({"model": "m", "input": "hello"})).json();
    assert!(said["output"][0]["content"][0]["text"].as_str().unwrap().starts_with("token "), "{said}");
    let stream = sandbox.post("/openai/v1/responses", &auth, &json!({"model": "m", "input": "hello", "stream": true}));
    let names: Vec<&str> = stream.body.lines().filter_map(|line| line.strip_prefix("event: response.")).collect();
    assert_eq!((names.first(), names.last()), (Some(&"created"), Some(&"completed")));
    let mut chat = chat;
    chat["stream"] = true.into();
    let stream = sandbox.post("/openai/v1/chat/completions", &auth, &chat);
    assert!(stream.body.trim_end().ends_with("data: [DONE]") && !stream.body.contains("usage"), "{stream:?}");
    chat["stream_options"] = json!({"include_usage": true});
    let stream = sandbox.post("/openai/v1/chat/completions", &auth, &chat);
    assert!(stream.body.contains("\"completion_tokens\":2"), "{stream:?}");
    assert_eq!(sandbox.send("GET", "/openai/v1/models", &auth, "").status, 200);
    let refused = sandbox.post("/openai/v1/responses", &[("authorization", "Bearer other")], &chat);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
}

/// A request to Bedrock that is signed as AWS says, with `changes` made after that.
fn signed(sandbox: &Sandbox, keys: &Value, path: &str, body: &str, changes: &[(&str, &str)]) -> Answer {
    signed_for("bedrock", sandbox, keys, path, body, changes)
}

fn signed_for(
    service: &str,
    sandbox: &Sandbox,
    keys: &Value,
    path: &str,
    body: &str,
    changes: &[(&str, &str)],
) -> Answer {
    let text = |name: &str| keys[name].as_str().unwrap().to_owned();
    let session = keys["Token"].as_str().or(keys["SessionToken"].as_str()).unwrap();
    let now = jiff::Timestamp::now().to_string();
    let date: String = now.chars().filter(|c| !matches!(c, '-' | ':')).take(15).chain(['Z']).collect();
    let scope = format!("{}/us-east-1/{service}/aws4_request", &date[..8]);
    let names = "host;x-amz-date;x-amz-security-token";
    let path_again = path.replace('%', "%25");
    let canonical = format!(
        "POST\n{path_again}\n\nhost:{}\nx-amz-date:{date}\nx-amz-security-token:{session}\n\n{names}\n{}",
        sandbox.address(),
        hex::encode(Sha256::digest(body))
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let mut key = format!("AWS4{}", text("SecretAccessKey")).into_bytes();
    for part in [&date[..8], "us-east-1", service, "aws4_request", &to_sign] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
        text("AccessKeyId"),
        hex::encode(key)
    );
    let headers = [
        ("content-type", "application/json"),
        ("x-amz-date", &date),
        ("x-amz-security-token", session),
        ("authorization", &authorization),
    ];
    let headers: Vec<(&str, &str)> = headers
        .into_iter()
        .map(|(name, value)| {
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            (name, changed.map_or(value, |(_, value)| *value))
        })
        .filter(|(_, value)| !value.is_empty())
        .collect();
    sandbox.send("POST", path, &headers, body)
}

#[test]
fn bedrock_takes_signed_requests_alone() {
    let sandbox = Sandbox::start(&[]);
    let keys: Value = serde_json::from_str(&sandbox.file("aws_credentials_file")).unwrap();
    let body = asked().to_string();
    let answer = signed(&sandbox, &keys, CONVERSE, &body, &[]);
    let said = answer.json();
    assert!(said["output"]["message"]["content"][0]["text"].as_str().unwrap().starts_with("token "), "{answer:?}");
    assert!(answer.header("x-amzn-requestid").is_some());
    let stream = signed(&sandbox, &keys, "/model/m/converse-stream", &body, &[]);
    assert!(stream.body.contains("contentBlockDelta") && stream.body.contains("messageStop"), "{stream:?}");
    let body_v1 = invoked("bedrock-2023-05-31").to_string();
    assert_eq!(signed(&sandbox, &keys, "/model/m/invoke", &body_v1, &[]).json()["type"], "message");
    let stream = signed(&sandbox, &keys, "/model/m/invoke-with-response-stream", &body_v1, &[]);
    assert_eq!(stream.header("content-type"), Some("application/vnd.amazon.eventstream"));
    assert!(stream.body.contains(&STANDARD.encode(json!({"type": "message_stop"}).to_string())), "{stream:?}");
    for (version, status) in [("vertex-2023-10-16", 400), ("2026-1x-21", 400), ("", 400), ("2026-10-21", 200)] {
        let body = invoked(version).to_string();
        assert_eq!(signed(&sandbox, &keys, "/model/m/invoke", &body, &[]).status, status, "{version}");
    }

    for (changes, name, reason) in [
        (vec![("x-amz-security-token", "")], "UnrecognizedClientException", "session_missing"),
        (vec![("x-amz-security-token", "other")], "UnrecognizedClientException", "session"),
        (vec![("authorization", "")], "MissingAuthenticationTokenException", "no_credential"),
        (vec![("authorization", "Bearer x")], "MissingAuthenticationTokenException", "not_sigv4"),
        (vec![("x-amz-date", "20200101T000000Z")], "InvalidSignatureException", "clock_skew"),
    ] {
        let answer = signed(&sandbox, &keys, CONVERSE, &body, &changes);
        assert_eq!((answer.status, answer.header("x-amzn-errortype")), (403, Some(name.to_ascii_lowercase().as_str())));
        assert_eq!(sandbox.reason(), reason);
    }
    let mut other = keys.clone();
    other["SecretAccessKey"] = "x".into();
    signed(&sandbox, &other, CONVERSE, &body, &[]);
    assert_eq!(sandbox.reason(), "bad_signature");
    other["AccessKeyId"] = "ASIAOTHER".into();
    signed(&sandbox, &other, CONVERSE, &body, &[]);
    assert_eq!(sandbox.reason(), "unknown_key");
    sandbox.turn("clock", json!({"server_s": 301}));
    signed(&sandbox, &keys, CONVERSE, &body, &[]);
    assert_eq!(sandbox.reason(), "clock_skew");
}

#[test]
fn the_services_of_aws_give_keys_that_end() {
    let sandbox = Sandbox::start(&["--fast-lives", "--life", "1s"]);
    let roles = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(sandbox.send("GET", roles, &[], "").status, 401);
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "60");
    assert_eq!(sandbox.send("PUT", "/latest/api/token", &[], "").status, 400);
    let token = sandbox.send("PUT", "/latest/api/token", &[ttl], "").body;
    let with = [("x-aws-ec2-metadata-token", token.as_str())];
    let role = sandbox.send("GET", roles, &with, "").body;
    let keys = sandbox.send("GET", &format!("{roles}{role}"), &with, "").json();
    assert_eq!(keys["Code"], "Success");
    let body = asked().to_string();
    until(|| (signed(&sandbox, &keys, CONVERSE, &body, &[]).status == 403).then_some(()));
    assert_eq!(sandbox.reason(), "keys_over");

    let path = sandbox.text("aws_container_url").strip_prefix(sandbox.text("base_url")).unwrap().to_owned();
    let token = sandbox.file("aws_container_token_file");
    for (headers, status) in
        [(vec![], 401), (vec![("authorization", "x")], 401), (vec![("authorization", token.as_str())], 200)]
    {
        assert_eq!(sandbox.send("GET", &path, &headers, "").status, status);
    }
    assert_eq!(sandbox.stats()["aws_keys"], 2);
}

#[test]
fn google_gives_tokens_for_its_own_key_and_vertex_takes_them() {
    let sandbox = Sandbox::start(&["--life", "5m"]);
    sandbox.turn("google-key", json!({}));
    let file: Value = serde_json::from_str(&sandbox.file("google_service_account_file")).unwrap();
    let text = |name: &str| file[name].as_str().unwrap();
    let key = SigningKey::<rsa::sha2::Sha256>::new(pem(text("private_key")));
    let now = jiff::Timestamp::now().as_second();
    let exchange = |changes: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "iss": text("client_email"), "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": text("token_uri"), "iat": now, "exp": now + 3600,
        });
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": text("private_key_id")});
        let body = format!("{}.{}", part(&header), part(&crate::harness::changed(&claims, &changes)));
        let assertion = format!("{body}.{}", URL_SAFE_NO_PAD.encode(key.sign(body.as_bytes()).to_vec()));
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        sandbox.form("/google/token", &[("grant_type", grant), ("assertion", &assertion)])
    };
    let token = exchange(json!({})).json()["access_token"].as_str().unwrap().to_owned();
    for (changes, reason) in [
        (json!({"iss": "other"}), "issuer"),
        (json!({"aud": "https://oauth2.googleapis.com/"}), "audience"),
        (json!({"exp": now + 3601}), "life_too_long"),
        (json!({"iat": now - 4000, "exp": now - 400}), "expired"),
        (json!({"scope": null}), "scope"),
    ] {
        assert_eq!(exchange(changes.clone()).status, 400, "{changes}");
        assert_eq!(sandbox.reason(), reason);
    }

    let path = |model: &str| format!("/v1/projects/sandbox-project/locations/us/publishers/anthropic/models/{model}");
    let bearer = format!("Bearer {token}");
    let auth = [("authorization", bearer.as_str())];
    let body = invoked("vertex-2023-10-16");
    assert_eq!(sandbox.post(&path("m:rawPredict"), &auth, &body).json()["type"], "message");
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    assert!(sandbox.post(&path("m%3AstreamRawPredict"), &auth, &streamed).body.contains("event: message_stop"));
    let mut named = body.clone();
    named["model"] = "m".into();
    assert_eq!(sandbox.post(&path("m:rawPredict"), &auth, &named).status, 400);
    assert_eq!(sandbox.post(&path("count-tokens:rawPredict"), &auth, &named).json()["input_tokens"], 1);
    assert_eq!(sandbox.post(&path("m:rawPredict").replace("sandbox-", "other-"), &auth, &body).status, 403);
    assert_eq!(sandbox.form("/oauth/revoke", &[("token", &token)]).status, 200);
    let refused = sandbox.post(&path("m:rawPredict"), &auth, &body);
    assert_eq!((refused.status, &refused.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(sandbox.form("/oauth/revoke", &[("token", &token)]).status, 200, "as RFC 7009 section 2.2 says");
    assert_eq!((&sandbox.stats()["revocations"], &sandbox.stats()["google_tokens"]), (&json!(1), &json!(1)));
}

fn pem(text: &str) -> rsa::RsaPrivateKey {
    let lines: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    rsa::RsaPrivateKey::from_pkcs8_der(&STANDARD.decode(lines).unwrap()).unwrap()
}

#[test]
fn google_refreshes_a_login_and_serves_metadata() {
    let sandbox = Sandbox::start(&[]);
    let file: Value = serde_json::from_str(&sandbox.file("google_authorized_user_file")).unwrap();
    let text = |name: &str| file[name].as_str().unwrap();
    let ask = |refresh: &str, secret: &str| {
        let pairs = [("grant_type", "refresh_token"), ("client_id", text("client_id")), ("client_secret", secret)];
        sandbox.form("/google/token", &[&pairs[..], &[("refresh_token", refresh)]].concat())
    };
    assert_eq!(ask(text("refresh_token"), text("client_secret")).json()["token_type"], "Bearer");
    assert_eq!(ask("other", text("client_secret")).error(), "invalid_grant");
    assert_eq!(ask(text("refresh_token"), "other").error(), "invalid_client");
    let flavour = ("metadata-flavor", "Google");
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    let answer = sandbox.send("GET", path, &[flavour], "");
    assert_eq!((answer.header("metadata-flavor"), &answer.json()["token_type"]), (Some("google"), &json!("Bearer")));
    assert_eq!(sandbox.send("GET", path, &[], "").status, 403);
    assert_eq!(sandbox.send("GET", path, &[flavour, ("x-forwarded-for", "1.2.3.4")], "").status, 403);
    assert_eq!(sandbox.send("GET", "/computeMetadata/v1/project/project-id", &[flavour], "").body, "sandbox-project");
}

#[test]
fn entra_gives_tokens_and_foundry_takes_one_credential() {
    let sandbox = Sandbox::start(&[]);
    let (id, secret) = (sandbox.text("entra_client_id"), sandbox.file("entra_client_secret_file"));
    let path = format!("/entra/{}/oauth2/v2.0/token", sandbox.text("entra_tenant"));
    let scope = "https://ai.azure.com/.default";
    let ask = |path: &str, secret: &str, scope: &str| {
        let pairs =
            [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret), ("scope", scope)];
        sandbox.form(path, &pairs)
    };
    let token = ask(&path, &secret, scope).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&path, "other", scope).error(), "invalid_client");
    assert_eq!(ask(&path, &secret, "https://ai.azure.com").error(), "invalid_scope");
    assert_eq!(ask("/entra/other/oauth2/v2.0/token", &secret, scope).error(), "invalid_request");

    let (bearer, key) = (format!("Bearer {token}"), sandbox.file("foundry_key_file"));
    let (bearer, key, twin) =
        (("authorization", bearer.as_str()), ("api-key", key.as_str()), ("x-api-key", key.as_str()));
    for (headers, status) in [
        (vec![bearer], 200),
        (vec![key], 200),
        (vec![key, twin], 200),
        (vec![twin], 200),
        (vec![bearer, key], 400),
        (vec![bearer, twin], 400),
        (vec![key, ("x-api-key", "other")], 400),
        (vec![("api-key", "other")], 401),
        (vec![("authorization", "Bearer other")], 401),
        (vec![], 401),
    ] {
        let headers = [&[VERSION], &headers[..]].concat();
        assert_eq!(sandbox.post("/anthropic/v1/messages", &headers, &hello()).status, status, "{headers:?}");
    }
    let headers = [VERSION, bearer];
    assert_eq!(sandbox.post("/anthropic/v1/messages/count_tokens", &headers, &hello()).json()["input_tokens"], 1);
    assert_eq!(sandbox.stats()["entra_tokens"], 1);
}

#[test]
fn a_token_of_one_service_is_none_of_another() {
    let sandbox = Sandbox::start(&[]);
    let bearer = format!("Bearer {}", sandbox.token());
    let auth = [VERSION, ("authorization", bearer.as_str())];
    let vertex = "/v1/projects/sandbox-project/locations/us/publishers/anthropic/models/m:rawPredict";
    for path in [vertex, "/anthropic/v1/messages", "/openai/v1/responses"] {
        assert_eq!(sandbox.post(path, &auth, &hello()).status, 401, "{path}");
    }
    assert_eq!(sandbox.post(CONVERSE, &auth, &asked()).status, 403);
}

#[test]
fn faults_strike_the_clouds_in_their_own_shapes_and_nothing_secret_is_in_the_journal() {
    let sandbox = Sandbox::start(&[]);
    let key = sandbox.file("openai_key_file");
    let (bearer, question) = (format!("Bearer {key}"), json!({"model": "m", "input": "x"}));
    for (at, path) in [("openai", "/openai/v1/responses"), ("bedrock", CONVERSE), ("foundry", "/anthropic/v1/messages")]
    {
        sandbox.turn("fault", json!({"at": at, "fault": 503, "retry_after": 7}));
        let answer = sandbox.post(path, &[("authorization", &bearer)], &question);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")), "{at}");
    }
    assert_eq!(sandbox.switch("fault", &json!({"at": "bedrock", "fault": "empty_token"}).to_string()).status, 400);
    sandbox.turn("fault", json!({"at": "entra", "fault": "empty_token"}));
    let secret = sandbox.file("entra_client_secret_file");
    let path = format!("/entra/{}/oauth2/v2.0/token", sandbox.text("entra_tenant"));
    assert_eq!(sandbox.form(&path, &[("client_secret", &secret)]).json()["access_token"], "");
    sandbox.post("/openai/v1/responses", &[("authorization", &bearer)], &question);
    let journal = std::fs::read_to_string(sandbox.text("journal")).unwrap();
    assert!(journal.contains("/openai/v1/responses") && !journal.contains(&key) && !journal.contains(&secret));
}

/// The text of an element of XML.
fn element(answer: &Answer, name: &str) -> String {
    let rest = answer.body.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {answer:?}")).1;
    rest.split_once('<').unwrap().0.to_owned()
}

#[test]
fn sts_gives_keys_for_a_role_to_who_signs_for_it() {
    let sandbox = Sandbox::start(&[]);
    let keys: Value = serde_json::from_str(&sandbox.file("aws_credentials_file")).unwrap();
    let role = |name: &str| format!("&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2F{name}");
    let ask = |service: &str, more: &str| {
        let body = format!("Action=AssumeRole&Version=2011-06-15{more}");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        signed_for(service, &sandbox, &keys, "/aws/sts", &body, &form)
    };
    let good = format!("{}&RoleSessionName=me", role("sandbox-x"));
    let answer = ask("sts", &good);
    assert_eq!(answer.status, 200, "{answer:?}");
    let given = json!({
        "AccessKeyId": element(&answer, "AccessKeyId"),
        "SecretAccessKey": element(&answer, "SecretAccessKey"),
        "SessionToken": element(&answer, "SessionToken"),
    });
    assert_eq!(signed(&sandbox, &given, CONVERSE, &asked().to_string(), &[]).status, 200);
    let external = format!("{}&RoleSessionName=me", role("sandbox-external"));
    assert_eq!(ask("sts", &format!("{external}&ExternalId=sandbox%2Fexternal%3D1&DurationSeconds=900")).status, 200);
    for (service, more, status, code, reason) in [
        ("bedrock", good.as_str(), 403, "SignatureDoesNotMatch", "scope_service"),
        ("sts", &good.replace("sandbox", "other"), 403, "AccessDenied", "role"),
        ("sts", &good.replace("123456789012", "123456789013"), 403, "AccessDenied", "role"),
        ("sts", &external, 403, "AccessDenied", "external_id"),
        ("sts", &good.replace("=me", "=m"), 400, "ValidationError", "session_name"),
        ("sts", &format!("{good}&DurationSeconds=899"), 400, "ValidationError", "duration"),
        ("sts", &format!("{good}&Other=1"), 400, "ValidationError", "unknown_field"),
        ("sts", &format!("{good}&WebIdentityToken=x"), 400, "InvalidAction", "action"),
    ] {
        let answer = ask(service, more);
        assert_eq!((answer.status, element(&answer, "Code").as_str()), (status, code), "{more}");
        assert_eq!(sandbox.reason(), reason, "{more}");
    }
}

#[test]
fn sts_and_google_take_the_identity_token_of_the_file_and_no_other() {
    let sandbox = Sandbox::start(&[]);
    let arn = "arn:aws:iam::123456789012:role/sandbox-web";
    let assume = |token: &str| {
        let pairs = [("Action", "AssumeRoleWithWebIdentity"), ("Version", "2011-06-15"), ("RoleArn", arn)];
        sandbox.form("/aws/sts", &[&pairs[..], &[("RoleSessionName", "me"), ("WebIdentityToken", token)]].concat())
    };
    let file: Value = serde_json::from_str(&sandbox.file("google_external_account_file")).unwrap();
    let text = |name: &str| file[name].as_str().unwrap();
    assert_eq!(file["credential_source"]["file"], sandbox.text("identity_token_file"));
    let exchange = |token: &str, audience: &str| {
        let kind = "urn:ietf:params:oauth:token-type:access_token";
        let pairs = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", audience),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("requested_token_type", kind),
            ("subject_token", token),
            ("subject_token_type", text("subject_token_type")),
        ];
        sandbox.form("/google/sts", &pairs)
    };
    let good = sandbox.assertion();
    assert_eq!(assume(&good).status, 200);
    let token = exchange(&good, text("audience")).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(exchange(&good, "other").error(), "invalid_target");

    let url = text("service_account_impersonation_url");
    let path = url.strip_prefix(sandbox.text("base_url")).unwrap();
    let body =
        json!({"delegates": [], "scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "3600s"});
    let bearer = format!("Bearer {token}");
    let answer = sandbox.post(path, &[("authorization", &bearer)], &body);
    let account = answer.json()["accessToken"].as_str().unwrap().to_owned();
    let call = "/v1/projects/sandbox-project/locations/us/publishers/anthropic/models/m:rawPredict";
    let vertex = [("authorization", format!("Bearer {account}"))];
    let vertex: Vec<_> = vertex.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(sandbox.post(call, &vertex, &invoked("vertex-2023-10-16")).status, 200);
    for (token, changes, status) in [
        (bearer.as_str(), json!({"lifetime": "3600"}), 400),
        (&bearer, json!({"lifetime": "43201s"}), 400),
        (&bearer, json!({"scope": []}), 400),
        (&bearer, json!({"more": 1}), 400),
        ("Bearer x", json!({}), 401),
    ] {
        let body = crate::harness::changed(&body, &changes);
        assert_eq!(sandbox.post(path, &[("authorization", token)], &body).status, status, "{changes}");
    }

    for (claims, code) in [
        (json!({"aud": "sts.amazonaws.com"}), "InvalidIdentityToken"),
        (json!({"iss": "https://other.example"}), "InvalidIdentityToken"),
        (json!({"iat": 1_700_000_000, "exp": 1_700_000_300}), "ExpiredTokenException"),
    ] {
        sandbox.turn("issue", json!({"claims": claims}));
        let bad = sandbox.assertion();
        assert_eq!(element(&assume(&bad), "Code"), code, "{claims}");
        assert_eq!(exchange(&bad, text("audience")).error(), "invalid_grant");
    }
    assert_eq!(element(&assume("x"), "Code"), "InvalidIdentityToken");
}

#[test]
fn the_portal_gives_keys_to_who_has_logged_in() {
    let sandbox = Sandbox::start(&[]);
    let kept = std::fs::read_dir(sandbox.text("aws_sso_cache")).unwrap().flatten().map(|entry| entry.path());
    let mut logins = kept.filter(|path| path.file_stem().is_some_and(|stem| stem.len() == 40));
    let login: Value = serde_json::from_slice(&std::fs::read(logins.next().unwrap()).unwrap()).unwrap();
    let ask = |token: &str, account: &str, role: &str| {
        let path = format!("/aws/sso/federation/credentials?role_name={role}&account_id={account}");
        sandbox.send("GET", &path, &[("x-amz-sso_bearer_token", token)], "")
    };
    let token = login["accessToken"].as_str().unwrap();
    let keys = ask(token, "123456789012", "sandbox-login").json()["roleCredentials"].clone();
    let given = json!({
        "AccessKeyId": keys["accessKeyId"], "SecretAccessKey": keys["secretAccessKey"], "SessionToken": keys["sessionToken"],
    });
    assert_eq!(signed(&sandbox, &given, CONVERSE, &asked().to_string(), &[]).status, 200);
    let left = keys["expiration"].as_i64().unwrap() - jiff::Timestamp::now().as_millisecond();
    assert!((1..=60_000).contains(&left), "in milliseconds: {left}");
    for (token, account, role, status) in [
        ("x", "123456789012", "sandbox-login", 401),
        (token, "1", "sandbox-login", 403),
        (token, "123456789012", "o", 403),
    ] {
        assert_eq!(ask(token, account, role).status, status);
    }
}
