//! A crash gives up no port and no run; a port that is lost is told, and never pointed elsewhere. Nor does another program
//! take the place of the one that was decided for.

use crate::{ask, call, call_by, entries, home, lease, shell};
use keyward_testkit::{Wire, alive, signal, wait_for};
use rustix::process::Signal;
use serde_json::json;
use std::net::{TcpListener, TcpStream};

#[test]
fn a_killed_worker_gives_up_no_port_and_its_runs_go_on() {
    let (home, _upstream) = home();
    let mut child = shell(&home, "k");
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    let base = ask(&mut child, "echo $ANTHROPIC_BASE_URL");
    let port: u16 = base.rsplit(':').next().unwrap().parse().unwrap();
    entries(&home, "credential.used", 1);
    home.crash_broker();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "nobody else can take the port");
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let refused = call(&mut child);
    assert!(refused.ends_with(" 503") && refused.contains("vault.locked"), "{refused}");
    home.unlock();
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#, "the same token, at the same port");
    wait_for("both uses", || lease(&home)["uses"] == 2);
}

#[test]
fn a_port_that_is_lost_ends_its_leases() {
    let (home, upstream) = home();
    let mut child = shell(&home, "k");
    assert_eq!(call(&mut child), r#"{"ok":true} 200"#);
    let worker = home.broker_pid().unwrap();
    for pid in home.broker_parents().into_iter().chain([worker]) {
        signal(pid, Signal::KILL);
        wait_for("its end", || !alive(pid));
    }
    home.unlock();
    let revoked = &entries(&home, "lease.revoked", 1)[0];
    assert!(revoked["detail"]["why"].as_str().unwrap().contains("another port"), "{revoked}");
    assert_eq!(lease(&home)["state"], "revoked");
    let base = home.keyward(&["run", "-p", "k", "--", "sh", "-c", "echo $ANTHROPIC_BASE_URL"]).exits(0).out;
    let token = ask(&mut child, "echo $ANTHROPIC_AUTH_TOKEN");
    let line = format!(
        "curl -s -o /dev/null -w '%{{http_code}}\\n' -d '{{}}' -H 'x-api-key: {token}' {}/v1/messages",
        base.trim()
    );
    assert_eq!(ask(&mut child, &line), "403", "the former token opens nothing at the next port");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn another_program_than_was_decided_for_gets_nothing() {
    let (home, upstream) = home();
    home.grant(&["--profile", "k"]);
    let mut wire = Wire::open(&home.socket());
    let request = json!({
        "profiles": ["k"], "variables": [], "command": {"path": "/bin/true", "args": [], "project": "/"},
    });
    // This process is the root of the run from here on, and never becomes the program.
    wire.send("POST", "/v1/runs", &[], request.to_string().as_bytes());
    let answer = wire.reply().unwrap().json();
    let set = |name: &str| {
        let all = answer["set"].as_array().unwrap();
        all.iter().find(|v| v["name"] == name).unwrap()["secret"].as_str().unwrap().to_owned()
    };
    let (base, token) = (set("ANTHROPIC_BASE_URL"), set("ANTHROPIC_AUTH_TOKEN"));
    let refused = call_by(&home, &base, &token);
    assert!(refused.ends_with(" 403") && refused.contains("gateway.run_unverified"), "{refused}");
    // Without its connection it counts as begun, as what it is.
    drop(wire);
    wait_for("the lease's end", || lease(&home)["state"] == "revoked");
    let refused = call_by(&home, &base, &token);
    assert!(refused.ends_with(" 403") && refused.contains("lease.revoked"), "{refused}");
    assert!(upstream.seen().is_empty());
}
