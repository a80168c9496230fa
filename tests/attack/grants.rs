//! What a person allowed, used for something else: from inside of a run, again, by another program, elsewhere, later.

use crate::{Kept, api, beside, is_root, operator, peer, waiting};
use keyward_testkit::{Answer, Home, PASSPHRASE, Talk, Wire, ask, run, wait_at_most, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HELD: &str = "v4lue-that-is-held";
const OTHER: &str = "v4lue-of-the-other";

/// A vault with the profiles `held` and `other`, and the passphrase in a file.
fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("held", HELD, "HELD");
    home.static_profile("other", OTHER, "OTHER");
    std::fs::write(home.root.join("passphrase"), PASSPHRASE).unwrap();
    home
}

/// A copy of a program in the home.
fn tool(home: &Home, of: &str) -> PathBuf {
    let path = home.root.join("tool");
    std::fs::copy(of, &path).unwrap();
    path
}

/// The code of the refusal of an answer on the connection of an operator; `null` where it was taken.
#[track_caller]
fn answer(wire: &mut Wire, id: &Value, digest: &Value, decision: &str) -> Value {
    let body = json!({"digest": digest, "decision": decision}).to_string();
    wire.send("POST", &format!("/v1/approvals/{}", id.as_str().unwrap()), &[], body.as_bytes());
    wire.reply().unwrap().json()["code"].clone()
}

/// A request for a run of `held`.
fn request(program: &Path, project: &Path) -> Value {
    json!({
        "profiles": ["held"], "variables": [],
        "command": {"path": program.display().to_string(), "args": [], "project": project.display().to_string()},
    })
}

#[test]
fn a_run_answers_no_request_of_its_own_and_makes_no_grant_with_the_passphrase() {
    let home = home();
    let mut inside = Talk::start(home.keyward_command(&["run", "-p", "held", "--", "sh"]));
    let mut says = |line: &str| ask(&mut inside, &format!("{line} >out 2>&1; echo $?; cat out >>all"));
    let out = || std::fs::read_to_string(home.root.join("out")).unwrap();
    assert_eq!(says("keyward token other"), "4");
    assert!(out().contains("[approval.needed]"), "{}", out());
    let card = waiting(&home).remove(0);
    assert_eq!(
        (&card["outer_run"], &card["outer_app"]),
        (&home.keyward(&["ps", "--json"]).json()[0]["run"], &"sh".into())
    );
    let grant = home.grant(&["--profile", "other"])["grant"].as_str().unwrap().to_owned();
    let (id, digest) = (card["id"].as_str().unwrap(), &card["digest"]);

    for line in [
        format!("approve {id} --passphrase-stdin"),
        format!("approve {id} --run --passphrase-stdin"),
        format!("deny {id}"),
        "approvals".to_owned(),
        "grant list".to_owned(),
        "grant add --profile other --passphrase-stdin".to_owned(),
        format!("grant edit {grant} --uses 9 --passphrase-stdin"),
        format!("grant revoke {grant}"),
    ] {
        assert_eq!(says(&format!("keyward {line} <passphrase")), "4", "{line}");
        assert!(out().contains("[policy.denied]"), "{line}: {}", out());
    }
    // What the desktop sends, sent by somebody else.
    let proof = json!({"passphrase": PASSPHRASE});
    let with_proof = json!({"profile": "other", "proof": proof});
    let (peer, socket) = (peer(&home), home.socket());
    for (method, path, body) in [
        ("POST", format!("/v1/approvals/{id}"), json!({"digest": digest, "decision": "once", "proof": proof})),
        ("POST", format!("/v1/approvals/{id}"), json!({"digest": digest, "decision": "deny"})),
        ("GET", "/v1/approvals".to_owned(), Value::Null),
        ("GET", "/v1/grants".to_owned(), Value::Null),
        ("POST", "/v1/grants".to_owned(), with_proof.clone()),
        ("PUT", format!("/v1/grants/{grant}"), with_proof),
        ("DELETE", format!("/v1/grants/{grant}"), Value::Null),
        ("POST", "/v1/operator".to_owned(), proof.clone()),
        ("POST", "/v1/secrets/other/reveal".to_owned(), proof),
    ] {
        let (peer, socket) = (peer.display(), socket.display());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        assert_eq!(says(&format!("{peer} ask {socket} 1 {method} {path} '{body}'")), "0");
        assert!(out().starts_with("403 1\n") && out().contains("policy.denied"), "{method} {path}: {}", out());
    }
    // A standing grant is no way around the run.
    assert_eq!(says("keyward token other"), "4");
    let waits = waiting(&home);
    assert_eq!((waits.len(), &waits[0]["id"]), (1, &card["id"]), "it still waits: {waits:?}");
    let kinds = home.audit_kinds();
    for (kind, times) in [
        ("approval.answered", 0),
        ("operator.proven", 0),
        ("grant.added", 1),
        ("grant.changed", 0),
        ("grant.revoked", 0),
    ] {
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), times, "{kind}");
    }
    assert!(!std::fs::read_to_string(home.root.join("all")).unwrap().contains(OTHER));
    // The person can.
    home.keyward_in(&["approve", id, "--passphrase-stdin"], PASSPHRASE).exits(0);
    assert_eq!(says("keyward token other"), "0");
    assert_eq!(out().trim_end(), OTHER);
    assert_eq!(says("keyward token other"), "4", "once is once");
}

