//! `cargo xtask devhost`: the UI in a plain browser, against a real broker in a throw-away home.
//!
//! Serves the commands of `keyward-desk` as `POST /command/NAME`, its events as server-sent events at `GET /events`, and the UI
//! that was built for it. In the place of native prompts stand answers that a test lays ready by `PUT /prompts`;
//! `GET /prompts` tells what was asked and shown, without secrets. Listens on 127.0.0.1 alone and answers only who holds the
//! token of its first line. Never part of a release, and never serves a home that is not marked as throw-away. Called by
//! hand and by the tests of the UI.

use crate::home::random_hex;
use crate::interrupt;
use crate::workspace::{Workspace, succeed};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION, ORIGIN, SET_COOKIE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keyward_api::place::Places;
use keyward_desk::{Ask, CardWindow, Desk, DeskEvent, Prompter, QuitAnswer};
use keyward_diag::{Code, Fault};
use keyward_secret::SecretText;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Marks a home that may be served, filled and thrown away.
const MARK: &str = ".keyward-throw-away";
/// Header and cookie of the token.
const TOKEN: &str = "keyward-devhost";
/// What the web view of the desktop has, less the scheme of its own host.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// A prompt that finds no answer waits so long for one, then counts as closed.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How often the end is looked for.
const GLANCE: Duration = Duration::from_millis(50);
/// Events that a browser may be behind.
const QUEUE: usize = 1024;

/// What is served, and where.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Home: a new folder, or one that this task has made before; a temporary one without it
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The built UI; ui/dist-devhost without it
    #[arg(long, value_name = "DIR")]
    dist: Option<PathBuf>,
    /// Take the debug binaries as they are
    #[arg(long)]
    no_build: bool,
    /// End when standard input does
    #[arg(long)]
    until_eof: bool,
}

/// Serves until Ctrl-C, SIGTERM or the end of standard input; then stops the broker and removes a temporary home. Prints
/// one line of JSON once it serves.
pub(crate) fn devhost(workspace: &Workspace, serve: Serve) -> Result<(), String> {
    if !serve.no_build {
        let packages = ["-p", "keyward-broker", "-p", "keyward-cli", "-p", "keyward-sandbox"];
        succeed(workspace.cargo(&["build", "--quiet"]).args(packages))?;
    }
    interrupt::watch();
    let home = Home::open(serve.home)?;
    let dist = serve.dist.unwrap_or_else(|| workspace.root.join("ui/dist-devhost"));
    let host = Arc::new(Host::new(&home, dist)?);
    let ended = Arc::new(AtomicBool::new(false));
    if serve.until_eof {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            // Whatever comes is of no interest.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            ended.store(true, Ordering::Relaxed);
        });
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("the runtime: {e}"))?;
    let served = runtime.block_on(serve_on(&host, serve.port, &home, &ended));
    // Prompts that still wait would keep the runtime from ending.
    host.prompts.close();
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(host);
    served.and(home.close())
}

async fn serve_on(host: &Arc<Host>, port: u16, home: &Home, ended: &AtomicBool) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| format!("127.0.0.1:{port}: {e}"))?;
    let port = listener.local_addr().map_err(|e| format!("127.0.0.1: {e}"))?.port();
    let variables: serde_json::Map<_, _> =
        home.variables().into_iter().map(|(k, v)| (k.to_owned(), v.to_string_lossy().into())).collect();
    let line = json!({
        "url": format!("http://127.0.0.1:{port}/?token={}", host.token),
        "origin": format!("http://127.0.0.1:{port}"),
        "token": host.token,
        "home": home.root,
        "variables": variables,
        "pid": std::process::id(),
    });
    println!("{line}");
    let authority = format!("127.0.0.1:{port}");
    while !interrupt::seen() && !ended.load(Ordering::Relaxed) {
        let Ok(accepted) = tokio::time::timeout(GLANCE, listener.accept()).await else { continue };
        let (stream, _) = accepted.map_err(|e| format!("accept: {e}"))?;
        let (host, authority) = (Arc::clone(host), authority.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let (host, authority) = (Arc::clone(&host), authority.clone());
                async move { Ok::<_, Infallible>(host.answer(request, &authority).await) }
            });
            // A browser that hangs up is no error.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
    Ok(())
}

