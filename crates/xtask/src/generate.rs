//! `cargo xtask gen`: the committed files that are made from code.
//!
//! `crates/keyward-api/openapi.json` is the LocalAPI as OpenAPI 3.1; `ui/commands.json` the commands of the
//! web view, from which its types are made; `crates/ERRORS.md` is the table of error codes. Never
//! touches another file. Called by hand after a change, and with `--check` by `test`.

use crate::workspace::{Workspace, replace};
use keyward_diag::Code;

/// Writes each file; with `check` writes nothing and fails when one is not what the code says.
pub(crate) fn generate(workspace: &Workspace, check: bool) -> Result<(), String> {
    let openapi =
        serde_json::to_string_pretty(&keyward_api::openapi()).map_err(|e| format!("openapi.json: {e}"))? + "\n";
    let mut stale = Vec::new();
    let commands =
        serde_json::to_string_pretty(&keyward_desk::document()).map_err(|e| format!("commands.json: {e}"))? + "\n";
    for (name, text) in
        [("crates/keyward-api/openapi.json", openapi), ("ui/commands.json", commands), ("crates/ERRORS.md", errors())]
    {
        let path = workspace.root.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        if check {
            stale.push(name);
        } else {
            replace(&path, text.as_bytes(), 0o644)?;
            println!("gen: {name}");
        }
    }
    match stale.as_slice() {
        [] => Ok(()),
        stale => Err(format!("stale: {}; run `cargo xtask gen` and commit", stale.join(", "))),
    }
}

fn errors() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         Made from `crates/keyward-diag/src/code.rs` by `cargo xtask gen`. The exit code is that of every command but `run`,\n\
         which reports 3, 4, 5, 6 and 7 as 125.\n\n\
         | Code | Exit | Message | Help |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let cell = |words: &str| words.replace('|', "\\|");
        let (message, help) = (cell(code.message()), cell(code.help()));
        text.push_str(&format!("| `{}` | {} | {message} | {help} |\n", code.name(), code.exit()));
    }
    text
}