#[test]
fn an_answer_is_good_for_what_was_shown_and_for_one_time() {
    let home = home();
    let mut shell = Talk::start(home.command("sh"));
    let mut says = |word: &str| ask(&mut shell, &format!("keyward run -p held -- echo {word} 2>err || echo $?"));
    let mut person = operator(&home);
    assert_eq!(says("one"), "125");
    let first = waiting(&home).remove(0);
    // The same asker asks for something else: what a person may be reading is withdrawn.
    assert_eq!(says("two"), "125");
    let cards = waiting(&home);
    assert_eq!(cards.len(), 1, "{cards:?}");
    let second = &cards[0];
    assert!(first["id"] != second["id"] && first["digest"] != second["digest"], "{first} {second}");
    assert_eq!(answer(&mut person, &first["id"], &first["digest"], "once"), "approval.over");
    assert_eq!(answer(&mut person, &first["id"], &second["digest"], "once"), "approval.over");
    assert_eq!(answer(&mut person, &second["id"], &first["digest"], "once"), "approval.changed");
    assert_eq!(answer(&mut person, &second["id"], &first["digest"], "deny"), "approval.changed");
    wait_for("the time to read it", || match answer(&mut person, &second["id"], &second["digest"], "once") {
        Value::Null => true,
        code => {
            assert_eq!(code, "approval.too_early");
            false
        }
    });
    assert_eq!(answer(&mut person, &second["id"], &second["digest"], "once"), "approval.over");
    // The first one again has the same digest, and is another request.
    assert_eq!(says("one"), "125");
    let third = waiting(&home).remove(0);
    assert_eq!(third["digest"], first["digest"]);
    assert_ne!(third["id"], first["id"]);
    assert_eq!(answer(&mut person, &first["id"], &first["digest"], "once"), "approval.over");
    assert_eq!(answer(&mut person, &second["id"], &third["digest"], "once"), "approval.over");
    // What was allowed is one run of what was shown.
    assert_eq!(says("two"), "two");
    assert_eq!(says("two"), "125");
    let asked = home.audit_kinds().iter().filter(|kind| *kind == "approval.answered").count();
    assert_eq!(asked, 1);
}

#[test]
fn nobody_allows_within_eight_tenths_of_a_second() {
    let home = home();
    let mut person = operator(&home);
    let mut early = 0;
    // A machine that is busy may take longer until the first answer: then it is asked again.
    for n in 0..20 {
        beside(&home, &format!("keyward run -p held -- echo {n}")).exits(125);
        let card = waiting(&home).remove(0);
        let asked: String = card["changed_at"].as_str().unwrap().to_owned();
        wait_for("an answer that is taken", || {
            let code = answer(&mut person, &card["id"], &card["digest"], "once");
            early += u32::from(code == "approval.too_early");
            code.is_null()
        });
        let answered = home.audit().into_iter().rfind(|e| e["kind"] == "approval.answered").unwrap();
        let took = micros(answered["at"].as_str().unwrap()) - micros(&asked);
        assert!(took >= 800_000, "{took} µs from {asked} to {answered}");
        if early > 0 {
            return;
        }
    }
    panic!("no answer was too early");
}

/// Microseconds of the day that a time in UTC ends with.
#[track_caller]
fn micros(at: &str) -> i64 {
    let clock = at.split_once('T').unwrap().1.trim_end_matches('Z');
    let seconds = clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap());
    (seconds * 1e6).round() as i64
}

