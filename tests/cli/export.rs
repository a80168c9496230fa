//! Exports that others can check without the vault, and what they find in ones that were changed.

use keyward_testkit::{Home, PASSPHRASE};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A home with a few entries, an export of its log, and the key to check it by.
fn exported(args: &[&str]) -> (Home, PathBuf, String) {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    // An app whose name a spreadsheet would compute.
    std::os::unix::fs::symlink("/bin/true", home.root.join("=cmd")).unwrap();
    home.keyward(&["run", "-p", "p", "--", "./=cmd"]).exits(0);
    let file = home.root.join("log.jsonl");
    let line = [&["audit", "export", "--passphrase-stdin", "--out", file.to_str().unwrap()], args].concat();
    let answer = home.keyward_in(&line, PASSPHRASE).exits(0);
    assert_eq!(answer.out, "");
    let key = answer.err.split_whitespace().find(|w| w.starts_with("kwpub1:")).unwrap_or_default();
    let key = key.trim_end_matches(';').to_owned();
    (home, file, key)
}

fn verify(home: &Home, file: &Path, key: &str) -> keyward_testkit::Answer {
    home.keyward(&["audit", "verify", "--file", file.to_str().unwrap(), "--pubkey", key])
}

#[test]
fn an_export_verifies_where_there_is_no_vault() {
    let (home, file, key) = exported(&[]);
    let elsewhere = Home::new();
    let answer = verify(&elsewhere, &file, &key).exits(0);
    assert!(answer.out.starts_with("ok: "), "{}", answer.out);
    assert!(
        !key.is_empty() && elsewhere.broker_parents().is_empty() && !elsewhere.keyward_home().exists(),
        "nothing was started or made"
    );
    let json = elsewhere.keyward(&["--json", "audit", "verify", "--file", file.to_str().unwrap(), "--pubkey", &key]);
    let json = json.exits(0).json();
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!((&json["ok"], &json["entries"]), (&true.into(), &(lines.lines().count() - 1).into()));
    assert_eq!((&json["filtered"], json["problems"].as_array().map(Vec::len)), (&false.into(), Some(0)));
    assert!(!lines.contains("s3cret") && lines.contains("credential.delivered"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let piped = home.keyward_in(&["audit", "export", "--passphrase-stdin"], PASSPHRASE).exits(0).out;
    assert!(piped.starts_with(&lines[..lines.rfind("{\"trailer\"").unwrap()]), "the same entries, and those since");
    let again = ["audit", "export", "--passphrase-stdin", "--out", file.to_str().unwrap()];
    home.keyward_in(&again, PASSPHRASE).exits(1).says("file.unreadable");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines, "not written over");
    let kinds = home.audit_kinds();
    assert!(kinds.iter().filter(|k| *k == "audit.exported").count() >= 2, "{kinds:?}");
}

#[test]
fn every_change_of_a_file_is_found() {
    let (home, file, key) = exported(&[]);
    let (_other_home, other_file, other_key) = exported(&[]);
    let honest = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = honest.lines().collect();
    let foreign = std::fs::read_to_string(&other_file).unwrap();
    let foreign: Vec<&str> = foreign.lines().collect();
    let last = lines.len() - 1;
    let changed = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut all: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        edit(&mut all);
        all.join("\n") + "\n"
    };
    let cases: Vec<(&str, String)> = vec![
        ("a line changed", changed(&|l| l[2] = l[2].replace("\"ok\"", "\"no\""))),
        ("a blank added", changed(&|l| l[2].push(' '))),
        ("the first one removed", changed(&|l| drop(l.remove(0)))),
        ("one in the middle removed", changed(&|l| drop(l.remove(3)))),
        ("the last one removed", changed(&|l| drop(l.remove(last - 1)))),
        ("two swapped", changed(&|l| l.swap(2, 3))),
        ("one doubled", changed(&|l| l.insert(3, lines[2].to_owned()))),
        ("one of another vault", changed(&|l| l[2] = foreign[2].to_owned())),
        ("no trailer", changed(&|l| drop(l.pop()))),
        ("a trailer of another vault", changed(&|l| l[last] = foreign[foreign.len() - 1].to_owned())),
        ("two trailers", changed(&|l| l.push(lines[last].to_owned()))),
        ("an entry after the trailer", changed(&|l| l.push(lines[2].to_owned()))),
        ("only the trailer", changed(&|l| drop(l.drain(..last)))),
        (
            "the trailer says filtered",
            changed(&|l| l[last] = l[last].replace("\"filtered\":false", "\"filtered\":true")).replace(lines[3], ""),
        ),
        ("nothing", String::new()),
        ("cut in a line", honest[..honest.len() / 2].to_owned()),
        ("cut in the trailer", honest[..honest.len() - 20].to_owned()),
        ("bytes that are no text", format!("\u{0}{honest}")),
    ];
    let tampered = home.root.join("tampered.jsonl");
    for (what, text) in &cases {
        assert_ne!(text, &honest, "{what}");
        std::fs::write(&tampered, text).unwrap();
        let answer = verify(&home, &tampered, &key).exits(7).says("audit.file_invalid");
        assert!(!answer.out.contains("ok"), "{what}: {}", answer.out);
        let json = home.keyward(&["--json", "audit", "verify", "--file", tampered.to_str().unwrap(), "--pubkey", &key]);
        let json = json.exits(7).json();
        assert!(json["ok"] == false && !json["problems"].as_array().unwrap().is_empty(), "{what}: {json}");
    }
    verify(&home, &file, &other_key).exits(7).says("audit.file_invalid");
    verify(&home, &other_file, &key).exits(7);
    verify(&home, &file, &key).exits(0);
    verify(&home, Path::new("/no/such/file"), &key).exits(1).says("file.unreadable");
    verify(&home, &file, "kwpub1:00").exits(2).says("usage");
    verify(&home, &file, &key[..key.len() - 1]).exits(2).says("usage");
}

