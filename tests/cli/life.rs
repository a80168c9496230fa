//! The broker's life: started on demand and once, found again after a crash, stopped cleanly.

use keyward_testkit::{Home, alive, signal, wait_for};
use rustix::process::Signal;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Whether neither a parent nor a worker of this home runs.
fn none_runs(home: &Home) -> bool {
    home.broker_pid().is_none() && home.broker_parents().is_empty()
}

#[test]
fn status_and_its_like_never_start_a_broker() {
    let home = Home::new();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["ps"],
        &["lock"],
        &["broker", "stop"],
        &["--help"],
        &["man"],
        &["completion", "zsh"],
        &["run", "--", "no-such-program"],
        &["nonsense"],
    ] {
        home.keyward(args);
        assert!(home.broker_parents().is_empty(), "{args:?} started a broker");
    }
    assert!(!home.keyward_home().exists(), "and nothing is written");
    assert_eq!(home.keyward(&["status", "--json"]).exits(0).json().get("broker"), None);
    home.init();
    home.stop_broker();
    wait_for("the parent's end", || home.broker_parents().is_empty());
    assert_eq!(home.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"], "locked");
    assert!(home.broker_parents().is_empty());
}

#[test]
fn fifty_first_callers_start_one_broker() {
    let home = Home::new();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let mut command = home.keyward_command(&["profile", "kinds", "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for caller in callers {
        let output = caller.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    wait_for("one parent", || home.broker_parents().len() == 1);
    let (worker, parent) = (home.broker_pid().unwrap(), home.broker_parents()[0]);
    let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let of: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(of, parent);
}

#[test]
fn a_broker_is_nobodys_child_and_has_nothing_of_its_starter() {
    let home = Home::new();
    let mut command = home.command("sh");
    command.args(["-c", "exec 7<.; cd /usr; umask 0; keyward profile kinds >/dev/null; echo $$"]);
    command.env("PROBE", "1").env("LD_LIBRARY_PATH", "/nowhere").env("HTTPS_PROXY", "http://127.0.0.1:9");
    let starter = keyward_testkit::run(command, b"").exits(0).out;
    let parent = home.broker_parents()[0];
    for pid in [parent, home.broker_pid().unwrap()] {
        let text = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}"));
        let stat = text("stat").unwrap();
        let field = |n: usize| stat.rsplit(") ").next().unwrap().split(' ').nth(n).unwrap().to_owned();
        assert_eq!(field(3), parent.to_string(), "in a session of its own");
        assert_ne!(field(1), starter.trim(), "not below its starter");
        let status = text("status").unwrap();
        assert!(status.contains("Umask:\t0077"), "{status}");
        match (text("environ"), fs::read_link(format!("/proc/{pid}/cwd")), fs::read_dir(format!("/proc/{pid}/fd"))) {
            (Ok(environment), Ok(folder), Ok(open)) => {
                for name in ["PROBE", "LD_LIBRARY_PATH", "HTTPS_PROXY"] {
                    assert!(!environment.contains(name), "{name}: {environment}");
                }
                assert_eq!(folder.to_str(), Some("/"));
                let root = fs::canonicalize(&home.root).unwrap();
                assert!(open.flatten().all(|e| fs::read_link(e.path()).is_ok_and(|file| file != root)));
            }
            // It hides them from all but the superuser.
            (environment, folder, open) => assert!(environment.is_err() && folder.is_err() && open.is_err()),
        }
    }
}

#[test]
fn a_broker_with_its_socket_elsewhere_is_named_and_not_taken_for_none() {
    let home = Home::with_vault();
    let (pid, elsewhere) = (home.broker_pid().unwrap(), home.root.join("elsewhere"));
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&elsewhere).unwrap();
    for args in [&["ps"][..], &["ps", "--json"], &["lock"], &["broker", "stop"]] {
        let mut command = home.keyward_command(args);
        command.env("XDG_RUNTIME_DIR", &elsewhere);
        let answer = keyward_testkit::run(command, b"").exits(5).says("broker.unreachable");
        assert!(answer.out.is_empty() && answer.err.contains(&format!("pid {pid} ")), "{answer:?}");
        assert!(answer.err.contains("XDG_RUNTIME_DIR"), "{answer:?}");
    }
    home.stop_broker();
    let mut command = home.keyward_command(&["ps"]);
    command.env("XDG_RUNTIME_DIR", &elsewhere);
    keyward_testkit::run(command, b"").exits(0);
}

#[test]
fn a_bad_setting_is_told_with_its_line_and_the_remedy() {
    let home = Home::with_vault();
    home.stop_broker();
    let file = home.keyward_home().join("config/config.toml");
    fs::write(&file, "# mine\nautolock = \"5m\"\n").unwrap();
    let said = home.keyward(&["unlock", "--passphrase-stdin"]).exits(1).says("config.invalid").err;
    assert!(said.contains(&format!("{}: line 2: `autolock` is no setting", file.display())), "{said}");
    assert!(said.contains("auto_lock = \"15m\"") && said.contains("broker restart"), "{said}");
    fs::write(&file, "auto_lock = \"5m\"\n").unwrap();
    home.unlock();
}

