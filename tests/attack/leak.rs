//! Where a secret, a name or the passphrase could be left behind: command lines, output, logs, and every file.

use crate::Kept;
use crate::needle::{Search, files};
use keyward_testkit::{Answer, Home, PASSPHRASE, wait_for};

const VALUE: &str = "c4n4ry-s3cret-value-777";
const SEED: &str = "s33d-of-the-minted-token-888";
const NAME: &str = "canaryname";
const WRONG: &str = "wr0ng passphrase of ours 999";

/// Values and passphrases, which may stand nowhere.
fn values() -> Search {
    let mut search = Search::default();
    for (what, text) in [("value", VALUE), ("seed", SEED), ("passphrase", PASSPHRASE), ("wrong passphrase", WRONG)] {
        search.all_forms(what, text.as_bytes());
    }
    search
}

fn command_profile(program: &str) -> String {
    format!(
        "[issuer]\nkind = \"command\"\nargv = [\"/bin/sh\", \"-c\", '''{program}''']\nenv = {{ SEED = \"secret:{NAME}seed\" }}\n\
         [delivery]\nmode = \"file\"\nenv = {{ MADE_FILE = \"token\" }}\n"
    )
}

/// Does what can be done, the errors included, and gives what every command but the revealing ones said.
fn everything(home: &Home) -> Vec<Answer> {
    let mut said = vec![home.keyward_in(&["init", "--passphrase-stdin", "--recovery"], PASSPHRASE).exits(0)];
    home.static_profile(NAME, VALUE, "CANARY");
    home.secret(&format!("{NAME}seed"), SEED);
    let made = format!("{NAME}-made");
    home.profile(&made, &command_profile(r#"printf '{"token":"%s","expires_in":3600}' "minted-$SEED""#));
    let broken = format!("{NAME}-broken");
    home.profile(&broken, &command_profile(r#"printf 'no json "%s' "$SEED"; echo "$SEED" >&2"#));
    let failing = format!("{NAME}-failing");
    home.profile(&failing, &command_profile(r#"echo "$SEED"; echo "$SEED" >&2; exit 3"#));
    let lies = format!("{NAME}-lies");
    home.profile(&lies, &command_profile(r#"printf '{"token":["%s"],"expires_in":"%s"}' "$SEED" "$SEED""#));
    let nul = format!("{NAME}-nul");
    home.keyward_in(&["secret", "set", &nul], &format!("{VALUE}\0{SEED}")).exits(0);
    let toml =
        format!("[issuer]\nkind = \"static\"\nsecret = \"secret:{nul}\"\n[delivery]\nenv = {{ NUL = \"token\" }}\n");
    home.profile(&nul, &toml);
    let inline = format!("[issuer]\nkind = \"static\"\nsecret = \"{VALUE}\"\n");
    let file = home.root.join("inline.toml");
    std::fs::write(&file, inline).unwrap();
    let file_path = file.display().to_string();
    let refused = home.keyward(&["profile", "add", "inline", "--from", &file_path]).exits(1);
    std::fs::remove_file(&file).unwrap();
    // The message may quote the line that the person wrote, which is on their own screen; what counts is what stays.
    drop(refused);
    for args in [
        &["run", "-p", NAME, "-p", &made, "--explain", "--reason", "because", "--", "true"][..],
        &["run", "-p", NAME, "-p", &made, "--dry-run", "--json", "--", "true"],
        &["run", "-p", NAME, "--", "/no/such/program"],
        &["run", "-p", NAME, "-p", &nul, "--", "true"],
        &["run", "-p", &broken, "--", "true"],
        &["run", "-p", &failing, "--json", "--", "true"],
        &["run", "-p", &lies, "--", "true"],
        &["run", "-p", "absent", "--", "true"],
        &["profile", "test", &made],
        &["profile", "test", &broken, "--json"],
        &["profile", "show", NAME, "--json"],
        &["profile", "list"],
        &["secret", "list", "--json"],
        &["ps"],
        &["status", "--json"],
        &["audit", "list", "--json"],
        &["audit", "verify", "--json"],
        &["revoke", "--all"],
        &["vault", "slot", "list"],
        &["vault", "slot", "add", "keyring", "--passphrase-stdin"],
        &["vault", "backup", &home.root.join("backup").display().to_string()],
        &["audit", "export", "--passphrase-stdin"],
    ] {
        said.push(home.keyward_in(args, PASSPHRASE));
    }
    for args in [
        &["unlock", "--passphrase-stdin"][..],
        &["secret", "reveal", NAME, "--passphrase-stdin"],
        &["vault", "slot", "remove", "recovery", "--passphrase-stdin", "--json"],
    ] {
        said.push(home.keyward_in(args, WRONG));
    }
    said.push(home.keyward_in(&["secret", "set", "bad name"], VALUE).exits(1));
    said.push(home.keyward_in(&["secret", "set", "long"], &VALUE.repeat(5000)).exits(1));
    said.push(home.keyward(&["secret", "set", NAME, VALUE]).exits(2));
    said.push(home.keyward(&["unlock", &format!("--passphrase={PASSPHRASE}")]).exits(2));
    said
}

#[test]
fn no_output_no_error_and_no_file_holds_a_value_or_a_name() {
    let home = Home::new();
    let values = values();
    for (n, answer) in everything(&home).iter().enumerate() {
        values.refuse(&format!("standard output of command {n}"), answer.out.as_bytes());
        values.refuse(&format!("standard error of command {n}"), answer.err.as_bytes());
    }
    // The wrong passphrases cost time.
    let reveal = || home.keyward_in(&["secret", "reveal", NAME, "--passphrase-stdin"], PASSPHRASE).out;
    wait_for("the value to be shown", || reveal() == VALUE);
    let on_disk = |when: &str| {
        let mut names = Search::default();
        names.all_forms("name", NAME.as_bytes());
        names.all_forms("variable", b"MADE_FILE");
        let found = [files(&home.root), files(&home.runtime)].concat();
        for wanted in ["vault.db", "vault.slots", "broker.log", "backup"] {
            assert!(found.iter().any(|f| f.ends_with(wanted)), "no {wanted} {when}: {found:?}");
        }
        for file in found.iter().filter(|f| !f.starts_with(home.bin())) {
            let bytes = std::fs::read(file).unwrap();
            let place = format!("{} {when}", file.display());
            assert_eq!(values.find(&bytes), [], "in {place}");
            assert_eq!(names.find(&bytes), [], "in {place}");
            assert_eq!(names.find(file.as_os_str().as_encoded_bytes()), [], "as the name of {place}");
        }
    };
    on_disk("while it is open");
    let log = std::fs::read_to_string(home.keyward_home().join("state/broker.log")).unwrap();
    assert!(log.contains("serving"), "the log at trace level is empty: {log}");
    home.crash_broker();
    on_disk("after a crash");
    home.unlock();
    home.keyward(&["lock"]).exits(0);
    on_disk("after a lock");
    home.stop_broker();
    on_disk("after a stop");
}

#[test]
fn a_file_delivery_is_private_kept_in_memory_and_gone_with_its_run() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::with_vault();
    home.secret(&format!("{NAME}seed"), SEED);
    home.profile("made", &command_profile(r#"printf '{"token":"%s","expires_in":3600}' "minted-$SEED""#));
    let run = Kept::start(home.keyward_command(&["run", "-p", "made", "--", "sleep", "600"]));
    wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    let holding = |folder: &std::path::Path| -> Vec<std::path::PathBuf> {
        let has = |f: &std::path::PathBuf| std::fs::read(f).is_ok_and(|b| !values().find(&b).is_empty());
        files(folder).into_iter().filter(has).collect()
    };
    let delivered = holding(&home.runtime);
    assert_eq!((delivered.len(), holding(&home.keyward_home())), (1, Vec::new()), "{delivered:?}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&delivered[0]), mode(delivered[0].parent().unwrap())), (0o600, 0o700));
    drop(run);
    wait_for("the file to go", || holding(&home.runtime).is_empty());
}

#[test]
fn no_command_line_holds_a_secret() {
    let home = Home::with_vault();
    home.static_profile(NAME, VALUE, "CANARY");
    home.secret(&format!("{NAME}seed"), SEED);
    // The program of the profile looks at all command lines while the broker waits for it and the client for the broker.
    let lines = home.root.join("lines");
    let look = format!(
        "cat /proc/[0-9]*/cmdline >{} 2>/dev/null; printf '{{\"token\":\"%s\",\"expires_in\":3600}}' \"minted-$SEED\"",
        lines.display()
    );
    home.profile("made", &command_profile(&look));
    let run = Kept::start(home.keyward_command(&["run", "-p", NAME, "-p", "made", "--", "sleep", "600"]));
    wait_for("the run", || home.keyward(&["ps", "--json"]).json()[0]["app_verified"] == true);
    let during = std::fs::read(&lines).unwrap();
    let text = String::from_utf8_lossy(&during);
    assert!(text.contains("--serve") && text.contains("made"), "{text}");
    let mut own = Search::default();
    own.all_forms("value", VALUE.as_bytes());
    own.all_forms("seed", SEED.as_bytes());
    own.all_forms("minted token", format!("minted-{SEED}").as_bytes());
    own.refuse("a command line", &during);
    let child = std::fs::read(format!("/proc/{}/cmdline", run.pid())).unwrap();
    own.refuse("the command line of the child", &child);
    // What a file delivery hands over in the environment is a path.
    let environment = std::fs::read(format!("/proc/{}/environ", run.pid())).unwrap();
    let seeds = own.find(&environment).into_iter().filter(|(what, _)| !what.starts_with("value")).count();
    assert_eq!(seeds, 0, "a file delivery stands in the environment");
}
