//! What a process hands on over exec is handed on as if `keyward run` were not there.

use crate::sh;
use keyward_testkit::{Home, run};
use std::os::unix::ffi::OsStrExt;

/// What `line` prints in a child with and without `keyward run` in front of it, after `before`.
#[track_caller]
fn same(home: &Home, before: &str, line: &str) -> String {
    let bare = sh(home, &format!("{before} exec {line}")).exits(0).out;
    let through = sh(home, &format!("{before} exec keyward run -p p -- {line}")).exits(0).out;
    assert_eq!(bare, through, "{before} {line}");
    bare
}

fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.grant(&["--profile", "p"]);
    home
}

#[test]
fn mask_folder_priority_and_limits() {
    let home = home();
    assert_eq!(same(&home, "umask 027;", "sh -c umask"), "0027\n");
    assert_eq!(same(&home, "cd /usr/lib;", "pwd"), "/usr/lib\n");
    assert_eq!(same(&home, "", "nice"), "0\n");
    assert_eq!(same(&home, "renice -n 5 $$ >/dev/null;", "nice"), "5\n");
    // All but the one that carries the mark of a run, which nothing enforces.
    let look = "grep -v '^Max file locks' /proc/self/limits";
    let limits = same(&home, "ulimit -n 123; ulimit -c 0; ulimit -s 1234;", look);
    assert!(limits.lines().any(|l| l.contains("open files") && l.contains("123")), "{limits}");
    same(&home, "ulimit -c unlimited;", "sh -c 'ulimit -c'");
    same(&home, "echo 100 >/proc/self/oom_score_adj;", "cat /proc/self/oom_score_adj");
}

#[test]
fn signals_capabilities_and_flags_of_the_process() {
    let home = home();
    let fields = "^(Umask|Uid|Gid|Groups|Sig(Blk|Ign|Cgt)|Cap...|NoNewPrivs|Seccomp|Cpus_allowed_list|Speculation)";
    let look = format!("grep -E '{fields}' /proc/self/status");
    let plain = same(&home, "", &look);
    // Signals 1 and 13; others may be ignored by whoever started the tests.
    let ignored = |status: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap() & 0x1001
    };
    assert_eq!(ignored(&plain), 0, "{plain}");
    assert_eq!(ignored(&same(&home, "trap '' PIPE HUP;", &look)), 0x1001);
    same(&home, "trap '' INT QUIT;", &look);
    // A writer whose reader has gone dies of SIGPIPE, as shells rely on.
    let dies = "{ keyward run -p p -- sh -c 'yes; echo $? >>status'; echo $? >>status; } | head -n 1 >/dev/null";
    sh(&home, &format!("rm -f status; {dies}"));
    let status = std::fs::read_to_string(home.root.join("status")).unwrap();
    assert_eq!(status.lines().next(), Some("141"), "{status}");
}

#[test]
fn open_descriptors_are_kept_and_none_is_added() {
    let home = home();
    std::fs::write(home.root.join("f"), "from seven\n").unwrap();
    let list = r#"sh -c 'for f in /proc/$$/fd/*; do printf "%s " "${f##*/}"; done'"#;
    same(&home, "", list);
    let more = same(&home, "exec 7<f 9>>g;", list);
    assert!(more.contains(" 7 ") && more.contains(" 9 "), "{more}");
    assert_eq!(same(&home, "exec 7<f;", "sh -c 'cat <&7'"), "from seven\n");
    // Also beside the descriptors that keyward itself would open first.
    let many: String = (3..9).map(|n| format!("exec {n}<f;")).collect();
    assert!(same(&home, &many, list).contains(" 8 "));
}

#[test]
fn the_environment_is_the_callers_and_what_the_profile_adds() {
    let home = home();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xc3\xa9 \xff\xfe=\n'\"$");
    let with = |args: &[&str]| {
        let mut command = home.command(args[0]);
        command.args(&args[1..]).env("ODD", odd).env("EMPTY", "").env("dashed-name.x", "y").env("T", "the caller's");
        let mut lines: Vec<String> = run(command, b"").exits(0).out.split('\0').map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut bare = with(&["env", "-0"]);
    let through = with(&["keyward", "run", "-p", "p", "--", "env", "-0"]);
    bare.iter_mut().filter(|l| l.starts_with("T=")).for_each(|l| *l = "T=s3cret".to_owned());
    assert_eq!(bare, through);
    assert!(through.iter().any(|l| l.starts_with("KEYWARD_HOME=")) && through.contains(&"EMPTY=".to_owned()));
}
