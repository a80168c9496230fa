//! `cargo xtask demo`: the whole story with the real binaries in a throw-away home.
//!
//! Makes a vault, hands a stored and a minted credential to a child, shows what is alive and what was recorded, and puts
//! an older copy of the database back to show that it is found. Checks every step; never touches the vault, the session
//! bus or the runtime folder of the person who runs it. Called by hand.

use crate::dist::dist;
use crate::home::{Home, random_hex};
use crate::interrupt;
use crate::workspace::Workspace;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Stdio;

/// The child: says what it holds, where the file is, and lives until its standard input is closed.
const CHILD: &str = r#""$0" show DEMO_KEY DEMO_TOKEN_FILE && printf 'file %s\n' "$DEMO_TOKEN_FILE" && cat"#;

/// Builds the release binaries and plays the story; `keep` leaves the home until Ctrl-C.
///
/// Fails at the first deviation, saying what was expected and what was seen. No process and no file stays.
pub(crate) fn demo(workspace: &Workspace, keep: bool) -> Result<(), String> {
    let bin = workspace.target.join("dist");
    dist(workspace, &bin, false)?;
    interrupt::watch();
    let home = Home::make(&bin)?;
    let played = story(&home, keep);
    match (played, home.close()) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(why), Ok(())) | (Ok(()), Err(why)) => Err(why),
        (Err(why), Err(besides)) => Err(format!("{why}; besides: {besides}")),
    }
}

fn story(home: &Home, keep: bool) -> Result<(), String> {
    let sandbox = home.binary("keyward-sandbox");
    let sandbox = sandbox.to_str().ok_or("the target folder is not UTF-8")?;
    let key = format!("sk-demo-{}", random_hex(16)?);
    home.hide(&key);

    step(home, &["init", "--passphrase-stdin"], &home.passphrase)?;
    unlock(home)?;
    step(home, &["secret", "set", "demo-key"], &key)?;
    profile(home, "demo-static", "kind = \"static\"\nsecret = \"secret:demo-key\"", "env", "DEMO_KEY")?;
    let mint = format!("kind = \"command\"\nargv = [{}, \"mint\", \"--life\", \"60s\"]", Value::from(sandbox));
    profile(home, "demo-minted", &mint, "file", "DEMO_TOKEN_FILE")?;
    step(home, &["broker", "stop"], "")?;
    let older = copy_database(home, &home.root.join("older"))?;

    unlock(home)?;
    child_with_both(home, sandbox, &fingerprint(&key))?;
    let list = step(home, &["audit", "list"], "")?;
    for name in ["demo-static", "demo-minted"] {
        if !list.contains(name) {
            return Err(format!("audit list: an entry of {name} expected, none seen"));
        }
    }
    verify(home)?;

    step(home, &["broker", "stop"], "")?;
    let newer = copy_database(home, &home.root.join("newer"))?;
    put_back(home, &older)?;
    println!("\nan older copy of the database is in place");
    unlock(home)?;
    let verdict = home.keyward(&["audit", "verify", "--json"], "", 7)?.json()?;
    if verdict["ok"] != Value::Bool(false) {
        return Err(format!("audit verify: \"ok\": false expected, seen: {verdict}"));
    }
    home.keyward(&["run", "-p", "demo-static", "--", sandbox, "show", "DEMO_KEY"], "", 125)?;
    println!("tamper: found");

    if keep {
        step(home, &["broker", "stop"], "")?;
        put_back(home, &newer)?;
        unlock(home)?;
        verify(home)?;
        wait_for_interrupt(home);
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

/// Runs `keyward` with `args`, shows the line and what it prints, and gives the latter back.
fn step(home: &Home, args: &[&str], input: &str) -> Result<String, String> {
    println!("\n$ keyward {}", args.join(" "));
    let answer = home.keyward(args, input, 0)?;
    print!("{}", answer.out);
    Ok(answer.out)
}

fn unlock(home: &Home) -> Result<(), String> {
    step(home, &["unlock", "--passphrase-stdin"], &home.passphrase).map(drop)
}

fn verify(home: &Home) -> Result<(), String> {
    println!("\n$ keyward audit verify");
    let verdict = home.keyward(&["audit", "verify", "--json"], "", 0)?.json()?;
    match (verdict["ok"].as_bool(), verdict["entries"].as_u64()) {
        (Some(true), Some(entries)) if entries > 0 => {
            println!("verify: ok {entries} entries");
            Ok(())
        }
        _ => Err(format!("audit verify: \"ok\": true expected, seen: {verdict}")),
    }
}

fn profile(home: &Home, name: &str, issuer: &str, mode: &str, variable: &str) -> Result<(), String> {
    let file = home.root.join("project").join(format!("{name}.toml"));
    let text = format!("[issuer]\n{issuer}\n\n[delivery]\nmode = \"{mode}\"\nenv = {{ {variable} = \"token\" }}\n");
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

fn wait_for_interrupt(home: &Home) {
    println!("\nThe home stays until Ctrl-C. Its passphrase is {}; in another terminal:\n", home.passphrase);
    for (name, value) in home.variables() {
        println!("  export {name}='{}'", value.to_string_lossy());
    }
    println!(
        "  keyward unlock && keyward run -p demo-static -p demo-minted -- keyward-sandbox show DEMO_KEY DEMO_TOKEN_FILE"
    );
    while !interrupt::seen() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
