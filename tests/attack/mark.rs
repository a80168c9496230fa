//! A process of a run that puts itself beside the run: as a child of the shell that unlocked it is no child of the person's.

use crate::Kept;
use keyward_testkit::{Home, PASSPHRASE, wait_at_most, wait_for};
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

/// A shell in which a person unlocks, starts a run, and unlocks again once that has lowered what the shell bears.
const SHELL: &str = r#"
unlock() { printf '%s\n' "$PASS" | keyward unlock --passphrase-stdin; }
until_there() { until [ -e "$1" ]; do sleep 0.05; done; }
unlock >first 2>&1
keyward token other >before 2>&1
keyward run -p held -- python3 -c "$LEAVE" &
until_there lowered
unlock >second 2>&1
touch unlocked
until_there told
keyward token other >after 2>&1
touch done
"#;

/// Makes a child of the shell that outlives its run or not, lowers what the shell bears to what it bears itself, and asks
/// from there.
const LEAVE: &str = r#"
import ctypes, os, resource, time
shell, libc, locks = os.getppid(), ctypes.CDLL(None, use_errno=True), 10
def until(name):
    while not os.path.exists(name):
        time.sleep(0.05)
if libc.syscall(int(os.environ["NR_CLONE"]), 0x8000 | 17, 0, 0, 0, 0):
    if "ENDS" not in os.environ:
        until("done")
    os._exit(0)
until("go")
resource.prlimit(shell, locks, resource.prlimit(0, locks))
open("lowered", "w").close()
until("unlocked")
os.dup2(os.open("told", os.O_WRONLY | os.O_CREAT, 0o600), 1)
os.dup2(1, 2)
os.execlp("keyward", "keyward", "token", "other")
"#;

#[test]
fn who_puts_its_mark_on_the_shell_gets_nothing_by_it() {
    for ends in [false, true] {
        let home = Home::with_vault();
        home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
        home.static_profile("other", OTHER, "OTHER");
        let mut shell = home.command("sh");
        shell.args(["-c", SHELL]).env("PASS", PASSPHRASE).env("LEAVE", LEAVE).current_dir(&home.root);
        shell.env("NR_CLONE", if cfg!(target_arch = "aarch64") { "220" } else { "56" });
        if ends {
            shell.env("ENDS", "1");
        }
        let _shell = Kept::start(shell);
        let text = |name: &str| std::fs::read_to_string(home.root.join(name)).unwrap_or_default();
        let runs = || home.keyward(&["ps", "--json"]).exits(0).json().as_array().unwrap().len();
        let kinds = |kind: &str| home.audit_kinds().iter().filter(|k| *k == kind).count();
        wait_for("the run", || kinds("run.started") == 1);
        if ends {
            // What is left of the run knows it no more, nor does a broker that begins anew.
            wait_for("the end of the run", || runs() == 0 && kinds("run.ended") == 1);
            home.crash_broker();
        }
        std::fs::write(home.root.join("go"), "").unwrap();
        wait_at_most(Duration::from_secs(60), "an answer beside the run", || text("told").ends_with('\n'));
        wait_for("the shell's own answer", || home.root.join("done").exists());
        assert_eq!(text("before").trim_end(), OTHER, "a person's own child before");
        assert!(!text("first").contains("mark of a run"), "{}", text("first"));
        for name in ["told", "after"] {
            let text = text(name);
            assert!(text.contains("[approval.needed]") && !text.contains(OTHER), "{name}, ended: {ends}: {text}");
        }
        assert!(text("second").contains("this terminal bears the mark of a run"), "{}", text("second"));
        assert_eq!(kinds("token.delivered"), 1, "to the person, before");
    }
}
