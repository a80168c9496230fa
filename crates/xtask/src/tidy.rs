//! `cargo xtask tidy`: the rules that neither the compiler nor clippy checks.
//!
//! Arrows between crates and to the outside, comments beside each look at a secret, no clock and no I/O in the pure
//! crates, no host in the UI and in lock files of npm, the layout of the repository, released migrations, and ignored tests. Reads only; never mends a file. Called by
//! hand and by `test`.

use crate::workspace::{Workspace, read};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Which crate of the workspace may know which other ones: the table of the architecture. `keyward-testkit` besides may be
/// a dev-dependency of any.
const ARROWS: &[(&str, &[&str])] = &[
    ("keyward-diag", &[]),
    ("keyward-secret", &[]),
    ("keyward-crypto", &["keyward-secret"]),
    ("keyward-core", &["keyward-secret", "keyward-crypto", "keyward-diag"]),
    ("keyward-store", &["keyward-core", "keyward-crypto", "keyward-secret", "keyward-diag"]),
    ("keyward-issuer", &["keyward-core", "keyward-secret", "keyward-diag"]),
    ("keyward-gateway", &["keyward-core", "keyward-secret", "keyward-diag"]),
    ("keyward-api", &["keyward-secret", "keyward-diag"]),
    (
        "keyward-broker",
        &[
            "keyward-diag",
            "keyward-secret",
            "keyward-crypto",
            "keyward-core",
            "keyward-store",
            "keyward-issuer",
            "keyward-gateway",
            "keyward-api",
        ],
    ),
    ("keyward-client", &["keyward-api", "keyward-secret", "keyward-diag"]),
    ("keyward-cli", &["keyward-find", "keyward-client", "keyward-api", "keyward-secret", "keyward-diag"]),
    ("keyward-find", &["keyward-secret", "keyward-diag"]),
    ("keyward-desk", &["keyward-find", "keyward-client", "keyward-api", "keyward-secret", "keyward-diag"]),
    ("keyward-desktop", &["keyward-desk", "keyward-api", "keyward-secret", "keyward-diag"]),
    ("keyward-sandbox", &[]),
    ("keyward-testkit", &["keyward-api", "keyward-core", "keyward-secret", "keyward-crypto", "keyward-diag"]),
    ("xtask", &["keyward-desk", "keyward-api", "keyward-secret", "keyward-diag"]),
    ("keyward-tests", &["keyward-client", "keyward-api", "keyward-sandbox", "keyward-testkit", "keyward-diag"]),
];

/// Which crates alone may use an outside crate, for whatever kind of dependency.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("sqlx", &["keyward-store"]),
    ("libsqlite3-sys", &["keyward-store"]),
    ("rusqlite", &[]),
    ("clap", &["keyward-cli", "keyward-sandbox", "xtask"]),
    ("clap_complete", &["keyward-cli"]),
    ("clap_mangen", &["keyward-cli"]),
    ("hyper", &["keyward-broker", "keyward-gateway", "keyward-sandbox", "xtask"]),
    ("hyper-util", &["keyward-broker", "keyward-gateway", "keyward-sandbox", "xtask", "keyward-tests"]),
    ("hyper-rustls", &["keyward-gateway"]),
    ("rustls", &["keyward-issuer", "keyward-gateway"]),
    ("tokio-rustls", &["keyward-issuer", "keyward-gateway"]),
    ("rustls-platform-verifier", &["keyward-issuer", "keyward-gateway"]),
    ("keyring-core", &["keyward-broker"]),
    ("reqwest", &["keyward-issuer"]),
    ("rsa", &["keyward-sandbox"]),
    ("ring", &["keyward-issuer"]),
    ("tauri", &["keyward-desktop"]),
    ("gtk", &["keyward-desktop"]),
    ("webkit2gtk", &["keyward-desktop"]),
    ("ksni", &["keyward-desktop"]),
    ("notify-rust", &["keyward-desktop"]),
    (
        "tokio",
        &[
            "keyward-store",
            "keyward-issuer",
            "keyward-gateway",
            "keyward-broker",
            "keyward-sandbox",
            "keyward-testkit",
            "keyward-tests",
            "xtask",
        ],
    ),
];

/// What the pure crates may not call: time, randomness and the world are arguments.
const IMPURE: &[(&str, &[&str])] = &[
    (
        "crates/keyward-core/src/",
        &[
            "SystemTime::now",
            "Instant::now",
            "Timestamp::now",
            "Zoned::now",
            "now_v7",
            "getrandom",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "tokio",
        ],
    ),
    (
        "crates/keyward-crypto/src/",
        &["SystemTime::now", "Instant::now", "std::fs", "std::net", "std::env", "std::process", "tokio"],
    ),
];

