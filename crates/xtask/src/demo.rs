//! `cargo xtask demo`: the whole story with the real binaries in a throw-away home.
//!
//! Makes a vault, hands a stored and a minted credential to a child, lets three children live on one federated credential
//! while it is exchanged anew under them, lets one call through the gateway without ever holding the credential and takes that
//! back, shows what is alive and what was recorded, opens the desktop and reads its window, and puts an older copy of the database back to show that it is found. Checks every step; never touches the vault, the
//! session bus or the runtime folder of the person who runs it, and connects to the sandbox that it starts alone. Called by
//! hand and by the end-to-end tests.

use crate::desktop;
use crate::dist::dist;
use crate::home::{Home, random_hex};
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::screen::{self, Xvfb};
use crate::setup::setup;
use crate::webdriver::Session;
use crate::workspace::{Workspace, read};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The child: says what it holds, where the file is, and lives until its standard input is closed.
const CHILD: &str = r#""$0" show DEMO_KEY DEMO_TOKEN_FILE && printf 'file %s\n' "$DEMO_TOKEN_FILE" && cat"#;

/// The child of the gateway: shows what it holds for the API, calls, waits until its standard input is closed, and calls again.
const CALLER: &str = r#"
call() {
    curl -q -s -m 20 -w ' %{http_code}\n' -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H 'anthropic-version: 2023-06-01' \
        -H 'content-type: application/json' -d '{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}' \
        "$ANTHROPIC_BASE_URL/v1/messages" | tr -d '\n'
    echo
}
env; echo; call; cat; call"#;

/// Profile of the credential that is exchanged.
const FEDERATED: &str = "demo-federated";

/// How the sandbox serves: tokens of six seconds, so that the broker exchanges every three, and an assertion a second, each
/// good for one exchange.
const SERVE: [&str; 6] = ["--fast-lives", "--life", "6s", "--rotate", "1s", "--one-time"];

/// Arguments of a child that lives until its token was replaced twice.
const OUTLIVE: [&str; 3] = ["child", "--lifetimes", "2"];

/// How many children share the federated credential.
const CHILDREN: usize = 3;

/// How the demo is played.
#[derive(clap::Args)]
pub(crate) struct Play {
    /// Leave the home until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Play with the binaries in DIR instead of building them
    #[arg(long, value_name = "DIR")]
    with: Option<PathBuf>,
    /// Neither build nor open the desktop
    #[arg(long)]
    without_desktop: bool,
}

/// Builds the release binaries and a desktop that WebDriver may drive, or takes those of a folder, and plays the story.
///
/// Fails at the first deviation, saying what was expected and what was seen. No process and no file stays.
pub(crate) fn demo(workspace: &Workspace, play: Play) -> Result<(), String> {
    let Play { keep, with, without_desktop } = play;
    let opened = match &with {
        _ if without_desktop => None,
        Some(folder) => Some(folder.join(desktop::NAME)),
        None => {
            setup(workspace, &["build", "desktop", "screen"], false)?;
            Some(desktop::driven(workspace)?)
        }
    };
    if let Some(missing) = opened.as_ref().filter(|file| !file.is_file()) {
        return Err(format!("{} is not there; `--without-desktop` leaves it out", missing.display()));
    }
    let opened = opened.map(std::path::absolute).transpose().map_err(|e| format!("{}: {e}", desktop::NAME))?;
    let bin = match with {
        Some(folder) => std::path::absolute(&folder).map_err(|e| format!("{}: {e}", folder.display()))?,
        None => {
            let folder = workspace.target.join("dist");
            dist(workspace, &folder, false)?;
            folder
        }
    };
    interrupt::watch();
    let home = Home::make(&bin)?;
    let played = story(&home, opened.as_deref(), keep);
    match (played, home.close()) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(why), Ok(())) | (Ok(()), Err(why)) => Err(why),
        (Err(why), Err(besides)) => Err(format!("{why}; besides: {besides}")),
    }
}

