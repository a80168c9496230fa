//! A full disk: a few MiB of tmpfs in the place of the data folder, in a mount namespace of the test.

use keyward_testkit::{Home, PASSPHRASE, Talk};

/// A shell in which the data folder is a small tmpfs. All commands of the test go through it: outside there is no such folder.
struct Small {
    shell: Talk,
    home: Home,
}

/// What a command answered in the [`Small`] home.
#[derive(Debug)]
struct Said {
    exit: i32,
    text: String,
}

impl Small {
    fn new() -> Self {
        let home = Home::new();
        let data = home.keyward_home().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut command = home.command("unshare");
        command.args([if root { "-m" } else { "-rm" }, "--", "sh"]);
        let mut shell = Talk::start(command);
        // The folders that the standard library makes are open for reading.
        let line = format!(
            "chmod 700 {0}/.. {0} && mount -t tmpfs -o size=2m,mode=700 kw {0} && echo mounted\n",
            data.display()
        );
        shell.send(line.as_bytes());
        assert_eq!(
            shell.line(),
            "mounted",
            "a mount namespace is needed: as root, or with user namespaces: {}",
            shell.err()
        );
        let mut small = Self { shell, home };
        small.with("keyward init --passphrase-stdin", PASSPHRASE).exits(0);
        small
    }

    /// Runs a line of shell; both outputs are kept.
    #[track_caller]
    fn does(&mut self, line: &str) -> Said {
        self.shell.send(format!("{{ {line}; }} >out 2>&1 </dev/null; echo \"exit $?\"\n").as_bytes());
        let said = self.shell.line();
        let exit = said.strip_prefix("exit ").and_then(|n| n.parse().ok()).unwrap_or(-1);
        Said { exit, text: std::fs::read_to_string(self.home.root.join("out")).unwrap() }
    }

    /// As [`Small::does`], with this on the standard input of the last command.
    #[track_caller]
    fn with(&mut self, line: &str, input: &str) -> Said {
        self.does(&format!("printf %s '{input}' | {line}"))
    }

    fn fill(&mut self) {
        let filled = self.does("cat /dev/zero >kw/data/fill; test -s kw/data/fill");
        assert_eq!(filled.exit, 0, "{filled:?}");
    }

    fn free(&mut self) {
        self.does("rm kw/data/fill").exits(0);
    }
}

impl Said {
    #[track_caller]
    fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{}", self.text);
        self
    }

    #[track_caller]
    fn says(self, code: &str) -> Self {
        assert!(self.text.contains(&format!("[{code}]")), "{code} expected: {}", self.text);
        self
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.shell.send(b"keyward broker stop >out 2>&1\nexit\n");
        self.shell.close();
    }
}

const RUN: &str = "keyward run -p p -- sh -c 'echo \"$T\" >>got'";

/// How many children got their credential.
fn received(small: &Small) -> usize {
    std::fs::read_to_string(small.home.root.join("got")).unwrap_or_default().lines().filter(|l| *l == "s3cret").count()
}

fn delivered(small: &mut Small) -> usize {
    let listed = small.does("keyward audit list --kind credential.delivered --json --limit 100000").exits(0);
    listed.text.matches("\"credential.delivered\"").count()
}

fn with_profile() -> Small {
    let mut small = Small::new();
    small.with("keyward secret set p", "s3cret").exits(0);
    let toml = "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nenv = { T = \"token\" }\n";
    std::fs::write(small.home.root.join("p.toml"), toml).unwrap();
    small.does("keyward profile add p --from p.toml").exits(0);
    small.does(RUN).exits(0);
    small
}

#[test]
fn a_full_disk_refuses_changes_and_deliveries_and_loses_nothing() {
    let mut small = with_profile();
    small.fill();
    let mut stored = 0;
    let refused = loop {
        let said = small.with(&format!("keyward secret set s{stored}"), "kept");
        if said.exit != 0 {
            break said;
        }
        stored += 1;
        assert!(stored < 2000, "the disk never becomes full");
    };
    refused.exits(1).says("vault.disk_full");
    let before = received(&small);
    let mut runs = 0;
    let refused = loop {
        let said = small.does(RUN);
        if said.exit != 0 {
            break said;
        }
        runs += 1;
        assert!(runs < 2000, "the disk never becomes full");
    };
    refused.exits(125).says("audit.unavailable");
    small.does(RUN).exits(125).says("audit.unavailable");
    assert_eq!(received(&small), before + runs, "a refused run gets nothing");
    small.with("keyward secret set p", "changed").exits(1).says("vault.disk_full");
    small.does("keyward token p").exits(1).says("audit.unavailable");
    small.free();
    small.does(RUN).exits(0);
    assert_eq!(received(&small), before + runs + 1, "and it works again");
    assert_eq!(delivered(&mut small), received(&small), "each delivery has its entry");
    small.does("keyward audit verify").exits(0);
    let listed = small.does("keyward secret list --json").exits(0).text;
    for n in 0..stored {
        assert!(listed.contains(&format!("\"s{n}\"")), "s{n} was acknowledged: {listed}");
    }
    assert!(!listed.contains(&format!("\"s{stored}\"")), "s{stored} was refused");
    let shown = small.with("keyward secret reveal p --passphrase-stdin", PASSPHRASE).exits(0);
    assert_eq!(shown.text.trim(), "s3cret", "a change that was refused did not happen");
}

