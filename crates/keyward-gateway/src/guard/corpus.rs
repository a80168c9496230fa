//! Raw requests through the guard and the server behind it, against a reading of RFC 9112 that shares no code with either.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

/// What one request of a connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Request {
        method: String,
        target: String,
        fields: Fields,
        body: Vec<u8>,
        trailers: Fields,
    },
    /// The head was refused.
    Refused,
    /// The head was good, the body was not, or was cut off.
    Broken {
        method: String,
        target: String,
    },
}

/// Names in small letters and values, in the order of the names.
type Fields = Vec<(String, Vec<u8>)>;

/// How a connection is expected to end after its good requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Refused,
    Broken,
}
use End::{Broken, Clean, Refused};

/// A client that sends pieces, one a read, and closes its side.
struct Client {
    pieces: VecDeque<Vec<u8>>,
    got: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.got.lock().unwrap().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn pieces(bytes: &[u8], cuts: &[usize]) -> VecDeque<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).filter(|w| w[0] < w[1]).map(|w| bytes[w[0]..w[1]].to_vec()).collect()
}

fn fields(map: &hyper::HeaderMap) -> Fields {
    let mut fields: Fields =
        map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

/// Runs a connection through guard and server. Gives what the service saw, and what the client got.
fn serve(bytes: &[u8], cuts: &[usize]) -> (Vec<Seen>, String) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let guard = Guard::new(Client { pieces: pieces(bytes, cuts), got: got.clone() });
    let heads = guard.heads();
    let noted = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (verdict, noted) = (heads.next(), noted.clone());
        async move {
            let note = |one| noted.lock().unwrap().push(one);
            let mut answer = Response::new(Empty::<Bytes>::new());
            if verdict.is_err() {
                note(Seen::Refused);
                *answer.status_mut() = StatusCode::BAD_REQUEST;
                return Ok::<_, Infallible>(answer);
            }
            let (parts, body) = request.into_parts();
            assert!(parts.uri.scheme().is_none() && parts.uri.authority().is_none());
            let (method, target) = (parts.method.to_string(), parts.uri.path_and_query().unwrap().to_string());
            note(match body.collect().await {
                Ok(body) => {
                    let trailers = body.trailers().map(fields).unwrap_or_default();
                    let body = body.to_bytes().to_vec();
                    Seen::Request { method, target, fields: fields(&parts.headers), body, trailers }
                }
                Err(_) => Seen::Broken { method, target },
            });
            Ok(answer)
        }
    });
    // The clock stands still unless nothing can go on, so that a connection which hangs fails at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let connection =
            hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(guard), service);
        let ended = tokio::time::timeout(Duration::from_secs(60), connection).await;
        assert!(ended.is_ok(), "the connection hangs: {}", bytes.escape_ascii());
    });
    let seen = seen.lock().unwrap().clone();
    let got = String::from_utf8(got.lock().unwrap().clone()).unwrap();
    (seen, got)
}

/// Reads a whole connection by the words of RFC 9112, more strictly where the guard says so.
fn reference(mut rest: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let Some((head, after)) = cut(rest, "\r\n\r\n").filter(|(head, _)| head.len() + 4 <= 65_536) else {
            let text = latin(rest).replace("\r\n", "");
            let text = text.strip_suffix('\r').filter(|_| !rest.ends_with(b"\r\n")).unwrap_or(&text);
            if rest.len() >= 65_536 || text.contains(['\r', '\n']) || !rest[0].is_ascii_uppercase() {
                seen.push(Seen::Refused);
            }
            return seen;
        };
        let Some((method, target, names)) = reference_head(&latin(head)) else {
            seen.push(Seen::Refused);
            return seen;
        };
        let of = |wanted: &str| names.iter().find(|(name, _)| name == wanted).map(|(_, value)| latin(value));
        let whole = match (of("content-length"), of("transfer-encoding")) {
            (Some(length), _) => length.parse().ok().and_then(|length: usize| {
                after.split_at_checked(length).map(|(body, after)| (body.to_vec(), Vec::new(), after))
            }),
            (None, Some(_)) => reference_chunks(after),
            (None, None) => Some((Vec::new(), Vec::new(), after)),
        };
        let Some((body, trailers, after)) = whole else {
            seen.push(Seen::Broken { method, target });
            return seen;
        };
        let close = names.iter().any(|(name, value)| {
            name == "connection"
                && value.is_ascii()
                && latin(value).split(',').any(|word| word.trim().eq_ignore_ascii_case("close"))
        });
        seen.push(Seen::Request { method, target, fields: names, body, trailers });
        if close {
            return seen;
        }
        rest = after;
    }
    seen
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn cut<'a>(bytes: &'a [u8], at: &str) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|w| w == at.as_bytes())?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