#[test]
fn a_stale_socket_is_no_obstacle() {
    let home = Home::with_vault();
    let (socket, worker, parent) = (home.socket(), home.broker_pid().unwrap(), home.broker_parents()[0]);
    for pid in [parent, worker] {
        signal(pid, Signal::KILL);
        wait_for("its end", || !alive(pid));
    }
    assert!(socket.exists(), "nobody was there to remove it");
    let status = home.keyward(&["status", "--json"]).exits(0).json();
    assert_eq!((&status["vault"]["state"], status.get("broker")), (&"locked".into(), None));
    assert!(home.broker_parents().is_empty());
    home.keyward(&["ps"]).exits(0);
    home.unlock();
    assert_eq!((home.broker_parents().len(), home.socket()), (1, socket));
    home.keyward(&["audit", "verify"]).exits(0);
}

#[test]
fn a_killed_worker_comes_back_locked_within_two_seconds() {
    let home = Home::with_vault();
    home.secret("s", "s3cret");
    let (first, parent) = (home.broker_pid().unwrap(), home.broker_parents()[0]);
    home.crash_broker();
    let killed = Instant::now();
    wait_for("the next worker", || home.broker_pid().is_some_and(|pid| pid != first));
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(home.broker_parents(), [parent], "by the same parent");
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "locked");
    home.keyward(&["secret", "list"]).exits(3).says("vault.locked");
    home.unlock();
    assert_eq!(home.keyward(&["secret", "list", "--json"]).exits(0).json()[0]["name"], "s", "nothing is lost");
    let kinds = home.audit_kinds();
    assert_eq!(kinds.iter().filter(|k| *k == "broker.started").count(), 2, "{kinds:?}");
}

/// A worker that was stopped, and is killed in any case: nothing else would end it.
struct Stopped(i32);

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, Signal::KILL);
    }
}

#[test]
fn a_call_that_waits_during_a_crash_is_answered_by_the_next_worker() {
    let home = Home::with_vault();
    let worker = Stopped(home.broker_pid().unwrap());
    signal(worker.0, Signal::STOP);
    let call = || home.keyward_command(&["profile", "kinds"]).stdout(Stdio::piped()).spawn().unwrap();
    let callers: Vec<_> = (0..5).map(|_| call()).collect();
    let asks = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|e| fs::read_link(e.path()).ok()).any(|file| file.to_string_lossy().starts_with("socket:"))
    };
    wait_for("the callers to connect", || callers.iter().all(|c| asks(c.id())));
    drop(worker);
    for caller in callers {
        let output = caller.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn stop_and_restart_are_clean() {
    let home = Home::with_vault();
    let (first, parent) = (home.broker_pid().unwrap(), home.broker_parents()[0]);
    let restarted = home.keyward(&["broker", "restart", "--json"]).exits(0).json();
    let second = home.broker_pid().unwrap();
    assert_ne!(second, first);
    let locked = |why: &str| {
        let told = home.keyward(&["secret", "list"]).exits(3).err;
        assert!(told.contains(&format!("cause: {why}")) && told.contains("from the tray"), "{told}");
    };
    locked("it was not opened since the broker started");
    home.unlock();
    home.keyward(&["lock"]).exits(0);
    locked("it was locked by hand");
    assert_eq!((&restarted["broker"]["pid"], &restarted["vault"]["state"]), (&second.into(), &"locked".into()));
    assert!(!alive(first));
    wait_for("the first parent's end", || !alive(parent));
    let answer = home.keyward(&["broker", "stop"]).exits(0);
    assert!(answer.err.contains("has stopped"), "{}", answer.err);
    wait_for("the end of all", || none_runs(&home));
    let left: Vec<_> = fs::read_dir(home.runtime.join("keyward")).unwrap().flatten().collect();
    assert!(left.iter().all(|e| !e.path().join("broker.sock").exists()), "the socket is gone");
    let again = home.keyward(&["broker", "stop"]).exits(0);
    assert!(again.err.contains("nothing to stop"), "{}", again.err);
    home.unlock();
    // The signal is as good as the command, and is no crash.
    signal(home.broker_pid().unwrap(), Signal::TERM);
    wait_for("the end of all", || none_runs(&home));
    home.unlock();
    let kinds = home.audit_kinds();
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!((count("broker.started"), count("vault.locked")), (4, 3), "{kinds:?}");
    home.keyward(&["audit", "verify"]).exits(0);
    home.keyward(&["broker", "restart"]).exits(0);
    assert_eq!(home.broker_parents().len(), 1);
}
