//! A process of a run that puts itself beside the run: as a child of the shell that unlocked it is no child of the person's.

use crate::Kept;
use keyward_testkit::{Home, wait_at_most};
use std::time::Duration;

const OTHER: &str = "v4lue-that-nobody-allowed";

/// Makes a child of its own parent (`clone` with `CLONE_PARENT` and SIGCHLD), which becomes `keyward` with the arguments given;
/// what that says goes to the file of the first argument.
const BESIDE: &str = r#"
import ctypes, os, resource, sys, time
out, args = sys.argv[1], sys.argv[2:]
libc = ctypes.CDLL(None, use_errno=True)
pid = libc.syscall(int(os.environ["NR_CLONE"]), 0x8000 | 17, 0, 0, 0, 0)
if pid == 0:
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT, 0o600), 1)
    os.dup2(1, 2)
    try:
        os.execvp("keyward", ["keyward", *args])
    finally:
        os._exit(99)
time.sleep(30)
"#;

/// What the child beside the run was told.
#[track_caller]
fn told(home: &Home, name: &str, args: &[&str]) -> String {
    let out = home.root.join(name);
    let mut line = vec!["run", "-p", "held", "--", "python3", "-c", BESIDE];
    let path = out.display().to_string();
    line.push(&path);
    line.extend(args);
    let mut command = home.keyward_command(&line);
    let number = if cfg!(target_arch = "aarch64") { 220 } else { 56 };
    command.env("NR_CLONE", number.to_string());
    let _run = Kept::start(command);
    let mut text = String::new();
    wait_at_most(Duration::from_secs(30), "an answer beside the run", || {
        text = std::fs::read_to_string(&out).unwrap_or_default();
        text.ends_with('\n')
    });
    text
}

#[test]
fn a_process_that_leaves_its_run_sideways_is_no_child_of_the_shell() {
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
    home.static_profile("other", OTHER, "OTHER");
    // A child that this process makes by itself is the shell's.
    assert_eq!(home.keyward(&["token", "other"]).exits(0).out.trim_end(), OTHER);

    let text = told(&home, "token", &["token", "other"]);
    assert!(text.contains("[approval.needed]") && !text.contains(OTHER), "{text}");
    let text = told(&home, "run", &["run", "-p", "other", "--", "sh", "-c", "echo $OTHER"]);
    assert!(text.contains("[approval.needed]") && !text.contains(OTHER), "{text}");
    let text = told(&home, "remove", &["secret", "remove", "other"]);
    assert!(text.contains("[policy.denied]"), "{text}");
}
