//! The identity provider.

use crate::harness::{Sandbox, changed, claims};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
fn discovery_leads_to_keys_and_to_the_token_endpoint() {
    let sandbox = Sandbox::start(&[]);
    let found = sandbox.send("GET", "/idp/.well-known/openid-configuration", &[], "").json();
    assert_eq!(found["issuer"], sandbox.ready["issuer"]);
    assert_eq!(found["token_endpoint"], sandbox.ready["token_url"]);
    assert_eq!(found["jwks_uri"], format!("{}/jwks", sandbox.text("issuer")));
    assert_eq!(claims(&sandbox.assertion())["iss"], sandbox.ready["issuer"]);
}

#[test]
fn a_client_gets_a_token_that_can_be_exchanged_by_either_method() {
    let sandbox = Sandbox::start(&["--one-time"]);
    let (id, secret) = (encoded(sandbox.text("client_id")), encoded(&sandbox.file("client_secret_file")));
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let grant = "grant_type=client_credentials&audience=https%3A%2F%2Fapi.anthropic.com&scope=a+b";
    let post = format!("{grant}&client_id={id}&client_secret={secret}");
    for (headers, body) in [
        (vec![FORM], post.as_str()),
        (vec![FORM, ("authorization", &basic)], grant),
        (vec![FORM, ("authorization", &basic)], &format!("{grant}&client_id={id}")),
    ] {
        let answer = sandbox.send("POST", "/idp/token", &headers, body);
        let given = answer.json();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!((&given["token_type"], &given["expires_in"]), (&json!("Bearer"), &json!(300)));
        assert_eq!(given["scope"], "a b");
        let claims = claims(given["access_token"].as_str().unwrap());
        assert_eq!((&claims["sub"], &claims["scope"]), (&sandbox.ready["client_id"], &json!("a b")));
        let request = changed(&sandbox.request(), &json!({"assertion": given["access_token"]}));
        assert_eq!(sandbox.exchange(&request).status, 200);
        assert_eq!(sandbox.exchange(&request).status, 401);
    }
    assert_eq!(sandbox.stats()["idp_tokens"], 3);
    // Without an audience the token is for nobody else than the issuer.
    let body = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let given = sandbox.send("POST", "/idp/token", &[FORM], &body).json();
    assert_eq!(claims(given["access_token"].as_str().unwrap())["aud"], sandbox.ready["issuer"]);
    let request = changed(&sandbox.request(), &json!({"assertion": given["access_token"]}));
    assert_eq!(sandbox.exchange(&request).status, 400);
    assert_eq!(sandbox.reason(), "audience");
}

#[test]
fn a_client_that_errs_is_told_as_rfc_6749_says() {
    let sandbox = Sandbox::start(&[]);
    let (raw_id, raw_secret) = (sandbox.text("client_id").to_owned(), sandbox.file("client_secret_file"));
    let (id, secret) = (encoded(&raw_id), encoded(&raw_secret));
    let basic = |text: String| format!("Basic {}", STANDARD.encode(text));
    let good = basic(format!("{id}:{secret}"));
    let raw = basic(format!("{raw_id}:{raw_secret}"));
    let wrong = basic(format!("{id}:wrong"));
    let grant = "grant_type=client_credentials";
    let post = format!("{grant}&client_id={id}&client_secret={secret}");
    for (authorization, body, status, error) in [
        ("", grant.to_owned(), 401, "invalid_client"),
        ("", format!("{grant}&client_id={id}"), 401, "invalid_client"),
        ("", format!("{grant}&client_id={id}&client_secret=wrong"), 401, "invalid_client"),
        ("", format!("{grant}&client_id={id}&client_secret="), 401, "invalid_client"),
        (wrong.as_str(), grant.to_owned(), 401, "invalid_client"),
        (raw.as_str(), grant.to_owned(), 401, "invalid_client"),
        ("Bearer x", grant.to_owned(), 401, "invalid_client"),
        (good.as_str(), post.clone(), 400, "invalid_request"),
        (good.as_str(), format!("{grant}&client_id=else"), 400, "invalid_request"),
        (good.as_str(), String::new(), 400, "invalid_request"),
        (good.as_str(), "grant_type=password".into(), 400, "unsupported_grant_type"),
        (good.as_str(), format!("{grant}&{grant}"), 400, "invalid_request"),
        (good.as_str(), format!("{grant}&audienze=x"), 400, "invalid_request"),
        (good.as_str(), format!("{grant}&scope=a++b"), 400, "invalid_scope"),
    ] {
        let headers: Vec<_> =
            [("authorization", authorization), FORM].into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let answer = sandbox.send("POST", "/idp/token", &headers, &body);
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{authorization} {body}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(sandbox.send("GET", "/idp/token", &[], "").status, 405);
    assert_eq!(sandbox.send("POST", "/idp/token", &[], &post).status, 400);
    assert_eq!(sandbox.stats()["idp_tokens"], 0);
}
