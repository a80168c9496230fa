//! One request to an endpoint that hands out tokens: a connection of its own, one request, one bounded answer.
//!
//! HTTP/1.1, over TLS with the certificates that the system trusts, or in the clear where the caller's check of the URL
//! allows it ([`keyward_core::check_url`], [`check_metadata_url`]). Never follows a redirect, never takes a proxy, never keeps a connection, and never sends a request twice, since what
//! it carries may be worth one time only. Tells a request that was not sent from one that may have arrived. Called by
//! all issuers and identity sources that ask a host.

use crate::answer::quotes;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use keyward_core::check_url;
use keyward_diag::plain;
use reqwest::header::{self, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Method, Response};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use url::Url;
use zeroize::Zeroizing;

/// Longest body of an answer, in bytes.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Longest time until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request id that is kept, in characters.
const REQUEST_ID_MAX: usize = 128;

/// Why there is no answer. Never holds a part of the request or of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There was no connection, so nothing of the body was sent.
    Unreachable(String),
    /// The connection broke.
    Broken(String),
    /// The time is up.
    Slow(String),
    /// What came is not an answer that is taken.
    Invalid(String),
}

impl Trouble {
    /// What happened, in words.
    pub(crate) fn cause(&self) -> &str {
        match self {
            Self::Unreachable(cause) | Self::Broken(cause) | Self::Slow(cause) | Self::Invalid(cause) => cause,
        }
    }
}

/// An answer.
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    request_id: Option<String>,
    headers: HeaderMap,
    /// How long the endpoint wants to be left alone (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<Duration>,
    /// By how many seconds the endpoint's clock is ahead of this machine's, by the header `date`.
    pub(crate) ahead_s: Option<i64>,
    /// Its body, or why there is none.
    pub(crate) body: Result<Zeroizing<Vec<u8>>, Trouble>,
}

impl Answer {
    /// The name that the endpoint gave to the request in the header `request-id`: at most 128 of `[A-Za-z0-9_.:-]`. `None`
    /// where it holds a piece of one of these secrets, or something of the form of a token.
    pub(crate) fn request_id(&self, secrets: &[&[u8]]) -> Option<&str> {
        self.request_id.as_deref().filter(|id| !quotes(id, secrets))
    }

