//! The client against servers that are not a broker: of another user, gone, restarted, hostile.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyward_api::place::Places;
use keyward_client::{Client, Method, Start};
use keyward_diag::{Code, Fault};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Places of the test alone.
struct Home {
    folder: PathBuf,
    places: Places,
}

impl Home {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("kw-client-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let find = |name: &str| ["HOME", "XDG_RUNTIME_DIR"].contains(&name).then(|| folder.clone().into_os_string());
        let places = Places::find(&find, rustix::process::getuid().as_raw()).unwrap();
        places.make_runtime().unwrap();
        Self { folder, places }
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(&self.places.socket).unwrap()
    }

    fn connect(&self) -> Result<Client, Fault> {
        Client::connect(&self.places, Start::Never)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Serves one connection after the other: for each the steps in order, each the head that must come and what is said to it.
fn serve(listener: UnixListener, connections: Vec<Vec<(&'static str, String)>>) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut heads = Vec::new();
        for steps in connections {
            let (mut stream, _) = listener.accept().unwrap();
            for (want, say) in steps {
                let got = read(&mut stream, want);
                assert!(got.contains(want), "{want:?} is not in {got:?}");
                heads.push(got);
                stream.write_all(say.as_bytes()).unwrap();
            }
        }
        heads
    })
}

/// Reads a head, or as many bytes as `want` has where that is a body.
fn read(stream: &mut UnixStream, want: &str) -> String {
    let mut text = Vec::new();
    let body = want.starts_with('{');
    while if body { text.len() < want.len() } else { !text.ends_with(b"\r\n\r\n") } {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn json(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn code<T>(result: Result<T, Fault>) -> Code {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(fault) => fault.code,
    }
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn a_body_leaves_after_the_facts_were_taken() {
    let home = Home::new();
    let steps = vec![vec![
        ("POST /v1/run HTTP/1.1\r\n", CONTINUE.into()),
        ("{\"a\":1}", json("200 OK", "{\"b\":2}")),
        ("PUT /v1/x HTTP/1.1\r\n", CONTINUE.into()),
        ("{}", "HTTP/1.1 204 No Content\r\n\r\n".into()),
        ("DELETE /v1/x HTTP/1.1\r\n", "HTTP/1.1 204 No Content\r\n\r\n".into()),
    ]];
    let server = serve(home.listen(), steps);
    let mut client = home.connect().unwrap();
    let mut order = Vec::new();
    let answer =
        client.call_once_facts_are_taken(Method::Post, "/v1/run", b"{\"a\":1}", || order.push("facts")).unwrap();
    order.push("answer");
    assert_eq!(
        (order.as_slice(), answer.status, answer.body.as_slice()),
        (["facts", "answer"].as_slice(), 200, b"{\"b\":2}".as_slice())
    );
    let () = client.put("/v1/x", &serde_json::json!({})).unwrap();
    let () = client.delete("/v1/x").unwrap();
    let heads = server.join().unwrap();
    assert!(heads[0].contains("keyward-api: 1\r\n") && heads[0].contains("expect: 100-continue\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("content-length: 7\r\n"));
}

#[test]
fn a_refusal_by_the_head_alone_sends_no_body() {
    let home = Home::new();
    let fault = serde_json::to_string(&Fault::new(Code::BrokerVersion).cause("other")).unwrap();
    let server = serve(
        home.listen(),
        vec![vec![("POST /", json("409 Conflict", &fault))], vec![("GET /", json("200 OK", "3"))]],
    );
    let mut client = home.connect().unwrap();
    let mut ran = false;
    let answer = client.call_once_facts_are_taken(Method::Post, "/", b"{\"secret\":1}", || ran = true);
    assert_eq!((code(answer), ran), (Code::BrokerVersion, false));
    assert_eq!(client.get::<u8>("/").unwrap(), 3, "on a new connection");
    server.join().unwrap();
}

#[test]
fn what_the_broker_had_not_taken_is_sent_anew_and_nothing_else() {
    let home = Home::new();
    let gone = || vec![("HTTP/1.1\r\n", String::new())];
    let server = serve(
        home.listen(),
        vec![
            gone(),
            vec![("GET /", json("200 OK", "1"))],
            gone(),
            vec![("POST /", CONTINUE.into()), ("{\"a\":1}", json("200 OK", "2"))],
            vec![("POST /", CONTINUE.into()), ("{\"a\":1}", String::new())],
            gone(),
        ],
    );
    let mut client = home.connect().unwrap();
    assert_eq!(client.get::<u8>("/").unwrap(), 1);
    assert_eq!(client.post::<_, u8>("/", &serde_json::json!({"a": 1})).unwrap(), 2);
    let lost = client.post::<_, u8>("/", &serde_json::json!({"a": 1})).unwrap_err();
    assert!(lost.code == Code::BrokerUnreachable && lost.causes[0].contains("not known"), "{lost}");
    assert_eq!(code(client.delete::<()>("/")), Code::BrokerUnreachable, "it may have been done");
    server.join().unwrap();
}

#[test]
fn faults_and_nonsense_never_quote_the_answer() {
    let home = Home::new();
    let fault = serde_json::to_string(&Fault::new(Code::VaultLocked).cause("why")).unwrap();
    let server = serve(
        home.listen(),
        vec![vec![
            ("GET /", json("423 Locked", &fault)),
            ("GET /", json("200 OK", "\"hunter2")),
            ("GET /", json("200 OK", "{\"x\":\"hunter2\"}")),
            ("GET /", json("500 Oops", "hunter2")),
            ("GET /", "hunter2\r\n\r\n".into()),
        ]],
    );
    let mut client = home.connect().unwrap();
    let locked = client.get::<u8>("/").unwrap_err();
    assert_eq!((locked.code, locked.causes[0].as_str()), (Code::VaultLocked, "why"));
    for _ in 0..4 {
        let fault = client.get::<u8>("/").unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains("hunter2"), "{fault}");
        assert_eq!(fault.code, Code::BrokerVersion);
    }
    server.join().unwrap();
    assert!(!format!("{client:?}").contains("hunter2"));
    assert_eq!(code(client.call(Method::Post, "/", Some(&[b'x'; 65_537]))), Code::RequestTooLarge);
    assert_eq!(code(client.post::<_, ()>("/", &"x".repeat(70_000))), Code::RequestTooLarge);
}

#[test]
fn events_resume_where_they_were_cut() {
    let home = Home::new();
    let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let refused = serde_json::to_string(&Fault::new(Code::PolicyDenied)).unwrap();
    let server = serve(
        home.listen(),
        vec![
            vec![(
                "GET /v1/events",
                format!("{stream}{}{}", chunk("id: 8\nevent: run\nda"), chunk("ta: a\n\n: x\ndata: cut")),
            )],
            vec![("last-event-id: 8\r\n", format!("{stream}{}0\r\n\r\n", chunk("id: 9\ndata: b\n\n")))],
            vec![("last-event-id: 9\r\n", json("403 Forbidden", &refused))],
        ],
    );
    let mut events = home.connect().unwrap().events(Some("7"));
    let first = events.next().unwrap().unwrap();
    assert_eq!((first.id.as_deref(), first.name.as_str(), first.data.as_str()), (Some("8"), "run", "a"));
    assert_eq!(events.next().unwrap().unwrap().data, "b");
    assert_eq!(code(events.next().unwrap()), Code::PolicyDenied);
    assert!(events.next().is_none());
    let heads = server.join().unwrap();
    assert!(heads[0].contains("last-event-id: 7\r\n"), "{}", heads[0]);
}

#[test]
fn a_stream_comes_in_pieces() {
    let home = Home::new();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = serve(
        home.listen(),
        vec![vec![("POST /x", CONTINUE.into()), ("{}", format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))]],
    );
    let mut all = Vec::new();
    home.connect()
        .unwrap()
        .stream("/x", Some(b"{}"), |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    assert_eq!(all, b"abcde");
    server.join().unwrap();
}

#[test]
fn nobody_there_is_said_and_nothing_is_made() {
    let home = Home::new();
    assert_eq!(code(home.connect()), Code::BrokerUnreachable);
    drop(home.listen());
    assert_eq!(code(home.connect()), Code::BrokerUnreachable, "a stale socket");
    fs::remove_dir_all(&home.places.runtime).unwrap();
    assert_eq!(code(home.connect()), Code::BrokerUnreachable);
    assert!(!home.places.runtime.exists());
}

#[test]
fn an_open_folder_is_refused_before_anything_is_sent() {
    let home = Home::new();
    let listener = home.listen();
    listener.set_nonblocking(true).unwrap();
    for mode in [0o755, 0o770, 0o777] {
        fs::set_permissions(&home.places.runtime, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(code(home.connect()), Code::BrokerSocket, "{mode:o}");
        assert_eq!(code(Client::connect(&home.places, Start::IfNeeded)), Code::BrokerSocket, "{mode:o}");
    }
    fs::set_permissions(&home.places.runtime, fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::getuid().is_root() {
        chown(&home.places.runtime, Some(65534), None).unwrap();
        assert_eq!(code(home.connect()), Code::BrokerSocket, "another owner");
        chown(&home.places.runtime, Some(0), None).unwrap();
    }
    assert!(listener.accept().is_err(), "nobody has connected");
}

#[test]
fn a_server_of_another_user_gets_no_byte() {
    if !rustix::process::getuid().is_root() {
        println_raw("SKIPPED: acting as another user needs root; run this test as root");
        return;
    }
    let home = Home::new();
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&home.places.socket).unwrap()).unwrap();
    let mut child = Command::new("/proc/self/exe");
    child.args(["as_server_of_another_user", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    child.env("KEYWARD_TEST_CHILD", "1").stdin(socket).stdout(std::process::Stdio::piped()).uid(65534).gid(65534);
    let mut child = child.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("listening") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{text}");
        text.push(char::from(byte[0]));
    }
    let fault = home.connect().unwrap_err();
    assert!(fault.code == Code::BrokerSocket && fault.causes[0].contains("65534"), "{fault}");
    out.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    assert!(text.contains("read 0 bytes"), "{text}");
}

/// Not a test: the server of [`a_server_of_another_user_gets_no_byte`], in a process of its own.
#[test]
#[ignore = "run by another test"]
fn as_server_of_another_user() {
    if std::env::var_os("KEYWARD_TEST_CHILD").is_none() {
        return;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    println_raw("listening");
    let (mut stream, _) = UnixListener::from(socket).accept().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    println_raw(&format!("read {} bytes", all.len()));
}

fn println_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).unwrap();
}
