//! `keyward.toml`: what a project asks for, who has looked at it, and what a changed one gets.

use crate::{entries, entry, ps};
use keyward_testkit::{Answer, Home, PASSPHRASE, Talk, run};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A home with a project in it, and a folder below its root to ask from.
struct Project {
    home: Home,
    root: PathBuf,
}

impl Project {
    fn new() -> Self {
        let home = Home::with_vault();
        home.static_profile("pg", "s3cret-pg", "DATABASE_URL");
        home.static_profile("other", "s3cret-other", "OTHER");
        let root = home.root.join("project");
        std::fs::create_dir_all(root.join(".git")).unwrap();
        std::fs::create_dir_all(root.join("deep/er")).unwrap();
        Self { home, root }
    }

    fn put(&self, text: &str) {
        std::fs::write(self.root.join("keyward.toml"), text).unwrap();
    }

    /// A command below the root, as a direct child of the process that has opened the vault.
    fn keyward(&self, args: &[&str]) -> Answer {
        let mut command = self.home.keyward_command(args);
        command.current_dir(self.root.join("deep/er"));
        run(command, b"")
    }

    /// The same as a grandchild: one who has to ask.
    fn requester(&self, line: &str) -> Answer {
        let mut command = self.home.command("sh");
        command.current_dir(self.root.join("deep/er")).args(["-c", &format!("{line}; exit $?")]);
        run(command, b"")
    }

    /// The same on a terminal.
    fn on_terminal(&self, line: &str) -> Talk {
        let line = format!("cd {} && exec {line}", self.root.join("deep/er").display());
        Talk::on_terminal(&self.home, &["sh", "-c", &line], &[])
    }

    /// Has the file looked at and allowed.
    fn review(&self, args: &str) {
        let mut talk = self.on_terminal(&format!("keyward run {args}"));
        talk.until("[y/N] ");
        talk.send(b"y\r");
        talk.end().exits(0);
    }

    fn reviews(&self) -> Vec<Value> {
        entries(&self.home, "project.reviewed")
    }
}

const DEV: &str = "[run.dev]\nenv = { DATABASE_URL = \"keyward:pg\" }\ncommand = [\"./show\", \"$DATABASE_URL\"]\n";

/// A project whose run says the variable, its arguments and its folder.
fn showing() -> Project {
    let project = Project::new();
    crate::program(&project.home, "project/show", "#!/bin/sh\necho \"$DATABASE_URL $* $(pwd -P)\"\n", "755");
    project.put(DEV);
    project
}

#[test]
fn a_named_run_is_looked_at_once_and_starts_its_command_in_the_folder_of_the_file() {
    let project = showing();
    let mut talk = project.on_terminal("keyward run dev -- one");
    let asked = talk.until("May the project ask for this? [y/N] ");
    let path = project.root.join("keyward.toml");
    assert!(asked.contains(&format!("{}: [run.dev] asks for pg", path.display())), "{asked}");
    for line in DEV.lines() {
        assert!(asked.contains(&format!("  + {line}\r\n")), "{line}: {asked}");
    }
    talk.send(b"y\r");
    let said = format!("s3cret-pg $DATABASE_URL one {}", project.root.canonicalize().unwrap().display());
    talk.until(&said);
    talk.end().exits(0);
    let reviewed = entry(&project.home, "project.reviewed", 1);
    assert_eq!(reviewed["project"], project.root.display().to_string());
    assert_eq!(reviewed["detail"]["lines_added"], 3);
    let digest = crate::sh(&project.home, &format!("sha256sum {}", path.display())).exits(0).out;
    assert_eq!(reviewed["detail"]["digest"], digest.split(' ').next().unwrap());
    assert!(!reviewed.to_string().contains("keyward:pg"), "the log holds the digest, not the text");
    // From then on nobody asks, on a terminal or not, from wherever in the project.
    assert_eq!(project.keyward(&["run", "dev"]).exits(0).out, said.replace(" one", "") + "\n");
    assert_eq!(project.reviews().len(), 1);
}