#[test]
fn a_filtered_export_says_so_and_still_verifies() {
    let (home, file, key) = exported(&["--kind", "lease"]);
    let text = std::fs::read_to_string(&file).unwrap();
    let kinds: Vec<Value> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["entry"]["kind"].clone()).collect();
    assert!(kinds.len() >= 2 && kinds[..kinds.len() - 1].iter().all(|k| k.as_str().unwrap().starts_with("lease.")));
    let answer = verify(&home, &file, &key).exits(0);
    assert!(answer.out.contains("left out by filters"), "{}", answer.out);
    std::fs::write(&file, text.lines().skip(1).map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    verify(&home, &file, &key).exits(7);
}

#[test]
fn csv_has_one_line_an_entry_and_no_formula() {
    let (home, file, _key) = exported(&["--format", "csv"]);
    let text = std::fs::read_to_string(&file).unwrap();
    let header = "seq,at,kind,outcome,run,lease,profile,grant,app,app_verified,project,peer,detail,prev,mac\r\n";
    assert!(text.starts_with(header), "{text}");
    let records = text.matches("\r\n").count() - 1;
    let before_export = home.audit_kinds().iter().position(|k| k == "audit.exported").unwrap();
    assert!(records > before_export, "{records} records, {before_export} entries before the export");
    assert!(!text.contains("trailer") && !text.contains("s3cret"));
    assert!(text.contains(",'=cmd,"), "{text}");
    for (n, line) in text.lines().skip(1).enumerate() {
        assert!(line.starts_with(&format!("{},20", n + 1)), "{line}");
        assert!(!line.contains(",=") && !line.contains(",+") && !line.contains(",@"), "{line}");
    }
}

#[test]
fn an_export_needs_the_passphrase_each_time() {
    let (home, ..) = exported(&[]);
    home.keyward(&["audit", "export"]).exits(4).says("passphrase.needed");
    let wrong = home.keyward_in(&["audit", "export", "--passphrase-stdin"], "not the passphrase");
    assert_eq!(wrong.exits(1).says("vault.wrong_passphrase").out, "");
    let file = home.root.join("none");
    home.keyward_in(&["audit", "export", "--passphrase-stdin", "--out", file.to_str().unwrap()], "wrong").exits(1);
    assert!(!file.exists(), "a refused export leaves no file");
    std::fs::write(&file, "mine").unwrap();
    let there = home
        .keyward_in(&["audit", "export", "--passphrase-stdin", "--out", file.to_str().unwrap()], PASSPHRASE)
        .exits(1);
    assert!(
        there.err.contains("there is a file already: ") && there.err.contains("name another file"),
        "{}",
        there.err
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}
