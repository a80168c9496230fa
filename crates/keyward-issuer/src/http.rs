//! One POST to an endpoint that hands out tokens: a connection of its own, one request, one bounded answer.
//!
//! HTTP/1.1, over TLS with the certificates that the system trusts, or in the clear where [`keyward_core::check_url`] allows
//! it. Never follows a redirect, never takes a proxy, never keeps a connection, and never sends a request twice, since what
//! it carries may be worth one time only. The connection is made before the request, so that such a thing is not spent
//! while the network is down. Called by the federation issuer and the identity source of OAuth clients.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use keyward_diag::plain;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;
use zeroize::Zeroizing;

/// Longest body of an answer, in bytes.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Longest head of an answer, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// Longest time until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request id that is kept, in characters.
const REQUEST_ID_MAX: usize = 128;

/// Why there is no answer. Never holds a part of the request or of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no connection, or it broke.
    Unreachable(String),
    /// The time is up.
    Slow(String),
    /// What came is not an answer that is taken.
    Invalid(String),
}

impl Trouble {
    /// What happened, in words.
    pub(crate) fn cause(&self) -> &str {
        match self {
            Self::Unreachable(cause) | Self::Slow(cause) | Self::Invalid(cause) => cause,
        }
    }
}

/// An answer.
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// The name that the endpoint gave to the request, from the header `request-id`; safe to show.
    pub(crate) request_id: Option<String>,
    /// How long the endpoint wants to be left alone (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<Duration>,
    /// Its body, or why there is none.
    pub(crate) body: Result<Zeroizing<Vec<u8>>, Trouble>,
}

/// A connection to an endpoint, over which one request may go.
pub(crate) struct Line {
    url: Url,
    deadline: Instant,
    sender: http1::SendRequest<Full<Bytes>>,
    /// The task that moves the bytes; it ends with this value.
    _driver: JoinSet<()>,
}

impl Line {
    /// Connects. All that is done with the connection must be over at `deadline`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn connect(url: &Url, deadline: Instant) -> Result<Self, Trouble> {
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let slow = |_| Trouble::Slow(format!("{} did not take the connection in time", place(url)));
        timeout_at(until, Self::open(url, deadline)).await.map_err(slow)?
    }

    async fn open(url: &Url, deadline: Instant) -> Result<Self, Trouble> {
        let broken = |e: &(dyn Error + 'static)| Trouble::Unreachable(format!("{}: {}", place(url), innermost(e)));
        let uri: Uri = url.as_str().parse().map_err(|e| broken(&e))?;
        let tls = if url.scheme() == "https" { Some(tls().map_err(Trouble::Unreachable)?) } else { None };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let tcp = connector.call(uri).await.map_err(|e| broken(&e))?;
        let mut driver = JoinSet::new();
        let sender = match tls {
            None => handshake(tcp, &mut driver).await,
            Some(tls) => {
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|e| broken(&e))?;
                let stream = tls.connect(name, tcp.into_inner()).await.map_err(|e| broken(&e))?;
                handshake(TokioIo::new(stream), &mut driver).await
            }
        };
        let sender = sender.map_err(|e| broken(&e))?;
        Ok(Self { url: url.clone(), deadline, sender, _driver: driver })
    }

    /// Sends one request with these headers and this body, and reads the answer. The body is wiped after it was sent.
    ///
    /// # Errors
    /// [`Trouble`]. The endpoint may have taken the request all the same.
    pub(crate) async fn post(
        mut self,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, Trouble> {
        let at = place(&self.url);
        let mut request = Request::new(Full::new(Bytes::from_owner(body)));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.url.path().parse().unwrap_or_default();
        let own = [
            (header::HOST, HeaderValue::from_str(self.url.authority()).ok()),
            (header::USER_AGENT, Some(HeaderValue::from_static(concat!("keyward/", env!("CARGO_PKG_VERSION"))))),
        ];
        let own = own.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        request.headers_mut().extend(own.chain(headers));
        let slow = |_| Trouble::Slow(format!("{at} did not answer in time"));
        let mut response =
            timeout_at(self.deadline, self.sender.send_request(request)).await.map_err(slow)?.map_err(|e| {
                if e.is_parse() {
                    Trouble::Invalid(format!("what {at} sent is not an HTTP/1.1 answer: {e}"))
                } else {
                    Trouble::Unreachable(format!("{at} ended the connection without an answer: {}", innermost(&e)))
                }
            })?;
        let headers = response.headers();
        let request_id = headers.get("request-id").and_then(|v| v.to_str().ok()).map(|v| plain(v, REQUEST_ID_MAX));
        let retry_after = retry_after(headers, Timestamp::now());
        let encoding = headers.get(header::CONTENT_ENCODING).filter(|v| v.as_bytes() != b"identity");
        let body = match encoding {
            Some(_) => Err(Trouble::Invalid(format!("{at} sent an encoded answer, which was not asked for"))),
            None => match timeout_at(self.deadline, read(response.body_mut(), &at)).await {
                Ok(read) => read,
                Err(_) => Err(Trouble::Slow(format!("{at} did not end its answer in time"))),
            },
        };
        Ok(Answer { status: response.status().as_u16(), request_id, retry_after, body })
    }
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

/// The TLS of this process, made at its first use: reading the certificates of the system takes milliseconds.
fn tls() -> Result<TlsConnector, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = match CONFIG.get() {
        Some(config) => config,
        None => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_platform_verifier())
                .map_err(|e| format!("TLS cannot be used: {e}; install the certificates of your system"))?;
            CONFIG.get_or_init(|| Arc::new(builder.with_no_client_auth()))
        }
    };
    Ok(TlsConnector::from(config.clone()))
}

async fn handshake<T>(io: TokioIo<T>, driver: &mut JoinSet<()>) -> Result<http1::SendRequest<Full<Bytes>>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new().max_buf_size(HEAD_MAX_BYTES).handshake(io).await?;
    driver.spawn(async move {
        // How it ended is told to the sender.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Reads a body piece by piece, up to the bound.
async fn read(body: &mut hyper::body::Incoming, at: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    use hyper::body::Body;
    let long = || Trouble::Invalid(format!("the answer of {at} is longer than {BODY_MAX_BYTES} bytes"));
    let told = body.size_hint().lower();
    if told > BODY_MAX_BYTES as u64 {
        return Err(long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(told as usize));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Trouble::Invalid(format!("the answer of {at} broke off: {}", innermost(&e))))?;
        let Ok(piece) = frame.into_data() else { continue };
        if bytes.len() + piece.len() > BODY_MAX_BYTES {
            return Err(long());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads `Retry-After` as seconds or as an HTTP date, which is counted from the answer's own date where it has one, so that
/// the clock of this machine does not matter.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    static DATES: DateTimeParser = DateTimeParser::new();
    let date = |text: &str| DATES.parse_timestamp(text).ok();
    let from = text(header::DATE).and_then(date).unwrap_or(now);
    Some(Duration::try_from(date(asked)?.duration_since(from)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
