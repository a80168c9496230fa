#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod answers;

use super::*;
use crate::stage::{Act, Endpoint, Folder, Memory, SIGNATURE, answer, assertion, federated, now};
use keyward_secret::SecretBytes;
use std::sync::Arc;

const TOKEN: &str =
    r#"{"access_token":"sk-ant-oat01-SEKRIT","token_type":"Bearer","expires_in":600,"scope":"workspace:inference"}"#;
const ENV: &str = "kind = \"env-token\"";

/// An order at `url` with an assertion that the caller supplies.
fn supplied(url: &str, more: &str, assertion: &str, once: &Arc<Memory>) -> Order {
    let mut order = federated(url, more, ENV, once);
    order.supplied = Some(SecretBytes::new(assertion.as_bytes().to_vec()).unwrap());
    order
}

async fn issue(order: &Order) -> Result<Credential, IssueError> {
    let issued = Federation.issue(order).await;
    if let Err(error) = &issued {
        let said = format!("{error} {error:?}");
        let pieces = SIGNATURE.as_bytes().windows(8).map(|piece| std::str::from_utf8(piece).unwrap());
        for secret in pieces.chain(["SEKRIT", "eyJ", "sk-ant-oat"]) {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
        assert!((1..=8).contains(&error.fault.causes.len()), "{error}");
        assert!(error.fault.causes.iter().all(|cause| !cause.ends_with('…')), "cut: {error}");
    }
    issued
}

#[tokio::test]
async fn the_request_is_the_one_of_the_reference_and_nothing_more() {
    let text = assertion("");
    for (more, fields) in [
        ("", ""),
        (
            "service_account_id = \"svac_01A\"\nworkspace_id = \"default\"",
            r#","service_account_id":"svac_01A","workspace_id":"default""#,
        ),
    ] {
        let endpoint = Endpoint::start(vec![answer("200 OK", "Request-Id: req_1\r\n", TOKEN)]).await;
        let order = supplied(&format!("{}/base/", endpoint.url), more, &text, &Arc::default());
        let credential = issue(&order).await.unwrap();
        let body = format!(
            r#"{{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"{text}","federation_rule_id":"fdrl_01Rule","organization_id":"00000000-0000-0000-0000-00000000000a"{fields}}}"#
        );
        let request = format!(
            "POST /base/v1/oauth/token HTTP/1.1\r\ncontent-type: application/json\r\n\
             anthropic-beta: oauth-2025-04-20,oidc-federation-2026-04-01\r\naccept: application/json\r\n\
             user-agent: keyward/{}\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            env!("CARGO_PKG_VERSION"),
            endpoint.url.strip_prefix("http://").unwrap(),
            body.len()
        );
        assert_eq!(*endpoint.requests.lock().unwrap(), [request]);
        assert!(credential.token.expose(|t| t == b"sk-ant-oat01-SEKRIT"));
        assert_eq!(
            (credential.life, credential.scope.as_deref()),
            (Some(Duration::from_secs(600)), Some("workspace:inference"))
        );
        let facts: Vec<_> = credential.facts.iter().map(|(name, text)| format!("{name}={text}")).collect();
        let expected = [
            "assertion_audience=https://api.anthropic.com",
            "assertion_issuer=https://idp.example",
            "assertion_subject=job:7",
            "request_id=req_1",
        ];
        assert_eq!(facts, expected);
    }
}

#[tokio::test]
async fn a_one_time_assertion_is_presented_once_and_recorded_before() {
    let memory = Arc::new(Memory::default());
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let text = assertion(r#","jti":"one""#);
    let order = supplied(&endpoint.url, "", &text, &memory);
    assert_eq!(issue(&order).await.unwrap().facts["assertion_id"], "one-time");
    let until = memory.until.lock().unwrap()[0].0 / 1_000_000 - now();
    assert!((3600 + 230..=3600 + 240).contains(&until), "{until}");

    let error = issue(&order).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IdentitySpent, Failure::NoAssertion));
    assert!(error.fault.causes[0].contains("for `job:7`, issued "), "{error}");
    assert_eq!((endpoint.count(), memory.count()), (1, 1), "nothing was sent");
    issue(&supplied(&endpoint.url, "", &assertion(r#","jti":"two""#), &memory)).await.unwrap();
    assert_eq!((endpoint.count(), memory.count()), (2, 2));
    let again = supplied(&endpoint.url, "", &assertion(""), &memory);
    issue(&again).await.unwrap();
    issue(&again).await.unwrap();
    assert_eq!((endpoint.count(), memory.count()), (4, 2), "without a `jti` there is nothing to record");
}

#[tokio::test]
async fn nothing_is_sent_that_could_not_be_recorded() {
    let memory = Arc::new(Memory { full: true, ..Memory::default() });
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let order = supplied(&endpoint.url, "", &assertion(r#","jti":"one""#), &memory);
    let fault = Federation.issue(&order).await.unwrap_err();
    assert_eq!((fault.fault.code, fault.failure), (Code::VaultDiskFull, Failure::Passing(None)));
    assert_eq!(endpoint.count(), 0);
}

#[tokio::test]
async fn a_network_that_is_down_spends_no_assertion_and_a_lost_answer_does() {
    let memory = Arc::new(Memory::default());
    let text = assertion(r#","jti":"one""#);
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = issue(&supplied(&closed, "", &text, &memory)).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IssuerUnreachable, Failure::Passing(None)));
    assert!(error.fault.causes[0].contains("Connection refused"), "{error}");
    assert_eq!(memory.count(), 0);

    let endpoint = Endpoint::start(vec![Act::Say(String::new())]).await;
    let order = supplied(&endpoint.url, "", &text, &memory);
    let error = issue(&order).await.unwrap_err();
    assert!(error.fault.causes[1].contains("the next try needs another"), "{error}");
    assert_eq!(issue(&order).await.unwrap_err().fault.code, Code::IdentitySpent);
    assert_eq!(endpoint.count(), 1);
}

/// A listener that nobody asks for connections, whose queue is full: it drops whatever asks for another one.
async fn full() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(listener.local_addr().unwrap()))
            .await
    {
        queued.push(stream.unwrap());
    }
    (listener, queued)
}

#[tokio::test]
async fn a_connection_that_never_stood_in_a_short_time_spends_no_assertion() {
    let memory = Arc::new(Memory::default());
    let text = assertion(r#","jti":"one""#);
    let (listener, _queued) = full().await;
    // The kernel takes this connection, and nobody speaks TLS on it.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let swallowed = format!("http://{}", listener.local_addr().unwrap());
    for url in [swallowed, format!("https://{}", mute.local_addr().unwrap())] {
        let error = issue(&supplied(&url, "timeout = \"1s\"", &text, &memory)).await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IssuerUnreachable, Failure::Passing(None)), "{url}");
        assert!(error.fault.causes[0].contains("no connection in time"), "{error}");
        assert_eq!((memory.until.lock().unwrap().pop().is_some(), memory.count()), (true, 0), "{url}");
    }

    let endpoint = Endpoint::start(vec![Act::Hang(String::new())]).await;
    let error = issue(&supplied(&endpoint.url, "timeout = \"1s\"", &text, &memory)).await.unwrap_err();
    assert_eq!((error.fault.code, memory.count()), (Code::IssuerTimeout, 1), "{error}");
}

#[tokio::test]
async fn no_assertion_is_remembered_for_more_than_three_days() {
    let memory = Arc::new(Memory::default());
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    for (n, (exp, least, most)) in [
        ("9e300".to_owned(), 3 * 86_400, 3 * 86_400),
        ((now() + 366 * 86_400).to_string(), 3 * 86_400, 3 * 86_400),
        ((now() + 176_400).to_string(), 180_000 - 60, 180_000),
        ((now() - 60).to_string(), 3600, 3600),
    ]
    .into_iter()
    .enumerate()
    {
        let text = crate::stage::jwt(r#"{"alg":"RS256"}"#, &format!(r#"{{"exp":{exp},"jti":"{n}"}}"#));
        let before = now();
        issue(&supplied(&endpoint.url, "", &text, &memory)).await.unwrap();
        let until = memory.until.lock().unwrap()[n].0 / 1_000_000;
        assert!((before + least..=now() + most).contains(&until), "{exp}: {}", until - before);
    }
}

#[tokio::test]
async fn a_host_that_does_not_exist_or_speaks_no_tls_is_unreachable() {
    let error = issue(&supplied("https://host.invalid", "", &assertion(""), &Arc::default())).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IssuerUnreachable, Failure::Passing(None)), "{error}");
    let endpoint = Endpoint::start(vec![Act::Say("HTTP/1.1 400 x\r\n\r\n".to_owned())]).await;
    let order = supplied(&endpoint.url.replace("http:", "https:"), "timeout = \"2s\"", &assertion(""), &Arc::default());
    let error = issue(&order).await.unwrap_err();
    assert!(matches!(error.fault.code, Code::IssuerUnreachable | Code::IssuerTimeout), "{error}");
    assert!(endpoint.requests.lock().unwrap().iter().all(|r| !r.contains("assertion")), "nothing goes in the clear");
}

