//! One request: who asks, where it goes, and both ways through.
//!
//! Takes the run token and every other credential off, asks the [`Authority`] what the token opens, checks the call and the
//! process that makes it, notes the use, and only then puts the real credential on. Bodies and trailers pass frame by frame.
//! Header fields that belong to one connection are taken off both ways (RFC 9110 section 7.6.1), the client's own list of them
//! before ours are put on. A redirect is passed on and never followed. `Set-Cookie` is not passed on: cookies of the client are
//! taken off, and one of the upstream may be a credential by itself; neither is `Alt-Svc`, which leads past the gateway. What
//! hands the credential back is taken out of the fields of an answer, and where the credential stands in the query, the page
//! that comes with a redirect is not passed on, since it repeats the address.
//!
//! An answer 401 makes the authority get another credential, once. The request is sent a second time only when that is
//! another one and the body can be repeated: it is empty, it was gathered for a signature, or its length was told, is at most
//! 1 MiB, and it has come whole. All copies for that purpose together take 16 MiB at most; beyond that, and whenever the
//! second answer is 401 too, the client gets the upstream's answer. Called by `server`.

use crate::body::{Answer, Passed, Sending, broken_off};
use crate::echo::{Echo, in_query};
use crate::fence::{self, Coming, Meter};
use crate::path::Target;
use crate::routes::Listed;
use crate::server::{Called, Gateway, Peer};
use crate::shape::Shape;
use crate::{Admitted, Authority, Began, Caller, Denial, End, EndReason, Ended, Held, Placement, RunToken, google};
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, SET_COOKIE, TE, TRAILER,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use jiff::Timestamp;
use keyward_core::{Credential, GOOGLE_TOKEN_PATH, Upstream, sigv4};
use keyward_diag::{Code, Fault, plain};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Longest body that is kept for a second try, in bytes.
const REPEAT_MAX_BYTES: u64 = 1024 * 1024;
/// Longest body that is gathered, to be signed or read at a fence, in bytes.
const GATHER_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Longest request id that is kept, in bytes.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// Longest text about a refused request, in bytes.
const WHAT_MAX_BYTES: usize = 512;
/// The flag that Anthropic wants beside tokens of OAuth.
const OAUTH_FLAG: &str = "oauth-2025-04-20";
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// Calls of a profile that a refusal names.
const CALLS_TOLD: usize = 8;

/// Where the SDKs put their key, and so the run token.
const TOKEN_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// An answer to a client.
pub(crate) type Reply<A> = Response<Answer<A>>;

/// Why a request went nowhere.
struct Refusal {
    fault: Fault,
    shape: Shape,
    /// The lease or the token, as far as they are known, if the refusal is one that is recorded.
    recorded: Option<(Option<Uuid>, Option<RunToken>)>,
    /// The connection ends with the answer.
    closes: bool,
}

impl Refusal {
    /// One that is recorded, of a token that was let in.
    fn denied(fault: Fault, shape: Shape, lease: Uuid) -> Self {
        Self { fault, shape, recorded: Some((Some(lease), None)), closes: false }
    }

    /// One that is recorded, before a token was let in. Which API it is nobody has said.
    fn early(fault: Fault, parts: &Parts, token: Option<RunToken>) -> Self {
        let shape = Shape::guess(parts.uri.path(), &parts.headers);
        Self { fault, shape, recorded: Some((None, token)), closes: false }
    }

    /// One whose cause stands in the log, or belongs in none.
    fn failed(fault: Fault, shape: Shape) -> Self {
        Self { fault, shape, recorded: None, closes: false }
    }

    fn closing(mut self) -> Self {
        self.closes = true;
        self
    }
}

