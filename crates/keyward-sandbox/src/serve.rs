//! The server: loopback HTTP/1.1, routes, timers and the end.
//!
//! Binds 127.0.0.1 or ::1 and nothing else. Prints one line of JSON when it is ready. One thread; nothing is kept but the
//! files of the folder. Called by `keyward-sandbox serve`.

use crate::answer::{Answer, Asked, Body};
use crate::jwt::Alg;
use crate::sandbox::{Choices, Sandbox};
use crate::{
    api, aws, bedrock, control, entra, foundry, google, idp, openai, random_hex, revoke, span, sts, token, vertex,
};
use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::Map;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long nothing is accepted after the system had no socket to spare.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Choices of `serve` on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Loopback address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder for identity-token, client-secret and journal.jsonl; made when it is not there
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// The rule's token_lifetime_seconds, as 60s, 10m or 1h; at most 24h
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span::life)]
    life: Duration,
    /// Take and mint lives under a minute, for tests
    #[arg(long)]
    fast_lives: bool,
    /// From iat to exp of identity tokens; over an hour they are refused
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = span::life)]
    assertion_life: Duration,
    /// How often identity-token is written anew; 0s only at start and when told
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span::any)]
    rotate: Duration,
    /// Identity tokens carry a jti and can be exchanged once each
    #[arg(long)]
    one_time: bool,
    /// How identity tokens are signed
    #[arg(long, default_value = "ES256")]
    alg: Alg,
    /// End when standard input does
    #[arg(long)]
    until_eof: bool,
}

/// Serves until SIGTERM, SIGINT or, when asked for, the end of standard input.
///
/// Fails for an address outside of loopback, for a short life without `--fast-lives`, and when the folder cannot be written.
pub(crate) fn serve(serve: Serve) -> Result<(), String> {
    let ip = serve.listen.ip();
    if ip != IpAddr::V4(Ipv4Addr::LOCALHOST) && ip != IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return Err(format!("{ip} is not loopback; the sandbox listens on 127.0.0.1 or [::1] alone"));
    }
    span::long_enough(serve.life, serve.fast_lives)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let done = runtime.block_on(run(serve));
    // A connection that hangs on purpose must not hold up the end.
    runtime.shutdown_background();
    done
}

async fn run(serve: Serve) -> Result<(), String> {
    let listener = TcpListener::bind(serve.listen).await.map_err(|e| format!("{}: {e}", serve.listen))?;
    let base_url = format!("http://{}", listener.local_addr().map_err(|e| e.to_string())?);
    let folder = std::path::absolute(&serve.folder).map_err(|e| e.to_string())?;
    if folder.to_str().is_none() {
        return Err("the path of --folder is not UTF-8, so that the ready line cannot name it".into());
    }
    let sandbox = Arc::new(Sandbox::open(
        base_url,
        Choices {
            folder,
            life: serve.life,
            fast_lives: serve.fast_lives,
            assertion_life: serve.assertion_life,
            one_time: serve.one_time,
            alg: serve.alg,
        },
    )?);
    let on = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (told, mut eof) = oneshot::channel();
    // Kept when nobody waits for the end of input, so that the channel stays open.
    let _told = if serve.until_eof { watch_stdin(told) } else { Some(told) };
    let line = format!("{}\n", sandbox.ready());
    let printed = std::io::stdout().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush());
    printed.map_err(|e| format!("standard output: {e}"))?;
    let rotated = rotate(&sandbox, serve.rotate);
    tokio::pin!(rotated);
    let done = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(Arc::clone(&sandbox), stream))),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            why = &mut rotated => break Err(why),
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = &mut eof => break Ok(()),
        }
    };
    sandbox.close();
    done
}

/// Reads standard input to its end on a thread of its own, since a read of it cannot be given up.
fn watch_stdin(told: oneshot::Sender<()>) -> Option<oneshot::Sender<()>> {
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while std::io::stdin().read(&mut buffer).is_ok_and(|n| n > 0) {}
        // The server may have ended before.
        let _ = told.send(());
    });
    None
}

/// Writes the identity token anew at each `every`; ends only with a failure.
async fn rotate(sandbox: &Sandbox, every: Duration) -> String {
    if every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(every).await;
        if let Err(e) = sandbox.write_token(&Map::new()) {
            return e;
        }
    }
}

type Sent = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// The answer is a reset.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