fn reference_head(head: &str) -> Option<(String, String, Fields)> {
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return None;
    }
    let (line, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let methods = !method.is_empty() && method.len() < 17 && method.chars().all(|c| c.is_ascii_uppercase());
    if !methods || method == "CONNECT" || method == "TRACE" {
        return None;
    }
    if !target.starts_with('/') || target.contains(|c: char| !c.is_ascii_graphic() || "\"#<>\\`".contains(c)) {
        return None;
    }
    let fields = reference_fields(rest, 100)?;
    let all =
        |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, v)| latin(v)).collect::<Vec<_>>();
    let (hosts, lengths, codings) = (all("host"), all("content-length"), all("transfer-encoding"));
    let host = hosts.len() == 1 && !hosts[0].is_empty() && !hosts[0].contains([' ', '\t', ',']);
    let length = lengths.iter().all(|l| {
        (l == "0" || !l.starts_with('0')) && (1..20).contains(&l.len()) && l.chars().all(|c| c.is_ascii_digit())
    });
    let framing = lengths.len() + codings.len() <= 1 && length && codings.iter().all(|c| c == "chunked");
    let others = ["upgrade"].iter().chain(OVERRIDES).all(|name| all(name).is_empty());
    (host && framing && others).then(|| (method.to_owned(), target.to_owned(), fields))
}

