//! A child that uses an SDK: takes its token from a profile file that somebody else rotates, and calls the API with it.
//!
//! As strict with the files as the strictest SDK, and as trusting: it never exchanges by itself. Connects to loopback
//! alone. Never prints a token, only fingerprints. Called by `keyward-sandbox child`.

use crate::json;
use crate::show::fingerprint;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;

/// Largest profile file, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Largest answer, in bytes.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Longest call.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Before its end by how much a token is given up, at most; a quarter of its life when that is less.
const MARGIN_S: f64 = 30.0;

/// Variables that win over a profile.
const SHADOWS: [&str; 2] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"];

/// Calls the API until `lifetimes` + 1 different tokens were used.
///
/// Fails at the first call that fails, at files that SDKs refuse, and when a variable would win over the profile.
pub(crate) fn child(lifetimes: u32, every: Duration) -> Result<(), String> {
    let var = |name: &str| match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(_) => Err(format!("{name} is not text")),
    };
    // SDKs differ on an empty one, so that it must not be there at all.
    if let Some(name) = SHADOWS.iter().find(|name| std::env::var_os(name).is_some()) {
        return Err(format!("{name} is set and would win over the profile"));
    }
    let folder = var("ANTHROPIC_CONFIG_DIR")?.ok_or("ANTHROPIC_CONFIG_DIR is not set")?;
    let name = var("ANTHROPIC_PROFILE")?.ok_or("ANTHROPIC_PROFILE is not set")?;
    let profile = Profile::open(Path::new(&folder), &name, var("ANTHROPIC_BASE_URL")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let mut calls = 0u64;
    let done = runtime.block_on(work(&profile, lifetimes, every, &mut calls));
    let said = say(&format!("calls: {calls}"));
    done.and(said)
}

async fn work(profile: &Profile, lifetimes: u32, every: Duration, calls: &mut u64) -> Result<(), String> {
    let mut used = HashSet::new();
    let mut held: Option<Credential> = None;
    loop {
        let credential = match held.take() {
            Some(credential) if !credential.is_due(now_s()) => credential,
            before => profile.credential(before)?,
        };
        if used.insert(credential.fingerprint.clone()) {
            say(&format!("token: {}", credential.fingerprint))?;
        }
        call(&profile.base_url, &credential.token).await?;
        *calls += 1;
        if used.len() > lifetimes as usize {
            return Ok(());
        }
        held = Some(credential);
        tokio::time::sleep(every).await;
    }
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("standard output: {e}"))
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What was read from a credentials file.
struct Credential {
    token: String,
    fingerprint: String,
    expires_s: f64,
    margin_s: f64,
}

impl Credential {
    fn is_due(&self, now_s: f64) -> bool {
        self.expires_s - now_s <= self.margin_s
    }
}

/// A profile of kind `user_oauth` whose credentials file is rotated from outside.
struct Profile {
    base_url: Uri,
    credentials: PathBuf,
}

