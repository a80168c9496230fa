//! The bare forwarder: accepts, forwards and streams back with the same crates as the gateway, and does nothing else. It is the
//! floor that the gateway is compared with.

use crate::Failure;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Forwards to one address.
#[derive(Clone)]
pub(crate) struct Forwarder {
    to: String,
    client: Client<HttpConnector, Incoming>,
}

impl Forwarder {
    /// Forwards to `to`, an address with port.
    pub(crate) fn to(to: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(256).build(connector);
        Self { to: to.to_owned(), client }
    }

    /// Sends a request on, and gives the answer as it comes.
    pub(crate) async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failure> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(format!("http://{}{path}", self.to))?;
        request.headers_mut().remove(HOST);
        Ok(self.client.request(request).await?)
    }
}
