//! The program against a stand-in broker: what it asks for, what it prints, and what it becomes.
//!
//! The stand-in speaks just enough HTTP/1.1 on the socket where the broker of a throw-away home would be.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyward_api::place::Places;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A request as the stand-in saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    body: Value,
}

type Answer = dyn Fn(&str, &Value) -> (u16, String) + Send + Sync;

/// A home with a stand-in broker, removed at the end of the test.
struct Home {
    root: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
}

static HOMES: AtomicU32 = AtomicU32::new(0);

impl Home {
    /// `answer` gets `METHOD path` and the body.
    fn new(answer: impl Fn(&str, &Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let name = format!("kwc-{}-{}", std::process::id(), HOMES.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        let home = Self { root, seen: Arc::default() };
        let places = home.places();
        places.make_all().unwrap();
        let listener = UnixListener::bind(&places.socket).unwrap();
        let (seen, answer): (_, Arc<Answer>) = (home.seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream, &seen, &*answer));
            }
        });
        home
    }

    /// A stand-in that lets every run get `set` and lose `unset`.
    fn with_run(set: Value, unset: Value) -> Self {
        Self::new(move |line, _| match line {
            "POST /v1/runs" => {
                let plan = json!([{"profile": "p", "issuer": "static", "delivery": "env", "chosen_by": "profile",
                    "variables": ["T"], "gives_away": "the bytes", "ttl_s": 3600}]);
                let answer = json!({"run": "r-1", "plan": plan, "delivered": [], "set": set, "unset": unset});
                (200, answer.to_string())
            }
            "GET /v1/launchers" => (200, "[]".to_owned()),
            _ => (204, String::new()),
        })
    }

    /// A stand-in with launchers that start, one of which says where it is and one what it holds, and two that do not.
    fn with_launchers() -> Self {
        Self::new(|line, _| match line {
            "POST /v1/runs" => {
                let plan = json!([{"profile": "p", "issuer": "static", "delivery": "env",
                    "chosen_by": "profile", "variables": ["T"], "gives_away": "the bytes", "ttl_s": 3600}]);
                (200, json!({"run": "r-1", "plan": plan, "delivered": [], "set": [], "unset": []}).to_string())
            }
            "GET /v1/launchers" => {
                let one = |name: &str, command: Value, folder: Value| {
                    json!({"name": name, "command": command, "folder": folder, "profiles": ["p", "q"],
                        "terminal": true, "created_at": "", "updated_at": ""})
                };
                let script = "echo $0 in $(pwd) is $PWD; exit 7";
                let list = [
                    one("Morning / review", json!(["sh", "-c", script]), json!("/usr/lib")),
                    one("Gone", json!(["sh"]), json!("/no/such/folder")),
                    one("Missing", json!(["no-such-program"]), Value::Null),
                    one("True", json!(["/usr/bin/true"]), Value::Null),
                    one("Descriptors", json!(["ls", "/proc/self/fd"]), Value::Null),
                ];
                (200, json!(list).to_string())
            }
            _ => (204, String::new()),
        })
    }

    fn places(&self) -> Places {
        let root = self.root.clone();
        let env = move |name: &str| match name {
            "KEYWARD_HOME" => Some(root.join("kw").into()),
            "XDG_RUNTIME_DIR" => Some(root.clone().into()),
            _ => None,
        };
        Places::find(&env, fs::metadata(&self.root).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap()).unwrap()
    }

    /// A command in the environment of this home, without a terminal.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("KEYWARD_HOME", self.root.join("kw"));
        command.env("XDG_RUNTIME_DIR", &self.root).env("KEYWARD", env!("CARGO_BIN_EXE_keyward"));
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn keyward(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_keyward")).args(args).output().unwrap()
    }

    /// Runs `keyward` with `input` on its standard input.
    fn keyward_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(env!("CARGO_BIN_EXE_keyward")).args(args).stdin(Stdio::piped()).spawn().unwrap();
        // A program that ends without reading is judged by what it says.
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.root.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

fn serve(stream: &UnixStream, seen: &Mutex<Vec<Seen>>, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let field = |name: &str| head.iter().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").map_or(0, |l| l.parse().unwrap());
        if field("expect:").is_some() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let line = head[0].strip_suffix(" HTTP/1.1").unwrap().to_owned();
        let (status, text) = answer(&line, &body);
        seen.lock().unwrap().push(Seen { line, body });
        let length = text.len();
        write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}").unwrap();
    }
}

