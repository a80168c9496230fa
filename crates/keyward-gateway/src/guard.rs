//! The guard below the HTTP server: raw bytes in, well-formed HTTP/1.1 out.
//!
//! A request that two parsers can read in two ways is how one request is hidden in another (RFC 9112 section 11.2). So the
//! bytes of a client are read here first, more strictly than RFC 9112 asks, and go to the server unchanged or not at all. The
//! guard follows the framing of each body to find the next head on the connection; it gathers heads, chunk-size lines and
//! trailers, never a body: what it reads of one goes straight into the server's own buffer.
//!
//! A head that is refused never reaches the server. In its place goes a request of the guard's own that ends the connection,
//! and [`Heads::next`] tells the service why, which it can answer in the shape of the API. A client cannot ask for that
//! answer, nor avoid it: it follows from the place of the request on the connection, not from anything in it.

use keyward_diag::{Code, Fault};
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
mod corpus;

/// Bytes of a head, request line and empty line included.
const HEAD: usize = 64 * 1024;
/// Fields of a head.
const FIELDS: usize = 100;
/// Bytes of a trailer section.
const TRAILERS: usize = 8 * 1024;
/// Fields of a trailer section.
const TRAILER_FIELDS: usize = 32;
/// Read from a client whose request was refused, so that the answer is not lost to a reset.
const DRAINED: usize = 256 * 1024;
/// What the server sees in place of a head that is refused.
const IN_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
/// What may not be in a trailer section: framing, routing, and credentials (RFC 9110 section 6.5.1).
const NOT_TRAILERS: &[&str] = &[
    "api-key",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-goog-api-key",
];
/// What makes some servers take a request for one with another method or path than those that were matched.
pub(crate) const OVERRIDES: &[&str] =
    &["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// A stream of which only well-formed requests can be read.
///
/// Refused heads: a line end that is not CRLF; an empty line before the request line; a method that is not of 1 to 16 capital
/// letters, CONNECT, TRACE; a target that is not in origin-form, or has a byte that RFC 3986 does not know (`[]{}|^` pass);
/// any version but HTTP/1.1; a name that is no token; a line that continues another; control characters; none or several
/// `Host`; `Upgrade`; fields that name another method or path (`X-HTTP-Method-Override`, `X-Original-URL` and their kin);
/// several `Content-Length`, or one that is not 1 to 19 digits without a leading zero; any `Transfer-Encoding` but one
/// `chunked`, in small letters; both of these; more than 64 KiB or 100 fields.
///
/// In a chunked body, reading fails with [`Malformed`] at: a size that is not 1 to 16 hex digits without a leading zero; a chunk
/// extension, which RFC 9112 section 7.1.1 lets a recipient pass over, and in which requests have been hidden; a line end that
/// is not CRLF; a trailer section of more than 8 KiB or 32 fields, with a field that RFC 9110 section 6.5.1 does
/// not want there or that names another method or path, or not formed as those of a head.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    inner: S,
    /// Read and not given out: first `ready` bytes that were checked, then the start of a head, line or trailer section.
    held: Vec<u8>,
    ready: usize,
    /// Bytes of that start in which no end was found.
    scanned: usize,
    state: State,
    drained: usize,
    heads: Heads,
}

/// What comes next from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So much of a body with a Content-Length.
    Length(u64),
    /// The line with the size of a chunk.
    Size,
    /// So much of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailers,
    /// Nothing: a head was refused.
    Refused,
    /// Nothing: a body was not well-formed.
    Failed(&'static str),
}

/// Why the body of a request is not well-formed, as reading it fails.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Malformed {}

/// What the guard found, for the service of the same connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    /// Heads that went to the server, the one in place of a refused one included.
    passed: AtomicU64,
    /// Which of them is not the client's, and why.
    refused: OnceLock<(u64, &'static str)>,
    /// Requests that the service asked about.
    served: AtomicU64,
}

impl Heads {
    /// Says whether the next request of the connection is the client's own. The service calls it once for each request, in
    /// their order, before anything else.
    ///
    /// # Errors
    /// [`Code::GatewayRequest`] with what was refused; the connection ends with the answer.
    pub(crate) fn next(&self) -> Result<(), Fault> {
        let malformed = |why: &str| Err(Fault::new(Code::GatewayRequest).cause(why));
        let number = self.0.served.fetch_add(1, Ordering::AcqRel) + 1;
        match self.0.refused.get() {
            Some((at, why)) if number >= *at => malformed(why),
            _ if number > self.0.passed.load(Ordering::Acquire) => {
                malformed("the server read a request that the guard did not pass")
            }
            _ => Ok(()),
        }
    }
}

