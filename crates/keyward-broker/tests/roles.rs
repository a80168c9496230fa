//! Roles, approvals and grants of the real broker, asked over its socket by processes of different standing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BROKER: &str = env!("CARGO_BIN_EXE_keyward-broker");
const PASSPHRASE: &str = "correct horse battery staple 42";
/// What the child process of [`child`] asks for: a list of method, path and body, each on a connection of its own.
const ASK: &str = "KEYWARD_TEST_ASK";
/// The program and the arguments that it becomes then, as a list; it ends where there is none.
const EXEC: &str = "KEYWARD_TEST_EXEC";
const SOCKET: &str = "KEYWARD_TEST_SOCKET";
/// A file that it writes to before it becomes that program, where there is one.
const WRITE: &str = "KEYWARD_TEST_WRITE";

/// A home with a broker, which ends with it.
struct Home {
    folder: PathBuf,
    broker: Child,
}

impl Home {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("kw-roles-{}-{number}", std::process::id()));
        for sub in ["run", "home"] {
            std::fs::create_dir_all(folder.join(sub)).unwrap();
            std::fs::set_permissions(folder.join(sub), std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut broker = Command::new(BROKER)
            .env_clear()
            .env("KEYWARD_HOME", folder.join("home"))
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut word = String::new();
        BufReader::new(broker.stdout.take().unwrap()).read_line(&mut word).unwrap();
        assert!(word.starts_with("ready"), "{word}");
        Self { folder, broker }
    }

    /// A home with a vault, the secret `s` and the profile `p`; the connection is that of an operator.
    fn with_vault() -> (Self, Connection) {
        let home = Self::new();
        let mut operator = home.connect();
        operator.ok("POST", "/v1/vault/init", &json!({"passphrase": PASSPHRASE}));
        home.profile(&mut operator, "p", "");
        (home, operator)
    }

    fn profile(&self, operator: &mut Connection, name: &str, top: &str) {
        operator.ok("PUT", &format!("/v1/secrets/{name}"), &json!({"secret": format!("s3cret-of-{name}")}));
        let toml = format!(
            "{top}[issuer]\nkind = \"static\"\nsecret = \"secret:{name}\"\n[delivery]\nenv = {{ T_{} = \"token\" }}\n",
            name.to_uppercase()
        );
        operator.ok("POST", "/v1/profiles", &json!({"name": name, "toml": toml}));
    }

    fn socket(&self) -> PathBuf {
        let all = std::fs::read_dir(self.folder.join("run/keyward")).unwrap();
        all.map(|e| e.unwrap().path().join("broker.sock")).find(|p| p.exists()).unwrap()
    }

    fn connect(&self) -> Connection {
        Connection(BufReader::new(UnixStream::connect(self.socket()).unwrap()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.broker), Signal::TERM);
        let _ = self.broker.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection that stays open.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, body);
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}")).parse().unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn send(&mut self, method: &str, path: &str, body: &Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
    }

    fn ok(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// The name of the error.
    fn refused(&mut self, method: &str, path: &str, body: &Value) -> String {
        let (status, answer) = self.ask(method, path, body);
        assert!(status >= 400, "{method} {path}: {status} {answer}");
        answer["code"].as_str().unwrap().to_owned()
    }

    fn role(&mut self) -> String {
        self.ok("GET", "/v1/me", &Value::Null)["role"].as_str().unwrap().to_owned()
    }

    fn open_card(&mut self) -> Option<Value> {
        let all = self.ok("GET", "/v1/approvals", &Value::Null);
        all.as_array().unwrap().iter().find(|card| card["state"] == "open").cloned()
    }

    /// Answers a card, once it may be answered.
    fn answer(&mut self, card: &Value, decision: &str, more: &[(&str, Value)]) -> (u16, Value) {
        let mut body = json!({"digest": card["digest"], "decision": decision});
        for (name, value) in more {
            body[*name] = value.clone();
        }
        let path = format!("/v1/approvals/{}", card["id"].as_str().unwrap());
        until("the time to read", || {
            let (status, answer) = self.ask("POST", &path, &body);
            (answer["code"] != "approval.too_early").then_some((status, answer))
        })
    }
}

/// Waits for something that takes its time, and fails when it does not come at all.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not happen")
}

/// A process of its own that asks one thing and prints the status and the answer.
fn child(program: &Path, socket: &Path, method: &str, path: &str, body: &Value) -> Command {
    child_of(program, socket, &json!([[method, path, body]]), &[])
}

/// A process of its own that asks several things, prints the answers, and becomes a program.
fn child_of(program: &Path, socket: &Path, asks: &Value, exec: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "asks_for_another_test", "--ignored", "--nocapture"]);
    command.env(ASK, asks.to_string()).env(EXEC, json!(exec).to_string()).env(SOCKET, socket).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The next answer that a child process prints.
fn next(child: &mut BufReader<impl Read>) -> (u16, Value) {
    loop {
        let mut line = String::new();
        assert!(child.read_line(&mut line).unwrap() > 0, "no answer");
        if let Some((_, answer)) = line.split_once("answer: ") {
            let (status, body) = answer.split_once(' ').unwrap();
            return (status.parse().unwrap(), serde_json::from_str(body).unwrap());
        }
    }
}

/// What a child process has printed.
fn said(mut child: Child) -> (u16, Value) {
    let answer = next(&mut BufReader::new(child.stdout.take().unwrap()));
    child.wait().unwrap();
    answer
}