fn fault(code: &str, exit: u8) -> String {
    json!({"code": code, "message": "m", "causes": [], "help": "h", "exit": exit}).to_string()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, err(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_becomes_the_program_with_the_credential_in_place() {
    let home = Home::with_run(
        json!([{"name": "T", "secret": "s3cret"}]),
        json!([{"name": "OLD", "profile": "p", "why": "w"}]),
    );
    fs::create_dir_all(home.root.join("repo/.git")).unwrap();
    fs::create_dir_all(home.root.join("repo/a")).unwrap();
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    command.args(["run", "-p", "p", "--ttl", "5m", "--", "sh", "-c", "echo $$ $0 $1; env; exit 7", "zero", "one"]);
    command.env("OLD", "x").env("T", "caller").env("Z", "last").current_dir(home.root.join("repo/a"));
    let child = command.spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((output.status.code(), lines[0]), (Some(7), format!("{pid} zero one").as_str()));
    assert!(lines.contains(&"T=s3cret") && lines.contains(&"Z=last"), "{said}");
    assert!(!lines.iter().any(|l| l.starts_with("OLD=") || *l == "T=caller"), "{said}");
    let told = "keyward: replaced T (set by profile p)\nkeyward: unset OLD (so that profile p alone counts)\n";
    assert_eq!(err(&output), told);
    let seen = home.seen();
    let [request] = seen.as_slice() else { panic!("{seen:?}") };
    let body = &request.body;
    assert!(body["command"]["path"].as_str().unwrap().ends_with("bin/sh"), "{body}");
    let root = home.root.canonicalize().unwrap();
    assert_eq!(body["command"]["project"], root.join("repo").to_str().unwrap());
    assert_eq!(
        (&body["profiles"], &body["ttl_s"], &body["command"]["args"][1]),
        (&json!(["p"]), &json!(300), &json!("echo $$ $0 $1; env; exit 7"))
    );
    let names = body["variables"].as_array().unwrap();
    assert!(
        names.contains(&json!("OLD")) && !body["variables"].to_string().contains("caller"),
        "names, never contents"
    );
}

#[test]
fn signals_descriptors_and_descendants_are_the_programs_own() {
    let home = Home::with_run(json!([]), json!([]));
    let sh = |script: &str| out(&home.command("sh").args(["-c", script]).output().unwrap());
    let ignored = r#"exec "$KEYWARD" run -- grep SigIgn /proc/self/status"#;
    let plain = sh("exec grep SigIgn /proc/self/status");
    assert_eq!(sh(ignored), plain, "SIGPIPE is as the caller had it");
    assert_ne!(sh(&format!("trap '' PIPE; {ignored}")), plain, "also when it was ignored");
    let list = r#"sh -c 'for f in /proc/$$/fd/*; do printf "%s " "${f##*/}"; done'"#;
    assert_eq!(sh(&format!(r#"exec "$KEYWARD" run -- {list}"#)), sh(&format!("exec {list}")), "no descriptor is left");
    let closed = r#"sh -c '[ -e /proc/$$/fd/0 ] && echo open || echo closed'"#;
    assert_eq!(sh(&format!(r#"exec <&-; exec "$KEYWARD" run -- {closed}"#)), "closed\n");
    let orphan = r#"exec "$KEYWARD" run -- sh -c 'o=$(sh -c "sleep 30 >/dev/null & echo \$!"); set -- $(cat /proc/$o/stat); kill $o; [ $4 = $$ ] && echo kept'"#;
    assert_eq!(sh(orphan), "kept\n", "what daemonises stays below the run");
    let output = home.command(env!("CARGO_BIN_EXE_keyward")).args(["run", "--", "sh", "-c", "kill -TERM $$"]).output();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.unwrap().status), Some(15));
}

#[test]
fn a_program_that_is_missing_is_told_before_anything_is_asked_for() {
    let home = Home::with_run(json!([]), json!([]));
    let plain = home.file("plain", "x", 0o600);
    for (program, exit, code) in [
        ("./no-such-program", 127, "run.not_found"),
        ("no-such-program", 127, "run.not_found"),
        (plain.to_str().unwrap(), 126, "run.not_executable"),
        ("/", 126, "run.not_executable"),
    ] {
        let output = home.keyward(&["run", "-p", "p", "--", program]);
        assert_eq!(output.status.code(), Some(exit), "{program}");
        assert!(err(&output).contains(code), "{program}: {}", err(&output));
    }
    assert!(home.seen().is_empty(), "{:?}", home.seen());
}

#[test]
fn a_run_whose_exec_fails_is_taken_back() {
    let home = Home::with_run(json!([{"name": "T", "secret": "s3cret"}]), json!([]));
    for text in ["no shebang", "#!/no/such/interpreter\n"] {
        let program = home.file("tool", text, 0o700);
        let output = home.keyward(&["run", "-p", "p", "--", program.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(126), "{text}: {}", err(&output));
        assert!(!err(&output).contains("s3cret"));
    }
    let lines: Vec<String> = home.seen().into_iter().map(|s| s.line).collect();
    assert_eq!(lines, ["POST /v1/runs", "POST /v1/runs/r-1/abort", "POST /v1/runs", "POST /v1/runs/r-1/abort"]);
}

#[test]
fn a_refusal_is_125_and_keeps_its_code() {
    for (code, exit) in [("vault.locked", 3), ("policy.denied", 4), ("issuer.failed", 6), ("audit.broken", 7)] {
        let home = Home::new(move |_, _| (400, fault(code, exit)));
        let output = home.keyward(&["--json", "run", "-p", "p", "--", "true"]);
        let said: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &said["error"]["code"]), (Some(125), &json!(code)));
        assert_eq!(said["error"]["exit"], 125);
        let output = home.keyward(&["secret", "list"]);
        assert_eq!(output.status.code(), Some(i32::from(exit)), "other commands keep the code");
        assert!(err(&output).starts_with(&format!("error[{code}]: m\n  help:  h")), "{}", err(&output));
    }
}

#[test]
fn a_dry_run_and_an_explained_one_say_the_plan() {
    let home = Home::with_run(json!([]), json!([{"name": "OLD", "profile": "p", "why": "a key"}]));
    let plan: Value =
        serde_json::from_str(&out(&home.keyward(&["run", "--dry-run", "--json", "--", "false"]))).unwrap();
    assert_eq!((&plan["plan"][0]["profile"], &plan["unset"][0]["name"]), (&json!("p"), &json!("OLD")));
    assert!(out(&home.keyward(&["run", "--dry-run", "--", "false"])).contains("gives away: the bytes"));
    let sent = home.seen();
    assert!(sent.iter().filter(|s| s.line == "POST /v1/runs").all(|s| s.body["dry_run"] == true), "{sent:?}");
    let explained = home.keyward(&["run", "--explain", "--", "echo", "done"]);
    assert_eq!(out(&explained), "done\n");
    assert!(err(&explained).contains("gives away: the bytes"));
}

#[test]
fn a_run_by_the_gateway_says_so_and_puts_its_arguments_before_those_of_the_program() {
    let home = Home::new(|line, _| match line {
        "POST /v1/runs" => {
            let plan = json!([{"profile": "p", "issuer": "static", "delivery": "gateway", "chosen_by": "strongest",
                "variables": ["K", "U"], "gives_away": "calls alone", "ttl_s": 3600, "upstream": "api.example:443",
                "weaker": {"delivery": "env", "gives_away": "the bytes"}}]);
            let set = json!([{"name": "K", "secret": "kwr_x"}, {"name": "U", "secret": "http://127.0.0.1:9"}]);
            let args = json!(["-c", "echo $0 $1 $K $U $NO_PROXY $no_proxy"]);
            let answer = json!({"run": "r", "plan": plan, "delivered": [], "set": set, "unset": [], "args": args});
            (200, answer.to_string())
        }
        "GET /v1/launchers" => (200, "[]".to_owned()),
        _ => (204, String::new()),
    });
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    command.args(["run", "--deliver", "gateway", "--explain", "--", "sh", "typed", "one"]);
    command.env("HTTP_PROXY", "http://proxy.example:1").env("NO_PROXY", "x.example").env_remove("no_proxy");
    let output = command.output().unwrap();
    let hosts = "x.example,127.0.0.1";
    assert_eq!(out(&output), format!("typed one kwr_x http://127.0.0.1:9 {hosts} {hosts}\n"), "{}", err(&output));
    let request = home.seen().pop().unwrap().body;
    assert_eq!((&request["deliver"], &request["command"]["args"]), (&json!("gateway"), &json!(["typed", "one"])));
    let said = err(&output);
    for words in [
        "gateway (strongest)",
        "p goes to: api.example:443, with a run token in the child",
        "p gives away: calls alone",
        "p would give away with env: the bytes",
        "arguments put before its own: -c echo",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    assert!(!said.contains("kwr_x"), "{said}");
}

#[test]
fn a_token_inside_a_gateway_run_is_refused_in_the_brokers_words() {
    let home = Home::new(|line, _| match line {
        "POST /v1/token" => {
            let cause = "the run holds `p` through the gateway, and no stronger form of it";
            let help = "call the API with the address and the token that the run was given";
            let error = json!({"code": "policy.denied", "message": "this is not allowed here", "causes": [cause], "help": help, "exit": 4});
            (403, error.to_string())
        }
        _ => (204, String::new()),
    });
    let output = home.keyward(&["token", "p"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(4), &b""[..]));
    let said = err(&output);
    assert!(said.starts_with("error[policy.denied]") && said.contains("no stronger form of it"), "{said}");
    assert!(said.contains("help:  call the API"), "{said}");
}

#[test]
fn a_launch_becomes_the_program_in_the_folder_and_with_the_profiles_of_the_launcher() {
    let home = Home::with_launchers();
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    let output = command.args(["launch", "morning / REVIEW"]).env("PWD", &home.root).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", err(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "sh in /usr/lib is /usr/lib\n");
    let request = home.seen().pop().unwrap().body;
    assert_eq!(
        (&request["launcher"], &request["profiles"], &request["command"]["project"]),
        (&json!("Morning / review"), &json!(["p", "q"]), &json!("/usr/lib"))
    );
    assert!(request["command"]["path"].as_str().unwrap().ends_with("bin/sh") && request["command"]["args"][0] == "-c");
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    let explained = command.args(["launch", "True", "--dry-run"]).env("HOME", &home.root).output().unwrap();
    assert!(out(&explained).starts_with("launcher True\n"), "{}", err(&explained));
}

#[test]
fn a_launch_that_cannot_start_says_why_as_a_run_does() {
    let home = Home::with_launchers();
    for (name, exit, code) in
        [("Nothing", 125, "launcher.unknown"), ("Gone", 125, "file.unreadable"), ("Missing", 127, "run.not_found")]
    {
        for flags in [&[][..], &["--wait-on-error"]] {
            let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
            let output = command.args(["launch", name]).args(flags).env("HOME", &home.root).output().unwrap();
            assert_eq!(output.status.code(), Some(exit), "{name} {flags:?}: {}", err(&output));
            assert!(err(&output).contains(code) && !err(&output).contains("Enter"), "{}", err(&output));
        }
    }
    assert!(home.seen().iter().all(|s| s.line == "GET /v1/launchers"), "nothing was asked for: {:?}", home.seen());
}

#[test]
fn a_launch_writes_its_error_to_a_descriptor_that_the_program_does_not_get() {
    let home = Home::with_launchers();
    let launch = |name: &str, more: &str| {
        let script = format!("exec \"$KEYWARD\" launch --error-fd 7 {more} -- \"$0\" 7>said");
        let output = home.command("sh").args(["-c", &script, name]).env("HOME", &home.root).output().unwrap();
        (output, fs::read_to_string(home.root.join("said")).unwrap())
    };
    for (name, more, exit, code) in [
        ("Nothing", "", 125, "launcher.unknown"),
        ("Gone", "--json", 125, "file.unreadable"),
        ("Missing", "--wait-on-error", 127, "run.not_found"),
    ] {
        let (output, said) = launch(name, more);
        assert_eq!(output.status.code(), Some(exit), "{}", err(&output));
        let fault: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&fault["error"]["code"], &fault["error"]["exit"]), (&json!(code), &json!(exit)), "{said}");
        assert!(fault["error"]["causes"].is_array() && said.ends_with('\n'), "{said}");
        assert!(err(&output).contains(code), "it is said as ever: {}", err(&output));
    }
    let (output, said) = launch("Descriptors", "");
    let open = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{}", err(&output));
    assert!(open.lines().any(|fd| fd == "2") && open.lines().all(|fd| fd != "7"), "{open}");

    for (number, cause) in [("99", "not open"), ("2", "--error-fd"), ("x", "--error-fd")] {
        let output = home.keyward(&["launch", "True", "--error-fd", number]);
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
        assert!(err(&output).contains(cause), "{}", err(&output));
    }
    // Nobody reads, and it ends as ever.
    let script = "exec \"$KEYWARD\" launch --error-fd 7 Nothing 7>&0 </dev/null";
    let (_, unread) = std::io::pipe().unwrap();
    let output = home.command("sh").args(["-c", script]).stdin(unread).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
}

#[test]
fn a_run_without_a_profile_takes_those_of_the_only_launcher_of_its_program() {
    let home = Home::with_launchers();
    let explained = home.keyward(&["run", "--explain", "--", "true"]);
    assert_eq!(out(&explained), "");
    assert!(err(&explained).starts_with("launcher True\n"), "{}", err(&explained));
    let request = home.seen().pop().unwrap().body;
    assert_eq!((&request["profiles"], &request["launcher"]), (&json!(["p", "q"]), &Value::Null));
    let said: Value = serde_json::from_str(&out(&home.keyward(&["run", "--dry-run", "--json", "--", "true"]))).unwrap();
    assert_eq!(said["launcher"], "True");
    // Two have this program, none has that one, and a name goes before all.
    for args in [&["run", "--", "sh", "-c", ":"][..], &["run", "--", "cat"], &["run", "-p", "x", "--", "true"]] {
        let explained = home.keyward(&[&["run", "--explain"], &args[1..]].concat());
        out(&explained);
        assert!(!err(&explained).contains("launcher"), "{args:?}: {}", err(&explained));
        let profiles = home.seen().pop().unwrap().body["profiles"].clone();
        assert_eq!(profiles, if args[1] == "-p" { json!(["x"]) } else { json!([]) }, "{args:?}");
    }
    // Whoever may not see launchers is told what it may have by the request itself.
    let refused = Home::new(|line, _| match line {
        "GET /v1/launchers" => (403, fault("policy.denied", 4)),
        _ => (400, fault("profile.not_named", 1)),
    });
    let output = refused.keyward(&["run", "--", "true"]);
    assert!(output.status.code() == Some(125) && err(&output).contains("profile.not_named"), "{}", err(&output));
}

#[test]
fn a_launcher_is_sent_by_absolute_paths_and_an_edit_keeps_what_is_not_given() {
    let home = Home::with_launchers();
    fs::create_dir(home.root.join("work dir")).unwrap();
    let root = home.root.canonicalize().unwrap();
    let flags = ["launcher", "add", "A / b", "-p", "x", "-p", "y", "--folder", "work dir", "--", "sh", "-c", "it's"];
    let added = home.keyward(&flags);
    assert!(err(&added).contains("keyward launch 'A / b'"), "{}", err(&added));
    let sent = home.seen().pop().unwrap();
    assert_eq!(sent.line, "POST /v1/launchers");
    let body = &sent.body;
    assert!(
        body["command"][0].as_str().unwrap().starts_with('/')
            && body["command"][0].as_str().unwrap().ends_with("bin/sh")
    );
    assert_eq!(
        (&body["name"], &body["profiles"], &body["folder"], &body["terminal"], &body["proof"]),
        (&json!("A / b"), &json!(["x", "y"]), &json!(root.join("work dir")), &json!(true), &Value::Null)
    );
    let edit = ["launcher", "edit", "morning / review", "--passphrase-stdin", "-p", "z", "--no-terminal"];
    out(&home.keyward_with(&edit, b"hunter2hunter2\n"));
    let sent = home.seen().pop().unwrap();
    assert_eq!(sent.line, "PUT /v1/launchers/Morning%20%2F%20review");
    let body = &sent.body;
    assert_eq!(
        (&body["name"], &body["command"][1], &body["profiles"], &body["folder"], &body["terminal"]),
        (&json!("Morning / review"), &json!("-c"), &json!(["z"]), &json!("/usr/lib"), &json!(false))
    );
    assert!(body["proof"].to_string().contains("hunter2hunter2"), "the passphrase goes along");
    let edit = ["launcher", "edit", "True", "--passphrase-stdin", "--rename", "False", "--folder", "/", "--", "false"];
    out(&home.keyward_with(&edit, b"hunter2hunter2\n"));
    let sent = home.seen().pop().unwrap();
    assert_eq!(
        (sent.line.as_str(), &sent.body["name"], &sent.body["folder"]),
        ("PUT /v1/launchers/True", &json!("False"), &json!("/"))
    );
    let command = &sent.body["command"];
    assert!(command.as_array().unwrap().len() == 1 && command[0].as_str().unwrap().ends_with("/false"), "{command}");
    let before = home.seen().len();
    for (args, exit, code) in [
        (&["launcher", "edit", "True", "--passphrase-stdin"][..], 2, "usage"),
        (&["launcher", "edit", "True", "-p", "z"], 4, "passphrase.needed"),
        (&["launcher", "add", "x", "--", "sh"], 2, "--profile"),
        (&["launcher", "add", "x", "-p", "y", "--", "no-such-program"], 1, "run.not_found"),
        (&["launcher", "add", "x", "-p", "y", "--folder", "none", "--", "sh"], 1, "launcher.invalid"),
    ] {
        let output = home.keyward(args);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(code), "{args:?}: {}", err(&output));
    }
    assert!(home.seen()[before..].iter().all(|s| s.line.starts_with("GET ")), "nothing was changed");
}

#[test]
fn a_search_goes_on_where_the_broker_stopped_looking() {
    let home = Home::new(|line, _| {
        let entry = |seq: u64| json!({"seq": seq, "entry": {"kind": "k"}, "prev": "", "mac": ""});
        let page = |entries: Value, more: bool, looked_to: Value| {
            (200, json!({"entries": entries, "more": more, "looked_to": looked_to, "head": 90}).to_string())
        };
        let before = line.split("before=").nth(1).and_then(|rest| rest.split('&').next());
        match before {
            None => page(json!([entry(80)]), true, json!(70)),
            Some("70") => page(json!([]), true, json!(40)),
            Some("40") => page(json!([entry(39), entry(38)]), true, Value::Null),
            Some("38") => page(json!([entry(2)]), false, json!(1)),
            Some(_) => (400, fault("request.invalid", 1)),
        }
    });
    let listed = |limit: &str| {
        let text = out(&home.keyward(&["audit", "list", "--text", " a b ", "--limit", limit, "--json"]));
        let list: Vec<Value> = serde_json::from_str(&text).unwrap();
        list.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed("50"), [2, 38, 39, 80]);
    assert!(home.seen().iter().all(|s| s.line.contains("text=a%20b")), "{:?}", home.seen());
    assert_eq!(listed("2"), [39, 80], "no more than was asked for");
    // A broker that does not get on is not asked for ever.
    let stuck = Home::new(|_, _| (200, json!({"entries": [], "more": true, "looked_to": 7, "head": 9}).to_string()));
    assert_eq!(out(&stuck.keyward(&["audit", "list", "--text", "x", "--json"])), "[]\n");
    assert_eq!(stuck.seen().len(), 2);
    for wrong in ["", "  ", &"x".repeat(201)] {
        let output = stuck.keyward(&["audit", "list", "--text", wrong]);
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    }
}

#[test]
fn secrets_travel_as_they_are_and_binary_ones_in_base64() {
    let home = Home::new(|_, _| (204, String::new()));
    for (input, secret, base64) in [
        (&b"hunter2\n"[..], "hunter2", false),
        (b"-----BEGIN\nx\n", "-----BEGIN\nx\n", false),
        (b"\xff\x00\n", "/wAK", true),
    ] {
        out(&home.keyward_with(&["secret", "set", "n"], input));
        let sent = home.seen().pop().unwrap();
        assert_eq!(
            (sent.line.as_str(), &sent.body["secret"], &sent.body["base64"]),
            ("PUT /v1/secrets/n", &json!(secret), &json!(base64))
        );
    }
    let before = home.seen().len();
    for (name, input, code) in
        [("a/b", &b"x"[..], "name.invalid"), ("n", b"", "secret.invalid"), ("n", &[b'x'; 40_000], "secret.invalid")]
    {
        let output = home.keyward_with(&["secret", "set", name], input);
        assert!(output.status.code() == Some(1) && err(&output).contains(code), "{}", err(&output));
    }
    assert_eq!(home.seen().len(), before, "nothing was sent");
}

#[test]
fn a_secret_and_its_profile_are_stored_together_though_the_command_is_broken_off() {
    let (arrived, wait_for_request) = std::sync::mpsc::channel();
    let (release, wait_for_signal) = std::sync::mpsc::channel();
    let (arrived, wait_for_signal) = (Mutex::new(arrived), Mutex::new(wait_for_signal));
    let home = Home::new(move |line, _| {
        if line == "PUT /v1/secrets/a" {
            arrived.lock().unwrap().send(()).unwrap();
            wait_for_signal.lock().unwrap().recv().unwrap();
        }
        (204, String::new())
    });
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    command.args(["profile", "add", "a", "--from-env"]).env("HOME", &home.root).env("ANTHROPIC_API_KEY", "hunter2");
    let child = command.spawn().unwrap();
    wait_for_request.recv().unwrap();
    out(&home.command("kill").args(["-INT", &child.id().to_string()]).output().unwrap());
    release.send(()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(2), "{}", err(&output));
    let seen = home.seen();
    let lines: Vec<&str> = seen.iter().map(|s| s.line.as_str()).collect();
    assert_eq!(lines, ["PUT /v1/secrets/a", "POST /v1/profiles"]);
    assert_eq!((&seen[0].body["secret"], &seen[0].body["only_new"]), (&json!("hunter2"), &json!(true)));
    assert!(seen[1].body["toml"].as_str().unwrap().contains("secret = \"secret:a\""), "{:?}", seen[1]);
    assert!(!err(&output).contains("hunter2"));
}

#[test]
fn a_profile_that_is_refused_takes_its_secret_with_it() {
    let home = Home::new(|line, _| match line {
        "POST /v1/profiles" => (400, fault("profile.exists", 1)),
        _ => (204, String::new()),
    });
    let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
    command.args(["profile", "add", "a", "--from-env"]).env("HOME", &home.root).env("GITHUB_TOKEN", "hunter2");
    let output = command.output().unwrap();
    assert!(output.status.code() == Some(1) && err(&output).contains("profile.exists"), "{}", err(&output));
    let lines: Vec<String> = home.seen().into_iter().map(|s| s.line).collect();
    assert_eq!(lines, ["PUT /v1/secrets/a", "POST /v1/profiles", "DELETE /v1/secrets/a"]);
}

#[test]
fn a_doctor_asks_a_broker_for_nothing_but_profiles_and_works_without_its_answer() {
    for (answer, said) in
        [((403, fault("policy.denied", 4)), "not asked: m (policy.denied)"), ((200, "[]".into()), "open")]
    {
        let home = Home::new(move |_, _| answer.clone());
        let folder = home.root.join(unsafe_name());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(".env"), "OPENAI_API_KEY=hunter2\n").unwrap();
        let mut command = home.command(env!("CARGO_BIN_EXE_keyward"));
        command.args(["doctor", "--json"]).env("HOME", &home.root).current_dir(&folder);
        let report = command.output().unwrap();
        let text = out(&report);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["broker"], said);
        assert!(!text.contains("hunter2") && text.contains("OPENAI_API_KEY"), "{text}");
        let lines: Vec<String> = home.seen().into_iter().map(|s| s.line).collect();
        assert_eq!(lines, ["GET /v1/profiles"]);
    }
}

/// A name of a folder that is no UTF-8 and that would move the cursor.
fn unsafe_name() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"f\xff\x1b[2J".to_vec())
}