fn reference_fields(text: &str, most: usize) -> Option<Fields> {
    let mut fields = Fields::new();
    for line in text.split("\r\n").filter(|_| !text.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty()
            || !name.chars().all(token)
            || value.contains(|c: char| (c < ' ' && c != '\t') || c == '\u{7f}')
        {
            return None;
        }
        let value = value.trim_matches([' ', '\t']).chars().map(|c| u8::try_from(c).unwrap()).collect();
        fields.push((name.to_ascii_lowercase(), value));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    (fields.len() <= most).then_some(fields)
}

fn reference_chunks(mut rest: &[u8]) -> Option<(Vec<u8>, Fields, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, after) = cut(rest, "\r\n")?;
        let size = latin(size);
        let digits = (1..17).contains(&size.len()) && size.chars().all(|c| c.is_ascii_hexdigit());
        if !digits || (size.starts_with('0') && size != "0") {
            return None;
        }
        if size == "0" {
            if let Some(after) = after.strip_prefix(b"\r\n") {
                return Some((body, Fields::new(), after));
            }
            let (text, after) = cut(after, "\r\n\r\n").filter(|(text, _)| text.len() + 4 <= 8192)?;
            let text = latin(text);
            if text.replace("\r\n", "").contains(['\r', '\n']) {
                return None;
            }
            let fields = reference_fields(&text, 32)?;
            return (!fields.iter().any(|(name, _)| NOT_TRAILERS.iter().chain(OVERRIDES).any(|not| not == name)))
                .then_some((body, fields, after));
        }
        let (chunk, after) = after.split_at_checked(usize::from_str_radix(&size, 16).ok()?)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

const HOST: &str = "Host: 127.0.0.1:4321\r\n";

/// A request without a body.
fn get(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\n{HOST}{fields}\r\n").into_bytes()
}

/// A request with a body as it stands on the wire.
fn post(fields: &str, body: &str) -> Vec<u8> {
    [&get("POST /v1/messages HTTP/1.1", fields)[..], body.as_bytes()].concat()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// Raw connections, how many good requests each has, and how it ends after them.
fn corpus() -> Vec<(Vec<u8>, usize, End)> {
    let raw = |text: &str| text.as_bytes().to_vec();
    let target = |target: &str| get(&format!("GET {target} HTTP/1.1"), "");
    let good = get("GET / HTTP/1.1", "");
    let mut all = vec![
        // Good ones.
        (good.clone(), 1, Clean),
        (get("HEAD /v1/models HTTP/1.1", ""), 1, Clean),
        (get("OPTIONS /v1/models HTTP/1.1", ""), 1, Clean),
        (get("ABCDEFGHIJKLMNOP / HTTP/1.1", ""), 1, Clean),
        (target("/a?b=c&d=%20"), 1, Clean),
        (target("/?"), 1, Clean),
        (target("/a/b;c=d/e:f@g!$&'()*+,="), 1, Clean),
        (target("/a?[]{}|^"), 1, Clean),
        (target("//a/..//%2f"), 1, Clean),
        (get("GET / HTTP/1.1", "A: b\r\nA: c\r\nB:\r\nC: \t d \t\r\n"), 1, Clean),
        (get("GET / HTTP/1.1", "!#$%&'*+-.^_`|~09azAZ: \"quoted, (text)\"\r\n"), 1, Clean),
        (get("GET / HTTP/1.1", "Connection: keep-alive, x\r\nTE: trailers\r\n"), 1, Clean),
        (get("GET / HTTP/1.1", "Content-Length: 0\r\n"), 1, Clean),
        (post("Content-Length: 5\r\n", "hello"), 1, Clean),
        (post("content-length:5\r\n", "hello"), 1, Clean),
        (post("CONTENT-LENGTH: \t5 \t\r\n", "hello"), 1, Clean),
        (post("Content-Length: 10\r\n", "\r\n\r\nGET / H"), 1, Clean),
        (post("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"), 1, Clean),
        (chunked("0\r\n\r\n"), 1, Clean),
        (chunked("5\r\nhello\r\n0\r\n\r\n"), 1, Clean),
        (chunked("A\r\n0123456789\r\na\r\n\r\n0\r\n\r\n123\r\n0\r\n\r\n"), 1, Clean),
        (chunked("5\r\nhello\r\n0\r\nChecksum: abc\r\nSigned:  x \r\n\r\n"), 1, Clean),
        (post("TRANSFER-ENCODING:chunked\r\nTrailer: checksum\r\n", "1\r\na\r\n0\r\nChecksum: b\r\n\r\n"), 1, Clean),
        // Several on one connection.
        ([&good[..], &good, &good].concat(), 3, Clean),
        ([post("Content-Length: 3\r\n", "abc"), good.clone()].concat(), 2, Clean),
        ([chunked("3\r\nabc\r\n0\r\n\r\n"), good.clone()].concat(), 2, Clean),
        ([chunked("0\r\nA: b\r\n\r\n"), post("Content-Length: 1\r\n", "x"), good.clone()].concat(), 3, Clean),
        ([get("GET / HTTP/1.1", "Connection: close\r\n"), good.clone()].concat(), 1, Clean),
        ([good.clone(), raw("GET /x HTTP/1.1\r\n\r\n")].concat(), 1, Refused),
        ([post("Content-Length: 3\r\n", "abcd"), good.clone()].concat(), 1, Refused),
        ([post("Content-Length: 3\r\n", "abc\r\n"), good.clone()].concat(), 1, Refused),
        ([chunked("0\r\n\r\n\r\n"), good.clone()].concat(), 1, Refused),
        ([good.clone(), chunked("x\r\n")].concat(), 1, Broken),
        ([good.clone(), raw("\r\n"), good.clone()].concat(), 1, Refused),
        // Cut off.
        (raw(""), 0, Clean),
        (raw("GET / HT"), 0, Clean),
        (raw("GET / HTTP/1.1\r\nHost: a\r\n"), 0, Clean),
        (raw("GET / HTTP/1.1\r\nHost: a\r\n\r"), 0, Clean),
        (post("Content-Length: 6\r\n", "hello"), 0, Broken),
        (post("Content-Length: 9999999999999999999\r\n", "hello"), 0, Broken),
        (chunked(""), 0, Broken),
        (chunked("5\r\nhello"), 0, Broken),
        (chunked("5\r\nhello\r\n"), 0, Broken),
        (chunked("5\r\nhello\r\n0\r\n"), 0, Broken),
        (chunked("5\r\nhello\r\n0\r\nA: b\r\n"), 0, Broken),
        // Request lines.
        (raw("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0, Refused),
        (raw("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0, Refused),
        (get(" GET / HTTP/1.1", ""), 0, Refused),
        (get("GET  / HTTP/1.1", ""), 0, Refused),
        (get("GET /  HTTP/1.1", ""), 0, Refused),
        (get("GET / HTTP/1.1 ", ""), 0, Refused),
        (get("GET\t/ HTTP/1.1", ""), 0, Refused),
        (get("GET /", ""), 0, Refused),
        (get("GET", ""), 0, Refused),
        (get("GET / HTTP/1.0", ""), 0, Refused),
        (get("GET / HTTP/0.9", ""), 0, Refused),
        (get("GET / HTTP/1.2", ""), 0, Refused),
        (get("GET / HTTP/2.0", ""), 0, Refused),
        (get("GET / HTTP/1.1x", ""), 0, Refused),
        (get("GET / HTTP/11", ""), 0, Refused),
        (get("GET / http/1.1", ""), 0, Refused),
        (get("get / HTTP/1.1", ""), 0, Refused),
        (get("GeT / HTTP/1.1", ""), 0, Refused),
        (get("M-SEARCH / HTTP/1.1", ""), 0, Refused),
        (get("ABCDEFGHIJKLMNOPQ / HTTP/1.1", ""), 0, Refused),
        (get("CONNECT api.example:443 HTTP/1.1", ""), 0, Refused),
        (get("CONNECT / HTTP/1.1", ""), 0, Refused),
        (get("TRACE / HTTP/1.1", ""), 0, Refused),
        (raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0, Refused),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 0, Refused),
        (raw("SSH-2.0-x\r\n\r\n"), 0, Refused),
        (raw("\r\nHo"), 0, Refused),
        // Targets.
        (target("http://127.0.0.1:4321/v1/messages"), 0, Refused),
        (target("https://api.example/"), 0, Refused),
        (target("127.0.0.1:4321"), 0, Refused),
        (target("v1/messages"), 0, Refused),
        (get("OPTIONS * HTTP/1.1", ""), 0, Refused),
        (target("?a=b"), 0, Refused),
        (target("/a#b"), 0, Refused),
        (target("/a\\b"), 0, Refused),
        (target("/a\"b"), 0, Refused),
        (target("/<a>"), 0, Refused),
        (target("/a`b"), 0, Refused),
        (target("/\u{e4}"), 0, Refused),
        (target("/a\u{0}b"), 0, Refused),
        (target("/a\u{7f}b"), 0, Refused),
        (target("/a\tb"), 0, Refused),
        (target("/a\rb"), 0, Refused),
        // Line ends and fields.
        (raw("GET / HTTP/1.1\nHost: a\n\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a\r\n\n"), 0, Refused),
        (raw("GET / HTTP/1.1\rHost: a\r\r"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\r\n c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\r\n\tc\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A : b\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A\t: b\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A b: c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", ": b\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A(b): c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A\u{e4}: c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A\u{0}: c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{0}c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{1}c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{b}c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{7f}c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{1b}[2J\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "A: b\u{e4}c\r\n"), 1, Clean),
        // Host.
        (raw("GET / HTTP/1.1\r\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nA: b\r\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 0, Refused),
        (raw("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", HOST), 0, Refused),
        (get("GET / HTTP/1.1", "hOST: other\r\n"), 0, Refused),
        // Upgrades.
        (get("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "Upgrade: h2c\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "upgrade:\r\n"), 0, Refused),
        // Another method or path than the request line says.
        (post("X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n", ""), 0, Refused),
        (post("x-http-method: PUT\r\n", ""), 0, Refused),
        (post("X-Method-Override: PUT\r\n", ""), 0, Refused),
        (get("GET / HTTP/1.1", "X-Original-URL: /user/keys\r\n"), 0, Refused),
        (get("GET / HTTP/1.1", "X-Rewrite-URL: /user/keys\r\n"), 0, Refused),
        (chunked("0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"), 0, Broken),
        // Lengths.
        (post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 0, Refused),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), 0, Refused),
        (post("Content-Length: 5, 5\r\n", "hello"), 0, Refused),
        (post("Content-Length: 5,\r\n", "hello"), 0, Refused),
        (post("Content-Length: +5\r\n", "hello"), 0, Refused),
        (post("Content-Length: -5\r\n", "hello"), 0, Refused),
        (post("Content-Length: 0x5\r\n", "hello"), 0, Refused),
        (post("Content-Length: 5.0\r\n", "hello"), 0, Refused),
        (post("Content-Length: 05\r\n", "hello"), 0, Refused),
        (post("Content-Length: 00\r\n", ""), 0, Refused),
        (post("Content-Length: 1 1\r\n", "hello hello"), 0, Refused),
        (post("Content-Length:\r\n", "hello"), 0, Refused),
        (post("Content-Length: \u{0}5\r\n", "hello"), 0, Refused),
        (post("Content-Length: \"5\"\r\n", "hello"), 0, Refused),
        (post("Content-Length: \u{ff15}\r\n", "hello"), 0, Refused),
        (post("Content-Length: 00000000000000000005\r\n", "hello"), 0, Refused),
        (post("Content-Length: 18446744073709551621\r\n", "hello"), 0, Refused),
        (post("Content-Length : 5\r\n", "hello"), 0, Refused),
        // Codings.
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: identity\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: gzip\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding:\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 0, Refused),
        (post("X: y\r\nTransfer_Encoding: chunked\r\n", ""), 1, Clean),
        // Chunks.
        (chunked("5;a=b\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5;\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5 \r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked(" 5\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("+5\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("-1\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("05\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5\r\nhello\r\n00\r\n\r\n"), 0, Broken),
        (chunked("\r\n0\r\n\r\n"), 0, Broken),
        (chunked("g\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5_0\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5\nhello\n0\n\n"), 0, Broken),
        (chunked("5\r\nhello\n0\r\n\r\n"), 0, Broken),
        (chunked("5\rhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("4\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("6\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5\r\nhello\r0\r\n\r\n"), 0, Broken),
        (chunked("5\r\nhello\r\n0\n\r\n"), 0, Broken),
        (chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), 0, Broken),
        (chunked("5\r\nhello\r\n0\r\n\n"), 0, Broken),
        (chunked("5\r\nhello\r\n0\r\n\rX"), 0, Broken),
        // Trailers.
        (chunked("0\r\nA: b\n\r\n"), 0, Broken),
        (chunked("0\r\n A: b\r\n\r\n"), 0, Broken),
        (chunked("0\r\nA : b\r\n\r\n"), 0, Broken),
        (chunked("0\r\nA\r\n\r\n"), 0, Broken),
        (chunked("0\r\nA: b\u{0}\r\n\r\n"), 0, Broken),
        (chunked("0\r\nA: b\r\n c\r\n\r\n"), 0, Broken),
        (chunked("0\r\nContent-Length: 5\r\n\r\nhello"), 0, Broken),
        (chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 0, Broken),
        (chunked("0\r\nHost: other\r\n\r\n"), 0, Broken),
        (chunked("0\r\nAuthorization: Bearer x\r\n\r\n"), 0, Broken),
        (chunked("0\r\nx-api-key: x\r\n\r\n"), 0, Broken),
        (chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(32))), 1, Clean),
        (chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(33))), 0, Broken),
    ];
    // One request hidden in another, in ways that are known from other servers.
    for hidden in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \tchunked\u{c}",
        "Transfer-Encoding: cow, chunked",
        "X: X\r\nTransfer-Encoding\r\n: chunked",
        "Content-Length: 6\nTransfer-Encoding: chunked",
        "X: x\rTransfer-Encoding: chunked",
    ] {
        all.push(([post(&format!("{hidden}\r\n"), "0\r\n\r\n"), target("/hidden")].concat(), 0, Refused));
    }
    all
}

/// Larger ones, not cut at every byte.
fn large() -> Vec<(Vec<u8>, usize, End)> {
    let of = |length: usize| {
        let head = get("GET / HTTP/1.1", "A: \r\n").len();
        get("GET / HTTP/1.1", &format!("A: {}\r\n", "x".repeat(length - head)))
    };
    let body = "x".repeat(300_000);
    vec![
        (of(65_536), 1, Clean),
        (of(65_537), 0, Refused),
        (vec![b'A'; 65_536], 0, Refused),
        (vec![b'A'; 65_535], 0, Clean),
        (get("GET / HTTP/1.1", &"A: b\r\n".repeat(99)), 1, Clean),
        (get("GET / HTTP/1.1", &"A: b\r\n".repeat(100)), 0, Refused),
        (chunked(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(8_185))), 1, Clean),
        (chunked(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(8_186))), 0, Broken),
        ([post("Content-Length: 300000\r\n", &body), get("GET / HTTP/1.1", "")].concat(), 2, Clean),
        ([chunked(&format!("493e0\r\n{body}\r\n0\r\n\r\n")), get("GET / HTTP/1.1", "")].concat(), 2, Clean),
    ]
}