/// What may stand at the top of the repository.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".github",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "crates",
    "icons",
    "migrations",
    "src-tauri",
    "tests",
    "ui",
];

/// Places of one machine, which mean nothing in a clone. Put together here so that this file does not name them.
const PLACES: &[&str] = &[concat!("..", "/shared"), concat!("/wo", "rk/")];

/// What a URL in the UI may begin with: names of XML, and hosts that are nobody's (RFC 2606, RFC 6761).
const HOSTS: &[&str] = &["www.w3.org/", "127.0.0.1", "localhost", "example.com", "example.org"];

/// Checksums of the migrations that were released: SHA-256 in hex, two spaces, file name.
const RELEASED: &str = include_str!("../released-migrations.txt");

/// Checks every rule and prints each breach as `place: what`; fails if there is one.
pub(crate) fn tidy(workspace: &Workspace) -> Result<(), String> {
    let mut breaches = arrows(&workspace.metadata);
    breaches.extend(migrations(RELEASED, |name| std::fs::read(workspace.root.join("migrations").join(name)).ok()));
    for file in workspace.files()? {
        breaches.extend(top(&file));
        if file.ends_with("Cargo.toml") && file != "Cargo.toml" {
            breaches.extend(lints(&file, &read(&workspace.root.join(&file))?));
        }
        // A file that is no text, such as a fixture or an icon, is not read.
        let Ok(text) = std::fs::read_to_string(workspace.root.join(&file)) else { continue };
        breaches.extend(places(&file, &text));
        if file.ends_with("package-lock.json") {
            breaches.extend(resolved(&file, &text));
        }
        if file.starts_with("ui/src/") && !file.ends_with(".test.ts") || file == "ui/index.html" {
            breaches.extend(remote(&file, &text));
        }
        if file.ends_with(".rs") {
            breaches.extend(ignored(&file, &text));
            breaches.extend(exposed(&file, &text));
            breaches.extend(impure(&file, &text));
        }
    }
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { Err(format!("{} breaches", breaches.len())) }
}

fn arrows(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            breaches.push(format!("{name}: not in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let of_tests = dependency["kind"] == "dev" && to == "keyward-testkit";
            if names.contains(&to) && !may.contains(&to) && !of_tests {
                breaches.push(format!("{name} -> {to}: the architecture has no such arrow"));
            }
            if let Some((_, only)) = OUTSIDE.iter().find(|(outside, _)| *outside == to)
                && !only.contains(&name)
            {
                breaches.push(format!(
                    "{name} -> {to}: only for {}",
                    if only.is_empty() { "nobody".into() } else { only.join(", ") }
                ));
            }
        }
    }
    breaches
}

fn lints(file: &str, manifest: &str) -> Option<String> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    let own = lines.take_while(|line| !line.starts_with('[')).any(|line| line == "workspace = true");
    (!own).then(|| format!("{file}: no `[lints] workspace = true`"))
}

fn top(file: &str) -> Option<String> {
    let first = file.split('/').next().unwrap_or(file);
    (!TOP.contains(&first)).then(|| format!("{file}: {first} is not in the list of top-level entries"))
}

fn places(file: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (n, line) in text.lines().enumerate() {
        for place in PLACES {
            let starts_there = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '~'))
            };
            if line.match_indices(place).any(|(at, _)| starts_there(at)) {
                breaches.push(format!("{file}:{}: names {place}, which is on one machine only", n + 1));
            }
        }
    }
    breaches
}

/// A lock file names versions and hashes; where the packages come from is npm's configuration.
fn resolved(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("\"resolved\""));
    lines.map(|(n, _)| format!("{file}:{}: names the host of a registry", n + 1)).collect()
}

/// The UI loads nothing from elsewhere and links to nothing. A URL without a scheme counts only where something is loaded.
fn remote(file: &str, text: &str) -> Vec<String> {
    let foreign = |line: &str, scheme: &str| {
        line.match_indices(scheme).any(|(at, _)| {
            let host = &line[at + scheme.len()..];
            host.starts_with(|c: char| c.is_ascii_alphanumeric()) && !HOSTS.iter().any(|known| host.starts_with(known))
        })
    };
    let schemes = ["https://", "http://", "wss://", "ws://", "url(//", "src=\"//", "href=\"//"];
    let lines = text.lines().enumerate().filter(|(_, line)| schemes.iter().any(|scheme| foreign(line, scheme)));
    lines.map(|(n, _)| format!("{file}:{}: names a host", n + 1)).collect()
}