#[test]
fn passphrases_come_from_standard_input_or_a_descriptor() {
    let home = Home::new(|line, _| match line {
        "POST /v1/vault/rekey" => (200, json!({"older_copies": []}).to_string()),
        _ => (200, "[]".to_owned()),
    });
    let rekey = ["vault", "rekey", "--passphrase-stdin"];
    out(&home.keyward_with(&rekey, b"old pass\nnew pass\n"));
    let sent = home.seen().pop().unwrap().body;
    assert_eq!(sent, json!({"proof": {"passphrase": "old pass"}, "new_passphrase": "new pass"}));
    let by_fd = r#"exec "$KEYWARD" vault rekey --recovery --passphrase-fd 5 5<<E
KEY
new pass
E"#;
    out(&home.command("sh").args(["-c", by_fd]).output().unwrap());
    assert_eq!(home.seen().pop().unwrap().body["proof"], json!({"recovery": "KEY"}));
    // Before it asks a person, a command looks whether it would be refused anyway; that sends nothing.
    let acts = || home.seen().iter().filter(|s| !s.line.starts_with("GET ")).count();
    let before = acts();
    for (args, input, exit, code) in [
        (&rekey[..], &b"only one\n"[..], 1, "request.invalid"),
        (&rekey, b"a\nb\nc\n", 1, "request.invalid"),
        (&["init", "--passphrase-stdin"], b"", 1, "request.invalid"),
        (&["vault", "rekey", "--passphrase-fd", "99"], b"", 2, "usage"),
        (&["vault", "rekey"], b"", 4, "passphrase.needed"),
        (&["secret", "reveal", "n"], b"", 4, "passphrase.needed"),
        (&["vault", "slot", "add", "keyring", "--no-input"], b"", 4, "passphrase.needed"),
        (&["vault", "restore", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], b"", 4, "passphrase.needed"),
        (&["vault", "restore", "no such file"], b"", 1, "file.unreadable"),
        (&["audit", "accept-break", "--reason", "r"], b"", 4, "passphrase.needed"),
        (&["profile", "edit", "p", "--from", "-", "--passphrase-stdin"], b"x", 2, "usage"),
    ] {
        let output = home.keyward_with(args, input);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(code), "{args:?}: {}", err(&output));
    }
    assert_eq!(acts(), before, "nothing was sent");
}