#[test]
#[ignore = "run by the other tests"]
fn asks_for_another_test() {
    let Ok(asks) = std::env::var(ASK) else { return };
    let asks: Vec<(String, String, Value)> = serde_json::from_str(&asks).unwrap();
    // The end of a connection says that the program has begun.
    let mut kept = Vec::new();
    for (method, path, body) in asks {
        let stream = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
        kept.push(Connection(BufReader::new(stream)));
        let (status, answer) = kept.last_mut().unwrap().ask(&method, &path, &body);
        // Not captured, and in one piece.
        std::io::stdout().write_all(format!("\nanswer: {status} {answer}\n").as_bytes()).unwrap();
    }
    let exec: Vec<String> = serde_json::from_str(&std::env::var(EXEC).unwrap()).unwrap();
    if let Ok(file) = std::env::var(WRITE) {
        std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(b"x").unwrap();
    }
    if let Some((program, args)) = exec.split_first() {
        // As the command line does: what a run bears, no child of the shell's own has.
        let limit = getrlimit(Resource::Locks).maximum.unwrap_or(u64::MAX) - 1;
        setrlimit(Resource::Locks, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
        panic!("{}", Command::new(program).args(args).exec());
    }
}

fn token(profile: &str) -> Value {
    json!({"profile": profile})
}

#[test]
fn a_requester_looks_adds_and_asks_and_an_operator_is_a_connection() {
    let home = Home::new();
    assert_eq!(home.connect().role(), "none");
    drop(home);
    let (home, mut operator) = Home::with_vault();
    let mut other = home.connect();
    assert_eq!((operator.role().as_str(), other.role().as_str()), ("operator", "requester"));

    other.ok("PUT", "/v1/secrets/mine", &json!({"secret": "s3cret-mine"}));
    for (method, path, body) in [
        ("PUT", "/v1/secrets/mine", json!({"secret": "other"})),
        ("DELETE", "/v1/secrets/mine", Value::Null),
        ("DELETE", "/v1/profiles/p", Value::Null),
        ("POST", "/v1/profiles/p/test", json!({})),
        ("POST", "/v1/profiles/p/renew", json!({})),
    ] {
        assert_eq!(other.refused(method, path, &body), "policy.denied", "{method} {path}");
    }
    let grant = json!({"profile": "p", "for_s": 600});
    assert_eq!(other.refused("POST", "/v1/grants", &grant), "passphrase.needed");
    let proven = json!({"profile": "p", "for_s": 600, "proof": {"passphrase": PASSPHRASE}});
    other.ok("POST", "/v1/grants", &proven);
    let wrong = json!({"passphrase": "not the one"});
    assert_eq!(other.refused("POST", "/v1/operator", &wrong), "vault.wrong_passphrase");
    assert_eq!(other.role(), "requester");

    let mut second = home.connect();
    // A wrong proof makes the next one wait.
    until("the next try", || {
        let (status, answer) = second.ask("POST", "/v1/operator", &json!({"passphrase": PASSPHRASE}));
        assert!(status < 300 || answer["code"] == "vault.unlock_wait", "{answer}");
        (status < 300).then_some(())
    });
    assert_eq!((second.role().as_str(), other.role().as_str()), ("operator", "requester"));
    second.ok("DELETE", "/v1/secrets/mine", &Value::Null);
    operator.ok("POST", "/v1/vault/lock", &Value::Null);
    assert_eq!(operator.role(), "requester", "a lock ends it");
}

#[test]
fn a_request_without_a_grant_is_a_card_and_a_yes_is_one_delivery() {
    let (home, mut operator) = Home::with_vault();
    let mut other = home.connect();
    let (status, answer) = other.ask("POST", "/v1/token", &token("p"));
    assert_eq!((status, answer["code"].as_str()), (403, Some("approval.needed")));
    let card = operator.open_card().unwrap();
    let id = card["id"].as_str().unwrap();
    assert_eq!(answer["causes"][0], format!("run `keyward approve {id}` in a terminal of yours"));
    assert_eq!(
        (&card["kind"], &card["merged"], &card["wanted"][0]["profile"]),
        (&json!("token"), &json!(1), &json!("p"))
    );
    assert_eq!(card["chain"][0]["pid"], std::process::id());
    let path = format!("/v1/approvals/{id}");

    // The same again is the same card, and from the same process it counts once.
    assert_eq!(other.refused("POST", "/v1/token", &token("p")), "approval.needed");
    assert_eq!(operator.open_card().unwrap()["merged"], 1);
    let mut yes = json!({"digest": card["digest"], "decision": "once"});
    assert_eq!(other.refused("POST", &path, &yes), "passphrase.needed");
    yes["digest"] = json!("00".repeat(32));
    assert_eq!(operator.refused("POST", &path, &yes), "approval.changed");
    yes["digest"] = json!("zz");
    assert_eq!(operator.refused("POST", &path, &yes), "approval.changed");
    assert_eq!(
        operator.refused("POST", "/v1/approvals/00000000", &json!({"digest": card["digest"], "decision": "once"})),
        "approval.unknown"
    );
    assert_eq!(operator.answer(&card, "run", &[]).1["code"], "request.invalid", "it is no choice of it");
    assert_eq!(operator.answer(&card, "once", &[]).0, 204);
    assert_eq!(operator.answer(&card, "once", &[]).1["code"], "approval.over", "a replay");

    assert_eq!(other.ok("POST", "/v1/token", &token("p"))["token"], "s3cret-of-p");
    assert_eq!(other.refused("POST", "/v1/token", &token("p")), "approval.needed", "it was for one delivery");
    let again = operator.open_card().unwrap();
    assert_eq!((&again["wanted"][0]["allowed_before"], &again["wanted"][0]["denied_before"]), (&json!(1), &json!(0)));
    assert_eq!(again["choices"], json!(["once"]), "whoever reads the answer gets it, whatever program asks");
    assert_eq!(operator.answer(&again, "deny", &[]).0, 204);
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "program": std::env::current_exe().unwrap()}));
    assert_eq!(other.refused("POST", "/v1/token", &token("p")), "approval.denied", "so no grant for a program counts");
    let grants = operator.ok("GET", "/v1/grants", &Value::Null);
    operator.ok("DELETE", &format!("/v1/grants/{}", grants[0]["grant"].as_str().unwrap()), &Value::Null);
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "for_s": 120}));
    for _ in 0..3 {
        other.ok("POST", "/v1/token", &token("p"));
    }
    let grants = operator.ok("GET", "/v1/grants", &Value::Null);
    assert_eq!(
        (grants.as_array().unwrap().len(), &grants[0]["span"], &grants[0]["allowed"]),
        (1, &json!("standing"), &json!(3))
    );
    other.ok("DELETE", &format!("/v1/grants/{}", grants[0]["grant"].as_str().unwrap()), &Value::Null);
    assert_eq!(other.refused("POST", "/v1/token", &token("p")), "approval.denied");
}

