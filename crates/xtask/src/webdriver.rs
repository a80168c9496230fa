//! What the window of a desktop with the feature `automation` shows, asked through WebKitWebDriver.
//!
//! Speaks the few commands of W3C WebDriver that it needs over loopback. The driver and the desktop that it starts end with
//! the session. Never drives a packaged program, which refuses it. Called by `demo` and `bench`.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A desktop that was started by a driver.
pub(crate) struct Session {
    driver: Child,
    port: u16,
    id: String,
    /// What the driver and the desktop say.
    log: PathBuf,
}

impl Session {
    /// Starts the driver by `command`, whose environment the desktop gets, and with it the desktop `binary`; what both say
    /// goes into the file `log`.
    pub(crate) fn start(mut command: Command, binary: &Path, log: &Path) -> Result<Self, String> {
        let said = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let fault = |e: std::io::Error| format!("WebKitWebDriver: {e}");
        // The driver binds the port anew; no other program of this moment was told its number.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).map_err(fault)?.port();
        command.args(["--host=127.0.0.1", &format!("--port={port}")]).env("TAURI_WEBVIEW_AUTOMATION", "true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let driver = command.spawn().map_err(fault)?;
        let mut session = Self { driver, port, id: String::new(), log: log.to_owned() };
        let until = Instant::now() + ANSWER;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > until || !matches!(session.driver.try_wait(), Ok(None)) {
                return Err("WebKitWebDriver does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let wish =
            json!({"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": {"binary": binary, "args": []}}}});
        let made = session.ask("POST", "/session", Some(&wish)).map_err(|why| {
            let said = std::fs::read_to_string(&session.log).unwrap_or_default();
            format!("{why}; {} says: {}", binary.display(), said.trim_end())
        })?;
        session.id = made["sessionId"].as_str().ok_or_else(|| format!("no session: {made}"))?.to_owned();
        Ok(session)
    }

    /// Runs a function body in the page and gives what it returns.
    pub(crate) fn run(&self, script: &str) -> Result<Value, String> {
        let path = format!("/session/{}/execute/sync", self.id);
        self.ask("POST", &path, Some(&json!({"script": script, "args": []})))
    }

    /// Runs a function body in the page and gives what it hands to its last argument, a function.
    pub(crate) fn run_async(&self, script: &str) -> Result<Value, String> {
        let path = format!("/session/{}/execute/async", self.id);
        self.ask("POST", &path, Some(&json!({"script": script, "args": []})))
    }

    /// Text of the page as a person reads it.
    pub(crate) fn text(&self) -> Result<String, String> {
        Ok(self.run("return document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Ends the desktop and the driver.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let path = format!("/session/{}", std::mem::take(&mut self.id));
        self.ask("DELETE", &path, None).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let fault = |e: std::io::Error| format!("WebKitWebDriver {method} {path}: {e}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(fault)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(fault)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.port,
            body.len()
        );
        let mut answer = String::new();
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()))
            .and_then(|()| stream.read_to_string(&mut answer))
            .map_err(fault)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut said: Value =
            serde_json::from_str(body).map_err(|e| format!("WebKitWebDriver {method} {path}: {e}: {answer}"))?;
        let value = said["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("WebKitWebDriver {method} {path}: {error}: {}", value["message"])),
            None => Ok(value),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.id), None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
