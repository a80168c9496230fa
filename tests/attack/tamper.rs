//! Files of the vault changed behind its back: found, or of no effect; never obeyed, never a crash.

use keyward_testkit::{Answer, Home, PASSPHRASE};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;

const VALUE: &str = "v4lue-of-a-secret";

fn filled() -> Home {
    let home = Home::with_vault();
    home.static_profile("a", VALUE, "A");
    for _ in 0..12 {
        home.keyward(&["run", "-p", "a", "--", "true"]).exits(0);
    }
    home.stop_broker();
    home
}

fn unlock(home: &Home) -> Answer {
    home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE)
}

fn slots(home: &Home) -> PathBuf {
    home.keyward_home().join("data/vault.slots")
}

fn anchor(home: &Home) -> PathBuf {
    let state = home.keyward_home().join("state");
    let found = std::fs::read_dir(state).unwrap().flatten().map(|e| e.path());
    found.into_iter().find(|p| p.to_string_lossy().contains("anchor")).unwrap()
}

/// Whether the broken log is refused everywhere: unlock opens, verify answers 7, and nothing is delivered.
#[track_caller]
fn broken(home: &Home) {
    unlock(home).exits(0);
    home.keyward(&["audit", "verify"]).exits(7);
    let run = home.keyward(&["run", "-p", "a", "--", "sh", "-c", "echo $A"]).exits(125).says("audit.broken");
    assert_eq!(run.out, "");
    home.keyward(&["token", "a"]).exits(7).says("audit.broken");
}

#[test]
fn a_bit_flipped_in_any_page_of_the_database_is_found_or_of_no_effect() {
    let home = filled();
    let sound = std::fs::read(home.db()).unwrap();
    let pages = sound.len() / 4096;
    assert!(pages >= 8, "{pages} pages");
    let mut found = 0;
    for page in 0..pages {
        let mut bytes = sound.clone();
        // Not the same place in each: salt, ciphertext, initialisation vector and MAC all get their turn.
        let at = page * 4096 + [5, 700, 4096 - 70, 4096 - 20][page % 4];
        bytes[at] ^= 1 << (page % 8);
        std::fs::write(home.db(), &bytes).unwrap();
        let opened = unlock(&home);
        if opened.exit == 0 {
            let verified = home.keyward(&["audit", "verify"]);
            let run = home.keyward(&["run", "-p", "a", "--", "sh", "-c", "printf %s \"$A\""]);
            assert!(verified.exit == 0 || verified.exit == 7, "page {page}: {verified:?}");
            match run.exit {
                0 => assert_eq!(run.out, VALUE, "page {page}"),
                125 => {
                    assert!(run.out.is_empty() && run.err.contains("damaged") || run.err.contains("audit."), "{run:?}")
                }
                _ => panic!("page {page}: {run:?}"),
            }
            found += usize::from(verified.exit == 7 || run.exit == 125);
        } else {
            opened.exits(7).says("vault.damaged");
            found += 1;
        }
        home.stop_broker();
        for file in ["vault.db-wal", "vault.db-shm", "vault.db-journal"] {
            let _ = std::fs::remove_file(home.keyward_home().join("data").join(file));
        }
        // What was recorded meanwhile belongs to the copy with the flip; the anchor has moved with it.
        let _ = std::fs::copy(home.root.join("anchor"), anchor(&home));
        if page == 0 {
            std::fs::copy(anchor(&home), home.root.join("anchor")).unwrap();
        }
    }
    assert!(found * 4 >= pages * 3, "{found} flips found in {pages} pages");
}

