//! The vendors' own clients, unmodified, through the gateway: one process of each, from its first call to the revoke.
//!
//! For each: it works through the delivery that is chosen for it, in a shell that is full of stale credentials; it outlives
//! its credential twice; the credential is nowhere in it, in its files, or in what it starts; after a revoke its next call
//! fails with words that say what to do. The clients are those of `tests/clients`, installed below the target folder by the
//! first test that needs them. What each has shown is left in `results` there, for `cargo xtask test --clients`.

#[path = "../attack/needle.rs"]
mod needle;

use keyward_testkit::{Home, Sandbox, Talk, signal, target, wait_at_most};
use needle::{Search, files};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For what a client does: the large ones take a while to start on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a shell may have left over, none of which anybody takes.
const STALE: &[(&str, &str)] = &[
    ("ANTHROPIC_API_KEY", "sk-ant-api03-stale"),
    ("ANTHROPIC_AUTH_TOKEN", "sk-ant-oat01-stale"),
    ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9"),
    ("ANTHROPIC_FOUNDRY_API_KEY", "stale-key-of-foundry"),
    ("ANTHROPIC_FOUNDRY_AUTH_TOKEN", "stale-token-of-foundry"),
    ("ANTHROPIC_FOUNDRY_RESOURCE", "stale"),
    ("AWS_ACCESS_KEY_ID", "AKIASTALESTALESTALE0"),
    ("AWS_BEARER_TOKEN_BEDROCK", "stale-key-of-bedrock"),
    ("AWS_PROFILE", "stale"),
    ("AWS_REGION", "eu-north-1"),
    ("AWS_SECRET_ACCESS_KEY", "stale-secret-of-aws"),
    ("AWS_SESSION_TOKEN", "stale-session-of-aws"),
    ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-stale"),
    ("CODEX_API_KEY", "sk-stale"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/stale"),
    ("OPENAI_API_KEY", "sk-stale"),
    ("OPENAI_BASE_URL", "http://127.0.0.1:9"),
];

/// How a client is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `session.py` with a client's name.
    Python(&'static str),
    /// `session.cjs`.
    Node,
    /// Claude Code, which takes messages as lines of JSON.
    Claude,
    /// The server that the editors' extensions of Codex talk to.
    Codex,
}

#[test]
fn python_anthropic() {
    prove("Python anthropic, Anthropic", Kind::Python("anthropic"), "anthropic");
}

#[test]
fn python_bedrock() {
    prove("Python anthropic, AnthropicBedrock", Kind::Python("bedrock"), "bedrock");
}

#[test]
fn python_vertex() {
    prove("Python anthropic, AnthropicVertex", Kind::Python("vertex"), "vertex");
}

#[test]
fn python_foundry() {
    prove("Python anthropic, AnthropicFoundry", Kind::Python("foundry"), "foundry");
}

#[test]
fn boto3() {
    prove("Python boto3, bedrock-runtime", Kind::Python("boto3"), "bedrock");
}

#[test]
fn python_openai() {
    prove("Python openai", Kind::Python("openai"), "openai");
}

#[test]
fn node_anthropic() {
    prove("@anthropic-ai/sdk", Kind::Node, "anthropic");
}

#[test]
#[ignore = "run by `cargo xtask test --clients`: 0.8 GB to install"]
fn claude_code() {
    prove("Claude Code, Anthropic", Kind::Claude, "anthropic");
}

#[test]
#[ignore = "run by `cargo xtask test --clients`: 0.8 GB to install"]
fn claude_code_on_bedrock() {
    prove("Claude Code, Bedrock", Kind::Claude, "bedrock");
}

#[test]
#[ignore = "run by `cargo xtask test --clients`: 0.8 GB to install"]
fn claude_code_on_vertex() {
    prove("Claude Code, Vertex", Kind::Claude, "vertex");
}

#[test]
#[ignore = "run by `cargo xtask test --clients`: 0.8 GB to install"]
fn claude_code_on_foundry() {
    prove("Claude Code, Foundry", Kind::Claude, "foundry");
}

#[test]
#[ignore = "run by `cargo xtask test --clients`: 0.8 GB to install"]
fn codex() {
    prove("Codex", Kind::Codex, "openai");
}

/// The whole story of one client.
fn prove(name: &str, kind: Kind, profile: &str) {
    let mut shown = Shown::of(name);
    let mut home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &["--fast-lives", "--life", "5s", "--rotate", "1s"]);
    add_profile(&home, &sandbox, profile);
    for (name, value) in STALE {
        home.set(name, value);
    }
    let mut session = Session::start(&mut home, kind, profile);
    shown.add("version", session.version().into());

    let first = session.ask();
    assert!(first.starts_with("token "), "{first}");
    if let Some(streamed) = session.stream() {
        assert!(streamed.starts_with("token "), "{streamed}");
    }
    assert_eq!(crate::lease(&home)["delivery"], "gateway", "by itself");
    shown.add("works", "gateway".into());

    let mut used = BTreeSet::from([first]);
    wait_at_most(PATIENCE, "a third credential", || {
        let said = session.ask();
        assert!(said.starts_with("token "), "after {used:?}: {said}");
        used.insert(said);
        let renewals = crate::lease(&home)["renewals"].as_u64().unwrap();
        // The key of OpenAI is the same each time, though it is issued anew.
        renewals >= 2 && (used.len() >= 3 || profile == "openai")
    });
    shown.add("outlives", crate::lease(&home)["renewals"].clone());

    let child = session.child();
    let fresh = hold_a_known_credential(&home, &mut session, profile);
    let search = search_for(&fresh);
    let token = run_token(&home, &session);
    let mut control = Search::default();
    control.memory_forms("run token", token.as_bytes());
    let tree = tree(session.talk.pid());
    assert!(tree.contains(&child), "{child} is not in {tree:?}");
    for pid in &tree {
        for part in ["environ", "cmdline"] {
            search.refuse(part, &std::fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default());
        }
        for file in open_files(*pid) {
            search.refuse("an open file", &std::fs::read(file).unwrap_or_default());
        }
    }
    for folder in [&home.root, &home.runtime] {
        // What stands in for the vendor has its own files, and the programs are those of every home.
        let others = [home.root.join("sandbox"), home.bin().to_owned()];
        for file in files(folder).iter().filter(|file| !others.iter().any(|other| file.starts_with(other))) {
            search.refuse(&file.display().to_string(), &std::fs::read(file).unwrap_or_default());
        }
    }
    let in_memory = in_memory(session.talk.pid(), &[&search, &control]);
    assert!(in_memory.iter().any(|what| what == "run token"), "the search sees what is there: {in_memory:?}");
    assert!(in_memory.iter().all(|what| what.starts_with("run token")), "{in_memory:?}");
    assert_eq!(search.find_in_memory(child), Vec::<String>::new(), "in what it starts");
    shown.add("processes searched", tree.len().into());

    let answered = sandbox.count("messages");
    home.keyward(&["revoke", profile]).exits(0);
    let refused = session.ask();
    assert!(
        refused.contains("lease.revoked: the credential was taken back") && refused.contains("with `keyward run`"),
        "{refused}"
    );
    assert_eq!((sandbox.count("messages"), sandbox.count("unauthorized")), (answered, 0));
    shown.add("after a revoke", refused.into());
    signal(child, Signal::KILL);
    session.talk.end();
    shown.add("passed", true.into());
}

