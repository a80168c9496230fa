//! A hostile environment when the broker starts: nothing of it acts in the broker.

use keyward_testkit::{Home, run, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A library that writes the program that loaded it into `marker`.
fn library(home: &Home) -> (PathBuf, PathBuf) {
    let (source, library, marker) = (home.root.join("x.c"), home.root.join("x.so"), home.root.join("loaded"));
    let text = format!(
        r#"#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void here(void) {{
    char name[4096]; ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
    FILE *file = n > 0 ? fopen("{}", "a") : NULL;
    if (file) {{ name[n] = 0; fprintf(file, "%d %s\n", (int) getpid(), name); fclose(file); }}
}}
"#,
        marker.display()
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.is_ok_and(|s| s.success()), "the C compiler is needed to build a hostile library");
    (library, marker)
}

fn hostile(home: &mut Home, library: &Path) {
    let library = library.to_str().unwrap().to_owned();
    let folder = home.root.to_str().unwrap().to_owned();
    for (name, value) in [
        ("LD_PRELOAD", &library),
        ("LD_AUDIT", &library),
        ("LD_LIBRARY_PATH", &folder),
        ("GCONV_PATH", &folder),
        ("OPENSSL_CONF", &library),
        ("SSL_CERT_FILE", &library),
        ("SQLITE_TMPDIR", &folder),
        ("TMPDIR", &folder),
        ("http_proxy", &"http://127.0.0.1:9".to_owned()),
        ("HTTPS_PROXY", &"http://127.0.0.1:9".to_owned()),
        ("RUST_BACKTRACE", &"full".to_owned()),
        ("TOKIO_WORKER_THREADS", &"1".to_owned()),
    ] {
        home.set(name, value);
    }
}

/// The worker and its parent have no variable but those allowed, and no library of ours.
#[track_caller]
fn clean(home: &Home, library: &Path) {
    const ALLOWED: &[&str] = &["HOME", "KEYWARD_HOME", "KEYWARD_LOG", "XDG_RUNTIME_DIR", "PATH"];
    let worker = home.broker_pid().unwrap();
    for pid in [worker, crate::parent_of(worker)] {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"));
        let environment = environment.unwrap_or_else(|e| panic!("only root may look into a broker: {e}"));
        for entry in environment.split_terminator('\0') {
            let (name, value) = entry.split_once('=').unwrap();
            assert!(ALLOWED.contains(&name), "{entry} in process {pid}");
            assert!(name != "PATH" || value == "/usr/local/bin:/usr/bin:/bin", "{entry}");
        }
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(!maps.contains(library.to_str().unwrap()), "process {pid} has loaded the library");
    }
}

#[test]
fn nothing_of_a_hostile_environment_reaches_the_broker() {
    if !crate::is_root("start::nothing_of_a_hostile_environment_reaches_the_broker") {
        return;
    }
    let (mut home, _) = crate::home_of_a_user();
    let (library, marker) = library(&home);
    hostile(&mut home, &library);
    // A broker of the attacker's comes first in the path.
    let fake = home.root.join("fake");
    std::fs::create_dir(&fake).unwrap();
    let called = home.root.join("called");
    std::fs::write(fake.join("keyward-broker"), format!("#!/bin/sh\ntouch {}\n", called.display())).unwrap();
    std::fs::set_permissions(fake.join("keyward-broker"), std::fs::Permissions::from_mode(0o755)).unwrap();
    home.set("PATH", &format!("{}:/usr/bin:/bin", fake.display()));
    home.init();
    clean(&home, &library);
    assert!(!called.exists(), "the broker of the path was started");
    let loaded = std::fs::read_to_string(&marker).unwrap_or_default();
    assert!(!loaded.contains("keyward-broker"), "{loaded}");
    // The library does work: a program that is started with it says so.
    assert_eq!(run(home.command("true"), b"").exit, 0);
    assert!(std::fs::read_to_string(&marker).unwrap().contains("/true\n") || cfg!(target_env = "musl"));
}

#[test]
fn a_broker_started_by_hand_leaves_a_hostile_environment_before_it_serves() {
    if !crate::is_root("start::a_broker_started_by_hand_leaves_a_hostile_environment_before_it_serves") {
        return;
    }
    let (mut home, _) = crate::home_of_a_user();
    let (library, _) = library(&home);
    hostile(&mut home, &library);
    let mut broker = home.command(home.bin().join("keyward-broker"));
    broker.stdout(Stdio::null()).stderr(Stdio::null());
    let broker = crate::Kept(broker.spawn().unwrap());
    wait_for("the broker", || home.broker_pid().is_some());
    clean(&home, &library);
    home.stop_broker();
    drop(broker);
}