#[test]
fn a_vault_that_is_there_is_not_made_again() {
    let home = Home::new(|_, _| (200, "{}".to_owned()));
    fs::write(home.places().data.join("vault.slots"), "").unwrap();
    let output = home.keyward_with(&["init", "--passphrase-stdin"], b"correct horse battery");
    assert!(output.status.code() == Some(1) && err(&output).contains("vault.exists"), "{}", err(&output));
    assert!(home.seen().is_empty());
}

#[test]
fn without_a_broker_status_says_what_it_sees_and_starts_none() {
    let home = Home::new(|_, _| (204, String::new()));
    fs::remove_file(home.places().socket).unwrap();
    let status = || serde_json::from_str::<Value>(&out(&home.keyward(&["status", "--json"]))).unwrap();
    assert_eq!((&status()["vault"]["state"], &status()["broker"]), (&json!("absent"), &Value::Null));
    fs::write(home.places().data.join("vault.slots"), "").unwrap();
    assert_eq!(status()["vault"]["state"], "locked");
    assert_eq!(out(&home.keyward(&["ps", "--json"])), "[]\n");
    assert_eq!(out(&home.keyward(&["lock", "--json"])), "{\"runs\":[]}\n");
    assert_eq!(out(&home.keyward(&["broker", "stop"])), "");
    assert!(home.seen().is_empty());
}