fn ignored(file: &str, text: &str) -> Vec<String> {
    let numbered = |line: &str| {
        let digit_after =
            |mark: &str| line.split(mark).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        // One that another test runs in a process of its own, or that writes a fixture, is not left out.
        let part_of_another = line.contains("\"run by ") || line.contains("\"writes a fixture");
        part_of_another || digit_after("issue ") || digit_after("#")
    };
    let lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    let bare = lines.filter(|(_, line)| !numbered(line.trim_start().trim_start_matches("#[")));
    bare.map(|(n, _)| format!("{file}:{}: an ignored test names no issue", n + 1)).collect()
}

/// Lines of a source file that are not tests: without files of a `tests` folder, and without what follows the first
/// `#[cfg(test)]` of a module.
fn shipped<'t>(file: &str, text: &'t str) -> impl Iterator<Item = (usize, &'t str)> {
    let of_tests = file.starts_with("tests/")
        || file.contains("/tests/")
        || file.ends_with("/tests.rs")
        || file.starts_with("crates/keyward-testkit/");
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |n: &usize| {
        lines[*n].trim() == "#[cfg(test)]" && lines.get(n + 1).is_some_and(|l| l.trim_start().starts_with("mod "))
    };
    let end = if of_tests { 0 } else { (0..lines.len()).find(opens_tests).unwrap_or(lines.len()) };
    lines.into_iter().take(end).enumerate()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn exposed(file: &str, text: &str) -> Vec<String> {
    let lines: Vec<(usize, &str)> = shipped(file, text).collect();
    let mut breaches = Vec::new();
    for (n, line) in &lines {
        let call = line.match_indices("expose(").any(|(at, _)| line[..at].ends_with(['.', ':']));
        if is_comment(line) || !call {
            continue;
        }
        if !lines[n.saturating_sub(3)..=*n].iter().any(|(_, near)| near.contains("// EXPOSE: ")) {
            breaches.push(format!("{file}:{}: a look at a secret without `// EXPOSE: reason`", n + 1));
        }
    }
    breaches
}

fn impure(file: &str, text: &str) -> Vec<String> {
    let Some((_, banned)) = IMPURE.iter().find(|(folder, _)| file.starts_with(folder)) else { return Vec::new() };
    let code = shipped(file, text).filter(|(_, line)| !is_comment(line));
    let found =
        code.flat_map(|(n, line)| banned.iter().filter(move |what| line.contains(**what)).map(move |what| (n, *what)));
    found.map(|(n, what)| format!("{file}:{}: {what} in a crate without clock and I/O", n + 1)).collect()
}

fn migrations(released: &str, file: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
    let mut breaches = Vec::new();
    for line in released.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match line.split_once("  ").map(|(sum, name)| (sum, name, file(name))) {
            None => breaches.push(format!("released-migrations.txt: not understood: {line}")),
            Some((_, name, None)) => breaches.push(format!("migrations/{name}: was released and is gone")),
            Some((sum, name, Some(bytes))) => {
                if hex::encode(Sha256::digest(bytes)) != sum {
                    breaches.push(format!("migrations/{name}: was released and is edited; add another one instead"));
                }
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, to: &str, kind: Value) -> Value {
        json!({"packages": [
            {"name": name, "dependencies": [{"name": to, "kind": kind}]},
            {"name": "keyward-store", "dependencies": []},
            {"name": "keyward-testkit", "dependencies": []},
        ]})
    }

    #[test]
    fn a_forbidden_arrow_is_found_and_an_allowed_one_is_not() {
        for (from, to, kind, breaches) in [
            ("keyward-cli", "keyward-store", Value::Null, 1),
            ("keyward-core", "keyward-store", json!("dev"), 1),
            ("keyward-broker", "keyward-store", Value::Null, 0),
            ("keyward-broker", "keyward-testkit", Value::Null, 1),
            ("keyward-broker", "keyward-testkit", json!("dev"), 0),
            ("keyward-core", "tokio", json!("dev"), 1),
            ("keyward-issuer", "reqwest", Value::Null, 0),
            ("keyward-broker", "reqwest", Value::Null, 1),
            ("keyward-cli", "sqlx", json!("build"), 1),
            ("keyward-new", "serde", Value::Null, 1),
        ] {
            assert_eq!(arrows(&package(from, to, kind)).len(), breaches, "{from} -> {to}");
        }
    }

    #[test]
    fn a_manifest_must_take_the_lints_of_the_workspace() {
        assert_eq!(lints("a", "[lints]\nworkspace = true\n"), None);
        for manifest in
            ["", "[lints]\n", "[lints]\n[dependencies]\nworkspace = true\n", "[package]\nworkspace = true\n"]
        {
            assert!(lints("a", manifest).is_some(), "{manifest:?} passed");
        }
    }

    #[test]
    fn a_look_at_a_secret_needs_its_reason_close_by() {
        let found = |text: &str| exposed("crates/a/src/b.rs", text).len();
        assert_eq!(found("key.expose(|k| k.len());\n"), 1);
        assert_eq!(found("// EXPOSE: the cipher takes it\nlet a = key\n    .b()\n    .expose(|k| f(k));\n"), 0);
        assert_eq!(found("// EXPOSE: too far\n\n\n\nkey.expose(|k| f(k));\n"), 1);
        assert_eq!(found("Key32::expose(&key, |k| f(k));\n"), 1);
        assert_eq!(found("/// Calls `key.expose(…)`.\n"), 0);
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    key.expose(|k| f(k));\n}\n"), 0);
        assert_eq!(found("#[cfg(test)]\nuse a;\nkey.expose(|k| f(k));\n"), 1);
    }

    #[test]
    fn the_pure_crates_have_no_clock() {
        assert_eq!(impure("crates/keyward-core/src/a.rs", "let now = Timestamp::now();\n").len(), 1);
        assert_eq!(impure("crates/keyward-core/src/a.rs", "// never Timestamp::now()\n").len(), 0);
        assert_eq!(impure("crates/keyward-broker/src/a.rs", "let now = Timestamp::now();\n").len(), 0);
    }

    #[test]
    fn an_ignored_test_names_its_issue() {
        let found = |line: &str| ignored("a.rs", line).len();
        assert_eq!(found("    #[ignore]\n"), 1);
        assert_eq!(found("    #[ignore = \"slow\"]\n"), 1);
        assert_eq!(found("    #[ignore = \"issue 12: needs a display\"]\n"), 0);
        assert_eq!(found("    #[ignore = \"#12\"]\n"), 0);
        assert_eq!(found("    #[ignore = \"run by another test\"]\n"), 0);
    }

    #[test]
    fn places_of_one_machine_are_found_and_longer_names_are_not() {
        let found = |text: &str| places("a", text).len();
        for place in PLACES {
            assert_eq!(found(&format!("see `{place}`")), 1, "{place}");
            assert_eq!(found(&format!("see {place}notes")), 1, "{place}");
        }
        assert_eq!(found(&format!("/home/runner{}", PLACES[1])), 0);
        assert_eq!(found(&format!("~{}shop", PLACES[1])), 0);
    }

    #[test]
    fn hosts_are_found_in_the_ui_and_in_lock_files() {
        let found = |text: &str| remote("ui/src/a.svelte", text).len();
        let scheme = "https://";
        assert_eq!(found(&format!("<img src=\"{scheme}cdn.net/a.png\">")), 1);
        assert_eq!(found(&format!("fetch('{scheme}evil.net'); // {scheme}example.com")), 1);
        assert_eq!(found("@import url(//fonts.net/a.css)"), 1);
        assert_eq!(found("xmlns=\"http://www.w3.org/2000/svg\" // a comment"), 0);
        assert_eq!(found(&format!("if (url.startsWith('{scheme}')) return")), 0);
        assert_eq!(resolved("package-lock.json", "      \"resolved\": \"…\",\n").len(), 1);
        assert_eq!(resolved("package-lock.json", "      \"integrity\": \"…\",\n").len(), 0);
    }

    #[test]
    fn a_released_migration_stays_as_it_is() {
        // SHA-256 of "abc" (FIPS 180-4, example 1).
        let list = "# comment\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  1.sql\n";
        assert_eq!(migrations(list, |_| Some(b"abc".to_vec())).len(), 0);
        assert_eq!(migrations(list, |_| Some(b"abd".to_vec())).len(), 1);
        assert_eq!(migrations(list, |_| None).len(), 1);
        assert_eq!(migrations("abc 1.sql\n", |_| None).len(), 1);
    }

    #[test]
    fn only_listed_entries_stand_at_the_top() {
        assert_eq!(top("crates/a/b.rs"), None);
        assert!(top("notes.md").is_some());
        assert!(top("scripts/a").is_some());
    }
}