#[test]
fn who_waits_goes_on_by_itself_and_who_goes_away_leaves_nothing() {
    let (home, mut operator) = Home::with_vault();
    let ask = json!({"profile": "p", "wait": true});
    let exe = std::env::current_exe().unwrap();
    let spawn = || child(&exe, &home.socket(), "POST", "/v1/token", &ask).spawn().unwrap();
    let card = |operator: &mut Connection, merged: u32| {
        until("the card", || operator.open_card().filter(|card| card["merged"] == merged))
    };

    // Two processes that ask for the same are one card; one yes is one delivery, and the other is asked about again.
    let both = [spawn(), spawn()];
    let shown = card(&mut operator, 2);
    assert_eq!(operator.answer(&shown, "once", &[]).0, 204);
    let left = card(&mut operator, 1);
    assert_eq!(operator.answer(&left, "deny", &[]).0, 204);
    let mut answers: Vec<_> =
        both.into_iter().map(said).map(|(status, answer)| (status, answer["code"].clone())).collect();
    answers.sort_by_key(|(status, _)| *status);
    assert_eq!(answers, [(200, Value::Null), (403, json!("approval.denied"))]);
    assert_eq!(said(spawn()).1["code"], "approval.denied", "no card so soon after a no");

    home.profile(&mut operator, "q", "");
    let ask = json!({"profile": "q", "wait": true});
    let mut gone = child(&exe, &home.socket(), "POST", "/v1/token", &ask).spawn().unwrap();
    let shown = card(&mut operator, 1);
    gone.kill().unwrap();
    gone.wait().unwrap();
    let state = |operator: &mut Connection| {
        let all = operator.ok("GET", "/v1/approvals", &Value::Null);
        all.as_array().unwrap().iter().find(|card| card["id"] == shown["id"]).unwrap()["state"].clone()
    };
    until("the withdrawal", || (state(&mut operator) == "withdrawn").then_some(()));
    assert_eq!(operator.answer(&shown, "once", &[]).1["code"], "approval.over");

    let waits = child(&exe, &home.socket(), "POST", "/v1/token", &ask).spawn().unwrap();
    card(&mut operator, 1);
    operator.ok("POST", "/v1/vault/lock", &Value::Null);
    // The lock closes the connections of all others.
    drop(waits.wait_with_output());
}

#[test]
fn a_hundred_at_once_get_seven_uses() {
    let (home, mut operator) = Home::with_vault();
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "uses": 7}));
    let exe = std::env::current_exe().unwrap();
    let socket = home.socket();
    let asking: Vec<_> =
        (0..100).map(|_| child(&exe, &socket, "POST", "/v1/token", &token("p")).spawn().unwrap()).collect();
    let answers: Vec<_> = asking.into_iter().map(said).collect();
    let given = answers.iter().filter(|(status, answer)| *status == 200 && answer["token"] == "s3cret-of-p").count();
    let asked = answers.iter().filter(|(_, answer)| answer["code"] == "approval.needed").count();
    assert_eq!((given, asked), (7, 93));
    let delivered = operator.ok("GET", "/v1/audit?kind=token.delivered", &Value::Null);
    assert_eq!(delivered["entries"].as_array().unwrap().len(), 7);
    let told = operator.ok("GET", "/v1/grants", &Value::Null);
    assert_eq!(
        (told[0]["allowed"].as_u64(), told[0]["uses_left"].as_u64(), told[1].is_null()),
        (Some(7), Some(0), true)
    );
    let verified = operator.ok("GET", "/v1/audit/verify", &Value::Null);
    assert_eq!(verified["ok"], true);
}