#[test]
fn without_a_terminal_an_unreviewed_file_gets_nothing_and_is_shown() {
    let project = showing();
    for args in [&["run", "dev"][..], &["run", "--", "true"], &["--no-input", "run", "dev"]] {
        let refused = project.keyward(args).exits(125).says("project.unreviewed");
        assert!(refused.err.contains("+ env = { DATABASE_URL = \"keyward:pg\" }"), "{}", refused.err);
        assert!(refused.out.is_empty() && refused.err.contains("terminal"), "{}", refused.err);
    }
    assert_eq!((entries(&project.home, "run.requested").len(), project.reviews().len()), (0, 0));
    for answer in ["\r", "n\r", "maybe\rmaybe\rmaybe\r"] {
        let mut talk = project.on_terminal("keyward run dev");
        talk.until("[y/N] ");
        talk.send(answer.as_bytes());
        assert!(talk.end().exits(125).out.contains("project.unreviewed"));
    }
    // What was typed before the question is no answer to it.
    let mut talk = project.on_terminal("keyward run dev");
    talk.send(b"y\ry\r");
    talk.until("[y/N] ");
    talk.send(b"n\r");
    assert!(talk.end().exits(125).out.contains("project.unreviewed"));
    assert!(project.reviews().is_empty() && ps(&project.home).is_empty());
}

#[test]
fn a_changed_file_is_shown_as_a_difference_and_counts_once_it_is_allowed() {
    let project = showing();
    project.review("dev");
    project.put(&DEV.replace("[run.dev]\n", "[run.dev]\nprofiles = [\"other\"]\n"));
    let refused = project.keyward(&["--json", "run", "dev"]).exits(125).says("project.unreviewed").err;
    let causes = serde_json::from_str::<Value>(&refused).unwrap()["error"]["causes"].clone();
    let lines: Vec<&str> = causes.as_array().unwrap().iter().skip(1).map(|line| line.as_str().unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>(), [&"+ profiles = [\"other\"]"]);
    assert!(lines.contains(&"  [run.dev]"), "{lines:?}");
    // What was reviewed before still is: the text decides, not its time.
    project.put(DEV);
    project.keyward(&["run", "dev"]).exits(0);
    // A comment is a change, too.
    project.put(&format!("{DEV}# and more\n"));
    project.keyward(&["run", "dev"]).exits(125).says("project.unreviewed");
    project.review("dev");
    project.keyward(&["run", "dev"]).exits(0);
    project.put(DEV);
    let back = project.keyward(&["run", "dev"]).exits(125).says("project.unreviewed");
    assert!(back.err.contains("- # and more"), "the last one that was allowed counts: {}", back.err);
    // It outlives the broker.
    project.put(&format!("{DEV}# and more\n"));
    project.home.crash_broker();
    project.home.unlock();
    project.keyward(&["run", "dev"]).exits(0);
    // More than a person can be shown is not asked for in part.
    project.put(&format!("{DEV}{}", "# x\n".repeat(61)));
    let long = project.keyward(&["run", "dev"]).exits(125).says("project.invalid");
    assert!(long.err.contains("lines changed"), "{}", long.err);
}

#[test]
fn a_word_before_the_dashes_is_a_run_and_one_behind_them_a_program() {
    let project = showing();
    project.put("default = \"dev\"\n[run.dev]\nprofiles = [\"pg\"]\n[run.sh]\nprofiles = [\"other\"]\ncommand = [\"echo\", \"taken over\"]\n");
    project.review("dev -- true");
    let both = "echo \"$DATABASE_URL/$OTHER\"";
    // The file's default, its named run without a command of its own, and -p, which does not read it.
    for (args, said) in [
        (&["run", "--", "sh", "-c", both][..], "s3cret-pg/\n"),
        (&["run", "dev", "--", "sh", "-c", both], "s3cret-pg/\n"),
        (&["run", "-p", "other", "--", "sh", "-c", both], "/s3cret-other\n"),
        (&["run", "sh"], "taken over\n"),
        (&["run", "sh", "--", "again"], "taken over again\n"),
    ] {
        assert_eq!(project.keyward(args).exits(0).out, said, "{args:?}");
    }
    let unnamed = project.keyward(&["run", "true"]).exits(125).says("project.invalid");
    assert!(
        unnamed.err.contains("there are: dev, sh") && unnamed.err.contains("keyward run -- true"),
        "{}",
        unnamed.err
    );
    let bare = project.keyward(&["run", "dev"]).exits(125).says("project.invalid");
    assert!(bare.err.contains("names no command"), "{}", bare.err);
    project.keyward(&["run", "dev", "-p", "pg"]).exits(2).says("usage");
    project.keyward(&["run"]).exits(2).says("usage");
    // Several runs of which none is meant: the launcher, else the only profile.
    project.put("[run.a]\nprofiles = [\"pg\"]\n[run.b]\nprofiles = [\"pg\"]\n");
    project.keyward(&["run", "--", "true"]).exits(125).says("profile.not_named");
    let launcher = ["launcher", "add", "True", "-p", "other", "--", "sh", "-c", both];
    project.home.keyward(&launcher).exits(0);
    assert_eq!(project.keyward(&["run", "--", "sh", "-c", both]).exits(0).out, "/s3cret-other\n");
    project.put("[run.a]\nprofiles = [\"pg\"]\n");
    project.keyward(&["run", "--", "sh", "-c", both]).exits(125).says("project.unreviewed");
}

