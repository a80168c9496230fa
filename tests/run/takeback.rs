//! `ps` and `revoke`.

use crate::{ask, entries, entry, lease, ps, shell};
use keyward_testkit::{Home, Talk};
use serde_json::Value;

/// Three runs: `a` by variable, `b` by file, and both.
fn three() -> (Home, [Talk; 3]) {
    let home = Home::with_vault();
    home.static_profile("a", "s3cret", "A");
    home.static_profile("b", "s3cret", "B_FILE");
    let runs = [
        shell(&home, &["-p", "a"]),
        shell(&home, &["-p", "b", "--deliver", "file"]),
        shell(&home, &["-p", "a", "-p", "b", "--deliver", "file"]),
    ];
    (home, runs)
}

fn run_of(home: &Home, child: &Talk) -> Value {
    ps(home).into_iter().find(|r| r["pid"] == child.pid()).unwrap()
}

/// The states of all leases of a run.
fn states(home: &Home, child: &Talk) -> Vec<String> {
    let run = run_of(home, child);
    run["leases"].as_array().unwrap().iter().map(|l| l["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn ps_has_the_form_that_programs_rely_on() {
    let (home, [one, _two, three]) = three();
    std::fs::create_dir_all(home.root.join("repo/.git")).unwrap();
    std::fs::create_dir_all(home.root.join("repo/deep")).unwrap();
    let mut command = home.keyward_command(&["run", "-p", "a", "--", "sh"]);
    command.current_dir(home.root.join("repo/deep"));
    let mut placed = Talk::start(command);
    assert_eq!(ask(&mut placed, "echo in"), "in");
    let listed = ps(&home);
    assert_eq!(listed.len(), 4);
    for run in &listed {
        for field in ["run", "app", "project", "started_at"] {
            assert!(run[field].as_str().is_some_and(|s| !s.is_empty()), "{field}: {run}");
        }
        assert!(run["pid"].is_u64() && run["app"] == "sh" && run["app_verified"] == true, "{run}");
        for lease in run["leases"].as_array().unwrap() {
            for field in ["lease", "profile", "delivery", "state", "issued_at", "expires_at"] {
                assert!(lease[field].as_str().is_some_and(|s| !s.is_empty()), "{field}: {lease}");
            }
            assert!(lease["renewals"].is_u64() && lease.get("uses").is_some_and(Value::is_null), "{lease}");
        }
    }
    assert_eq!(run_of(&home, &three)["leases"].as_array().map(Vec::len), Some(2));
    let root = std::fs::canonicalize(&home.root).unwrap();
    assert_eq!(run_of(&home, &one)["project"], root.to_str().unwrap());
    assert_eq!(run_of(&home, &placed)["project"], root.join("repo").to_str().unwrap(), "the repository around it");
    let text = home.keyward(&["ps"]).exits(0).out;
    assert!(text.starts_with("RUN ") && text.contains(&one.pid().to_string()), "{text}");
    assert!(!text.contains("s3cret"));
    let status = home.keyward(&["status", "--json"]).exits(0).json();
    assert_eq!((&status["runs"], &status["leases"]), (&4.into(), &5.into()));
}

#[test]
fn a_run_is_taken_back_by_its_id_long_or_short() {
    let (home, [mut one, two, three]) = three();
    let id = run_of(&home, &one)["run"].as_str().unwrap().to_owned();
    let shown = home.keyward(&["ps"]).exits(0).out;
    let short = &id[id.len() - 8..];
    assert!(shown.lines().any(|l| l.starts_with(&format!("{short} "))), "{shown}");
    let answer = home.keyward(&["revoke", short, "--json"]).exits(0).json();
    assert_eq!((&answer["leases"], &answer["runs"][0]["run"]), (&1.into(), &id.as_str().into()));
    let remains = answer["runs"][0]["remains"][0].as_str().unwrap();
    assert!(remains.contains("`a` stays in the environment"), "it says what cannot be taken back: {remains}");
    assert_eq!(states(&home, &one), ["revoked"]);
    assert_eq!((states(&home, &two), states(&home, &three)), (vec!["live".into()], vec!["live".into(), "live".into()]));
    assert_eq!(ask(&mut one, "echo alive $A"), "alive s3cret", "what it has read stays with it");
    let long = run_of(&home, &three)["run"].as_str().unwrap().to_owned();
    let answer = home.keyward(&["revoke", &long, "--json"]).exits(0).json();
    assert_eq!((&answer["leases"], answer["runs"][0]["remains"].as_array().map(Vec::len)), (&2.into(), Some(2)));
    let remains = answer["runs"][0]["remains"][1].as_str().unwrap();
    assert!(remains.contains("read of `b` from its file before stays good"), "nor what was read: {remains}");
    let again = home.keyward(&["revoke", &long, "--json"]).exits(0).json();
    assert_eq!(again["leases"], 0, "what is taken back already is no error");
    let entry = entry(&home, "lease.revoked", 3);
    assert!(entry["peer"]["pid"].is_number() && entry["run"] == long.as_str(), "{entry}");
}

#[test]
fn a_profile_is_taken_back_from_all_runs_and_all_means_all() {
    let (home, [one, two, three]) = three();
    let answer = home.keyward(&["revoke", "b", "--json"]).exits(0).json();
    assert_eq!((&answer["leases"], answer["runs"].as_array().map(Vec::len)), (&2.into(), Some(2)));
    assert_eq!(states(&home, &one), ["live"]);
    assert_eq!(states(&home, &two), ["revoked"]);
    assert_eq!(states(&home, &three), ["live", "revoked"]);
    let text = home.keyward(&["revoke", "--all"]).exits(0).out;
    assert!(text.contains("took back 2 leases of 2 runs"), "{text}");
    assert_eq!(states(&home, &three), ["revoked", "revoked"]);
    let none = home.keyward(&["revoke", "--all", "--json"]).exits(0).json();
    assert_eq!((&none["leases"], none["runs"].as_array().map(Vec::len)), (&0.into(), Some(0)));
    let fresh = shell(&home, &["-p", "b"]);
    assert_eq!(lease(&home, fresh.pid())["state"], "live", "a revoked profile can be used anew");
}

#[test]
fn what_is_not_known_is_an_error_and_takes_nothing() {
    let (home, [one, ..]) = three();
    let id = run_of(&home, &one)["run"].as_str().unwrap().to_owned();
    // All ids that were made in the same minute begin alike, so a beginning names nothing.
    for unknown in ["nobody", "00000000-0000-7000-8000-000000000000", &id[..8], &id[id.len() - 3..], "*", "all"] {
        home.keyward(&["revoke", unknown]).exits(1).says("run.unknown");
    }
    home.keyward(&["revoke"]).exits(2).says("usage");
    home.keyward(&["revoke", "a", "--all"]).exits(2).says("usage");
    assert_eq!(entries(&home, "lease.revoked").len(), 0);
    home.static_profile("idle", "s3cret", "I");
    let idle = home.keyward(&["revoke", "idle", "--json"]).exits(0).json();
    assert_eq!(idle["leases"], 0, "a profile that nobody holds is known");
}

#[test]
fn removing_a_profile_takes_it_back_first() {
    let (home, [_one, mut two, _three]) = three();
    let path = ask(&mut two, "echo $B_FILE");
    home.keyward(&["profile", "remove", "b"]).exits(0);
    assert!(!std::path::Path::new(&path).exists());
    assert_eq!(states(&home, &two), ["revoked"]);
    home.keyward(&["run", "-p", "b", "--", "true"]).exits(125).says("profile.unknown");
}
