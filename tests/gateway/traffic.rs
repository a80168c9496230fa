//! What happens to the vault while calls go on: an auto-lock, a full disk, old entries that leave the database.

use crate::upstream::KEY;
use crate::{Upstream, ask, profile, shell};
use keyward_testkit::{Home, PASSPHRASE, Talk, Wire, wait_at_most, wait_for};
use serde_json::{Value, json};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

/// Makes calls until there is a file `stop`, or no home any more; the status of each goes into `codes`, one a line.
const CALLS: &str = "while [ -e kw ] && [ ! -e stop ]; do curl -s -o answer -w '%{http_code}\\n' -m 20 -H \"x-api-key: $ANTHROPIC_AUTH_TOKEN\" -d '{}' \"$ANTHROPIC_BASE_URL/v1/messages\" >>codes; sleep 0.05; done; echo over >>codes";

/// The statuses so far.
fn codes(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(home.root.join("codes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for so many more calls, and gives what came since.
#[track_caller]
fn more(home: &Home, n: usize) -> Vec<String> {
    let before = codes(home).len();
    wait_at_most(Duration::from_secs(60), "further calls", || codes(home).len() >= before + n);
    codes(home).split_off(before)
}

#[track_caller]
fn stop(home: &Home) {
    std::fs::write(home.root.join("stop"), "").unwrap();
    wait_for("the last call", || codes(home).last().is_some_and(|line| line == "over"));
}

/// All entries of the log, which are more than one page.
fn audit(home: &Home) -> Vec<Value> {
    let listed = home.keyward(&["audit", "list", "--json", "--limit", "100000"]).exits(0).json();
    listed.as_array().unwrap().iter().map(|one| one["entry"].clone()).collect()
}

/// How many calls the log has, and how many ends of them.
fn logged(entries: &[Value]) -> (usize, usize) {
    let uses = |kind: &'static str| {
        let of = entries.iter().filter(move |e| e["kind"] == kind);
        of.flat_map(|e| e["detail"]["uses"].as_array().unwrap())
    };
    let whole = uses("credential.used").filter(|one| one["status"].is_u64()).count();
    (uses("credential.used").count(), whole + uses("credential.use_ended").count())
}

#[test]
fn calls_go_on_through_an_auto_lock_and_are_recorded() {
    let home = Home::new();
    let config = home.keyward_home().join("config");
    DirBuilder::new().recursive(true).mode(0o700).create(&config).unwrap();
    std::fs::write(config.join("config.toml"), "auto_lock = \"1m\"\n").unwrap();
    home.init();
    let upstream = Upstream::start();
    home.secret("k", KEY);
    profile(&home, &upstream, "k", "");
    let mut child = shell(&home, "k");
    assert_eq!(ask(&mut child, &format!("({CALLS}) & echo begun")), "begun");
    let locked = || home.keyward(&["status", "--json"]).exits(0).json()["vault"]["auto_locked"] == true;
    wait_at_most(Duration::from_secs(75), "the auto-lock, which calls do not put off", locked);
    assert!(more(&home, 50).iter().all(|code| code == "200"), "a live lease goes on");
    home.keyward(&["run", "-p", "k", "--", "true"]).exits(125).says("vault.locked");
    stop(&home);
    assert!(codes(&home).iter().rev().skip(1).all(|code| code == "200"), "none failed");
    home.unlock();
    let calls = upstream.seen().len();
    wait_for("all calls in the log", || logged(&audit(&home)) == (calls, calls));
    home.keyward(&["audit", "verify"]).exits(0);
    child.send(b"exit 0\n");
    child.end().exits(0);
}

/// A home whose data folder is a tmpfs of a few MiB, in a mount namespace of its own; all commands go through its shell.
struct Small {
    shell: Talk,
    home: Home,
}

impl Small {
    fn new() -> Self {
        let home = Home::new();
        let data = home.keyward_home().join("data");
        DirBuilder::new().recursive(true).mode(0o700).create(&data).unwrap();
        let mut command = home.command("unshare");
        command.args([if rustix::process::geteuid().is_root() { "-m" } else { "-rm" }, "--", "sh"]);
        let mut small = Self { shell: Talk::start(command), home };
        let line = format!("mount -t tmpfs -o size=3m,mode=700 kw {}", data.display());
        assert_eq!(small.does(&line), 0, "a mount namespace is needed: as root, or with user namespaces");
        assert_eq!(small.does(&format!("printf %s '{PASSPHRASE}' | keyward init --passphrase-stdin")), 0);
        small
    }

    /// Exit code of a line of shell; what it says is in `out`.
    fn does(&mut self, line: &str) -> i32 {
        self.shell.send(format!("{{ {line}; }} >out 2>&1 </dev/null; echo \"exit $?\"\n").as_bytes());
        let said = self.shell.line();
        said.strip_prefix("exit ").and_then(|n| n.parse().ok()).unwrap_or(-1)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.root.join("out")).unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.shell.send(b"touch stop; keyward broker stop >out 2>&1\nexit\n");
        self.shell.close();
    }
}

#[test]
fn on_a_full_disk_calls_stop_and_go_on_when_there_is_room_and_none_is_unrecorded() {
    let upstream = Upstream::start();
    let mut small = Small::new();
    let toml = format!(
        "[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\nbase_url = \"http://127.0.0.1:{}\"\n",
        upstream.port
    );
    std::fs::write(small.home.root.join("k.toml"), toml).unwrap();
    std::fs::write(small.home.root.join("calls"), CALLS).unwrap();
    assert_eq!(small.does(&format!("printf %s {KEY} | keyward secret set k")), 0, "{}", small.said());
    assert_eq!(small.does("keyward profile add k --from k.toml"), 0, "{}", small.said());
    assert_eq!(small.does("keyward run -p k -- sh ./calls & true"), 0);
    let first = more(&small.home, 20);
    assert!(first.iter().all(|code| code == "200"), "{first:?}");

    // The room that is left in the log of the database is used up first; what it gives back is filled again.
    let fill = "(while [ -e kw ] && [ ! -e free ]; do cat /dev/zero >>kw/data/fill; sleep 0.1; done; rm kw/data/fill; touch freed) >/dev/null 2>&1 & \
                while printf x | keyward secret set s; do :; done";
    assert_eq!(small.does(fill), 0);
    wait_at_most(Duration::from_secs(120), "the refusals", || {
        let passed = upstream.seen().len();
        let refused = more(&small.home, 30).iter().all(|code| code == "503");
        assert!(!refused || upstream.seen().len() == passed, "nothing leaves that is not in the log");
        refused
    });
    let answer = std::fs::read_to_string(small.home.root.join("answer")).unwrap();
    assert!(answer.contains("audit.unavailable") && answer.contains("\"type\":\"error\""), "{answer}");

    small.does("touch free");
    wait_for("room on the disk", || small.home.root.join("freed").exists());
    wait_at_most(Duration::from_secs(60), "calls that pass", || more(&small.home, 20).iter().all(|code| code == "200"));
    stop(&small.home);
    let calls = upstream.seen().len();
    let codes = codes(&small.home);
    assert_eq!(codes.iter().filter(|code| *code == "200").count(), calls, "what passed was answered");
    wait_for("all calls in the log", || {
        assert_eq!(small.does("keyward audit list --json --limit 100000"), 0, "{}", small.said());
        let entries: Vec<Value> = serde_json::from_str(&small.said()).unwrap();
        let entries: Vec<Value> = entries.into_iter().map(|one| one["entry"].clone()).collect();
        logged(&entries) == (calls, calls)
    });
    assert_eq!(small.does("keyward audit verify"), 0, "{}", small.said());
}

#[test]
fn old_entries_leave_the_database_while_calls_go_on() {
    // The program that is built for tests has a short log.
    let home = Home::with_broker("keyward-broker-fault");
    home.init();
    let upstream = Upstream::start();
    home.secret("k", KEY);
    profile(&home, &upstream, "k", "");
    let mut child = shell(&home, "k");
    assert_eq!(ask(&mut child, &format!("({CALLS}) & echo begun")), "begun");
    let mut wire = Wire::open(&home.socket());
    let mut request = |method: &str, path: &str, body: serde_json::Value| {
        wire.send(method, path, &[], body.to_string().as_bytes());
        let reply = wire.reply().unwrap();
        assert!((200..300).contains(&reply.status), "{method} {path}: {reply:?}");
    };
    request("POST", "/v1/operator", json!({"passphrase": PASSPHRASE}));
    for n in 0..750 {
        request("PUT", &format!("/v1/secrets/s{n}"), json!({"secret": "x", "only_new": true}));
        request("DELETE", &format!("/v1/secrets/s{n}"), json!({}));
    }
    let archived = || audit(&home).iter().any(|e| e["kind"] == "audit.archived");
    wait_at_most(Duration::from_secs(30), "a segment", archived);
    assert!(std::fs::read_dir(home.keyward_home().join("data/archive")).unwrap().next().is_some());
    assert!(more(&home, 20).iter().all(|code| code == "200"));
    stop(&home);
    assert!(codes(&home).iter().rev().skip(1).all(|code| code == "200"), "none failed");
    let calls = upstream.seen().len();
    wait_for("all calls in the log", || logged(&audit(&home)) == (calls, calls));
    let entries = audit(&home);
    let numbers: Vec<u64> = entries.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "from the archive and the database, without a gap");
    home.keyward(&["audit", "verify"]).exits(0);
    child.send(b"exit 0\n");
    child.end().exits(0);
}
