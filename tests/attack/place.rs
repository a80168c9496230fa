//! Folders and sockets that somebody else has prepared: nothing is sent there, and nothing is put there.

use crate::{Kept, STRANGER, home_of_a_user, is_root, parent_of, peer};
use keyward_testkit::{Home, PASSPHRASE, alive, wait_for};
use std::fs::{DirBuilder, Permissions, create_dir, set_permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Name of the socket folder of a home, as a broker that was once started there has made it.
fn socket_folder(home: &Home) -> PathBuf {
    home.keyward(&["status"]).exits(0);
    home.init();
    let parent = parent_of(home.broker_pid().unwrap());
    home.stop_broker();
    // At its end it removes the socket, whatever has come into its place.
    wait_for("the end of the broker's parent", || !alive(parent));
    let all = home.runtime.join("keyward");
    let found = std::fs::read_dir(&all).unwrap().flatten().map(|e| e.path()).find(|p| p.is_dir());
    let found = found.unwrap();
    std::fs::remove_dir_all(&all).unwrap();
    found
}

/// `keyward` must refuse, and the listener that waits there must hear nothing, not even a connection.
#[track_caller]
fn refused(home: &Home, listener: &UnixListener) {
    listener.set_nonblocking(true).unwrap();
    for args in [&["status"][..], &["secret", "list"], &["unlock", "--passphrase-stdin"], &["secret", "set", "a"]] {
        home.keyward_in(args, PASSPHRASE).exits(5).says("broker.socket_untrusted");
    }
    let run = home.keyward(&["run", "--", "true"]);
    assert_eq!(run.exits(125).says("broker.socket_untrusted").out, "");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody connected");
}

fn made(folder: &Path, mode: u32) {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).unwrap();
    set_permissions(folder, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_socket_folder_that_others_can_enter_is_not_used() {
    let home = Home::new();
    let folder = socket_folder(&home);
    for mode in [0o777, 0o770, 0o701, 0o755] {
        made(&folder, mode);
        refused(&home, &UnixListener::bind(folder.join("broker.sock")).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
    made(&folder, 0o700);
    set_permissions(folder.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
    refused(&home, &UnixListener::bind(folder.join("broker.sock")).unwrap());
}

#[test]
fn a_runtime_folder_that_others_can_write_is_not_used() {
    let home = Home::new();
    let folder = socket_folder(&home);
    made(&folder, 0o700);
    let listener = UnixListener::bind(folder.join("broker.sock")).unwrap();
    set_permissions(&home.runtime, Permissions::from_mode(0o777)).unwrap();
    refused(&home, &listener);
}

#[test]
fn a_link_in_the_place_of_the_socket_folder_is_not_followed() {
    let home = Home::new();
    let folder = socket_folder(&home);
    let elsewhere = home.root.join("elsewhere");
    made(&elsewhere, 0o700);
    made(folder.parent().unwrap(), 0o700);
    symlink(&elsewhere, &folder).unwrap();
    refused(&home, &UnixListener::bind(elsewhere.join("broker.sock")).unwrap());
}

#[test]
fn a_file_in_the_place_of_the_socket_is_neither_used_nor_removed() {
    let home = Home::new();
    let folder = socket_folder(&home);
    made(&folder, 0o700);
    std::fs::write(folder.join("broker.sock"), "precious").unwrap();
    home.keyward(&["secret", "list"]).exits(5).says("broker.socket_untrusted");
    assert_eq!(std::fs::read(folder.join("broker.sock")).unwrap(), b"precious");
}

#[test]
fn a_folder_or_a_server_of_another_user_is_not_trusted() {
    if !is_root("place::a_folder_or_a_server_of_another_user_is_not_trusted") {
        return;
    }
    let (home, uid) = home_of_a_user();
    let folder = socket_folder(&home);
    made(&folder, 0o700);
    chown(folder.parent().unwrap(), Some(uid), Some(uid)).unwrap();
    chown(&folder, Some(STRANGER), Some(STRANGER)).unwrap();
    refused(&home, &UnixListener::bind(folder.join("broker.sock")).unwrap());
    std::fs::remove_file(folder.join("broker.sock")).unwrap();

    // The folder is the user's, and the socket in it is served by somebody else.
    chown(&folder, Some(uid), Some(uid)).unwrap();
    set_permissions(&home.runtime, Permissions::from_mode(0o711)).unwrap();
    let theirs = home.runtime.join("theirs");
    create_dir(&theirs).unwrap();
    chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    std::fs::copy(peer(&home), theirs.join("peer")).unwrap();
    let mut server = home.command(theirs.join("peer"));
    server.arg("serve").arg(theirs.join("s")).current_dir("/").uid(STRANGER).gid(STRANGER);
    let _server = Kept::start(server);
    wait_for("the stranger's socket", || theirs.join("s").exists());
    set_permissions(theirs.join("s"), Permissions::from_mode(0o666)).unwrap();
    std::fs::rename(theirs.join("s"), folder.join("broker.sock")).unwrap();
    let answer =
        home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(5).says("broker.socket_untrusted");
    assert!(answer.err.contains(&format!("belongs to user {STRANGER}")), "{}", answer.err);
}

#[test]
fn a_vault_folder_that_others_can_write_is_not_opened() {
    let home = Home::with_vault();
    home.stop_broker();
    for (folder, mode) in [("data", 0o770), ("state", 0o777), ("config", 0o707), (".", 0o777)] {
        let folder = home.keyward_home().join(folder);
        set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(1).says("vault.folder_unsafe");
        set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    }
    home.unlock();
}

#[test]
fn a_prompt_names_a_home_that_the_environment_chose() {
    let home = Home::with_vault();
    home.keyward(&["lock"]).exits(0);
    let mut terminal = home.command("script");
    terminal.args(["-qec", "keyward unlock", "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let mut shown = Vec::new();
    let mut out = terminal.stdout.take().unwrap();
    // The prompt ends with a colon and a blank; what is typed before it would be shown by the terminal itself.
    while !shown.ends_with(b": ") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "no prompt: {}", String::from_utf8_lossy(&shown));
        shown.push(byte[0]);
    }
    let mut stdin = terminal.stdin.take().unwrap();
    stdin.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    out.read_to_end(&mut shown).unwrap();
    drop(stdin);
    assert!(terminal.wait().unwrap().success());
    let shown = String::from_utf8(shown).unwrap();
    let named = format!("vault in {}", home.keyward_home().display());
    assert!(shown.contains(&named) && shown.contains("the vault is open"), "{shown}");
    assert!(!shown.contains("staple"), "the passphrase is shown: {shown}");
}
