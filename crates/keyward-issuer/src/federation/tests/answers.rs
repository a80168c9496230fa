use super::*;

/// The error of one exchange with an endpoint that acts in this way.
async fn failed(act: Act) -> IssueError {
    let endpoint = Endpoint::start(vec![act]).await;
    let order = supplied(&endpoint.url, "timeout = \"1s\"", &assertion(""), &Arc::default());
    let error = issue(&order).await.unwrap_err();
    assert_eq!(endpoint.count(), 1, "one request: {error}");
    error
}

#[tokio::test]
async fn every_fault_of_the_endpoint_is_bounded_and_clear() {
    let ok = |body: &str| answer("200 OK", "request-id: req_9\r\n", body);
    let head = "HTTP/1.1 200 OK\r\nrequest-id: req_9\r\n";
    let kib = format!("400\r\n{}\r\n", "x".repeat(1024));
    for (name, act, code, word) in [
        ("hang", Act::Hang(String::new()), Code::IssuerTimeout, "did not answer in time"),
        ("half a head", Act::Hang("HTTP/1.1 2".to_owned()), Code::IssuerTimeout, "did not answer in time"),
        ("slow", Act::Drip(format!("{head}content-length: 9\r\n\r\n123456789")), Code::IssuerTimeout, "in time"),
        (
            "slow body",
            Act::Hang(format!("{head}content-length: 9\r\n\r\n{{")),
            Code::IssuerTimeout,
            "did not end its answer",
        ),
        ("closed", Act::Say(String::new()), Code::IssuerUnreachable, "gave no answer"),
        ("reset", Act::SayAndReset("HTTP/1.1".to_owned()), Code::IssuerUnreachable, "gave no answer"),
        (
            "reset in the body",
            Act::SayAndReset(format!("{head}content-length: 9\r\n\r\n{{")),
            Code::IssuerAnswer,
            "broke off",
        ),
        ("not HTTP", Act::Say("SSH-2.0-OpenSSH_9.2 SEKRIT\r\n".to_owned()), Code::IssuerUnreachable, "gave no answer"),
        (
            "endless head",
            Act::Endless("HTTP/1.1 200 OK\r\n".to_owned(), "x: SEKRIT\r\n".to_owned()),
            Code::IssuerUnreachable,
            "gave no answer",
        ),
        (
            "oversized",
            Act::Hang(format!("{head}content-length: 1048577\r\n\r\n")),
            Code::IssuerAnswer,
            "longer than 1048576 bytes",
        ),
        (
            "endless",
            Act::Endless(format!("{head}\r\n"), " ".repeat(4096)),
            Code::IssuerAnswer,
            "longer than 1048576 bytes",
        ),
        (
            "endless chunks",
            Act::Endless(format!("{head}transfer-encoding: chunked\r\n\r\n"), kib),
            Code::IssuerAnswer,
            "longer than",
        ),
        (
            "broken chunk",
            Act::Say(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\nSEKRIT")),
            Code::IssuerAnswer,
            "broke off",
        ),
        ("empty", ok(""), Code::IssuerAnswer, "is empty"),
        ("HTML", ok("<html>SEKRIT</html>"), Code::IssuerAnswer, "is HTML or XML"),
        ("array", ok(&format!("[{TOKEN}]")), Code::IssuerAnswer, "is a JSON array"),
        ("malformed", ok(&TOKEN[..TOKEN.len() - 1]), Code::IssuerAnswer, "is not JSON"),
        ("wrong type", ok(&TOKEN.replace("Bearer", "mac")), Code::IssuerAnswer, "`token_type`"),
        ("no life", ok(&TOKEN.replace("expires_in", "expires")), Code::IssuerAnswer, "no `expires_in`"),
        ("no life at all", ok(&TOKEN.replace("600", "0")), Code::IssuerAnswer, "`expires_in`"),
        ("text life", ok(&TOKEN.replace("600", "\"600\"")), Code::IssuerAnswer, "`expires_in`"),
        ("line end", ok(&TOKEN.replace("SEKRIT", "SEKRIT\\n")), Code::IssuerAnswer, "visible ASCII"),
        ("no token", ok("{}"), Code::IssuerAnswer, "no `access_token`"),
        ("encoded", answer("200 OK", "content-encoding: gzip\r\n", TOKEN), Code::IssuerAnswer, "encoded"),
        ("other success", answer("204 No Content", "", ""), Code::IssuerAnswer, "204"),
        (
            "other protocol",
            answer("101 Switching Protocols", "connection: upgrade\r\nupgrade: x\r\n", ""),
            Code::IssuerAnswer,
            "101",
        ),
        ("limit", answer("429 Too Many Requests", "retry-after: 7\r\n", "{}"), Code::IssuerBusy, "alone for 7 s"),
        ("outage", answer("500 Internal Server Error", "", "SEKRIT"), Code::IssuerBusy, "answers 500"),
        (
            "outage with an endless page",
            Act::Endless("HTTP/1.1 503 x\r\n\r\n".to_owned(), "x".repeat(4096)),
            Code::IssuerBusy,
            "503",
        ),
        ("late", answer("408 Request Timeout", "", ""), Code::IssuerBusy, "408"),
    ] {
        let error = failed(act).await;
        assert_eq!(error.fault.code, code, "{name}: {error}");
        assert!(error.fault.causes[0].contains(word), "{name}: {error}");
        let asked = (name == "limit").then_some(Duration::from_secs(7));
        assert_eq!(error.failure, Failure::Passing(asked), "{name}");
    }
    let error = failed(ok("[]")).await.to_string();
    assert!(error.contains("request req_9") && error.contains("`base_url`"), "{error}");
    let date = jiff::fmt::rfc2822::DateTimePrinter::new();
    let date = date.timestamp_to_rfc9110_string(&Timestamp::from_second(now() + 90).unwrap()).unwrap();
    let error = failed(answer("503 x", &format!("retry-after: {date}\r\n"), "")).await;
    assert!(
        matches!(error.failure, Failure::Passing(Some(d)) if (80..=90).contains(&d.as_secs())),
        "{:?}",
        error.failure
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let trap = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    for status in ["301 x", "302 x", "303 x", "307 x", "308 x"] {
        let error = failed(answer(status, &format!("location: {}/v1/oauth/token\r\n", trap.url), "")).await;
        assert_eq!((error.fault.code, error.failure), (Code::IssuerAnswer, Failure::Refused));
        assert!(error.to_string().contains("it redirects; Keyward follows none"), "{error}");
    }
    assert_eq!(trap.count(), 0);
}

#[tokio::test]
async fn both_generations_of_refusals_are_explained() {
    for (status, body, said) in [
        (
            "400 x",
            r#"{"error":"invalid_grant","error_description":"no match"}"#,
            "answers 400 to request req_2: invalid_grant: no match",
        ),
        (
            "401 x",
            r#"{"type":"error","error":{"type":"authentication_error","message":"Authentication failed"}}"#,
            "answers 401 to request req_2: authentication_error: Authentication failed",
        ),
        ("400 x", r#"{"error":{"type":"invalid_grant"}}"#, "answers 400 to request req_2: invalid_grant"),
    ] {
        let error = failed(answer(status, "request-id: req_2\r\n", body)).await;
        assert_eq!((error.fault.code, error.failure), (Code::IssuerRefused, Failure::Refused));
        assert!(error.fault.causes[0].contains(said), "{error}");
        let claims =
            "the assertion says: iss `https://idp.example`, sub `job:7`, aud `https://api.anthropic.com`, issued ";
        assert!(error.fault.causes[1].starts_with(claims), "{error}");
        let said = error.to_string();
        for word in ["rule and subject: is `fdrl_01Rule`", "issuer: its `issuer_url`", "workspace: ", "profile test p"]
        {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    for (status, body) in [("403 x", "SEKRIT"), ("404 x", "<html>SEKRIT"), ("418 x", "[]")] {
        let error = failed(answer(status, "", body)).await;
        assert_eq!((error.fault.code, error.failure), (Code::IssuerRefused, Failure::Refused), "{status}");
    }
}

#[tokio::test]
async fn a_request_id_or_a_scope_that_quotes_a_secret_is_neither_shown_nor_recorded() {
    let text = assertion("");
    let ids = [
        text.as_str(),
        &text[40..48],
        SIGNATURE,
        "sk-ant-oat01-SEKRIT",
        "opaque-TOKEN-1",
        "x.que-TOKE",
        "SEK RIT",
        "a/b",
    ];
    let long = "r".repeat(129);
    for id in ids.into_iter().chain([long.as_str()]) {
        for (status, token) in
            [("200 OK", "opaque-TOKEN-1"), ("200 OK", "bad opaque-TOKEN-1"), ("400 x", ""), ("500 x", "")]
        {
            let body = format!(r#"{{"access_token":"{token}","expires_in":60,"scope":"{id}"}}"#);
            let endpoint = Endpoint::start(vec![answer(status, &format!("request-id: {id}\r\n"), &body)]).await;
            let quotes_token = id.contains("que-TOKE");
            match issue(&supplied(&endpoint.url, "", &text, &Arc::default())).await {
                Ok(credential) => {
                    assert!(!credential.facts.contains_key("request_id"), "{id}");
                    let is_plain = ["SEK RIT", "a/b", &long].contains(&id);
                    assert_eq!(credential.scope.is_some(), is_plain, "{id}");
                }
                Err(error) if token.is_empty() && quotes_token => drop(error),
                Err(error) => assert!(!error.to_string().contains(id), "{id} in {error}"),
            }
        }
    }
}

#[tokio::test]
async fn an_assertion_that_the_answer_quotes_is_not_shown() {
    let text = assertion("");
    let part = text.split('.').nth(1).unwrap();
    for echo in [text.as_str(), part, &part[20..28], SIGNATURE, &SIGNATURE[3..12]] {
        for body in [
            format!(r#"{{"error":{{"type":"invalid_request","message":"bad assertion {echo}"}}}}"#),
            format!(r#"{{"error":"{echo}","error_description":"{echo}"}}"#),
            format!("bad assertion {echo}"),
            format!(r#"{{"assertion":"{echo}"}}"#),
        ] {
            for status in ["200 OK", "400 x", "500 x"] {
                let endpoint = Endpoint::start(vec![answer(status, "", &body)]).await;
                let order = supplied(&endpoint.url, "", &text, &Arc::default());
                let error = issue(&order).await.unwrap_err().to_string();
                assert!(!error.contains(echo), "{echo} in {error}");
            }
        }
    }
}
