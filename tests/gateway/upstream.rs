//! A stand-in for an API: one thread a connection, HTTP/1.1, and a memory of what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The credential that it takes, and what those begin with that it takes besides.
pub(crate) const KEY: &str = "sk-ant-api03-REALKEY-0001";

/// Listens until the test is over.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    broken: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, broken, over) = (Arc::default(), Arc::default(), Arc::default());
        let upstream = Self { port, seen, broken, over };
        let (seen, broken, over) =
            (Arc::clone(&upstream.seen), Arc::clone(&upstream.broken), Arc::clone(&upstream.over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, broken, over) = (Arc::clone(&seen), Arc::clone(&broken), Arc::clone(&over));
                std::thread::spawn(move || {
                    // A client that goes away ends the conversation.
                    let _ = converse(&stream.unwrap(), &seen, &broken, &over);
                });
            }
        });
        upstream
    }

    /// The heads that it was sent.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Streams that ended before they were whole.
    pub(crate) fn broken(&self) -> u32 {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What is answered to a request that names a model.
const MESSAGE: &str = r#"{"ok":true,"usage":{"input_tokens":1000,"output_tokens":1000}}"#;

/// Any call is answered at once; with `stream` in the body by an event each 20 ms, without an end. A call of `/dir` is sent
/// on to `/dir/` with its query, as servers of files do, in every field and page that such an answer has.
fn converse(
    stream: &TcpStream,
    seen: &Mutex<Vec<String>>,
    broken: &AtomicU32,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
            head.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let key = KEY.to_ascii_lowercase();
        let places = [format!("x-api-key: {key}"), format!("key={key} ")];
        let good = places.iter().any(|place| head.to_ascii_lowercase().contains(place));
        let moved =
            head.split(' ').nth(1).and_then(|target| target.strip_prefix("/dir?")).map(|q| format!("/dir/?{q}"));
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
        if good && String::from_utf8_lossy(&body).contains("stream") {
            writer.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            while !over.load(Ordering::Relaxed) {
                if let Err(e) = writer.write_all(b"10\r\ndata: an event\n\n\r\n") {
                    broken.fetch_add(1, Ordering::Relaxed);
                    return Err(e);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        if let Some(to) = moved.filter(|_| good) {
            let page = format!("<a href=\"{to}\">Moved</a>");
            let head = format!("location: {to}\r\nlink: <{to}>; rel=\"next\"\r\nrefresh: 0; url={to}\r\nx-url: {to}");
            let length = page.len();
            write!(writer, "HTTP/1.1 308 Moved\r\n{head}\r\ncontent-length: {length}\r\n\r\n{page}")?;
            continue;
        }
        let (status, text) = match good {
            true if String::from_utf8_lossy(&body).contains("model") => ("200 OK", MESSAGE),
            true => ("200 OK", r#"{"ok":true}"#),
            false => ("418 I'm a teapot", r#"{"ok":false}"#),
        };
        let length = text.len();
        let head = "request-id: req_77\r\ncontent-type: application/json";
        write!(writer, "HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{text}")?;
    }
}
