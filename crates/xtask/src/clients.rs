//! `cargo xtask test --clients`: the vendors' own clients through the gateway, the large ones too.
//!
//! Runs the tests of `tests/gateway/clients.rs` side by side and writes what each client has shown to `crates/CLIENTS.md`, also
//! when one fails or cannot be installed: that is in the table, and the task fails. Installs the clients into the target
//! folder. Never calls a vendor: what answers is the sandbox. Called by developers.

use crate::setup::setup;
use crate::workspace::{Workspace, output, read, replace, succeed};
use serde_json::Value;
use std::process::Command;

/// The tests wait for credentials to end, most of the time.
const SIDE_BY_SIDE: &str = "6";

/// Every client that there is a test of, as the tests name them.
const CLIENTS: &[&str] = &[
    "Python anthropic, Anthropic",
    "Python anthropic, AnthropicBedrock",
    "Python anthropic, AnthropicVertex",
    "Python anthropic, AnthropicFoundry",
    "Python boto3, bedrock-runtime",
    "Python openai",
    "@anthropic-ai/sdk",
    "Claude Code, Anthropic",
    "Claude Code, Bedrock",
    "Claude Code, Vertex",
    "Claude Code, Foundry",
    "Codex",
];

/// Installs, tests, and writes the table.
pub(crate) fn clients(workspace: &Workspace) -> Result<(), String> {
    setup(workspace, &["build", "test"], false)?;
    let programs = ["-p", "keyward-cli", "-p", "keyward-broker", "-p", "keyward-sandbox"];
    succeed(workspace.cargo(&["build"]).args(programs))?;
    let folder = workspace.target.join("clients");
    let mut install = Command::new("sh");
    install.arg(workspace.root.join("tests/clients/install")).arg(&folder).arg("agents");
    // What is there is tested all the same; the tests of the others fail with the installer's words.
    let installed = succeed(&mut install);
    let results = folder.join("results");
    if results.exists() {
        std::fs::remove_dir_all(&results).map_err(|e| format!("{}: {e}", results.display()))?;
    }
    let tests = ["test", "-p", "keyward-tests", "--test", "gateway", "clients::", "--", "--include-ignored"];
    let tested = succeed(workspace.cargo(&tests).args(["--test-threads", SIDE_BY_SIDE]));
    let mut shown = Vec::new();
    for name in CLIENTS {
        let file = results.join(format!("{}.json", name.replace('/', " ")));
        let facts = if file.exists() { read(&file)? } else { "{}".to_owned() };
        shown.push((*name, serde_json::from_str(&facts).map_err(|e| format!("{}: {e}", file.display()))?));
    }
    let date = output(Command::new("date").args(["-u", "+%F"]))?;
    let page = page(&shown, date.trim(), installed.as_ref().err().map(String::as_str));
    print!("{page}");
    replace(&workspace.root.join("crates/CLIENTS.md"), page.as_bytes(), 0o644)?;
    installed.and(tested)
}

/// The table, with a row for each client and what it has shown.
fn page(shown: &[(&str, Value)], date: &str, trouble: Option<&str>) -> String {
    let mut text = format!(
        "# Clients\n\n\
         Written by `cargo xtask test --clients`, on {date}, on {} {}. Each client is as its vendor publishes it, and was run\n\
         by `keyward run` in one process against `keyward-sandbox`, with credentials of five seconds, in a shell full of stale\n\
         credentials. *Renewals* is how often its credential was issued anew while its calls went on without a failure;\n\
         *searched* how many processes, it and those that it started, were searched in vain for the credential:\n\
         environment, command line, open files, files of the home, and the memory of the first and of one that it started. The\n\
         last column is what its next call said after `keyward revoke`.\n\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    if let Some(trouble) = trouble {
        text.push_str(&format!("**Not all could be installed:** {trouble}\n\n"));
    }
    text.push_str("| Client | Version | Result | Delivery | Renewals | Searched | After a revoke |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for (name, facts) in shown {
        let cell = |what: &str| match &facts[what] {
            Value::Null => "–".to_owned(),
            Value::String(text) => text.replace('|', "\\|"),
            other => other.to_string(),
        };
        let result = match (facts["passed"].as_bool(), facts["version"].is_string()) {
            (Some(true), _) => "passed",
            (_, true) => "**failed**",
            (_, false) => "**did not start**",
        };
        let [version, works, outlives, searched] = ["version", "works", "outlives", "processes searched"].map(cell);
        let refused = cell("after a revoke");
        text.push_str(&format!("| {name} | {version} | {result} | {works} | {outlives} | {searched} | {refused} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_that_did_not_pass_shows_in_the_table() {
        let good =
            json!({"version": "1.2", "works": "gateway", "outlives": 3, "processes searched": 2, "passed": true});
        let rows = [("a", good), ("b", json!({"version": "3"})), ("c", json!({}))];
        let text = page(&rows, "2026-01-01", Some("npm could not"));
        assert!(text.contains("| a | 1.2 | passed | gateway | 3 | 2 | – |"), "{text}");
        assert!(text.contains("| b | 3 | **failed** |") && text.contains("| c | – | **did not start** |"), "{text}");
        assert!(text.contains("**Not all could be installed:** npm could not"), "{text}");
    }
}
