//! The broker killed at every named point, and at random moments: what was acknowledged is there, what was handed over is
//! recorded, and the broker is back by itself.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod broker;
mod create;
mod random;
mod rekey;
mod renew;
mod restore;
mod run;
mod secret;
mod takeback;

use broker::Fallible;
use keyward_testkit::Home;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The points of every commit, in order. What they are about is durable from `commit.after` on.
const COMMIT: &[&str] =
    &["commit.before", "commit.mid", "commit.entries", "commit.after", "anchor.mid", "anchor.after"];

/// The points of a draft that becomes the vault: its commit, for which there is no anchor to move yet.
const DRAFT: &[&str] = &["commit.before", "commit.mid", "commit.entries", "commit.after", "anchor.after"];

/// The points around a delivery that are not those of its commit.
const DELIVER: &[&str] = &["deliver.before", "deliver.after"];

/// The points of a new vault, the replacing of the slot file included, which is where it begins to exist.
const CREATE: &[&str] = &["create.db", "create.anchor", "slots.tmp", "slots.renamed", "finish.anchor"];

/// The points of a rekey. The new passphrase opens the vault from `slots.renamed` on.
const REKEY: &[&str] = &["rekey.copied", "rekey.staged", "slots.tmp", "slots.renamed", "finish.anchor"];

/// The points of a restore. With the same vault key the backup is in place from `restore.staged` on.
const RESTORE: &[&str] = &["restore.kept", "restore.staged", "slots.tmp", "slots.renamed", "finish.anchor"];

/// The points about archive segments, which only a log of a million entries has: the store's own tests kill at each.
const ARCHIVE: &[&str] = &["archive.written", "rekey.archived", "restore.archived"];

#[test]
fn every_point_of_the_source_is_in_a_list() {
    let listed: BTreeSet<&str> =
        [COMMIT, DRAFT, DELIVER, CREATE, REKEY, RESTORE, ARCHIVE].concat().into_iter().collect();
    let mut found = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"), &mut found);
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, listed, "each point belongs to the list of what reaches it");
}

/// The names of the points in the Rust files of a folder: `fault("part.part")`.
fn collect(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("fault(\"").skip(1).filter_map(|rest| rest.split_once("\")"));
            let word = |b: u8| b.is_ascii_lowercase() || b == b'.';
            let point = |name: &&str| name.split('.').count() == 2 && name.bytes().all(word);
            into.extend(calls.map(|(name, _)| name).filter(point).map(str::to_owned));
        }
    }
}

/// Whether what a commit is about is there after a kill at this point.
fn durable(point: &str) -> bool {
    matches!(point, "commit.after" | "anchor.mid" | "anchor.after" | "deliver.after")
}

/// The entries of one kind, however many, oldest first.
#[track_caller]
fn entries(home: &Home, kind: &str) -> Vec<Value> {
    let listed = home.keyward(&["audit", "list", "--json", "--kind", kind, "--limit", "1000000"]).exits(0).json();
    listed.as_array().unwrap().iter().map(|e| e["entry"].clone()).collect()
}

/// The log verifies, and the file system holds no draft of a vault.
#[track_caller]
fn is_sound(vault: &Fallible) {
    let verdict = vault.home.keyward(&["audit", "verify", "--json"]).exits(0).json();
    assert!(verdict["ok"] == true && verdict["problems"].as_array().unwrap().is_empty(), "{verdict}");
    let names = std::fs::read_dir(vault.home.db().parent().unwrap()).unwrap().flatten().map(|e| e.file_name());
    let extra: Vec<_> = names
        .filter(|name| !["vault.db", "vault.db-wal", "vault.slots", "vault.lock"].iter().any(|known| name == *known))
        .filter(|name| !name.to_string_lossy().starts_with("replaced-") && name != "vault.slots.tmp")
        .collect();
    assert!(extra.is_empty(), "left behind: {extra:?}");
}
