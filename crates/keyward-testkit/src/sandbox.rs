//! The sandbox of a test: token endpoint, Messages API and identity provider on loopback.

use crate::{Home, wait_at_most};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A running `keyward-sandbox serve`, which ends with this value.
pub struct Sandbox {
    process: Child,
    /// What it said when it was ready: `base_url`, `federation_rule_id` and so on.
    pub ready: Value,
}

impl Sandbox {
    /// Starts one in a folder of the home, with further arguments.
    #[track_caller]
    pub fn start(home: &Home, args: &[&str]) -> Self {
        let folder = home.root.join("sandbox");
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        if let Some(uid) = home.user {
            chown(&folder, Some(uid), Some(uid)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
        let mut command = home.command(home.bin().join("keyward-sandbox"));
        command.args(["serve", "--until-eof", "--folder"]).arg(&folder).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|e| panic!("keyward-sandbox: {e}"));
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            let read = BufReader::new(out).read_line(&mut line);
            read.unwrap_or_else(|e| panic!("keyward-sandbox: {e}"));
        }
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("keyward-sandbox: {e}: {line}"));
        Self { process, ready }
    }

    /// A text of what it said when it was ready.
    #[track_caller]
    pub fn said(&self, field: &str) -> &str {
        self.ready[field].as_str().unwrap_or_else(|| panic!("the sandbox says no {field}: {}", self.ready))
    }

    /// The file with the assertion that it projects.
    pub fn token_file(&self) -> PathBuf {
        PathBuf::from(self.said("identity_token_file"))
    }

    /// The file of a federated profile whose identity source is `identity`, in TOML, with further sections.
    pub fn profile(&self, identity: &str, more: &str) -> String {
        format!(
            "[issuer]\nkind = \"anthropic-federation\"\nbase_url = \"{}\"\nfederation_rule_id = \"{}\"\norganization_id = \"{}\"\n\
             service_account_id = \"{}\"\n[issuer.identity]\n{identity}\n{more}\n",
            self.said("base_url"),
            self.said("federation_rule_id"),
            self.said("organization_id"),
            self.said("service_account_id"),
        )
    }

    /// Adds a profile whose identity source is the projected file.
    #[track_caller]
    pub fn federate(&self, home: &Home, name: &str, more: &str) {
        home.profile(name, &self.profile(&format!("kind = \"file\"\npath = {:?}", self.token_file()), more));
    }

    /// A control request, such as `/sandbox/fault`.
    #[track_caller]
    pub fn control(&self, path: &str, body: Value) -> Value {
        self.call("POST", path, &body.to_string())
    }

    /// Makes the next `times` requests at an endpoint fail; zero stands for all.
    #[track_caller]
    pub fn fail(&self, at: &str, fault: &str, times: u32) {
        self.control("/sandbox/fault", json!({"at": at, "fault": fault, "times": times}));
    }

    /// Ends all faults.
    #[track_caller]
    pub fn clear(&self) {
        self.control("/sandbox/clear", json!({}));
    }

    /// One of the counts of `/sandbox/stats`.
    #[track_caller]
    pub fn count(&self, what: &str) -> u64 {
        let stats = self.call("GET", "/sandbox/stats", "");
        stats[what].as_u64().unwrap_or_else(|| panic!("no count `{what}`: {stats}"))
    }

    /// Waits until a count has reached `n`.
    #[track_caller]
    pub fn wait(&self, what: &str, n: u64) {
        wait_at_most(Duration::from_secs(30), &format!("{what} = {n}"), || self.count(what) >= n);
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let host = self.said("base_url").trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&host).unwrap_or_else(|e| panic!("{host}: {e}"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nx-keyward-sandbox: 1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        let done = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        done.unwrap_or_else(|e| panic!("{path}: {e}"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer}"));
        assert!(head.starts_with("HTTP/1.1 2"), "{path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap_or(Value::Null) }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let until = std::time::Instant::now() + Duration::from_secs(2);
        while matches!(self.process.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is a child of this process, not collected yet, so the pid is still its own.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