#[test]
fn an_older_copy_of_the_database_and_a_lost_or_changed_anchor_are_found() {
    let home = filled();
    let (older, mark) = (std::fs::read(home.db()).unwrap(), std::fs::read(anchor(&home)).unwrap());
    unlock(&home).exits(0);
    home.keyward(&["run", "-p", "a", "--", "true"]).exits(0);
    home.stop_broker();
    let (newer, newer_mark) = (std::fs::read(home.db()).unwrap(), std::fs::read(anchor(&home)).unwrap());
    std::fs::write(home.db(), &older).unwrap();
    broken(&home);
    home.stop_broker();
    std::fs::write(home.db(), &newer).unwrap();
    let path = anchor(&home);
    for (what, bytes) in [("removed", None), ("emptied", Some(Vec::new())), ("zeros", Some(vec![0; newer_mark.len()]))]
    {
        match bytes {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        unlock(&home).exits(0);
        let verified = home.keyward(&["audit", "verify"]);
        assert_eq!(verified.exit, 7, "{what}: {verified:?}");
        home.stop_broker();
        std::fs::write(home.db(), &newer).unwrap();
        std::fs::write(&path, &newer_mark).unwrap();
    }
    // An older anchor with the newer database is what a crash leaves behind: accepted, and said.
    std::fs::write(&path, &mark).unwrap();
    unlock(&home).exits(0);
    home.keyward(&["audit", "verify"]).exits(0);
}

/// SHA-256 in hexadecimal digits.
fn sha256(home: &Home, text: &str) -> String {
    let answer = keyward_testkit::run(home.command("sha256sum"), text.as_bytes()).exits(0);
    answer.out.split(' ').next().unwrap().to_owned()
}

/// The slot file with an edit, and the sum that fits it.
fn edited(home: &Home, sound: &str, edit: impl Fn(&str) -> String) -> String {
    let sum = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        value["sum"].as_str().unwrap().to_owned()
    };
    let changed = edit(sound.trim_end());
    assert_ne!(changed, sound.trim_end(), "the edit does nothing");
    let bare = changed.replace(&sum(&changed), "");
    let fresh = sha256(home, &bare);
    changed.replace(&sum(&changed), &fresh)
}

#[test]
fn an_edited_slot_file_asks_for_no_memory_and_opens_nothing() {
    let home = filled();
    let sound = std::fs::read_to_string(slots(&home)).unwrap();
    let value: Value = serde_json::from_str(&sound).unwrap();
    let slot = &value["slots"][0];
    let field = |name: &str, number: &str| {
        format!("\"{name}\":{}", if number.is_empty() { &slot["kdf"][name] } else { &Value::Null })
    };
    let m = field("m_kib", "");
    let t = field("t", "");
    let wrapped = slot["wrapped"].as_str().unwrap().to_owned();
    let mut other = wrapped.clone();
    other.replace_range(60..61, if &other[60..61] == "0" { "1" } else { "0" });
    let edit = |from: &str, to: &str| edited(&home, &sound, |text| text.replace(from, to));
    let mut long = sound.clone();
    (0..20_000).for_each(|n| write!(long, "{n} ").unwrap());
    let flipped = sound.replacen(&wrapped[..8], "00000000", 1);
    for (what, text, code) in [
        ("4 TiB of memory", edit(&m, "\"m_kib\":4294967295"), "vault.kdf_bounds"),
        ("hardly any memory", edit(&m, "\"m_kib\":8"), "vault.kdf_bounds"),
        ("years of passes", edit(&t, "\"t\":4294967295"), "vault.kdf_bounds"),
        ("hardly any passes", edit(&t, "\"t\":1"), "vault.kdf_bounds"),
        ("other cost, within the bounds", edit(&t, "\"t\":4"), "vault.wrong_passphrase"),
        ("another epoch", edit("\"epoch\":1", "\"epoch\":0"), "vault.slots_tampered"),
        ("another wrapped key", edit(&wrapped, &other), "vault.wrong_passphrase"),
        ("a later version", edit("\"version\":1", "\"version\":2"), "vault.schema_newer"),
        ("a wrong sum", flipped, "vault.slots_damaged"),
        ("half of it", sound[..sound.len() / 2].to_owned(), "vault.slots_damaged"),
        ("nothing", String::new(), "vault.slots_damaged"),
        ("far more of it", long, "vault.slots_damaged"),
        ("deep nesting", "[".repeat(60_000), "vault.slots_damaged"),
    ] {
        if what.starts_with("other cost") && t == "\"t\":4" {
            continue;
        }
        std::fs::write(slots(&home), &text).unwrap();
        let refused = unlock(&home);
        assert!(refused.exit != 0 && refused.err.contains(&format!("[{code}]")), "{what}: {refused:?}");
        let status = home.keyward(&["status", "--json"]).exits(0).json();
        assert_eq!(status["vault"]["state"], "locked", "{what}");
        let resident = status["broker"]["rss_bytes"].as_u64().unwrap();
        assert!(resident < 64 << 20, "{what}: {resident} bytes");
        // A new broker forgets the wrong tries, so that the next one need not wait.
        home.stop_broker();
    }
    std::fs::write(slots(&home), &sound).unwrap();
    unlock(&home).exits(0);
    home.keyward(&["audit", "verify"]).exits(0);
}