#[tokio::test]
async fn a_rotation_is_waited_for_and_the_new_assertion_taken() {
    let memory = Arc::new(Memory::default());
    let folder = Folder::new();
    let path = folder.write("token", &assertion(r#","jti":"one""#));
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let order = federated(&endpoint.url, "", &format!("kind = \"file\"\npath = {path:?}"), &memory);
    issue(&order).await.unwrap();
    let look = Federation.look(&order).await;

    let (issued, ()) = tokio::join!(issue(&order), async {
        // The second presentation was tried and refused.
        while memory.until.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(endpoint.count(), 1);
        std::fs::write(&path, "half of an asser").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The same claims signed anew are still the same assertion.
        folder.swap("token", &assertion(r#","jti":"one","x":1"#));
        while memory.until.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        folder.swap("token", &assertion(r#","jti":"two""#));
    });
    issued.unwrap();
    assert_eq!((endpoint.count(), memory.count()), (2, 2));
    assert!(look.is_some() && Federation.look(&order).await.is_some_and(|digest| Some(digest) != look));
}

#[tokio::test]
async fn a_file_that_is_not_rotated_is_given_up_and_said() {
    let memory = Arc::new(Memory::default());
    let folder = Folder::new();
    let path = folder.write("token", &assertion(r#","jti":"one""#));
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let order = federated(&endpoint.url, "", &format!("kind = \"file\"\npath = {path:?}"), &memory);
    issue(&order).await.unwrap();
    let (source, identity) = identity::of(&order).unwrap();
    let spent = source.read(identity, &order).await.unwrap();
    let until = Instant::now() + Duration::from_millis(600);
    let error = another(source, identity, &order, &spent, until).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IdentitySpent, Failure::NoAssertion));
    std::fs::remove_file(&path).unwrap();
    let error = another(source, identity, &order, &spent, Instant::now() + POLL).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IdentityUnreadable, Failure::NoAssertion));
    assert_eq!(source.patience(), Duration::from_secs(10));
}

#[tokio::test]
async fn a_program_that_gives_the_same_assertion_again_is_told_so() {
    let memory = Arc::new(Memory::default());
    let folder = Folder::new();
    let path = folder.write("token", &assertion(r#","jti":"one""#));
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let identity = format!("kind = \"command\"\nargv = [\"/bin/cat\", {path:?}]");
    let order = federated(&endpoint.url, "", &identity, &memory);
    issue(&order).await.unwrap();
    let error = issue(&order).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure, endpoint.count()), (Code::IdentitySpent, Failure::NoAssertion, 1));
    assert!(Federation.look(&order).await.is_none());
}

#[tokio::test]
async fn what_is_no_assertion_is_not_sent() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let needed = issue(&federated(&endpoint.url, "", ENV, &Arc::default())).await.unwrap_err();
    assert_eq!((needed.fault.code, needed.failure), (Code::IdentityNeeded, Failure::NoAssertion));
    assert!(needed.fault.causes[0].contains("`ANTHROPIC_IDENTITY_TOKEN`"), "{needed}");
    let own = federated(&endpoint.url, "", "kind = \"env-token\"\nvariable = \"MY_JWT\"", &Arc::default());
    assert!(issue(&own).await.unwrap_err().fault.causes[0].contains("`MY_JWT`"));
    let long = assertion(&format!(r#","x":"{}""#, "x".repeat(16 * 1024)));
    for text in ["SEKRIT", "a.b.c", long.as_str()] {
        let error = issue(&supplied(&endpoint.url, "", text, &Arc::default())).await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IdentityInvalid, Failure::NoAssertion));
    }
    assert_eq!(endpoint.count(), 0);
}

#[test]
fn the_kinds_are_listed_with_their_roles() {
    let kinds: Vec<_> = crate::kinds().iter().map(|kind| format!("{} {}", kind.role.word(), kind.kind)).collect();
    let expected = [
        "issuer anthropic-federation",
        "issuer static",
        "issuer command",
        "issuer aws-credentials",
        "issuer google-service-account",
        "issuer google-authorized-user",
        "issuer google-adc",
        "issuer entra-client-credentials",
        "identity file",
        "identity command",
        "identity oauth-client-credentials",
        "identity env-token",
    ];
    assert_eq!(kinds, expected);
    assert!(crate::find("file").is_none() && crate::find("anthropic-federation").is_some());
}