#[test]
fn the_shell_of_the_command_line_that_unlocks_is_trusted_for_its_children_alone() {
    let home = Home::new();
    let exe = std::env::current_exe().unwrap();
    let socket = home.socket();
    // The kernel names a process by its file.
    let named = |name: &str| {
        let path = home.folder.join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(&exe, &path).unwrap();
        }
        path
    };
    let me = || said(child(&exe, &socket, "GET", "/v1/me", &Value::Null).spawn().unwrap()).1["role"].clone();
    let init = json!({"passphrase": PASSPHRASE});
    let made = said(child(&named("keyward-desktop"), &socket, "POST", "/v1/vault/init", &init).spawn().unwrap());
    assert_eq!(made.0, 200);
    assert_eq!(me(), "requester", "the parent of the desktop is the session");

    let unlock = json!({"proof": {"passphrase": PASSPHRASE}});
    assert_eq!(said(child(&named("keyward"), &socket, "POST", "/v1/vault/unlock", &unlock).spawn().unwrap()).0, 200);
    assert_eq!(me(), "shell");
    said(child(&exe, &socket, "POST", "/v1/vault/lock", &Value::Null).spawn().unwrap());
    let inner = child(&named("keyward"), &socket, "POST", "/v1/vault/unlock", &unlock);
    let mut alone = Command::new("/usr/bin/setsid");
    alone.arg(inner.get_program()).args(inner.get_args());
    alone.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let alone = alone.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(said(alone).0, 200);
    assert_eq!(me(), "requester", "who starts a client in a session of its own starts everything else");
    assert_eq!(said(child(&named("keyward"), &socket, "POST", "/v1/vault/unlock", &unlock).spawn().unwrap()).0, 200);
    assert_eq!(me(), "shell");
    // A grandchild is none of its children.
    let inner = child(&exe, &socket, "GET", "/v1/me", &Value::Null);
    let mut below = Command::new("/bin/sh");
    below.arg("-c").arg("\"$0\" \"$@\"; true").arg(inner.get_program()).args(inner.get_args());
    below.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let below = below.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(said(below).1["role"], "requester");
    assert_eq!(home.connect().role(), "requester", "nor is the shell itself");

    said(child(&exe, &socket, "POST", "/v1/vault/lock", &Value::Null).spawn().unwrap());
    assert_eq!(me(), "requester", "a lock ends it");
}

#[test]
fn grants_survive_a_lock_and_end_with_their_profile() {
    let (home, mut operator) = Home::with_vault();
    let made = operator.ok("POST", "/v1/grants", &json!({"profile": "p", "uses": 3, "project": "/tmp"}));
    let id = made["grant"].as_str().unwrap().to_owned();
    for (body, why) in [
        (json!({"profile": "p", "for_s": 86_401}), "a day is the most"),
        (json!({"profile": "p", "for_s": 59}), "too short"),
        (json!({"profile": "p", "uses": 0}), "nothing"),
        (json!({"profile": "p", "program": "/bin/sh"}), "an interpreter"),
        (json!({"profile": "p", "program": "sh"}), "no path"),
        (json!({"profile": "p", "project": "/no/such/folder"}), "no folder"),
    ] {
        assert_eq!(operator.refused("POST", "/v1/grants", &body), "grant.invalid", "{why}");
    }
    home.profile(&mut operator, "c", "confirm = true\n");
    assert_eq!(operator.refused("POST", "/v1/grants", &json!({"profile": "c"})), "grant.invalid");
    assert_eq!(operator.refused("POST", "/v1/token", &token("c")), "passphrase.needed");
    let with = json!({"profile": "c", "proof": {"passphrase": PASSPHRASE}});
    assert_eq!(operator.ok("POST", "/v1/token", &with)["token"], "s3cret-of-c");
    let mut other = home.connect();
    assert_eq!(other.refused("POST", "/v1/token", &with), "approval.needed", "a card, whatever is sent");
    let card = operator.open_card().unwrap();
    assert_eq!((&card["confirm"], &card["choices"]), (&json!(true), &json!(["once"])));
    assert_eq!(operator.answer(&card, "once", &[]).1["code"], "passphrase.needed", "an operator, too");
    assert_eq!(operator.answer(&card, "once", &[("proof", json!({"passphrase": PASSPHRASE}))]).0, 204);
    other.ok("POST", "/v1/token", &token("c"));

    operator.ok("POST", "/v1/vault/lock", &Value::Null);
    operator.ok("POST", "/v1/vault/unlock", &json!({"proof": {"passphrase": PASSPHRASE}}));
    let kept = operator.ok("GET", "/v1/grants", &Value::Null);
    assert_eq!((kept.as_array().unwrap().len(), &kept[0]["grant"], &kept[0]["uses_left"]), (1, &json!(id), &json!(3)));
    let edited = json!({"profile": "p", "uses": 9, "for_s": 300});
    assert_eq!(operator.ok("PUT", &format!("/v1/grants/{id}"), &edited)["uses_left"], 9);
    operator.ok("DELETE", "/v1/profiles/p", &Value::Null);
    assert_eq!(operator.ok("GET", "/v1/grants", &Value::Null), json!([]));
    assert_eq!(operator.refused("PUT", &format!("/v1/grants/{id}"), &edited), "grant.unknown");
}

/// A run of the profile `p` by a child process, which goes on as a program; the grant that is there allows it.
fn run_of(home: &Home, path: &str, args: &[&str], exec: &[&str]) -> (Child, impl Read, String) {
    let body = json!({"profiles": ["p"], "variables": [], "command": {"path": path, "args": args, "project": "/"}});
    let exe = std::env::current_exe().unwrap();
    let mut child = child_of(&exe, &home.socket(), &json!([["POST", "/v1/runs", body]]), exec).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (status, answer) = next(&mut out);
    assert_eq!(status, 200, "{answer}");
    (child, out, answer["run"].as_str().unwrap().to_owned())
}

/// The run once its program was looked at: whether it was verified, and the state of what it holds.
fn begun(operator: &mut Connection, run: &str) -> (bool, String) {
    let started = format!("/v1/audit?kind=run.started&run={run}");
    until("the look at the program", || {
        let entries = operator.ok("GET", &started, &Value::Null);
        (!entries["entries"].as_array().unwrap().is_empty()).then_some(())
    });
    let runs = operator.ok("GET", "/v1/runs", &Value::Null);
    let run = runs.as_array().unwrap().iter().find(|r| r["run"] == run).unwrap().clone();
    (run["app_verified"].as_bool().unwrap(), run["leases"][0]["state"].as_str().unwrap().to_owned())
}

