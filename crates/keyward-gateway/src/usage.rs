//! What an answer says that it used, read as it streams by.
//!
//! Understands the answers of models in one JSON document, as server-sent events (WHATWG HTML section 9.2), and as frames of
//! `application/vnd.amazon.eventstream`; whose they are shows by the names of their fields. Never gathers an answer: what it
//! keeps is the object that counts tokens, and of frames one at a time. Changes nothing that passes. What it cannot read it
//! leaves unsaid. Called by `fence`, for leases whose fence counts money.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use keyward_core::Usage;
use serde_json::{Map, Value};

/// Longest object that counts tokens, in bytes.
const OBJECT_MAX_BYTES: usize = 16 * 1024;
/// Longest key that is compared, in bytes.
const KEY_MAX_BYTES: usize = 40;
/// Longest frame that is read, in bytes; a longer one is passed over.
const FRAME_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of a frame before its headers, and behind its payload.
const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// What was read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Tokens; each kind as high as it was said.
    pub(crate) usage: Usage,
    /// Something was said.
    pub(crate) any: bool,
    /// It was said at the end, or goes for all that came before it, and not at the beginning only.
    pub(crate) whole: bool,
}

impl Found {
    fn add(&mut self, object: &[u8], whole: bool) {
        let Ok(Value::Object(object)) = serde_json::from_slice(object) else { return };
        let said = usage(&object);
        let most = &mut self.usage;
        most.input = most.input.max(said.input);
        most.cache_read = most.cache_read.max(said.cache_read);
        most.cache_write = most.cache_write.max(said.cache_write);
        most.cache_write_long = most.cache_write_long.max(said.cache_write_long);
        most.output = most.output.max(said.output);
        (self.any, self.whole) = (true, self.whole || whole);
    }
}

/// Tokens as the APIs count them. Anthropic and Bedrock count what a cache took or gave apart from the input, the others in
/// it; Google counts thoughts apart from the output.
fn usage(object: &Map<String, Value>) -> Usage {
    let first = |names: &[&str]| names.iter().find_map(|name| object.get(*name)?.as_u64()).unwrap_or_default();
    let inner = |outer: &[&str], name: &str| {
        outer.iter().find_map(|outer| object.get(*outer)?.get(name)?.as_u64()).unwrap_or_default()
    };
    let details = ["input_tokens_details", "prompt_tokens_details"];
    let within = inner(&details, "cached_tokens").max(first(&["cachedContentTokenCount"]));
    let written_within = inner(&details, "cache_write_tokens");
    let input = first(&["input_tokens", "prompt_tokens", "inputTokens", "inputTokenCount", "promptTokenCount"])
        .saturating_sub(within)
        .saturating_sub(written_within)
        .saturating_add(first(&["toolUsePromptTokenCount"]));
    let read = first(&["cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"]);
    let written = first(&["cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"]);
    let hour = |detail: &Value| (detail.get("ttl")? == "1h").then(|| detail.get("inputTokens")?.as_u64()).flatten();
    let listed = object.get("cacheDetails").and_then(Value::as_array).into_iter().flatten().filter_map(hour);
    let long = listed.fold(inner(&["cache_creation"], "ephemeral_1h_input_tokens"), u64::saturating_add).min(written);
    let output =
        first(&["output_tokens", "completion_tokens", "outputTokens", "outputTokenCount", "candidatesTokenCount"]);
    Usage {
        input,
        cache_read: read.saturating_add(within),
        cache_write: (written - long).saturating_add(written_within),
        cache_write_long: long,
        output: output.saturating_add(first(&["thoughtsTokenCount"])),
    }
}

/// Reads one answer.
pub(crate) struct Reader {
    form: Form,
    found: Found,
}

enum Form {
    Document(Scanner),
    Events(Events),
    Frames(Frames),
    /// It is of no kind that is known, or coded.
    Closed,
}

impl Reader {
    /// A reader for an answer with this head.
    pub(crate) fn new(head: &HeaderMap) -> Self {
        let kind = head.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let plain = head.get(CONTENT_ENCODING).is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let form = match kind.as_str() {
            _ if !plain => Form::Closed,
            "application/json" => Form::Document(Scanner::default()),
            "text/event-stream" => Form::Events(Events::default()),
            "application/vnd.amazon.eventstream" => Form::Frames(Frames::default()),
            _ => Form::Closed,
        };
        Self { form, found: Found::default() }
    }

    /// Takes the next bytes of the body.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Document(scanner) => scanner.read(bytes, &mut self.found),
            Form::Events(events) => events.read(bytes, &mut self.found),
            Form::Frames(frames) => {
                if !frames.read(bytes, &mut self.found) {
                    self.form = Form::Closed;
                }
            }
            Form::Closed => {}
        }
    }

    /// What was said so far.
    pub(crate) fn found(&self) -> Found {
        self.found
    }
}

