//! HTTP/1.1 over one Unix socket: as much of RFC 9112 as the LocalAPI uses, within bounds.
//!
//! Sends one request at a time and reads heads of at most 16 KiB, bodies by length or in chunks. What passed through
//! its buffers is wiped. Never follows a redirect, never reads past an answer. Called by the client alone.

use crate::ANSWER_MAX_BYTES;
use keyward_api::{API_VERSION, Method, VERSION_HEADER};
use keyward_diag::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// Longest head, and the size of the read buffer.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Most header fields of an answer.
const FIELDS_MAX: usize = 64;
/// Longest line with the size of a chunk, extensions included.
const CHUNK_LINE_MAX_BYTES: usize = 256;
/// A server that takes no byte for this long is given up.
const SEND_TIME: Duration = Duration::from_secs(30);

/// Why an exchange failed. Says nothing of what was exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WireError {
    #[error("the broker ended before it answered; whether it did what was asked is not known")]
    Lost,
    #[error("the broker did not answer in time")]
    Late,
    #[error("the broker does not speak HTTP/1.1: {0}")]
    Protocol(&'static str),
    #[error("the answer is longer than {ANSWER_MAX_BYTES} bytes")]
    TooLong,
    #[error("the path or a field of the request holds characters that HTTP does not allow")]
    Request,
    #[error("the socket failed: {0}")]
    Io(io::Error),
}

impl WireError {
    pub(crate) fn fault(&self) -> Fault {
        let code = match self {
            Self::Lost | Self::Late | Self::Io(_) => Code::BrokerUnreachable,
            Self::Protocol(_) | Self::TooLong => Code::BrokerVersion,
            Self::Request => Code::RequestInvalid,
        };
        Fault::new(code).cause(self)
    }
}

impl From<io::Error> for WireError {
    fn from(e: io::Error) -> Self {
        if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) {
            Self::Lost
        } else if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            Self::Late
        } else {
            Self::Io(e)
        }
    }
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The server closes after this answer.
    pub(crate) closes: bool,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Rest,
}

