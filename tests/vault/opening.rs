//! Making and opening: passphrases that are weak or wrong, vaults that are absent or there already.

use crate::{entries, is_whole, reveal, unlock, with_profile};
use keyward_testkit::{Home, PASSPHRASE, Talk, wait_for};

const INIT: &[&str] = &["init", "--passphrase-stdin"];

#[test]
fn without_a_vault_each_command_says_so() {
    let home = Home::new();
    unlock(&home, PASSPHRASE).exits(1).says("vault.absent");
    home.keyward_in(&["secret", "set", "s"], "x").exits(1).says("vault.absent");
    home.keyward(&["secret", "list"]).exits(1).says("vault.absent");
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("vault.absent");
    home.keyward(&["audit", "verify"]).exits(1).says("vault.absent");
    home.keyward(&["vault", "slot", "list"]).exits(1).says("vault.absent");
    assert_eq!(home.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"], "absent");
    assert!(!home.db().exists(), "asking makes nothing");
}

#[test]
fn a_vault_is_made_once() {
    let home = with_profile("s3cret");
    home.keyward_in(INIT, "an entirely different passphrase").exits(1).says("vault.exists");
    home.keyward(&["lock"]).exits(0);
    home.keyward_in(INIT, "an entirely different passphrase").exits(1).says("vault.exists");
    home.unlock();
    is_whole(&home, "s3cret");
}

#[test]
fn of_two_that_make_it_at_once_one_does_and_its_passphrase_opens() {
    let home = Home::new();
    let both = ["the first passphrase of two", "the second passphrase of two"].map(|passphrase| {
        let mut talk = Talk::start(home.keyward_command(INIT));
        talk.send(passphrase.as_bytes());
        talk.close();
        (passphrase, talk)
    });
    let done = both.map(|(passphrase, talk)| (passphrase, talk.end()));
    let (made, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(|(_, answer)| answer.exit == 0);
    assert_eq!((made.len(), refused.len()), (1, 1), "{made:?} {refused:?}");
    unlock(&home, made[0].0).exits(0);
    for (passphrase, answer) in refused {
        answer.exits(1).says("vault.exists");
        unlock(&home, passphrase).exits(1).says("vault.wrong_passphrase");
    }
}

#[test]
fn weak_passphrases_are_refused_and_make_nothing() {
    let home = Home::new();
    for weak in
        ["short", "elevenchars", "            ", "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababababab", "äöüäöüäöüäöü"]
    {
        let refused = home.keyward_in(INIT, weak).exits(1).says("vault.weak_passphrase");
        assert!(!refused.err.contains(weak.trim()) || weak.trim().is_empty(), "{}", refused.err);
    }
    assert!(home.keyward_in(INIT, "").exit != 0);
    assert!(!home.keyward_home().join("data/vault.slots").exists());
    home.init();
    let lines = format!("{PASSPHRASE}\nshort\n");
    home.keyward_in(&["vault", "rekey", "--passphrase-stdin"], &lines).exits(1).says("vault.weak_passphrase");
    unlock(&home, PASSPHRASE).exits(0);
}

#[test]
fn a_wrong_passphrase_opens_nothing_and_loses_nothing() {
    let home = with_profile("s3cret");
    home.keyward(&["lock"]).exits(0);
    let wrong = unlock(&home, "not the passphrase at all").exits(1).says("vault.wrong_passphrase");
    assert!(!wrong.err.contains("not the passphrase at all") && wrong.out.is_empty(), "{wrong:?}");
    home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("vault.locked");
    home.keyward_in(&["secret", "set", "p"], "x").exits(3).says("vault.locked");
    home.unlock();
    is_whole(&home, "s3cret");
}

#[test]
fn nobody_to_ask_is_an_error_of_its_own() {
    let home = with_profile("s3cret");
    home.keyward(&["lock"]).exits(0);
    home.keyward(&["unlock"]).exits(4).says("passphrase.needed");
    home.unlock();
    home.keyward(&["secret", "reveal", "p"]).exits(4).says("passphrase.needed");
}

#[test]
fn the_third_wrong_passphrase_makes_everyone_wait() {
    let home = with_profile("s3cret");
    home.keyward(&["lock"]).exits(0);
    for _ in 0..3 {
        unlock(&home, "wrong wrong wrong").exits(1).says("vault.wrong_passphrase");
    }
    let waits = unlock(&home, PASSPHRASE).exits(1).says("vault.unlock_wait");
    assert!(waits.err.contains("wait 1 s"), "{}", waits.err);
    wait_for("the end of the pause", || unlock(&home, PASSPHRASE).exit == 0);
    is_whole(&home, "s3cret");
    unlock(&home, "wrong wrong wrong").exits(1).says("vault.wrong_passphrase");
    unlock(&home, PASSPHRASE).exits(0);
}

#[test]
fn wrong_passphrases_are_recorded_at_the_next_unlock_or_at_once() {
    let home = with_profile("s3cret");
    home.keyward(&["lock"]).exits(0);
    for _ in 0..2 {
        unlock(&home, "wrong wrong wrong").exits(1).says("vault.wrong_passphrase");
    }
    home.stop_broker();
    home.unlock();
    let failed = entries(&home, "vault.unlock_failed");
    assert_eq!((failed.len(), &failed[0]["detail"]["count"]), (1, &2.into()), "{failed:?}");
    assert_eq!(failed[0]["outcome"], "refused");
    let at = |field: &str| failed[0]["detail"][field].as_str().unwrap();
    assert!(at("first_at") <= at("last_at"), "{failed:?}");
    home.keyward_in(&["secret", "reveal", "p", "--passphrase-stdin"], "wrong wrong wrong")
        .exits(1)
        .says("vault.wrong_passphrase");
    assert_eq!(entries(&home, "vault.unlock_failed").len(), 2, "while the vault is open it is recorded at once");
    home.keyward(&["lock"]).exits(0);
    home.unlock();
    assert_eq!(entries(&home, "vault.unlock_failed").len(), 2, "what was recorded is counted once");
}

#[test]
fn a_passphrase_may_be_any_text_and_its_line_end_does_not_count() {
    let home = Home::new();
    let odd = "  grüße · 你好 \\n \"'$(id)  ";
    home.keyward_in(INIT, &format!("{odd}\n")).exits(0);
    home.secret("s", "s3cret");
    home.keyward(&["lock"]).exits(0);
    unlock(&home, odd.trim()).exits(1).says("vault.wrong_passphrase");
    unlock(&home, odd).exits(0);
    assert_eq!(reveal(&home, "s", odd), "s3cret");
}