/// Answers a request of a connection of this user.
pub(crate) async fn answer<A: Authority>(
    gateway: &Gateway<A>,
    peer: &Arc<Peer>,
    request: Request<Incoming>,
) -> Reply<A> {
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::POST && parts.uri.path() == GOOGLE_TOKEN_PATH {
        return google::exchange(gateway, peer, &parts, body).await;
    }
    match pass(gateway, peer, &mut parts, body, began).await {
        Ok(reply) => reply,
        Err(refusal) => {
            let reply = ours(refusal.shape.answer(&refusal.fault), refusal.closes);
            if let Some((lease, token)) = refusal.recorded {
                let what = what(&parts);
                gateway.authority.denied(Denial { lease, token, fault: refusal.fault, what });
            }
            reply
        }
    }
}

/// Answers a request that must not be read: the connection ends with the answer.
pub(crate) fn malformed<A: Authority>(gateway: &Gateway<A>, fault: Fault) -> Reply<A> {
    let reply = ours(Shape::Generic.answer(&fault), true);
    gateway.authority.denied(Denial { lease: None, token: None, fault, what: String::new() });
    reply
}

fn ours<A: Authority>(answer: Response<String>, closes: bool) -> Reply<A> {
    let mut reply = answer.map(|text| Answer::Ours(Some(Bytes::from(text))));
    if closes {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// Method and path, printable and bounded.
fn what(parts: &Parts) -> String {
    let mut text = plain(&format!("{} {}", parts.method, parts.uri.path()), WHAT_MAX_BYTES);
    while text.len() > WHAT_MAX_BYTES {
        text.pop();
    }
    text
}

async fn pass<A: Authority>(
    gateway: &Gateway<A>,
    peer: &Arc<Peer>,
    parts: &mut Parts,
    body: Incoming,
    began: Instant,
) -> Result<Reply<A>, Refusal> {
    let local = local(&parts.headers, &peer.host).and_then(|()| run_token(&parts.headers));
    let token = local.map_err(|fault| Refusal::early(fault, parts, None))?;
    let admitted = gateway.authority.admit(token).await.map_err(|fault| Refusal::early(fault, parts, Some(token)))?;
    let shape = admitted.route.errors;
    let denied = |fault| Refusal::denied(fault, shape, admitted.lease);
    let failed = |fault| Refusal::failed(fault, shape);

    let raw = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let own = match &admitted.placement {
        Placement::Query(name) => Some(name.as_str()),
        _ => None,
    };
    let target = Target::parse(raw, admitted.route, own).map_err(denied)?;
    let beyond = match admitted.route.lists(parts.method.as_str(), &target, &admitted.only) {
        Listed::Yes => None,
        Listed::Beyond(call) => Some(call),
        Listed::No => {
            let fault = Fault::new(Code::GatewayNotAllowed).cause(format_args!("{} {}", parts.method, target.path()));
            return Err(denied(fault.cause(passing(&admitted.only))));
        }
    };
    let (caller, program) = caller(gateway, peer, &admitted).await.map_err(|fault| denied(fault).closing())?;

    let mut cut = Box::pin(cut(admitted.ended.clone()));
    let (body, meter) = if admitted.fence.is_none() && beyond.is_none() {
        (Coming::Passing(body), None)
    } else {
        let request = (&parts.method, &target, &parts.headers);
        tokio::select! {
            biased;
            ended = &mut cut => return Err(failed(over(ended))),
            passed = fence::pass(gateway, &admitted, beyond.as_deref(), request, body) => passed.map_err(denied)?,
        }
    };
    let held = gateway.authority.credential(admitted.lease, None).await.map_err(failed)?;
    let upstream = admitted.upstream.clone();
    let mut headers = cleaned(std::mem::take(&mut parts.headers), upstream.tls);
    if meter.is_some() {
        // What is coded cannot be counted as it passes.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let outgoing = Outgoing {
        method: parts.method.clone(),
        path: format!("{}{}", upstream.base, target.path()),
        query: target.query().map(str::to_owned),
        headers,
        placement: admitted.placement,
        upstream,
    };
    let (passed, first) = tokio::select! {
        biased;
        ended = &mut cut => return Err(failed(over(ended))),
        taken = taken(gateway, body, matches!(outgoing.placement, Placement::SigV4 { .. })) => taken.map_err(failed)?,
    };
    if let Some(ended) = *admitted.ended.borrow() {
        return Err(failed(over(ended)));
    }

    let noted = Began {
        lease: admitted.lease,
        caller,
        program,
        method: outgoing.method.to_string(),
        host: outgoing.upstream.host.clone(),
        path: outgoing.path.clone(),
    };
    let number = gateway.authority.began(noted).map_err(failed)?;
    let mut r#use = Use {
        authority: gateway.authority.clone(),
        peer: peer.clone(),
        ended: admitted.ended,
        number,
        began,
        passed,
        end: None,
        status: 0,
        request_id: None,
        received: 0,
        meter,
    };
    let exchange = exchange(gateway, admitted.lease, &outgoing, held, first, r#use.passed.as_deref());
    let answer = tokio::select! {
        biased;
        ended = &mut cut => Err(over(ended)),
        answer = exchange => answer,
    };
    let (answer, echo) = match answer {
        Ok(answer) => answer,
        Err(fault) => {
            let malformed = fault.code == Code::GatewayRequest;
            if !malformed {
                r#use.broken();
            }
            let reply = shape.answer(&fault);
            r#use.status = reply.status().as_u16();
            return Ok(ours(reply, malformed));
        }
    };
    let (mut head, body) = answer.into_parts();
    head.version = Version::HTTP_11;
    head.extensions.clear();
    echo.clear(&mut head.headers);
    r#use.status = head.status.as_u16();
    r#use.request_id = request_id(&head.headers);
    if let Some(meter) = &mut r#use.meter {
        meter.head(&head.headers);
    }
    take_connection_fields(&mut head.headers);
    head.headers.remove(SET_COOKIE);
    head.headers.remove(ALT_SVC);
    if head.status.is_redirection() && matches!(outgoing.placement, Placement::Query(_)) {
        r#use.whole();
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, TRAILER] {
            head.headers.remove(name);
        }
        return Ok(Response::from_parts(head, Answer::Ours(None)));
    }
    if body.is_end_stream() {
        r#use.whole();
    }
    peer.under_way(Some(r#use.ended.clone()));
    Ok(Response::from_parts(head, Answer::Passing { body, r#use, echo, cut }))
}

/// What would be let through, in words.
fn passing(only: &[String]) -> String {
    match only {
        [] => "the list of this API, by which the profile goes, does not have it".to_owned(),
        [first @ .., last] if only.len() <= CALLS_TOLD => {
            let first: String = first.iter().map(|call| format!("{call}, ")).collect();
            format!("the profile lets through: {first}{last}")
        }
        more => format!("the profile lets through {} other calls, such as {}", more.len(), more[0]),
    }
}

/// The request comes from a program that calls the address it was given, and not from a web page.
///
/// # Errors
/// `gateway.cross_site`.
pub(crate) fn local(headers: &HeaderMap, host: &str) -> Result<(), Fault> {
    let mut hosts = headers.get_all(HOST).iter();
    if hosts.next().is_none_or(|value| value.as_bytes() != host.as_bytes()) || hosts.next().is_some() {
        return Err(Fault::new(Code::GatewayCrossSite).cause(format_args!("`Host` is not {host}")));
    }
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Fault::new(Code::GatewayCrossSite).cause("it has `Origin` or `Sec-Fetch-Site`"));
    }
    Ok(())
}

/// The run token of a request. What has not the form of one is passed over.
fn run_token(headers: &HeaderMap) -> Result<RunToken, Fault> {
    let mut found = None;
    for name in &TOKEN_HEADERS {
        for value in headers.get_all(name) {
            let text = if name == AUTHORIZATION { after_scheme(value.as_bytes()) } else { value.as_bytes() };
            let Some(token) = RunToken::of(text.trim_ascii()) else { continue };
            if found.is_some_and(|found| found != token) {
                return Err(Fault::new(Code::GatewayToken).cause("it has two run tokens that are not the same"));
            }
            found = Some(token);
        }
    }
    found.ok_or_else(|| {
        let fault = Fault::new(Code::GatewayToken);
        match TOKEN_HEADERS.iter().find(|name| headers.contains_key(*name)) {
            Some(name) => fault.cause(format_args!("what it sends in `{name}` is no run token")),
            None => fault.cause("none was sent"),
        }
    })
}

/// What follows the scheme `Bearer` (RFC 6750 section 2.1), or `token`, which clients of GitHub write; of a signature of AWS
/// the access key, since its SDKs send no bearer token without TLS. Such a signature counts for nothing: it was made with the
/// run token, which is all that the client has.
fn after_scheme(value: &[u8]) -> &[u8] {
    let at = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(at);
    if scheme.eq_ignore_ascii_case(b"AWS4-HMAC-SHA256") {
        let key = rest.split(|b| *b == b',').find_map(|part| part.trim_ascii().strip_prefix(b"Credential="));
        return key.and_then(|key| key.split(|b| *b == b'/').next()).unwrap_or_default();
    }
    let known = scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"token");
    if known { rest } else { b"" }
}

/// Which process of the run calls, looked up at the first request of a connection.
async fn caller<A: Authority>(gateway: &Gateway<A>, peer: &Peer, admitted: &Admitted) -> Result<Called, Fault> {
    if let Some(called) = peer.caller(admitted.root) {
        return Ok(called);
    }
    let found = gateway.look(admitted.root, peer.connection).await;
    let outside = || Fault::new(Code::GatewayCaller).cause("no process of the run holds the connection");
    let called = found.or_else(|| admitted.containers.then_some((Caller::Unknown, None))).ok_or_else(outside)?;
    peer.remember(admitted.root, called.clone());
    Ok(called)
}

/// Resolves when what is under way is to be cut. A lease of which nothing more can be heard is over.
async fn cut(mut ended: watch::Receiver<Option<Ended>>) -> Ended {
    loop {
        match *ended.borrow_and_update() {
            Some(Ended::Expired) => {}
            Some(ended) => return ended,
            None => {}
        }
        if ended.changed().await.is_err() {
            match *ended.borrow() {
                Some(Ended::Expired) => {}
                Some(ended) => return ended,
                None => return Ended::Released,
            }
            return std::future::pending().await;
        }
    }
}

/// What a client is told whose lease ended while it asked.
fn over(ended: Ended) -> Fault {
    Fault::new(match ended {
        Ended::Expired => Code::LeaseExpired,
        Ended::Revoked => Code::LeaseRevoked,
        Ended::Released => Code::LeaseOver,
    })
}

/// All of a request that is the same at each try.
struct Outgoing {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    placement: Placement,
    upstream: Arc<Upstream>,
}

/// Sends a request, a second time when it must and can be. Gives the answer, and by what it would hand the credential back.
async fn exchange<A: Authority>(
    gateway: &Gateway<A>,
    lease: Uuid,
    outgoing: &Outgoing,
    mut held: Held,
    mut body: Sending,
    passed: Option<&Passed>,
) -> Result<(Response<Incoming>, Echo), Fault> {
    let mut refused_once = false;
    loop {
        let request = request(outgoing, &held.credential, body)?;
        let echo = Echo::new(held.credential.clone(), &outgoing.placement, request.headers());
        let answer = gateway.upstream.send(request, &outgoing.upstream).await;
        // The API is not to blame for a body that did not come.
        let answer = answer.map_err(|fault| passed.and_then(Passed::broke).cloned().unwrap_or(fault))?;
        // The copy goes as soon as the answer shows that it will not be needed.
        let copy = passed.map_or_else(|| Some(VecDeque::new()), Passed::take);
        if refused_once || !is_refused(&answer, &outgoing.placement) {
            return Ok((answer, echo));
        }
        let another = gateway.authority.credential(lease, Some(held.edition)).await?;
        match copy {
            Some(pieces) if another.edition != held.edition => body = Sending::Pieces(pieces),
            _ => return Ok((answer, echo)),
        }
        held = another;
        refused_once = true;
    }
}

/// Whether the upstream does not take the credential any more. AWS says 403 of a session that is over.
fn is_refused(answer: &Response<Incoming>, placement: &Placement) -> bool {
    let expired = || {
        let kind = answer.headers().get("x-amzn-errortype");
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"ExpiredToken"))
    };
    match answer.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => matches!(placement, Placement::SigV4 { .. }) && expired(),
        _ => false,
    }
}

