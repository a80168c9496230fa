//! The vault through the real command line: what goes wrong has a code and an exit code of its own, and nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod autolock;
mod backup;
mod damage;
mod disk;
mod folder;
mod keyring;
mod lock;
mod opening;
mod rekey;
mod rollback;
mod settings;

use keyward_testkit::{Answer, Home, PASSPHRASE};
use serde_json::Value;
use std::path::Path;

const OTHER: &str = "another stapler battery horse 17";

/// `keyward unlock` with a passphrase.
fn unlock(home: &Home, passphrase: &str) -> Answer {
    home.keyward_in(&["unlock", "--passphrase-stdin"], passphrase)
}

/// A stored secret, shown with the passphrase.
#[track_caller]
fn reveal(home: &Home, name: &str, passphrase: &str) -> String {
    let shown = home.keyward_in(&["secret", "reveal", name, "--passphrase-stdin"], passphrase).exits(0);
    shown.out.trim_end().to_owned()
}

/// What a run of the static profile `p` gets in `T`.
#[track_caller]
fn received(home: &Home) -> String {
    home.keyward(&["run", "-p", "p", "--", "sh", "-c", "printf %s \"$T\""]).exits(0).out
}

/// `audit verify --json`, whatever it says.
fn verify(home: &Home) -> (i32, Value) {
    let answer = home.keyward(&["audit", "verify", "--json"]);
    (answer.exit, answer.json())
}

/// The log verifies, the secret of the profile `p` is what it was, and a run gets it.
#[track_caller]
fn is_whole(home: &Home, secret: &str) {
    assert_eq!(reveal(home, "p", PASSPHRASE), secret);
    // A restore and the keyring make this process no shell that has unlocked.
    home.grant(&["--profile", "p", "--uses", "1"]);
    assert_eq!(received(home), secret);
    assert_eq!(verify(home).0, 0);
}

/// The entries of one kind, oldest first.
#[track_caller]
fn entries(home: &Home, kind: &str) -> Vec<Value> {
    home.audit().into_iter().filter(|e| e["kind"] == kind).collect()
}

/// A home with an open vault, the secret `p` and the static profile `p` for it.
fn with_profile(secret: &str) -> Home {
    let home = Home::with_vault();
    home.static_profile("p", secret, "T");
    home
}

/// The files of the vault, the anchor included, are copied into a new folder.
fn save(home: &Home, name: &str) {
    let to = home.root.join(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(home.keyward_home().join("data")).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Puts the database that [`save`] kept in its place again.
fn put_back_database(home: &Home, name: &str) {
    let data = home.keyward_home().join("data");
    for file in ["vault.db", "vault.db-wal"] {
        let (from, to) = (home.root.join(name).join(file), data.join(file));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        } else if to.exists() {
            std::fs::remove_file(to).unwrap();
        }
    }
}

/// Changes one bit of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.get_mut(at).unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}
