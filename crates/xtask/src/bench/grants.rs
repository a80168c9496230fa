//! What it costs to decide a request beside many standing grants.
//!
//! This program is a requester to the broker, since only what it starts is a child of the shell that unlocked: it asks for a
//! token over one connection again and again, with one grant, then with ten thousand. Called by `bench`.

use super::{Row, interrupted, median, ms};
use crate::home::Home;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Grants beside the one that fits.
const GRANTS: usize = 9_999;
/// Requests for each figure.
const ASKED: usize = 1_000;

/// The row. Needs an unlocked vault with the profile `bench`; takes its grants back.
pub(super) fn row(home: &Home) -> Result<Row, String> {
    let mut operator = Wire::open(home)?;
    let mut requester = Wire::open(home)?;
    operator.ask("POST", "/v1/operator", &json!({"passphrase": home.passphrase}))?;
    let mut made = vec![operator.grant(&json!({"profile": "bench", "for_s": 3600}))?];
    let few = requester.tokens()?;
    for n in 0..GRANTS {
        let project = home.root.join(format!("projects/{n}"));
        std::fs::create_dir_all(&project).map_err(|e| format!("{}: {e}", project.display()))?;
        made.push(operator.grant(&json!({"profile": "bench", "for_s": 3600, "project": project}))?);
        interrupted()?;
    }
    let many = requester.tokens()?;
    for id in &made {
        operator.ask("DELETE", &format!("/v1/grants/{id}"), &Value::Null)?;
    }
    let more = (many - few) * 1_000.0;
    Ok(Row {
        what: format!("a request decided beside {} standing grants over beside one, median of {ASKED}", made.len()),
        target: "≤ 100 µs more",
        measured: format!("{more:+.0} µs"),
        floor: format!("a recorded token beside one grant {:.0} µs", few * 1_000.0),
        met: more <= 100.0,
    })
}

/// A connection to the broker.
struct Wire(BufReader<UnixStream>);

impl Wire {
    fn open(home: &Home) -> Result<Self, String> {
        Ok(Self(BufReader::new(super::connect(home)?)))
    }

    /// Asks, and gives the document of the answer; null where it has none.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let told = |e: std::io::Error| format!("{method} {path}: {e}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: keyward\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all((head + &body).as_bytes()).map_err(told)?;
        let (mut status, mut length, mut line) = (String::new(), 0, String::new());
        while self.0.read_line(&mut line).map_err(told)? > 0 && line != "\r\n" {
            if status.is_empty() {
                status = line.trim_end().to_owned();
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().map_err(|_| format!("{method} {path}: a length expected: {line}"))?;
            }
            line.clear();
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).map_err(told)?;
        if !status.starts_with("HTTP/1.1 2") {
            return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer)));
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Makes a grant and gives its id.
    fn grant(&mut self, body: &Value) -> Result<String, String> {
        let made = self.ask("POST", "/v1/grants", body)?;
        made["grant"].as_str().map(str::to_owned).ok_or_else(|| "the id of a grant expected".to_owned())
    }

    /// Asks for a token again and again; the median time in milliseconds.
    fn tokens(&mut self) -> Result<f64, String> {
        let mut times = Vec::with_capacity(ASKED);
        for _ in 0..ASKED {
            let begin = Instant::now();
            self.ask("POST", "/v1/token", &json!({"profile": "bench"}))?;
            times.push(ms(begin.elapsed()));
            interrupted()?;
        }
        Ok(median(&mut times))
    }
}
