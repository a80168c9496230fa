//! Prompts on a terminal.

use keyward_testkit::{Home, PASSPHRASE, Talk};

fn typed(text: &str) -> Vec<u8> {
    format!("{text}\r").into_bytes()
}

#[test]
fn init_asks_twice_and_shows_nothing_of_what_is_typed() {
    let home = Home::new();
    let mut talk = Talk::on_terminal(&home, &["keyward", "init"], &[]);
    let before = talk.until("New passphrase: ");
    assert!(before.contains("at least 12 characters"), "the rule is told first: {before}");
    talk.send(&typed(PASSPHRASE));
    talk.until("The same again: ");
    talk.send(&typed("correct horse battery stable 42"));
    talk.until("not the same");
    talk.until("New passphrase: ");
    talk.send(&typed(PASSPHRASE));
    talk.until("The same again: ");
    talk.send(&typed(PASSPHRASE));
    talk.until("the vault is made and open");
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains("horse") && !answer.out.contains("42"), "{}", answer.out);
    home.keyward(&["secret", "list"]).exits(0);
    home.keyward(&["lock"]).exits(0);
    home.unlock();
}

#[test]
fn three_pairs_that_differ_make_no_vault() {
    let home = Home::new();
    let mut talk = Talk::on_terminal(&home, &["keyward", "init"], &[]);
    for _ in 0..3 {
        talk.until("New passphrase: ");
        talk.send(&typed(PASSPHRASE));
        talk.until("The same again: ");
        talk.send(&typed("something else entirely"));
    }
    let answer = talk.end().exits(1);
    assert!(answer.out.contains("request.invalid"), "{}", answer.out);
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "absent");
}

#[test]
fn a_weak_passphrase_and_an_empty_one_may_be_typed_again() {
    for command in ["init", "setup"] {
        let home = Home::new();
        let mut talk = Talk::on_terminal(&home, &["keyward", command], &[]);
        for (first, second, said) in [
            ("too short", Some("too short"), "too weak: it has 9 characters; once more"),
            ("", None, "it is empty; once more"),
            (PASSPHRASE, Some(""), "the two are not the same; once more"),
        ] {
            talk.until("New passphrase: ");
            talk.send(&typed(first));
            if let Some(second) = second {
                talk.until("The same again: ");
                talk.send(&typed(second));
            }
            talk.until(said);
        }
        talk.until("New passphrase: ");
        talk.send(&typed(PASSPHRASE));
        talk.until("The same again: ");
        talk.send(&typed(PASSPHRASE));
        talk.until("the vault is made and open");
        talk.end().exits(0);
    }
}

#[test]
fn a_run_on_a_locked_vault_opens_it_in_place_and_names_the_home() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.keyward(&["lock"]).exits(0);
    let argv = ["keyward", "run", "-p", "p", "--", "sh", "-c", "echo got $T; read -r x; echo read $x"];
    let mut talk = Talk::on_terminal(&home, &argv, &[]);
    talk.until(&format!("Passphrase for the vault in {}: ", home.keyward_home().display()));
    talk.send(&typed("not the passphrase"));
    talk.until("try again");
    talk.until("Passphrase for the vault in ");
    talk.send(&typed(PASSPHRASE));
    talk.until("got s3cret");
    talk.send(b"more input\r");
    talk.until("read more input");
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains("horse") && !answer.out.contains("not the passphrase"), "{}", answer.out);
}

#[test]
fn commands_ask_in_place_when_the_vault_is_locked() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    for argv in [&["keyward", "token", "p"][..], &["keyward", "unlock"], &["keyward", "profile", "list"]] {
        home.keyward(&["lock"]).exits(0);
        let mut talk = Talk::on_terminal(&home, argv, &[]);
        talk.until("Passphrase for the vault in ");
        talk.send(&typed(PASSPHRASE));
        let answer = talk.end().exits(0);
        assert!(!answer.out.contains("horse"), "{argv:?}: {}", answer.out);
    }
    home.keyward(&["secret", "list"]).exits(0);
}

#[test]
fn a_secret_is_typed_hidden() {
    let home = Home::with_vault();
    let mut talk = Talk::on_terminal(&home, &["keyward", "secret", "set", "typed"], &[]);
    talk.until("Secret typed: ");
    talk.send(&typed("hunter2"));
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains("hunter2"), "{}", answer.out);
    let mut talk = Talk::on_terminal(&home, &["keyward", "secret", "reveal", "typed"], &[]);
    talk.until("Passphrase for the vault in ");
    talk.send(&typed(PASSPHRASE));
    let answer = talk.end().exits(0);
    assert!(answer.out.contains("hunter2\r\n"), "{}", answer.out);
}

#[test]
fn what_is_typed_beside_a_prompt_is_neither_shown_nor_left_for_the_shell() {
    let home = Home::with_vault();
    home.keyward(&["lock"]).exits(0);
    let script = "keyward unlock; echo ended $?; read -r x; echo got:$x:";
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
    talk.until("Passphrase for the vault in ");
    talk.send(b"wrong passphrase\rstray one\r");
    talk.until("try again");
    talk.until("Passphrase for the vault in ");
    talk.send(format!("{PASSPHRASE}\rstray two\r").as_bytes());
    talk.until("ended 0");
    talk.send(b"own\r");
    talk.until("got:own:");
    let answer = talk.end().exits(0);
    assert!(!answer.out.contains("stray") && !answer.out.contains("wrong"), "{}", answer.out);
}

#[test]
fn the_terminal_is_as_before_after_a_prompt_that_was_broken_off() {
    let home = Home::with_vault();
    home.keyward(&["lock"]).exits(0);
    // The shell goes on after the signal that ends its child.
    let script = "trap : INT; stty -g; keyward unlock; echo ended $?; stty -g; echo over";
    let mut talk = Talk::on_terminal(&home, &["sh", "-c", script], &[]);
    let before = talk.line();
    talk.until("Passphrase for the vault in ");
    talk.send(b"half of it\x03");
    talk.until("ended ");
    let (code, after) = (talk.line(), talk.line());
    talk.until("over");
    assert_eq!((code.as_str(), after), ("130", before), "{}", talk.out());
    assert!(!talk.out().contains("half"), "{}", talk.out());
}

#[test]
fn an_end_of_input_at_the_prompt_is_no_passphrase() {
    let home = Home::with_vault();
    home.keyward(&["lock"]).exits(0);
    let mut talk = Talk::on_terminal(&home, &["keyward", "unlock"], &[]);
    talk.until("Passphrase for the vault in ");
    talk.send(b"\x04");
    let answer = talk.end();
    assert_eq!(answer.exit, 1, "{}", answer.out);
    assert_eq!(home.keyward(&["status", "--json"]).json()["vault"]["state"], "locked");
}
