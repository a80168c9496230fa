//! Server-sent events of `/v1/events` (HTML living standard, 9.2), resumed over lost connections.

use crate::wire::{Body, Wire};
use crate::{Client, Method};
use keyward_diag::{Code, Fault};
use std::time::Duration;

/// Longest event, in bytes.
const EVENT_MAX_BYTES: usize = 1024 * 1024;
/// Pauses between attempts to reconnect; after the last one the loss is reported.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where to resume after it.
    pub id: Option<String>,
    /// Its kind; `message` where the server names none.
    pub name: String,
    /// Its document, as sent.
    pub data: String,
}

/// Events as they come, without end unless they were asked for until the connection is lost. After an error that reconnecting
/// does not mend it yields that error and then ends.
pub struct Events {
    client: Client,
    last: Option<String>,
    open: Option<(Wire, Body)>,
    parser: Parser,
    reconnects: bool,
    connected: bool,
    ended: bool,
}

impl Events {
    pub(crate) fn new(client: Client, after: Option<&str>) -> Self {
        let (last, parser) = (after.map(str::to_owned), Parser::default());
        Self { client, last, open: None, parser, reconnects: true, connected: false, ended: false }
    }

    pub(crate) fn until_lost(client: Client, after: Option<&str>) -> Self {
        Self { reconnects: false, ..Self::new(client, after) }
    }

    /// Opens the stream, so that what happens from here on is seen; else the first call of `next` does.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn open(&mut self) -> Result<(), Fault> {
        self.connect()?;
        self.connected = true;
        Ok(())
    }

    /// Where to resume: the id of the last event that had one.
    pub fn last_id(&self) -> Option<&str> {
        self.last.as_deref()
    }

    fn connect(&mut self) -> Result<(), Fault> {
        let mut fields = vec![("accept", "text/event-stream")];
        if let Some(last) = &self.last {
            fields.push(("last-event-id", last));
        }
        let (wire, head) = self.client.open(Method::Get, "/v1/events", None, &fields, || {})?;
        self.parser = Parser::default();
        self.open = Some((wire, Body::new(&head)));
        Ok(())
    }

    fn reconnect(&mut self) -> Result<(), Fault> {
        let mut answer = Ok(());
        for pause in PAUSES {
            std::thread::sleep(pause);
            answer = self.connect();
            match &answer {
                Err(fault) if matches!(fault.code, Code::BrokerUnreachable | Code::BrokerStart | Code::Busy) => {}
                Ok(()) | Err(_) => break,
            }
        }
        answer
    }

    fn step(&mut self) -> Result<Option<Event>, Fault> {
        if let Some(event) = self.parser.next()? {
            return Ok(Some(event));
        }
        let Some((wire, body)) = &mut self.open else {
            match (self.reconnects, self.connected) {
                (true, _) => self.reconnect()?,
                (false, false) => self.open()?,
                (false, true) => self.ended = true,
            }
            return Ok(None);
        };
        match body.next(wire, None) {
            Ok(Some(piece)) => self.parser.feed(piece),
            // The end of a stream and a lost connection are the same to a follower.
            Ok(None) | Err(_) => self.open = None,
        }
        Ok(None)
    }
}

impl Iterator for Events {
    type Item = Result<Event, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.step() {
                Ok(Some(event)) => {
                    if let Some(id) = &event.id {
                        self.last = Some(id.clone());
                    }
                    return Some(Ok(event));
                }
                Ok(None) => {}
                Err(fault) => {
                    self.ended = true;
                    return Some(Err(fault));
                }
            }
        }
        None
    }
}

/// Cuts a stream of bytes into events.
#[derive(Default)]
struct Parser {
    bytes: Vec<u8>,
    /// Start of the first line that was not looked at.
    at: usize,
    id: Option<String>,
    name: String,
    data: Vec<String>,
}

impl Parser {
    fn feed(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(piece);
    }

    fn next(&mut self) -> Result<Option<Event>, Fault> {
        let size: usize = self.data.iter().map(String::len).sum();
        if self.bytes.len() - self.at + size > EVENT_MAX_BYTES {
            return Err(
                Fault::new(Code::BrokerVersion).cause(format!("an event is longer than {EVENT_MAX_BYTES} bytes"))
            );
        }
        while let Some(length) = self.bytes[self.at..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[self.at..self.at + length]).into_owned();
            self.at += length + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let (id, name, data) = (self.id.take(), std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !data.is_empty() {
                    let name = if name.is_empty() { "message".to_owned() } else { name };
                    return Ok(Some(Event { id, name, data: data.join("\n") }));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()) => {
                    self.id = Some(value.to_owned())
                }
                "event" => value.clone_into(&mut self.name),
                "data" => self.data.push(value.to_owned()),
                // Comments, and fields that the standard says to ignore.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn all(text: &[u8], step: usize) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        for piece in text.chunks(step) {
            parser.feed(piece);
            while let Some(event) = parser.next().unwrap() {
                out.push(event);
            }
        }
        out
    }

    #[test]
    fn events_are_cut_where_the_standard_says() {
        let text = concat!(
            ": hello\r\n\r\nid: 7\r\nevent: run\r\ndata: {\"a\":1}\r\n\r\n",
            "data:x\ndata: y\n\nid: 8\n\nid: a b\ndata: \u{e9}\n\ndata: cut",
        );
        let event = |id: Option<&str>, name: &str, data: &str| Event {
            id: id.map(Into::into),
            name: name.into(),
            data: data.into(),
        };
        let want =
            [event(Some("7"), "run", "{\"a\":1}"), event(None, "message", "x\ny"), event(None, "message", "\u{e9}")];
        for step in 1..20 {
            assert_eq!(all(text.as_bytes(), step), want, "step {step}");
        }
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut parser = Parser::default();
        let mut line = b"data: ".to_vec();
        line.resize(300_000, b'x');
        line.push(b'\n');
        for _ in 0..3 {
            parser.feed(&line);
            assert_eq!(parser.next().unwrap(), None);
        }
        parser.feed(&line);
        parser.feed(&line);
        assert!(parser.next().is_err());
    }
}
