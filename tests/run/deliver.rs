//! Deliveries: what the child holds while it lives.

use crate::{ask, lease, ps, shell};
use keyward_testkit::{Home, Talk, alive, signal, wait_for};
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// A shell that holds the profile `p` as a file, and where that file is.
fn with_file(home: &Home, more: &[&str]) -> (Talk, PathBuf) {
    let mut child = shell(home, &[&["-p", "p", "--deliver", "file"], more].concat());
    let path = PathBuf::from(ask(&mut child, "echo $T_FILE"));
    assert!(path.is_absolute(), "{}", path.display());
    (child, path)
}

fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T_FILE");
    home
}

#[test]
fn a_variable_holds_the_credential_to_the_byte() {
    let home = Home::with_vault();
    home.static_profile("plain", "s3cret", "A");
    home.static_profile("lines", "-----BEGIN X-----\nAAAA\n-----END X-----\n", "B");
    home.static_profile("odd", "=ü $(id) `x` \\ '\"", "C");
    let line =
        ["run", "-p", "plain", "-p", "lines", "-p", "odd", "--", "sh", "-c", "printf '%s|' \"$A\" \"$B\" \"$C\""];
    let out = home.keyward(&line).exits(0).out;
    assert_eq!(out, "s3cret|-----BEGIN X-----\nAAAA\n-----END X-----\n|=ü $(id) `x` \\ '\"|");
    home.keyward_in(&["secret", "set", "nul"], "a\0b").exits(0);
    home.profile("nul", "[issuer]\nkind = \"static\"\nsecret = \"secret:nul\"\n[delivery]\nenv = { N = \"token\" }\n");
    let refused = home.keyward(&["run", "-p", "nul", "--", "true"]).exits(125).says("delivery.value");
    assert!(!refused.err.contains("a\0b"));
    let file = home.keyward(&["run", "-p", "nul", "--deliver", "file", "--", "sh", "-c", "od -An -tx1 <\"$N\""]);
    assert_eq!(file.exits(0).out.trim(), "61 00 62", "a file can hold it");
}

#[test]
fn a_file_is_private_in_memory_and_exact() {
    let home = home();
    let (mut child, path) = with_file(&home, &[]);
    let meta = std::fs::symlink_metadata(&path).unwrap();
    assert!(meta.is_file() && meta.nlink() == 1);
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    for folder in path.ancestors().skip(1).take_while(|f| *f != home.runtime) {
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    }
    let kind = ask(&mut child, "stat -f -c %T \"$T_FILE\"");
    assert_eq!(kind, "tmpfs");
    assert_eq!(std::fs::read(&path).unwrap(), b"s3cret");
    let environment = std::fs::read(format!("/proc/{}/environ", child.pid())).unwrap();
    assert!(!environment.windows(6).any(|w| w == b"s3cret"), "the environment holds the path alone");
    let folder = path.parent().unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "no temporary file beside it");
    assert_eq!(lease(&home, child.pid())["delivery"], "file");
}

#[test]
fn a_file_goes_with_the_run_however_it_ends() {
    let home = home();
    for end in ["exit", "SIGKILL", "exec"] {
        let (mut child, path) = with_file(&home, &[]);
        assert!(path.exists());
        match end {
            "exit" => child.send(b"exit 0\n"),
            "SIGKILL" => signal(child.pid(), Signal::KILL),
            // Becoming another program is no end.
            _ => {
                assert_eq!(ask(&mut child, "exec sh -c 'echo again; read -r _'"), "again");
                assert!(path.exists(), "the run goes on over exec");
                child.close();
            }
        }
        // The process is not collected yet: its end alone must do.
        wait_for("the end", || !alive(child.pid()));
        wait_for(&format!("the file to go after {end}"), || !path.exists() && !path.parent().unwrap().exists());
        drop(child);
    }
    wait_for("no run", || ps(&home).is_empty());
}

#[test]
fn a_file_goes_at_revoke_lock_and_expiry_while_the_child_lives() {
    let home = home();
    let (mut revoked, path) = with_file(&home, &[]);
    home.keyward(&["revoke", "p"]).exits(0);
    assert!(!path.exists(), "gone when the command is done");
    assert_eq!(ask(&mut revoked, "cat \"$T_FILE\" 2>/dev/null || echo none"), "none");
    assert_eq!(lease(&home, revoked.pid())["state"], "revoked");

    let (mut expired, path) = with_file(&home, &["--ttl", "1s"]);
    wait_for("the file to go with its time", || !path.exists());
    assert_eq!(ask(&mut expired, "echo alive"), "alive");
    wait_for("the lease to expire", || lease(&home, expired.pid())["state"] == "expired");

    let (mut locked, path) = with_file(&home, &[]);
    let lost = home.keyward(&["lock", "--json"]).exits(0).json();
    assert!(!path.exists(), "gone when the command is done");
    let runs = lost["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "the others had lost theirs: {lost}");
    assert_eq!((&runs[0]["pid"], &runs[0]["profiles"][0]), (&locked.pid().into(), &"p".into()));
    let remains = runs[0]["remains"].as_array().unwrap();
    assert!(remains.len() == 1 && remains[0].as_str().unwrap().contains("read of `p` from its file"), "{remains:?}");
    assert_eq!(ask(&mut locked, "echo alive"), "alive");
    home.unlock();
    assert!(!path.exists(), "it does not come back");
    assert_eq!(lease(&home, locked.pid())["state"], "revoked");
}

#[test]
fn a_secret_that_is_set_anew_reaches_files_and_no_variable() {
    let home = home();
    let (mut file, path) = with_file(&home, &[]);
    let mut variable = shell(&home, &["-p", "p"]);
    let inode = std::fs::metadata(&path).unwrap().ino();
    home.secret("p", "the new one");
    wait_for("the new secret in the file", || std::fs::read(&path).is_ok_and(|b| b == b"the new one"));
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), inode, "replaced, not written over");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(ask(&mut file, "cat \"$T_FILE\"; echo"), "the new one");
    assert_eq!(ask(&mut variable, "echo \"$T_FILE\""), "s3cret");
    assert_eq!(lease(&home, file.pid())["renewals"], 1);
    let of_variable = lease(&home, variable.pid());
    assert_eq!((&of_variable["renewals"], &of_variable["state"]), (&0.into(), &"live".into()));
    let fresh = home.keyward(&["run", "-p", "p", "--", "sh", "-c", "echo \"$T_FILE\""]).exits(0).out;
    assert_eq!(fresh, "the new one\n");
}