#[test]
fn a_program_that_is_another_one_loses_what_it_was_given() {
    let (home, mut operator) = Home::with_vault();
    let script = |name: &str| {
        let path = home.folder.join(name);
        std::fs::write(&path, "tail -f /dev/null\n:\n").unwrap();
        path.display().to_string()
    };
    let (named, other) = (script("named.sh"), script("other.sh"));
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "program": "/bin/sleep", "weakest": "env"}));
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "program": "/bin/sh", "script": named}));
    for (path, args, exec, want) in [
        ("/bin/sleep", vec!["60"], vec!["/bin/sleep", "60"], (true, "live")),
        ("/bin/sleep", vec!["60"], vec!["/bin/tail", "-f", "/dev/null"], (false, "revoked")),
        ("/bin/sh", vec![&*named], vec!["/bin/sh", &*named], (true, "live")),
        ("/bin/sh", vec![&*named], vec!["/bin/sh", &*other], (false, "revoked")),
    ] {
        // What it starts ends once nobody reads what it prints.
        let (mut child, _out, run) = run_of(&home, path, &args, &exec);
        assert_eq!(begun(&mut operator, &run), (want.0, want.1.to_owned()), "{exec:?} for {path} {args:?}");
        if want.1 == "revoked" {
            let all = operator.ok("GET", &format!("/v1/audit?kind=lease.revoked&run={run}"), &Value::Null);
            let detail = &all["entries"][0]["entry"]["detail"];
            assert!(detail["alarm"].is_string() && detail["remains"].is_string(), "{all}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Nor is a file that was written to in its place, after it was looked at.
    let own = home.folder.join("own");
    std::fs::copy("/bin/sleep", &own).unwrap();
    let own = own.display().to_string();
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "program": own, "weakest": "env"}));
    for (write, want) in [(false, (true, "live")), (true, (false, "revoked"))] {
        let body =
            json!({"profiles": ["p"], "variables": [], "command": {"path": own, "args": ["60"], "project": "/"}});
        let exe = std::env::current_exe().unwrap();
        let mut asks = child_of(&exe, &home.socket(), &json!([["POST", "/v1/runs", body]]), &[&own, "60"]);
        if write {
            asks.env(WRITE, &own);
        }
        let mut child = asks.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (status, answer) = next(&mut out);
        assert_eq!(status, 200, "{answer}");
        let (verified, state) = begun(&mut operator, answer["run"].as_str().unwrap());
        assert_eq!((verified, state.as_str()), want, "written to: {write}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Another script, and none at all, are not what was granted.
    let body = |args: Value| json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sh", "args": args, "project": "/"}});
    for args in [json!([other]), json!(["-c", "true"]), json!([])] {
        assert_eq!(home.connect().refused("POST", "/v1/runs", &body(args.clone())), "approval.needed", "{args}");
    }
    let card = operator.open_card().unwrap();
    assert_eq!((&card["choices"], &card["outer_run"]), (&json!(["once", "run"]), &Value::Null), "{card}");
}

#[test]
fn a_run_asks_for_more_and_answers_nothing() {
    let (home, mut operator) = Home::with_vault();
    home.profile(&mut operator, "q", "");
    operator.ok("POST", "/v1/grants", &json!({"profile": "p"}));
    operator.ok("POST", "/v1/grants", &json!({"profile": "q"}));
    let run = |profile: &str| json!({"profiles": [profile], "variables": [], "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
    let proof = json!({"passphrase": PASSPHRASE});
    let asks = json!([
        ["POST", "/v1/runs", run("p")],
        ["GET", "/v1/me", null],
        ["POST", "/v1/token", token("p")],
        ["POST", "/v1/token", token("q")],
        ["POST", "/v1/runs", run("q")],
        ["GET", "/v1/approvals", null],
        ["POST", "/v1/approvals/00000000", {"digest": "00", "decision": "once", "proof": proof}],
        ["POST", "/v1/grants", {"profile": "q", "proof": proof}],
        ["POST", "/v1/operator", proof],
        ["POST", "/v1/vault/unlock", {"proof": proof}],
        ["GET", "/v1/grants", null],
        ["POST", "/v1/runs", {"profiles": ["p"], "variables": [], "dry_run": true, "command": {"path": "/bin/sleep", "args": [], "project": "/"}}],
        ["POST", "/v1/runs", run("unknown")],
    ]);
    let exe = std::env::current_exe().unwrap();
    let mut child = child_of(&exe, &home.socket(), &asks, &["/bin/sleep", "60"]).spawn().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let (status, answer) = next(&mut answers);
    assert_eq!(status, 200, "{answer}");
    let own = answer["run"].clone();
    let me = next(&mut answers).1;
    assert_eq!((&me["role"], &me["run"]), (&json!("inside"), &own));
    assert_eq!(next(&mut answers).1["token"], "s3cret-of-p", "what it holds");
    assert_eq!(next(&mut answers).1["code"], "approval.needed", "whatever grants there are");
    assert_eq!(next(&mut answers).1["code"], "approval.needed");
    for what in ["approvals", "an answer", "a grant", "operator", "unlock", "grants", "a plan"] {
        assert_eq!(next(&mut answers).1["code"], "policy.denied", "{what}");
    }
    let unknown = next(&mut answers).1;
    assert_eq!((&unknown["code"], &unknown["causes"]), (&json!("profile.unknown"), &json!([])), "it learns no names");
    let card = operator.open_card().unwrap();
    assert_eq!((&card["outer_run"], &card["kind"], &card["choices"]), (&own, &json!("run"), &json!(["once", "run"])));

    child.kill().unwrap();
    child.wait().unwrap();
    until("the end of the run", || operator.open_card().is_none().then_some(()));
}

#[test]
fn a_launch_that_an_operator_announced_needs_no_other_grant_once() {
    let (home, mut operator) = Home::with_vault();
    let launcher = json!({"name": "tool", "command": ["/bin/sleep", "0"], "folder": "/", "profiles": ["p"]});
    operator.ok("POST", "/v1/launchers", &launcher);
    let expect = json!({"path": "/bin/sleep", "by_operator": true});
    let run = json!({"profiles": ["p"], "variables": [], "launcher": "tool",
        "command": {"path": "/bin/sleep", "args": ["0"], "project": "/"}});
    let exe = std::env::current_exe().unwrap();
    let start = || {
        said(child_of(&exe, &home.socket(), &json!([["POST", "/v1/runs", run]]), &["/bin/sleep", "0"]).spawn().unwrap())
    };
    home.connect().ok("POST", "/v1/launchers/tool/expect", &expect);
    assert_eq!(start().1["code"], "approval.needed", "a requester announces and grants nothing");
    operator.ok("POST", "/v1/launchers/tool/expect", &json!({"path": "/bin/sleep"}));
    assert_eq!(start().1["code"], "approval.needed", "nor does an operator who does not say so");
    operator.ok("POST", "/v1/launchers/tool/expect", &expect);
    assert_eq!(start().0, 200);
    assert_eq!(start().1["code"], "approval.needed", "it was for one launch");
    let card = operator.open_card().unwrap();
    assert_eq!((&card["launcher"], &card["app"]), (&json!("tool"), &json!("tool")));
    let decided = operator.ok("GET", "/v1/audit?kind=run.decided", &Value::Null);
    assert_eq!(decided["entries"][0]["entry"]["detail"]["by"], "launch");

    // A grant for the launcher is for its starts, and ends when it is changed.
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "launcher": "tool"}));
    assert_eq!(start().0, 200);
    let other =
        json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": ["0"], "project": "/"}});
    assert_eq!(home.connect().refused("POST", "/v1/runs", &other), "approval.needed", "the same command without it");
    let mut changed = launcher.clone();
    changed["proof"] = json!({"passphrase": PASSPHRASE});
    operator.ok("PUT", "/v1/launchers/tool", &changed);
    assert_eq!(operator.ok("GET", "/v1/grants", &Value::Null), json!([]));
}