#[test]
fn a_grant_for_a_program_ends_when_its_file_is_another_one() {
    let home = home();
    let tool = tool(&home, "/usr/bin/printenv");
    let allow = || home.grant(&["--profile", "held", "--app", tool.to_str().unwrap()]);
    let gets = || beside(&home, "keyward run -p held -- $HOME/tool HELD");
    let refused = |how: &str| {
        let answer = gets();
        assert!(answer.exit == 125 && answer.err.contains("[approval.needed]"), "{how}: {answer:?}");
    };
    allow();
    assert_eq!(gets().exits(0).out, format!("{HELD}\n"));
    let program = std::fs::read(&tool).unwrap();
    // The same bytes, with the time of the old ones.
    let rewrite = "touch -r tool time && cat tool >copy && cat copy >tool && touch -r time tool";
    beside(&home, rewrite).exits(0);
    assert_eq!(std::fs::read(&tool).unwrap(), program);
    refused("rewritten in place");
    allow();
    gets().exits(0);
    beside(&home, "cp -p tool copy && mv copy tool").exits(0);
    refused("replaced");
    allow();
    gets().exits(0);
    beside(&home, "mv tool real && ln -s /usr/bin/printenv tool").exits(0);
    refused("a link to another program");
    beside(&home, "rm tool && mv real tool").exits(0);
    refused("taken away and put back");
    // Another path of the very file is another program.
    allow();
    beside(&home, "keyward run -p held -- /usr/bin/printenv HELD").exits(125).says("approval.needed");
}

#[test]
fn who_names_a_program_that_has_a_grant_and_becomes_another_one_is_found_out() {
    let home = home();
    let tool = tool(&home, "/usr/bin/cat");
    home.grant(&["--profile", "held", "--app", tool.to_str().unwrap()]);
    let body = request(&tool, &home.root).to_string();
    let (peer, socket) = (peer(&home), home.socket());
    let mut liar = home.command("sh");
    // It ends with its standard input.
    liar.args([
        "-c",
        "\"$@\"; exit $?",
        "sh",
        peer.to_str().unwrap(),
        "become",
        socket.to_str().unwrap(),
        &body,
        "cat",
    ]);
    let liar = Kept::start(liar);
    let mut lease = Value::Null;
    wait_for("what it holds to be taken back", || {
        let run = home.keyward(&["ps", "--json"]).json()[0].clone();
        lease = run["leases"][0].clone();
        run["app_verified"] == false && lease["state"] == "revoked"
    });
    let alarms = || home.audit().into_iter().filter(|e| e["detail"]["alarm"].is_string()).collect::<Vec<_>>();
    wait_for("the alarm", || !alarms().is_empty());
    assert_eq!(alarms()[0]["lease"], lease["lease"], "{:?}", alarms());
    drop(liar);
    // The program that was allowed is none of this.
    let mut honest = home.command("sh");
    honest.args(["-c", "keyward run -p held -- $HOME/tool; exit $?"]);
    let honest = Kept::start(honest);
    wait_for("the run", || {
        let runs = home.keyward(&["ps", "--json"]).json();
        runs.as_array().unwrap().iter().any(|r| r["app_verified"] == true && r["leases"][0]["state"] == "live")
    });
    assert_eq!(alarms().len(), 1);
    home.keyward(&["lock"]).exits(0);
    drop(honest);
}