#[test]
fn verify_prints_its_report_and_exits_with_7() {
    for (ok, exit) in [(true, 0), (false, 7)] {
        let report = json!({"ok": ok, "entries": 2, "head": {"seq": 2, "mac": "ff"}, "notes": ["n"], "gaps": [],
            "anchor": {"state": "ok", "seq": 2, "seen": ["file"]}, "problems": []});
        let home = Home::new(move |_, _| (200, report.to_string()));
        let output = home.keyward(&["audit", "verify", "--json"]);
        assert_eq!(output.status.code(), Some(exit));
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["ok"], ok);
        assert_eq!(home.keyward(&["audit", "verify"]).status.code(), Some(exit));
    }
}

#[test]
fn an_export_is_private_whole_or_not_there() {
    let entry = json!({"seq": 1, "entry": {"seq": 1, "kind": "k"}, "prev": "0", "mac": "1"});
    let trailer = json!({"trailer": {"count": 1, "first": 1, "head": {"seq": 1, "mac": "1"}, "digest": "d",
        "key": "kwpub1:00", "signature": "s"}});
    let whole = format!("{entry}\n{trailer}\n");
    let cut = Arc::new(Mutex::new(false));
    let (is_cut, text, short) = (cut.clone(), whole.clone(), format!("{entry}\n"));
    let home = Home::new(move |line, _| match line {
        "POST /v1/audit/export" if *is_cut.lock().unwrap() => (200, short.clone()),
        "POST /v1/audit/export" => (200, text.clone()),
        _ => (200, json!({"entries": [], "more": false, "head": 1}).to_string()),
    });
    let export =
        |args: &[&str]| home.keyward_with(&[&["audit", "export", "--passphrase-stdin"], args].concat(), b"pass");
    assert_eq!(out(&export(&[])), whole);
    let path = home.root.join("log.jsonl");
    let to_file = ["--out", path.to_str().unwrap()];
    let written = export(&to_file);
    assert_eq!((out(&written), fs::read_to_string(&path).unwrap()), (String::new(), whole));
    assert!(err(&written).contains("kwpub1:00"), "{}", err(&written));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(export(&to_file).status.code(), Some(1), "it is not overwritten");
    assert!(out(&export(&["--format", "csv"])).ends_with(",0,1\r\n"));
    fs::remove_file(&path).unwrap();
    *cut.lock().unwrap() = true;
    assert_eq!(export(&to_file).status.code(), Some(5), "a stream that was cut");
    assert!(!path.exists());
}

#[test]
fn following_misses_no_entry_over_a_head_that_runs_ahead_a_lock_and_a_restore() {
    let pages = Mutex::new(vec![
        (json!([1]), 1, ""),
        // The head is newer than the entries.
        (json!([2]), 3, "/v1/audit?after=1&limit=1000"),
        (Value::Null, 0, "/v1/audit?after=2&limit=1000"),
        (json!([3, 9]), 9, "/v1/audit?after=2&limit=1000"),
        // An older copy was restored, which ends with entry 5.
        (json!([]), 5, "/v1/audit?after=9&limit=1000"),
        (json!([5]), 5, "/v1/audit?after=4&limit=1000"),
    ]);
    let streams = Mutex::new(1);
    let home = Home::new(move |line, _| {
        if line == "GET /v1/events" {
            let mut left = streams.lock().unwrap();
            if *left == 0 {
                return (403, fault("policy.denied", 4));
            }
            *left -= 1;
            let event = |n: u8, kind: &str| format!("id: g-{n}\nevent: {kind}\ndata: {{}}\n\n");
            return (
                200,
                event(1, "reset") + &event(2, "audit") + &event(3, "run") + &event(4, "audit") + &event(5, "audit"),
            );
        }
        let (seqs, head, wanted) = pages.lock().unwrap().remove(0);
        let asked = line.strip_prefix("GET ").unwrap();
        if !wanted.is_empty() && asked != wanted {
            return (400, fault("request.invalid", 1));
        }
        let Value::Array(seqs) = seqs else { return (400, fault("vault.locked", 3)) };
        let entry = |seq: &Value| json!({"seq": seq, "entry": {}, "prev": "", "mac": ""});
        let entries: Vec<Value> = seqs.iter().map(entry).collect();
        (200, json!({"entries": entries, "more": false, "head": head}).to_string())
    });
    let output = home.keyward(&["audit", "follow", "--json"]);
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    let seqs: Vec<u64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [2, 3, 9, 5]);
}

