//! Exit codes and errors, and that nothing asks where nobody answers.

use crate::error;
use keyward_testkit::{Home, Talk, run, wait_for};
use serde_json::Value;

#[test]
fn exit_codes_are_those_of_the_table_in_words_and_in_json() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let bad = home.root.join("bad.toml");
    std::fs::write(&bad, "[issuer]\nkind = \"static\"\nsekret = \"secret:p\"\n").unwrap();
    let failing = "[issuer]\nkind = \"command\"\nargv = [\"/bin/false\"]\n[delivery]\nenv = { F = \"token\" }\n";
    home.profile("failing", failing);
    let torn = home.root.join("torn.jsonl");
    std::fs::write(&torn, "{}\n").unwrap();
    let key = format!("kwpub1:{}", "58".to_owned() + &"66".repeat(31));
    let (bad, torn) = (bad.display().to_string(), torn.display().to_string());
    let cases: &[(&[&str], i32, &str)] = &[
        (&["token", "nobody"], 1, "profile.unknown"),
        (&["profile", "show", "nobody"], 1, "profile.unknown"),
        (&["profile", "add", "p", "--secret", "p", "--env", "T"], 1, "profile.exists"),
        (&["profile", "add", "q", "--secret", "none", "--env", "T"], 1, "secret.unknown"),
        (&["profile", "add", "q", "--secret", "p", "--env", "LD_PRELOAD"], 1, "delivery.variable_refused"),
        (&["profile", "add", "q", "--from", &bad], 1, "profile.invalid"),
        (&["profile", "add", "q", "--from", "/no/such/file"], 1, "file.unreadable"),
        (&["profile", "add", "../q", "--secret", "p", "--env", "T"], 1, "name.invalid"),
        (&["secret", "remove", "p"], 1, "secret.in_use"),
        (&["secret", "remove", "none"], 1, "secret.unknown"),
        (&["secret", "set", "empty"], 1, "secret.invalid"),
        (&["revoke", "nobody"], 1, "run.unknown"),
        (&["audit", "show", "999999"], 1, "audit.unknown"),
        (&["audit", "list", "--kind", "nonsense"], 1, "request.invalid"),
        (&["init"], 1, "vault.exists"),
        (&["no-such-command"], 2, "usage"),
        (&["run"], 2, "usage"),
        (&["audit", "list", "--limit", "0"], 2, "usage"),
        (&["audit", "show", "x"], 2, "usage"),
        (&["profile", "add", "q", "--secret", "p", "--env", "A-B"], 1, "profile.invalid"),
        (&["man", "--dir", "/no/such/folder"], 1, "file.unreadable"),
        (&["audit", "verify", "--file", "x"], 2, "usage"),
        (&["approve", "7K2M9QXT"], 1, "approval.unknown"),
        (&["deny", "7K2M9QXT"], 1, "approval.unknown"),
        (&["grant", "revoke", "7K2M9QXT"], 1, "grant.unknown"),
        (&["grant", "add", "--profile", "p"], 4, "passphrase.needed"),
        (&["secret", "reveal", "p"], 4, "passphrase.needed"),
        (&["audit", "export"], 4, "passphrase.needed"),
        (&["vault", "rekey"], 4, "passphrase.needed"),
        (&["unlock"], 4, "passphrase.needed"),
        (&["token", "failing"], 6, "issuer.failed"),
        (&["run", "-p", "failing", "--", "true"], 125, "issuer.failed"),
        (&["run", "-p", "p", "--", "/etc/passwd"], 126, "run.not_executable"),
        (&["run", "-p", "p", "--", "no-such-program"], 127, "run.not_found"),
    ];
    for (args, exit, code) in cases {
        let said = error(&home, args, *exit);
        assert_eq!((&said["code"], &said["exit"]), (&(*code).into(), &(*exit).into()), "{args:?}");
        let texts = ["message", "help"].map(|f| said[f].as_str().is_some_and(|t| !t.is_empty()));
        assert!(texts == [true, true] && said["causes"].is_array(), "{said}");
        let words = home.keyward(args).exits(*exit);
        assert!(words.err.starts_with(&format!("error[{code}]: ")), "{args:?}: {}", words.err);
        assert!(words.err.contains("\n  help:  ") && !words.err.contains("s3cret"), "{}", words.err);
        assert!(!words.err.contains("in string"), "the words of a parser: {}", words.err);
    }
    let answer = home.keyward(&["--json", "audit", "verify", "--file", &torn, "--pubkey", &key]);
    assert!(answer.exit == 7 && answer.json()["ok"] == false, "{answer:?}");
    home.keyward(&["audit", "verify", "--file", &torn, "--pubkey", &key]).exits(7).says("audit.file_invalid");
    home.keyward(&["lock"]).exits(0);
    for args in
        [&["token", "p"][..], &["secret", "list"], &["profile", "list"], &["audit", "list"], &["audit", "verify"]]
    {
        assert_eq!(error(&home, args, 3)["code"], "vault.locked", "{args:?}");
    }
    assert_eq!(error(&home, &["run", "-p", "p", "--", "true"], 125)["code"], "vault.locked");
    for _ in 0..3 {
        let wrong = home.keyward_in(&["--json", "unlock", "--passphrase-stdin"], "not the passphrase").exits(1);
        assert!(wrong.err.contains("vault.wrong_passphrase") && !wrong.err.contains("not the"), "{}", wrong.err);
    }
    let again = home.keyward_in(&["unlock", "--passphrase-stdin"], keyward_testkit::PASSPHRASE);
    again.exits(1).says("vault.unlock_wait");
    wait_for("the pause after wrong passphrases", || {
        home.keyward_in(&["unlock", "--passphrase-stdin"], keyward_testkit::PASSPHRASE).exit == 0
    });
}

