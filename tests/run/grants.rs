//! What a program gets that no person started from the shell that unlocked: nothing without a grant or an answer.
//!
//! The test process makes the vault, so that its direct children are those of the shell that unlocked; what a shell below it
//! starts is a requester.

use crate::{entries, ps};
use keyward_testkit::{Answer, Home, PASSPHRASE, Talk, Wire, ask, run, wait_for};
use serde_json::Value;

fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret-of-p", "T");
    home.static_profile("q", "s3cret-of-q", "U");
    home
}

/// Runs `keyward` below a shell of its own.
fn requester(home: &Home, line: &str) -> Answer {
    let mut command = home.command("sh");
    command.args(["-c", &format!("keyward --json {line}; exit $?")]);
    run(command, b"")
}

/// The id in the command that a refusal names.
#[track_caller]
fn id_of(refused: &Answer) -> String {
    let said: Value = serde_json::from_str(refused.err.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {refused:?}"));
    assert_eq!(said["error"]["code"], "approval.needed", "{refused:?}");
    let causes = said["error"]["causes"].to_string();
    let (_, told) = causes.split_once("keyward approve ").unwrap_or_else(|| panic!("no command in {causes}"));
    told.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// The requests that wait.
#[track_caller]
fn waiting(home: &Home) -> Vec<Value> {
    home.keyward(&["approvals", "--json"]).exits(0).json().as_array().unwrap().clone()
}

/// The only request that waits, once it does.
#[track_caller]
fn card(home: &Home) -> Value {
    let mut found = Vec::new();
    wait_for("a request that waits", || {
        found = waiting(home);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The request that was made last of those that wait.
#[track_caller]
fn newest(home: &Home) -> Value {
    waiting(home).into_iter().max_by_key(|card| card["asked_at"].to_string()).unwrap()
}

#[track_caller]
fn approve(home: &Home, card: &Value, how: &[&str]) {
    let id = card["id"].as_str().unwrap();
    let args = [&["approve", id, "--passphrase-stdin"], how].concat();
    home.keyward_in(&args, PASSPHRASE).exits(0);
}

#[track_caller]
fn grant(home: &Home, args: &[&str]) -> Value {
    let args = [&["grant", "add", "--json", "--passphrase-stdin"], args].concat();
    home.keyward_in(&args, PASSPHRASE).exits(0).json()
}

/// The grants as they are listed.
#[track_caller]
fn grants(home: &Home) -> Vec<Value> {
    home.keyward(&["grant", "list", "--json"]).exits(0).json().as_array().unwrap().clone()
}

const PRINT: &str = "run -p p -- printenv T";

#[test]
fn the_shell_that_unlocked_goes_without_asking_and_what_it_starts_does_not() {
    let home = home();
    assert_eq!(home.keyward(&["run", "-p", "p", "--", "printenv", "T"]).exits(0).out, "s3cret-of-p\n");
    assert_eq!(home.keyward(&["token", "p"]).exits(0).out, "s3cret-of-p\n");
    let asked = requester(&home, PRINT).exits(125);
    assert!(!asked.err.contains("s3cret") && asked.out.is_empty(), "{asked:?}");
    let shown = card(&home);
    assert_eq!((shown["id"].as_str().unwrap(), &shown["kind"]), (id_of(&asked).as_str(), &"run".into()));
    assert!(shown["program"].as_str().unwrap().ends_with("/printenv"), "{shown}");
    assert_eq!((&shown["wanted"][0]["profile"], &shown["wanted"][0]["delivery"]), (&"p".into(), &"env".into()));
    let token = requester(&home, "token q --reason 'for a test'").exits(4);
    let id = id_of(&token);
    let token = waiting(&home).into_iter().find(|card| card["id"] == id.as_str()).unwrap();
    assert_eq!((&token["kind"], &token["reason"]), (&"token".into(), &"for a test".into()));
    assert!(token["said"].to_string().contains("reason"), "{token}");
    assert!(ps(&home).is_empty() && entries(&home, "approval.asked").len() == 2);
    // The shell sees who it is, and a requester too.
    let status = |answer: Answer| answer.exits(0).json()["me"]["role"].clone();
    assert_eq!(status(home.keyward(&["status", "--json"])), "shell");
    assert_eq!(status(requester(&home, "status")), "requester");
    assert_eq!(home.keyward(&["status", "--json"]).json()["waiting"], 2);
}

#[test]
fn a_once_that_nobody_waited_for_counts_for_the_next_equal_request_alone() {
    let home = home();
    let mut shell = Talk::start(home.command("sh"));
    let mut says = |line: &str| ask(&mut shell, &format!("keyward {line} 2>err || echo $?"));
    let refused = || std::fs::read_to_string(home.root.join("err")).unwrap().contains("[approval.needed]");
    assert!(says(PRINT) == "125" && refused());
    let first = card(&home);
    approve(&home, &first, &[]);
    assert!(says("run -p q -- printenv U") == "125" && refused(), "another request");
    // An agent starts a shell for each command: whichever asks for the same gets the answer.
    assert_eq!(requester(&home, PRINT).exits(0).out.trim_end(), "s3cret-of-p");
    assert!(says(PRINT) == "125" && refused(), "once is once");
    let id = first["id"].as_str().unwrap();
    home.keyward_in(&["approve", id, "--passphrase-stdin"], PASSPHRASE).exits(1).says("approval.over");
    home.keyward_in(&["approve", "00000000", "--passphrase-stdin"], PASSPHRASE).exits(1).says("approval.unknown");
    assert_eq!(entries(&home, "approval.answered").len(), 1);
}

#[test]
fn a_kept_once_is_listed_with_the_app_that_asked() {
    let home = home();
    requester(&home, "token p").exits(4);
    let shown = card(&home);
    approve(&home, &shown, &[]);
    let kept = grants(&home);
    assert_eq!((kept.len(), &kept[0]["equal_to"], &kept[0]["span"]), (1, &shown["app"], &"once".into()), "{kept:?}");
    let listed = home.keyward(&["grant", "list"]).exits(0).out;
    let words = format!("{}, the equal request", shown["app"].as_str().unwrap());
    assert!(listed.contains(&words) && !listed.contains("any"), "{listed}");
}

#[test]
fn a_request_that_was_asked_anew_is_found_by_its_first_id() {
    let home = home();
    let mut shell = Talk::start(home.command("sh"));
    let mut says = |line: &str| ask(&mut shell, &format!("keyward {line} 2>err; echo $?"));
    assert_eq!(says("run -p p -- true one"), "125");
    let first = card(&home)["id"].as_str().unwrap().to_owned();
    assert_eq!((says("run -p p -- true two").as_str(), says("run -p p -- true three").as_str()), ("125", "125"));
    let last = card(&home)["id"].as_str().unwrap().to_owned();
    let refused = home.keyward_in(&["approve", &first, "--passphrase-stdin"], PASSPHRASE).exits(1);
    assert!(
        refused.err.contains("approval.over") && refused.err.contains(&format!("keyward approve {last}")),
        "{refused:?}"
    );
    let body = serde_json::json!({"digest": "0".repeat(64), "decision": "deny"}).to_string();
    let path = format!("/v1/approvals/{first}");
    let told = Wire::once(&home.socket(), "POST", &path, &[], body.as_bytes()).unwrap().json();
    assert!(told["code"] == "approval.over" && told.to_string().contains("took its place"), "{told}");
}

#[test]
fn the_plan_is_told_before_a_person_is_asked() {
    let home = home();
    for (json, words) in [("", "gives away"), ("--json ", "\"gives_away\":")] {
        let mut command = home.command("sh");
        command.args(["-c", &format!("keyward {json}run -p p --explain -- true; exit $?")]);
        let asked = run(command, b"").exits(125);
        let (plan, refused) = (asked.err.find(words), asked.err.find("approval.needed"));
        assert!(plan.is_some() && plan < refused, "{asked:?}");
    }
    let plain = home.keyward(&["run", "-p", "p", "--json", "--explain", "--", "printenv", "T"]).exits(0);
    assert_eq!(plain.out, "s3cret-of-p\n");
    let told: Value = serde_json::from_str(plain.err.trim_end()).unwrap_or_else(|e| panic!("{e}: {}", plain.err));
    assert_eq!((&told["plan"][0]["profile"], told.get("launcher")), (&"p".into(), None), "one line of JSON, once");
}

#[test]
fn whoever_waits_gets_the_answer() {
    let home = home();
    let start = |line: &str| {
        let mut command = home.command("sh");
        command.args(["-c", &format!("keyward --json {line}; echo ended $?")]);
        Talk::start(command)
    };
    let mut run = start("run -p p --wait -- printenv T");
    let shown = card(&home);
    home.keyward_in(&["approve", shown["id"].as_str().unwrap(), "--passphrase-stdin"], "not the passphrase").exits(1);
    assert_eq!(waiting(&home).len(), 1, "a wrong passphrase answers nothing");
    approve(&home, &shown, &[]);
    assert_eq!((run.line().as_str(), run.line().as_str()), ("s3cret-of-p", "ended 0"));
    let mut token = start("token q --wait");
    let shown = card(&home);
    home.keyward(&["deny", shown["id"].as_str().unwrap()]).exits(0);
    assert_eq!(token.line(), "ended 4");
    assert!(token.err().contains("approval.denied"), "{}", token.err());
    // The same is not shown again for a while.
    requester(&home, "token q").exits(4).says("approval.denied");
    assert!(waiting(&home).is_empty());
    // A requester that goes away takes its request with it. A request that waits from the first is a card when it waits.
    let mut gone = Wire::open(&home.socket());
    gone.send("POST", "/v1/token", &[], br#"{"profile":"p","wait":true}"#);
    card(&home);
    drop(gone);
    wait_for("the end of the request", || waiting(&home).is_empty());
    assert_eq!(entries(&home, "approval.withdrawn").len(), 1);
}

#[test]
fn a_grant_holds_for_what_it_names_and_for_so_many_times() {
    let home = home();
    let made = grant(&home, &["--profile", "p", "--for", "1h", "--app", "printenv", "--uses", "2"]);
    assert_eq!((&made["profile"], &made["uses_left"], &made["weakest"]), (&"p".into(), &2.into(), &"env".into()));
    requester(&home, "run -p p -- cat /dev/null").exits(125).says("approval.needed");
    requester(&home, "run -p q -- printenv U").exits(125).says("approval.needed");
    for _ in 0..2 {
        assert_eq!(requester(&home, PRINT).exits(0).out, "s3cret-of-p\n");
    }
    requester(&home, PRINT).exits(125).says("approval.needed");
    // What is used up is told for its hour, allows nothing, is not changed, and can be taken off the list.
    let id = made["grant"].as_str().unwrap();
    let listed = grants(&home);
    assert_eq!((listed.len(), &listed[0]["uses_left"], &listed[0]["allowed"]), (1, &0.into(), &2.into()));
    assert!(home.keyward(&["grant", "list"]).exits(0).out.contains("used up"));
    let edit = ["grant", "edit", id, "--uses", "5", "--passphrase-stdin"];
    home.keyward_in(&edit, PASSPHRASE).exits(1).says("grant.unknown");
    home.keyward(&["grant", "revoke", id]).exits(0);
    assert!(grants(&home).is_empty());
    home.keyward(&["grant", "revoke", id]).exits(1).says("grant.unknown");
    // The shell goes without, and uses none of it.
    let made = grant(&home, &["--profile", "q", "--for", "1h", "--uses", "1"]);
    home.keyward(&["run", "-p", "q", "--", "printenv", "U"]).exits(0);
    let listed = grants(&home).into_iter().find(|g| g["grant"] == made["grant"]).unwrap();
    assert_eq!((&listed["uses_left"], &listed["allowed"]), (&1.into(), &0.into()));
    assert_eq!(requester(&home, "token q").exits(0).json()["token"], "s3cret-of-q");
    requester(&home, "token q").exits(4).says("approval.needed");
}

#[test]
fn a_grant_is_listed_changed_and_taken_back() {
    let home = home();
    let folder = home.root.join("repo/sub");
    std::fs::create_dir_all(home.root.join("repo/.git")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let made = grant(&home, &["--profile", "p", "--project", "repo/sub", "--deliver", "file"]);
    let id = made["grant"].as_str().unwrap();
    let there = format!("cd {} && ", folder.display());
    let in_project = |line: &str| {
        let mut command = home.command("sh");
        command.args(["-c", &format!("{there}keyward --json {line}; exit $?")]);
        run(command, b"")
    };
    in_project(PRINT).exits(125).says("approval.needed");
    assert!(in_project("run -p p --deliver file -- printenv T").exits(0).out.contains('/'), "the path of a file");
    in_project("token p").exits(4).says("approval.needed");
    requester(&home, "run -p p --deliver file -- printenv T").exits(125).says("approval.needed");
    let listed = grants(&home);
    assert_eq!((listed.len(), &listed[0]["allowed"], &listed[0]["grant"]), (1, &1.into(), &id.into()));
    assert!(listed[0]["last_allowed_at"].is_string(), "{listed:?}");
    let edit = |args: &[&str]| {
        home.keyward_in(&[&["grant", "edit", id, "--json", "--passphrase-stdin"], args].concat(), PASSPHRASE)
    };
    edit(&["--deliver", "env", "--anywhere", "--for", "2h"]).exits(0);
    edit(&["--for", "25h"]).exits(2);
    assert_eq!(requester(&home, PRINT).exits(0).out, "s3cret-of-p\n");
    let text = home.keyward(&["grant", "list"]).exits(0).out;
    assert!(text.lines().count() == 2 && text.contains("anywhere"), "{text}");
    home.keyward(&["grant", "revoke", id]).exits(0);
    requester(&home, "token p").exits(4).says("approval.needed");
    assert!(grants(&home).is_empty());
    for kind in ["grant.added", "grant.changed", "grant.revoked"] {
        assert_eq!(entries(&home, kind).len(), 1, "{kind}");
    }
    grant(&home, &["--profile", "p"]);
    home.keyward(&["revoke", "--all"]).exits(0);
    assert!(grants(&home).is_empty(), "the panic button takes grants back too");
}

#[test]
fn only_a_person_makes_and_answers() {
    let home = home();
    for args in [&["grant", "add", "--profile", "p"][..], &["grant", "edit", "00000000", "--uses", "1"]] {
        let answer = home.keyward(args);
        assert!(matches!(answer.exit, 1 | 4), "{answer:?}");
    }
    let wrong = ["grant", "add", "--profile", "p", "--passphrase-stdin"];
    home.keyward_in(&wrong, "not the passphrase").exits(1).says("vault.wrong_passphrase");
    let interpreter = ["grant", "add", "--profile", "p", "--app", "sh", "--passphrase-stdin"];
    home.keyward_in(&interpreter, PASSPHRASE).exits(1).says("grant.invalid");
    home.keyward_in(&["grant", "add", "--profile", "p", "--for", "25h", "--passphrase-stdin"], PASSPHRASE).exits(2);
    let unknown = ["grant", "add", "--profile", "nobody", "--passphrase-stdin"];
    home.keyward_in(&unknown, PASSPHRASE).exits(1).says("profile.unknown");
    assert!(grants(&home).is_empty() && entries(&home, "grant.added").is_empty());
    // A requester with the passphrase is a person.
    let mut command = home.command("sh");
    command.args(["-c", "keyward grant add --profile p --passphrase-stdin; exit $?"]);
    run(command, PASSPHRASE.as_bytes()).exits(0);
    assert_eq!(requester(&home, "secret remove p").exit, 4, "it adds and never removes");
}

#[test]
fn what_is_wrong_is_told_before_anybody_types_a_passphrase() {
    let home = home();
    let file = home.root.join("p.toml");
    let file = file.to_str().unwrap();
    std::fs::write(
        file,
        "[issuer]\nkind = \"static\"\nsecret = \"secret:nobody\"\n[delivery]\nenv = { T = \"token\" }\n",
    )
    .unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["grant", "add", "--profile", "p", "--for", "48h"], "the longest is 24h"),
        (&["grant", "add", "--profile", "p", "--for", "30s"], "the shortest is 1m"),
        (&["grant", "add", "--profile", "p", "--app", "sh"], "grant.invalid"),
        (&["grant", "add", "--profile", "nobody"], "profile.unknown"),
        (&["grant", "add", "--profile", "p", "--deliver", "gateway"], "nothing says where its requests go"),
        (&["approve", "00000000", "--project", "--for", "48h"], "the longest is 24h"),
        (&["profile", "edit", "p", "--from", file], "secret.unknown"),
        (&["profile", "edit", "nobody", "--from", file], "profile.unknown"),
        (&["profile", "edit", "p", "--from", "/dev/null"], "profile.incomplete"),
        (&["vault", "restore", "/no/such/file", "--replace"], "/no/such/file"),
        (&["vault", "restore", "/tmp", "--replace"], "it is no file"),
        (&["run", "-p", "p", "--ttl", "0s", "--", "true"], "the shortest is 1s"),
    ];
    for (args, words) in cases {
        let argv = [&["keyward"], *args].concat();
        let answer = Talk::on_terminal(&home, &argv, &[]).end();
        assert!(answer.exit != 0 && answer.out.contains(words), "{args:?}: {}", answer.out);
        assert!(!answer.out.contains("assphrase"), "{args:?}: {}", answer.out);
    }
    // What the program cannot take is refused with it, and what it can is not.
    let gh = "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\nprovider = \"github\"\n";
    home.profile("gh", gh);
    crate::program(&home, "gh", "#!/bin/sh\n", "755");
    let of = |app: &str| {
        ["grant", "add", "--profile", "gh", "--deliver", "gateway", "--passphrase-stdin", "--app", app]
            .map(str::to_owned)
    };
    let add = |app: &str| {
        let args = of(app);
        home.keyward_in(&args.each_ref().map(String::as_str), PASSPHRASE)
    };
    add("./gh").exits(1).says("delivery.impossible");
    add("printenv").exits(0);
}

#[test]
fn a_grant_ends_when_what_it_was_given_for_is_another_one() {
    let home = home();
    home.secret("other", "s3cret-of-other");
    let toml = |secret: &str, more: &str| {
        format!(
            "{more}[issuer]\nkind = \"static\"\nsecret = \"secret:{secret}\"\n[delivery]\nenv = {{ T = \"token\" }}\n"
        )
    };
    let edit = |text: &str| {
        let file = home.root.join("edited.toml");
        std::fs::write(&file, text).unwrap();
        let args = ["profile", "edit", "p", "--from", file.to_str().unwrap(), "--passphrase-stdin"];
        home.keyward_in(&args, PASSPHRASE).exits(0).err
    };
    grant(&home, &["--profile", "p"]);
    grant(&home, &["--profile", "q"]);
    // What only shortens its leases leaves it.
    let said = edit(&(toml("p", "") + "[limits]\nmax_ttl = \"30m\"\n"));
    assert!(grants(&home).len() == 2 && !said.contains("ended"), "{said}");
    assert_eq!(requester(&home, PRINT).exits(0).out, "s3cret-of-p\n");
    grant(&home, &["--profile", "p", "--app", "printenv"]);
    let said = edit(&toml("other", ""));
    assert!(said.contains("2 grants of it ended"), "{said}");
    assert_eq!(grants(&home).iter().map(|g| g["profile"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), ["q"]);
    let why = entries(&home, "grant.revoked");
    assert!(why.len() == 2 && why.iter().all(|e| e["detail"]["why"].as_str().unwrap().contains("changed")), "{why:?}");
    // A request that was shown as the profile stood is withdrawn with it.
    requester(&home, PRINT).exits(125).says("approval.needed");
    let id = waiting(&home)[0]["id"].as_str().unwrap().to_owned();
    edit(&toml("p", ""));
    assert!(waiting(&home).is_empty(), "it was asked about the profile as it stood");
    home.keyward_in(&["approve", &id, "--passphrase-stdin"], PASSPHRASE).exits(1).says("approval.over");
    for changed in [toml("p", "confirm = true\n"), toml("p", "").replace("T =", "V =")] {
        edit(&toml("p", ""));
        grant(&home, &["--profile", "p"]);
        edit(&changed);
        assert_eq!(grants(&home).len(), 1, "{changed}");
    }
}

#[test]
fn a_job_in_the_background_is_told_at_once_and_never_stopped_by_a_question() {
    let home = home();
    // A shell with jobs gives each a process group of its own.
    let script = "set -m; keyward run -p p -- printenv T </dev/tty & wait $!; echo ended $?";
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
    let said = talk.until("ended ");
    assert_eq!(talk.line(), "125", "{said}");
    assert!(said.contains("approval.needed") && said.contains("keyward approve "), "{said}");
    assert!(!said.contains("assphrase for"), "{said}");
    // Nor does it touch the terminal where the proof was given.
    home.keyward(&["lock"]).exits(0);
    let file = home.root.join("proof");
    std::fs::write(&file, PASSPHRASE).unwrap();
    let script = "set -m; keyward unlock --passphrase-stdin <proof & wait $!; echo ended $?";
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
    let said = talk.until("ended ");
    assert_eq!(talk.line(), "0", "{said}");
    home.keyward(&["lock"]).exits(0);
    let script = "set -m; keyward run -p p -- printenv T & wait $!; echo ended $?";
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
    let said = talk.until("ended ");
    assert_eq!((talk.line().as_str(), said.contains("vault.locked")), ("125", true), "{said}");
}

#[test]
fn a_script_is_told_what_is_not_there_before_who_may_remove_it() {
    let home = home();
    for (line, code) in [
        ("profile remove nobody", "profile.unknown"),
        ("profile remove ../p", "name.invalid"),
        ("secret remove nobody", "secret.unknown"),
        ("launcher remove nobody", "launcher.unknown"),
    ] {
        requester(&home, line).exits(1).says(code);
    }
    for line in ["profile remove p", "secret remove p"] {
        requester(&home, line).exits(4).says("policy.denied");
    }
}

#[test]
fn inside_a_run_nothing_is_asked_for_on_a_new_terminal_and_no_passphrase_helps() {
    let home = home();
    let mut outer = Talk::on_terminal(&home, &["keyward", "run", "-p", "p", "--", "sh"], &[]);
    // The terminal shows what is typed, in which the word is followed by a quote.
    for line in ["secret reveal q", "grant add --profile q", "approve 00000000", "unlock"] {
        outer.send(format!("keyward --json {line}; echo \"code\" $?\r").as_bytes());
        let said = outer.until("code ");
        assert!(outer.line().starts_with('4'), "{line}: {said}");
        assert!(said.contains("policy.denied") && !said.contains("assphrase for"), "{line}: {said}");
    }
    for line in ["secret reveal q", "grant add --profile q"] {
        outer.send(
            format!("echo '{PASSPHRASE}' | keyward --json {line} --passphrase-stdin; echo \"code\" $?\r").as_bytes(),
        );
        let said = outer.until("code ");
        assert!(outer.line().starts_with('4') && !said.contains("s3cret"), "{line}: {said}");
    }
    // Asking for more makes a card that names the run, without a prompt.
    outer.send(b"keyward --json token q; echo \"code\" $?\r");
    let said = outer.until("code ");
    assert!(outer.line().starts_with('4') && !said.contains("assphrase for"), "{said}");
    assert!(card(&home)["outer_run"].is_string());
}

#[test]
fn on_a_terminal_the_question_is_answered_in_place_or_from_elsewhere() {
    let home = home();
    let start = || {
        let script = "trap : INT; keyward run -p p -- sh -c 'echo got $T'; echo ended $?; read -r x; echo left:$x:";
        let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
        let said = talk.until("Passphrase for the vault in ");
        assert!(said.contains("type the passphrase here to allow it once") && !said.contains("s3cret"), "{said}");
        talk
    };
    let mut talk = start();
    talk.send(b"not the passphrase\r");
    talk.until("try again");
    talk.until("Passphrase for the vault in ");
    talk.send(format!("{PASSPHRASE}\r").as_bytes());
    talk.until("got s3cret-of-p");
    talk.until("ended 0");
    let mut talk = start();
    talk.send(b"half of the pass");
    approve(&home, &card(&home), &[]);
    talk.until("got s3cret-of-p");
    talk.until("ended 0");
    talk.send(b"own\r");
    talk.until("left:own:");
    assert!(!talk.out().contains("half"), "{}", talk.out());
    // The key for it gives up.
    let mut talk = start();
    talk.send(b"half\x03");
    talk.until("ended 130");
    assert!(!talk.out().contains("half"), "{}", talk.out());
    drop(talk);
    let mut talk = start();
    home.keyward(&["deny", newest(&home)["id"].as_str().unwrap()]).exits(0);
    talk.until("approval.denied");
    talk.until("ended 125");
}

#[test]
fn a_profile_that_confirms_takes_the_passphrase_each_time() {
    let home = home();
    let toml = "confirm = true\n[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nmode = \"env\"\nenv = { C = \"token\" }\n";
    home.profile("careful", toml);
    // Without a terminal to type it on, a person is asked elsewhere, and proves it there.
    let asked = home.keyward(&["--json", "token", "careful"]).exits(4);
    let shown = card(&home);
    assert_eq!((shown["id"].as_str().unwrap(), &shown["confirm"]), (id_of(&asked).as_str(), &true.into()));
    let digest = serde_json::json!({"digest": shown["digest"], "decision": "once"}).to_string();
    let path = format!("/v1/approvals/{}", shown["id"].as_str().unwrap());
    let bare = Wire::once(&home.socket(), "POST", &path, &[], digest.as_bytes()).unwrap().json();
    assert_eq!(bare["code"], "passphrase.needed", "{bare}");
    approve(&home, &shown, &[]);
    assert_eq!(home.keyward(&["token", "careful"]).exits(0).out, "s3cret-of-p\n");
    home.keyward(&["token", "careful"]).exits(4).says("approval.needed");
    let mut run = Talk::start(home.keyward_command(&["run", "-p", "careful", "--wait", "--", "sh"]));
    wait_for("the request of the run", || waiting(&home).iter().any(|card| card["kind"] == "run"));
    approve(&home, &newest(&home), &[]);
    assert_eq!(ask(&mut run, "echo $C"), "s3cret-of-p");
    assert_eq!(
        ask(&mut run, "keyward run -p careful -- true 2>err; echo $?"),
        "125",
        "each use, inside of the run as well"
    );
    home.keyward_in(&["grant", "add", "--profile", "careful", "--passphrase-stdin"], PASSPHRASE).exits(1);
    for _ in 0..2 {
        // The direct child of the process that made the vault.
        let mut talk = Talk::on_terminal(&home, &["keyward", "token", "careful"], &[]);
        talk.until("Passphrase for the vault in ");
        talk.send(format!("{PASSPHRASE}\r").as_bytes());
        assert!(talk.end().exits(0).out.contains("s3cret-of-p"));
    }
}

#[test]
fn a_shell_in_a_run_is_asked_for_by_its_run() {
    let home = home();
    let mut child = crate::shell(&home, &["-p", "p"]);
    let told = ask(&mut child, "keyward --json run -p q -- printenv U 2>err; echo $?");
    assert_eq!(told, "125");
    let shown = card(&home);
    assert_eq!(shown["outer_run"], ps(&home)[0]["run"], "{shown}");
    assert_eq!(ask(&mut child, "keyward --json deny 00000000 2>err; echo $?"), "4");
    approve(&home, &shown, &[]);
    assert_eq!(ask(&mut child, "keyward run -p q -- printenv U 2>err"), "s3cret-of-q");
}