/// Makes an open vault with a stored and a minted credential; gives the stored one.
pub(crate) fn furnish(home: &Home) -> Result<String, String> {
    let sandbox = home.binary("keyward-sandbox");
    let sandbox = sandbox.to_str().ok_or("the target folder is not UTF-8")?;
    let key = format!("sk-demo-{}", random_hex(16)?);
    home.hide(&key);
    // What every token of the sandbox begins with.
    home.hide("sk-ant-oat01-");

    step(home, &["init", "--passphrase-stdin"], &home.passphrase)?;
    unlock(home)?;
    step(home, &["secret", "set", "demo-key"], &key)?;
    profile(home, "demo-static", "kind = \"static\"\nsecret = \"secret:demo-key\"", "env", "DEMO_KEY")?;
    let mint = format!("kind = \"command\"\nargv = [{}, \"mint\", \"--life\", \"60s\"]", Value::from(sandbox));
    profile(home, "demo-minted", &mint, "file", "DEMO_TOKEN_FILE")?;
    Ok(key)
}

fn story(home: &Home, desktop: Option<&Path>, keep: bool) -> Result<(), String> {
    let sandbox = home.binary("keyward-sandbox");
    let sandbox = sandbox.to_str().ok_or("the target folder is not UTF-8")?;
    let key = furnish(home)?;
    step(home, &["broker", "stop"], "")?;
    let older = copy_database(home, &home.root.join("older"))?;

    unlock(home)?;
    child_with_both(home, sandbox, &fingerprint(&key))?;
    let federation = federate(home)?;
    federated_children(home, sandbox, &federation)?;
    through_the_gateway(home)?;
    step(home, &["audit", "list"], "")?;
    for name in ["demo-static", "demo-minted", FEDERATED] {
        if !home.keyward(&["audit", "list", "--profile", name], "", 0)?.out.contains(name) {
            return Err(format!("audit list: an entry of {name} expected, none seen"));
        }
    }
    verify(home)?;
    if let Some(desktop) = desktop {
        on_screen(home, desktop)?;
    }

    step(home, &["broker", "stop"], "")?;
    let newer = copy_database(home, &home.root.join("newer"))?;
    put_back(home, &older)?;
    println!("\nan older copy of the database is in place");
    unlock(home)?;
    show(home, &["audit", "verify"], "", 7)?;
    let verdict = home.keyward(&["audit", "verify", "--json"], "", 7)?.json()?;
    if verdict["ok"] != Value::Bool(false) {
        return Err(format!("audit verify: \"ok\": false expected, seen: {verdict}"));
    }
    home.keyward(&["run", "-p", "demo-static", "--", sandbox, "show", "DEMO_KEY"], "", 125)?;
    println!("\ntamper: found");

    if keep {
        step(home, &["broker", "stop"], "")?;
        put_back(home, &newer)?;
        unlock(home)?;
        verify(home)?;
        wait_for_interrupt(home, &federation)?;
    }
    Ok(())
}

/// Runs the child, shows `ps` while it lives, and waits until its token file is gone.
fn child_with_both(home: &Home, sandbox: &str, key: &str) -> Result<(), String> {
    let args = ["run", "-p", "demo-static", "-p", "demo-minted", "--", "sh", "-c", CHILD, sandbox];
    println!("\n$ keyward run -p demo-static -p demo-minted -- (a child that shows what it holds)");
    let mut command = home.command(home.binary("keyward"));
    command.args(args).stdin(Stdio::piped());
    let mut child = home.start(command)?;
    let mut said = String::new();
    home.until("the child", || {
        said = child.so_far()?;
        Ok(said.lines().count() >= 3 && said.ends_with('\n'))
    })?;
    let lines: Vec<&str> = said.lines().collect();
    let [stored, minted, file] = lines.as_slice() else {
        return Err(format!("child: three lines expected, seen: {said}"));
    };
    let expected = format!("child: got DEMO_KEY ({key})");
    if *stored != expected {
        return Err(format!("child: `{expected}` expected, `{stored}` seen"));
    }
    if !minted.starts_with("child: got DEMO_TOKEN_FILE (") {
        return Err(format!("child: a token file expected, `{minted}` seen"));
    }
    println!("{stored}\n{minted}");

    step(home, &["ps"], "")?;
    let runs = home.keyward(&["ps", "--json"], "", 0)?.json()?;
    let mut held: Vec<&str> =
        runs[0]["leases"].as_array().into_iter().flatten().filter_map(|l| l["profile"].as_str()).collect();
    held.sort_unstable();
    if runs[0]["pid"] != child.pid() || held != ["demo-minted", "demo-static"] {
        return Err(format!("ps: pid {} with a lease of each profile expected, seen: {runs}", child.pid()));
    }

    let path = file.strip_prefix("file ").ok_or_else(|| format!("child: a path expected, `{file}` seen"))?;
    child.finish(0)?;
    home.until("removal of the token file at the end of the run", || Ok(!Path::new(path).exists()))
}

