//! Whose connection it is.

use super::*;
use std::io::Write;
use std::os::unix::process::CommandExt;

/// A shell that reads commands, and is ended with the test.
struct Shell(Child);

impl Shell {
    fn new() -> Self {
        let shell = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self(shell.unwrap())
    }

    fn id(&self) -> ProcessId {
        process(self.0.id())
    }

    fn run(&mut self, command: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// What all commands print, with `exit` as the last of them.
    fn end(mut self) -> String {
        self.run("exit");
        let mut text = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut text).unwrap();
        text
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A gateway for a run whose root is the shell.
async fn bench(shell: &Shell, port: u16, containers: bool) -> Bench {
    let root = shell.id();
    let change = move |admitted: &mut Admitted| {
        admitted.root = root;
        admitted.containers = containers;
    };
    Bench::with(port, change, Connections::new()).await
}

/// A command that sends one request over a connection of its own and prints the answer, all in the shell itself.
fn asking(bench: &Bench, before: &str) -> String {
    let request = bench.request("GET /a", &["Connection: close"], "").replace("\r\n", "\\r\\n");
    let read = "while read -r line <&3; do echo \"$line\"; done";
    format!("exec 3<>/dev/tcp/127.0.0.1/{}; {before} printf '{request}' >&3; {read}; exec 3>&-", bench.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outside_of_the_run_is_refused_with_the_very_token_of_the_run() {
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let shell = Shell::new();
    let bench = bench(&shell, port, false).await;
    let mut client = bench.client().await;
    client.send(bench.request("GET /a", &[], "")).await;
    let answer = client.message().await.unwrap();
    assert_eq!((answer.status(), answer.field("x-keyward-code")), (403, Some("gateway.caller_outside")));
    assert_eq!(client.rest().await, b"", "the connection goes on");
    assert_eq!(bench.fake.denied().await.lease, Some(Uuid::from_u128(9)));
    assert!(came.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_may_let_containers_in() {
    let (server, port) = Server::new().await;
    let _came = server.answering(OK);
    let shell = Shell::new();
    let bench = bench(&shell, port, true).await;
    assert_eq!(bench.ask("GET /a", &[], "").await.status(), 200);
    let (began, _) = bench.fake.used().await;
    assert_eq!((began.caller, began.program), (Caller::Unknown, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_calls_is_named_be_it_the_root_or_below_it() {
    let (server, port) = Server::new().await;
    let _came = server.answering(OK);
    // The shell alone; one below it; the shell and a process that it gave the socket to.
    for (before, below, holders) in [("", false, 1), ("", true, 1), ("sleep 60 & LATE=$!;", false, 2)] {
        let mut shell = Shell::new();
        let bench = bench(&shell, port, false).await;
        let root = shell.id();
        let ask = asking(&bench, before);
        shell.run(&if below { format!("bash <<'END'\n{ask}\nEND") } else { ask });
        shell.run("kill $LATE 2>/dev/null; true");
        let text = tokio::task::spawn_blocking(move || shell.end()).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        let (began, _) = bench.fake.used().await;
        assert!(began.program.is_some_and(|program| program.ends_with("/bash")), "also of one that has ended since");
        match began.caller {
            Caller::Exact(who) if holders == 1 => assert_eq!(who == root, !below),
            Caller::OneOf(2, who) if holders == 2 => assert_eq!(who, root),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_root_is_gone_has_no_processes() {
    let shell = Shell::new();
    let bench = bench(&shell, 1, false).await;
    drop(shell);
    let answer = bench.ask("GET /a", &[], "").await;
    assert_eq!(answer.field("x-keyward-code"), Some("gateway.caller_outside"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_closed_without_a_word() {
    // Only root can become another user.
    if !rustix::process::geteuid().is_root() {
        // Told, so that nobody counts on it. `tests/gateway/stranger.rs` starts itself anew as root.
        std::io::Write::write_all(&mut std::io::stderr(), b"skipped: acting as two users takes root\n").unwrap();
        return;
    }
    let (server, port) = Server::new().await;
    let mut came = server.answering(OK);
    let bench = Bench::with(port, |admitted| admitted.containers = true, Connections::new()).await;
    let ask = asking(&bench, "");
    let stranger = tokio::task::spawn_blocking(move || Command::new("bash").args(["-c", &ask]).uid(65534).output());
    assert_eq!(stranger.await.unwrap().unwrap().stdout, b"");
    assert!(came.try_recv().is_err());
    assert!(bench.fake.told(0).await.is_empty());
}