#[test]
fn a_broker_that_cannot_be_had_is_5() {
    let home = Home::new();
    std::fs::remove_file(home.bin().join("keyward-broker")).unwrap();
    for args in [&["profile", "kinds"][..], &["audit", "list"], &["unlock", "--keyring"], &["broker", "restart"]] {
        assert_eq!(error(&home, args, 5)["code"], "broker.start", "{args:?}");
    }
    let absent = error(&home, &["run", "--", "true"], 125);
    assert_eq!(
        (&absent["code"], &absent["help"]),
        (&"broker.start".into(), &"put keyward-broker beside keyward".into())
    );
    // What needs none still works.
    for args in
        [&["status"][..], &["ps"], &["lock"], &["broker", "stop"], &["man"], &["completion", "bash"], &["--help"]]
    {
        home.keyward(args).exits(0);
    }
}

#[test]
fn nothing_asks_without_a_terminal_or_when_it_must_not() {
    let home = Home::new();
    assert_eq!(error(&home, &["init"], 4)["code"], "passphrase.needed");
    home.init();
    home.static_profile("p", "s3cret", "T");
    home.keyward(&["lock"]).exits(0);
    let on_terminal = |args: &[&str]| {
        let argv = [&["keyward", "--no-input"], args].concat();
        let answer = Talk::on_terminal(&home, &argv, &[]).end();
        assert!(!answer.out.contains("assphrase for") && !answer.out.contains("Secret "), "{}", answer.out);
        (answer.exit, answer.out.contains("vault.locked"))
    };
    for (args, exit) in [
        (&["unlock"][..], 4),
        (&["secret", "set", "x"], 1),
        (&["secret", "list"], 3),
        (&["run", "-p", "p", "--", "true"], 125),
        (&["vault", "rekey"], 4),
    ] {
        let piped = home.keyward(args);
        assert_eq!(on_terminal(args).0, exit, "{args:?}");
        assert!(piped.exit == exit || args[0] == "secret", "{args:?}: {piped:?}");
    }
    // A terminal that is only reached through /dev/tty is nobody's to be asked on.
    let hidden = ["sh", "-c", "keyward secret list </dev/null 2>err >out; echo $?; cat err"];
    let answer = Talk::on_terminal(&home, &hidden, &[]).end();
    assert!(answer.out.starts_with('3') && answer.out.contains("vault.locked"), "{}", answer.out);
}

#[test]
fn words_of_the_command_line_that_may_be_secrets_are_not_repeated() {
    let home = Home::with_vault();
    for args in [
        &["secret", "set", "name", "hunter2"][..],
        &["secret", "set", "name", "--value", "hunter2"],
        &["secret", "set", "name", "--value=hunter2"],
        &["unlock", "hunter2"],
        &["unlock", "--passphrase", "hunter2"],
        &["unlock", "--passphrase=hunter2"],
        &["init", "hunter2"],
        &["token", "p", "hunter2"],
    ] {
        for json in [&[][..], &["--json"]] {
            let answer = home.keyward(&[json, args].concat()).exits(2);
            assert!(!answer.err.contains("hunter2") && !answer.out.contains("hunter2"), "{args:?}: {answer:?}");
        }
    }
    let log = serde_json::to_string(&home.audit()).unwrap();
    assert!(!log.contains("hunter2"));
}

#[test]
fn secrets_are_taken_from_input_to_the_byte() {
    let home = Home::with_vault();
    let reveal = |name: &str| {
        home.keyward_in(&["secret", "reveal", name, "--passphrase-stdin"], keyward_testkit::PASSPHRASE).exits(0).out
    };
    for (input, kept) in [("one\n", "one"), ("one", "one"), ("a\nb\n", "a\nb\n"), (" spaced ", " spaced ")] {
        home.secret("n", input);
        assert_eq!(reveal("n"), kept, "{input:?}");
    }
    let mut set = home.command("sh");
    set.args(["-c", r"printf '\377\000\n' | keyward secret set raw; keyward secret reveal raw --passphrase-fd 3 3<pass | od -An -tx1"]);
    std::fs::write(home.root.join("pass"), keyward_testkit::PASSPHRASE).unwrap();
    assert_eq!(run(set, b"").exits(0).out.trim(), "ff 00 0a");
    home.keyward_in(&["secret", "set", "n", "--only-new"], "x").exits(1).says("secret.invalid");
    home.keyward_in(&["secret", "set", "big"], &"x".repeat(64 * 1024)).exits(1).says("secret.invalid");
    let kinds = home.audit_kinds();
    assert_eq!(kinds.iter().filter(|k| *k == "secret.revealed").count(), 5, "each is recorded");
    let names: Vec<Value> = home.keyward(&["secret", "list", "--json"]).json().as_array().unwrap().clone();
    assert_eq!(names.len(), 2);
}