impl<S> Guard<S> {
    /// Guards a connection at its beginning.
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, held: Vec::new(), ready: 0, scanned: 0, state: State::Head, drained: 0, heads: Heads::default() }
    }

    /// What the service asks.
    pub(crate) fn heads(&self) -> Heads {
        self.heads.clone()
    }

    /// Follows the bytes that come next, up to the first that cannot be judged yet or is refused. Gives how many may go to the
    /// server.
    fn check(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() {
            match self.step(&bytes[passed..]) {
                Ok(Some((length, state))) => {
                    passed += length;
                    self.scanned = 0;
                    self.state = state;
                }
                Ok(None) => break,
                Err(why) => {
                    self.scanned = 0;
                    if self.state == State::Head {
                        let number = self.heads.0.passed.fetch_add(1, Ordering::AcqRel) + 1;
                        let _ = self.heads.0.refused.set((number, why));
                        self.state = State::Refused;
                    } else {
                        self.state = State::Failed(why);
                    }
                    break;
                }
            }
        }
        passed
    }

    /// The length of what comes next and what comes after it; `None` when it is not whole.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<(usize, State)>, &'static str> {
        let some_of = |left: u64| usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        match self.state {
            State::Head => {
                if !bytes.first().is_some_and(u8::is_ascii_uppercase) {
                    return Err("the request line does not begin with a method in capital letters");
                }
                let Some(end) = section_end(bytes, &mut self.scanned, HEAD)? else { return Ok(None) };
                let next = head(&bytes[..end])?;
                self.heads.0.passed.fetch_add(1, Ordering::AcqRel);
                Ok(Some((end, next)))
            }
            State::Length(left) => {
                let some = some_of(left);
                let left = left - some as u64;
                Ok(Some((some, if left == 0 { State::Head } else { State::Length(left) })))
            }
            State::Size => {
                let Some((end, size)) = chunk_size(bytes)? else { return Ok(None) };
                Ok(Some((end, if size == 0 { State::Trailers } else { State::Chunk(size) })))
            }
            State::Chunk(left) => {
                let some = some_of(left);
                let left = left - some as u64;
                Ok(Some((some, if left == 0 { State::ChunkEnd } else { State::Chunk(left) })))
            }
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => Ok(Some((2, State::Size))),
                [b'\r'] => Ok(None),
                _ => Err("a chunk does not end where its size says"),
            },
            State::Trailers => {
                let Some(end) = section_end(bytes, &mut self.scanned, TRAILERS)? else { return Ok(None) };
                trailers(&bytes[..end])?;
                Ok(Some((end, State::Head)))
            }
            State::Refused | State::Failed(_) => Ok(None),
        }
    }

    /// Checks all that is held.
    fn check_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        self.ready = self.check(&held);
        if matches!(self.state, State::Refused | State::Failed(_)) {
            held.truncate(self.ready);
        }
        self.held = held;
        self.put_in_place();
    }

    /// Makes the head that stands for a refused one ready.
    fn put_in_place(&mut self) {
        if self.state == State::Refused {
            self.held.extend_from_slice(IN_PLACE);
            self.ready = self.held.len();
        }
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads and drops what a refused client still sends.
    fn drain(&mut self, cx: &mut Context<'_>) {
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        while self.drained < DRAINED {
            let mut buf = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.drained += buf.filled().len(),
                Poll::Ready(_) => self.drained = DRAINED,
                Poll::Pending => return,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.ready > 0 {
                let some = this.ready.min(buf.remaining());
                buf.put_slice(&this.held[..some]);
                this.held.drain(..some);
                this.ready -= some;
                return Poll::Ready(Ok(()));
            }
            match this.state {
                // The end of the stream would make the server drop the request in place before it is answered.
                State::Refused => {
                    this.drain(cx);
                    return Poll::Pending;
                }
                State::Failed(why) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Malformed(why))));
                }
                _ => {}
            }
            if this.held.is_empty() {
                let start = buf.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                let read = &buf.filled()[start..];
                if read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let passed = this.check(read);
                if !matches!(this.state, State::Refused | State::Failed(_)) {
                    this.held.extend_from_slice(&read[passed..]);
                }
                this.put_in_place();
                buf.set_filled(start + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut room = [std::mem::MaybeUninit::uninit(); 4096];
                let mut more = ReadBuf::uninit(&mut room);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut more))?;
                if more.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(more.filled());
                this.check_held();
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.state, State::Refused | State::Failed(_)) {
            // A socket that is closed with bytes unread resets the connection, and the answer may be lost with it.
            this.drain(cx);
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// Where a section of lines ends that begins at the first byte: behind its empty line. Looks on from `scanned`.
fn section_end(bytes: &[u8], scanned: &mut usize, most: usize) -> Result<Option<usize>, &'static str> {
    const TOO_LARGE: &str = "the head or the trailer section is too large";
    let mut from = *scanned;
    while let Some(found) = bytes[from..].iter().position(|b| matches!(b, b'\r' | b'\n')) {
        let at = from + found;
        if bytes[at] == b'\n' {
            return Err("a line ends in a line feed alone");
        }
        match bytes.get(at + 1) {
            Some(b'\n') => {}
            Some(_) => return Err("a carriage return stands alone"),
            None => break,
        }
        from = at + 2;
        if bytes[..at].is_empty() || bytes[..at].ends_with(b"\r\n") {
            return if from > most { Err(TOO_LARGE) } else { Ok(Some(from)) };
        }
    }
    if bytes.len() >= most {
        return Err(TOO_LARGE);
    }
    *scanned = if bytes.ends_with(b"\r") { bytes.len() - 1 } else { bytes.len() };
    Ok(None)
}

