//! Ways around the walls of a run and the patience of the broker.

use crate::peer;
use keyward_testkit::{Home, Wire};
use serde_json::json;
use std::process::{Child, Stdio};

fn start(home: &Home, path: &str, dry_run: bool) -> keyward_testkit::Reply {
    let request = json!({
        "profiles": ["t"], "variables": [], "dry_run": dry_run,
        "command": {"path": path, "args": [], "project": "/"},
    });
    Wire::once(&home.socket(), "POST", "/v1/runs", &[], request.to_string().as_bytes()).unwrap()
}

#[test]
fn a_run_that_says_its_exec_failed_stays_inside() {
    let home = Home::with_vault();
    home.static_profile("t", "s3cret-abort-1", "T");
    home.grant(&["--profile", "t"]);
    let socket = home.socket();
    let status = |method: &str, path: &str| Wire::once(&socket, method, path, &[], b"").map(|r| r.status);
    assert_eq!(status("GET", "/v1/profiles"), Some(200), "outside of a run");
    // This process is the root of the run from here on, without becoming another program.
    let run = start(&home, "/bin/true", false).json()["run"].as_str().unwrap().to_owned();
    assert_eq!(status("GET", "/v1/profiles"), Some(403), "inside");
    assert_eq!(status("POST", &format!("/v1/runs/{run}/abort")), Some(204));
    assert_eq!(status("GET", "/v1/profiles"), Some(403), "still inside");
    let token = Wire::once(&socket, "POST", "/v1/token", &[], br#"{"profile":"t"}"#).unwrap();
    assert_eq!(token.status, 403, "and without what it held");
}

#[test]
fn a_pipe_in_the_place_of_a_program_holds_nobody_up() {
    let home = Home::with_vault();
    home.static_profile("t", "s3cret-pipe-1", "T");
    let pipe = home.root.join("pipe");
    let made = home.command("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let answer = start(&home, pipe.to_str().unwrap(), true).json();
    assert_eq!(answer["code"], "run.not_executable");
    home.keyward(&["lock"]).exits(0);
}

#[test]
fn held_connections_do_not_keep_a_person_from_locking() {
    let home = Home::with_vault();
    let socket = home.socket();
    let hold = || {
        let mut command = home.command(peer(&home));
        command.arg("exec").arg(&socket).args(["sleep", "60"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut held: Vec<Child> = (0..270).map(|_| hold()).collect();
    keyward_testkit::wait_for("the connections", || {
        let asleep = |child: &Child| {
            std::fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|c| c.starts_with(b"sleep"))
        };
        held.iter().all(asleep)
    });
    let locked = home.keyward(&["lock"]);
    for child in &mut held {
        // One that the broker hung up on sleeps on all the same.
        let _ = child.kill();
        let _ = child.wait();
    }
    locked.exits(0);
}

#[test]
fn unfinished_requests_of_many_processes_keep_nobody_from_locking() {
    const PROCESSES: usize = 17;
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
    let mut person = crate::operator(&home);
    let mut role = || {
        person.send("GET", "/v1/me", &[], b"");
        person.reply().map(|reply| reply.json()["role"].clone())
    };
    // From inside of a run, and beside it from a shell for each: twice as many connections as there are places for.
    let hold = r#""$0" hold "$1" 16 "$2$n" &"#;
    let inside = format!("n=0; while [ $n -lt {PROCESSES} ]; do n=$((n+1)); {hold} done; wait");
    let beside = format!("n=0; while [ $n -lt {PROCESSES} ]; do n=$((n+1)); ({hold} wait) & done; wait");
    let (peer, socket) = (peer(&home).display().to_string(), home.socket().display().to_string());
    let mut run = home.keyward_command(&["run", "-p", "held", "--", "sh", "-c", &inside, &peer, &socket, "inside"]);
    run.current_dir(&home.root);
    let mut shells = home.command("sh");
    shells.args(["-c", &beside, &peer, &socket, "beside"]).current_dir(&home.root);
    let _held = [crate::Kept::start(run), crate::Kept::start(shells)];
    let ready = |name: &str| (1..=PROCESSES).all(|n| home.root.join(format!("{name}{n}")).exists());
    keyward_testkit::wait_for("the connections", || ready("inside") && ready("beside"));
    for _ in 0..10 {
        home.keyward(&["status"]).exits(0);
        assert_eq!(role(), Some("operator".into()), "the connection of an operator is kept");
    }
    home.keyward(&["revoke", "--all"]).exits(0);
    for _ in 0..5 {
        home.keyward(&["lock"]).exits(0);
        home.unlock();
    }
}
