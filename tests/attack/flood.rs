//! Floods: refusals that would fill the disk, and derivations that would fill the memory.

use crate::peer;
use keyward_testkit::{Home, PASSPHRASE, run, wait_at_most, wait_for};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Peak of the resident memory of a process, in KiB.
fn peak_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn two_thousand_refusals_are_counted_in_a_handful_of_entries() {
    const TIMES: u64 = 2_000;
    let home = Home::with_vault();
    home.static_profile("held", "v4lue-that-the-run-holds", "HELD");
    let (peer, socket) = (peer(&home), home.socket());
    let (peer, socket) = (peer.to_str().unwrap(), socket.to_str().unwrap());
    let begin = Instant::now();
    let asked = home.keyward(&["run", "--", peer, "ask", socket, "2000", "GET", "/v1/secrets"]).exits(0);
    assert!(asked.out.starts_with("403 2000\n"), "{}", asked.out);
    let refused = || {
        let entries = home.audit();
        let refused: Vec<Value> = entries.into_iter().filter(|e| e["kind"] == "request.refused").collect();
        let counts = refused.iter().flat_map(|e| e["detail"]["refused"].as_array().cloned().unwrap_or_default());
        let counted: u64 = counts.filter_map(|c| c["count"].as_u64()).sum();
        (refused.len() as u64, counted)
    };
    wait_for("all refusals to be counted", || refused().1 >= TIMES);
    let (entries, counted) = refused();
    assert_eq!(counted, TIMES);
    // One a second at most, whatever is tried.
    let most = begin.elapsed().as_secs() + 2;
    assert!(entries <= most, "{entries} entries in {most} s");
}

#[test]
fn sixty_four_unlocks_at_once_take_the_memory_of_one() {
    let home = Home::with_vault();
    let worker = home.broker_pid().unwrap();
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    home.keyward(&["lock"]).exits(0);
    let slots: Value =
        serde_json::from_slice(&std::fs::read(home.keyward_home().join("data/vault.slots")).unwrap()).unwrap();
    let one_kib = slots["slots"][0]["kdf"]["m_kib"].as_u64().unwrap();
    let before = peak_kib(worker);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..64)
            .map(|n| {
                let home = &home;
                scope.spawn(move || {
                    let typed = if n % 2 == 0 { PASSPHRASE } else { "wr0ng passphrase, and long enough" };
                    home.keyward_in(&["unlock", "--passphrase-stdin"], typed)
                })
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, answer) in answers.iter().enumerate() {
        let allowed = [(0, ""), (1, "[vault.wrong_passphrase]"), (1, "[vault.unlock_wait]"), (6, "[broker.busy]")];
        let fits = allowed.iter().any(|(exit, code)| answer.exit == *exit && answer.err.contains(code));
        assert!(fits && (answer.exit != 0 || n % 2 == 0), "{n}: {answer:?}");
    }
    assert!(answers.iter().any(|a| a.exit == 6), "nobody was told that there is too much to do");
    assert_eq!(home.broker_pid(), Some(worker), "it did not crash");
    let peak = peak_kib(worker);
    assert!(peak < before.max(one_kib) + one_kib / 2, "{peak} KiB at most, {before} before, {one_kib} for one");
    wait_at_most(Duration::from_secs(60), "the right passphrase to be taken", || {
        home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exit == 0
    });
    let wrong = home.audit_kinds().iter().filter(|k| *k == "vault.unlock_failed").count();
    assert!((1..=32).contains(&wrong), "{wrong} entries of wrong passphrases");
}

#[test]
fn many_connections_of_one_process_leave_room_for_others() {
    let home = Home::with_vault();
    let socket = home.socket();
    let open: Vec<_> = (0..64).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let mut command = home.command(peer(&home));
    command.args(["ask", socket.to_str().unwrap(), "1", "GET", "/v1/status"]);
    assert!(run(command, b"").exits(0).out.starts_with("200 1\n"));
    drop(open);
}
