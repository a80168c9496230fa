//! What tests play on: a scripted endpoint on loopback, folders of their own, and orders.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_core::{Credential, Families, IssueError, Issuer, Name, Once, Order, Profile, Wall};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the endpoint does after a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Writes this and closes.
    Say(String),
    /// Writes this and resets the connection.
    SayAndReset(String),
    /// Writes this, then a piece again and again, fast.
    Endless(String, String),
    /// Writes this byte by byte, slowly.
    Drip(String),
    /// Writes this, and never another byte.
    Hang(String),
}

/// An answer with this status, header lines and body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

/// A scripted endpoint: one act for each request, the last one again and again.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let (acts, seen) = (acts.clone(), seen.clone());
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    let nth = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request);
                        seen.len() - 1
                    };
                    let Some(act) = acts.get(nth).or(acts.last()) else { return };
                    // The other side may be gone, which is what some of the tests are about.
                    let _ = play(act, stream).await;
                });
            }
        });
        Self { url, requests, task }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request to the end of its body.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|n| n.parse().ok()).unwrap_or(0) {
                return Some(text);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

async fn play(act: &Act, mut stream: TcpStream) -> std::io::Result<()> {
    match act {
        Act::Say(text) => stream.write_all(text.as_bytes()).await,
        Act::SayAndReset(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.set_zero_linger()
        }
        Act::Endless(text, piece) => {
            stream.write_all(text.as_bytes()).await?;
            loop {
                stream.write_all(piece.as_bytes()).await?;
            }
        }
        Act::Drip(text) => {
            for byte in text.as_bytes() {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            Ok(())
        }
        Act::Hang(text) => {
            stream.write_all(text.as_bytes()).await?;
            std::future::pending().await
        }
    }
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("keyward-issuer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Puts a file in place in one step, as those who rotate a token do.
    pub(crate) fn swap(&self, name: &str, text: &str) {
        let fresh = self.write(".fresh", text);
        std::fs::rename(fresh, self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A memory of presented assertions, with the times until which each is remembered.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) presented: Mutex<BTreeSet<[u8; 32]>>,
    pub(crate) until: Mutex<Vec<Wall>>,
    /// Nothing can be recorded.
    pub(crate) full: bool,
}

impl Memory {
    pub(crate) fn count(&self) -> usize {
        self.presented.lock().unwrap().len()
    }
}

impl Once for Memory {
    fn present(&self, digest: [u8; 32], until: Wall) -> Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + '_>> {
        Box::pin(async move {
            if self.full {
                return Err(Fault::new(Code::VaultDiskFull));
            }
            self.until.lock().unwrap().push(until);
            Ok(self.presented.lock().unwrap().insert(digest))
        })
    }

    fn withdraw(&self, digest: [u8; 32]) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + '_>> {
        Box::pin(async move {
            self.presented.lock().unwrap().remove(&digest);
            Ok(())
        })
    }
}

/// An order for a profile whose file goes on in this way after `[issuer]`.
pub(crate) fn order(issuer: &str, once: &Arc<Memory>) -> Order {
    let families = Families::built_in().unwrap();
    let text = format!("[issuer]\n{issuer}");
    let profile = Profile::parse(Name::parse("p").unwrap(), &text, &crate::kinds(), &families);
    let profile = profile.map_err(|e| format!("{e} in {text}")).unwrap();
    let secrets = BTreeMap::from([("s".to_owned(), SecretBytes::new(b"hunter2 &=%+:x".to_vec()).unwrap())]);
    Order { profile, secrets, supplied: None, once: once.clone() }
}

/// As [`order`], with these stored secrets.
pub(crate) fn order_with(issuer: &str, secrets: &[(&str, &str)]) -> Order {
    let mut order = order(&format!("{issuer}\n[delivery]\nenv = {{ T = \"token\" }}"), &Arc::default());
    let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec()).unwrap();
    order.secrets = secrets.iter().map(|(name, text)| ((*name).to_owned(), secret(text))).collect();
    order
}

/// The credential, or the error after a look that it tells no secret.
pub(crate) async fn issue(issuer: &dyn Issuer, order: &Order) -> Result<Credential, IssueError> {
    let issued = issuer.issue(order).await;
    if let Err(error) = &issued {
        let said = format!("{error} {error:?}");
        for secret in ["SEKRIT", "hunter2", "eyJ", SIGNATURE, "PRIVATE KEY"] {
            assert!(!said.replace("block `PRIVATE KEY`", "").contains(secret), "{secret} in {said}");
        }
        assert!((1..=8).contains(&error.fault.causes.len()), "{error}");
    }
    issued
}

/// A federated profile at `url` with more fields and an identity source.
pub(crate) fn federated(url: &str, more: &str, identity: &str, once: &Arc<Memory>) -> Order {
    let text = format!(
        "kind = \"anthropic-federation\"\nbase_url = \"{url}\"\nfederation_rule_id = \"fdrl_01Rule\"\n\
         organization_id = \"00000000-0000-0000-0000-00000000000a\"\n{more}\n[issuer.identity]\n{identity}"
    );
    order(&text, once)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// An assertion as an identity provider gives it now, with more claims.
pub(crate) fn assertion(more: &str) -> String {
    let (iat, exp) = (now() - 60, now() + 240);
    let claims = format!(
        r#"{{"iss":"https://idp.example","sub":"job:7","aud":"https://api.anthropic.com","iat":{iat},"exp":{exp}{more}}}"#
    );
    jwt(r#"{"alg":"RS256","kid":"k1"}"#, &claims)
}

/// Signature of the assertions of tests, which must be found nowhere.
pub(crate) const SIGNATURE: &str = "c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24";

/// An assertion with this header and these claims.
pub(crate) fn jwt(header: &str, claims: &str) -> String {
    format!("{}.{}.{SIGNATURE}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}