/// Checks one connection against the reference, and against what the client gets.
fn agree(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let (seen, got) = serve(bytes, cuts);
    let (expected, shown) = (reference(bytes), bytes[..bytes.len().min(2_000)].escape_ascii());
    assert_eq!(seen, expected, "cut at {cuts:?}: {shown}");
    let good = seen.iter().filter(|one| matches!(one, Seen::Request { .. })).count();
    assert!(got.matches("HTTP/1.1 200 OK\r\n").count() >= good, "{shown} got {got}");
    assert_eq!(got.matches("HTTP/1.1 400 ").count(), usize::from(seen.contains(&Seen::Refused)), "{shown} got {got}");
    seen
}

fn expect(seen: &[Seen], good: usize, end: End, bytes: &[u8]) {
    let ends = match seen.last() {
        Some(Seen::Refused) => Refused,
        Some(Seen::Broken { .. }) => Broken,
        Some(Seen::Request { .. }) | None => Clean,
    };
    let found = seen.iter().filter(|one| matches!(one, Seen::Request { .. })).count();
    let shown = bytes[..bytes.len().min(2_000)].escape_ascii();
    assert_eq!((found, ends), (good, end), "{shown}");
}

#[test]
fn each_connection_of_the_corpus_is_read_as_expected_wherever_it_is_cut() {
    let corpus = corpus();
    assert!(corpus.len() >= 120, "{}", corpus.len());
    for (bytes, good, end) in corpus {
        expect(&agree(&bytes, &[]), good, end, &bytes);
        for cut in 1..bytes.len() {
            agree(&bytes, &[cut]);
        }
        agree(&bytes, &(0..bytes.len()).collect::<Vec<_>>());
    }
}