/// The lines of a section that [`section_end`] found, without their ends and without the empty one.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = section.strip_suffix(b"\r\n").unwrap_or(section);
    text.split_inclusive(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r\n").unwrap_or(line))
}

/// Checks a head and tells what follows it.
fn head(section: &[u8]) -> Result<State, &'static str> {
    let mut lines = lines(section);
    request_line(lines.next().unwrap_or_default())?;
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for (n, line) in lines.enumerate() {
        if n == FIELDS {
            return Err("the head has more than 100 fields");
        }
        let (name, value) = field(line)?;
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("host") {
            hosts += 1;
            if value.is_empty() || value.iter().any(|b| matches!(b, b' ' | b'\t' | b',')) {
                return Err("Host is empty or a list");
            }
        } else if is("content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err("there is more than one Content-Length");
            }
        } else if is("transfer-encoding") {
            if std::mem::replace(&mut chunked, true) {
                return Err("there is more than one Transfer-Encoding");
            }
            if value != b"chunked" {
                return Err("Transfer-Encoding is not `chunked`");
            }
        } else if is("upgrade") {
            return Err("the connection cannot be upgraded to another protocol");
        } else if OVERRIDES.iter().any(|one| is(one)) {
            return Err("a field names another method or path than the request line");
        }
    }
    if hosts != 1 {
        return Err("there is not exactly one Host");
    }
    match (length, chunked) {
        (Some(_), true) => Err("there is a Content-Length beside a Transfer-Encoding"),
        (None, true) => Ok(State::Size),
        (None | Some(0), false) => Ok(State::Head),
        (Some(length), false) => Ok(State::Length(length)),
    }
}

fn request_line(line: &[u8]) -> Result<(), &'static str> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the request line is not a method, a target and a version with one space between them");
    };
    if !(1..=16).contains(&method.len()) || !method.iter().all(u8::is_ascii_uppercase) {
        return Err("the method is not 1 to 16 capital letters");
    }
    if matches!(method, b"CONNECT" | b"TRACE") {
        return Err("CONNECT and TRACE are refused");
    }
    if !target.starts_with(b"/") {
        return Err("the target does not begin with a slash: whole URLs, hosts and `*` are refused");
    }
    if !target.iter().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'"' | b'#' | b'<' | b'>' | b'\\' | b'`')) {
        return Err("the target has a character that must be encoded");
    }
    if version != b"HTTP/1.1" {
        return Err("the version is not HTTP/1.1");
    }
    Ok(())
}

/// Name and value of a field line, the value without white space around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a field continues the line before");
    }
    let Some(colon) = line.iter().position(|b| *b == b':') else { return Err("a field has no colon") };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err("the name of a field is not a token with a colon right behind it");
    }
    if !value.iter().all(|b| matches!(b, b'\t' | 0x20..=0x7e | 0x80..)) {
        return Err("a field has a control character");
    }
    let start = value.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(start, |last| last + 1);
    Ok((name, &value[start..end]))
}

/// RFC 9110 section 5.6.2, tchar.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    const ODD: &str = "Content-Length is not 1 to 19 digits without a leading zero";
    let zero = value.first() == Some(&b'0') && value.len() > 1;
    if !(1..=19).contains(&value.len()) || zero || !value.iter().all(u8::is_ascii_digit) {
        return Err(ODD);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(ODD)
}

/// The length of the line with a chunk's size, and the size; `None` when the line is not whole.
fn chunk_size(bytes: &[u8]) -> Result<Option<(usize, u64)>, &'static str> {
    let digits = bytes.iter().take(17).take_while(|b| b.is_ascii_hexdigit()).count();
    if digits > 16 || digits > 1 && bytes[0] == b'0' {
        return Err("the size of a chunk is not 1 to 16 hex digits without a leading zero");
    }
    match &bytes[digits..] {
        [] => Ok(None),
        [b'\r'] if digits > 0 => Ok(None),
        [b'\r', b'\n', ..] if digits > 0 => {
            let size = std::str::from_utf8(&bytes[..digits]).ok().and_then(|d| u64::from_str_radix(d, 16).ok());
            Ok(size.map(|size| (digits + 2, size)))
        }
        _ => Err("a chunk begins with anything but its size in hex digits and a line end"),
    }
}

fn trailers(section: &[u8]) -> Result<(), &'static str> {
    for (n, line) in lines(section).enumerate() {
        if n == TRAILER_FIELDS {
            return Err("the trailer section has more than 32 fields");
        }
        let (name, _) = field(line)?;
        if NOT_TRAILERS.iter().chain(OVERRIDES).any(|not| name.eq_ignore_ascii_case(not.as_bytes())) {
            return Err("a field in the trailer section belongs into the head");
        }
    }
    Ok(())
}
