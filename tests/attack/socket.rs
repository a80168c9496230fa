//! The broker's socket: another user, connections that are lent, inherited or kept over exec.

use crate::{Kept, STRANGER, home_of_a_user, is_root, peer};
use keyward_testkit::{Answer, Home, run};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::{Permissions, set_permissions};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRETS: &str = "GET /v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n";

/// What comes back on a connection until the broker hangs up.
fn rest(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("the connection stays open: {e}"),
        Ok(_) | Err(_) => String::from_utf8(text).unwrap(),
    }
}

fn ask(home: &Home, words: &[&str]) -> Answer {
    let mut command = home.command(peer(home));
    command.args(words);
    run(command, b"")
}

#[test]
fn another_user_is_not_answered_even_where_the_folders_let_him_in() {
    if !is_root("socket::another_user_is_not_answered_even_where_the_folders_let_him_in") {
        return;
    }
    let (home, uid) = home_of_a_user();
    home.init();
    let socket = home.socket();
    let as_user = |uid: u32, words: &[&str]| {
        let mut command = home.command(peer(&home));
        command.args(words).uid(uid).gid(uid);
        run(command, b"")
    };
    let path = socket.to_str().unwrap();
    let open = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    peer(&home);
    open(&home.root, 0o755);
    open(home.bin(), 0o755);
    let closed = as_user(STRANGER, &["ask", path, "1", "GET", "/v1/status"]);
    assert!(closed.exit == 1 && closed.err.contains("ermission denied"), "{closed:?}");
    // The user has opened everything by hand.
    open(&home.runtime, 0o755);
    open(&home.runtime.join("keyward"), 0o755);
    open(socket.parent().unwrap(), 0o755);
    open(&socket, 0o666);
    let refused = as_user(STRANGER, &["ask", path, "1", "GET", "/v1/status"]).exits(0);
    assert_eq!(refused.out, "closed 1\n");
    let own = as_user(uid, &["ask", path, "1", "GET", "/v1/status"]).exits(0);
    assert!(own.out.starts_with("200 1\n"), "{}", own.out);
    // Root may read the files and the memory anyway, but is no peer of this broker.
    let root = as_user(0, &["ask", path, "1", "GET", "/v1/status"]).exits(0);
    assert_eq!(root.out, "closed 1\n");
    // So that the client stops the broker at the end.
    open(&home.runtime, 0o700);
    open(&home.runtime.join("keyward"), 0o700);
    open(socket.parent().unwrap(), 0o700);
}

#[test]
fn an_inherited_connection_serves_nobody_but_the_process_that_made_it() {
    let home = Home::with_vault();
    home.secret("inherited", "v4lue-of-nobody-else");
    let stream = UnixStream::connect(home.socket()).unwrap();
    let mut child = home.command(peer(&home));
    child.args(["ask", "-", "1", "GET", "/v1/secrets"]);
    let child = child.stdin(OwnedFd::from(stream.try_clone().unwrap())).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8(child.stdout).unwrap(), "closed 1\n");
    assert_eq!(rest(stream), "", "the connection is over for the one who lent it, too");
    // Half a request of the owner, and the other half of somebody else.
    let stream = UnixStream::connect(home.socket()).unwrap();
    (&stream).write_all(&SECRETS.as_bytes()[..20]).unwrap();
    let mut tail = Command::new("printf");
    tail.arg(SECRETS[20..].replace('\r', "\\r").replace('\n', "\\n"));
    assert!(tail.stdout(OwnedFd::from(stream.try_clone().unwrap())).status().unwrap().success());
    assert_eq!(rest(stream), "");
    assert!(ask(&home, &["ask", home.socket().to_str().unwrap(), "1", "GET", "/v1/secrets"]).out.contains("inherited"));
}

#[test]
fn a_connection_lent_through_another_socket_serves_nobody_else() {
    let home = Home::with_vault();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut lender = home.command(peer(&home));
    lender.args(["lend", home.socket().to_str().unwrap()]).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let _lender = Kept(lender.spawn().unwrap());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&ours, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let lent = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let lent = UnixStream::from(lent.unwrap());
    (&lent).write_all(SECRETS.as_bytes()).unwrap();
    assert_eq!(rest(lent), "");
}

#[test]
fn a_connection_kept_over_exec_asks_as_what_the_process_has_become() {
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
    home.secret("other", "v4lue-that-it-does-not");
    let (socket, peer) = (home.socket(), peer(&home));
    let (socket, peer) = (socket.to_str().unwrap(), peer.to_str().unwrap());
    // Outside of a run it stays what it was: the same process, another program.
    let outside = ask(&home, &["exec", socket, peer, "ask", "-", "1", "GET", "/v1/secrets"]).exits(0);
    assert!(outside.out.starts_with("200 1\n") && outside.out.contains("other"), "{}", outside.out);
    // It becomes the root of a run: the connection from before is closed.
    let keyward = home.bin().join("keyward");
    let keyward = keyward.to_str().unwrap();
    let line = ["exec", socket, keyward, "run", "-p", "held", "--", peer, "ask", "-", "1", "GET", "/v1/secrets"];
    let inside = ask(&home, &line).exits(0);
    assert_eq!(inside.out, "closed 1\n");
    // A new connection from there is answered as one from inside.
    let line = ["exec", socket, keyward, "run", "-p", "held", "--", peer, "ask", socket, "1", "GET", "/v1/secrets"];
    let inside = ask(&home, &line).exits(0);
    assert!(inside.out.starts_with("403 1\n") && inside.out.contains("policy.denied"), "{}", inside.out);
}