#[test]
fn large_connections_are_read_as_expected() {
    for (bytes, good, end) in large() {
        let length = bytes.len();
        for cuts in [vec![], vec![1], vec![length - 1], vec![length / 2], (0..length).step_by(997).collect()] {
            expect(&agree(&bytes, &cuts), good, end, &bytes);
        }
    }
}

#[test]
fn the_reason_is_told_once_and_for_the_right_request() {
    let good = get("GET / HTTP/1.1", "");
    let bad = get("GET / HTTP/1.1", "A: b\r\n c\r\n");
    let mut guard = Guard::new(Client { pieces: pieces(&[&good[..], &bad, &good].concat(), &[]), got: Arc::default() });
    let heads = guard.heads();
    assert_eq!(read(&mut guard, 4096), Ok([&good[..], IN_PLACE].concat()));
    assert_eq!(heads.next(), Ok(()));
    let fault = heads.next().unwrap_err();
    assert_eq!(
        (fault.code, &fault.causes[..]),
        (Code::GatewayRequest, &["a field continues the line before".to_owned()][..])
    );
    assert!(heads.next().is_err(), "a request after the last one is refused too");
}

#[test]
fn a_request_that_the_guard_did_not_pass_is_refused() {
    assert!(Heads::default().next().is_err());
}

