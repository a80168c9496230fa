//! Bodies on their way, and their ends.

use super::*;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A chunk of a body.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A gateway before one request whose answer is a stream: client and upstream after the head and first event.
async fn streaming() -> (Bench, Wire<TcpStream>, Wire<TcpStream>) {
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    client.send(bench.request("GET /a", &[], "")).await;
    let mut upstream = server.accept().await;
    upstream.message().await.unwrap();
    upstream.send(EVENTS.to_owned() + &chunk("data: 0\n\n")).await;
    client.head().await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"data: 0\n\n");
    (bench, client, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_made() {
    let (bench, mut client, mut upstream) = streaming().await;
    for n in 1..100 {
        let event = format!("data: {n}\n\n");
        upstream.send(chunk(&event)).await;
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
    upstream.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await.unwrap(), b"");
    let (_, end) = bench.fake.used().await;
    assert_eq!((end.received, end.reason), (10 * 9 + 90 * 10, EndReason::Whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_of_an_upload_leaves_before_the_next_is_made() {
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    for length in ["Transfer-Encoding: chunked", "Content-Length: 12"] {
        let chunked = length.starts_with('T');
        let mut client = bench.client().await;
        client.send(bench.request("POST /a", &[length], "")).await;
        let mut upstream = server.accept().await;
        let head = upstream.head().await.unwrap();
        assert_eq!(head.field("transfer-encoding").is_some(), chunked);
        for piece in ["abcd", "efgh", "ijkl"] {
            client.send(if chunked { chunk(piece) } else { piece.to_owned() }).await;
            let got = if chunked { upstream.chunk().await } else { upstream.exactly(4).await };
            assert_eq!(got.unwrap(), piece.as_bytes());
        }
        if chunked {
            client.send("0\r\n\r\n").await;
            upstream.until("0\r\n\r\n").await.unwrap();
        }
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        drop(upstream);
        assert_eq!(client.message().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_gets_it_and_one_that_is_refused_does_not() {
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    client.send(bench.request("POST /a", &["Expect: 100-continue", "Content-Length: 3"], "")).await;
    assert_eq!(client.until("\r\n\r\n").await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc").await;
    let mut upstream = server.accept().await;
    let came = upstream.message().await.unwrap();
    assert_eq!((came.field("expect"), came.body.as_slice()), (None, &b"abc"[..]), "it was met here");
    upstream.send(["HTTP/1.1 100 Continue\r\n\r\n", OK].concat()).await;
    assert_eq!(client.message().await.unwrap().status(), 200);

    drop((server, upstream));
    let mut client = bench.client().await;
    client.send(bench.request("POST /a", &["Expect: 100-continue", "Content-Length: 3"], "")).await;
    assert_eq!(client.message().await.unwrap().status(), 502, "there is nobody to send a body to");
    *bench.fake.admitted.lock().unwrap() = Err(Fault::new(Code::LeaseRevoked));
    let mut client = bench.client().await;
    client.send(bench.request("POST /a", &["Expect: 100-continue", "Content-Length: 3"], "")).await;
    assert_eq!(client.message().await.unwrap().status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_go_through_both_ways_without_credentials() {
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    let fields = ["Transfer-Encoding: chunked", "Trailer: X-Sum, X-Amz-Security-Token", "TE: trailers"];
    let body = "2\r\nab\r\n0\r\nX-Sum: 1\r\nX-Amz-Security-Token: t\r\n\r\n";
    client.send(bench.request("POST /a", &fields, body)).await;
    let mut upstream = server.accept().await;
    let came = upstream.message().await.unwrap();
    assert_eq!((came.body.as_slice(), came.trailers.to_ascii_lowercase().as_str()), (&b"ab"[..], "x-sum: 1\r\n"));
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: 2\r\n\r\n";
    upstream.send(answer).await;
    let got = client.message().await.unwrap();
    assert_eq!((got.text(), got.trailers.to_ascii_lowercase().as_str()), ("ok", "x-end: 2\r\n"));
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_do_not_hand_the_credential_back() {
    let (server, port) = Server::new().await;
    let _came = server.answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End, X-Echo\r\n\r\n2\r\nok\r\n0\r\n\
         X-Echo: key=%73ecret-1\r\nX-End: 2\r\n\r\n",
    );
    let bench = Bench::new(port).await;
    let got = bench.ask("GET /a", &["TE: trailers"], "").await;
    assert_eq!((got.text(), got.trailers.to_ascii_lowercase().as_str()), ("ok", "x-end: 2\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_hears_that_the_client_went_away() {
    // While it waits for the answer.
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    client.send(bench.request("GET /a", &[], "")).await;
    let mut upstream = server.accept().await;
    upstream.message().await.unwrap();
    drop(client);
    assert_eq!(upstream.rest().await, b"");
    let (_, end) = bench.fake.used().await;
    assert_eq!((end.status, end.reason), (0, EndReason::Client));

    // In the middle of it.
    let (bench, client, mut upstream) = streaming().await;
    drop(client);
    assert_eq!(upstream.rest().await, b"");
    let (_, end) = bench.fake.used().await;
    assert_eq!((end.status, end.received, end.reason), (200, 9, EndReason::Client));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_upstream_breaks_is_broken_for_the_client() {
    let (bench, mut client, upstream) = streaming().await;
    drop(upstream);
    assert!(client.chunk().await.is_none(), "the stream ended as if it were whole");
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Upstream);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_cut_on_both_sides_when_the_credential_is_taken_back() {
    for ended in [Ended::Revoked, Ended::Released] {
        let (bench, mut client, mut upstream) = streaming().await;
        bench.fake.ended.send_replace(Some(ended));
        assert!(client.chunk().await.is_none(), "the stream ended as if it were whole");
        assert_eq!(upstream.rest().await, b"");
        assert_eq!(bench.fake.used().await.1.reason, EndReason::Cut);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_is_cut_with_the_reason() {
    let (server, port) = Server::new().await;
    let bench = Bench::new(port).await;
    let mut client = bench.client().await;
    client.send(bench.request("POST /a", &["Content-Length: 1000"], "abc")).await;
    let mut upstream = server.accept().await;
    upstream.head().await.unwrap();
    bench.fake.ended.send_replace(Some(Ended::Revoked));
    let answer = client.message().await.unwrap();
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (403, Some("lease.revoked")));
    upstream.rest().await;
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_all_the_same() {
    let (bench, _client, mut upstream) = streaming().await;
    // Until nothing more is taken: the gateway's room and that of the sockets is full.
    let piece = chunk(&"x".repeat(64 * 1024));
    while timeout(Duration::from_millis(300), upstream.stream.write_all(piece.as_bytes())).await.is_ok() {}
    bench.fake.ended.send_replace(Some(Ended::Revoked));
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Cut);
    upstream.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_finish_when_the_time_of_the_lease_is_up() {
    let (bench, mut client, mut upstream) = streaming().await;
    bench.fake.ended.send_replace(Some(Ended::Expired));
    upstream.send(chunk("more") + "0\r\n\r\n").await;
    assert_eq!(client.chunk().await.unwrap(), b"more");
    assert_eq!(client.until("0\r\n\r\n").await.unwrap(), "0\r\n\r\n");
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Whole);
    client.send(bench.request("GET /a", &[], "")).await;
    assert_eq!(client.message().await.unwrap().field("x-keyward-code"), Some("lease.expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_short_finish_and_ends_the_rest() {
    let (mut bench, mut client, mut upstream) = streaming().await;
    let mut silent = bench.client().await;
    let mut hung = bench.client().await;
    hung.send("GET /a HTTP/1.1\r\n").await;
    bench.stop.take().unwrap().send(()).unwrap();
    upstream.send(chunk("more") + "0\r\n\r\n").await;
    assert_eq!(client.chunk().await.unwrap(), b"more");
    assert_eq!(client.until("0\r\n\r\n").await.unwrap(), "0\r\n\r\n");
    for wire in [&mut client, &mut hung, &mut silent] {
        assert_eq!(wire.rest().await, b"");
    }
    timeout(LONG, bench.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", bench.port)).await.is_err());
}

/// A certificate for `localhost`, and what trusts it.
fn certificate(protocol: &[u8]) -> (tokio_rustls::TlsAcceptor, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![protocol.to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), client)
}

fn secure(port: u16) -> impl FnOnce(&mut Admitted) {
    move |admitted| {
        let upstream = Upstream { tls: true, host: "localhost".into(), port, base: String::new() };
        admitted.upstream = Arc::new(upstream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_http_1_streams_and_an_unknown_certificate_gets_nothing() {
    let (acceptor, trust) = certificate(b"http/1.1");
    let (server, port) = Server::new().await;
    let bench = Bench::with(port, secure(port), Connections::trusting(trust)).await;
    let mut client = bench.client().await;
    client.send(bench.request("GET /a", &[], "")).await;
    let mut upstream = Wire::new(acceptor.accept(server.accept().await.stream).await.unwrap());
    let came = upstream.message().await.unwrap();
    assert_eq!(came.field("host"), Some(format!("localhost:{port}").as_str()));
    upstream.send(EVENTS.to_owned() + &chunk("data: 0\n\n")).await;
    client.head().await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"data: 0\n\n");
    drop((client, upstream));

    let (_, other) = certificate(b"http/1.1");
    let bench = Bench::with(port, secure(port), Connections::trusting(other)).await;
    let upstream = tokio::spawn(async move { acceptor.accept(server.accept().await.stream).await.is_err() });
    let answer = bench.ask("GET /a", &[], "").await;
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (502, Some("gateway.upstream_certificate")));
    assert!(upstream.await.unwrap());
}

/// A body that is made by hand, frame by frame.
struct ByHand(mpsc::Receiver<Frame<Bytes>>);

impl Body for ByHand {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_of_the_client_becomes_http_2_with_streams_and_trailers() {
    let (acceptor, trust) = certificate(b"h2");
    let (server, port) = Server::new().await;
    let (hand, by_hand) = mpsc::channel(1);
    let (came, mut coming) = mpsc::channel(1);
    tokio::spawn(async move {
        let stream = acceptor.accept(server.accept().await.stream).await.unwrap();
        let answer = Mutex::new(Some(ByHand(by_hand)));
        let service = service_fn(|request: Request<Incoming>| {
            let (came, answer) = (came.clone(), answer.lock().unwrap().take().unwrap());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap();
                came.send((parts, body.trailers().cloned(), body.to_bytes())).await.unwrap();
                let mut answer = Response::new(answer);
                answer.headers_mut().insert("trailer", HeaderValue::from_static("x-end"));
                Ok::<_, Infallible>(answer)
            }
        });
        let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        drop(serving.await);
    });
    let bench = Bench::with(port, secure(port), Connections::trusting(trust)).await;
    let mut client = bench.client().await;
    let fields = ["Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers", "Keep-Alive: 1", "Cookie: a=b"];
    client.send(bench.request("POST /a?x=1", &fields, "2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    let (parts, trailers, body) = timeout(LONG, coming.recv()).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.uri.to_string()), (Version::HTTP_2, format!("https://localhost:{port}/a?x=1")));
    assert_eq!((body.as_ref(), trailers.unwrap()["x-sum"].as_bytes()), (&b"ab"[..], &b"1"[..]));
    let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "te", "trailer"]);

    client.head().await.unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        hand.send(Frame::data(Bytes::from(event))).await.unwrap();
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-end"), HeaderValue::from_static("2"))]);
    hand.send(Frame::trailers(trailers)).await.unwrap();
    drop(hand);
    assert_eq!(client.until("\r\n\r\n").await.unwrap().to_ascii_lowercase(), "0\r\nx-end: 2\r\n\r\n");
    assert_eq!(bench.fake.used().await.1.reason, EndReason::Whole);
}