#[test]
fn a_file_is_verified_without_a_broker() {
    let home = Home::new(|_, _| (500, String::new()));
    let file = home.file("log.jsonl", "{\"seq\":1}\n", 0o600);
    // The base point of the curve: a key like any other.
    let key = format!("kwpub1:58{}", "66".repeat(31));
    let args = ["audit", "verify", "--file", file.to_str().unwrap(), "--pubkey", &key];
    let output = home.keyward(&args);
    assert!(output.status.code() == Some(7) && err(&output).contains("audit.file_invalid"), "{}", err(&output));
    let output = home.keyward(&[&args[..], &["--json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["ok"], &report["problems"][0]["kind"]),
        (Some(7), &json!(false), &json!("trailer"))
    );
    let missing = ["audit", "verify", "--file", "none", "--pubkey", &key];
    assert_eq!(home.keyward(&missing).status.code(), Some(1));
    assert_eq!(home.keyward(&["audit", "verify", "--file", "x", "--pubkey", "y"]).status.code(), Some(2));
    assert_eq!(home.keyward(&["audit", "verify", "--file", "x"]).status.code(), Some(2), "a key is needed");
    assert!(home.seen().is_empty());
}

#[test]
fn a_token_is_the_only_output() {
    let answer = json!({"token": "t0ken", "kind": "command", "expires_at": null, "expires_in_s": 60});
    let home = Home::new(move |_, _| (200, answer.to_string()));
    assert_eq!(out(&home.keyward(&["token", "p"])), "t0ken\n");
    for args in [&["token", "p", "--format", "json"][..], &["token", "p", "--json"]] {
        let token: Value = serde_json::from_str(&out(&home.keyward(args))).unwrap();
        assert_eq!((&token["token"], &token["expires_in_s"]), (&json!("t0ken"), &json!(60)));
    }
}

#[test]
fn text_of_others_cannot_move_the_cursor() {
    let home = Home::new(|line, _| match line {
        "GET /v1/runs" => {
            let run = json!([{"run": "r", "pid": 1, "app": "a\u{1b}[2J", "app_verified": true, "project": "/p\n",
                "started_at": "2026-11-21T08:00:00Z", "leases": []}]);
            (200, run.to_string())
        }
        _ => {
            let entries =
                json!([{"seq": 1, "entry": {"app": "\u{1b}]0;x", "detail": {"a": "\u{202e}"}}, "prev": "", "mac": ""}]);
            (200, json!({"entries": entries, "more": false, "head": 1}).to_string())
        }
    });
    for args in [&["ps"][..], &["audit", "list"]] {
        let text = out(&home.keyward(args));
        assert!(text.lines().count() == 2 && !text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn the_socket_of_a_home_is_not_reached_through_an_open_folder() {
    let home = Home::new(|_, _| (204, String::new()));
    let runtime = home.places().runtime;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(&runtime, 0o755);
    let output = home.keyward_with(&["secret", "set", "n"], b"hunter2");
    open(&runtime, 0o700);
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert!(home.seen().is_empty() && !err(&output).contains("hunter2"));
}

/// A request that waits for a person.
fn waiting_card() -> Value {
    json!({
        "id": "7K2M9QXT", "kind": "run", "state": "open", "digest": "d1", "question": "sh wants pg for 1 h",
        "app": "sh", "program": "/usr/bin/sh", "verified": false, "chain": [{"pid": 7, "name": "sh"}],
        "project": "/p", "reason": "why\u{1b}[2J", "said": ["reason"],
        "wanted": [{"profile": "pg", "issuer": "static", "reach": ["db.example"], "delivery": "env",
            "gives_away": "the bytes", "ttl_s": 3600, "confirm": false, "allowed_before": 0, "denied_before": 2}],
        "merged": 2, "asked_at": "2026-11-21T08:00:00Z", "changed_at": "2026-11-21T08:00:00Z",
        "until": "2999-01-01T00:00:00Z", "choices": ["once", "project"], "confirm": false
    })
}

/// A stand-in with one request that waits, one that was answered and one grant; the caller has `role`.
fn with_answers(role: &'static str) -> Home {
    Home::new(move |line, body| match line {
        "GET /v1/me" => (200, json!({"role": role, "run": "0199-outer"}).to_string()),
        "POST /v1/grants" if body["proof"].is_null() && body["profile"] == "nobody" => {
            (404, fault("profile.unknown", 1))
        }
        "POST /v1/grants" | "PUT /v1/grants/9ABCDEFG" if body["proof"].is_null() => {
            (403, fault("passphrase.needed", 4))
        }
        "GET /v1/approvals" => {
            let mut over = waiting_card();
            over["id"] = "00000000".into();
            over["state"] = "denied".into();
            (200, json!([waiting_card(), over]).to_string())
        }
        "GET /v1/grants" | "POST /v1/grants" | "PUT /v1/grants/9ABCDEFG" => {
            let grant = json!({"grant": "9ABCDEFG", "span": "standing", "profile": "pg", "project": "/p",
                "weakest": "gateway", "created_at": "", "until": "2999-01-01T00:00:00Z", "allowed": 4});
            let grant = if line.starts_with("GET") { json!([grant]) } else { grant };
            (200, grant.to_string())
        }
        _ => (204, String::new()),
    })
}

#[test]
fn an_answer_carries_what_was_shown_and_only_a_yes_carries_a_proof() {
    let home = with_answers("shell");
    let answers: [(&[&str], Value); 3] = [
        (&["approve", "7k2m9qxt"], json!({"decision": "once"})),
        (&["approve", "7K2M9QXT", "--once"], json!({"decision": "once"})),
        (&["approve", "7K2M9QXT", "--project", "--for", "2h"], json!({"decision": "project", "for_s": 7200})),
    ];
    for (args, mut want) in answers {
        let output = home.keyward_with(&[args, &["--passphrase-stdin"]].concat(), b"hunter2hunter2\n");
        assert_eq!(out(&output), "", "a question is no data");
        let said = err(&output);
        for words in
            ["sh wants pg for 1 h", "db.example", "the bytes", "denied 2 times", "why\\u{1b}[2J (the requester says"]
        {
            assert!(said.contains(words), "{words}\n{said}");
        }
        assert!(!said.contains("hunter2") && !said.contains('\u{1b}'), "{said}");
        want["digest"] = "d1".into();
        want["proof"] = json!({"passphrase": "hunter2hunter2"});
        let sent = home.seen().pop().unwrap();
        assert_eq!((sent.line.as_str(), sent.body), ("POST /v1/approvals/7K2M9QXT", want), "{args:?}");
    }
    assert!(err(&home.keyward(&["deny", "7K2M9QXT"])).contains("denied: sh wants pg"));
    let sent = home.seen().pop().unwrap();
    assert_eq!(sent.body, json!({"digest": "d1", "decision": "deny"}));
    let before = home.seen().len();
    for (args, exit, code) in [
        (&["approve", "7K2M9QXT"][..], 4, "passphrase.needed"),
        (&["approve", "7K2M9QXT", "--run", "--passphrase-stdin"], 1, "request.invalid"),
        (&["approve", "00000000", "--passphrase-stdin"], 1, "approval.over"),
        (&["approve", "../grants", "--passphrase-stdin"], 1, "approval.unknown"),
        (&["deny", "00000000"], 1, "approval.over"),
        (&["approve", "7K2M9QXT", "--once", "--run"], 2, "usage"),
        (&["approve", "7K2M9QXT", "--for", "1h"], 2, "usage"),
    ] {
        let output = home.keyward_with(args, b"hunter2hunter2\n");
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(code), "{args:?}: {}", err(&output));
    }
    assert!(home.seen()[before..].iter().all(|s| s.line.starts_with("GET ")), "nothing was answered");
}

#[test]
fn what_waits_is_listed_and_what_is_over_only_when_asked_for() {
    let home = with_answers("requester");
    let ids = |args: &[&str]| {
        let list: Vec<Value> = serde_json::from_str(&out(&home.keyward(args))).unwrap();
        list.iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["approvals", "--json"]), ["7K2M9QXT"]);
    assert_eq!(ids(&["approvals", "--json", "--all"]), ["7K2M9QXT", "00000000"]);
    let text = out(&home.keyward(&["approvals"]));
    assert!(text.lines().count() == 2 && text.contains("7K2M9QXT  sh wants pg for 1 h  sh (7)"), "{text}");
    let status: Value = serde_json::from_str(&out(&home.keyward(&["doctor", "--json"]))).unwrap();
    let facts: Vec<_> = status["machine"].as_array().unwrap().iter().map(|fact| fact["fact"].clone()).collect();
    assert_eq!(facts, ["ptrace_scope", "legacy_tiocsti", "hidepid", "display", "pid_1"]);
}

#[test]
fn a_grant_goes_out_by_absolute_paths_and_with_a_proof() {
    let home = with_answers("shell");
    fs::create_dir_all(home.root.join("repo/.git")).unwrap();
    fs::create_dir_all(home.root.join("repo/sub")).unwrap();
    home.file("tool.py", "", 0o600);
    let root = home.root.canonicalize().unwrap();
    let grant = |args: &[&str]| {
        let output = home.keyward_with(&[&["grant"], args, &["--passphrase-stdin"]].concat(), b"hunter2hunter2\n");
        (out(&output), err(&output))
    };
    let (printed, said) = grant(&["add", "--profile", "pg", "--for", "1h"]);
    assert_eq!(printed, "");
    assert!(
        said.contains("grant 9ABCDEFG is added: every program in /p gets pg for ") && said.contains("gateway"),
        "{said}"
    );
    let mut sent = home.seen().pop().unwrap();
    let proof = json!({"passphrase": "hunter2hunter2"});
    assert_eq!(sent.line, "POST /v1/grants");
    assert_eq!(
        sent.body,
        json!({"profile": "pg", "for_s": 3600, "proof": proof}),
        "what is not said is left to the broker"
    );
    let narrow = [
        "add",
        "-p",
        "pg",
        "--app",
        "sh",
        "--script",
        "tool.py",
        "--project",
        "repo/sub",
        "--deliver",
        "file",
        "--uses",
        "5",
        "--json",
    ];
    let printed: Value = serde_json::from_str(&grant(&narrow).0).unwrap();
    assert_eq!(printed["grant"], "9ABCDEFG");
    sent = home.seen().pop().unwrap();
    let program = sent.body["program"].take();
    assert!(program.as_str().unwrap().starts_with('/') && program.as_str().unwrap().ends_with("/sh"), "{program}");
    let (script, project) = (std::path::absolute(home.root.join("tool.py")).unwrap(), root.join("repo"));
    assert_eq!(
        sent.body,
        json!({"profile": "pg", "program": null, "script": script, "project": project, "weakest": "file", "uses": 5, "proof": proof})
    );
    grant(&["edit", "9abcdefg", "--anywhere", "--deliver", "env", "--for", "30m"]);
    sent = home.seen().pop().unwrap();
    assert_eq!(sent.line, "PUT /v1/grants/9ABCDEFG");
    assert_eq!(sent.body, json!({"profile": "pg", "weakest": "env", "for_s": 1800, "proof": proof}));
    let text = out(&home.keyward(&["grant", "list"]));
    assert!(text.lines().count() == 2 && text.contains("9ABCDEFG  pg       any  /p       gateway"), "{text}");
    out(&home.keyward(&["grant", "revoke", "9abcdefg"]));
    sent = home.seen().pop().unwrap();
    assert_eq!((sent.line.as_str(), sent.body), ("DELETE /v1/grants/9ABCDEFG", Value::Null));
    let before = home.seen().len();
    for (args, exit, code) in [
        (&["add", "-p", "pg"][..], 4, "passphrase.needed"),
        (&["add", "-p", "nobody"], 1, "profile.unknown"),
        (&["edit", "9ABCDEFG", "--uses", "1"], 4, "passphrase.needed"),
        (&["add"], 2, "--profile"),
        (&["add", "-p", "pg", "--app", "sh", "--launcher", "x"], 2, "usage"),
        (&["add", "-p", "pg", "--script", "tool.py"], 2, "--app"),
        (&["add", "-p", "pg", "--project", "repo", "--anywhere"], 2, "usage"),
        (&["add", "-p", "pg", "--uses", "0"], 2, "--uses"),
        (&["add", "-p", "pg", "--for", "5"], 2, "--for"),
        (&["add", "-p", "pg", "--for", "48h"], 2, "the longest is 24h"),
        (&["add", "-p", "pg", "--app", "no-such-program"], 1, "run.not_found"),
        (&["add", "-p", "pg", "--project", "nowhere"], 1, "grant.invalid"),
        (&["edit", "9ABCDEFG"], 2, "nothing was given"),
        (&["edit", "00000000", "--uses", "1"], 1, "grant.unknown"),
        (&["revoke", "00000000"], 1, "grant.unknown"),
    ] {
        let output = home.keyward(&[&["grant"], args].concat());
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(code), "{args:?}: {}", err(&output));
    }
    let changes = |s: &&Seen| !s.line.starts_with("GET ");
    assert!(home.seen()[before..].iter().filter(changes).all(|s| s.body["proof"].is_null()), "nobody proved anything");
}

#[test]
fn inside_a_run_nobody_is_asked_for_a_passphrase_and_nothing_is_sent() {
    let home = with_answers("inside");
    for args in [
        &["approve", "7K2M9QXT"][..],
        &["deny", "7K2M9QXT"],
        &["grant", "add", "-p", "pg"],
        &["grant", "edit", "9ABCDEFG", "--uses", "1"],
        &["grant", "revoke", "9ABCDEFG"],
        &["secret", "reveal", "pg"],
        &["vault", "rekey"],
        &["vault", "slot", "add", "recovery"],
    ] {
        let output = home.keyward(args);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {}", err(&output));
        let said = err(&output);
        assert!(said.contains("policy.denied") && said.contains("inside the run 0199-outer"), "{args:?}: {said}");
    }
    assert!(home.seen().iter().all(|s| s.line == "GET /v1/me"), "{:?}", home.seen());
}

#[test]
fn status_says_what_this_terminal_may_do_and_what_waits() {
    let home = |role: &'static str| {
        Home::new(move |line, _| match line {
            "GET /v1/status" => {
                let status = json!({"version": "1", "vault": {"state": "unlocked", "auto_locked": false, "audit_broken": false},
                    "runs": 0, "leases": 0, "home": "/h"});
                (200, status.to_string())
            }
            "GET /v1/me" => {
                (200, json!({"role": role, "run": "0199-outer", "until": "2999-01-01T00:00:00Z"}).to_string())
            }
            "GET /v1/approvals" => (200, json!([waiting_card()]).to_string()),
            _ => (204, String::new()),
        })
    };
    for (role, words, waits) in [
        ("shell", "runs without asking for ", true),
        ("operator", "operator for ", true),
        ("requester", "asks a person for each run", true),
        ("inside", "inside the run 0199-outer", false),
        ("none", "vault", false),
    ] {
        let home = home(role);
        let text = out(&home.keyward(&["status"]));
        assert!(text.contains(words), "{role}: {text}");
        assert_eq!(text.contains("1 request for a person: see `keyward approvals`"), waits, "{role}: {text}");
        let json: Value = serde_json::from_str(&out(&home.keyward(&["status", "--json"]))).unwrap();
        let waiting = if waits { json!(1) } else { Value::Null };
        assert_eq!((&json["me"]["role"], &json["waiting"]), (&json!(role), &waiting));
        assert_eq!((&json["vault"]["state"], &json["version"]), (&json!("unlocked"), &json!("1")));
        assert_eq!(home.seen().iter().any(|s| s.line == "GET /v1/approvals"), waits, "{role}");
    }
}

#[test]
fn a_caller_without_a_terminal_is_told_who_allows_it_or_waits_when_it_says_so() {
    let home = Home::new(|line, body| match (line, body["wait"].as_bool()) {
        ("POST /v1/runs" | "POST /v1/token", Some(false)) => {
            let cause = "run `keyward approve 7K2M9QXT` in a terminal of yours";
            let needed = json!({"code": "approval.needed", "message": "m", "causes": [cause], "help": "h", "exit": 4});
            (403, needed.to_string())
        }
        ("POST /v1/runs", _) => {
            let answer = json!({"run": "r", "plan": [], "delivered": [], "set": [{"name": "T", "secret": "s3cret"}], "unset": []});
            (200, answer.to_string())
        }
        ("POST /v1/token", _) => {
            (200, json!({"token": "t0ken", "kind": "static", "expires_at": null, "expires_in_s": null}).to_string())
        }
        ("GET /v1/profiles" | "GET /v1/launchers", _) => (200, "[]".to_owned()),
        _ => (204, String::new()),
    });
    let command = "keyward approve 7K2M9QXT";
    let told = home.keyward(&["run", "-p", "p", "--", "true"]);
    assert!(told.status.code() == Some(125) && err(&told).contains(command), "{}", err(&told));
    let told = home.keyward(&["token", "p", "--reason", "for a test"]);
    assert!(told.status.code() == Some(4) && err(&told).contains(command), "{}", err(&told));
    assert_eq!(home.seen().pop().unwrap().body["reason"], "for a test");
    let waits = home.keyward(&["run", "-p", "p", "--wait", "--", "sh", "-c", "echo $T"]);
    assert_eq!(out(&waits), "s3cret\n");
    assert!(err(&waits).contains("waiting for a person") && err(&waits).contains(command), "{}", err(&waits));
    assert_eq!(out(&home.keyward(&["token", "p", "--wait"])), "t0ken\n");
    let waited: Vec<_> = home.seen().iter().filter_map(|s| s.body["wait"].as_bool()).collect();
    assert_eq!(waited, [false, false, false, true, false, true], "asked without waiting first");
}

/// A command on a terminal of its own, and all that it says there.
struct Terminal {
    child: std::process::Child,
    ours: fs::File,
    said: Arc<Mutex<String>>,
    hears: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn start(home: &Home, args: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).and_then(|()| unlockpt(&ours)).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = fs::File::options().read(true).write(true).open(name).unwrap();
        let copy = || Stdio::from(theirs.try_clone().unwrap());
        let mut command = home.command("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_keyward")]).args(args);
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let (ours, said) = (fs::File::from(ours), Arc::new(Mutex::new(String::new())));
        let (mut reader, heard) = (ours.try_clone().unwrap(), said.clone());
        // A terminal that nobody has open any longer gives an error.
        let hears = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = reader.read(&mut piece) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..bytes]));
            }
        });
        Self { child, ours, said, hears }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said `text` so many times, at most ten seconds.
    fn until(&self, text: &str, times: usize) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.said().matches(text).count() < times {
            assert!(std::time::Instant::now() < end, "no `{text}`: {}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn types(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        self.hears.join().unwrap();
        let said = self.said.lock().unwrap().clone();
        (status.code(), said)
    }
}