/// Opens the desktop while a run holds a credential, reads in its window that Now shows it, and that it goes with the run.
fn on_screen(home: &Home, desktop: &Path) -> Result<(), String> {
    let display = match screen::own() {
        Some(_) => None,
        None => Some(Xvfb::start(&home.root)?),
    };
    println!("\n$ keyward-desktop     # {}", if display.is_some() { "under Xvfb" } else { "on this display" });
    let variables = display.as_ref().map(Xvfb::variables).or_else(screen::own).unwrap_or_default();
    let mut command = home.command(home.binary("keyward"));
    command.args(["run", "-p", "demo-static", "--", "sh", "-c", "cat"]).stdin(Stdio::piped());
    let child = home.start(command)?;
    let pid = child.pid().to_string();
    let shows = |text: &str| text.contains("demo-static") && text.contains(&pid);

    let mut driver = home.command("WebKitWebDriver");
    driver.envs(variables).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", home.root.join("no-bus").display()));
    let session = Session::start(driver, desktop, &home.root.join("driver.log"))?;
    let mut text = String::new();
    let appeared = home.until("the run in Now", || {
        text = session.text()?;
        Ok(shows(&text))
    });
    appeared.map_err(|why| format!("{why}; the window shows: {text}"))?;
    println!("desktop: Now shows demo-static, held by process {pid}");
    child.finish(0)?;
    home.until("the end of the run in Now", || Ok(!shows(&session.text()?)))?;
    println!("desktop: the run has ended, and Now shows it no more");
    session.end()
}

/// Starts the sandbox and adds the profile [`FEDERATED`], which takes its assertion from a file.
fn federate(home: &Home) -> Result<Sandbox, String> {
    println!("\n$ keyward-sandbox serve {} &", SERVE.join(" "));
    let sandbox = Sandbox::start(home, &SERVE)?;
    println!("sandbox: {}", sandbox.said("base_url")?);
    add_profile(home, FEDERATED, &sandbox.profile("")?)?;
    Ok(sandbox)
}

/// Fingerprints of the tokens that the sandbox has given, oldest first. A request that it refused is an error.
fn made(sandbox: &Sandbox) -> Result<Vec<String>, String> {
    let journal = read(Path::new(sandbox.said("journal")?))?;
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = lines.filter(|line| line["path"] == "/v1/oauth/token");
    let tokens = requests.map(|line| match line["token"].as_str() {
        Some(token) if line["status"] == 200 => Ok(token.to_owned()),
        _ => Err(format!("an exchange: status 200 expected, seen: {line}")),
    });
    tokens.collect()
}