/// Makes the request that goes out.
fn request(outgoing: &Outgoing, credential: &Credential, body: Sending) -> Result<Request<Sending>, Fault> {
    let Upstream { tls, host, port, .. } = &*outgoing.upstream;
    let mut headers = outgoing.headers.clone();
    let odd = || Fault::new(Code::IssuerAnswer).cause("it holds what cannot stand in a header");
    let mut query = outgoing.query.clone().unwrap_or_default();
    let usual = *port == if *tls { 443 } else { 80 };
    let authority = if usual { host.clone() } else { format!("{host}:{port}") };
    match &outgoing.placement {
        Placement::Bearer | Placement::BearerOauth => {
            headers.insert(AUTHORIZATION, secret_value("Bearer ", credential).ok_or_else(odd)?);
            if outgoing.placement == Placement::BearerOauth {
                add_flag(&mut headers);
            }
        }
        Placement::Header(name, prefix) => {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| odd())?;
            headers.insert(name, secret_value(prefix, credential).ok_or_else(odd)?);
        }
        Placement::Query(name) => {
            // EXPOSE: it goes into the query, where the API wants it.
            let pair = credential.token.expose(|bytes| Zeroizing::new(format!("{name}={}", &*in_query(bytes))));
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(&pair);
        }
        Placement::SigV4 { service, region } => {
            let mut digest = Sha256::new();
            if let Sending::Pieces(pieces) = &body {
                pieces.iter().for_each(|piece| digest.update(piece));
            }
            let signed = sigv4::Request {
                method: outgoing.method.as_str(),
                host: &authority,
                path: &outgoing.path,
                query: outgoing.query.as_deref(),
                body: digest.finalize().into(),
            };
            sigv4::sign(&credential.token, (service, region), &signed, &mut headers, Timestamp::now())
                .map_err(|why| Fault::new(Code::IssuerAnswer).cause(why))?;
        }
    }
    let scheme = if *tls { "https" } else { "http" };
    let mark = if query.is_empty() { "" } else { "?" };
    let uri = Uri::try_from(format!("{scheme}://{authority}{}{mark}{query}", outgoing.path))
        .map_err(|_| Fault::new(Code::GatewayPath).cause("it is too long"))?;
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A header value with the credential in it, wiped when it is dropped. `None` when it holds what a header cannot.
fn secret_value(prefix: &str, credential: &Credential) -> Option<HeaderValue> {
    // EXPOSE: it goes into the header of one request.
    let text = credential.token.expose(|bytes| Zeroizing::new([prefix.as_bytes(), bytes].concat()));
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Adds the flag of OAuth to those that the client asks for, unless it is one of them.
fn add_flag(headers: &mut HeaderMap) {
    let mut flags = Vec::new();
    for value in headers.get_all(BETA) {
        if !flags.is_empty() {
            flags.push(b',');
        }
        flags.extend_from_slice(value.as_bytes());
    }
    if flags.split(|b| *b == b',').any(|flag| flag.trim_ascii() == OAUTH_FLAG.as_bytes()) {
        return;
    }
    if !flags.is_empty() {
        flags.push(b',');
    }
    flags.extend_from_slice(OAUTH_FLAG.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&flags) {
        headers.insert(BETA, value);
    }
}

/// Whether a field of a request carries a credential, or what stands beside one in signed requests.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "cookie2"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "x-goog-iam-authorization-token"
            | "x-auth-token"
            | "x-access-token"
            | "private-token"
            | "job-token"
            | "ocp-apim-subscription-key"
            | "x-amz-security-token"
            | "x-amz-date"
            | "x-amz-content-sha256"
            | "x-amz-access-token"
            | "x-amz-region-set"
            | "x-amz-s3session-token"
            | "x-ms-authorization-auxiliary"
    )
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1), besides those that `Connection` names. `Expect` is met here:
/// the client is told to go on when its body is asked for, which is once the connection to the upstream stands, or where it is
/// gathered for a signature or a fence, once the request was let through (section 10.1.1).
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Takes off the fields that belong to one connection.
fn take_connection_fields(headers: &mut HeaderMap) {
    let mut names: Vec<HeaderName> = headers.keys().filter(|name| is_of_connection(name)).cloned().collect();
    for value in headers.get_all(CONNECTION) {
        let listed = value.as_bytes().split(|b| *b == b',');
        names.extend(listed.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
    }
    for name in names {
        headers.remove(name);
    }
}

/// The fields of a request that go on: without credentials, without `Host`, which is the upstream's, and without those of the
/// client's connection. `TE: trailers` is said anew; `Connection: te` with it (RFC 9110 section 10.1.4) only where HTTP/2 is
/// ruled out, which has no such field (RFC 9113 section 8.2.2).
fn cleaned(mut headers: HeaderMap, may_be_http2: bool) -> HeaderMap {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    take_connection_fields(&mut headers);
    let taken = |name: &HeaderName, value: &HeaderValue| {
        is_credential(name) || name == HOST || value.as_bytes().starts_with(RunToken::PREFIX.as_bytes())
    };
    let names: Vec<HeaderName> =
        headers.iter().filter(|(name, value)| taken(name, value)).map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if !may_be_http2 {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    headers
}

/// The first request id of an answer that can be printed.
fn request_id(headers: &HeaderMap) -> Option<String> {
    ["request-id", "x-request-id", "x-amzn-requestid", "x-github-request-id"].iter().find_map(|name| {
        let text = headers.get(*name)?.to_str().ok()?;
        (1..=REQUEST_ID_MAX_BYTES).contains(&text.len()).then(|| text.to_owned())
    })
}

/// Takes the body of a request, as it is to be sent.
async fn taken<A: Authority>(
    gateway: &Gateway<A>,
    body: Coming,
    signed: bool,
) -> Result<(Option<Arc<Passed>>, Sending), Fault> {
    let gathered = |pieces: VecDeque<Bytes>, room| {
        let passed = Passed::gathered(pieces.clone(), room);
        (Some(Arc::new(passed)), Sending::Pieces(pieces))
    };
    let body = match body {
        Coming::Passing(body) => body,
        Coming::Here(bytes, room) => return Ok(gathered(VecDeque::from([bytes]), room)),
    };
    if body.is_end_stream() {
        return Ok((None, Sending::Pieces(VecDeque::new())));
    }
    if signed {
        let (pieces, room) = whole(&gateway.gathering, body).await?;
        return Ok(gathered(pieces, room));
    }
    let short = body.size_hint().exact().filter(|length| *length <= REPEAT_MAX_BYTES);
    let passed = match short.and_then(|length| Some((length, share(&gateway.copies, length)?))) {
        Some((length, room)) => Passed::keeping(length, room),
        None => Passed::default(),
    };
    let passed = Arc::new(passed);
    Ok((Some(passed.clone()), Sending::Passing(body, passed)))
}

/// Reads a body whole, with a share of the room in bytes that all such bodies have.
///
/// # Errors
/// `busy` when there is no room; those of [`gather`].
pub(crate) async fn whole(
    room: &Arc<tokio::sync::Semaphore>,
    body: Incoming,
) -> Result<(VecDeque<Bytes>, OwnedSemaphorePermit), Fault> {
    let most = body.size_hint().exact().unwrap_or(GATHER_MAX_BYTES);
    if most > GATHER_MAX_BYTES {
        return Err(Fault::new(Code::GatewayBody));
    }
    let full = || Fault::new(Code::Busy).cause("too many large requests are being read");
    let mut room = share(room, most).ok_or_else(full)?;
    let pieces = gather(body, most).await?;
    // It may be held while a person is asked, so what is not needed goes back.
    let length: usize = pieces.iter().map(Bytes::len).sum();
    drop(room.split(room.num_permits().saturating_sub(length)));
    Ok((pieces, room))
}

/// A share of a room of bytes, if there is so much left.
fn share(room: &Arc<tokio::sync::Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
    room.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// Reads a body of at most `most` bytes whole.
///
/// # Errors
/// `gateway.body_too_large`; `gateway.request_malformed` when it is malformed or breaks off.
pub(crate) async fn gather(body: Incoming, most: u64) -> Result<VecDeque<Bytes>, Fault> {
    let mut body = pin!(body);
    let mut pieces = VecDeque::new();
    let mut left = most;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|e| broken_off(&e))?;
        if let Ok(data) = frame.into_data() {
            left = left.checked_sub(data.len() as u64).ok_or_else(|| Fault::new(Code::GatewayBody))?;
            pieces.push_back(data);
        }
    }
    Ok(pieces)
}

/// A use that was noted: its end is noted once, when this is dropped.
pub(crate) struct Use<A: Authority> {
    authority: Arc<A>,
    peer: Arc<Peer>,
    ended: watch::Receiver<Option<Ended>>,
    number: u64,
    began: Instant,
    passed: Option<Arc<Passed>>,
    /// Why it ended, as far as is known; who dropped it early decides otherwise.
    end: Option<EndReason>,
    status: u16,
    request_id: Option<String>,
    received: u64,
    /// Counts what it costs.
    meter: Option<Box<Meter>>,
}

impl<A: Authority> Use<A> {
    /// Counts bytes of the answer.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        if let Some(meter) = &mut self.meter {
            meter.data(bytes);
        }
    }

    /// The answer has come whole.
    pub(crate) fn whole(&mut self) {
        self.end = Some(EndReason::Whole);
    }

    /// The upstream broke off.
    pub(crate) fn broken(&mut self) {
        self.end = Some(EndReason::Upstream);
    }
}