#[test]
fn a_program_that_is_swapped_while_a_person_reads_gets_nothing() {
    let home = home();
    let tool = tool(&home, "/usr/bin/cat");
    let mut asks = home.command("sh");
    asks.args(["-c", "keyward run -p held --wait -- \"$0\"; exit $?"]).arg(&tool);
    let mut asks = Kept::start(asks);
    let mut cards = Vec::new();
    wait_for("the request", || {
        cards = waiting(&home);
        !cards.is_empty()
    });
    // Another program, which would wait for its input, too.
    beside(&home, "cp /usr/bin/tee copy && mv copy tool").exits(0);
    home.keyward_in(&["approve", cards[0]["id"].as_str().unwrap(), "--passphrase-stdin"], PASSPHRASE).exits(0);
    let mut ended = None;
    wait_for("the end of the request", || {
        ended = asks.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(125));
    assert!(home.audit_kinds().iter().all(|kind| kind != "credential.delivered"));
}

#[test]
fn a_grant_for_a_program_gives_no_token_to_whoever_becomes_it() {
    let home = home();
    let tool = tool(&home, "/usr/bin/sleep");
    home.grant(&["--profile", "held", "--app", tool.to_str().unwrap()]);
    // The parent of the helper is the program of the grant by the time that anybody looks; the pipe is somebody else's.
    beside(&home, "sh -c '(sleep 0.3; exec keyward token held >out 2>&1) & exec ./tool 1'; wait").exits(0);
    let said = || std::fs::read_to_string(home.root.join("out")).unwrap_or_default();
    wait_for("the answer", || said().ends_with('\n'));
    assert!(said().contains("[approval.needed]") && !said().contains(HELD), "{}", said());
}

#[test]
fn a_grant_for_a_launcher_is_for_its_program_and_for_no_other_file_of_the_name() {
    let home = home();
    // The command line stores the whole path; others may store the bare name, which is looked up where the caller says.
    let launcher = json!({"name": "tool", "command": ["printenv", "HELD"], "profiles": ["held"]});
    assert_eq!(api(&home, "POST", "/v1/launchers", &launcher), Value::Null);
    home.grant(&["--profile", "held", "--launcher", "tool"]);
    assert_eq!(beside(&home, "keyward launch tool").exits(0).out, format!("{HELD}\n"));
    let fake = home.root.join("fake");
    std::fs::create_dir(&fake).unwrap();
    std::fs::copy("/bin/sh", fake.join("printenv")).unwrap();
    std::fs::write(home.root.join("HELD"), "echo stolen $HELD").unwrap();
    let stolen = beside(&home, "PATH=$HOME/fake:$PATH keyward launch tool");
    assert!(stolen.exit == 125 && stolen.err.contains("[approval.needed]"), "{stolen:?}");
    let delivered = home.audit_kinds().iter().filter(|kind| *kind == "credential.delivered").count();
    assert_eq!(delivered, 1);
}

#[test]
fn a_grant_for_a_project_holds_in_the_folder_itself_and_nowhere_that_leads_there() {
    let home = home();
    let (shop, evil) = (home.root.join("shop"), home.root.join("evil"));
    for folder in [&shop, &evil] {
        std::fs::create_dir_all(folder.join(".git")).unwrap();
    }
    home.grant(&["--profile", "held", "--project", shop.to_str().unwrap()]);
    let gets = |folder: &str| beside(&home, &format!("cd {folder} && keyward run -p held -- printenv HELD"));
    let refused = |answer: Answer| answer.exits(125).says("approval.needed");
    assert_eq!(gets("shop").exits(0).out, format!("{HELD}\n"));
    refused(gets("evil"));
    refused(gets("."));
    // Whoever says to be in the project and is not.
    let claims = || {
        let mut claim = home.command("sh");
        let body = request(Path::new("/usr/bin/printenv"), &shop).to_string();
        claim.current_dir(&evil).args(["-c", "\"$@\"; exit $?", "sh"]).arg(peer(&home)).arg("ask").arg(home.socket());
        let said = run(
            {
                claim.args(["1", "POST", "/v1/runs", &body]);
                claim
            },
            b"",
        )
        .exits(0)
        .out;
        assert!(said.starts_with("403 1\n") && said.contains("approval.needed"), "{said}");
    };
    claims();
    refused(beside(&home, "cd evil && PWD=$HOME/shop keyward run -p held -- printenv HELD"));
    // A link in the place of the folder.
    std::fs::rename(&shop, home.root.join("away")).unwrap();
    std::os::unix::fs::symlink(&evil, &shop).unwrap();
    refused(gets("shop"));
    claims();
    // A link into a folder is a way there; the folder above decides nothing.
    std::fs::remove_file(&shop).unwrap();
    std::fs::rename(home.root.join("away"), &shop).unwrap();
    std::os::unix::fs::symlink(&shop, evil.join("link")).unwrap();
    gets("evil/link").exits(0);
    std::os::unix::fs::symlink(evil.join(".git"), home.root.join(".git")).unwrap();
    gets("shop").exits(0);
}

#[test]
fn a_grant_is_over_after_its_time_whatever_ended_meanwhile() {
    if !is_root("grants::a_grant_is_over_after_its_time_whatever_ended_meanwhile") {
        return;
    }
    let home = home();
    home.grant(&["--profile", "held", "--for", "1h"]);
    let gets = || beside(&home, "keyward token held");
    gets().exits(0);
    // A broker whose clock since boot is that much later.
    let restart = |later: &str| {
        home.stop_broker();
        let mut unlock = home.command("unshare");
        unlock.args(["--time", "--boottime", later, "keyward", "unlock", "--passphrase-stdin"]);
        run(unlock, PASSPHRASE.as_bytes()).exits(0);
    };
    for later in ["0", "1800"] {
        restart(later);
        gets().exits(0);
    }
    restart("3700");
    gets().exits(4).says("approval.needed");
    assert_eq!(home.keyward(&["grant", "list", "--json"]).exits(0).json(), json!([]));
    assert!(home.audit_kinds().iter().any(|kind| kind == "grant.expired"));
    // Back at the time of before it stays over.
    restart("0");
    gets().exits(4).says("approval.needed");
}

/// What runs as PID 1 of a namespace of its own: unlocks, and asks in several ways. Then a shell below it unlocks and ends,
/// and another one gets its number.
const FIRST: &str = r#"
keyward init --passphrase-stdin <passphrase || exit 9
echo v4lue | keyward secret set held
keyward profile add held --from held.toml || exit 8
keyward status --json >first
keyward run -p held -- true 2>first.err; echo $? >first.code
( setsid sh -c 'sleep 0.2; keyward status --json >orphan; keyward token held >orphan.out 2>&1; touch orphan.done' & )
until [ -e orphan.done ]; do sleep 0.05; done
setsid sh unlock.sh
n=$(cat number)
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  echo $((n - 1)) >/proc/sys/kernel/ns_last_pid
  sh reuse.sh
  [ -e reused ] && break
done
exit 0
"#;

#[test]
fn pid_1_and_a_number_that_is_used_again_are_no_shell_that_unlocked() {
    if !is_root("grants::pid_1_and_a_number_that_is_used_again_are_no_shell_that_unlocked") {
        return;
    }
    let home = Home::new();
    let write = |name: &str, text: &str| std::fs::write(home.root.join(name), text).unwrap();
    write("passphrase", PASSPHRASE);
    write(
        "held.toml",
        "[issuer]\nkind = \"static\"\nsecret = \"secret:held\"\n[delivery]\nenv = { HELD = \"token\" }\n",
    );
    write("first.sh", FIRST);
    write(
        "unlock.sh",
        "echo $$ >number\nkeyward unlock --passphrase-stdin <passphrase\nkeyward status --json >shell\n:\n",
    );
    write("reuse.sh", "[ $$ = \"$(cat number)\" ] || exit 0\nkeyward status --json >reused\n:\n");
    let mut first = home.command("unshare");
    first.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "first.sh"]);
    run(first, b"").exits(0);
    let read = |name: &str| std::fs::read_to_string(home.root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let role = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap()["me"]["role"].clone();
    assert_eq!(role("first"), "requester", "PID 1 is the parent of every orphan");
    assert!(read("first.code") == "125\n" && read("first.err").contains("[approval.needed]"), "{}", read("first.err"));
    assert_eq!(role("orphan"), "requester");
    assert!(read("orphan.out").contains("[approval.needed]"), "{}", read("orphan.out"));
    assert_eq!(role("shell"), "shell", "so that the next one means something");
    assert_eq!(role("reused"), "requester", "the same number, another process");
}