    /// A header field that is text. What it says is not shown to anybody.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Checks the URL of a metadata service: as [`keyward_core::check_url`], with a query and with `http` also where the host is
/// one of the link-local addresses at which clouds offer theirs, which no router passes on: 169.254.169.254 (AWS, Google),
/// 169.254.170.2 and 169.254.170.23 (containers of AWS), and \[fd00:ec2::23\].
///
/// # Errors
/// One sentence that never quotes the URL.
pub(crate) fn check_metadata_url(text: &str) -> Result<Url, String> {
    const ADDRESSES: [&str; 4] = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
    let mut url = Url::parse(text).map_err(|e| format!("it is not a URL: {e}"))?;
    let query = url.query().map(str::to_owned);
    url.set_query(None);
    let is_near = url.scheme() == "http" && ADDRESSES.contains(&url.host_str().unwrap_or_default());
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if !is_near || !is_plain {
        check_url(url.as_str())?;
    }
    url.set_query(query.as_deref());
    Ok(url)
}

/// Sends one POST with these headers and this body, and reads the answer. All must be over at `deadline`.
///
/// # Errors
/// [`Trouble`]. But for [`Trouble::Unreachable`] the endpoint may have taken the request all the same.
pub(crate) async fn post(
    url: &Url,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    deadline: Instant,
) -> Result<Answer, Trouble> {
    let taken = Arc::new(AtomicBool::new(false));
    let body = Once { bytes: Some(Bytes::from_owner(body)), taken: taken.clone() };
    send(Method::POST, url, headers, Some(Body::wrap(body)), taken, deadline).await
}

/// Sends one request without a body, and reads the answer. All must be over at `deadline`.
///
/// # Errors
/// [`Trouble`].
pub(crate) async fn ask(method: Method, url: &Url, headers: HeaderMap, deadline: Instant) -> Result<Answer, Trouble> {
    send(method, url, headers, None, Arc::new(AtomicBool::new(true)), deadline).await
}

/// `taken` becomes true when the body is asked for, which is never where there is none.
async fn send(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Option<Body>,
    taken: Arc<AtomicBool>,
    deadline: Instant,
) -> Result<Answer, Trouble> {
    let at = place(url);
    let client = client().await.map_err(Trouble::Unreachable)?;
    let is_unsent = || !taken.load(Ordering::SeqCst);
    let request = client.request(method, url.clone()).headers(headers);
    let request = match body {
        Some(body) => request.body(body),
        None => request,
    };
    let response = match timeout_at(deadline, request.send()).await {
        Err(_) if is_unsent() => return Err(Trouble::Unreachable(format!("{at}: there was no connection in time"))),
        Err(_) => return Err(Trouble::Slow(format!("{at} did not answer in time"))),
        Ok(Err(e)) if is_unsent() || e.is_connect() => {
            return Err(Trouble::Unreachable(format!("{at}: {}", innermost(&e))));
        }
        Ok(Err(e)) => return Err(Trouble::Broken(format!("{at} gave no answer: {}", innermost(&e)))),
        Ok(Ok(response)) => response,
    };
    let headers = response.headers().clone();
    let now = Timestamp::now();
    let request_id = headers.get("request-id").and_then(|v| v.to_str().ok()).filter(|id| is_id(id)).map(str::to_owned);
    let retry_after = retry_after(&headers, now);
    let ahead_s = date(&headers, header::DATE).map(|date| date.duration_since(now).as_secs());
    let status = response.status().as_u16();
    let encoding = headers.get(header::CONTENT_ENCODING).filter(|v| v.as_bytes() != b"identity");
    let body = match encoding {
        Some(_) => Err(Trouble::Invalid(format!("{at} sent an encoded answer, which was not asked for"))),
        None => match timeout_at(deadline, read(response, &at)).await {
            Ok(read) => read,
            Err(_) => Err(Trouble::Slow(format!("{at} did not end its answer in time"))),
        },
    };
    Ok(Answer { status, request_id, headers, retry_after, ahead_s, body })
}

/// A body that tells whether it was asked for, which happens on a connection that stands and nowhere else.
struct Once {
    bytes: Option<Bytes>,
    taken: Arc<AtomicBool>,
}

impl http_body::Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::SeqCst);
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Whether it has the form of a request id.
fn is_id(text: &str) -> bool {
    let is_in = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(is_in)
}

/// Host, and the port that is not the scheme's own: what the endpoint sees as `Host`.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Host and port, as they are shown.
fn place(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", plain(url.host_str().unwrap_or_default(), 100))
}

/// What lies under all the layers of an error.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    plain(&error.to_string(), 200)
}

/// The client of this process, made at its first use: reading the certificates of the system takes milliseconds.
async fn client() -> Result<&'static Client, String> {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    let make = || async {
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|_| "the certificates of the system were not read".to_owned())?
    };
    CLIENT.get_or_try_init(make).await
}

fn make() -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|e| format!("TLS cannot be used: {e}; install the certificates of your system"))?
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("keyward/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|e| format!("HTTP cannot be used: {}", innermost(&e)))
}

/// Reads a body piece by piece, up to the bound.
async fn read(mut response: Response, at: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let long = || Trouble::Invalid(format!("the answer of {at} is longer than {BODY_MAX_BYTES} bytes"));
    let told = response.content_length().unwrap_or_default();
    if told > BODY_MAX_BYTES as u64 {
        return Err(long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(told as usize));
    let broken = |e| Trouble::Invalid(format!("the answer of {at} broke off: {}", innermost(&e)));
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if bytes.len() + piece.len() > BODY_MAX_BYTES {
            return Err(long());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

/// Reads an HTTP date (RFC 9110 section 5.6.7).
fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<Timestamp> {
    static DATES: DateTimeParser = DateTimeParser::new();
    DATES.parse_timestamp(text(headers, name)?).ok()
}

/// Reads `Retry-After` as seconds or as an HTTP date, which is counted from the answer's own date where it has one, so that
/// the clock of this machine does not matter.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text(headers, header::RETRY_AFTER)?.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let from = date(headers, header::DATE).unwrap_or(now);
    Some(Duration::try_from(date(headers, header::RETRY_AFTER)?.duration_since(from)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