/// Lets several children outlive two lifetimes of the token that they share, and checks that each lifetime took one exchange
/// and that no file of theirs stays.
fn federated_children(home: &Home, program: &str, sandbox: &Sandbox) -> Result<(), String> {
    let line = [&["run", "-p", FEDERATED, "--deliver", "file", "--", program][..], &OUTLIVE].concat();
    println!(
        "\n$ keyward run -p {FEDERATED} --deliver file -- keyward-sandbox {}     # {CHILDREN} of them",
        OUTLIVE.join(" ")
    );
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let mut command = home.command(home.binary("keyward"));
        command.args(&line);
        children.push(home.start(command)?);
    }
    let mut used = BTreeSet::new();
    for (number, child) in children.into_iter().enumerate() {
        let said = child.finish(0)?.out;
        if number == 0 {
            print!("{said}");
        }
        let tokens: BTreeSet<_> =
            said.lines().filter_map(|line| line.strip_prefix("token: ")).map(str::to_owned).collect();
        if tokens.len() != 3 {
            return Err(format!("a child: three tokens expected, seen: {said}"));
        }
        used.extend(tokens);
    }
    // The newest token is made ahead of need, so that it may be unused.
    let made = made(sandbox)?;
    let unused = made.iter().rev().skip(1).any(|token| !used.contains(token));
    if unused || used.iter().any(|token| !made.contains(token)) {
        return Err(format!("one exchange for each token that was used expected; used: {used:?}, made: {made:?}"));
    }
    let exchanges = sandbox.exchanges()?;
    if exchanges != made.len() as u64 {
        return Err(format!("{} exchanges expected, seen: {exchanges}", made.len()));
    }
    println!("exchanges: {exchanges}");
    home.until("removal of the children's files", || Ok(!holds(&home.runtime, "credentials")))
}

/// Lets a child call through the gateway, checks that it holds a run token and nothing of the credential, that its call is in
/// the log, and that its next one is refused once the credential was taken back. A secret in what it prints is an error.
fn through_the_gateway(home: &Home) -> Result<(), String> {
    println!(
        "\n$ keyward run -p {FEDERATED} -- (a child that calls the API, and calls again after its credential is taken back)"
    );
    let mut command = home.command(home.binary("keyward"));
    command.args(["run", "-p", FEDERATED, "--", "sh", "-c", CALLER]).stdin(Stdio::piped());
    let mut child = home.start(command)?;
    let mut said = String::new();
    home.until("the first call", || {
        said = child.so_far()?;
        Ok(said.split_once("\n\n").is_some_and(|(_, calls)| calls.ends_with('\n')))
    })?;
    let (environment, answer) = said.split_once("\n\n").unwrap_or_default();
    let of = |name: &str| environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let (url, token) = (of("ANTHROPIC_BASE_URL").unwrap_or_default(), of("ANTHROPIC_AUTH_TOKEN").unwrap_or_default());
    if !url.starts_with("http://127.0.0.1:") || !token.starts_with("kwr_") || of("ANTHROPIC_API_KEY").is_some() {
        return Err(format!("child: the gateway and a run token alone expected, seen: {environment}"));
    }
    println!("child: ANTHROPIC_BASE_URL={url}\nchild: ANTHROPIC_AUTH_TOKEN={}…", token.get(..8).unwrap_or_default());
    if !answer.trim_end().ends_with(" 200") {
        return Err(format!("child: an answer with status 200 expected, seen: {answer}"));
    }
    println!("child: {}", answer.trim_end());

    let used = ["audit", "list", "--kind", "credential.used"];
    home.until("the call in the log", || Ok(home.keyward(&used, "", 0)?.out.contains("credential.used")))?;
    step(home, &used, "")?;
    step(home, &["revoke", FEDERATED], "")?;
    let said = child.finish(0)?.out;
    let answer = said.lines().last().unwrap_or_default();
    if !answer.ends_with(" 403") || !answer.contains("lease.revoked") {
        return Err(format!("child: lease.revoked with status 403 expected, seen: {answer}"));
    }
    println!("child: {answer}");
    Ok(())
}

/// Whether a folder holds an entry of this name, at any depth.
fn holds(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        entry.file_name() == name || entry.file_type().is_ok_and(|kind| kind.is_dir()) && holds(&entry.path(), name)
    })
}

/// Runs `keyward` with `args`, shows the line and what it prints, and gives the latter back.
pub(crate) fn step(home: &Home, args: &[&str], input: &str) -> Result<String, String> {
    show(home, args, input, 0)
}

