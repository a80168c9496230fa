//! `audit list` and `audit show`.

use crate::{error, waiting_run};
use keyward_testkit::{Home, run, wait_for};
use serde_json::Value;

/// A log with something for every filter.
fn home() -> Home {
    let home = Home::with_vault();
    home.static_profile("one", "s3cret", "A");
    home.static_profile("two", "s3cret", "B");
    home.profile(
        "failing",
        "[issuer]\nkind = \"command\"\nargv = [\"/bin/false\"]\n[delivery]\nenv = { F = \"token\" }\n",
    );
    home.keyward(&["profile", "test", "failing"]).exits(6);
    for (folder, profile, program) in [("here", "one", "true"), ("there", "two", "sleep"), ("there", "one", "sleep")] {
        std::fs::create_dir_all(home.root.join(folder)).unwrap();
        let mut command = home.keyward_command(&["run", "-p", profile, "--", program, "0"]);
        command.current_dir(home.root.join(folder));
        run(command, b"").exits(0);
    }
    let mut inside = home.keyward_command(&["run", "-p", "one", "--", "sh", "-c", "keyward secret list; true"]);
    inside.current_dir(&home.root);
    run(inside, b"").exits(0);
    let count = |kind: &str| home.audit_kinds().iter().filter(|k| *k == kind).count();
    wait_for("the ends and the refusal", || (count("run.ended"), count("request.refused")) == (4, 1));
    home
}

fn list(home: &Home, args: &[&str]) -> Vec<Value> {
    let line = [&["audit", "list", "--json", "--limit", "1000"], args].concat();
    home.keyward(&line).exits(0).json().as_array().unwrap().clone()
}

/// The entries that `list` gives for a filter are those of the whole log that fit, in its order, and neither all nor none.
#[track_caller]
fn same(home: &Home, args: &[&str], fits: impl Fn(&Value) -> bool) -> usize {
    let all = list(home, &[]);
    let want: Vec<_> = all.iter().filter(|e| fits(&e["entry"])).cloned().collect();
    assert_eq!(list(home, args), want, "{args:?}");
    assert!(!want.is_empty() && want.len() < all.len(), "{args:?}: {} of {}", want.len(), all.len());
    want.len()
}

#[test]
fn every_filter_gives_what_fits_and_nothing_else() {
    let home = home();
    let folder = std::fs::canonicalize(&home.root).unwrap().join("there").display().to_string();
    same(&home, &["--app", "sleep"], |e| e["app"] == "sleep");
    same(&home, &["--profile", "two"], |e| e["profile"] == "two");
    same(&home, &["--project", &folder], |e| e["project"] == folder.as_str());
    assert_eq!(same(&home, &["--kind", "lease.issued"], |e| e["kind"] == "lease.issued"), 4);
    let of = |family: &'static str| move |e: &Value| e["kind"].as_str().unwrap().split('.').next() == Some(family);
    for family in ["lease", "run", "vault", "profile", "credential", "secret", "request"] {
        same(&home, &["--kind", family], of(family));
    }
    assert!(same(&home, &["--outcome", "failed"], |e| e["outcome"] == "failed") >= 1);
    assert_eq!(same(&home, &["--outcome", "refused"], |e| e["outcome"] == "refused"), 1);
    same(&home, &["--text", "SLEEP"], |e| e.to_string().contains("sleep"));
    same(&home, &["--text", "sleep", "--profile", "two"], |e| e.to_string().contains("sleep") && e["profile"] == "two");
    assert!(list(&home, &["--text", "in no entry at all"]).is_empty());
    let run = list(&home, &["--kind", "run.ended"])[1]["entry"]["run"].as_str().unwrap().to_owned();
    same(&home, &["--run", &run], |e| e["run"] == run.as_str());
    let both = ["--app", "sleep", "--profile", "one", "--kind", "lease"];
    same(&home, &both, |e| e["app"] == "sleep" && e["profile"] == "one" && of("lease")(e));
    for nothing in
        [&["--app", "slee"][..], &["--profile", "on"], &["--run", "0"], &["--app", "sleep", "--profile", "no"]]
    {
        assert_eq!(list(&home, nothing), Vec::<Value>::new(), "{nothing:?}: filters compare whole words");
    }
    for bad in ["leas", "lease.", ".issued", "lease.iss", "LEASE", "%", "*", ""] {
        let said = error(&home, &["audit", "list", "--kind", bad], 1);
        assert!(said["causes"].to_string().contains("vault, secret"), "it names the families: {said}");
    }
    assert_eq!(error(&home, &["audit", "list", "--outcome", "maybe"], 1)["code"], "request.invalid");
}

