//! One connection of the client that measures, to the gateway, to the bare forwarder or to the API itself.

use crate::Failure;
use crate::api::nanoseconds;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tokio::net::TcpStream;

/// A short question to a model, of about 1 KiB.
static QUESTION: LazyLock<Bytes> = LazyLock::new(|| {
    let question = json!({"model": "claude-sonnet-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "?".repeat(900)}]});
    question.to_string().into()
});

/// Where to call, and the header that opens it.
#[derive(Clone)]
pub(crate) struct Place {
    address: String,
    header: HeaderName,
    value: HeaderValue,
}

impl Place {
    /// An address that takes any key: the API and the bare forwarder.
    pub(crate) fn open(address: &str) -> Self {
        let (header, value) = (HeaderName::from_static("x-api-key"), HeaderValue::from_static("any"));
        Self { address: address.to_owned(), header, value }
    }

    /// The gateway, as the run's variables tell it.
    pub(crate) fn gateway() -> Result<Self, Failure> {
        let base = std::env::var("ANTHROPIC_BASE_URL").map_err(|_| "ANTHROPIC_BASE_URL is not set")?;
        let token = std::env::var("ANTHROPIC_AUTH_TOKEN").map_err(|_| "ANTHROPIC_AUTH_TOKEN is not set")?;
        let address = base.strip_prefix("http://").ok_or("ANTHROPIC_BASE_URL does not begin with http://")?;
        let value = HeaderValue::try_from(format!("Bearer {token}"))?;
        Ok(Self { address: address.to_owned(), header: AUTHORIZATION, value })
    }
}

/// A connection.
pub(crate) struct Line {
    place: Place,
    sender: SendRequest<Full<Bytes>>,
}

impl Line {
    /// Connects.
    pub(crate) async fn to(place: &Place) -> Result<Self, Failure> {
        let stream = TcpStream::connect(&place.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // What breaks the connection is the error of the call.
        tokio::spawn(connection);
        Ok(Self { place: place.clone(), sender })
    }

    /// Makes a call, and gives the answer as soon as its head is there; another status than 200 is an error.
    pub(crate) async fn start(&mut self, query: &str) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1/messages{query}"))
            .header(HOST, &self.place.address)
            .header(&self.place.header, &self.place.value)
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("user-agent", "traffic")
            .body(Full::new(QUESTION.clone()))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        if answer.status() == 200 {
            return Ok(answer);
        }
        let status = answer.status();
        let said = answer.into_body().collect().await?.to_bytes();
        Err(format!("{}: {status} {}", self.place.address, String::from_utf8_lossy(&said)).into())
    }

    /// Makes a call and takes the whole answer.
    pub(crate) async fn call(&mut self) -> Result<(), Failure> {
        self.start("").await?.into_body().collect().await?;
        Ok(())
    }

    /// Takes a stream of events to its end.
    pub(crate) async fn events(&mut self, id: u64, count: u64, every_ms: u64) -> Result<Stream, Failure> {
        let answer = self.start(&format!("?id={id}&events={count}&every_ms={every_ms}")).await?;
        let mut body = answer.into_body();
        let (mut text, mut stream) = (Vec::new(), Stream::default());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let now = nanoseconds();
            text.extend_from_slice(&data);
            let mut whole = 0;
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let event = String::from_utf8(text.drain(..end + 2).collect())?;
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).ok_or("an event without data")?;
                let data: Value = serde_json::from_str(data)?;
                let number = |name: &str| data[name].as_u64().ok_or("an event without its numbers");
                if number("id")? != id || number("seq")? != stream.came {
                    stream.mixed += 1;
                }
                stream.came += 1;
                stream.delays.push(now.saturating_sub(number("ns")?));
                whole += 1;
            }
            stream.together += if whole > 1 { whole } else { 0 };
        }
        Ok(stream)
    }
}

/// What came of a stream.
#[derive(Default)]
pub(crate) struct Stream {
    /// Events.
    pub(crate) came: u64,
    /// Of these, events that belong to another stream or place.
    pub(crate) mixed: u64,
    /// Of these, events that came in one piece with others.
    pub(crate) together: u64,
    /// Nanoseconds from the making of each event to its arrival.
    pub(crate) delays: Vec<u64>,
}