#[test]
fn those_who_wait_for_one_asker_leave_room_for_others() {
    let (home, mut operator) = Home::with_vault();
    home.profile(&mut operator, "q", "");
    let exe = std::env::current_exe().unwrap();
    let socket = home.socket();
    let ask = |profile: &str| json!({"profile": profile, "wait": true});
    let of = |operator: &mut Connection, profile: &str| {
        let all = operator.ok("GET", "/v1/approvals", &Value::Null);
        let open = |card: &&Value| card["state"] == "open" && card["wanted"][0]["profile"] == profile;
        all.as_array().unwrap().iter().find(open).cloned()
    };
    let waiting: Vec<_> =
        (0..8).map(|_| child(&exe, &socket, "POST", "/v1/token", &ask("p")).spawn().unwrap()).collect();
    let card = until("the eight", || of(&mut operator, "p").filter(|card| card["merged"] == 8));
    let refused = child(&exe, &socket, "POST", "/v1/token", &ask("q")).spawn().unwrap();
    assert_eq!(said(refused).1["code"], "approval.flood");
    assert_eq!(of(&mut operator, "q"), None, "nobody is asked what nobody waits for");

    // Another shell starts the same client.
    let own = child(&exe, &socket, "POST", "/v1/token", &ask("q"));
    let mut other = Command::new("/bin/sh");
    other.args(["-c", "\"$@\"; :", "sh"]).arg(&exe).args(own.get_args());
    other.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    let other = other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let theirs = until("the card of another", || of(&mut operator, "q"));
    for card in [card, theirs] {
        assert_eq!(operator.answer(&card, "deny", &[]).0, 204);
    }
    for child in waiting.into_iter().chain([other]) {
        assert_eq!(said(child).1["code"], "approval.denied");
    }
}

#[test]
fn a_requester_adds_no_more_than_there_is_room_for() {
    let (home, mut operator) = Home::with_vault();
    let mut other = home.connect();
    let toml = "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nenv = { T = \"token\" }\n";
    let add = |n: usize| json!({"name": format!("p{n}"), "toml": toml});
    // The operator's own is one of each.
    for n in 1..1_000 {
        other.ok("PUT", &format!("/v1/secrets/s{n}"), &json!({"secret": "x"}));
        if n < 500 {
            other.ok("POST", "/v1/profiles", &add(n));
        }
    }
    let (_, full) = other.ask("PUT", "/v1/secrets/more", &json!({"secret": "x"}));
    assert_eq!(
        (&full["code"], &full["causes"][0]),
        (&json!("secret.invalid"), &json!("there are 1000 secrets already"))
    );
    let (_, full) = other.ask("POST", "/v1/profiles", &add(500));
    assert_eq!(
        (&full["code"], &full["causes"][0]),
        (&json!("profile.invalid"), &json!("there are 500 profiles already"))
    );
    operator.ok("PUT", "/v1/secrets/p", &json!({"secret": "another"}));
    operator.ok("DELETE", "/v1/secrets/s1", &Value::Null);
    other.ok("PUT", "/v1/secrets/more", &json!({"secret": "x"}));
}