impl<A: Authority> Drop for Use<A> {
    fn drop(&mut self) {
        self.peer.under_way(None);
        let reason = match self.end {
            Some(EndReason::Whole) => EndReason::Whole,
            _ if is_cut(&self.ended) => EndReason::Cut,
            known => known.unwrap_or(EndReason::Client),
        };
        let sent = self.passed.as_ref().map_or(0, |passed| passed.bytes());
        // An error costs nothing; a request whose client did not wait for the answer does.
        let costs = matches!(self.status, 0 | 200..=299);
        let usd = self.meter.as_ref().filter(|_| costs).map(|meter| meter.cost(sent, self.received));
        let end = End {
            status: self.status,
            request_id: self.request_id.take(),
            sent,
            received: self.received,
            took: self.began.elapsed(),
            reason,
            usd,
        };
        self.authority.ended(self.number, end);
    }
}

/// Whether what is under way is to be cut.
pub(crate) fn is_cut(ended: &watch::Receiver<Option<Ended>>) -> bool {
    match *ended.borrow() {
        Some(ended) => ended != Ended::Expired,
        None => ended.has_changed().is_err(),
    }
}

/// What resolves when a body is to be cut.
pub(crate) type Cut = Pin<Box<dyn Future<Output = Ended> + Send>>;