#[test]
fn what_was_allowed_to_a_requester_is_taken_back_at_once() {
    let home = home();
    home.grant(&["--profile", "held"]);
    let mut held = home.command("sh");
    held.args(["-c", "keyward run -p held -- cat; exit $?"]);
    let held = Kept::start(held);
    let lease = || home.keyward(&["ps", "--json"]).json()[0]["leases"][0].clone();
    wait_at_most(Duration::from_secs(10), "the run", || lease()["state"] == "live");
    let grant = home.keyward(&["grant", "list", "--json"]).json()[0]["grant"].as_str().unwrap().to_owned();
    // Taking away needs no proof, nor a person: a requester may, too.
    assert_eq!(api(&home, "DELETE", &format!("/v1/grants/{grant}"), &Value::Null), Value::Null);
    assert_eq!(lease()["state"], "revoked");
    beside(&home, "keyward run -p held -- true").exits(125).says("approval.needed");
    // A changed profile takes its grants with it: a yes was for where the credential went.
    home.grant(&["--profile", "held"]);
    beside(&home, "keyward token held").exits(0);
    let edit = "[issuer]\nkind = \"command\"\nargv = [\"/bin/echo\", \"x\"]\n[delivery]\nmode = \"env\"\nenv = { HELD = \"token\" }\n";
    std::fs::write(home.root.join("edit.toml"), edit).unwrap();
    home.keyward_in(&["profile", "edit", "held", "--from", "edit.toml", "--passphrase-stdin"], PASSPHRASE).exits(0);
    beside(&home, "keyward token held").exits(4).says("approval.needed");
    home.keyward(&["lock"]).exits(0);
    drop(held);
}
