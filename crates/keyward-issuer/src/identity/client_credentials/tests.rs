#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::identity;
use crate::stage::{Act, Endpoint, Memory, SIGNATURE, answer, assertion, federated};
use std::sync::Arc;

/// As it is stored in orders of tests.
const SECRET: &str = "hunter2 &=%+:x";

async fn ask_at(url: &str, more: &str) -> Result<String, IssueError> {
    let identity = format!(
        "kind = \"oauth-client-credentials\"\ntoken_url = \"{url}/oauth2/token\"\nclient_id = \"c:1 ä\"\n\
         client_secret = \"secret:s\"\n{more}"
    );
    let order = federated("https://api.anthropic.com", "", &identity, &Arc::new(Memory::default()));
    let (source, identity) = identity::of(&order).unwrap();
    let read = source.read(identity, &order).await;
    if let Err(error) = &read {
        let said = error.to_string();
        let encoded = [SECRET, "hunter2", &in_form(SECRET.as_bytes()), &basic("c:1 ä", SECRET), SIGNATURE, "SEKRIT"];
        assert!(encoded.iter().all(|secret| !said.contains(secret)), "{said}");
    }
    read.map(|assertion| assertion.expose(str::to_owned))
}

async fn asked(act: Act, more: &str) -> Result<String, IssueError> {
    let endpoint = Endpoint::start(vec![act]).await;
    let result = ask_at(&endpoint.url, more).await;
    assert_eq!(endpoint.count(), 1);
    result
}

#[tokio::test]
async fn the_client_says_who_it_is_in_the_way_that_was_chosen() {
    // RFC 6749 section 2.3.1: encoded as a form, joined, then base64.
    let basic = "YyUzQTErJUMzJUE0Omh1bnRlcjIrJTI2JTNEJTI1JTJCJTNBeA==";
    for (more, authorization, form) in [
        ("", format!("authorization: Basic {basic}\r\n"), "grant_type=client_credentials".to_owned()),
        (
            "auth = \"client_secret_basic\"\naudience = \"https://api.anthropic.com\"\nscope = \"a b\"",
            format!("authorization: Basic {basic}\r\n"),
            "grant_type=client_credentials&audience=https%3A%2F%2Fapi.anthropic.com&scope=a+b".to_owned(),
        ),
        (
            "auth = \"client_secret_post\"",
            String::new(),
            "grant_type=client_credentials&client_id=c%3A1+%C3%A4&client_secret=hunter2+%26%3D%25%2B%3Ax".to_owned(),
        ),
    ] {
        let text = assertion("");
        let body = format!(r#"{{"access_token":"{text}","token_type":"Bearer","expires_in":60}}"#);
        let endpoint = Endpoint::start(vec![answer("200 OK", "", &body)]).await;
        assert_eq!(ask_at(&endpoint.url, more).await.unwrap(), text);
        let request = format!(
            "POST /oauth2/token HTTP/1.1\r\n\
             content-type: application/x-www-form-urlencoded\r\naccept: application/json\r\n{authorization}\
             user-agent: keyward/{}\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{form}",
            env!("CARGO_PKG_VERSION"),
            endpoint.url.strip_prefix("http://").unwrap(),
            form.len()
        );
        assert_eq!(*endpoint.requests.lock().unwrap(), [request]);
    }
}

#[tokio::test]
async fn the_token_must_be_an_assertion_and_may_be_the_identity_token() {
    let text = assertion("");
    for body in [format!(r#"{{"access_token":"opaque","id_token":"{text}"}}"#), format!(r#"{{"id_token":"{text}"}}"#)] {
        assert_eq!(asked(answer("200 OK", "", &body), "").await.unwrap(), text);
    }
    for (body, failure, word) in [
        (r#"{"access_token":"SEKRIT"}"#, Failure::Refused, "must give access tokens as JWTs"),
        ("{}", Failure::Passing(None), "no `access_token`"),
        ("<html>SEKRIT", Failure::Passing(None), "is HTML or XML"),
        ("[]", Failure::Passing(None), "is a JSON array"),
    ] {
        let error = asked(answer("200 OK", "request-id: r7\r\n", body), "").await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IdentityInvalid, failure), "{error}");
        assert!(error.to_string().contains(word) && error.to_string().contains("r7"), "{error}");
    }
}

#[tokio::test]
async fn refusals_name_what_to_look_at_and_faults_pass() {
    let refusal = |id: &str| format!(r#"{{"error":"{id}","error_description":"for {SECRET}"}}"#);
    for (status, id, word) in [
        ("401 x", "invalid_client", "`client_id` and the stored secret"),
        ("400 x", "invalid_scope", "look at `scope`"),
        ("400 x", "unauthorized_client", "allow it at the provider"),
        ("400 x", "unsupported_grant_type", "look at `token_url`"),
        ("400 x", "invalid_target", "look at `audience`"),
        ("404 x", "none", "there is no token endpoint"),
    ] {
        let error = asked(answer(status, "", &refusal(id)), "").await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IdentityFailed, Failure::Refused));
        assert!(error.to_string().contains(word) && error.fault.causes[0].contains(id), "{error}");
    }
    let echo = format!(r#"{{"error":"invalid_client","error_description":"Basic {}"}}"#, *basic("c:1 ä", SECRET));
    assert!(asked(answer("401 x", "", &echo), "").await.is_err());
    for (id, status, body, shown) in [
        (basic("c:1 ä", SECRET)[4..14].to_owned(), "400 x", "{}", false),
        ("to-opaque-TOKEN".to_owned(), "200 OK", r#"{"access_token":"opaque-TOKEN"}"#, false),
        ("r8".to_owned(), "200 OK", r#"{"access_token":"opaque-TOKEN"}"#, true),
    ] {
        let error = asked(answer(status, &format!("request-id: {id}\r\n"), body), "").await.unwrap_err().to_string();
        assert_eq!((error.contains("calls the request"), error.contains(&id)), (shown, shown), "{error}");
    }
    for (act, failure, word) in [
        (answer("503 x", "retry-after: 9\r\n", ""), Failure::Passing(Some(Duration::from_secs(9))), "alone for 9 s"),
        (answer("429 x", "", ""), Failure::Passing(None), "429"),
        (answer("302 x", "location: http://127.0.0.1:1/\r\n", ""), Failure::Refused, "follows none"),
        (answer("204 x", "", ""), Failure::Passing(None), "204"),
        (Act::Hang(String::new()), Failure::Passing(None), "did not answer in time"),
        (Act::Endless("HTTP/1.1 200 OK\r\n\r\n".to_owned(), "x".repeat(4096)), Failure::Passing(None), "longer than"),
    ] {
        let error = asked(act, "timeout = \"1s\"").await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IdentityFailed, failure), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