/// One connection. What was read and not yet taken is `buffer[start..end]`.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UnixStream,
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Wire {
    pub(crate) fn new(socket: UnixStream) -> Result<Self, WireError> {
        socket.set_write_timeout(Some(SEND_TIME))?;
        Ok(Self { socket, buffer: Zeroizing::new(vec![0; HEAD_MAX_BYTES]), start: 0, end: 0 })
    }

    /// Whether the server has neither closed nor said anything unasked.
    pub(crate) fn is_open(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        self.start == self.end && poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    }

    /// Sends the head of a request. One with a body waits for `100 Continue` (RFC 9110, 10.1.1).
    pub(crate) fn ask(
        &mut self,
        method: Method,
        path: &str,
        body_bytes: Option<usize>,
        fields: &[(&str, &str)],
    ) -> Result<(), WireError> {
        let sound = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !sound(path) || !fields.iter().all(|(name, value)| sound(name) && sound(value)) {
            return Err(WireError::Request);
        }
        let mut head = String::with_capacity(512);
        let word = method.word();
        let mut written =
            write!(head, "{word} {path} HTTP/1.1\r\nhost: keyward\r\n{VERSION_HEADER}: {API_VERSION}\r\n");
        for (name, value) in fields {
            written = written.and_then(|()| write!(head, "{name}: {value}\r\n"));
        }
        if let Some(length) = body_bytes {
            written = written.and_then(|()| {
                write!(head, "content-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n")
            });
        } else if method != Method::Get {
            written = written.and_then(|()| write!(head, "content-length: 0\r\n"));
        }
        written.map_err(|_| WireError::Request)?;
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Sends bytes as they are. A server that has closed already may have said why: then this is no error yet.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        match self.socket.write_all(bytes) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe && self.has_bytes() => Ok(()),
            answer => answer.map_err(WireError::from),
        }
    }

    /// Reads the next head. An interim one is given only if it is `100 Continue`.
    pub(crate) fn head(&mut self, until: Instant) -> Result<Head, WireError> {
        loop {
            if let Some((length, head)) = parse(&self.buffer[self.start..self.end])? {
                self.start += length;
                if head.status == 100 || head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            if self.end - self.start >= HEAD_MAX_BYTES {
                return Err(WireError::Protocol("the head is too long"));
            }
            if self.fill(Some(until))? == 0 {
                return Err(WireError::Lost);
            }
        }
    }

    /// Reads more into the buffer; 0 at the end of the connection.
    fn fill(&mut self, until: Option<Instant>) -> Result<usize, WireError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.buffer[self.end..].zeroize();
        }
        let left = match until {
            Some(until) => Some(until.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero())
                .ok_or(WireError::Late)?
                .into(),
            None => None,
        };
        self.socket.set_read_timeout(left)?;
        loop {
            match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(bytes) => {
                    self.end += bytes;
                    return Ok(bytes);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes up to `most` bytes, reading when there are none; empty at the end of the connection.
    fn take(&mut self, most: u64, until: Option<Instant>) -> Result<&[u8], WireError> {
        if self.start == self.end {
            self.fill(until)?;
        }
        let bytes = (self.end - self.start).min(usize::try_from(most).unwrap_or(usize::MAX));
        let at = self.start;
        self.start += bytes;
        Ok(&self.buffer[at..at + bytes])
    }

    /// Takes one line without its end.
    fn line(&mut self, until: Option<Instant>) -> Result<&[u8], WireError> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if let Some(length) = seen.iter().take(CHUNK_LINE_MAX_BYTES).position(|b| *b == b'\n') {
                let line = self.start..self.start + length;
                self.start += length + 1;
                let line = &self.buffer[line];
                return Ok(line.strip_suffix(b"\r").unwrap_or(line));
            }
            if seen.len() >= CHUNK_LINE_MAX_BYTES {
                return Err(WireError::Protocol("a line of a chunk is too long"));
            }
            if self.fill(until)? == 0 {
                return Err(WireError::Lost);
            }
        }
    }

    fn has_bytes(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
            && fds[0].revents().contains(PollFlags::IN)
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(usize, Head)>, WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(WireError::Protocol("the head is malformed")),
    };
    let status = response.code.unwrap_or(0);
    let mut head = Head { status, closes: response.version == Some(0), framing: Framing::Rest };
    let (mut bytes, mut chunked) = (None, false);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            let value: u64 = text.and_then(|t| t.parse().ok()).ok_or(WireError::Protocol("content-length"))?;
            if bytes.replace(value).is_some() {
                return Err(WireError::Protocol("content-length twice"));
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(WireError::Protocol("transfer-encoding"));
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close") {
            head.closes = true;
        }
    }
    head.framing = match (bytes, chunked) {
        _ if status < 200 || status == 204 || status == 304 => Framing::Length(0),
        (None, true) => Framing::Chunked,
        (Some(bytes), false) => Framing::Length(bytes),
        (None, false) => Framing::Rest,
        // Two lengths are the way of request smuggling (RFC 9112, 6.3).
        (Some(_), true) => return Err(WireError::Protocol("two lengths")),
    };
    head.closes |= head.framing == Framing::Rest;
    Ok(Some((length, head)))
}

/// The body of one answer, read piece by piece.
pub(crate) struct Body {
    framing: Framing,
    /// Bytes left of the body, or of the chunk.
    left: u64,
    /// Between two chunks: the line end of the last one is still to come.
    after_chunk: bool,
    done: bool,
}

impl Body {
    pub(crate) fn new(head: &Head) -> Self {
        let left = match head.framing {
            Framing::Length(bytes) => bytes,
            Framing::Chunked => 0,
            Framing::Rest => u64::MAX,
        };
        Self { framing: head.framing, left, after_chunk: false, done: false }
    }

    /// The next piece; `None` at the end. `patience` bounds the wait for it.
    pub(crate) fn next<'w>(
        &mut self,
        wire: &'w mut Wire,
        patience: Option<Duration>,
    ) -> Result<Option<&'w [u8]>, WireError> {
        let until = patience.map(|p| Instant::now() + p);
        if self.framing == Framing::Chunked && self.left == 0 && !self.done {
            if self.after_chunk && !wire.line(until)?.is_empty() {
                return Err(WireError::Protocol("a chunk is longer than it said"));
            }
            self.left = chunk_size(wire.line(until)?)?;
            self.after_chunk = true;
            if self.left == 0 {
                // Trailer fields mean nothing here.
                while !wire.line(until)?.is_empty() {}
                self.done = true;
            }
        }
        if self.left == 0 || self.done {
            return Ok(None);
        }
        let piece = wire.take(self.left, until)?;
        if piece.is_empty() {
            self.done = true;
            return if self.framing == Framing::Rest { Ok(None) } else { Err(WireError::Lost) };
        }
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    /// The whole body, at most [`ANSWER_MAX_BYTES`].
    pub(crate) fn all(mut self, wire: &mut Wire, until: Instant) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let known = match self.framing {
            Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Framing::Chunked | Framing::Rest => HEAD_MAX_BYTES,
        };
        if known > ANSWER_MAX_BYTES {
            return Err(WireError::TooLong);
        }
        let mut all = Zeroizing::new(Vec::with_capacity(known));
        while let Some(piece) = self.next(wire, Some(until.saturating_duration_since(Instant::now())))? {
            if all.len() + piece.len() > ANSWER_MAX_BYTES {
                return Err(WireError::TooLong);
            }
            if all.len() + piece.len() > all.capacity() {
                // Grown by hand: `reserve` would leave an unwiped copy behind.
                let mut larger = Zeroizing::new(Vec::with_capacity((all.capacity() * 2).max(all.len() + piece.len())));
                larger.extend_from_slice(&all);
                all = larger;
            }
            all.extend_from_slice(piece);
        }
        Ok(all)
    }
}