impl Profile {
    fn open(folder: &Path, name: &str, base_url: Option<String>) -> Result<Self, String> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
            return Err("ANTHROPIC_PROFILE is not a profile name".into());
        }
        let path = folder.join("configs").join(format!("{name}.json"));
        let config = read(&path, 0o022)?;
        let authentication = config.get("authentication").and_then(Value::as_object);
        let field = |name: &str| authentication.and_then(|fields| fields.get(name)).and_then(Value::as_str);
        if field("type") != Some("user_oauth") {
            return Err(format!("{}: authentication.type is not user_oauth", path.display()));
        }
        if authentication.is_some_and(|fields| fields.contains_key("client_id")) {
            return Err(format!(
                "{}: authentication.client_id is there, so that SDKs would refresh by themselves",
                path.display()
            ));
        }
        let credentials = match field("credentials_path") {
            Some(path) => PathBuf::from(path),
            None => folder.join("credentials").join(format!("{name}.json")),
        };
        let base_url = match base_url {
            Some(url) => url,
            None => config.get("base_url").and_then(Value::as_str).unwrap_or("https://api.anthropic.com").to_owned(),
        };
        Ok(Self { base_url: loopback(&base_url)?, credentials })
    }

    /// Reads the credentials file. `before` is what it held at the last read; the margin of a token is set when it is seen
    /// first.
    fn credential(&self, before: Option<Credential>) -> Result<Credential, String> {
        let wrong = |what: &str| Err(format!("{}: {what}", self.credentials.display()));
        let fields = read(&self.credentials, 0o077)?;
        if fields.get("type").and_then(Value::as_str) != Some("oauth_token") {
            return wrong("type is not oauth_token");
        }
        let Some(token) = fields.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty()) else {
            return wrong("access_token is missing");
        };
        let Some(expires_at) = fields.get("expires_at").and_then(Value::as_i64) else {
            return wrong("expires_at is missing, or not a whole number of seconds");
        };
        let (now_s, expires_s) = (now_s(), expires_at as f64);
        if expires_s <= now_s {
            return wrong("the token in it has expired");
        }
        let margin_s = match before {
            Some(before) if before.token == token && before.expires_s == expires_s => before.margin_s,
            _ => MARGIN_S.min((expires_s - now_s) / 4.0),
        };
        Ok(Credential { token: token.to_owned(), fingerprint: fingerprint(token.as_bytes()), expires_s, margin_s })
    }
}

/// Reads a JSON file that is no symbolic link and grants none of `banned` mode bits.
fn read(path: &Path, banned: u32) -> Result<Map<String, Value>, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let seen = std::fs::symlink_metadata(path).map_err(|e| named(&e))?;
    if !seen.is_file() {
        return Err(named(&"not a plain file"));
    }
    let file = std::fs::File::open(path).map_err(|e| named(&e))?;
    let opened = file.metadata().map_err(|e| named(&e))?;
    // A rename in between is how the file is rotated, and gives a plain file again; a link in its place does not.
    if !opened.is_file() || opened.mode() & banned != 0 {
        return Err(named(&format!("mode {:03o} lets others in", opened.mode() & 0o777)));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| named(&e))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(named(&"too large"));
    }
    json::object(&bytes).map_err(|e| named(&e))
}

/// An http URL whose host is loopback, by its parsed host.
fn loopback(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|_| "the base URL is no URL".to_owned())?;
    let host = uri.host().unwrap_or_default();
    if uri.scheme_str() != Some("http") || !matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
        return Err("the base URL is not http on loopback; this child calls nothing else".into());
    }
    Ok(uri)
}

/// One call of the Messages API. Fails with the status and the type of the error.
async fn call(base_url: &Uri, token: &str) -> Result<(), String> {
    let called = tokio::time::timeout(CALL_TIME, answered(base_url, token)).await;
    let (status, body) = called.map_err(|_| "the call took too long".to_owned())??;
    if status == 200 {
        return Ok(());
    }
    let kind = body["error"]["type"].as_str().or_else(|| body["error"].as_str()).unwrap_or("no error type");
    Err(format!("the call failed: {status} {}", crate::journal::shown(kind)))
}

async fn answered(base_url: &Uri, token: &str) -> Result<(u16, Value), String> {
    let failed = |e: &dyn std::fmt::Display| format!("the call failed: {e}");
    let host = base_url.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, base_url.port_u16().unwrap_or(80))).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let question = json!({
        "model": "claude-sandbox-1",
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "hello"}],
    });
    let request = Request::post(format!("{}/v1/messages", base_url.path().trim_end_matches('/')))
        .header("host", base_url.authority().map(|authority| authority.as_str()).unwrap_or_default())
        .header("user-agent", concat!("keyward-sandbox-child/", env!("CARGO_PKG_VERSION")))
        .header("authorization", format!("Bearer {token}"))
        .header("anthropic-beta", "oauth-2025-04-20")
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(question.to_string()))
        // The reason would quote the token.
        .map_err(|_| "the token cannot stand in a header".to_owned())?;
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(|e| failed(&e))?;
    drop(sender);
    // It ends with the sender; how is of no interest, the answer is here.
    let _ = connection.await;
    Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
}
