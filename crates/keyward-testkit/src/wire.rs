//! The LocalAPI byte by byte: HTTP/1.1 over the broker's socket without a client in between.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for bytes of the broker.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of this process to a broker.
pub struct Wire(BufReader<UnixStream>);

/// An answer, or the head of one.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header lines as sent, names in lower case.
    pub head: Vec<String>,
    /// The body; empty for a stream, which is read piece by piece.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; `Null` when it is empty.
    #[track_caller]
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {text}", self.status))
    }

    /// The content of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

impl Wire {
    /// Connects.
    #[track_caller]
    pub fn open(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display())))
    }

    /// Speaks over a connection that is there.
    #[track_caller]
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap_or_else(|e| panic!("{e}"));
        Self(BufReader::new(stream))
    }

    /// Asks once on a connection of its own. `None` when the broker closed the connection without an answer.
    #[track_caller]
    pub fn once(socket: &Path, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Option<Reply> {
        let mut wire = Self::open(socket);
        wire.send(method, path, fields, body);
        wire.reply()
    }

    /// Sends a request; `fields` are header lines beside `host` and `content-length`. A broker that has closed the
    /// connection is no failure here.
    pub fn send(&mut self, method: &str, path: &str, fields: &[&str], body: &[u8]) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: keyward\r\n");
        fields.iter().for_each(|field| text.push_str(&format!("{field}\r\n")));
        text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.send_bytes(text.as_bytes());
        self.send_bytes(body);
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Reads an answer whole. `None` when there is none.
    #[track_caller]
    pub fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head()?;
        if reply.field("transfer-encoding") == Some("chunked") {
            while let Some(piece) = self.piece() {
                reply.body.extend(piece);
            }
        } else {
            let length = reply.field("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            reply.body = vec![0; length];
            self.0.read_exact(&mut reply.body).unwrap_or_else(|e| panic!("a body of {length} bytes: {e}"));
        }
        Some(reply)
    }

    /// Reads the head of an answer alone. `None` when there is none.
    #[track_caller]
    pub fn head(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.first().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer of HTTP: {lines:?}"));
        let head = lines.into_iter().skip(1).map(|line| match line.split_once(':') {
            Some((name, rest)) => format!("{}:{rest}", name.to_lowercase()),
            None => line,
        });
        Some(Reply { status, head: head.collect(), body: Vec::new() })
    }

    /// The next piece of a chunked body (RFC 9112 section 7.1); `None` at its end or when the connection is lost.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut piece = vec![0; length + 2];
        self.0.read_exact(&mut piece).ok()?;
        piece.truncate(length);
        (length > 0).then_some(piece)
    }

    /// The next server-sent event of a stream as its id, name and data; comments are passed over. Takes each piece for
    /// whole events, as the broker sends them. `None` at the end.
    pub fn event(&mut self, waiting: &mut Vec<[String; 3]>) -> Option<[String; 3]> {
        while waiting.is_empty() {
            let text = String::from_utf8_lossy(&self.piece()?).into_owned();
            for block in text.split("\n\n") {
                let field = |name: &str| {
                    let line = block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                if !field("event").is_empty() {
                    waiting.push([field("id"), field("event"), field("data")]);
                }
            }
        }
        Some(waiting.remove(0))
    }
}
