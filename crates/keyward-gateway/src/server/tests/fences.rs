//! Requests of leases with a fence: what it is asked, what waits, and what a call has cost.

use super::*;
use keyward_core::Usd;

const HELLO: &str = r#"{"model":"claude-sonnet-4-6","messages":[]}"#;
const SAID: &str = r#"{"type":"message","content":[{"text":"hi"}],"usage":{"input_tokens":1000,"output_tokens":100}}"#;

fn fence(models: &[&str], usd: Option<u64>) -> Option<Arc<Fence>> {
    let models = models.iter().map(|&model| model.to_owned()).collect();
    Some(Arc::new(Fence { requests_per_minute: None, requests: Some(9), models, usd: usd.map(Usd) }))
}

async fn bench(port: u16, route: &'static str, fence: Option<Arc<Fence>>) -> Bench {
    let change = |admitted: &mut Admitted| {
        admitted.route = Route::find(route).unwrap();
        admitted.only = Arc::from([]);
        admitted.fence = fence;
    };
    Bench::with(port, change, Connections::new()).await
}

fn json_of(body: &str) -> [String; 2] {
    ["Content-Type: application/json".to_owned(), format!("Content-Length: {}", body.len())]
}

async fn post(bench: &Bench, path: &str, body: &str) -> Message {
    let fields = json_of(body);
    bench.ask(&format!("POST {path}"), &[&fields[0], &fields[1], "Accept-Encoding: gzip"], body).await
}

/// A whole answer.
fn answer(kind: &str, body: &str) -> &'static str {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
}