#[test]
fn times_bound_the_list_on_both_sides() {
    let home = home();
    let all = list(&home, &[]);
    let at = |n: usize| all[n]["entry"]["at"].as_str().unwrap().to_owned();
    let middle = at(all.len() / 2);
    let after = same(&home, &["--since", &middle], |e| e["at"].as_str().unwrap() >= middle.as_str());
    let before = same(&home, &["--until", &middle], |e| e["at"].as_str().unwrap() < middle.as_str());
    assert_eq!(after + before, all.len(), "the two halves are the whole, and nothing is in both");
    let (from, to) = (at(3), at(all.len() - 3));
    same(&home, &["--since", &from, "--until", &to], |e| {
        let at = e["at"].as_str().unwrap();
        from.as_str() <= at && at < to.as_str()
    });
    assert_eq!(list(&home, &["--since", "1h"]).len(), all.len());
    assert_eq!(list(&home, &["--until", "1h"]).len(), 0);
    assert_eq!(list(&home, &["--since", "2001-01-01", "--until", "2002-01-01"]).len(), 0);
    for bad in ["yesterday", "", "25:00", "2026-13-01"] {
        home.keyward(&["audit", "list", "--since", bad]).exits(2).says("usage");
    }
}

#[test]
fn a_limit_keeps_the_newest_and_the_order() {
    let home = home();
    let all = list(&home, &[]);
    let seqs: Vec<_> = all.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>(), "from the first, without gaps, newest last");
    let few = home.keyward(&["audit", "list", "--json", "--limit", "3"]).exits(0).json();
    assert_eq!(few.as_array().unwrap()[..], all[all.len() - 3..]);
    let newest = home.keyward(&["audit", "list", "--json", "--limit", "1", "--profile", "two"]).exits(0).json();
    let want = all.iter().rfind(|e| e["entry"]["profile"] == "two").unwrap();
    assert_eq!(&newest[0], want, "the limit counts what fits");
    let table = home.keyward(&["audit", "list", "--limit", "2"]).exits(0);
    assert!(table.out.starts_with("SEQ ") && table.out.lines().count() == 3, "{}", table.out);
    assert!(table.err.contains("these are the newest 2; `--limit N` shows more"), "{}", table.err);
    let whole = home.keyward(&["audit", "list", "--limit", "1000"]).exits(0);
    assert!(!whole.err.contains("newest"), "{}", whole.err);
    let ats: Vec<_> = all.iter().take(2).map(|e| e["entry"]["at"].as_str().unwrap()).collect();
    assert!(ats[0] <= ats[1], "the log begins with the vault: {ats:?}");
    let none = home.keyward(&["audit", "list", "--app", "nobody"]).exits(0);
    assert!(none.out.is_empty() && none.err.contains("no entry fits"), "{none:?}");
}

#[test]
fn one_entry_is_shown_as_it_stands_in_the_chain() {
    let home = home();
    let all = list(&home, &[]);
    for entry in all.iter().step_by(5) {
        let seq = entry["seq"].to_string();
        assert_eq!(&home.keyward(&["audit", "show", &seq, "--json"]).exits(0).json(), entry);
    }
    for pair in all.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["mac"]);
    }
    let text = home.keyward(&["audit", "show", "1"]).exits(0).out;
    assert!(text.contains("vault.initialised") && text.contains(all[0]["mac"].as_str().unwrap()), "{text}");
    for missing in ["0", "999999", "18446744073709551615"] {
        let code = error(&home, &["audit", "show", missing], 1)["code"].clone();
        assert_eq!(code, "audit.unknown", "{missing}");
    }
    home.keyward(&["audit", "show", "-1"]).exits(2);
    home.keyward(&["audit", "show", "x"]).exits(2);
}

#[test]
fn a_log_of_more_than_a_page_is_listed_whole() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let child = waiting_run(&home, "p");
    // Each of them is one entry, made over the wire since a thousand programs take long to start.
    let mut wire = keyward_testkit::Wire::open(&home.socket());
    let proof = serde_json::json!({"passphrase": keyward_testkit::PASSPHRASE}).to_string();
    wire.send("POST", "/v1/operator", &[], proof.as_bytes());
    assert_eq!(wire.reply().map(|r| r.status), Some(200), "what is stored is replaced by a person alone");
    for n in 0..1_050 {
        wire.send("PUT", &format!("/v1/secrets/s{}", n % 10), &[], b"{\"secret\":\"x\"}");
        assert_eq!(wire.reply().map(|r| r.status), Some(204));
    }
    let line = ["audit", "list", "--json", "--limit", "5000"];
    let all = home.keyward(&line).exits(0).json().as_array().unwrap().clone();
    assert!(all.len() > 1_050, "{}", all.len());
    assert!(all.iter().enumerate().all(|(n, e)| e["seq"] == n as u64 + 1));
    assert_eq!(home.keyward(&["audit", "verify", "--json"]).exits(0).json()["entries"], all.len());
    drop(child);
}