type Answer = Response<Pieces>;

/// The desk with what stands around it.
struct Host {
    desk: Arc<Desk>,
    prompts: Arc<Prompts>,
    listeners: Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>,
    dist: PathBuf,
    token: String,
}

impl Host {
    fn new(home: &Home, dist: PathBuf) -> Result<Self, String> {
        let variables: BTreeMap<OsString, OsString> =
            home.variables().into_iter().map(|(name, value)| (name.into(), value)).collect();
        let env = |name: &str| variables.get(&OsString::from(name)).cloned();
        let words = |f: Fault| f.to_string();
        let places = Places::find(&env, rustix::process::getuid().as_raw()).map_err(words)?;
        let prompts = Arc::new(Prompts::default());
        let listeners: Arc<Mutex<Vec<mpsc::Sender<Bytes>>>> = Arc::default();
        let told = Arc::clone(&listeners);
        let tell = move |event: DeskEvent| {
            let text = serde_json::to_string(&event).unwrap_or_default();
            let piece = Bytes::from(format!("data: {text}\n\n"));
            // One that does not read is dropped; its browser connects anew and reads all again.
            lock(&told).retain(|listener| listener.try_send(piece.clone()).is_ok());
        };
        let prompter = Arc::clone(&prompts) as Arc<dyn Prompter>;
        let desk = Arc::new(Desk::new(places, variables, prompter, tell).map_err(words)?);
        desk.follow().map_err(words)?;
        Ok(Self { desk, prompts, listeners, dist, token: random_hex(16)? })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, authority: &str) -> Answer {
        // Another name for this address, or a page of another origin, is somebody who wants to borrow the browser's cookie.
        let header = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let own = header(HOST) == Some(authority)
            && header(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == Some(authority));
        if !own {
            return plain(StatusCode::FORBIDDEN, "another origin");
        }
        let path = request.uri().path().to_owned();
        if request.uri().query() == Some(&format!("token={}", self.token)) {
            let mut answer = plain(StatusCode::SEE_OTHER, "");
            set(&mut answer, LOCATION, path);
            set(&mut answer, SET_COOKIE, format!("{TOKEN}={}; Path=/; HttpOnly; SameSite=Strict", self.token));
            return answer;
        }
        let cookie = format!("{TOKEN}={}", self.token);
        let of_cookie = header(COOKIE).is_some_and(|all| all.split(';').any(|one| one.trim() == cookie));
        if !of_cookie && request.headers().get(TOKEN).is_none_or(|v| v.as_bytes() != self.token.as_bytes()) {
            return plain(StatusCode::UNAUTHORIZED, "open the address that the first line names");
        }
        match (request.method().clone(), path.as_str()) {
            (Method::POST, path) if path.starts_with("/command/") => {
                let name = path["/command/".len()..].to_owned();
                match body(request).await {
                    Ok(body) => self.command(name, body).await,
                    Err(fault) => of_fault(&fault),
                }
            }
            (Method::GET, "/events") => self.events(),
            (Method::GET, "/prompts") => document(StatusCode::OK, &self.prompts.told()),
            (Method::PUT, "/prompts") => {
                match body(request).await.and_then(|body| self.prompts.lay_ready(body).map_err(invalid)) {
                    Ok(()) => plain(StatusCode::NO_CONTENT, ""),
                    Err(fault) => of_fault(&fault),
                }
            }
            (Method::GET, path) => self.file(path),
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "not that"),
        }
    }

    async fn command(self: Arc<Self>, name: String, request: Value) -> Answer {
        let done = tokio::task::spawn_blocking(move || self.desk.dispatch(&name, request)).await;
        match done {
            Ok(Ok(reply)) => document(StatusCode::OK, &reply),
            Ok(Err(fault)) => of_fault(&fault),
            Err(_) => of_fault(&Fault::new(Code::Internal).cause("the command broke off")),
        }
    }

    fn events(&self) -> Answer {
        let (send, receive) = mpsc::channel(QUEUE);
        // The first bytes tell the browser that it is connected.
        let _ = send.try_send(Bytes::from_static(b": connected\n\n"));
        lock(&self.listeners).push(send);
        let mut answer = Response::new(Pieces::Stream(receive));
        set(&mut answer, CONTENT_TYPE, "text/event-stream");
        set(&mut answer, CACHE_CONTROL, "no-store");
        answer
    }

    /// A file of the built UI.
    fn file(&self, path: &str) -> Answer {
        let path = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let found = if inside { std::fs::read(self.dist.join(path)).ok() } else { None };
        let Some(bytes) = found else {
            let why = if self.dist.join("index.html").exists() {
                "no such file".to_owned()
            } else {
                format!("there is no UI in {}: build it with `npm run build:devhost` in ui", self.dist.display())
            };
            return plain(StatusCode::NOT_FOUND, &why);
        };
        let kind = match Path::new(path).extension().and_then(|e| e.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        };
        let mut answer = Response::new(Pieces::Whole(Full::new(Bytes::from(bytes))));
        set(&mut answer, CONTENT_TYPE, kind);
        set(&mut answer, CONTENT_SECURITY_POLICY, POLICY);
        set(&mut answer, CACHE_CONTROL, "no-store");
        answer
    }
}