/// Size of a chunk: hexadecimal digits, then perhaps extensions (RFC 9112, 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, WireError> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
    let sound = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| sound);
    text.and_then(|t| u64::from_str_radix(t, 16).ok()).ok_or(WireError::Protocol("size of a chunk"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Feeds `text` to a wire, in pieces of `step` bytes, and reads head and body.
    fn read(text: &[u8], step: usize) -> Result<(Head, Vec<u8>), WireError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let text = text.to_vec();
        let feeding = std::thread::spawn(move || {
            for piece in text.chunks(step) {
                if theirs.write_all(piece).is_err() {
                    return;
                }
            }
        });
        let mut wire = Wire::new(ours)?;
        let until = Instant::now() + Duration::from_secs(20);
        let answer = wire.head(until).and_then(|head| Ok((head, Body::new(&head).all(&mut wire, until)?.to_vec())));
        drop(wire);
        feeding.join().unwrap();
        answer
    }

    #[test]
    fn answers_are_read_in_any_cut() {
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n{}", "x".repeat(40_000));
        for step in [1, 2, 3, 7, 50_000] {
            let (head, body) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", step).unwrap();
            assert_eq!((head.status, head.closes, body.as_slice()), (200, false, b"hello".as_slice()));
            let chunked =
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nx: y\r\n\r\n";
            assert_eq!(read(chunked, step).unwrap().1, b"hello");
            let (head, body) =
                read(b"HTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n", step).unwrap();
            assert_eq!((head.status, head.closes, body.len()), (204, true, 0));
            assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nto the end", step).unwrap().1, b"to the end");
            assert_eq!(read(long.as_bytes(), step.max(7)).unwrap().1.len(), 40_000);
        }
    }

    #[test]
    fn hostile_answers_are_errors() {
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(20_000));
        let line = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}", "x".repeat(300));
        let cases: [(&[u8], &str); 14] = [
            (b"", "ended before"),
            (b"HTTP/1.1 200 OK\r\ncontent-len", "ended before"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "ended before"),
            (b"SSH-2.0-x\r\n\r\n", "malformed"),
            (endless.as_bytes(), "too long"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "content-length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "twice"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 8388609\r\n\r\n", "longer than"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "two lengths"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "transfer-encoding"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+5\r\n", "size of a chunk"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n", "longer than it said"),
            (line.as_bytes(), "line of a chunk"),
        ];
        for (text, want) in cases {
            let error = read(text, 4096).unwrap_err().to_string();
            assert!(error.contains(want), "{}: {error}", String::from_utf8_lossy(&text[..text.len().min(60)]));
        }
        let many = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let flood = (0..600).fold(many, |mut all, _| {
            all.extend_from_slice(b"4000\r\n");
            all.extend_from_slice(&[b'x'; 0x4000]);
            all.extend_from_slice(b"\r\n");
            all
        });
        assert!(matches!(read(&flood, 65_536), Err(WireError::TooLong)));
    }

    #[test]
    fn a_request_cannot_be_split_by_its_path() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours).unwrap();
        for path in ["/a b", "/a\r\nx: y", "/\u{e9}"] {
            assert!(matches!(wire.ask(Method::Get, path, None, &[]), Err(WireError::Request)), "{path}");
        }
        assert!(matches!(wire.ask(Method::Get, "/", None, &[("last-event-id", "1\r\nx: y")]), Err(WireError::Request)));
    }
}