fn asked(bench: &Bench) -> Vec<Option<(String, String)>> {
    bench.fake.fenced.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_nothing_is_asked_or_changed() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", None).await;
    let mut came = server.answering(answer("application/json", SAID));
    assert_eq!(post(&bench, "/v1/messages", "no JSON").await.status(), 200);
    let request = came.recv().await.unwrap();
    assert_eq!((request.text(), request.field("accept-encoding")), ("no JSON", Some("gzip")));
    assert!(asked(&bench).is_empty());
    assert_eq!(bench.fake.used().await.1.usd, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_counted_by_what_its_answer_says() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&[], Some(1_000_000))).await;
    let mut came = server.answering(answer("application/json", SAID));
    assert_eq!(post(&bench, "/v1/messages", HELLO).await.text(), SAID, "it comes as it is");
    let request = came.recv().await.unwrap();
    assert_eq!((request.text(), request.field("accept-encoding")), (HELLO, Some("identity")));
    let (_, end) = bench.fake.used().await;
    assert_eq!((end.usd, end.sent), (Some(Usd(3_000 + 1_500)), HELLO.len() as u64));
    let name = "claude-sonnet-4-6".to_owned();
    assert_eq!(asked(&bench), [Some((name.clone(), name))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_is_read_whole_and_sent_once() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&["claude-*"], None)).await;
    let mut came = server.answering(answer("application/json", SAID));
    let mut client = bench.client().await;
    client.send(bench.request("POST /v1/messages", &["Transfer-Encoding: chunked"], "")).await;
    let body = format!(r#"{{"messages":["{}"],"model":"claude-x"}}"#, "x".repeat(100_000));
    for piece in body.as_bytes().chunks(7_000) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.message().await.unwrap().status(), 200);
    assert_eq!(came.recv().await.unwrap().text(), body);
    assert_eq!(bench.fake.used().await.1.usd, None, "money is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_counted_as_it_passes_and_an_error_costs_nothing() {
    let events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":100}}\n\n";
    let failed = "HTTP/1.1 529 Overloaded\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    for (told, usd) in [(answer("text/event-stream", events), Some(Usd(4_500))), (failed, None)] {
        let (server, port) = Server::new().await;
        let bench = bench(port, "anthropic", fence(&[], Some(1_000_000))).await;
        let _came = server.answering(told);
        post(&bench, "/v1/messages", HELLO).await;
        assert_eq!(bench.fake.used().await.1.usd, usd);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_early_is_counted_as_if_the_model_had_written_all_that_it_may() {
    let limited = r#"{"model":"claude-sonnet-4-6","messages":[],"max_tokens":100}"#;
    for (body, most) in [(HELLO, 8_192), (limited, 100)] {
        let (server, port) = Server::new().await;
        let bench = bench(port, "anthropic", fence(&[], Some(1_000_000))).await;
        let fields = json_of(body);
        let mut client = bench.client().await;
        client.send(bench.request("POST /v1/messages", &[&fields[0], &fields[1]], body)).await;
        let mut upstream = server.accept().await;
        upstream.message().await.unwrap();
        drop(client);
        let (_, end) = bench.fake.used().await;
        let tokens = (body.len() as u64).div_ceil(4);
        assert_eq!((end.status, end.usd), (0, Some(Usd(tokens * 3 + most * 15))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_field_that_asks_for_another_tier_goes_nowhere_where_money_is_counted() {
    let path = "POST /model/us.anthropic.claude-haiku-4-5-v1%3A0/invoke";
    for (usd, status) in [(Some(1_000_000), 400), (None, 200)] {
        let (server, port) = Server::new().await;
        let bench = bench(port, "bedrock", fence(&["*"], usd)).await;
        let mut came = server.answering(answer("application/json", "{}"));
        let fields = json_of("{}");
        let reply = bench.ask(path, &[&fields[0], &fields[1], "X-Amzn-Bedrock-Service-Tier: priority"], "{}").await;
        assert_eq!((reply.status(), reply.text().contains("service-tier")), (status, usd.is_some()), "{reply:?}");
        match usd {
            Some(_) => assert!(came.try_recv().is_err(), "it goes nowhere"),
            None => drop(came.recv().await.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_at_its_fence_and_no_byte_of_it_leaves() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&["claude-haiku-*"], None)).await;
    let mut came = server.answering(answer("application/json", SAID));
    bench.fake.allows.send_replace(None);
    let fields = json_of(HELLO);
    let mut client = bench.client().await;
    client.send(bench.request("POST /v1/messages", &[&fields[0], &fields[1]], HELLO)).await;
    while asked(&bench).is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(came.try_recv().is_err());
    bench.fake.allows.send_replace(Some(Ok(())));
    assert_eq!(client.message().await.unwrap().status(), 200);
    came.recv().await.unwrap();

    let fault = Fault::new(Code::FenceReached).cause("1000 requests so far");
    bench.fake.allows.send_replace(Some(Err(fault)));
    let refused = post(&bench, "/v1/messages", HELLO).await;
    assert_eq!((refused.status(), refused.field("x-should-retry")), (403, Some("false")));
    assert!(refused.text().contains("permission_error") && refused.text().contains("fence.reached: "), "{refused:?}");
    assert!(refused.text().contains("1000 requests so far") && refused.text().contains("keyward approvals"));
    assert!(came.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_wait_at_fences_take_no_room_of_signed_ones() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&[], Some(1_000_000))).await;
    let mut came = server.answering(answer("application/json", SAID));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let mut client = bench.client().await;
        client.send(bench.request("POST /v1/messages", &["Content-Length: 33554432"], "")).await;
        waiting.spawn(async move { client.message().await.unwrap() });
    }
    for _ in 0..3 {
        let refused = timeout(LONG, waiting.join_next()).await.unwrap().unwrap().unwrap();
        assert!(refused.status() == 503 && refused.text().contains("too many large requests"), "{refused:?}");
    }
    if let Ok(admitted) = &mut *bench.fake.admitted.lock().unwrap() {
        admitted.fence = None;
        admitted.placement = Placement::SigV4 { service: "bedrock".into(), region: "eu-west-1".into() };
        admitted.route = Route::find("bedrock").unwrap();
    }
    *bench.fake.credential.lock().unwrap() = Some(br#"{"AccessKeyId":"AKID","SecretAccessKey":"s"}"#.to_vec());
    let field = "Transfer-Encoding: chunked";
    let signed = bench.ask("POST /model/us.anthropic.x-v1:0/invoke", &[field], "3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(signed.status(), 200, "{signed:?}");
    assert_eq!(came.recv().await.unwrap().text(), "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_ends_the_wait_and_so_does_a_client_that_goes() {
    let (_server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&["x"], None)).await;
    bench.fake.allows.send_replace(None);
    let fields = json_of(HELLO);
    let mut client = bench.client().await;
    client.send(bench.request("POST /v1/messages", &[&fields[0], &fields[1]], HELLO)).await;
    while bench.fake.allows.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    timeout(LONG, bench.fake.allows.closed()).await.unwrap();
    let mut client = bench.client().await;
    client.send(bench.request("POST /v1/messages", &[&fields[0], &fields[1]], HELLO)).await;
    while bench.fake.allows.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    bench.fake.ended.send_replace(Some(Ended::Revoked));
    let refused = client.message().await.unwrap();
    assert!(refused.status() == 403 && refused.text().contains("lease.revoked"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fence_cannot_judge_goes_nowhere() {
    let (_server, port) = Server::new().await;
    let completion = r#"{"model":"gpt-5","stream":true}"#;
    for (route, path, body, status, words) in [
        ("anthropic", "/v1/messages", "", 400, "gateway.request_malformed"),
        ("anthropic", "/v1/messages", "model=claude-haiku-4-5", 400, "gateway.request_malformed"),
        ("anthropic", "/v1/messages", "{}", 400, "names no model"),
        ("anthropic", "/v1/messages", r#"{"model":"claude-haiku-4-5","model":"claude-opus-5"}"#, 400, "twice"),
        ("anthropic", "/v1/messages", r#"{"model":"claude-haiku-4-5","MODEL":"claude-opus-5"}"#, 400, "other letters"),
        ("anthropic", "/v1/messages", r#"{"model":"claude-opus-99"}"#, 403, "fence.uncounted"),
        ("anthropic", "/v1/messages/batches", r#"{"requests":[]}"#, 403, "says neither its model"),
        ("anthropic", "/v1/messages", r#"{"model":"claude-opus-4-6","speed":"fast"}"#, 403, "other prices"),
        ("openai", "/v1/chat/completions", completion, 403, "include_usage"),
        ("openai", "/v1/responses", r#"{"model":"gpt-5","background":true}"#, 403, "in the background"),
        ("openai", "/v1/images/generations", r#"{"model":"gpt-5"}"#, 403, "says neither its model"),
        ("bedrock", "/model/evil.model-v1:0/invoke", "{}", 400, "evil.model-v1:0"),
    ] {
        let bench = bench(port, route, fence(&[], Some(1_000_000))).await;
        let refused = post(&bench, path, body).await;
        assert!(refused.status() == status && refused.text().contains(words), "{path} {body}: {refused:?}");
        assert!(asked(&bench).is_empty(), "a person is not asked what cannot be");
        assert_eq!(bench.fake.denied().await.lease, Some(Uuid::from_u128(9)), "it is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_path_is_the_one_that_is_sent() {
    for (route, path, sent, name) in [
        (
            "bedrock",
            "/model/us.anthropic.claude-haiku-4-5-v1%3A0/invoke",
            "us.anthropic.claude-haiku-4-5-v1:0",
            "claude-haiku-4-5-v1:0",
        ),
        (
            "bedrock",
            "/model/us.anthropic.cl%61ude-haiku-4-5-v1:0/converse",
            "us.anthropic.claude-haiku-4-5-v1:0",
            "claude-haiku-4-5-v1:0",
        ),
        (
            "vertex",
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x%401:rawPredict",
            "claude-x@1",
            "claude-x",
        ),
        ("gemini", "/v1beta/models/gemini-x:generateContent", "gemini-x", "gemini-x"),
    ] {
        let (server, port) = Server::new().await;
        let bench = bench(port, route, fence(&["x"], None)).await;
        let mut came = server.answering(answer("application/json", "{}"));
        let body = format!(r#"{{"model":"{sent}"}}"#);
        assert_eq!(post(&bench, path, &body).await.status(), 200);
        came.recv().await.unwrap();
        assert_eq!(asked(&bench), [Some((sent.to_owned(), name.to_owned()))], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_that_a_request_names_comes_to_the_fence() {
    let advised = r#"{"model":"claude-haiku-4-5","tools":[{"type":"advisor_20260301","model":"claude-opus-4-6"}]}"#;
    let by_path = "/model/us.anthropic.claude-haiku-4-5-v1%3A0/invoke";
    let vertex = "/v1/projects/p/locations/l/publishers/anthropic/models/claude-haiku-4-5:rawPredict";
    for (route, path, body, besides, own) in [
        ("anthropic", "/v1/messages", advised, "claude-opus-4-6", "claude-haiku-4-5"),
        ("bedrock", by_path, r#"{"tools":[{"model":"us.anthropic.b"}]}"#, "b", "claude-haiku-4-5-v1:0"),
        ("bedrock", by_path, r#"{"model":"anthropic.b"}"#, "b", "claude-haiku-4-5-v1:0"),
        ("vertex", vertex, r#"{"tools":[{"model":"b@1"}]}"#, "b", "claude-haiku-4-5"),
    ] {
        let (server, port) = Server::new().await;
        let (models, money) = (fence(&["claude-haiku-*"], None), fence(&[], Some(1_000_000)));
        let with_models = bench(port, route, models).await;
        let mut came = server.answering(answer("application/json", "{}"));
        assert_eq!(post(&with_models, path, body).await.status(), 200, "{path} {body}");
        assert_eq!(came.recv().await.unwrap().text(), body);
        let names: Vec<String> = asked(&with_models).into_iter().map(|model| model.unwrap().1).collect();
        assert_eq!(names, [besides, own], "{path} {body}");

        let no = Fault::new(Code::FenceReached);
        with_models.fake.allows.send_replace(Some(Err(no)));
        let refused = post(&with_models, path, body).await;
        assert!(refused.status() >= 400 && refused.text().contains("fence.reached"), "{refused:?}");
        assert_eq!(asked(&with_models).len(), 3, "the first no is enough");

        let with_money = bench(port, route, money).await;
        let refused = post(&with_money, path, body).await;
        assert!(
            refused.text().contains("fence.uncounted") && refused.text().contains("besides its own"),
            "{refused:?}"
        );
        assert!(asked(&with_money).is_empty() && came.try_recv().is_err(), "{path} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_hides_a_model_goes_nowhere() {
    let (_server, port) = Server::new().await;
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    let many: Vec<String> = (0..9).map(|n| format!(r#"{{"model":"m{n}"}}"#)).collect();
    let many = format!(r#"{{"tools":[{}]}}"#, many.join(","));
    let long = format!(r#"{{"tools":[{{"model":"{}"}}]}}"#, "m".repeat(257));
    for body in
        [deep.as_str(), many.as_str(), long.as_str(), "no JSON", r#"{"tools":[]"#, r#"{"model":"a","Model":"b"}"#]
    {
        let bench = bench(port, "bedrock", fence(&["*"], None)).await;
        let refused = post(&bench, "/model/us.anthropic.claude-haiku-4-5-v1%3A0/invoke", body).await;
        assert!(refused.status() == 400 && refused.text().contains("gateway.request_malformed"), "{body}: {refused:?}");
        assert!(asked(&bench).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_without_looking_into_them() {
    let (server, port) = Server::new().await;
    let bench = bench(port, "anthropic", fence(&[], None)).await;
    let _came = server.answering(answer("application/json", SAID));
    for path in ["/v1/messages", "/v1/messages/batches"] {
        assert_eq!(post(&bench, path, "no JSON").await.status(), 200);
    }
    assert_eq!(asked(&bench), [None, None]);
}

/// Of a lease whose profile names the count of tokens alone, with a fence or without.
async fn narrow(port: u16, fence: Option<Arc<Fence>>) -> Bench {
    let bench = bench(port, "anthropic", fence).await;
    if let Ok(admitted) = &mut *bench.fake.admitted.lock().unwrap() {
        admitted.only = Arc::from(["POST /v1/messages/count_tokens".to_owned()]);
    }
    bench
}

fn beyond(call: &str) -> Option<(String, String)> {
    Some((call.to_owned(), String::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_profile_leaves_out_waits_and_goes_on_or_is_refused() {
    let (server, port) = Server::new().await;
    let bench = narrow(port, None).await;
    let mut came = server.answering(answer("application/json", SAID));
    assert_eq!(post(&bench, "/v1/messages/count_tokens", "{}").await.status(), 200);
    assert!(came.recv().await.is_some() && asked(&bench).is_empty(), "what it names is not asked about");
    bench.fake.allows.send_replace(None);
    let fields = json_of(HELLO);
    let mut client = bench.client().await;
    client.send(bench.request("POST /v1/messages?beta=true", &[&fields[0], &fields[1]], HELLO)).await;
    let comes = async {
        while asked(&bench).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, comes).await.unwrap();
    assert!(came.try_recv().is_err());
    bench.fake.allows.send_replace(Some(Ok(())));
    assert_eq!(client.message().await.unwrap().status(), 200);
    assert_eq!(came.recv().await.unwrap().text(), HELLO);
    assert_eq!(bench.ask("GET /v1/models/claude-x", &[], "").await.status(), 200);
    came.recv().await.unwrap();
    let calls = [beyond("POST /v1/messages"), beyond("GET /v1/models/{id}")];
    assert_eq!(asked(&bench), calls, "a method and the pattern of a path, and no request of a fence");

    let fault = Fault::new(Code::FenceReached).cause("a person said no");
    bench.fake.allows.send_replace(Some(Err(fault)));
    let refused = post(&bench, "/v1/files", "x").await;
    assert_eq!((refused.status(), refused.field("x-keyward-code")), (403, Some("fence.reached")));
    assert!(refused.text().contains("permission_error") && refused.text().contains("a person said no"), "{refused:?}");
    assert!(came.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_person_allows_comes_to_the_other_limits_too() {
    let (server, port) = Server::new().await;
    let bench = narrow(port, fence(&["claude-*"], None)).await;
    let mut came = server.answering(answer("application/json", SAID));
    assert_eq!(post(&bench, "/v1/messages", HELLO).await.status(), 200);
    came.recv().await.unwrap();
    let name = "claude-sonnet-4-6".to_owned();
    assert_eq!(asked(&bench), [beyond("POST /v1/messages"), Some((name.clone(), name))]);
    assert_eq!(bench.ask("GET /v1/models", &[], "").await.status(), 200);
    assert_eq!(asked(&bench)[2..], [beyond("GET /v1/models"), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_what_no_list_has_or_is_refused_anyway() {
    let (_server, port) = Server::new().await;
    let models = || fence(&["claude-*"], None);
    for (route, fence, line, body, status, code) in [
        ("anthropic", None, "POST /v1/oauth/token", "{}", 403, "gateway.not_allowed"),
        ("anthropic", None, "GET /v1/organizations/api_keys", "", 403, "gateway.not_allowed"),
        ("anthropic", None, "POST /v1/messages/x", "{}", 403, "gateway.not_allowed"),
        ("anthropic", None, "DELETE /v1/messages", "", 403, "gateway.not_allowed"),
        ("openai", None, "POST /v1/realtime/client_secrets", "{}", 403, "gateway.not_allowed"),
        ("github", None, "POST /user/keys", "{}", 403, "gateway.not_allowed"),
        ("generic", None, "GET /v1/models", "", 403, "gateway.not_allowed"),
        ("anthropic", None, "POST /v1/x/%2e%2e/files", "{}", 400, "gateway.path_refused"),
        ("anthropic", None, "POST /v1/files?_method=DELETE", "{}", 400, "gateway.request_malformed"),
        ("anthropic", models(), "POST /v1/messages", "{}", 400, "gateway.request_malformed"),
        ("anthropic", models(), "POST /v1/messages/batches", "{}", 403, "fence.uncounted"),
    ] {
        let bench = narrow(port, fence).await;
        if let Ok(admitted) = &mut *bench.fake.admitted.lock().unwrap() {
            admitted.route = Route::find(route).unwrap();
        }
        let refused = bench.ask(line, &[&format!("Content-Length: {}", body.len())], body).await;
        assert_eq!((refused.status(), refused.field("x-keyward-code")), (status, Some(code)), "{line}: {refused:?}");
        assert!(asked(&bench).is_empty(), "{line}");
        assert_eq!(bench.fake.denied().await.lease, Some(Uuid::from_u128(9)), "it is in the log");
    }
}
