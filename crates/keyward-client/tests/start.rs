//! Starting a broker: this program plays the test, its clients (`keyward`) and the broker beside them (`keyward-broker`),
//! by the name under which it lies. The broker's own side of the race is tested where the broker is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keyward_api::place::Places;
use keyward_client::{Client, Start};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn main() {
    let name = fs::read_link("/proc/self/exe").unwrap();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match name.file_name().and_then(|n| n.to_str()).unwrap() {
        "keyward" => client(),
        "keyward-broker" => broker(&arguments),
        _ => {
            for (what, test) in TESTS {
                test();
                say(&format!("test {what} ... ok"));
            }
        }
    }
}

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("fifty_first_callers_start_one_broker", fifty_first_callers_start_one_broker),
    ("a_start_that_fails_says_why", a_start_that_fails_says_why),
    (
        "a_broker_that_others_could_have_put_there_is_not_started",
        a_broker_that_others_could_have_put_there_is_not_started,
    ),
    ("only_listed_variables_are_passed_on", only_listed_variables_are_passed_on),
];

/// A client: connects, starting a broker if needed, and says what came of it.
fn client() {
    let answer = Places::current()
        .and_then(|places| Client::connect(&places, Start::IfNeeded))
        .and_then(|mut client| client.get::<u32>("/v1/status"));
    match answer {
        Ok(pid) => say(&pid.to_string()),
        Err(fault) => say(&fault.to_string()),
    }
}

/// A broker: leaves its starter as the real one does, notes that it was started, and answers with its process id.
#[expect(clippy::zombie_processes, reason = "the starter ends at once, and its child goes on")]
fn broker(arguments: &[String]) {
    let places = Places::current().unwrap();
    let home = places.home.clone().unwrap();
    if arguments == ["--detach"] {
        let mode = fs::read_to_string(home.join("mode")).unwrap_or_default();
        match mode.as_str() {
            "refuse" => say(&serde_json::to_string(
                &keyward_diag::Fault::new(keyward_diag::Code::ConfigInvalid).cause("line 3"),
            )
            .unwrap()),
            "silent" => {}
            "nonsense" => say("what?"),
            _ => {
                Command::new("/proc/self/exe").arg("--go").spawn().unwrap();
            }
        }
        return;
    }
    let variables: Vec<_> = std::env::vars().map(|(n, v)| format!("{n}={v}\n")).collect();
    let file = fs::OpenOptions::new().append(true).create(true).open(home.join("starts")).unwrap();
    (&file).write_all(format!("start\n{}", variables.concat()).as_bytes()).unwrap();
    let listener = UnixListener::bind(&places.socket).unwrap();
    say("ready");
    for stream in listener.incoming() {
        answer(stream.unwrap());
    }
}

fn answer(mut stream: UnixStream) {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            return;
        }
        text.push(byte[0]);
    }
    let pid = std::process::id().to_string();
    let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pid}", pid.len()).as_bytes());
}

struct Home {
    folder: PathBuf,
}

impl Home {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kw-start-{}-{name}", std::process::id()));
        for sub in ["bin", "home", "run"] {
            fs::create_dir_all(folder.join(sub)).unwrap();
            mode(&folder.join(sub), 0o700);
        }
        for program in ["keyward", "keyward-broker"] {
            fs::copy("/proc/self/exe", folder.join("bin").join(program)).unwrap();
            mode(&folder.join("bin").join(program), 0o755);
        }
        Self { folder }
    }

    fn client(&self) -> Child {
        let mut command = Command::new(self.folder.join("bin/keyward"));
        command
            .env_clear()
            .env("KEYWARD_HOME", self.folder.join("home"))
            .env("XDG_RUNTIME_DIR", self.folder.join("run"));
        command.env("PATH", "/evil").env("LD_LIBRARY_PATH", "/evil").env("HTTPS_PROXY", "/evil").env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn says(&self) -> String {
        String::from_utf8(self.client().wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn starts(&self) -> String {
        fs::read_to_string(self.folder.join("home/starts")).unwrap_or_default()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let broker = self.folder.join("bin/keyward-broker");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == broker) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn fifty_first_callers_start_one_broker() {
    let home = Home::new("race");
    let all: Vec<_> = (0..50).map(|_| home.client()).collect();
    let mut said: Vec<_> =
        all.into_iter().map(|c| String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap()).collect();
    said.dedup();
    assert!(said.len() == 1 && said[0].trim().parse::<u32>().is_ok(), "{said:?}");
    assert_eq!(home.starts().matches("start\n").count(), 1);
}

fn a_start_that_fails_says_why() {
    let home = Home::new("fail");
    for (mode, want) in [("refuse", "config.invalid"), ("silent", "broker.start"), ("nonsense", "broker.start")] {
        fs::write(home.folder.join("home/mode"), mode).unwrap();
        let said = home.says();
        assert!(said.contains(want), "{mode}: {said}");
    }
    fs::remove_file(home.folder.join("bin/keyward-broker")).unwrap();
    assert!(home.says().contains("broker.start"));
}

fn a_broker_that_others_could_have_put_there_is_not_started() {
    let home = Home::new("squat");
    let (bin, program) = (home.folder.join("bin"), home.folder.join("bin/keyward-broker"));
    for (path, open, closed) in [(&program, 0o777, 0o755), (&bin, 0o777, 0o755), (&bin, 0o1777, 0o755)] {
        mode(path, open);
        assert!(home.says().contains("others can write"), "{}", path.display());
        mode(path, closed);
    }
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&program, Some(65534), None).unwrap();
        assert!(home.says().contains("belongs to user 65534"));
    } else {
        say("SKIPPED in part: a program of another user needs root");
    }
    assert_eq!(home.starts(), "");
}

fn only_listed_variables_are_passed_on() {
    let home = Home::new("variables");
    assert!(home.says().parse::<u32>().is_ok());
    let starts = home.starts();
    assert!(!starts.contains("/evil") && starts.contains("TZ=UTC\n"), "{starts}");
    assert!(starts.contains("PATH=/usr/local/bin:/usr/bin:/bin\n"), "{starts}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).unwrap();
}
