//! Requests that the document does not allow, made from the document.

use crate::schema::{Operation, document, operations, resolve, sample, types};
use keyward_testkit::{Home, Reply, Wire};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Stands in a body for a number that no JSON library would write.
const HUGE: &str = "@huge@";

/// What fits no field that does not take its type.
fn strangers() -> Vec<(&'static str, Value)> {
    vec![
        ("null", Value::Null),
        ("boolean", json!(false)),
        ("integer", json!(7)),
        ("number", json!(1.5)),
        ("string", json!("x")),
        ("array", json!([[]])),
        ("object", json!({"no": "field"})),
    ]
}

/// Bodies that differ from an allowed one in one place and are not allowed.
fn refused(document: &Value, schema: &Value, good: &Value, out: &mut Vec<Value>) {
    let schema = resolve(document, schema);
    let allowed = types(document, schema);
    let strangers = strangers().into_iter().filter(|(kind, _)| !allowed.iter().any(|t| t == kind));
    out.extend(strangers.map(|(_, value)| value));
    inside(document, schema, good, out);
}

/// As [`refused`], without values of another type.
fn inside(document: &Value, schema: &Value, good: &Value, out: &mut Vec<Value>) {
    let schema = resolve(document, schema);
    if let Some(first) = schema["oneOf"].get(0).or(schema["anyOf"].get(0)) {
        return inside(document, first, good, out);
    }
    if types(document, schema).iter().any(|t| t == "integer") {
        out.extend([json!(-1), json!(1.5), json!(HUGE)]);
    }
    if schema["enum"].is_array() {
        out.extend([json!("x"), json!("")]);
    }
    if let Some(first) = good.get(0) {
        let mut inner = Vec::new();
        refused(document, &schema["items"], first, &mut inner);
        out.extend(inner.into_iter().map(|v| json!([v])));
    }
    let Some(fields) = schema["properties"].as_object() else { return };
    for (name, field) in fields {
        let mut inner = Vec::new();
        refused(document, field, &good[name], &mut inner);
        out.extend(inner.into_iter().map(|value| with(good, name, Some(value))));
        if schema["required"].as_array().is_some_and(|r| r.contains(&json!(name))) {
            out.push(with(good, name, None));
        }
    }
    if schema["additionalProperties"] == json!(false) {
        out.extend(["extra", "", "__proto__", "Passphrase"].map(|name| with(good, name, Some(json!("x")))));
    }
}

fn with(good: &Value, name: &str, value: Option<Value>) -> Value {
    let mut changed = good.as_object().cloned().unwrap_or_default();
    match value {
        Some(value) => changed.insert(name.to_owned(), value),
        None => changed.remove(name),
    };
    Value::Object(changed)
}

/// Allowed bodies whose texts are odd, one at a time. None names a place where something could be written.
fn odd(good: &Value, out: &mut Vec<Value>) {
    let texts = ["", "\0", "..", "a/b", "\u{202e}\u{1b}[2J\r\n", "secret:x", "%2e%2e", "é", "\u{10ffff}"];
    match good {
        Value::String(_) => {
            out.extend(texts.map(Value::from));
            out.extend([json!("y".repeat(5_000)), json!("[[\n".repeat(2_000))]);
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let mut inner = Vec::new();
                odd(value, &mut inner);
                out.extend(inner.into_iter().map(|v| with(good, name, Some(v))));
            }
        }
        Value::Array(items) => {
            let mut inner = Vec::new();
            items.iter().for_each(|item| odd(item, &mut inner));
            out.extend(inner.into_iter().map(|v| json!([v])));
            out.push(json!(vec![items.first(); 5_000]));
        }
        Value::Number(_) => out.extend([json!(0), json!(u64::MAX), json!(i64::MAX)]),
        Value::Null | Value::Bool(_) => {}
    }
}

fn bytes(body: &Value) -> Vec<u8> {
    body.to_string().replace(&format!("\"{HUGE}\""), &"9".repeat(400)).into_bytes()
}

/// Bodies that are no JSON, or none of the right kind, whatever the operation.
fn broken() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n)).into_bytes();
    let mut all: Vec<Vec<u8>> =
        ["", " ", "null", "[]", "7", "\"\"", "{", "}", "{\"a\"", "{\"a\":}", "{'a':1}", "\u{feff}{}", "{}{}", "NaN"]
            .map(|text| text.as_bytes().to_vec())
            .into();
    all.extend([
        deep("[", "]", 200),
        deep("{\"a\":", "}", 200),
        deep("[", "", 30_000),
        deep("{\"proof\":", "}", 5_000),
    ]);
    all.extend([b"{\"a\":\"\xff\xfe\"}".to_vec(), b"\xff".to_vec(), b"{\"\xc0\x80\":1}".to_vec(), vec![0; 100]]);
    all.extend([b"{\"x\":\"\\ud800\"}".to_vec(), b"{\"x\":1,\"x\":1}".to_vec()]);
    all
}

struct Fuzz {
    home: Home,
    codes: BTreeSet<String>,
    sent: usize,
}

impl Fuzz {
    fn new() -> (Self, Value) {
        let (home, document) = (Home::with_vault(), document());
        home.static_profile("x", "s3cret", "T");
        let codes = &document["components"]["schemas"]["Fault"]["properties"]["code"]["enum"];
        let codes = codes.as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
        (Self { home, codes, sent: 0 }, document)
    }