#[test]
fn only_what_the_profile_lists_and_what_there_is_can_be_asked_for() {
    let project = showing();
    for (text, code, told) in [
        ("[run.dev]\nenv = { PGPASSWORD = \"keyward:pg\" }", "project.invalid", "it lists: DATABASE_URL"),
        ("[run.dev]\nenv = { DATABASE_URL = \"keyward:gone\" }", "profile.unknown", "`gone`"),
        (
            "[run.dev]\nenv = { DATABASE_URL = \"postgres://me:hunter2@db\" }",
            "project.invalid",
            "the file holds no values",
        ),
        ("[run.dev]\nenv = { LD_PRELOAD = \"keyward:pg\" }", "project.invalid", "LD_PRELOAD"),
        ("[run.dev]\nprofiles = [\"pg\"]\ngrant = true", "project.invalid", "line 3: `run.dev.grant` is not known"),
        ("[run.dev]\nprofiles = [\"pg\"]\n# \u{202e}x", "project.invalid", "line 3 holds a control character"),
        ("[run.dev", "project.invalid", "line 1"),
    ] {
        project.put(text);
        let refused = project.keyward(&["run", "--", "true"]).exits(125).says(code);
        assert!(refused.err.contains(told) && !refused.err.contains("hunter2"), "{text}: {}", refused.err);
        assert!(refused.err.contains("/keyward.toml"), "{}", refused.err);
    }
    assert!(project.reviews().is_empty());
}

#[test]
fn a_link_is_not_followed_and_a_pipe_does_not_hold() {
    let project = showing();
    let path = project.root.join("keyward.toml");
    let away = project.home.root.join("away.toml");
    std::fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink(&away, &path).unwrap();
    for args in [&["run", "dev"][..], &["run", "--", "true"]] {
        let refused = project.keyward(args).exits(125).says("project.invalid");
        assert!(refused.err.contains("is a link"), "{}", refused.err);
    }
    assert_eq!(project.keyward(&["run", "-p", "pg", "--", "echo", "done"]).exits(0).out, "done\n");
    std::fs::remove_file(&path).unwrap();
    crate::sh(&project.home, &format!("mkfifo {}", path.display())).exits(0);
    project.keyward(&["run", "dev"]).exits(125).says("project.invalid");
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    // Whoever comes through a link to the folder is in the folder, and has reviewed it once.
    project.review("dev");
    let link = project.home.root.join("link");
    std::os::unix::fs::symlink(&project.root, &link).unwrap();
    let mut command = project.home.keyward_command(&["run", "dev"]);
    command.current_dir(&link).env("PWD", &link);
    let said = run(command, b"").exits(0).out;
    assert!(said.contains("s3cret-pg"), "{said}");
    assert_eq!(project.reviews().len(), 1);
}

