//! What is asked, and what leaves.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_run_token_goes_and_the_credential_comes() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let bench = Bench::new(port).await;
    let answer = bench.ask("POST /v1/messages?beta=true&key=K", &["Content-Length: 5"], "hello").await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let sent = came.recv().await.unwrap();
    assert_eq!(sent.first, "POST /v1/messages?beta=true HTTP/1.1");
    assert_eq!(sent.field("host"), Some(format!("127.0.0.1:{port}").as_str()));
    assert_eq!((sent.field("authorization"), sent.body.as_slice()), (Some("Bearer secret-1"), &b"hello"[..]));
    let (began, end) = bench.fake.used().await;
    assert_eq!((began.method.as_str(), began.host.as_str()), ("POST", "127.0.0.1"));
    assert_eq!((began.path.as_str(), began.caller), ("/v1/messages", Caller::Exact(process(std::process::id()))));
    assert_eq!((end.status, end.sent, end.received, end.reason), (200, 5, 2, EndReason::Whole));
}

/// Fields that a client sends, and what of them arrives.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_connection_or_carries_a_credential_does_not_go_on() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let bench = Bench::new(port).await;
    let mine = format!("X-Mine: {TOKEN}");
    let table: [Row<'_>; 12] = [
        (&["X-Api-Key: sk-1", "Api-Key: sk-2", "X-Goog-Api-Key: sk-3"], &[]),
        (&["Proxy-Authorization: Basic x", "Cookie: a=b", "Cookie: c=d"], &[]),
        (&["X-Amz-Security-Token: t", "X-Amz-Date: d", "X-Amz-Content-Sha256: e"], &[]),
        (&["Private-Token: p", "Ocp-Apim-Subscription-Key: q"], &[]),
        (&[&mine], &[]),
        (&["Connection: keep-alive, X-Hop", "X-Hop: 1", "X-Kept: 2"], &[("x-kept", "2")]),
        (&["Connection: Authorization, Host, Content-Type", "Content-Type: a/b"], &[]),
        (&["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"], &[]),
        (&["TE: trailers, gzip;q=0.5"], &[("te", "trailers"), ("connection", "te")]),
        (&["TE: gzip"], &[]),
        (&["User-Agent: u/1", "Accept: text/event-stream"], &[("user-agent", "u/1"), ("accept", "text/event-stream")]),
        (&["Anthropic-Beta: a,b", "X-Two: 1"], &[("anthropic-beta", "a,b"), ("x-two", "1")]),
    ];
    let mut client = bench.client().await;
    for (fields, kept) in table {
        client.send(bench.request("GET /a", fields, "")).await;
        assert_eq!(client.message().await.unwrap().status(), 200, "{fields:?}");
        let sent = came.recv().await.unwrap();
        let mut want: Vec<_> = kept.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        want.push(("authorization".to_owned(), "Bearer secret-1".to_owned()));
        want.push(("host".to_owned(), format!("127.0.0.1:{port}")));
        want.sort();
        let mut got = sent.fields;
        got.sort();
        assert_eq!(got, want, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_answer_all_goes_on_but_what_belongs_to_the_connection() {
    let (server, port) = Server::new().await;
    let _came = server.answering(
        "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nSet-Cookie: a=b\r\nAlt-Svc: h2=\":1\"\r\nRequest-Id: req_1\r\nDate: D\r\nX-Two: 1\r\n\
         X-Two: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    let bench = Bench::new(port).await;
    let mut answer = bench.ask("GET /a", &[], "").await;
    assert_eq!(answer.first, "HTTP/1.1 302 Found");
    answer.fields.sort();
    let got: Vec<_> = answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let want = [
        ("content-length", "2"),
        ("date", "D"),
        ("location", "https://elsewhere.example/"),
        ("request-id", "req_1"),
        ("x-two", "1"),
        ("x-two", "2"),
    ];
    assert_eq!(got, want);
    assert_eq!(bench.fake.used().await.1.request_id.as_deref(), Some("req_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_hand_the_credential_back() {
    let redirect = "HTTP/1.1 308 Permanent Redirect\r\nLocation: /b/dir/?a=1&key=secret-1\r\n\
                    Content-Type: text/html\r\nContent-Length: 41\r\n\r\n<a href=\"/b/dir/?a=1&amp;key=secret-1\">.</a>";
    let listed = "HTTP/1.1 200 OK\r\nLink: </b/dir?page=2&key=secret-1>; rel=\"next\"\r\nX-Url: /dir?key=secret-1\r\n\
                  Content-Location: /dir?key=%73ecret-1\r\nRequest-Id: c2VjcmV0LTE=\r\nX-Two: secret-1\r\nX-Two: 2\r\n\
                  Content-Length: 2\r\n\r\nok";
    let said = "HTTP/1.1 403 Forbidden\r\nWWW-Authenticate: Bearer token=\"secret-1\"\r\nX-Two: 2\r\nContent-Length: 2\r\n\r\nno";
    for (placement, told, fields, body) in [
        (
            Placement::Query("key".into()),
            redirect,
            &[("location", "/b/dir/?a=1&key=withheld"), ("content-type", "text/html"), ("content-length", "0")][..],
            "",
        ),
        (
            Placement::Query("key".into()),
            listed,
            &[("link", "</b/dir?page=2&key=withheld>; rel=\"next\""), ("x-two", "2"), ("content-length", "2")],
            "ok",
        ),
        (Placement::Bearer, said, &[("x-two", "2"), ("content-length", "2")], "no"),
    ] {
        let (server, port) = Server::new().await;
        let mut came = server.answering(told);
        let bench = Bench::with(port, |admitted| admitted.placement = placement, Connections::new()).await;
        let mut client = bench.client().await;
        client.send(bench.request("GET /dir?a=1", &[], "")).await;
        let answer = client.message().await.unwrap();
        let mut got: Vec<_> = answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        got.retain(|(name, _)| *name != "date");
        let mut want = fields.to_vec();
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!((got, answer.text()), (want, body));
        assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
        let (_, end) = bench.fake.used().await;
        assert_eq!((end.status, end.request_id, end.reason), (answer.status(), None, EndReason::Whole));
        came.recv().await.unwrap();
        // Where the address leads, by the gateway.
        client.send(bench.request("GET /dir/?a=1&key=withheld", &[], "")).await;
        client.message().await.unwrap();
        let again = came.recv().await.unwrap().first;
        assert!(!again.contains("withheld") && again.starts_with("GET /dir/?a=1"), "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_names_another_method_goes_nowhere() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let only = |admitted: &mut Admitted| admitted.only = Arc::from(["POST /x/{id}".to_owned()]);
    let bench = Bench::with(port, only, Connections::new()).await;
    let line = "POST /x/1?$httpMethod=DELETE&$ct=text/plain&_method=DELETE";
    let answer = bench.ask(line, &[], "").await;
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (400, Some("gateway.request_malformed")));
    let denial = bench.fake.denied().await;
    assert_eq!((denial.lease, denial.what.as_str()), (Some(Uuid::from_u128(9)), "POST /x/1"));
    assert!(came.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_and_another_name_of_this_host_are_refused_before_anything_else() {
    for (host, field) in [
        ("localhost:PORT", "A: b"),
        ("127.0.0.1", "A: b"),
        ("127.0.0.1:1", "A: b"),
        ("127.0.0.1.evil.example:PORT", "A: b"),
        ("127.0.0.1:PORT", "Origin: https://evil.example"),
        ("127.0.0.1:PORT", "Origin: null"),
        ("127.0.0.1:PORT", "Sec-Fetch-Site: cross-site"),
        ("127.0.0.1:PORT", "sec-fetch-site: none"),
    ] {
        let bench = Bench::new(1).await;
        let host = host.replace("PORT", &bench.port.to_string());
        let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n{field}\r\n\r\n");
        let answer = bench.ask_raw(&request).await;
        assert_eq!(
            (answer.status(), answer.field("x-keyward-code")),
            (403, Some("gateway.cross_site")),
            "{host} {field}"
        );
        let denial = bench.fake.denied().await;
        assert_eq!((denial.lease, denial.token, denial.what.as_str()), (None, None, "GET /a"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_token_is_taken_from_where_sdks_put_keys_and_two_must_be_the_same() {
    let (server, port) = Server::new().await;
    let _came = server.answering(OK);
    let bench = Bench::new(port).await;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let key = format!("X-Api-Key: {TOKEN}");
    let other = format!("x-api-key: {OTHER}");
    let signed = |key: &str| {
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00"
        )
    };
    let table: [(&[&str], u16); 20] = [
        (&[&signed(TOKEN)], 200),
        (&[&signed(TOKEN), &other], 401),
        (&[&signed("AKIASTALE")], 401),
        (&[&format!("Authorization: AWS4-HMAC-SHA256 SignedHeaders={TOKEN}/x")], 401),
        (&[&bearer], 200),
        (&[&format!("authorization: bEARER  {TOKEN}")], 200),
        (&[&format!("Authorization: token {TOKEN}")], 200),
        (&[&key], 200),
        (&[&format!("api-key: {TOKEN}")], 200),
        (&[&format!("x-goog-api-key: {TOKEN}")], 200),
        (&[&bearer, &key], 200),
        (&[&bearer, "x-api-key: sk-stale"], 200),
        (&["Authorization: Bearer sk-stale", &key], 200),
        (&[&bearer, &other], 401),
        (&[&other], 401),
        (&[], 401),
        (&[&format!("Authorization: Basic {TOKEN}")], 401),
        (&[&format!("Authorization: Bearer {TOKEN}x")], 401),
        (&[&format!("Authorization: Bearer {}", &TOKEN[..46])], 401),
        (&["Authorization: Bearer kwr_"], 401),
    ];
    for (fields, status) in table {
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("GET /a?key={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{lines}\r\n", bench.port);
        let answer = bench.ask_raw(&request).await;
        assert_eq!(answer.status(), status, "{fields:?} {answer:?}");
        assert!(!answer.text().contains("kwr_"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_speak_the_language_of_the_api_and_say_the_remedy() {
    let bench = Bench::new(1).await;
    for (fault, status) in [(Code::LeaseRevoked, 403), (Code::VaultLocked, 503), (Code::GatewayToken, 401)] {
        *bench.fake.admitted.lock().unwrap() = Err(Fault::new(fault));
        let answer = bench.ask("POST /v1/messages", &["Content-Length: 2"], "{}").await;
        assert_eq!(answer.status(), status);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["type"], "error");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(fault.name()) && message.contains("keyward "), "{message}");
    }
    for told in bench.fake.told(3).await {
        let Told::Denied(denial) = told else { panic!("{told:?}") };
        assert_eq!((denial.lease, denial.what.as_str()), (None, "POST /v1/messages"));
        assert_eq!(denial.token, RunToken::of(TOKEN.as_bytes()), "by which a lease that is over is found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_a_key_that_is_no_token_from_none() {
    let bench = Bench::new(1).await;
    for (fields, words) in [
        (&[][..], "none was sent"),
        (&["x-api-key: sk-ant-s3cret"], "what it sends in `x-api-key` is no run token"),
        (&["Authorization: Bearer s3cret"], "what it sends in `authorization` is no run token"),
    ] {
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("GET /a HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{lines}\r\n", bench.port);
        let answer = bench.ask_raw(&request).await;
        assert_eq!((answer.status(), answer.text().contains(words)), (401, true), "{answer:?}");
        assert!(!answer.text().contains("s3cret"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_on_the_list_go_nowhere() {
    for (line, status, code) in [
        ("POST /v1/models", 403, "gateway.not_allowed"),
        ("GET /v1/organizations/api_keys", 403, "gateway.not_allowed"),
        ("GET /v1/x/%2e%2e/models", 400, "gateway.path_refused"),
    ] {
        let only = |admitted: &mut Admitted| admitted.only = Arc::from(["GET /v1/models".to_owned()]);
        let bench = Bench::with(1, only, Connections::new()).await;
        let answer = bench.ask(line, &[], "").await;
        assert_eq!((answer.status(), answer.field("x-keyward-code")), (status, Some(code)), "{line}");
        assert_eq!(answer.text().contains("the profile lets through: GET /v1/models"), status == 403, "{answer:?}");
        assert_eq!(bench.fake.denied().await.lease, Some(Uuid::from_u128(9)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_is_put_where_the_profile_says() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let plain = "GET /b/a HTTP/1.1";
    for (placement, asked, name, value, target) in [
        (Placement::Header("x-api-key".into(), String::new()), "GET /a", "x-api-key", "se/c ret", plain),
        (Placement::Header("private-token".into(), "v1 ".into()), "GET /a", "private-token", "v1 se/c ret", plain),
        (Placement::Query("k".into()), "GET /a?x=1&K=stale", "x", "", "GET /b/a?x=1&k=se%2Fc%20ret HTTP/1.1"),
        (Placement::BearerOauth, "GET /a", "anthropic-beta", "oauth-2025-04-20", plain),
    ] {
        let change = |admitted: &mut Admitted| {
            admitted.placement = placement;
            let upstream = Upstream { tls: false, host: "127.0.0.1".into(), port, base: "/b".into() };
            admitted.upstream = Arc::new(upstream);
        };
        let bench = Bench::with(port, change, Connections::new()).await;
        *bench.fake.credential.lock().unwrap() = Some(b"se/c ret".to_vec());
        assert_eq!(bench.ask(asked, &[], "").await.status(), 200);
        let sent = came.recv().await.unwrap();
        assert_eq!((sent.field(name).unwrap_or_default(), sent.first.as_str()), (value, target));
        assert_eq!(bench.fake.used().await.0.path, "/b/a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_of_oauth_is_added_to_those_of_the_client() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let oauth = |admitted: &mut Admitted| admitted.placement = Placement::BearerOauth;
    let bench = Bench::with(port, oauth, Connections::new()).await;
    let table: [(&[&str], &str); 3] = [
        (&["anthropic-beta: a", "anthropic-beta: b,c"], "a,b,c,oauth-2025-04-20"),
        (&["anthropic-beta: a, oauth-2025-04-20"], "a, oauth-2025-04-20"),
        (&["anthropic-beta: oauth-2025-04-20-x"], "oauth-2025-04-20-x,oauth-2025-04-20"),
    ];
    for (fields, want) in table {
        assert_eq!(bench.ask("GET /a", fields, "").await.status(), 200);
        assert_eq!(came.recv().await.unwrap().field("anthropic-beta"), Some(want));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_has_its_body_and_the_credential_stays_a_signature() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let change = |admitted: &mut Admitted| {
        admitted.placement = Placement::SigV4 { service: "bedrock".into(), region: "eu-west-1".into() };
        admitted.route = Route::find("bedrock").unwrap();
        admitted.only = Arc::from([]);
    };
    let bench = Bench::with(port, change, Connections::new()).await;
    let keys = br#"{"AccessKeyId":"AKID","SecretAccessKey":"topsecret","SessionToken":"st"}"#;
    *bench.fake.credential.lock().unwrap() = Some(keys.to_vec());
    let fields = ["Transfer-Encoding: chunked", "X-Amz-Date: 20000101T000000Z", "X-Amz-Security-Token: theirs"];
    let answer = bench.ask("POST /model/us.anthropic.x-v1:0/invoke", &fields, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let sent = came.recv().await.unwrap();
    assert_eq!(sent.first, "POST /model/us.anthropic.x-v1%3A0/invoke HTTP/1.1");
    assert_eq!((sent.body.as_slice(), sent.field("content-length")), (&b"abcde"[..], Some("5")));
    assert_eq!((sent.field("transfer-encoding"), sent.field("x-amz-security-token")), (None, Some("st")));
    let signature = sent.field("authorization").unwrap();
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{signature}");
    assert!(!format!("{sent:?}").contains("topsecret"));
    assert_eq!(bench.fake.used().await.1.sent, 5);

    let large = format!("Content-Length: {}", 32 * 1024 * 1024 + 1);
    let answer = bench.ask("POST /model/x/invoke", &[&large], "").await;
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (413, Some("gateway.body_too_large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_is_replaced_once_and_the_request_repeated_when_it_can_be() {
    const NO: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
    let whole = "x".repeat(1024 * 1024);
    let over = "x".repeat(1024 * 1024 + 1);
    // Fields, body, how often the upstream says 401, whether there is another credential; requests that come, status.
    for (fields, body, refusals, renews, requests, status) in [
        ("A: b".to_owned(), "", 1, true, 2, 200),
        (format!("Content-Length: {}", whole.len()), whole.as_str(), 1, true, 2, 200),
        (format!("Content-Length: {}", over.len()), over.as_str(), 1, true, 1, 401),
        ("Transfer-Encoding: chunked".to_owned(), "2\r\nab\r\n0\r\n\r\n", 1, true, 1, 401),
        ("A: b".to_owned(), "", 2, true, 2, 401),
        ("A: b".to_owned(), "", 1, false, 1, 401),
    ] {
        let (server, port) = Server::new().await;
        let (said, mut saying) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut count = 0;
            loop {
                let mut wire = server.accept().await;
                while let Some(message) = wire.message().await {
                    count += 1;
                    said.send(message).await.unwrap();
                    wire.send(if count <= refusals { NO } else { OK }).await;
                }
            }
        });
        let bench = Bench::new(port).await;
        bench.fake.renews.store(renews, Ordering::SeqCst);
        let answer = bench.ask("POST /a", &[&fields], body).await;
        assert_eq!(answer.status(), status, "{fields}");
        let (_, end) = bench.fake.used().await;
        assert_eq!((end.status, end.reason), (status, EndReason::Whole));
        for n in 1..=requests {
            let came = saying.recv().await.unwrap();
            assert_eq!(came.field("authorization"), Some(format!("Bearer secret-{n}").as_str()));
            assert_eq!(came.body.len(), if fields.starts_with("Tr") { 2 } else { body.len() }, "{fields}");
        }
        assert!(saying.try_recv().is_err(), "{fields}");
        assert_eq!(bench.fake.edition.load(Ordering::SeqCst), if renews { 2 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_when_the_use_cannot_be_noted() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let bench = Bench::new(port).await;
    bench.fake.logs.store(false, Ordering::SeqCst);
    let answer = bench.ask("GET /a", &[], "").await;
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (503, Some("audit.unavailable")));
    assert!(came.try_recv().is_err());
    assert!(bench.fake.told(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_is_named() {
    let (server, port) = Server::new().await;
    drop(server);
    let bench = Bench::new(port).await;
    let answer = bench.ask("GET /a", &[], "").await;
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (502, Some("gateway.upstream_unreachable")));
    assert!(answer.text().contains(&format!("127.0.0.1:{port}")), "{}", answer.text());
    assert!(!answer.text().contains("secret"));
    let (_, end) = bench.fake.used().await;
    assert_eq!((end.status, end.reason), (502, EndReason::Upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_head_is_answered_and_ends_the_connection() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    client.send(bench.request("POST /a", &["Content-Length: 3", "Transfer-Encoding: chunked"], "0\r\n\r\n")).await;
    let answer = client.message().await.unwrap();
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (400, Some("gateway.request_malformed")));
    assert_eq!(client.rest().await, b"");
    assert_eq!(bench.fake.denied().await.fault.code, Code::GatewayRequest);
    assert!(came.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_body_is_the_fault_of_its_client() {
    let models = Fence { models: vec!["claude-*".to_owned()], ..Fence::default() };
    for fence in [None, Some(Arc::new(models))] {
        for (body, why) in [
            ("5;a=b\r\nhello\r\n0\r\n\r\n", "a chunk begins with anything but its size"),
            ("5;\r\nhello\r\n0\r\n\r\n", "a chunk begins with anything but its size"),
            ("5\r\nhello\r\n0;a=b\r\n\r\n", "a chunk begins with anything but its size"),
            ("x\r\nhello\r\n0\r\n\r\n", "a chunk begins with anything but its size"),
            ("-1\r\nhello\r\n0\r\n\r\n", "a chunk begins with anything but its size"),
            ("05\r\nhello\r\n0\r\n\r\n", "the size of a chunk is not 1 to 16 hex digits"),
            ("5\nhello\n0\n\n", "a chunk begins with anything but its size"),
            ("4\r\nhello\r\n0\r\n\r\n", "a chunk does not end where its size says"),
            ("5\r\nhello\r\n0\r\nHost: a\r\n\r\n", "a field in the trailer section belongs into the head"),
            ("5\r\nhello\r\n0\r\na b: c\r\n\r\n", "the name of a field is not a token"),
        ] {
            let (server, port) = Server::new().await;
            let _came = server.answering(OK);
            let change = |admitted: &mut Admitted| {
                admitted.route = Route::find("anthropic").unwrap();
                admitted.only = Arc::from([]);
                admitted.fence = fence.clone();
            };
            let bench = Bench::with(port, change, Connections::new()).await;
            let mut client = bench.client().await;
            // More follows, which is no part of it.
            let body = format!("{body}{}", "x".repeat(30_000));
            client.send(bench.request("POST /v1/messages", &["Transfer-Encoding: chunked"], &body)).await;
            let answer = client.message().await.unwrap();
            let code = answer.field("x-keyward-code");
            assert_eq!((answer.status(), code), (400, Some("gateway.request_malformed")), "{body:.40}: {answer:?}");
            assert!(answer.text().contains("invalid_request_error"), "in the API's own shape: {answer:?}");
            assert!(answer.text().contains(why) && !answer.text().contains("127.0.0.1"), "{body:.40}: {answer:?}");
            assert_eq!(client.rest().await, b"", "the connection ends");
            if fence.is_none() {
                let (_, end) = bench.fake.used().await;
                assert_eq!((end.status, end.reason), (400, EndReason::Client), "{body:.40}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_google_exchange_the_run_token_for_itself() {
    let bench = Bench::new(1).await;
    let ask = |token: &str| {
        let form = format!("grant_type=urn%3Aietf&subject_token={token}&scope=s");
        let length = form.len();
        format!(
            "POST /keyward/google-token HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {length}\r\n\r\n{form}",
            bench.port
        )
    };
    let answer = bench.ask_raw(&ask(TOKEN)).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status(), &body["access_token"]), (200, &serde_json::json!(TOKEN)));
    for odd in [OTHER, "", "sk-1"] {
        let answer = bench.ask_raw(&ask(odd)).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status(), &body["error"]), (400, &serde_json::json!("invalid_grant")));
    }
    let long = format!("Content-Length: {}", 17 * 1024);
    let answer = bench.ask("POST /keyward/google-token", &[&long], &"x".repeat(17 * 1024)).await;
    assert_eq!(answer.status(), 400);
}