/// Server-sent events: each `data` field is one JSON document.
#[derive(Default)]
struct Events {
    /// Bytes of the line so far; of no interest beyond the name of the field.
    at: usize,
    /// The line is one of data, or may still be.
    data: bool,
    scanner: Scanner,
}

impl Events {
    const FIELD: &[u8] = b"data:";

    fn read(&mut self, mut bytes: &[u8], found: &mut Found) {
        while let Some(&byte) = bytes.first() {
            if matches!(byte, b'\n' | b'\r') {
                (self.at, self.scanner) = (0, Scanner::default());
            } else if let Some(&wanted) = Self::FIELD.get(self.at) {
                self.data = byte == wanted && (self.at == 0 || self.data);
                self.at += 1;
            } else {
                let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len());
                let (line, rest) = bytes.split_at(end);
                if self.data {
                    self.scanner.read(line, found);
                }
                bytes = rest;
                continue;
            }
            bytes = bytes.get(1..).unwrap_or_default();
        }
    }
}

/// Frames: 4 bytes of length, 4 bytes of the length of the headers, most significant first, a checksum, the headers, the
/// payload, a checksum. The payload is a JSON document, or one that has such a document in `bytes`, in base64.
#[derive(Default)]
struct Frames {
    held: Vec<u8>,
    /// Bytes of a frame that is too long.
    passed_over: usize,
}

impl Frames {
    /// Whether they are frames at all.
    fn read(&mut self, mut bytes: &[u8], found: &mut Found) -> bool {
        loop {
            let skipped = self.passed_over.min(bytes.len());
            self.passed_over -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return true;
            }
            if self.held.len() < PRELUDE {
                bytes = self.take(bytes, PRELUDE);
            }
            let (Some(length), Some(headers)) = (self.number(0), self.number(4)) else { return true };
            if length < PRELUDE + CHECKSUM || headers > length - PRELUDE - CHECKSUM {
                return false;
            }
            if length > FRAME_MAX_BYTES {
                (self.passed_over, self.held) = (length - self.held.len(), Vec::new());
                continue;
            }
            bytes = self.take(bytes, length);
            if self.held.len() < length {
                return true;
            }
            if let Some(payload) = self.held.get(PRELUDE + headers..length - CHECKSUM) {
                document(payload, found);
            }
            self.held.clear();
        }
    }

    /// Takes bytes until `wanted` are held; gives the rest.
    fn take<'b>(&mut self, bytes: &'b [u8], wanted: usize) -> &'b [u8] {
        let (taken, rest) = bytes.split_at(wanted.saturating_sub(self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(taken);
        rest
    }

    /// A number of the prelude, once that is there.
    fn number(&self, at: usize) -> Option<usize> {
        let prelude = self.held.get(..PRELUDE)?;
        let bytes = prelude.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }
}

fn document(payload: &[u8], found: &mut Found) {
    #[derive(serde::Deserialize)]
    struct Chunk {
        bytes: String,
    }
    let inner = serde_json::from_slice(payload).ok().and_then(|chunk: Chunk| STANDARD.decode(chunk.bytes).ok());
    Scanner::default().read(inner.as_deref().unwrap_or(payload), found);
}

/// Looks through a JSON document for the objects that count tokens: `usage`, `usageMetadata` and
/// `amazon-bedrock-invocationMetrics` of the document or of each element of its array, and `usage` of its `message` (at the
/// beginning of a stream) and `response`.
#[derive(Default)]
struct Scanner {
    depth: usize,
    /// The document is an array.
    list: bool,
    text: Option<Text>,
    last: Vec<u8>,
    key: Option<Key>,
    /// Depth of the object whose `usage` counts too, and whether that is said at the end.
    within: Option<(usize, bool)>,
    kept: Option<Kept>,
}

/// Inside of a string.
struct Text {
    escaped: bool,
}

/// The object that is being kept.
struct Kept {
    depth: usize,
    bytes: Vec<u8>,
    whole: bool,
}

/// The key of the value that comes.
#[derive(Clone, Copy)]
enum Key {
    /// Of an object that counts tokens; whether it is said at the end.
    Counts(bool),
    /// Of an object that has one; whether that is said at the end.
    Holds(bool),
}

impl Scanner {
    fn read(&mut self, bytes: &[u8], found: &mut Found) {
        for &byte in bytes {
            self.step(byte, found);
        }
    }