#[test]
fn a_flood_of_different_requests_is_a_few_cards() {
    let (home, mut operator) = Home::with_vault();
    let mut other = home.connect();
    let codes: Vec<_> = (0..100)
        .map(|n| {
            let run = json!({"profiles": ["p"], "variables": [], "reason": n.to_string(),
                "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
            other.refused("POST", "/v1/runs", &run)
        })
        .collect();
    assert_eq!((codes[0].as_str(), codes[99].as_str()), ("approval.needed", "approval.flood"));
    let all = operator.ok("GET", "/v1/approvals", &Value::Null);
    let open = all.as_array().unwrap().iter().filter(|card| card["state"] == "open").count();
    assert_eq!(open, 1, "one asker has one card for a profile");
    let asked = operator.ok("GET", "/v1/audit?kind=approval.asked&limit=200", &Value::Null);
    assert!(asked["entries"].as_array().unwrap().len() < 50, "{asked}");
}

/// The grants that are there after the vault was locked and opened again.
fn grants_after_a_lock(operator: &mut Connection) -> Vec<Value> {
    operator.ok("POST", "/v1/vault/lock", &Value::Null);
    operator.ok("POST", "/v1/vault/unlock", &json!({"proof": {"passphrase": PASSPHRASE}}));
    operator.ok("GET", "/v1/grants", &Value::Null).as_array().unwrap().clone()
}

#[test]
fn no_yes_keeps_the_vault_from_being_opened() {
    let (home, mut operator) = Home::with_vault();
    let exe = std::env::current_exe().unwrap();
    let run = |path: &str, args: Value, project: &str, launcher: Value| {
        json!({"profiles": ["p"], "variables": [], "launcher": launcher,
            "command": {"path": path, "args": args, "project": project}})
    };
    let mut other = home.connect();
    for project in ["", "tmp", "../tmp"] {
        let body = run("/bin/sleep", json!(["0"]), project, Value::Null);
        assert_eq!(other.refused("POST", "/v1/runs", &body), "request.invalid", "{project:?}");
    }

    // An interpreter of the requester's own, by a launcher that means another file of that name.
    let folder = std::fs::canonicalize(&home.folder).unwrap();
    let (node, folder) = (folder.join("node").display().to_string(), folder.display().to_string());
    std::os::unix::fs::symlink("/bin/sleep", &node).unwrap();
    operator.ok(
        "POST",
        "/v1/launchers",
        &json!({"name": "n", "command": ["node"], "folder": folder, "profiles": ["p"], "terminal": false}),
    );
    let bare = json!([["POST", "/v1/runs", run(&node, json!([]), &folder, json!("n"))]]);
    let asked = said(child_of(&exe, &home.socket(), &bare, &[]).current_dir(&folder).spawn().unwrap());
    assert_eq!(asked.1["code"], "approval.needed", "{}", asked.1);
    let card = operator.open_card().unwrap();
    assert_eq!((&card["launcher"], &card["choices"]), (&json!("n"), &json!(["once", "run"])), "{card}");
    assert_eq!(operator.answer(&card, "project", &[]).1["code"], "request.invalid");
    assert_eq!(operator.answer(&card, "run", &[]).0, 204);
    assert_eq!(grants_after_a_lock(&mut operator).len(), 1);

    // Paths that no grant can name.
    let mut deep = home.folder.clone();
    while deep.as_os_str().len() <= 2100 {
        deep.push("d".repeat(200));
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("x.sh"), ":\n").unwrap();
    for (asks, choices) in [
        (json!([["POST", "/v1/token", token("p")]]), json!(["once"])),
        (json!([["POST", "/v1/runs", run("/bin/sh", json!(["x.sh"]), "/", Value::Null)]]), json!(["once", "run"])),
    ] {
        let asked = said(child_of(&exe, &home.socket(), &asks, &[]).current_dir(&deep).spawn().unwrap());
        assert_eq!(asked.1["code"], "approval.needed", "{}", asked.1);
        let card = operator.open_card().unwrap();
        assert_eq!(card["choices"], choices, "{card}");
        assert_eq!(operator.answer(&card, "once", &[]).0, 204, "{card}");
    }
    assert_eq!(grants_after_a_lock(&mut operator).len(), 3);
}

#[test]
fn an_announced_launch_is_in_the_form_of_its_profile() {
    let (home, mut operator) = Home::with_vault();
    let launcher = json!({"name": "tool", "command": ["/bin/sleep", "0"], "folder": "/", "profiles": ["p"]});
    operator.ok("POST", "/v1/launchers", &launcher);
    operator.ok("POST", "/v1/launchers/tool/expect", &json!({"path": "/bin/sleep", "by_operator": true}));
    let exe = std::env::current_exe().unwrap();
    let start = |more: &Value| {
        let mut run = json!({"profiles": ["p"], "variables": [], "launcher": "tool",
            "command": {"path": "/bin/sleep", "args": ["0"], "project": "/"}});
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said(child_of(&exe, &home.socket(), &json!([["POST", "/v1/runs", run]]), &["/bin/sleep", "0"]).spawn().unwrap())
    };
    for more in [json!({"deliver": "env"}), json!({"ttl_s": 86_400}), json!({"deliver": "env", "ttl_s": 60})] {
        let (_, answer) = start(&more);
        assert_eq!(answer["code"], "approval.needed", "{more}: {answer}");
    }
    assert_eq!(start(&json!({})).0, 200, "it is announced still");
}

#[test]
fn a_grant_for_a_launcher_is_for_the_file_that_it_starts() {
    let (home, mut operator) = Home::with_vault();
    let tool = home.folder.join("tool");
    // As a package manager has it: another file in the place of the first.
    let install = || {
        let fresh = home.folder.join("tool.next");
        std::fs::copy("/bin/sleep", &fresh).unwrap();
        std::fs::rename(&fresh, &tool).unwrap();
    };
    install();
    let path = tool.display().to_string();
    let launcher = json!({"name": "tool", "command": [path, "0"], "folder": "/", "profiles": ["p"]});
    operator.ok("POST", "/v1/launchers", &launcher);
    let exe = std::env::current_exe().unwrap();
    let start = || {
        let run = json!({"profiles": ["p"], "variables": [], "launcher": "tool",
            "command": {"path": path, "args": ["0"], "project": "/"}});
        said(child_of(&exe, &home.socket(), &json!([["POST", "/v1/runs", run]]), &[&path, "0"]).spawn().unwrap())
    };
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "launcher": "tool"}));
    assert_eq!(start().0, 200);
    assert_eq!(grants_after_a_lock(&mut operator).len(), 1);
    assert_eq!(start().0, 200, "the row keeps the file");
    install();
    assert_eq!(start().1["code"], "approval.needed", "the program was replaced");
    let card = operator.open_card().unwrap();
    assert_eq!(operator.answer(&card, "project", &[]).0, 204);
    assert_eq!(start().0, 200);
    install();
    assert_eq!(start().1["code"], "approval.needed");

    std::fs::remove_file(&tool).unwrap();
    let grant = json!({"profile": "p", "launcher": "tool"});
    assert_eq!(operator.refused("POST", "/v1/grants", &grant), "run.not_found", "no file, no grant ahead");
}

