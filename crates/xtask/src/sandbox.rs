//! The sandbox of a throw-away home: token endpoint, Messages API and identity provider on loopback.
//!
//! Ends when its standard input does, so it never outlives this process. Called by `demo` and `bench`.

use crate::home::Home;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A running `keyward-sandbox serve`.
pub(crate) struct Sandbox {
    process: Child,
    ready: Value,
}

impl Sandbox {
    /// Starts one with further arguments in a folder of the home.
    pub(crate) fn start(home: &Home, args: &[&str]) -> Result<Self, String> {
        let folder = home.root.join("sandbox");
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut command = home.command(home.binary("keyward-sandbox"));
        command.args(["serve", "--until-eof", "--folder"]).arg(&folder).args(args);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.map_err(|e| format!("keyward-sandbox serve: {e}"))?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|e| format!("keyward-sandbox serve: {e}"))?;
        }
        let ready = serde_json::from_str(&line).map_err(|e| format!("keyward-sandbox serve: {e}: {line}"))?;
        Ok(Self { process, ready })
    }

    /// A text of what it said when it was ready.
    pub(crate) fn said(&self, field: &str) -> Result<&str, String> {
        self.ready[field].as_str().ok_or_else(|| format!("keyward-sandbox serve: {field} expected: {}", self.ready))
    }

    /// The file of a federated profile that reads the projected assertion, in TOML, with further sections.
    pub(crate) fn profile(&self, more: &str) -> Result<String, String> {
        let line = |field: &str, said: &str| Ok::<_, String>(format!("{field} = {}\n", Value::from(self.said(said)?)));
        Ok([
            "[issuer]\nkind = \"anthropic-federation\"\n".to_owned(),
            line("base_url", "base_url")?,
            line("federation_rule_id", "federation_rule_id")?,
            line("organization_id", "organization_id")?,
            line("service_account_id", "service_account_id")?,
            "[issuer.identity]\nkind = \"file\"\n".to_owned(),
            line("path", "identity_token_file")?,
            more.to_owned(),
        ]
        .concat())
    }

    /// Credentials that it made so far.
    pub(crate) fn exchanges(&self) -> Result<u64, String> {
        let url = self.said("base_url")?;
        let host = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not a loopback URL"))?;
        let mut stream = TcpStream::connect(host).map_err(|e| format!("{host}: {e}"))?;
        let request =
            format!("GET /sandbox/stats HTTP/1.1\r\nHost: {host}\r\nx-keyward-sandbox: 1\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let done = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        done.map_err(|e| format!("{url}/sandbox/stats: {e}"))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let stats: Value = serde_json::from_str(body).map_err(|e| format!("{url}/sandbox/stats: {e}: {answer}"))?;
        stats["exchanges"].as_u64().ok_or_else(|| format!("{url}/sandbox/stats: exchanges expected: {stats}"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A child that was not collected yet, so the pid is still its own.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