#[test]
fn a_vault_on_a_full_disk_can_be_taken_back_from_and_opened_again() {
    let mut small = with_profile();
    small.fill();
    // The room that is left in the log of the database is used up first.
    while small.with("keyward secret set s", "x").exit == 0 {}
    small.does("keyward broker stop");
    let opened = small.with("keyward unlock --passphrase-stdin", PASSPHRASE);
    if opened.exit != 0 {
        opened.exits(1).says("vault.disk_full");
    }
    small.free();
    small.with("keyward unlock --passphrase-stdin", PASSPHRASE).exits(0);
    small.does(RUN).exits(0);
    small.does("keyward audit verify").exits(0);
    assert_eq!(delivered(&mut small), received(&small));
}

#[test]
fn a_grant_that_was_taken_back_on_a_full_disk_does_not_come_back() {
    for panic in [false, true] {
        let mut small = with_profile();
        let added = small.with("keyward grant add --profile p --passphrase-stdin --json", PASSPHRASE).exits(0).text;
        let added: serde_json::Value = serde_json::from_str(&added).unwrap();
        small.fill();
        while small.with("keyward secret set s", "x").exit == 0 {}
        let line = format!("keyward grant revoke {}", added["grant"].as_str().unwrap());
        small.does(if panic { "keyward revoke --all" } else { &line }).exits(1).says("vault.disk_full");
        small.free();
        small.does("keyward lock").exits(0);
        small.with("keyward unlock --passphrase-stdin", PASSPHRASE).exits(0);
        assert_eq!(small.does("keyward grant list --json").exits(0).text.trim(), "[]");
        let revoked = small.does("keyward audit list --kind grant.revoked --json").exits(0).text;
        assert_eq!(revoked.matches("\"grant.revoked\"").count(), 1, "{revoked}");
        // The vault itself has it no more.
        small.does("keyward broker stop").exits(0);
        small.with("keyward unlock --passphrase-stdin", PASSPHRASE).exits(0);
        assert_eq!(small.does("keyward grant list --json").exits(0).text.trim(), "[]");
        small.does("keyward audit verify").exits(0);
    }
}

#[test]
fn rekey_backup_and_restore_on_a_full_disk_leave_the_vault_as_it_was() {
    let mut small = with_profile();
    small.does("keyward vault backup saved").exits(0);
    // An entry more, so that the log of the database has room for that of the backup.
    small.with("keyward secret set q", "x").exits(0);
    small.fill();
    small.does("keyward vault backup kw/data/saved").exits(1).says("vault.disk_full");
    let lines = format!("{PASSPHRASE}\nthe next passphrase of this vault");
    small
        .does(&format!("printf '{}' | keyward vault rekey --passphrase-stdin", lines.replace('\n', "\\n")))
        .exits(1)
        .says("vault.disk_full");
    small.with("keyward vault restore saved --replace --passphrase-stdin", PASSPHRASE).exits(1).says("vault.disk_full");
    small.free();
    small.with("keyward unlock --passphrase-stdin", PASSPHRASE).exits(0);
    small
        .with("keyward unlock --passphrase-stdin", "the next passphrase of this vault")
        .exits(1)
        .says("vault.wrong_passphrase");
    small.does(RUN).exits(0);
    small.does("keyward audit verify").exits(0);
    let left = small.does("ls kw/data").exits(0).text;
    assert!(!left.contains("draft") && !left.contains(".new") && !left.contains("saved"), "{left}");
}

#[test]
fn a_lock_that_a_full_disk_kept_out_of_the_log_is_recorded_later() {
    let mut small = with_profile();
    // A run whose lease the lock takes back.
    small.does("keyward run -p p -- sleep 600 & until keyward ps --json | grep -q '\"app_verified\":true'; do sleep 0.05; done");
    small.fill();
    while small.with("keyward secret set s", "x").exit == 0 {}
    small.does("keyward lock").exits(1).says("vault.disk_full");
    let state = small.does("keyward status --json").exits(0).text;
    assert!(state.contains("\"locked\""), "what cannot be recorded is done all the same: {state}");
    small.free();
    small.with("keyward unlock --passphrase-stdin", PASSPHRASE).exits(0);
    let told = small.does("keyward audit list --json --limit 1000").exits(0).text;
    let place = |kind: &str| told.rfind(&format!("\"kind\":\"{kind}\"")).unwrap();
    assert!(place("lease.revoked") < place("vault.locked") && place("vault.locked") < place("vault.unlocked"));
    assert_eq!(told.matches("\"kind\":\"vault.locked\"").count(), 1);
    small.does("keyward audit verify").exits(0);
    let left = small.does("keyward ps --json").exits(0).text;
    assert!(left.contains("\"revoked\"") && !left.contains("\"state\":\"live\""), "{left}");
    small.does("kill %1");
}
