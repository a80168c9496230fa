//! Floods: refusals that would fill the disk, derivations that would fill the memory, requests that would wear a person out.

use crate::{peer, waiting};
use keyward_testkit::{Home, PASSPHRASE, Wire, run, wait_at_most, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// A request for a run of a profile with an argument that makes it another one.
fn wants(profile: &str, argument: usize) -> Vec<u8> {
    let command = json!({"path": "/bin/echo", "args": [argument.to_string()], "project": "/"});
    json!({"profiles": [profile], "variables": [], "command": command}).to_string().into_bytes()
}

#[test]
fn a_thousand_requests_are_a_few_cards_and_keep_no_person_from_anything() {
    let home = Home::with_vault();
    for n in 0..6 {
        home.static_profile(&format!("p{n}"), "v4lue-of-each", "V");
    }
    let begin = Instant::now();
    let mut wire = Wire::open(&home.socket());
    let mut codes = BTreeMap::new();
    for n in 0..1000 {
        wire.send("POST", "/v1/runs", &[], &wants(&format!("p{}", n % 6), n));
        let code = wire.reply().unwrap().json()["code"].as_str().unwrap().to_owned();
        *codes.entry(code).or_insert(0) += 1;
    }
    assert_eq!(codes.keys().collect::<Vec<_>>(), ["approval.flood", "approval.needed"], "{codes:?}");
    assert_eq!(waiting(&home).len(), 4, "of one requester");
    // Nor are there more entries than a person could look at.
    let asked = || home.audit_kinds().iter().filter(|kind| *kind == "approval.asked").count();
    assert!(asked() <= 12 * (2 + usize::try_from(begin.elapsed().as_secs()).unwrap() / 12), "{} entries", asked());
    // Others ask as well, each from a shell of its own, and the first one at once.
    let others = |shell: usize| {
        let line: String = (0..6).map(|n| format!("keyward run -p p{n} -- echo {shell} 2>>said; ")).collect();
        let mut command = home.command("sh");
        command.args(["-c", &format!("{line}true")]);
        run(command, b"").exits(0);
        waiting(&home).len()
    };
    assert!(others(0) > 4, "one that floods keeps no other one from asking");
    let mut shell = 0;
    wait_at_most(Duration::from_secs(60), "as many as there can be", || {
        shell += 1;
        let waiting = others(shell);
        assert!(waiting <= 12, "the last places are kept: {waiting}");
        waiting == 12
    });
    let said = std::fs::read_to_string(home.root.join("said")).unwrap();
    assert!(said.contains("[approval.flood]"), "{said}");
    // The person's own runs, answers, locks and refusals need no place.
    home.keyward(&["run", "-p", "p0", "--", "true"]).exits(0);
    home.keyward(&["token", "p5"]).exits(0);
    let card = waiting(&home).remove(0);
    home.keyward_in(&["approve", card["id"].as_str().unwrap(), "--passphrase-stdin"], PASSPHRASE).exits(0);
    assert_eq!(waiting(&home).len(), 11);
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    assert_eq!(waiting(&home).len(), 0);
}

#[test]
fn after_a_no_nothing_is_shown_for_a_while_however_it_is_asked() {
    let home = Home::with_vault();
    home.static_profile("p", "v4lue-of-each", "V");
    home.static_profile("q", "v4lue-of-each", "W");
    let mut wire = Wire::open(&home.socket());
    let mut code = |body: &[u8]| {
        wire.send("POST", "/v1/runs", &[], body);
        wire.reply().unwrap().json()["code"].clone()
    };
    assert_eq!(code(&wants("p", 0)), "approval.needed");
    home.keyward(&["deny", waiting(&home)[0]["id"].as_str().unwrap()]).exits(0);
    for n in 0..200 {
        assert_eq!(code(&wants("p", n)), "approval.denied", "{n}");
    }
    assert!(waiting(&home).is_empty());
    // Another process of the same program and project is no way around, and another profile is another question.
    let mut other = home.command("sh");
    other.current_dir("/").args(["-c", "keyward run -p p -- /bin/echo 9; exit $?"]);
    run(other, b"").exits(125).says("approval.denied");
    assert_eq!(code(&wants("q", 0)), "approval.needed");
    let asked = home.audit_kinds().iter().filter(|kind| *kind == "approval.asked").count();
    assert_eq!(asked, 2);
}
