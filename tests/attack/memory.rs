//! The memory of the broker: what is gone after a lock, and after the auto-lock.

use crate::needle::Search;
use crate::{Kept, home_of_a_user, is_root, parent_of};
use keyward_testkit::{Home, PASSPHRASE, alive, keys, run, wait_at_most, wait_for};
use std::time::Duration;

const STATIC: &str = "static-v4lue-that-nobody-may-keep";
const SEED: &str = "seed-v4lue-that-nobody-may-keep";
const TYPED_WRONG: &str = "wr0ng passphrase with a typo in it";

/// A vault with a static profile and one whose program makes `minted-SEED`, and a run that holds both.
fn busy(home: &Home) -> Kept {
    home.init();
    home.static_profile("kept", STATIC, "KEPT");
    home.secret("seed", SEED);
    let program = r#"["/bin/sh", "-c", "printf '{\"token\":\"minted-%s\",\"expires_in\":3600}' \"$SEED\""]"#;
    let issuer = format!("[issuer]\nkind = \"command\"\nargv = {program}\nenv = {{ SEED = \"secret:seed\" }}\n");
    home.profile("made", &format!("{issuer}[delivery]\nmode = \"file\"\nenv = {{ MADE_FILE = \"token\" }}\n"));
    let child = Kept::start(home.keyward_command(&["run", "-p", "kept", "-p", "made", "--", "sleep", "600"]));
    wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    child
}

/// Fails unless all of `wanted` are among what was found: a search that finds nothing proves nothing.
#[track_caller]
fn holds(found: &[String], wanted: &[&str]) {
    for name in wanted {
        assert!(found.iter().any(|f| f.starts_with(&format!("{name} at"))), "no {name} in memory: {found:#?}");
    }
}

#[test]
fn after_a_lock_no_key_and_no_secret_is_left() {
    if !is_root("memory::after_a_lock_no_key_and_no_secret_is_left") {
        return;
    }
    let (home, _) = home_of_a_user();
    let child = busy(&home);
    home.keyward_in(&["unlock", "--passphrase-stdin"], TYPED_WRONG).exits(1).says("vault.wrong_passphrase");
    home.unlock();
    assert_eq!(home.keyward_in(&["secret", "reveal", "kept", "--passphrase-stdin"], PASSPHRASE).out, STATIC);
    assert_eq!(home.keyward(&["token", "made"]).out, format!("minted-{SEED}\n"));
    home.keyward(&["profile", "test", "made"]).exits(0);
    home.keyward_in(&["audit", "export", "--passphrase-stdin"], PASSPHRASE).exits(0);
    home.keyward(&["vault", "backup", &home.root.join("backup").display().to_string()]).exits(0);

    let mut search = Search::default();
    for key in keys(&home.keyward_home(), PASSPHRASE) {
        search.memory_forms(key.name, &key.bytes);
    }
    for (what, text) in [("passphrase", PASSPHRASE), ("static", STATIC), ("seed", SEED), ("wrong", TYPED_WRONG)] {
        search.memory_forms(what, text.as_bytes());
    }
    let worker = home.broker_pid().unwrap();
    let open = search.find_in_memory(worker);
    holds(&open, &["seal key", "audit HMAC, inner", "anchor HMAC, inner", "seed"]);
    let parent = parent_of(worker);
    assert_eq!(search.find_in_memory(parent), Vec::<String>::new(), "in the parent");

    home.keyward(&["lock"]).exits(0);
    assert_eq!(home.broker_pid(), Some(worker), "the same process goes on");
    assert!(alive(child.pid()), "the run goes on, without its credentials");
    assert_eq!(search.find_in_memory(worker), Vec::<String>::new(), "in the worker after the lock");
    drop(child);
}

#[test]
fn after_the_auto_lock_the_vault_and_seal_keys_are_gone_and_uses_are_still_recorded() {
    if !is_root("memory::after_the_auto_lock_the_vault_and_seal_keys_are_gone_and_uses_are_still_recorded") {
        return;
    }
    let (home, _) = home_of_a_user();
    let config = home.keyward_home().join("config");
    let made = home.command("mkdir").args(["-p", "-m", "700"]).arg(&config).status().unwrap();
    assert!(made.success());
    let mut write = home.command("tee");
    write.arg(config.join("config.toml"));
    run(write, b"auto_lock = \"1m\"\n").exits(0);
    let child = busy(&home);
    let mut search = Search::default();
    for key in keys(&home.keyward_home(), PASSPHRASE) {
        search.memory_forms(key.name, &key.bytes);
    }
    search.memory_forms("passphrase", PASSPHRASE.as_bytes());
    search.memory_forms("static", STATIC.as_bytes());
    let worker = home.broker_pid().unwrap();
    holds(&search.find_in_memory(worker), &["seal key", "audit HMAC, inner"]);
    let status = || home.keyward(&["status", "--json"]).json();
    wait_at_most(Duration::from_secs(100), "the auto-lock", || status()["vault"]["auto_locked"] == true);
    let left = search.find_in_memory(worker);
    // SQLCipher keeps its own keys masked, so that the log stays writable and no search finds them.
    holds(&left, &["audit HMAC, inner"]);
    let stays = ["audit HMAC", "anchor HMAC"];
    let gone: Vec<&String> = left.iter().filter(|f| !stays.iter().any(|name| f.starts_with(name))).collect();
    assert_eq!(gone, Vec::<&String>::new(), "in the worker after the auto-lock");
    drop(child);
    // The last run is over, so the database closes as well.
    wait_for("the rest of the keys to go", || search.find_in_memory(worker).is_empty());
    home.unlock();
    assert!(home.audit_kinds().iter().any(|kind| kind == "lease.released"));
}
