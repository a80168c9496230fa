//! Lock takes everything back and says what remains.

use crate::{entries, is_whole, with_profile};
use keyward_testkit::{Home, Talk, wait_for};
use std::path::PathBuf;

fn shell(home: &Home, args: &[&str]) -> Talk {
    let mut talk = Talk::start(home.keyward_command(&[&["run"], args, &["--", "sh"]].concat()));
    talk.send(b"echo ready\n");
    assert_eq!(talk.line(), "ready");
    talk
}

#[test]
fn a_lock_removes_the_files_and_names_what_stays_in_environments() {
    let home = with_profile("s3cret");
    home.static_profile("f", "in a file", "F");
    let mut by_file = shell(&home, &["-p", "f", "--deliver", "file"]);
    by_file.send(b"echo $F\n");
    let path = PathBuf::from(by_file.line());
    let by_env = shell(&home, &["-p", "p"]);
    let mut idle = Talk::start(home.command("sh"));
    let answer = home.keyward(&["lock", "--json"]).exits(0).json();
    assert!(!path.exists(), "the file is gone");
    let runs = answer["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{answer}");
    let of = |pid: i32| runs.iter().find(|r| r["pid"] == pid).unwrap();
    let (file, env) = (of(by_file.pid()), of(by_env.pid()));
    assert_eq!((&file["profiles"][0], file["remains"].as_array().map(Vec::len)), (&"f".into(), Some(1)));
    assert_eq!(env["profiles"][0], "p");
    let remains = env["remains"][0].as_str().unwrap();
    assert!(remains.contains("`p` stays in the environment"), "{remains}");
    assert_eq!(home.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"], "locked");
    for command in [&["secret", "list"][..], &["audit", "list"], &["token", "p"], &["audit", "verify"]] {
        home.keyward(command).exits(3).says("vault.locked");
    }
    home.unlock();
    assert!(!path.exists(), "unlocking gives nothing back");
    let revoked = entries(&home, "lease.revoked");
    assert_eq!(revoked.len(), 2, "{revoked:?}");
    assert!(revoked.iter().any(|e| e["detail"]["remains"].is_string()) && entries(&home, "vault.locked").len() == 1);
    is_whole(&home, "s3cret");
    idle.close();
}

#[test]
fn a_lock_says_in_words_how_many_runs_lose_what() {
    let home = with_profile("s3cret");
    let children = [shell(&home, &["-p", "p"]), shell(&home, &["-p", "p"])];
    let text = home.keyward(&["lock"]).exits(0).out;
    assert!(text.contains("2 runs lost their credentials"), "{text}");
    for child in &children {
        assert!(text.contains(&format!("(pid {})", child.pid())), "{text}");
    }
    home.unlock();
    let alone = shell(&home, &["-p", "p"]);
    let text = home.keyward(&["lock"]).exits(0).out;
    assert!(text.contains("1 run lost its credentials"), "{text}");
    drop(alone);
    let again = home.keyward(&["lock"]).exits(0).out;
    assert!(again.contains("no run was alive"), "{again}");
}

#[test]
fn a_lock_during_an_exchange_ends_it() {
    let home = Home::with_vault();
    let gate = home.root.join("gate");
    let toml = format!(
        "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"-c\", \"touch {0}.asked; while [ ! -e {0} ]; do sleep 0.02; done; \
         echo '{{\\\"token\\\": \\\"late\\\", \\\"expires_in\\\": 600}}'\"]\n[delivery]\nmode = \"env\"\nenv = {{ T = \"token\" }}\n",
        gate.display()
    );
    home.profile("slow", &toml);
    let child = Talk::start(home.keyward_command(&["run", "-p", "slow", "--", "sh", "-c", "echo $T >>got"]));
    wait_for("the exchange", || home.root.join("gate.asked").exists());
    home.keyward(&["lock"]).exits(0);
    std::fs::write(&gate, "").unwrap();
    child.end().exits(125).says("vault.locked");
    assert!(!home.root.join("got").exists());
    home.unlock();
    assert!(entries(&home, "credential.delivered").is_empty());
}
