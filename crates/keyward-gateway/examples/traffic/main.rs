//! Traffic for `cargo xtask bench`: an API, a bare forwarder, and a client that measures. Loopback only; HTTP/1.1.
//!
//! `traffic api` and `traffic forward ADDRESS` print the port that they serve on 127.0.0.1 and end with their standard input.
//! `traffic measure WHAT …` is the program of a run: it calls the gateway as `ANTHROPIC_BASE_URL` and `ANTHROPIC_AUTH_TOKEN` say,
//! and prints one JSON object. Each part is a process of one thread, as the broker is.

mod api;
mod client;
mod forward;
mod measure;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // A thousand streams take more descriptors than a shell usually allows at first.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments[..] {
        ["api"] => runtime.block_on(serve(api::answer)),
        ["forward", to] => {
            let forwarder = forward::Forwarder::to(to);
            runtime.block_on(serve(move |request| forwarder.clone().answer(request)))
        }
        ["measure", ref what @ ..] => {
            let figures = runtime.block_on(measure::measure(what))?;
            Ok(writeln!(std::io::stdout(), "{figures}")?)
        }
        _ => Err("usage: traffic api | forward ADDRESS | measure WHAT".into()),
    }
}

/// Prints a port of 127.0.0.1 and serves it until standard input ends.
async fn serve<A, F, B>(answer: A) -> Result<(), Failure>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Failure>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    let (ended, mut end) = oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        ended.send(())
    });
    loop {
        let (stream, _) = tokio::select! {
            _ = &mut end => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        stream.set_nodelay(true)?;
        let service = service_fn(answer.clone());
        // A connection that breaks is seen by its client.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