/// Asks for the credential until the client answers with the very same: it lives for seconds.
#[track_caller]
fn hold_a_known_credential(home: &Home, session: &mut Session, profile: &str) -> String {
    let mut known = String::new();
    wait_at_most(PATIENCE, "an answer with a credential that the test knows", || {
        known = home.keyward(&["token", profile]).exits(0).out.trim_end().to_owned();
        let counts = match serde_json::from_str::<Value>(&known) {
            Ok(keys) => keys["SessionToken"].as_str().unwrap().to_owned(),
            Err(_) => known.clone(),
        };
        let mut print = hex::encode(Sha256::digest(counts));
        print.truncate(8);
        session.ask() == format!("token {print}")
    });
    known
}

/// Looks for a credential, or for each secret part of one.
fn search_for(credential: &str) -> Search {
    let mut search = Search::default();
    match serde_json::from_str::<Value>(credential) {
        Ok(keys) => {
            for part in ["SecretAccessKey", "SessionToken"] {
                search.all_forms(part, keys[part].as_str().unwrap().as_bytes());
            }
        }
        Err(_) => search.all_forms("credential", credential.as_bytes()),
    }
    search
}

/// The run token that a client was given: in a variable, or in a file of its run.
#[track_caller]
fn run_token(home: &Home, session: &Session) -> String {
    let environment = std::fs::read(format!("/proc/{}/environ", session.talk.pid())).unwrap();
    let delivered = files(&home.runtime).into_iter().filter_map(|file| std::fs::read(file).ok());
    let texts = [environment].into_iter().chain(delivered).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut found = texts.filter_map(|text| text.find("kwr_").map(|at| text[at..at + 47].to_owned()));
    found.next().unwrap()
}