    fn send(&mut self, operation: &Operation, part: &str, body: &[u8]) -> Reply {
        self.sent += 1;
        let path = match operation.path.split_once('{') {
            Some((head, tail)) => format!("{head}{part}{}", tail.split_once('}').unwrap().1),
            None => operation.path.clone(),
        };
        let reply = Wire::once(&self.home.socket(), &operation.method, &path, &["keyward-api: 1"], body);
        let shown = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap()).into_owned();
        let reply = reply.unwrap_or_else(|| panic!("{}: no answer to {shown}", operation.id));
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status < 500, "{} {shown}: {} {said}", operation.id, reply.status);
        if reply.status >= 400 {
            let fault = reply.json();
            let code = fault["code"].as_str().unwrap_or_default();
            assert!(self.codes.contains(code) && code != "internal", "{} {shown}: {said}", operation.id);
            for field in ["message", "help", "causes", "exit"] {
                assert!(fault.get(field).is_some(), "{} {shown}: {said}", operation.id);
            }
            assert!(!said.contains("s3cret"), "{said}");
        }
        reply
    }

    /// Fails unless the worker is the one of the beginning and still works.
    fn over(self, worker: Option<i32>) {
        assert!(self.sent > 50, "{} requests", self.sent);
        assert_eq!(self.home.broker_pid(), worker, "it crashed");
        self.home.keyward(&["token", "x"]).exits(0);
        self.home.keyward(&["audit", "verify"]).exits(0);
    }
}

#[test]
fn bodies_that_are_not_allowed_are_refused_with_a_fault() {
    let (mut fuzz, document) = Fuzz::new();
    let worker = fuzz.home.broker_pid();
    for operation in operations(&document) {
        let Some(schema) = &operation.request else { continue };
        let good = sample(&document, schema);
        let mut bodies = Vec::new();
        refused(&document, schema, &good, &mut bodies);
        let bodies: Vec<Vec<u8>> = bodies.iter().map(bytes).chain(broken()).collect();
        for body in bodies {
            let reply = fuzz.send(&operation, "x", &body);
            let fault = if reply.status < 400 { Value::Null } else { reply.json() };
            let shown = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(fault["code"], "request.invalid", "{} {shown:.300}: {}", operation.id, reply.status);
        }
    }
    assert!(fuzz.sent > 500, "{} requests", fuzz.sent);
    fuzz.over(worker);
}

#[test]
fn odd_texts_and_parts_are_answered_without_a_fault_of_ours() {
    let (mut fuzz, document) = Fuzz::new();
    let worker = fuzz.home.broker_pid();
    for operation in operations(&document) {
        if matches!(operation.id.as_str(), "Events" | "BrokerStop" | "Lock" | "ProfileRemove" | "SecretRemove") {
            continue;
        }
        let mut good = operation.request.as_ref().map_or(Value::Null, |schema| sample(&document, schema));
        if let Some(wait) = good.get_mut("wait") {
            // Nobody is there to answer it.
            *wait = json!(false);
        }
        let mut bodies = Vec::new();
        odd(&good, &mut bodies);
        for body in &bodies {
            fuzz.send(&operation, "x", &bytes(body));
        }
        if operation.path.contains('{') {
            let body = if good.is_null() { Vec::new() } else { bytes(&good) };
            for part in ["..", "%00", "%2e%2e%2f", "-", "x%20y", "\u{e9}", "x;y", "x:y", &"z".repeat(3_000)] {
                fuzz.send(&operation, part, &body);
            }
        }
    }
    fuzz.over(worker);
}

#[test]
fn bodies_over_the_limit_are_too_large_and_those_at_it_are_not() {
    let (mut fuzz, document) = Fuzz::new();
    let worker = fuzz.home.broker_pid();
    for operation in operations(&document) {
        if matches!(operation.id.as_str(), "Events" | "BrokerStop" | "Lock" | "ProfileRemove" | "SecretRemove") {
            continue;
        }
        for length in [64 * 1024 + 1, 1 << 20] {
            let reply = fuzz.send(&operation, "x", &vec![b' '; length]);
            assert_eq!((reply.status, &reply.json()["code"]), (413, &"request.too_large".into()), "{}", operation.id);
        }
        let reply = fuzz.send(&operation, "x", &vec![b' '; 64 * 1024]);
        assert_ne!(reply.status, 413, "{}", operation.id);
    }
    fuzz.over(worker);
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let home = Home::with_vault();
    let worker = home.broker_pid();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000));
    let fields = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
    for bytes in [
        &b"\r\n\r\n"[..],
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/token HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /v1/token HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/sta\0tus HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        fields.as_bytes(),
    ] {
        let mut wire = Wire::open(&home.socket());
        wire.send_bytes(bytes);
        // A second request on it shows whether the first one was taken for something.
        wire.send_bytes(b"GET /nothing HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n");
        while let Some(reply) = wire.reply() {
            assert!((400..500).contains(&reply.status), "{}: {}", String::from_utf8_lossy(bytes), reply.status);
        }
    }
    assert_eq!(home.broker_pid(), worker);
    assert_eq!(Wire::once(&home.socket(), "GET", "/v1/status", &[], b"").map(|r| r.status), Some(200));
}
