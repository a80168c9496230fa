//! A child is the process of `keyward run` itself, not one below it.

use crate::{ask, sh, shell};
use keyward_testkit::{Home, Talk, alive, signal, wait_for};
use rustix::process::Signal;
use std::fs;

/// Fields of `/proc/PID/stat` that say whose process it is: pid, parent, group, session, terminal, foreground group.
fn place(stat: &str) -> Vec<String> {
    let (head, rest) = (stat.split(' ').next().unwrap(), stat.rsplit(") ").next().unwrap());
    std::iter::once(head).chain(rest.split_whitespace().skip(1).take(5)).map(str::to_owned).collect()
}

#[test]
fn the_process_becomes_the_program_and_no_other_stays() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    let pid = child.pid();
    assert_eq!(ask(&mut child, "echo $$"), pid.to_string());
    assert_eq!(fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"sh\0");
    let (exe, shell) = (fs::read_link(format!("/proc/{pid}/exe")).unwrap(), fs::canonicalize("/bin/sh").unwrap());
    assert_eq!(exe, shell);
    let own = home.bin().join("keyward");
    let left = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| fs::read_link(e.path().join("exe")).ok());
    assert_eq!(left.filter(|exe| *exe == own).count(), 0, "a process of keyward is left");
    let parent = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(place(&parent)[1], std::process::id().to_string(), "the parent is who started it");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads, 1);
    child.send(b"exit 3\n");
    assert_eq!(child.end().exit, 3);
}

#[test]
fn on_a_terminal_the_session_group_and_modes_are_the_callers() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let look = r#"read -r s </proc/$$/stat; echo "$s"; stty -g"#;
    let line = format!("{look}; exec keyward run -p p -- sh -c '{look}; tty; kill -9 $$'");
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", &line], &[]);
    let (before, modes) = (place(&talk.line()), talk.line());
    let (after, modes_after, tty) = (place(&talk.line()), talk.line(), talk.line());
    assert_eq!((before.clone(), modes), (after, modes_after));
    assert_eq!(before[0], talk.pid().to_string());
    assert!(before[2..].iter().all(|f| f != "0" && f != "-1"), "no terminal: {before:?}");
    assert!(tty.starts_with("/dev/pts/"), "{tty}");
    assert_eq!(talk.end().exit, 137);
}

#[test]
fn keys_of_the_terminal_reach_the_child() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let trap = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut talk = Talk::on_terminal(&home, &["keyward", "run", "-p", "p", "--", "sh", "-c", trap], &[]);
    talk.until("ready");
    talk.send(b"\x03");
    talk.until("got it");
    assert_eq!(talk.end().exit, 9);
    for (key, signal) in [(b"\x03", 2), (b"\x1c", 3)] {
        let plain = "ulimit -c 0; echo ready; exec sleep 100";
        let mut talk = Talk::on_terminal(&home, &["keyward", "run", "-p", "p", "--", "sh", "-c", plain], &[]);
        talk.until("ready");
        // The shell that says it is about to become the sleeper, and either one dies of the key.
        talk.send(key);
        assert_eq!(talk.end().exit, 128 + signal);
    }
}

#[test]
fn signals_sent_to_the_pid_are_the_childs() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    assert_eq!(ask(&mut child, "trap 'echo term' TERM; trap 'echo usr' USR1; echo set"), "set");
    signal(child.pid(), Signal::TERM);
    child.send(b"\n");
    assert_eq!(child.line(), "term");
    signal(child.pid(), Signal::STOP);
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap_or_default();
    wait_for("the stop", || state().contains(") T "));
    signal(child.pid(), Signal::CONT);
    wait_for("the end of the stop", || !state().contains(") T "));
    signal(child.pid(), Signal::KILL);
    assert_eq!(child.end().exit, 137);
}

#[test]
fn what_a_child_leaves_behind_stays_below_it_and_lives_on_after_it() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut child = shell(&home, &["-p", "p"]);
    // A daemon by the book: the middle process ends, the last one has a session of its own.
    let daemon = ask(&mut child, "(setsid sh -c 'echo $$; exec sleep 60' 2>/dev/null & ) | head -n 1");
    let daemon: i32 = daemon.parse().unwrap();
    let parent = || place(&fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default())[1].clone();
    wait_for("the daemon below the run", || parent() == child.pid().to_string());
    child.send(b"exit\n");
    wait_for("the end of the run", || !alive(child.pid()));
    assert!(alive(daemon), "a run's end ends nothing but the run");
    signal(daemon, Signal::KILL);
    drop(child);
}

#[test]
fn the_first_argument_is_as_it_was_typed() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.grant(&["--profile", "p"]);
    let link = home.root.join("linked");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    for typed in ["sh", "/bin/sh", "./linked", &link.display().to_string()] {
        let said =
            sh(&home, &format!("keyward run -p p -- {typed} -c 'tr \"\\0\" \" \" </proc/$$/cmdline' a 'b c' ''"));
        let out = said.exits(0).out;
        assert!(out.starts_with(&format!("{typed} -c tr ")) && out.ends_with(" a b c  "), "{typed}: {out:?}");
    }
}