/// What stands in the memory of a process that it can have written: all that is readable but files mapped for reading.
#[track_caller]
fn in_memory(pid: i32, searches: &[&Search]) -> BTreeSet<String> {
    const STEP: u64 = 1 << 20;
    const OVERLAP: u64 = 4096;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = BTreeSet::new();
    for line in maps.lines() {
        // Range, mode, offset, device, inode and path (proc_pid_maps(5)).
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (range, mode, inode) = (fields[0], fields[1], fields[4]);
        if !mode.starts_with('r') || inode != "0" && !mode.contains('w') || line.contains("[v") {
            continue;
        }
        let (first, end) = range.split_once('-').unwrap();
        let [first, end] = [first, end].map(|digits| u64::from_str_radix(digits, 16).unwrap());
        for at in (first..end).step_by(STEP as usize) {
            let mut bytes = vec![0; (STEP + OVERLAP).min(end - at) as usize];
            let read = memory.read_at(&mut bytes, at).unwrap_or(0);
            let hits = searches.iter().flat_map(|search| search.find(&bytes[..read]));
            found.extend(hits.map(|(what, _)| what.to_owned()));
        }
    }
    found
}

/// A process and all below it.
fn tree(root: i32) -> Vec<i32> {
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<i32>().ok())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let below = |pid: &i32| {
        let line = std::iter::successors(Some(*pid), |pid| parent(*pid).filter(|up| *up > 1));
        line.into_iter().any(|up| up == root)
    };
    pids.into_iter().filter(below).collect()
}

/// The regular files that a process has open.
fn open_files(pid: i32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|file| file.is_file()).collect()
}

/// Adds the profile of a provider, whose credentials live as long as the sandbox lets them.
#[track_caller]
fn add_profile(home: &Home, sandbox: &Sandbox, provider: &str) {
    let base = sandbox.said("base_url");
    let stored = |name: &str, field: &str| home.secret(name, &std::fs::read_to_string(sandbox.said(field)).unwrap());
    let toml = match provider {
        "anthropic" => return sandbox.federate(home, provider, ""),
        "bedrock" => format!(
            "[issuer]\nkind = \"aws-credentials\"\nsource = \"container\"\ncontainer_url = \"{}\"\n\
             container_token_file = \"{}\"\nregion = \"us-east-1\"\nbase_url = \"{base}\"\n",
            sandbox.said("aws_container_url"),
            sandbox.said("aws_container_token_file"),
        ),
        "vertex" => {
            stored("login", "google_authorized_user_file");
            format!(
                "[issuer]\nkind = \"google-authorized-user\"\ncredentials = \"secret:login\"\ntoken_url = \"{}\"\n\
                 region = \"us-east5\"\nproject = \"{}\"\nbase_url = \"{base}\"\n",
                sandbox.said("google_token_url"),
                sandbox.said("google_project"),
            )
        }
        "foundry" => {
            stored("entra", "entra_client_secret_file");
            format!(
                "[issuer]\nkind = \"entra-client-credentials\"\ntenant = \"{}\"\nclient_id = \"{}\"\n\
                 client_secret = \"secret:entra\"\nauthority_host = \"{}\"\nbase_url = \"{base}/anthropic\"\n",
                sandbox.said("entra_tenant"),
                sandbox.said("entra_client_id"),
                sandbox.said("entra_authority"),
            )
        }
        _ => {
            stored("key", "openai_key_file");
            let program = r#"printf '{"token":"%s","expires_in":5}' "$KEY""#;
            format!(
                "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"-c\", {program:?}]\nenv = {{ KEY = \"secret:key\" }}\n\
                 [gateway]\nprovider = \"openai\"\nbase_url = \"{}\"\n",
                sandbox.said("openai_url"),
            )
        }
    };
    home.profile(provider, &toml);
}