/// Reads until the guard has no more: what came through, or why reading failed.
fn read(guard: &mut Guard<Client>, room: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let mut room = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut room);
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut *guard).poll_read(&mut context, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => all.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => return Err(error.to_string()),
            Poll::Ready(Ok(())) | Poll::Pending => return Ok(all),
        }
    }
}

#[test]
fn what_follows_a_refused_head_is_read_and_dropped_up_to_a_bound() {
    let bytes = [b"GET / HTTP/1.0\r\n\r\n".to_vec(), vec![b'x'; 2 * DRAINED]].concat();
    let cuts: Vec<usize> = (0..bytes.len()).step_by(1000).collect();
    let mut guard = Guard::new(Client { pieces: pieces(&bytes, &cuts), got: Arc::default() });
    assert_eq!(read(&mut guard, 4096), Ok(IN_PLACE.to_vec()));
    let left: usize = guard.inner.pieces.iter().map(Vec::len).sum();
    assert!((bytes.len() - left) >= DRAINED && (bytes.len() - left) < DRAINED + 8192, "{left} left");
    assert!(guard.held.is_empty());
}

/// Words that a mutation puts in.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: other\r\n",
    "Connection: close\r\n",
    "Upgrade: x\r\n",
    "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.1",
];

#[derive(Debug, Clone)]
enum Mutation {
    Put(usize, u8),
    Insert(usize, usize),
    Remove(usize, usize),
    Copy(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Put(at, byte)),
        (any::<usize>(), 0..WORDS.len()).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (any::<usize>(), 1..12_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<usize>(), any::<usize>(), 1..40_usize).prop_map(|(from, to, length)| Mutation::Copy(from, to, length)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let (length, all) = (bytes.len(), bytes.clone());
    match *mutation {
        Mutation::Put(at, byte) if length > 0 => bytes[at % length] = byte,
        Mutation::Put(..) => {}
        Mutation::Insert(at, word) => {
            let at = at % (length + 1);
            bytes.splice(at..at, WORDS[word].bytes());
        }
        Mutation::Remove(at, some) => {
            let at = at % (length + 1);
            bytes.drain(at..(at + some).min(length));
        }
        Mutation::Copy(from, to, some) => {
            let (from, to) = (from % (length + 1), to % (length + 1));
            bytes.splice(to..to, all[from..(from + some).min(length)].iter().copied());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// Whatever a client sends, in whatever pieces: guard and reference agree about where each request begins and ends, and
    /// what is in it.
    #[test]
    fn mutated_connections_are_read_alike(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        mutations in prop::collection::vec(mutation(), 0..4),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        room in 1..64_usize,
    ) {
        let good: Vec<Vec<u8>> =
            corpus().into_iter().filter(|(_, good, end)| *good > 0 && *end == Clean).map(|(bytes, ..)| bytes).collect();
        let mut bytes: Vec<u8> = picks.iter().flat_map(|pick| good[pick.index(good.len())].clone()).collect();
        for one in &mutations {
            mutate(&mut bytes, one);
        }
        agree(&bytes, &cuts);
        // The bytes that come through do not depend on how much room the reader has.
        let through = |room| {
            let mut guard = Guard::new(Client { pieces: pieces(&bytes, &cuts), got: Arc::default() });
            read(&mut guard, room)
        };
        prop_assert_eq!(through(room), through(1 << 16));
    }
}