async fn connection(sandbox: Arc<Sandbox>, stream: TcpStream) {
    // Pieces have to leave one by one.
    let _ = stream.set_nodelay(true);
    type Answering = Pin<Box<dyn Future<Output = Result<Response<Sent>, Reset>> + Send>>;
    let service = service_fn(move |request| -> Answering { Box::pin(answer(Arc::clone(&sandbox), request)) });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if ended.is_err_and(|e| e.is_user()) {
        // With a linger of zero the close sends RST.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn answer(sandbox: Arc<Sandbox>, request: Request<Incoming>) -> Result<Response<Sent>, Reset> {
    let request_id = format!("req_01{}", random_hex(11).unwrap_or_default());
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body_max = match path.as_str() {
        "/v1/oauth/token" | "/idp/token" => token::BODY_MAX_BYTES,
        path if path.starts_with("/sandbox/") => control::BODY_MAX_BYTES,
        _ => api::BODY_MAX_BYTES,
    };
    let body = Limited::new(body, body_max).collect().await.ok().map(|all| all.to_bytes().to_vec());
    let asked = Asked { method: head.method, path, query, headers: head.headers, body, request_id };
    let answered = match asked.path.as_str() {
        "/v1/oauth/token" => token::exchange(&sandbox, &asked),
        "/idp/token" => idp::token(&sandbox, &asked),
        "/idp/.well-known/openid-configuration" => Ok(idp::discovery(&sandbox)),
        "/idp/jwks" => Ok(idp::jwks(&sandbox)),
        "/sandbox/trap" => control::trap(&sandbox),
        path if path.starts_with("/sandbox/") => control::turn(&sandbox, &asked).await,
        "/oauth/revoke" => revoke::revoke(&sandbox, &asked),
        "/google/token" => google::token(&sandbox, &asked),
        "/google/sts" => google::exchange(&sandbox, &asked),
        path if path.starts_with("/google/iam/") => google::impersonate(&sandbox, &asked),
        sts::STS_PATH => sts::sts(&sandbox, &asked),
        sts::PORTAL_PATH => sts::portal(&sandbox, &asked),
        path if path.starts_with("/computeMetadata/") => google::metadata(&sandbox, &asked),
        path if path.starts_with("/entra/") => entra::token(&sandbox, &asked),
        path if path.starts_with("/latest/") || path == aws::CONTAINER_PATH => aws::keys(&sandbox, &asked),
        path if path.starts_with("/model/") => bedrock::call(&sandbox, &asked),
        path if path.starts_with("/openai/v1/") => openai::call(&sandbox, &asked),
        path if path.starts_with("/anthropic/") => foundry::call(&sandbox, &asked),
        path if path.starts_with("/v1/projects/") => vertex::call(&sandbox, &asked),
        path if path.starts_with("/v1/") => api::call(&sandbox, &asked),
        _ => Ok(Answer::api_error(&asked, 404, "not_found_error", "no such path", "path")),
    };
    let answer = answered.unwrap_or_else(|why| Answer::api_error(&asked, 500, "api_error", &why, "sandbox_failed"));
    let is_reading = matches!(asked.path.as_str(), "/sandbox/stats" | "/sandbox/journal") && answer.status == 200;
    if !is_reading && let Err(e) = sandbox.journal().write(&asked, &answer) {
        let _ = writeln!(std::io::stderr(), "keyward-sandbox: the journal: {e}");
    }
    let date = http_date(sandbox.state().server_now_s());
    send(answer, &asked.request_id, &date).await
}

/// The `date` of an answer (RFC 9110 section 5.6.7), by the clock of the server.
fn http_date(seconds: f64) -> String {
    static DATES: DateTimePrinter = DateTimePrinter::new();
    let at = jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    DATES.timestamp_to_rfc9110_string(&at).unwrap_or_default()
}

async fn send(answer: Answer, request_id: &str, date: &str) -> Result<Response<Sent>, Reset> {
    let body = match answer.body {
        Body::Whole(text) => Either::Left(Full::from(text)),
        Body::Hang => std::future::pending().await,
        Body::Reset => return Err(Reset),
        Body::Pieces(pieces) => {
            let (mut sender, channel) = Channel::new(1);
            tokio::spawn(async move {
                for (after, piece) in pieces {
                    sleep(after).await;
                    // The client has left.
                    if sender.send_data(piece).await.is_err() {
                        return;
                    }
                }
            });
            Either::Right(channel)
        }
    };
    let mut response = Response::builder().status(answer.status).header("content-type", answer.content_type);
    if !answer.headers.iter().any(|(name, _)| *name == "request-id") {
        response = response.header("request-id", request_id);
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.header("date", date).body(body).map_err(|_| Reset)
}