/// A client that runs.
struct Session {
    kind: Kind,
    talk: Talk,
    /// Lines that were read.
    read: usize,
    /// File in which Claude Code leaves the id of the process that it starts.
    child: PathBuf,
    /// Number of the last request to Codex.
    number: u64,
    thread: Value,
}

impl Session {
    /// Starts it with `keyward run`.
    #[track_caller]
    fn start(home: &mut Home, kind: Kind, profile: &str) -> Self {
        let child = home.root.join("child");
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let script = |name: &str| scripts.join(name).display().to_string();
        let line: Vec<String> = match kind {
            Kind::Python(client) => vec![python(), script("session.py"), client.to_owned()],
            Kind::Node => {
                home.set("NODE_PATH", clients().join("node/node_modules").to_str().unwrap());
                vec!["node".to_owned(), script("session.cjs")]
            }
            Kind::Claude => {
                for quiet in ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER"] {
                    home.set(quiet, "1");
                }
                let start = format!("[ -e {0} ] || (sleep 600 >/dev/null 2>&1 & echo $! >{0})", child.display());
                let hooks = json!([{"hooks": [{"type": "command", "command": start}]}]);
                let settings = json!({"hooks": {"UserPromptSubmit": hooks}}).to_string();
                let words = ["-p", "--verbose", "--input-format", "stream-json", "--output-format", "stream-json"];
                let program = agent("@anthropic-ai", "claude-code-", "claude");
                let more = ["--model", "claude-sandbox-1", "--settings", &settings];
                [program.as_str()].iter().chain(&words).chain(&more).map(|word| (*word).to_owned()).collect()
            }
            Kind::Codex => {
                let own = home.root.join("codex");
                std::fs::create_dir(&own).unwrap();
                home.set("CODEX_HOME", own.to_str().unwrap());
                vec![agent("@openai", "codex-", "codex"), "app-server".to_owned()]
            }
        };
        let words = ["run", "-p", profile, "--"].into_iter().chain(line.iter().map(String::as_str));
        let talk = Talk::start(home.keyward_command(&words.collect::<Vec<_>>()));
        let mut session = Self { kind, talk, read: 0, child, number: 0, thread: Value::Null };
        if kind == Kind::Codex {
            let info = json!({"name": "keyward-tests", "version": "1"});
            session.codex("initialize", json!({"clientInfo": info}));
            session.send(&json!({"method": "initialized"}));
            let asked = json!({"model": "gpt-sandbox-1", "sandbox": "read-only", "approvalPolicy": "never"});
            session.thread = session.codex("thread/start", asked)["thread"]["id"].clone();
        }
        session
    }

    /// The version of the client.
    #[track_caller]
    fn version(&mut self) -> String {
        let package = match self.kind {
            Kind::Python(_) | Kind::Node => return self.line_after("version"),
            Kind::Claude => "@anthropic-ai/claude-code",
            Kind::Codex => "@openai/codex",
        };
        let text = std::fs::read(agents().join(package).join("package.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["version"].as_str().unwrap().to_owned()
    }

    /// One call: the text of the answer, or what went wrong.
    #[track_caller]
    fn ask(&mut self) -> String {
        match self.kind {
            Kind::Python(_) | Kind::Node => self.line_after("ask"),
            Kind::Claude => {
                let content = json!([{"type": "text", "text": "hello"}]);
                self.send(&json!({"type": "user", "message": {"role": "user", "content": content}}));
                let result = self.until(|line| line["type"] == "result");
                result["result"].as_str().unwrap().to_owned()
            }
            Kind::Codex => {
                let input = json!([{"type": "text", "text": "hello"}]);
                self.codex("turn/start", json!({"threadId": self.thread, "input": input}));
                let turn = self.until(|line| line["method"] == "turn/completed")["params"]["turn"].clone();
                let said = turn["items"].as_array().into_iter().flatten().find(|item| item["type"] == "agentMessage");
                let text = said.map_or(&turn["error"]["message"], |said| &said["text"]);
                text.as_str().unwrap().to_owned()
            }
        }
    }

    /// One call whose answer is a stream, where that is something else.
    #[track_caller]
    fn stream(&mut self) -> Option<String> {
        matches!(self.kind, Kind::Python(_) | Kind::Node).then(|| self.line_after("stream"))
    }

    /// The id of a process that the client has started.
    #[track_caller]
    fn child(&mut self) -> i32 {
        let said = match self.kind {
            Kind::Python(_) | Kind::Node => self.line_after("child"),
            Kind::Claude => std::fs::read_to_string(&self.child).unwrap(),
            Kind::Codex => {
                // Codex ends the group of a command with it; the shell ends once the process has a group of its own.
                let command = ["sh", "-c", "echo $(setsid sh -c 'echo $$; exec sleep 600 >/dev/null 2>&1' &)"];
                let policy = json!({"type": "dangerFullAccess"});
                let done = self.codex("command/exec", json!({"command": command, "sandboxPolicy": policy}));
                done["stdout"].as_str().unwrap().to_owned()
            }
        };
        said.trim().parse().unwrap()
    }

    /// A request of Codex's protocol, and its result.
    #[track_caller]
    fn codex(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let number = self.number;
        self.send(&json!({"id": number, "method": method, "params": params}));
        let answer = self.until(|line| line["id"] == number);
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    fn send(&mut self, message: &Value) {
        self.talk.send(format!("{message}\n").as_bytes());
    }

    #[track_caller]
    fn line_after(&mut self, wanted: &str) -> String {
        self.talk.send(format!("{wanted}\n").as_bytes());
        self.line()
    }

    /// The next line of JSON that is the one.
    #[track_caller]
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.line();
            if let Ok(line) = serde_json::from_str(&line)
                && is_it(&line)
            {
                return line;
            }
        }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut next = None;
        wait_at_most(PATIENCE, &format!("a line of {:?}: {}", self.kind, self.talk.err()), || {
            let said = self.talk.out();
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            next = whole.split('\n').nth(self.read).filter(|_| !whole.is_empty()).map(str::to_owned);
            next.is_some()
        });
        self.read += 1;
        next.unwrap()
    }
}

