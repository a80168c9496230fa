#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::stage::{Act, Endpoint, answer, issue, order_with};
use keyward_core::{Failure, Revocation};
use std::time::Duration;

const ID: &str = "00000000-0000-0000-0000-00000000000a";
const TOKEN: &str = r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJSEKRIT"}"#;

fn order(url: &str, tenant: &str, more: &str) -> Order {
    let text = format!(
        "kind = \"entra-client-credentials\"\ntenant = \"{tenant}\"\nclient_id = \"{ID}\"\nclient_secret = \"secret:c\"\n\
         authority_host = \"{url}/\"\n{more}"
    );
    order_with(&text, &[("c", "hunter2 ~&")])
}

async fn asked(act: Act) -> Result<Credential, IssueError> {
    let endpoint = Endpoint::start(vec![act]).await;
    issue(&Entra, &order(&endpoint.url, "contoso.example", "")).await
}

#[tokio::test]
async fn the_request_is_that_of_the_v2_endpoint() {
    for (more, scope) in [
        ("", "https%3A%2F%2Fcognitiveservices.azure.com%2F.default"),
        ("scope = \"https://ai.azure.com/.default\"", "https%3A%2F%2Fai.azure.com%2F.default"),
    ] {
        let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
        let order = order(&endpoint.url, "contoso.example", more);
        let credential = issue(&Entra, &order).await.unwrap();
        assert!(credential.token.expose(|token| token == b"eyJSEKRIT"));
        assert_eq!(credential.life, Some(Duration::from_secs(3599)));
        let request = endpoint.requests.lock().unwrap()[0].clone();
        assert!(request.starts_with("POST /contoso.example/oauth2/v2.0/token HTTP/1.1\r\n"), "{request}");
        let form =
            format!("\r\n\r\ngrant_type=client_credentials&client_id={ID}&client_secret=hunter2+%7E%26&scope={scope}");
        assert!(request.ends_with(&form), "{request}");
        let revoked = Entra.revoke(&order, &credential).await;
        assert!(matches!(revoked, Revocation::Impossible(why) if why.starts_with("ends by itself")));
    }
}

#[tokio::test]
async fn a_tenant_cannot_leave_its_place_in_the_path() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    for tenant in ["..", ".x", "a/b", "a%2fb", "a?b", "a#b", "a b", "ä"] {
        let error = issue(&Entra, &order(&endpoint.url, tenant, "")).await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::ProfileInvalid, Failure::Refused), "{tenant}");
    }
    assert_eq!(endpoint.count(), 0);
}

#[tokio::test]
async fn a_refusal_names_what_to_look_at() {
    for (status, body, code, word) in [
        (
            "401 x",
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}"#,
            Code::IssuerRefused,
            "not its id",
        ),
        ("400 x", r#"{"error":"invalid_scope","error_description":"no"}"#, Code::IssuerRefused, "/.default"),
        ("400 x", r#"{"error":"x","error_description":"you sent hunter2 ~&"}"#, Code::IssuerRefused, "400"),
        ("429 x", "{}", Code::IssuerBusy, "429"),
        ("302 x", "", Code::IssuerAnswer, "follows none"),
        ("200 OK", "<html>SEKRIT", Code::IssuerAnswer, "HTML"),
        ("200 OK", r#"{"access_token":"eyJSEKRIT"}"#, Code::IssuerAnswer, "expires_in"),
    ] {
        let error = asked(answer(status, "", body)).await.unwrap_err();
        assert_eq!(error.fault.code, code, "{body}: {error}");
        assert!(error.to_string().contains(word) || error.fault.causes.join(" ").contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named_and_nothing_is_sent() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let mut order = order(&endpoint.url, "t", "");
    order.secrets.clear();
    assert_eq!(issue(&Entra, &order).await.unwrap_err().fault.code, Code::SecretUnknown);
    assert_eq!(endpoint.count(), 0);
}
