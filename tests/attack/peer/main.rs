//! Plays a hostile peer of the broker's socket, for the tests of `attack`. Speaks no more HTTP than they need.
//!
//! `ask SOCKET COUNT METHOD PATH [BODY]`: that many requests on one connection; prints each status with its count, `closed`
//! where the broker hung up, and the last body. `-` as socket is standard input, a connection that somebody else made.
//! `become SOCKET BODY CMD…`: asks for the run of BODY, and becomes CMD, whatever BODY names.
//! `exec SOCKET CMD…`: connects, and becomes CMD with the connection as standard input.
//! `hold SOCKET COUNT READY`: that many connections with a request that never ends on each, anew whenever one closes; makes the
//! file READY once all are there, and goes on until that is removed.
//! `lend SOCKET`: connects, sends the connection over standard input (`SCM_RIGHTS`), and stays until that closes.
//! `serve SOCKET`: listens there; prints `ready`, and the number of bytes of each connection until standard input closes.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["ask", socket, count, method, path] => ask(socket, count, method, path, ""),
        ["ask", socket, count, method, path, body] => ask(socket, count, method, path, body),
        ["become", socket, body, program, ref args @ ..] => becomes(socket, body, program, args),
        ["exec", socket, program, ref args @ ..] => exec(socket, program, args),
        ["hold", socket, count, ready] => hold(socket, count, Path::new(ready)),
        ["lend", socket] => lend(socket),
        ["serve", socket] => serve(socket),
        _ => Err(io::Error::other("see the first lines of this program")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "attack-peer: {e}");
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &str, count: &str, method: &str, path: &str, body: &str) -> io::Result<()> {
    let stream = if socket == "-" {
        UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        UnixStream::connect(socket)?
    };
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = request(method, path, body);
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = Vec::new();
    for _ in 0..count.parse().map_err(io::Error::other)? {
        match (&stream).write_all(request.as_bytes()).and_then(|()| answer(&mut reader, &mut last)) {
            Ok(status) => *statuses.entry(status).or_default() += 1,
            Err(_) => {
                *statuses.entry("closed".to_owned()).or_default() += 1;
                break;
            }
        }
    }
    let mut out = io::stdout().lock();
    for (status, count) in statuses {
        writeln!(out, "{status} {count}")?;
    }
    out.write_all(&last)
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn becomes(socket: &str, body: &str, program: &str, args: &[&str]) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    (&stream).write_all(request("POST", "/v1/runs", body).as_bytes())?;
    let status = answer(&mut BufReader::new(&stream), &mut Vec::new())?;
    if status != "200" {
        return Err(io::Error::other(status));
    }
    // It bears the mark of a run, as one that a client of ours has started.
    let limit = getrlimit(Resource::Locks);
    let maximum = limit.maximum.unwrap_or(u64::MAX).saturating_sub(1);
    let current = Some(limit.current.unwrap_or(u64::MAX).min(maximum));
    setrlimit(Resource::Locks, Rlimit { current, maximum: Some(maximum) })?;
    // The connection closes with exec.
    Err(Command::new(program).args(args).exec())
}

/// Reads one answer into `body`; gives its status.
fn answer(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<String> {
    let mut line = String::new();
    let mut length = 0;
    let mut status = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if status.is_none() {
            status = Some(text.split(' ').nth(1).unwrap_or("?").to_owned());
        } else if text.is_empty() {
            break;
        } else if let Some(value) = text.strip_prefix("content-length: ") {
            length = value.parse().map_err(io::Error::other)?;
        }
    }
    body.resize(length, 0);
    reader.read_exact(body)?;
    Ok(status.unwrap_or_default())
}

fn exec(socket: &str, program: &str, args: &[&str]) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    rustix::stdio::dup2_stdin(&stream)?;
    Err(Command::new(program).args(args).exec())
}

fn hold(socket: &str, count: &str, ready: &Path) -> io::Result<()> {
    let begin = || -> io::Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        (&stream).write_all(b"POST /v1/token HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{")?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut held: Vec<Option<UnixStream>> = (0..count.parse().map_err(io::Error::other)?).map(|_| None).collect();
    let mut told = false;
    while !told || ready.exists() {
        for place in &mut held {
            let read = place.as_mut().map(|stream| stream.read(&mut [0; 512]));
            let open = read.is_some_and(|read| match read {
                Ok(n) => n > 0,
                Err(e) => e.kind() == io::ErrorKind::WouldBlock,
            });
            if !open {
                // One that is refused is tried again.
                *place = begin().ok();
            }
        }
        if !told {
            std::fs::write(ready, "")?;
            told = true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn lend(socket: &str) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let descriptors = [stream.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(io::stdin(), &[IoSlice::new(b"!")], &mut message, SendFlags::empty())?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn serve(socket: &str) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut got = Vec::new();
            // What came until the other side hung up, or paused, is what counts.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = (&stream).read_to_end(&mut got);
            let _ = writeln!(io::stdout(), "{}", got.len());
        }
    });
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