/// Folder with the installed clients.
fn clients() -> PathBuf {
    installed(&[])
}

/// `node_modules` of the agents.
fn agents() -> PathBuf {
    installed(&["agents"]).join("agents/node_modules")
}

#[track_caller]
fn installed(more: &[&str]) -> PathBuf {
    let folder = target().parent().unwrap().join("clients");
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/install");
    let done = Command::new("sh").arg(&install).arg(&folder).args(more).output().unwrap();
    assert!(done.status.success(), "{}: {}", install.display(), String::from_utf8_lossy(&done.stderr));
    folder
}

/// Python of the virtual environment that holds the SDKs.
fn python() -> String {
    clients().join("python/bin/python").display().to_string()
}

/// The program of an agent: in the package of this platform, whose name begins with `prefix`.
#[track_caller]
fn agent(scope: &str, prefix: &str, program: &str) -> String {
    let packages = std::fs::read_dir(agents().join(scope)).unwrap().flatten();
    let of_platform = packages.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let programs = of_platform.flat_map(|entry| files(&entry.path()));
    programs.into_iter().find(|file| file.ends_with(program)).unwrap().display().to_string()
}

/// What a client has shown so far, in a file.
struct Shown {
    file: PathBuf,
    facts: serde_json::Map<String, Value>,
}

impl Shown {
    fn of(name: &str) -> Self {
        let folder = target().parent().unwrap().join("clients/results");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}.json", name.replace('/', " ")));
        let mut shown = Self { file, facts: serde_json::Map::new() };
        shown.add("client", name.into());
        shown
    }

    fn add(&mut self, what: &str, fact: Value) {
        self.facts.insert(what.to_owned(), fact);
        std::fs::write(&self.file, Value::from(self.facts.clone()).to_string()).unwrap();
    }
}