    fn step(&mut self, byte: u8, found: &mut Found) {
        if let Some(kept) = &mut self.kept {
            if kept.bytes.len() < OBJECT_MAX_BYTES {
                kept.bytes.push(byte);
            } else {
                self.kept = None;
            }
        }
        if let Some(text) = &mut self.text {
            match byte {
                _ if text.escaped => text.escaped = false,
                b'\\' => text.escaped = true,
                b'"' => self.text = None,
                _ if self.last.len() < KEY_MAX_BYTES => self.last.push(byte),
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.last.clear();
                self.text = Some(Text { escaped: false });
            }
            b':' => self.key = self.named(),
            b',' => self.key = None,
            b'{' | b'[' => {
                self.list |= self.depth == 0 && byte == b'[';
                self.depth += 1;
                match self.key.take().filter(|_| byte == b'{' && self.kept.is_none()) {
                    Some(Key::Counts(whole)) => {
                        self.kept = Some(Kept { depth: self.depth, bytes: vec![byte], whole });
                    }
                    Some(Key::Holds(whole)) => self.within = Some((self.depth, whole)),
                    None => {}
                }
            }
            b'}' | b']' => {
                if let Some(kept) = self.kept.take_if(|kept| kept.depth == self.depth) {
                    found.add(&kept.bytes, kept.whole);
                }
                self.within.take_if(|(depth, _)| *depth == self.depth);
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn named(&self) -> Option<Key> {
        let whole = match self.within {
            Some((depth, whole)) if depth == self.depth => {
                return (self.last == b"usage").then_some(Key::Counts(whole));
            }
            _ => true,
        };
        if self.depth != if self.list { 2 } else { 1 } {
            return None;
        }
        match self.last.as_slice() {
            b"usage" | b"usageMetadata" | b"amazon-bedrock-invocationMetrics" => Some(Key::Counts(whole)),
            b"message" => Some(Key::Holds(false)),
            b"response" => Some(Key::Holds(true)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    fn read(kind: &str, body: &[u8], piece: usize) -> Found {
        let head = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        let mut reader = Reader::new(&head);
        body.chunks(piece).for_each(|piece| reader.read(piece));
        reader.found()
    }

    /// However the bytes come in, the same is read.
    fn tokens(kind: &str, body: &[u8]) -> Found {
        let found = read(kind, body, body.len().max(1));
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(read(kind, body, piece), found, "in pieces of {piece}");
        }
        found
    }

    fn parts(found: Found) -> [u64; 5] {
        let Usage { input, cache_read, cache_write, cache_write_long, output } = found.usage;
        [input, cache_read, cache_write, cache_write_long, output]
    }

    fn frame(payload: &str) -> Vec<u8> {
        let headers = b"\x0b:event-type\x07\x00\x05chunk";
        let mut frame = Vec::new();
        frame.extend(u32::try_from(PRELUDE + headers.len() + payload.len() + CHECKSUM).unwrap().to_be_bytes());
        frame.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(headers);
        frame.extend(payload.as_bytes());
        frame.extend([0; 4]);
        frame
    }

    #[test]
    fn documents_of_all_vendors_are_read() {
        for (body, expected) in [
            (
                json!({"type": "message", "content": [{"text": "\"usage\": {\"output_tokens\": 9}"}], "usage": {
                    "input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30,
                    "cache_creation": {"ephemeral_5m_input_tokens": 25, "ephemeral_1h_input_tokens": 5}, "output_tokens": 40,
                }}),
                [10, 20, 25, 5, 40],
            ),
            (
                json!({"object": "chat.completion", "choices": [{"message": {"usage": {"completion_tokens": 99}}}], "usage": {
                    "prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens": 7,
                }}),
                [40, 60, 0, 0, 7],
            ),
            (
                json!({"object": "response", "output": [{"usage": {"output_tokens": 99}}], "usage": {
                    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 10},
                    "output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 5},
                }}),
                [40, 50, 10, 0, 8],
            ),
            (
                json!({"candidates": [], "usageMetadata": {
                    "promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 6,
                }}),
                [6, 4, 0, 0, 11],
            ),
            (
                json!([{"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 1}},
                    {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 9}}]),
                [10, 0, 0, 0, 9],
            ),
            (
                json!({"output": {"message": {"content": []}}, "usage": {"inputTokens": 1, "outputTokens": 2,
                    "cacheReadInputTokens": 3, "cacheWriteInputTokens": 5, "cacheDetails": [{"ttl": "1h", "inputTokens": 4}]}}),
                [1, 3, 1, 4, 2],
            ),
        ] {
            for text in [body.to_string(), serde_json::to_string_pretty(&body).unwrap()] {
                let found = tokens("application/json; charset=utf-8", text.as_bytes());
                assert_eq!((parts(found), found.whole), (expected, true), "{text}");
            }
        }
    }

    #[test]
    fn events_are_read_and_their_end_is_known() {
        let start = json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 25, "output_tokens": 1}}});
        let text = json!({"type": "content_block_delta", "delta": {"text": "{\"usage\":{\"output_tokens\":9999}}"}});
        let end =
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}});
        let events = format!(
            "event: message_start\r\ndata: {start}\r\n\r\n: data:{{\"usage\":{{\"output_tokens\":7777}}}}\ndata: {text}\n\n"
        );
        let found = tokens("text/event-stream", events.as_bytes());
        assert_eq!((parts(found), found.any, found.whole), ([25, 0, 0, 0, 1], true, false));
        let found = tokens("text/event-stream; charset=utf-8", format!("{events}data:{end}\n\n").as_bytes());
        assert_eq!((parts(found), found.whole), ([25, 0, 0, 0, 15], true));

        let created =
            json!({"type": "response.created", "response": {"status": "in_progress", "usage": null, "output": []}});
        let done = json!({"type": "response.completed", "response": {"output": [{"content": "x".repeat(100_000)}], "usage": {"input_tokens": 3, "output_tokens": 4}}});
        let found = tokens("text/event-stream", format!("data: {created}\n\ndata: {done}\n\n").as_bytes());
        assert_eq!((parts(found), found.whole), ([3, 0, 0, 0, 4], true));

        let found = tokens("text/event-stream", b"data: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n");
        assert_eq!((parts(found), found.whole), ([2, 0, 0, 0, 5], true));
    }

    #[test]
    fn frames_are_read() {
        let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}});
        let stop = json!({"type": "message_stop", "amazon-bedrock-invocationMetrics":
            {"inputTokenCount": 25, "outputTokenCount": 15, "cacheReadInputTokenCount": 7}});
        let inner =
            |event: &Value| frame(&json!({"bytes": STANDARD.encode(event.to_string()), "p": "abc"}).to_string());
        let mut body = inner(&start);
        let found = tokens("application/vnd.amazon.eventstream", &body);
        assert_eq!((parts(found), found.whole), ([25, 0, 0, 0, 1], false));
        body.extend(inner(&stop));
        assert_eq!(parts(tokens("application/vnd.amazon.eventstream", &body)), [25, 7, 0, 0, 15]);

        let mut body = frame(&json!({"contentBlockIndex": 0, "delta": {"text": "x"}}).to_string());
        body.extend(frame(&" ".repeat(FRAME_MAX_BYTES)));
        body.extend(frame(&json!({"usage": {"inputTokens": 1, "outputTokens": 2}, "metrics": {}}).to_string()));
        let found = read("application/vnd.amazon.eventstream", &body, 1000);
        assert_eq!((parts(found), found.whole), ([1, 0, 0, 0, 2], true));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let said = br#"{"usage":{"output_tokens":5}}"#;
        assert!(!tokens("text/html", said).any);
        let mut head = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        head.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let mut reader = Reader::new(&head);
        reader.read(said);
        assert!(!reader.found().any);
        for odd in [
            &br#"{"usage":[{"output_tokens":5}]}"#[..],
            br#"{"usage":5}"#,
            br#"{"usage":"{","x":{"output_tokens":5}}"#,
            br#"{"x":{"usage":{"output_tokens":5}}}"#,
            br#"{"message":[{"usage":{"output_tokens":5}}]}"#,
            br#""usage":{"output_tokens":5}"#,
            b"}}}]]]",
            b"\xff\xfe{",
        ] {
            assert!(!tokens("application/json", odd).any, "{}", String::from_utf8_lossy(odd));
        }
        let large = format!("{{\"usage\":{{\"x\":\"{}\",\"output_tokens\":5}}}}", "y".repeat(OBJECT_MAX_BYTES));
        assert!(!tokens("application/json", large.as_bytes()).any);
        assert!(!tokens("application/vnd.amazon.eventstream", &[0; 64]).any);
        assert!(!tokens("application/vnd.amazon.eventstream", &[0xff; 64]).any);
        let odd = br#"{"usage":{"output_tokens":-5,"input_tokens":1e3,"prompt_tokens":18446744073709551616}}"#;
        assert_eq!(parts(tokens("application/json", odd)), [0; 5]);
    }

    proptest::proptest! {
        /// Whatever comes is read without an end of the program, and in the same way however it comes in.
        #[test]
        fn any_bytes_are_survived(
            body in "[{}\\[\\]\":, \\\\a-z0-9\n]{0,200}", tail in proptest::collection::vec(proptest::num::u8::ANY, 0..100),
            kind in 0..3_usize, piece in 1..9_usize,
        ) {
            let kind = ["application/json", "text/event-stream", "application/vnd.amazon.eventstream"][kind];
            let body = [body.as_bytes(), &tail].concat();
            let whole = read(kind, &body, body.len().max(1));
            proptest::prop_assert_eq!(read(kind, &body, piece), whole);
        }
    }
}