/// A stand-in in which a person is needed. The request that waits is answered once `answer` says how; a yes with the right
/// passphrase makes it say so.
fn with_a_person(role: &'static str, answer: Arc<Mutex<Option<&'static str>>>) -> Home {
    Home::new(move |line, body| match line {
        "GET /v1/me" => (200, json!({"role": role}).to_string()),
        "GET /v1/approvals" => (200, json!([waiting_card()]).to_string()),
        "POST /v1/approvals/7K2M9QXT" if body["proof"]["passphrase"] == "the right one" => {
            *answer.lock().unwrap() = Some("yes");
            (204, String::new())
        }
        "POST /v1/approvals/7K2M9QXT" => (400, fault("vault.wrong_passphrase", 1)),
        "POST /v1/token" if body["wait"] == true => loop {
            match *answer.lock().unwrap() {
                Some("yes") => {
                    let token = json!({"token": "t0ken", "kind": "static", "expires_at": null, "expires_in_s": null});
                    return (200, token.to_string());
                }
                Some(_) => return (403, fault("approval.denied", 4)),
                None => {}
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        },
        "POST /v1/token" => {
            let cause = "run `keyward approve 7K2M9QXT` in a terminal of yours";
            let needed = json!({"code": "approval.needed", "message": "m", "causes": [cause], "help": "h", "exit": 4});
            (403, needed.to_string())
        }
        _ => (200, "[]".to_owned()),
    })
}

#[test]
fn on_a_terminal_the_passphrase_allows_it_once_and_may_be_typed_again() {
    let home = with_a_person("requester", Arc::default());
    let mut terminal = Terminal::start(&home, &["token", "pg"]);
    terminal.until("Passphrase for the vault in ", 1);
    let said = terminal.said();
    assert!(
        said.contains("sh wants pg for 1 h") && said.contains("type the passphrase here to allow it once"),
        "{said}"
    );
    terminal.types("the wrong one\r");
    terminal.until("try again", 1);
    terminal.until("Passphrase for the vault in ", 2);
    terminal.types("the right one\r");
    let (code, said) = terminal.end();
    assert!(code == Some(0) && said.ends_with("t0ken\r\n"), "{code:?} {said}");
    assert!(!said.contains("the right one") && !said.contains("the wrong one"), "{said}");
    let answers: Vec<_> = home.seen().into_iter().filter(|s| s.line.starts_with("POST /v1/approvals")).collect();
    let bodies: Vec<_> = answers.iter().map(|s| (s.body["digest"].clone(), s.body["decision"].clone())).collect();
    assert_eq!(bodies, vec![(json!("d1"), json!("once")); 2]);
}

#[test]
fn on_a_terminal_an_answer_from_elsewhere_ends_the_prompt_and_forgets_what_was_typed() {
    for (answer, exit, words) in [("yes", 0, "t0ken"), ("no", 4, "approval.denied")] {
        let answered = Arc::new(Mutex::new(None));
        let home = with_a_person("requester", answered.clone());
        let mut terminal = Terminal::start(&home, &["token", "pg"]);
        terminal.until("Passphrase for the vault in ", 1);
        terminal.types("half of the pass");
        *answered.lock().unwrap() = Some(answer);
        let (code, said) = terminal.end();
        assert!(code == Some(exit) && said.contains(words) && !said.contains("half"), "{code:?} {said}");
        assert!(home.seen().iter().all(|s| !s.line.starts_with("POST /v1/approvals")), "nothing was sent");
    }
}

#[test]
fn on_a_terminal_three_wrong_passphrases_and_the_interrupt_key_give_up() {
    let home = with_a_person("requester", Arc::default());
    let mut terminal = Terminal::start(&home, &["token", "pg"]);
    for attempt in 1..=3 {
        terminal.until("Passphrase for the vault in ", attempt);
        terminal.types("the wrong one\r");
    }
    let (code, said) = terminal.end();
    assert!(code == Some(1) && said.contains("vault.wrong_passphrase"), "{code:?} {said}");
    let mut terminal = Terminal::start(&home, &["token", "pg"]);
    terminal.until("Passphrase for the vault in ", 1);
    terminal.types("half\x03");
    let (code, said) = terminal.end();
    assert!(code.is_none() && !said.contains("half"), "it ends by the signal: {code:?} {said}");
}

#[test]
fn on_a_terminal_inside_a_run_no_prompt_shows() {
    let home = with_a_person("inside", Arc::default());
    for args in [&["token", "pg"][..], &["secret", "reveal", "pg"], &["approve", "7K2M9QXT"], &["secret", "set", "x"]] {
        let (code, said) = Terminal::start(&home, args).end();
        assert!(
            code == Some(4) && !said.contains("Passphrase") && !said.contains("Secret x"),
            "{args:?} {code:?} {said}"
        );
    }
}

#[test]
fn a_profile_that_confirms_takes_the_passphrase_with_the_request() {
    let home = Home::new(|line, body| match (line, body["proof"]["passphrase"].as_str()) {
        ("POST /v1/token", Some("the right one")) => {
            (200, json!({"token": "t0ken", "kind": "static", "expires_at": null, "expires_in_s": null}).to_string())
        }
        ("POST /v1/token", Some(_)) => (400, fault("vault.wrong_passphrase", 1)),
        ("POST /v1/token", None) => (403, fault("passphrase.needed", 4)),
        ("GET /v1/me", _) => (200, json!({"role": "shell"}).to_string()),
        _ => (204, String::new()),
    });
    let mut terminal = Terminal::start(&home, &["token", "pg"]);
    for (attempt, typed) in [(1, "the wrong one\r"), (2, "the right one\r")] {
        terminal.until("Passphrase for the vault in ", attempt);
        terminal.types(typed);
    }
    let (code, said) = terminal.end();
    assert!(code == Some(0) && said.ends_with("t0ken\r\n") && !said.contains("the right one"), "{code:?} {said}");
    let piped = home.keyward(&["token", "pg"]);
    assert!(piped.status.code() == Some(4) && err(&piped).contains("passphrase.needed"), "{}", err(&piped));
}