/// As [`step`], for a line that ends with the exit code `exit`.
fn show(home: &Home, args: &[&str], input: &str, exit: i32) -> Result<String, String> {
    println!("\n$ keyward {}", args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" "));
    let answer = home.keyward(args, input, exit)?;
    print!("{}{}", answer.out, answer.err);
    Ok(answer.out)
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !arg.is_empty() && arg.bytes().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
}

fn unlock(home: &Home) -> Result<(), String> {
    step(home, &["unlock", "--passphrase-stdin"], &home.passphrase).map(drop)
}

fn verify(home: &Home) -> Result<(), String> {
    step(home, &["audit", "verify"], "")?;
    let verdict = home.keyward(&["audit", "verify", "--json"], "", 0)?.json()?;
    match (verdict["ok"].as_bool(), verdict["entries"].as_u64()) {
        (Some(true), Some(entries)) if entries > 0 => {
            println!("\nverify: ok {entries} entries");
            Ok(())
        }
        _ => Err(format!("audit verify: \"ok\": true expected, seen: {verdict}")),
    }
}

fn profile(home: &Home, name: &str, issuer: &str, mode: &str, variable: &str) -> Result<(), String> {
    let text = format!("[issuer]\n{issuer}\n\n[delivery]\nmode = \"{mode}\"\nenv = {{ {variable} = \"token\" }}\n");
    add_profile(home, name, &text)
}

pub(crate) fn add_profile(home: &Home, name: &str, text: &str) -> Result<(), String> {
    let file = home.root.join("project").join(format!("{name}.toml"));
    std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    step(home, &["profile", "add", name, "--from", &format!("{name}.toml")], "").map(drop)
}

/// Copies `vault.db` and what SQLite keeps beside it into a new folder.
fn copy_database(home: &Home, to: &Path) -> Result<std::path::PathBuf, String> {
    let fault = |e: std::io::Error| format!("{}: {e}", to.display());
    std::fs::create_dir(to).map_err(fault)?;
    for file in database_files(home)? {
        let name = file.file_name().ok_or("a file without a name")?;
        std::fs::copy(&file, to.join(name)).map_err(fault)?;
    }
    Ok(to.to_owned())
}

fn put_back(home: &Home, from: &Path) -> Result<(), String> {
    for file in database_files(home)? {
        std::fs::remove_file(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    for entry in std::fs::read_dir(from).map_err(|e| format!("{}: {e}", from.display()))?.flatten() {
        let to = home.keyward_home().join("data").join(entry.file_name());
        std::fs::copy(entry.path(), &to).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(())
}

fn database_files(home: &Home) -> Result<Vec<std::path::PathBuf>, String> {
    let data = home.keyward_home().join("data");
    let folder = std::fs::read_dir(&data).map_err(|e| format!("{}: {e}", data.display()))?;
    let named = |path: &std::path::PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vault.db"))
    };
    let files: Vec<_> = folder.flatten().map(|entry| entry.path()).filter(named).collect();
    if files.is_empty() { Err(format!("{}: vault.db expected, none seen", data.display())) } else { Ok(files) }
}

/// First eight hex digits of SHA-256, as `keyward-sandbox show` prints them.
fn fingerprint(secret: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(secret));
    digits.truncate(8);
    digits
}

fn wait_for_interrupt(home: &Home, sandbox: &Sandbox) -> Result<(), String> {
    println!("\nThe home stays until Ctrl-C. Its passphrase is {}; in another terminal:\n", home.passphrase);
    for (name, value) in home.variables() {
        println!("  export {name}='{}'", value.to_string_lossy());
    }
    println!("  keyward unlock");
    println!("  keyward run -p demo-static -p demo-minted -- keyward-sandbox show DEMO_KEY DEMO_TOKEN_FILE");
    println!("  keyward run -p {FEDERATED} --deliver file -- keyward-sandbox {}", OUTLIVE.join(" "));
    println!("  keyward profile test {FEDERATED}");
    println!("  curl -s -H 'x-keyward-sandbox: 1' {}/sandbox/stats", sandbox.said("base_url")?);
    println!(
        "\n`keyward-sandbox serve --help` has the switches that make the sandbox fail, rotate its keys or shift its clocks."
    );
    while !interrupt::seen() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}