#[test]
fn a_grant_ahead_names_no_link_to_an_interpreter() {
    let (home, mut operator) = Home::with_vault();
    let link = home.folder.join("js");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    for body in [json!({"profile": "p", "program": link}), json!({"profile": "p", "program": link, "script": "/bin/x"})]
    {
        assert_eq!(operator.refused("POST", "/v1/grants", &body), "grant.invalid", "{body}");
    }
    let tool = home.folder.join("tool");
    std::os::unix::fs::symlink("/bin/sleep", &tool).unwrap();
    operator.ok("POST", "/v1/grants", &json!({"profile": "p", "program": tool}));
}

#[test]
fn what_a_card_shows_cut_is_told_apart_all_the_same() {
    let (home, mut operator) = Home::with_vault();
    let exe = std::env::current_exe().unwrap();
    let ask = |middle: &str, args: usize| {
        let mut all = vec![format!("{0}{middle}{0}", "x".repeat(700))];
        all.resize(args, "y".to_owned());
        let body =
            json!({"profiles": ["p"], "variables": [], "command": {"path": "/bin/sleep", "args": all, "project": "/"}});
        said(child(&exe, &home.socket(), "POST", "/v1/runs", &body).spawn().unwrap())
    };
    assert_eq!(ask("harmless", 1).1["code"], "approval.needed");
    let card = operator.open_card().unwrap();
    assert_eq!(ask("harmfull", 1).1["code"], "approval.needed");
    let other = operator.open_card().unwrap();
    assert_eq!(card["command"], other["command"], "what is shown is the same");
    assert_ne!(card["id"], other["id"], "and it is another request");
    assert_ne!(card["digest"], other["digest"]);

    assert_eq!(ask("harmless", 1).1["code"], "approval.needed");
    let card = operator.open_card().unwrap();
    assert_eq!(operator.answer(&card, "once", &[]).0, 204);
    assert_eq!(ask("harmfull", 1).1["code"], "approval.needed");
    assert_eq!(ask("harmless", 2).1["code"], "approval.needed");
    assert_eq!(ask("harmless", 1).0, 200);
}

#[test]
fn a_run_hears_the_same_of_a_profile_that_exists_and_of_one_that_does_not() {
    let (home, mut operator) = Home::with_vault();
    home.profile(&mut operator, "q", "");
    let fenced =
        "[issuer]\nkind = \"static\"\nsecret = \"secret:q\"\nprovider = \"anthropic\"\n[fence]\nrequests = 5\n";
    operator.ok("POST", "/v1/profiles", &json!({"name": "f", "toml": fenced}));
    operator.ok("POST", "/v1/grants", &json!({"profile": "p"}));
    let run = |profile: &str, more: Value| {
        let mut body = json!({"profiles": [profile], "variables": [],
            "command": {"path": "/bin/sleep", "args": [], "project": "/"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!(["POST", "/v1/runs", body])
    };
    let file =
        |text: String| run("p", json!({"profiles": [], "project_file": {"path": "/keyward.toml", "text": text}}));
    let long = "# a line\n".repeat(70);
    let mut asks = vec![run("p", json!({}))];
    for profile in ["q", "zzz"] {
        asks.push(run(profile, json!({"deliver": "gateway"})));
        asks.push(run(profile, json!({"launcher": "nope"})));
        asks.push(file(format!("[run.dev]\nenv = {{ ODD = \"keyward:{profile}\" }}\n")));
        asks.push(file(format!("{long}[run.dev]\nprofiles = [\"{profile}\"]\n")));
    }
    asks.push(run("f", json!({"deliver": "env"})));
    asks.push(json!(["POST", "/v1/token", token("f")]));
    asks.push(json!(["POST", "/v1/token", token("zzz")]));
    asks.push(run("p", json!({"deliver": "gateway"})));
    let exe = std::env::current_exe().unwrap();
    let count = asks.len();
    let mut child = child_of(&exe, &home.socket(), &json!(asks), &["/bin/sleep", "60"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let answers: Vec<_> = (0..count).map(|_| next(&mut out)).collect();
    assert_eq!(answers[0].0, 200, "{:?}", answers[0]);
    for (n, (_, answer)) in answers[1..count - 1].iter().enumerate() {
        let asked = &asks[n + 1];
        let long = asked[2]["project_file"]["text"].as_str().is_some_and(|text| text.len() > 200);
        let code = if long { "project.invalid" } else { "profile.unknown" };
        assert_eq!((&answer["code"], &answer["causes"]), (&json!(code), &json!([])), "{asked}");
    }
    let own = &answers[count - 1].1;
    assert_ne!(own["code"], "profile.unknown", "what it holds it knows");
    assert_eq!(own["causes"], json!([]));
    assert!(operator.open_card().is_none(), "nobody was asked");
    child.kill().unwrap();
    child.wait().unwrap();
}
