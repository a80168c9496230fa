//! Rule 10: Keyward talks to no host that a profile does not name. Every connection of the demo is recorded.

use keyward_testkit::{Home, is_root, run, target};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where a program and all that it started sent something, and how often.
type Seen = BTreeMap<String, usize>;

/// Runs a command to its end and records its connections in `file`.
#[track_caller]
fn record(traced: &Command, file: &Path) -> (String, Seen) {
    let mut strace = Command::new("strace");
    // Lengths of zero: no content is recorded. A program that could pass by these calls must not be missed.
    strace.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(file);
    strace.args(["-e", "trace=connect,sendto,sendmsg,sendmmsg,io_uring_setup"]).arg("--");
    strace.arg(traced.get_program()).args(traced.get_args());
    for (name, value) in traced.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace.stdin(Stdio::null());
    let answer = run(strace, b"");
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| {
        panic!(
            "strace records nothing ({e}); it must be there and allowed to trace (ptrace_scope, seccomp): {}",
            answer.err
        )
    });
    assert_eq!(answer.exit, 0, "out: {}\nerr: {}", answer.out, answer.err);
    (answer.out, seen(&text))
}

/// Reads the lines of strace. The address of a call stands in the line in which the call begins.
#[track_caller]
fn seen(text: &str) -> Seen {
    let mut seen = Seen::new();
    for line in text.lines().filter(|line| !line.contains("resumed>")) {
        let to = match address(line) {
            Some(to) => to,
            // Without an address it goes to where the socket is connected, or to the other end of a pair.
            None if !line.contains(" connect(") && !line.contains(" io_uring_setup(") => continue,
            None => format!("unknown: {line}"),
        };
        *seen.entry(to).or_default() += 1;
    }
    seen
}

/// `tcp or udp address port`, `unix path`, or another family as strace calls it; `None` for a call without an address.
fn address(line: &str) -> Option<String> {
    let between = |from: &str, to: char| line.split_once(from)?.1.split(to).next();
    let family = between("sa_family=", ',').or_else(|| between("sa_family=", '}'))?;
    Some(match family {
        "AF_INET" => format!("ip {}:{}", between("inet_addr(\"", '"')?, between("sin_port=htons(", ')')?),
        "AF_INET6" => format!("ip [{}]:{}", between("inet_pton(AF_INET6, \"", '"')?, between("sin6_port=htons(", ')')?),
        "AF_UNIX" => format!("unix {}", between("sun_path=", '}')?.trim_matches('"')),
        other => other.trim_end_matches('}').to_owned(),
    })
}

/// What is neither one of the `hosts` nor a socket below one of the `folders`.
fn strangers<'s>(seen: &'s Seen, hosts: &[&str], folders: &[&str]) -> Vec<&'s str> {
    let known = |to: &str| match to.strip_prefix("unix ") {
        Some(path) => folders.iter().any(|folder| path.starts_with(folder)),
        None => to.strip_prefix("ip ").is_some_and(|to| hosts.contains(&to)),
    };
    seen.keys().map(String::as_str).filter(|to| !known(to)).collect()
}

#[test]
fn a_connection_to_elsewhere_is_seen_and_its_kind_told() {
    if !is_root("connections::a_connection_to_elsewhere_is_seen_and_its_kind_told") {
        return;
    }
    let home = Home::new();
    // Addresses for documentation (RFC 5737, RFC 3849): nothing answers there, and nothing is waited for.
    let script = "
import os, socket
def tcp(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setblocking(False)
        s.connect_ex(address)
tcp(socket.AF_INET, ('192.0.2.1', 443))
tcp(socket.AF_INET6, ('2001:db8::1', 443))
tcp(socket.AF_INET, ('127.0.0.1', 9))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try:
        s.sendto(b'q', ('192.0.2.2', 53))
    except OSError:
        pass
with socket.socket(socket.AF_UNIX) as s:
    s.connect_ex('/nowhere/nscd')
if os.fork() == 0:
    os.setsid()
    tcp(socket.AF_INET, ('192.0.2.3', 80))
";
    let mut command = home.command("python3");
    command.args(["-c", script]);
    let (_, seen) = record(&command, &home.root.join("trace"));
    let found = strangers(&seen, &["127.0.0.1:8080"], &["/tmp"]);
    let expected = [
        "ip 127.0.0.1:9",
        "ip 192.0.2.1:443",
        "ip 192.0.2.2:53",
        "ip 192.0.2.3:80",
        "ip [2001:db8::1]:443",
        "unix /nowhere/nscd",
    ];
    assert_eq!(found, expected, "{seen:?}");
}

#[test]
fn what_cannot_be_read_counts_as_a_stranger() {
    for line in [
        "7 connect(5, 0x7ffd1a2b3c40, 16) = 0",
        "7 connect(5, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 0",
        "7 sendto(5, \"\"..., 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20",
        "7 connect(5, {sa_family=AF_UNSPEC, sa_data=\"\"}, 16 <unfinished ...>",
        "7 io_uring_setup(8, {flags=0}) = 3",
    ] {
        assert_eq!(strangers(&seen(line), &["127.0.0.1:8080"], &["/tmp/a."]).len(), 1, "{line}");
    }
    for line in [
        "7 connect(5, {sa_family=AF_UNIX, sun_path=\"/tmp/a.1/s\"}, 110) = 0",
        "7 connect(5, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr(\"127.0.0.1\")}, 16 <unfinished ...>",
        "7 <... connect resumed>) = 0",
        "7 sendto(5, \"\"..., 20, MSG_NOSIGNAL, NULL, 0) = 20",
    ] {
        assert_eq!(strangers(&seen(line), &["127.0.0.1:8080"], &["/tmp/a."]), [""; 0], "{line}");
    }
}

#[test]
fn the_demo_connects_to_its_sandbox_its_gateway_and_its_broker_alone() {
    if !is_root("connections::the_demo_connects_to_its_sandbox_its_gateway_and_its_broker_alone") {
        return;
    }
    let home = Home::new();
    let temporary = home.root.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut demo = Command::new(target().join("xtask"));
    demo.args(["demo", "--without-desktop", "--with"])
        .arg(target())
        .env("CARGO", env!("CARGO"))
        .env("TMPDIR", &temporary);
    let (said, seen) = record(&demo, &home.root.join("trace"));
    for marker in ["child: got ", "verify: ok ", "tamper: found", "exchanges: "] {
        assert!(said.lines().any(|line| line.starts_with(marker)), "{marker}: {said}");
    }
    let tokens: Vec<&str> = said.lines().filter(|line| line.starts_with("token: ")).collect();
    assert!(tokens.len() >= 2 && tokens.first() != tokens.get(1), "{said}");
    let told = |prefix: &str| {
        said.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_else(|| panic!("{prefix}: {said}"))
    };
    let (host, gateway) = (told("sandbox: http://"), told("child: ANTHROPIC_BASE_URL=http://"));

    let mut record = String::new();
    seen.iter().for_each(|(to, times)| writeln!(record, "{times:6} {to}").unwrap());
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-connections.txt"), &record).unwrap();
    let folders = [temporary.to_str().unwrap(), "/dev/shm/keyward-demo."];
    assert_eq!(strangers(&seen, &[host, gateway], &folders), [""; 0], "\n{record}");
    assert!(seen.contains_key(&format!("ip {host}")), "the exchanges are seen:\n{record}");
    assert!(seen.contains_key(&format!("ip {gateway}")), "the calls of the child are seen:\n{record}");
    assert!(seen.keys().any(|to| to.ends_with("/broker.sock")), "the broker is seen:\n{record}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the demo leaves files");
}
