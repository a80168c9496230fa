//! The client side of the gateway: connections to the APIs.
//!
//! HTTP/1.1 and, where the API takes it (ALPN, RFC 7301), HTTP/2, over TLS with the certificates that the system trusts; in
//! the clear where the profile's upstream says so. Connections are kept by origin, since no credential belongs to one. Never
//! takes a proxy, never follows a redirect, and sends a request a second time only if no byte of it had left. Called by
//! `forward`.

use crate::body::Sending;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keyward_core::Upstream;
use keyward_diag::{Code, Fault, plain};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tower_service::Service;

/// Longest time until a connection stands, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A connection that nobody uses is closed after this.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Most connections of an origin that are kept while nobody uses them.
const IDLE_MAX: usize = 256;
/// How often a connection with nothing on it is tried: TCP keep-alive, and PING of HTTP/2 (RFC 9113 section 6.7).
const ALIVE_TIME: Duration = Duration::from_secs(30);

/// The connections to all APIs.
pub(crate) struct Connections {
    /// Made at the first use: reading the certificates of the system takes milliseconds.
    client: OnceCell<Client<Dialer, Sending>>,
}

impl Connections {
    /// No connection yet.
    pub(crate) const fn new() -> Self {
        Self { client: OnceCell::const_new() }
    }

    /// Connections that trust what `tls` says instead of what the system does.
    #[cfg(test)]
    pub(crate) fn trusting(tls: ClientConfig) -> Self {
        Self { client: OnceCell::new_with(Some(client(tls))) }
    }

    /// Reads the certificates of the system, unless that was done.
    ///
    /// # Errors
    /// `gateway.upstream_certificate` when there are none.
    pub(crate) async fn ready(&self) -> Result<&Client<Dialer, Sending>, Fault> {
        let failed = |e: String| Fault::new(Code::GatewayCertificate).cause(e);
        let make = || async {
            let tls = tokio::task::spawn_blocking(platform).await;
            let tls = tls.unwrap_or_else(|_| Err("the certificates of the system were not read".to_owned()));
            tls.map(client).map_err(failed)
        };
        self.client.get_or_try_init(make).await
    }

    /// Sends a request, and gives the answer as soon as its head is there. However long that takes: a model may think.
    ///
    /// # Errors
    /// `gateway.upstream_certificate` when the API is not who it should be; `gateway.upstream_unreachable` for all else.
    pub(crate) async fn send(&self, request: Request<Sending>, to: &Upstream) -> Result<Response<Incoming>, Fault> {
        self.ready().await?.request(request).await.map_err(|e| fault(&e, to))
    }
}

/// Why there is no answer, in words that name the API and hold nothing of the request.
fn fault(error: &hyper_util::client::legacy::Error, to: &Upstream) -> Fault {
    let mut innermost: &(dyn Error + 'static) = error;
    let mut certificate = false;
    loop {
        // An I/O error hides what it holds: its `source` is that of the inner error.
        let held = innermost.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let Some(source) = held.map(|e| e as &(dyn Error + 'static)).or_else(|| innermost.source()) else { break };
        innermost = source;
        certificate |= matches!(innermost.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
    }
    let code = if certificate { Code::GatewayCertificate } else { Code::GatewayUpstream };
    let what = if error.is_connect() { "" } else { "the connection broke: " };
    Fault::new(code).cause(format_args!("{}:{}: {what}{}", to.host, to.port, plain(&innermost.to_string(), 200)))
}

/// TLS as the system wants it.
fn platform() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|e| format!("TLS cannot be used: {e}; install the certificates of your system"))?
        .with_no_client_auth())
}

fn client(tls: ClientConfig) -> Client<Dialer, Sending> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(ALIVE_TIME));
    let dialer = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_MAX)
        .http2_keep_alive_interval(ALIVE_TIME)
        .build(Dialer(dialer.wrap_connector(http)))
}

/// Makes connections, in bounded time.
#[derive(Clone)]
pub(crate) struct Dialer(HttpsConnector<HttpConnector>);

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Dialer {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.0.call(uri);
        Box::pin(async move {
            match timeout(CONNECT_TIME, dial).await {
                Ok(made) => made,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "there was no connection in time").into()),
            }
        })
    }
}