/// The body of an answer: whole, or as it comes.
enum Pieces {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }
}

async fn body(request: Request<Incoming>) -> Result<Value, Fault> {
    let bytes = Limited::new(request.into_body(), BODY_MAX_BYTES).collect().await;
    let bytes = bytes.map_err(|_| Fault::new(Code::RequestTooLarge))?.to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|_| invalid("the body is not JSON".to_owned()))
}

fn invalid(cause: String) -> Fault {
    Fault::new(Code::RequestInvalid).cause(cause)
}

fn of_fault(fault: &Fault) -> Answer {
    let status = match fault.exit {
        3 => StatusCode::LOCKED,
        4 => StatusCode::FORBIDDEN,
        5 => StatusCode::SERVICE_UNAVAILABLE,
        6 => StatusCode::BAD_GATEWAY,
        7 => StatusCode::CONFLICT,
        70 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    document(status, &serde_json::to_value(fault).unwrap_or_default())
}

fn document(status: StatusCode, value: &Value) -> Answer {
    let mut answer = plain(status, &value.to_string());
    set(&mut answer, CONTENT_TYPE, "application/json");
    answer
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Pieces::Whole(Full::new(Bytes::from(text.to_owned()))));
    *answer.status_mut() = status;
    set(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

fn set(answer: &mut Answer, name: hyper::header::HeaderName, text: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(text.as_ref()) {
        answer.headers_mut().insert(name, value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prompts that are answered by what was laid ready, in that order.
#[derive(Default)]
struct Prompts {
    state: Mutex<State>,
    laid: Condvar,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Laid>,
    /// What was asked and shown so far.
    told: Vec<Value>,
    closed: bool,
}

/// One answer.
enum Laid {
    Text(SecretText),
    Path(PathBuf),
    Confirm,
    Cancel,
}

impl Prompts {
    /// Adds answers: a list of `{"text": …}`, `{"path": …}`, `"confirm"` and `"cancel"`.
    fn lay_ready(&self, answers: Value) -> Result<(), String> {
        let Value::Array(answers) = answers else { return Err("a list of answers expected".to_owned()) };
        let answers = answers.into_iter().map(read_answer).collect::<Result<Vec<_>, _>>()?;
        lock(&self.state).answers.extend(answers);
        self.laid.notify_all();
        Ok(())
    }

    /// What was asked and shown: `{asked: [{prompt, title, why, error, answer}], left}`. An `answer` is `given`, `cancelled`,
    /// or `null` while the prompt is open.
    fn told(&self) -> Value {
        let state = lock(&self.state);
        json!({"asked": state.told, "left": state.answers.len()})
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.laid.notify_all();
    }

    /// Records a prompt and waits for its answer.
    fn ask(&self, prompt: &str, title: &str, more: Value) -> Option<Laid> {
        let mut state = lock(&self.state);
        let mut entry = json!({"prompt": prompt, "title": title, "answer": null});
        if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
            entry.extend(more);
        }
        let number = state.told.len();
        state.told.push(entry);
        let until = Instant::now() + ANSWER_TIME;
        let answer = loop {
            if let Some(answer) = state.answers.pop_front() {
                break answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                break Laid::Cancel;
            }
            state = self.laid.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        let cancelled = matches!(answer, Laid::Cancel);
        state.told[number]["answer"] = if cancelled { "cancelled" } else { "given" }.into();
        (!cancelled).then_some(answer)
    }

    fn text(&self, prompt: &str, ask: &Ask) -> Option<SecretText> {
        match self.ask(prompt, &ask.title, json!({"why": ask.why, "error": ask.error}))? {
            Laid::Text(text) => Some(text),
            Laid::Path(_) | Laid::Confirm | Laid::Cancel => None,
        }
    }

    fn show(&self, prompt: &str, title: &str) {
        lock(&self.state).told.push(json!({"prompt": prompt, "title": title, "answer": "given"}));
    }
}

fn read_answer(answer: Value) -> Result<Laid, String> {
    let wrong = || "an answer is {\"text\": …}, {\"path\": …}, \"confirm\" or \"cancel\"".to_owned();
    match answer {
        Value::String(word) if word == "confirm" => Ok(Laid::Confirm),
        Value::String(word) if word == "cancel" => Ok(Laid::Cancel),
        Value::Object(mut fields) if fields.len() == 1 => match (fields.remove("text"), fields.remove("path")) {
            (Some(Value::String(text)), None) => SecretText::new(text).map(Laid::Text).map_err(|e| e.to_string()),
            (None, Some(Value::String(path))) => Ok(Laid::Path(path.into())),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

impl Prompter for Prompts {
    fn passphrase(&self, ask: &Ask) -> Option<SecretText> {
        self.text("passphrase", ask)
    }

    fn new_passphrase(&self, ask: &Ask) -> Option<SecretText> {
        self.text("new_passphrase", ask)
    }

    fn secret(&self, ask: &Ask) -> Option<SecretText> {
        self.text("secret", ask)
    }

    fn show_recovery_key(&self, _key: &SecretText) -> bool {
        self.ask("recovery_key", "Recovery key", Value::Null).is_some()
    }

    fn show_secret(&self, title: &str, _secret: &SecretText) {
        self.show("show_secret", title);
    }

    fn copy(&self, _secret: SecretText) {
        self.show("copy", "Clipboard");
    }

    fn save_path(&self, title: &str, suggested: &str) -> Option<PathBuf> {
        match self.ask("save_path", title, json!({"suggested": suggested}))? {
            Laid::Path(path) => Some(path),
            Laid::Text(_) | Laid::Confirm | Laid::Cancel => None,
        }
    }

    /// Told alone: a test goes to the page of the card itself.
    fn card(&self, window: CardWindow) {
        match window {
            CardWindow::Open(id) | CardWindow::Raise(id) => self.show("card", &id),
            CardWindow::Close => self.show("card", ""),
        }
    }

    fn quit(&self, live: usize) -> Option<QuitAnswer> {
        self.ask("quit", "Quit Keyward", json!({"live": live})).map(|_| QuitAnswer::Leave)
    }

    /// Told alone: the host serves on.
    fn end(&self) {
        self.show("end", "The desktop ends");
    }
}

/// A home that may be thrown away.
struct Home {
    root: PathBuf,
    temporary: bool,
    bin: PathBuf,
}

impl Home {
    /// The folder `given`, which is made and marked where there is none and must be marked where there is; a temporary one
    /// without it.
    fn open(given: Option<PathBuf>) -> Result<Self, String> {
        let bin = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        let bin = bin.parent().map(PathBuf::from).unwrap_or_default();
        let temporary = given.is_none();
        let root = match given {
            Some(given) => std::path::absolute(&given).map_err(|e| format!("{}: {e}", given.display()))?,
            None => std::env::temp_dir().join(format!("keyward-devhost.{}", random_hex(8)?)),
        };
        let shown = root.display();
        if root.exists() {
            if !root.join(MARK).exists() {
                return Err(format!("{shown} is not marked as throw-away: name a folder that does not exist yet"));
            }
        } else {
            for folder in ["", "home", "project", "run"] {
                let folder = root.join(folder);
                DirBuilder::new().mode(0o700).create(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            }
            File::create(root.join(MARK)).map_err(|e| format!("{shown}: {e}"))?;
        }
        Ok(Self { root, temporary, bin })
    }

    /// The environment of everything in this home, of the desk too.
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut path = self.bin.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        vec![
            ("KEYWARD_HOME", self.root.join("keyward").into()),
            ("XDG_RUNTIME_DIR", self.root.join("run").into()),
            ("HOME", self.root.join("home").into()),
            ("PATH", path),
            ("LANG", "C.UTF-8".into()),
        ]
    }

    /// Stops the broker, and removes a temporary home.
    fn close(self) -> Result<(), String> {
        let mut stop = Command::new(self.bin.join("keyward"));
        stop.args(["broker", "stop"]).env_clear().envs(self.variables()).current_dir(&self.root);
        stop.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = stop.spawn().map_err(|e| format!("keyward broker stop: {e}"))?;
        let mut said = String::new();
        if let Some(mut err) = child.stderr.take() {
            // Only words for an error.
            let _ = err.read_to_string(&mut said);
        }
        let status = child.wait().map_err(|e| format!("keyward broker stop: {e}"))?;
        // One that does not run need not be stopped.
        if !status.success() && !said.contains("broker.unreachable") {
            return Err(format!("keyward broker stop: {}", said.trim_end()));
        }
        if self.temporary {
            std::fs::remove_dir_all(&self.root).map_err(|e| format!("{}: {e}", self.root.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn only_a_folder_that_this_task_has_made_is_served() {
        let folder = std::env::temp_dir().join(format!("keyward-devhost-test-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let refused = Home::open(Some(folder.clone())).err().unwrap();
        assert!(refused.contains("not marked as throw-away"), "{refused}");
        let own = Home::open(Some(folder.join("own"))).unwrap();
        assert!(!own.temporary && own.root.join(MARK).exists());
        assert!(Home::open(Some(folder.join("own"))).is_ok(), "a second time");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn answers_are_given_in_order_and_the_record_holds_no_secret() {
        let prompts = Prompts::default();
        let ask = Ask { title: "t".into(), why: "w".into(), error: None };
        let answers = json!([{"text": "hunter2"}, "cancel", {"path": "/tmp/x"}, "confirm", {"text": "hunter3"}]);
        prompts.lay_ready(answers).unwrap();
        // EXPOSE: compared in a test.
        assert!(prompts.passphrase(&ask).unwrap().expose(|t| t == "hunter2"));
        assert!(prompts.secret(&ask).is_none());
        assert_eq!(prompts.save_path("t", "s"), Some(PathBuf::from("/tmp/x")));
        let key = SecretText::new("hunter4".into()).unwrap();
        assert!(prompts.show_recovery_key(&key));
        prompts.show_secret("t", &key);
        prompts.copy(key);
        let told = prompts.told();
        let kinds: Vec<_> = told["asked"].as_array().unwrap().iter().map(|a| a["prompt"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["passphrase", "secret", "save_path", "recovery_key", "show_secret", "copy"]);
        assert!(told["left"] == 1 && !told.to_string().contains("hunter"), "{told}");
        for bad in [json!({}), json!(["yes"]), json!([{"text": 1}]), json!([{"text": "a", "path": "b"}]), json!([null])]
        {
            assert!(prompts.lay_ready(bad.clone()).is_err(), "{bad}");
        }
        prompts.close();
        assert!(prompts.passphrase(&ask).is_some());
        assert!(prompts.passphrase(&ask).is_none(), "nobody waits for an answer that cannot come");
    }
}
