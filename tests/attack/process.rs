//! `/proc` of the broker and of a client that waits for a passphrase, read by another process of the same user.

use crate::{Kept, home_of_a_user, is_root, parent_of};
use keyward_testkit::{Home, signal, wait_for};
use rustix::process::Signal;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

/// What must stay closed, and how to open it. `$P` is the folder of the process.
const CLOSED: &[&str] = &[
    ": <$P/environ",
    "head -c 1 $P/environ",
    "head -c 1 $P/maps",
    "head -c 1 $P/smaps",
    ": <$P/mem",
    ": <$P/auxv",
    ": <$P/io",
    ": <$P/syscall",
    ": <$P/stack",
    "readlink $P/exe",
    "readlink $P/cwd",
    "readlink $P/root",
    "readlink $P/fd/0",
    "ls $P/fd | grep .",
    "ls $P/map_files | grep .",
    "ls $P/task/*/fd | grep .",
    "head -c 1 $P/task/*/environ",
];

#[test]
fn the_broker_is_closed_to_other_processes_of_the_same_user() {
    if !is_root("process::the_broker_is_closed_to_other_processes_of_the_same_user") {
        return;
    }
    let (home, _) = home_of_a_user();
    home.init();
    let worker = home.broker_pid().unwrap();
    let mut sleeper = home.command("sleep");
    sleeper.arg("600");
    let sleeper = Kept::start(sleeper);
    let open = home.opens(sleeper.pid(), CLOSED);
    let needed = [": <$P/mem", "head -c 1 $P/environ", "readlink $P/exe", "ls $P/fd | grep ."];
    assert!(needed.iter().all(|line| open.contains(line)), "the tries do not work at all: {open:?}");
    for pid in [worker, parent_of(worker)] {
        assert_eq!(home.opens(pid, CLOSED), Vec::<&str>::new(), "of process {pid}");
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(["keyward-broker\0--serve\0", "keyward-broker\0--detach\0"].contains(&line.as_str()), "{line:?}");
    }
}

#[test]
fn a_client_that_waits_for_a_passphrase_is_closed_as_well() {
    if !is_root("process::a_client_that_waits_for_a_passphrase_is_closed_as_well") {
        return;
    }
    let (home, _) = home_of_a_user();
    home.init();
    for args in
        [&["unlock", "--passphrase-stdin"][..], &["secret", "set", "fresh"], &["vault", "rekey", "--passphrase-stdin"]]
    {
        let mut client = home.keyward_command(args);
        client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let client = Kept(client.spawn().unwrap());
        wait_for("the client to close itself", || !home.opens(client.pid(), CLOSED).contains(&": <$P/mem"));
        assert_eq!(home.opens(client.pid(), CLOSED), Vec::<&str>::new(), "{args:?}");
    }
}

#[test]
fn a_broker_that_crashes_leaves_no_core() {
    if !is_root("process::a_broker_that_crashes_leaves_no_core") {
        return;
    }
    // Root writes anywhere, so a core file would not be missing for want of a right.
    let home = Home::with_vault();
    let worker = home.broker_pid().unwrap();
    for pid in [worker, parent_of(worker)] {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        let fields: Vec<&str> = core.split_ascii_whitespace().collect();
        assert_eq!(fields[4..6], ["0", "0"], "{core}");
    }
    let began = std::time::SystemTime::now();
    signal(worker, Signal::ABORT);
    wait_for("the worker that comes after", || home.broker_pid().is_some_and(|pid| pid != worker));
    let fresh = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let cores = entries.filter(|e| e.file_name().to_string_lossy().contains("core"));
        cores.filter(|e| e.metadata().is_ok_and(|m| m.is_file() && m.modified().is_ok_and(|t| t >= began))).count()
    };
    let places = ["/", "/tmp", "/var/crash", "/var/lib/systemd/coredump"].map(std::path::Path::new);
    for place in places.into_iter().chain([home.root.as_path(), &home.runtime, &home.keyward_home()]) {
        assert_eq!(fresh(place), 0, "a core in {}", place.display());
    }
}

#[test]
fn the_files_of_a_hidden_process_belong_to_root() {
    if !is_root("process::the_files_of_a_hidden_process_belong_to_root") {
        return;
    }
    // proc(5): what the kernel does for a process whose dumpable attribute is not 1.
    let (home, uid) = home_of_a_user();
    home.init();
    let worker = home.broker_pid().unwrap();
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!((owner(worker), owner(parent_of(worker))), (0, 0));
    let mut sleeper = home.command("sleep");
    sleeper.arg("600");
    let sleeper = Kept::start(sleeper);
    assert_eq!(owner(sleeper.pid()), uid);
}
