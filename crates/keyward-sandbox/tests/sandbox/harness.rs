//! A sandbox of one test: the built program in a throw-away folder, and a client that sends exactly what it is told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Longest time that a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kwsb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_keyward-sandbox"));
    for name in ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"] {
        program.env_remove(name);
    }
    program
}

pub(crate) struct Sandbox {
    pub(crate) folder: Folder,
    pub(crate) ready: Value,
    pub(crate) process: Child,
    pub(crate) stdin: Option<ChildStdin>,
}

impl Sandbox {
    /// Starts `serve` with these arguments and `--rotate 0s`, unless they say otherwise.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let mut command = program();
        command.arg("serve").arg("--folder").arg(folder.0.join("served")).args(arguments);
        if !arguments.contains(&"--rotate") {
            command.args(["--rotate", "0s"]);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let stdin = process.stdin.take();
        Self { folder, ready, process, stdin }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    pub(crate) fn address(&self) -> &str {
        self.text("base_url").strip_prefix("http://").unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.text(name)).unwrap()
    }

    /// The identity token in the file.
    pub(crate) fn assertion(&self) -> String {
        self.file("identity_token_file")
    }

    /// A request that the token endpoint grants.
    pub(crate) fn request(&self) -> Value {
        json!({
            "grant_type": GRANT_TYPE,
            "assertion": self.assertion(),
            "federation_rule_id": self.text("federation_rule_id"),
            "organization_id": self.text("organization_id"),
        })
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_send(method, path, headers, body).unwrap()
    }

    /// Sends one HTTP/1.0 request, whose answer ends with the connection, and reads to the end.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.0\r\nhost: {}\r\n", self.address());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(Answer::read(&String::from_utf8_lossy(&bytes)))
    }

    /// One token request with this body.
    pub(crate) fn exchange(&self, body: &Value) -> Answer {
        self.send("POST", "/v1/oauth/token", &[("content-type", "application/json")], &body.to_string())
    }

    /// A token.
    pub(crate) fn token(&self) -> String {
        let answer = self.exchange(&self.request());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// One POST of a JSON document with these further header fields.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers: Vec<_> =
            [("content-type", "application/json")].into_iter().chain(headers.iter().copied()).collect();
        self.send("POST", path, &headers, &body.to_string())
    }

    /// One POST of a form.
    pub(crate) fn form(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.send("POST", path, &[("content-type", "application/x-www-form-urlencoded")], &body)
    }

    /// One message with this token.
    pub(crate) fn message(&self, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
        ];
        self.send("POST", "/v1/messages", &headers, &body.to_string())
    }

    /// Turns a switch.
    pub(crate) fn turn(&self, name: &str, body: Value) {
        let answer = self.switch(name, &body.to_string());
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }

    pub(crate) fn switch(&self, name: &str, body: &str) -> Answer {
        self.send("POST", &format!("/sandbox/{name}"), &[("x-keyward-sandbox", "1")], body)
    }

    pub(crate) fn stats(&self) -> Value {
        self.send("GET", "/sandbox/stats", &[("x-keyward-sandbox", "1")], "").json()
    }

    /// The lines of the journal.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let answer = self.send("GET", "/sandbox/journal", &[("x-keyward-sandbox", "1")], "");
        assert_eq!(answer.status, 200);
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The reason of the last request.
    pub(crate) fn reason(&self) -> Value {
        self.journal().pop().unwrap()["reason"].take()
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let process = &mut self.process;
        until(|| process.try_wait().unwrap())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The type of an error in the API's shape, or of RFC 6749.
    pub(crate) fn error(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        error["type"].as_str().or_else(|| error.as_str()).unwrap_or_default().to_owned()
    }
}

/// Polls until there is something.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The claims of a token.
pub(crate) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// `object` with `changes` put over it; `null` takes a field away.
pub(crate) fn changed(object: &Value, changes: &Value) -> Value {
    let mut object = object.as_object().unwrap().clone();
    object.extend(changes.as_object().unwrap().clone());
    object.retain(|_, value| !value.is_null());
    Value::Object(object)
}

pub(crate) fn hello() -> Value {
    json!({"model": "claude-sandbox-1", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]})
}

pub(crate) fn fingerprint(path: &Path) -> String {
    let out = program().args(["show", "A_FILE"]).env("A_FILE", path).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split(['(', ')']).nth(1).unwrap().to_owned()
}