#[test]
fn a_dry_run_says_what_the_file_asks_for_and_reviews_nothing() {
    let project = showing();
    let said = project.keyward(&["run", "dev", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(
        said["project"],
        json!({
            "path": project.root.join("keyward.toml").display().to_string(), "run": "dev", "profiles": ["pg"],
            "variables": {"DATABASE_URL": "pg"}, "reviewed": false,
        })
    );
    assert_eq!(said["plan"][0]["profile"], "pg");
    project.keyward(&["run", "dev"]).exits(125).says("project.unreviewed");
    project.review("dev");
    assert_eq!(project.keyward(&["run", "dev", "--dry-run", "--json"]).exits(0).json()["project"]["reviewed"], true);
    let words = project.keyward(&["run", "dev", "--explain"]).exits(0).err;
    assert!(words.contains("keyward.toml [run.dev] asks for pg") && words.contains("DATABASE_URL is expected from pg"));
    assert!(project.keyward(&["run", "-p", "pg", "--dry-run", "--json", "--", "true"]).json().get("project").is_none());
}

#[test]
fn whoever_has_to_ask_cannot_review_and_the_change_is_on_the_card() {
    let project = showing();
    // One shell that has not unlocked: the same one asks again.
    let mut command = project.home.command("sh");
    command.current_dir(project.root.join("deep"));
    let mut shell = Talk::start(command);
    let mut told = || {
        crate::ask(&mut shell, "keyward --json run dev >out 2>err; echo $? $(cat out) $(grep -o 'approval.needed' err)")
    };
    assert_eq!(told(), "125 approval.needed");
    let cards = project.home.keyward(&["approvals", "--json"]).exits(0).json();
    let card = &cards[0];
    let shown = card["file_change"].as_array().unwrap();
    assert!(shown.contains(&json!("+ env = { DATABASE_URL = \"keyward:pg\" }")), "{card}");
    let id = card["id"].as_str().unwrap();
    assert!(project.reviews().is_empty());
    // Nobody answers within the time that it takes to read.
    keyward_testkit::wait_for("an answer that is taken", || {
        let answer = project.home.keyward_in(&["--json", "approve", id, "--passphrase-stdin"], PASSPHRASE);
        assert!(answer.exit == 0 || answer.err.contains("approval.too_early"), "{}", answer.err);
        answer.exit == 0
    });
    let reviewed = entry(&project.home, "project.reviewed", 1);
    assert_eq!(reviewed["detail"]["lines_added"], 3, "a yes on the card is one for the text");
    let said = told();
    assert!(said.starts_with("0 s3cret-pg "), "{said}");
    // A grant for the profile does not stand for a text that nobody has seen.
    assert_eq!(told(), "125 approval.needed", "it was allowed once");
    let grant = ["grant", "add", "--profile", "pg", "--passphrase-stdin"];
    project.home.keyward_in(&grant, PASSPHRASE).exits(0);
    assert!(told().starts_with("0 s3cret-pg "));
    project.put(&format!("{DEV}# and more\n"));
    assert_eq!(told(), "125 approval.needed");
    assert_eq!(project.reviews().len(), 1);
}

/// Asks for a run over the socket, with the digest of the text as somebody who has looked at it would send it, and prints the
/// error. Its arguments: the socket, the folder of the project, a profile or nothing.
const FORGED: &str = r#"
import hashlib, http.client, json, socket, sys
where, project, profile = sys.argv[1:]
text = open(project + "/keyward.toml").read()
file = {"path": project + "/keyward.toml", "text": text, "run": "dev", "reviewed": hashlib.sha256(text.encode()).hexdigest()}
body = {"profiles": [profile] if profile else [], "variables": [], "project_file": file,
        "command": {"path": "/bin/true", "args": [], "project": project}}
to = http.client.HTTPConnection("keyward")
to.sock = socket.socket(socket.AF_UNIX)
to.sock.connect(where)
to.request("POST", "/v1/runs", json.dumps(body), {"Keyward-Api": "1"})
print(json.loads(to.getresponse().read()).get("code"))
"#;

#[test]
fn a_digest_counts_from_nobody_but_the_shell() {
    let project = showing();
    std::fs::write(project.root.join("forged.py"), FORGED).unwrap();
    let forged = |profile: &str| {
        let (socket, root) = (project.home.socket().display().to_string(), project.root.display().to_string());
        format!("python3 {root}/forged.py {socket} {root} '{profile}'")
    };
    assert_eq!(project.requester(&forged("")).exits(0).out, "approval.needed\n");
    let line = format!("cd {} && exec keyward run -p other -- sh", project.root.display());
    let mut command = project.home.command("sh");
    command.args(["-c", &line]);
    let mut child = Talk::start(command);
    assert_eq!(crate::ask(&mut child, &forged("")), "approval.needed");
    assert_eq!(project.requester(&forged("pg")).exits(0).out, "request.invalid\n", "the file or profiles, never both");
    assert!(project.reviews().is_empty());
    project.keyward(&["run", "dev"]).exits(125).says("project.unreviewed");
}

#[test]
fn nothing_inside_a_run_reviews_a_file() {
    let project = showing();
    let line = format!("cd {} && exec keyward run -p other -- sh", project.root.display());
    let mut command = project.home.command("sh");
    command.args(["-c", &line]);
    let mut child = Talk::start(command);
    let said = crate::ask(&mut child, "keyward --json run dev >out 2>err; echo $? $(grep -o 'approval.needed' err)");
    assert_eq!(said, "125 approval.needed");
    let cards = project.home.keyward(&["approvals", "--json"]).exits(0).json();
    assert!(cards[0]["outer_run"].is_string() && cards[0]["file_change"].is_array(), "{cards}");
    assert!(project.reviews().is_empty());
    project.keyward(&["run", "dev"]).exits(125).says("project.unreviewed");
}
