//! Tells tauri the commands of the web view, so that each needs a permission: the names of `ui/commands.json`, which
//! `cargo xtask gen` writes from the one list in `keyward-desk`. A test compares them with it.

use std::error::Error;
use std::sync::OnceLock;

static NAMES: OnceLock<Vec<String>> = OnceLock::new();
static COMMANDS: OnceLock<Vec<&'static str>> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../ui/commands.json");
    println!("cargo:rerun-if-changed=../icons/png");
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read("../ui/commands.json")?)?;
    let paths = document["paths"].as_object().ok_or("ui/commands.json has no paths")?;
    let names = paths.keys().filter_map(|path| path.strip_prefix("/command/")).map(str::to_owned).collect();
    let commands = COMMANDS.get_or_init(|| NAMES.get_or_init(|| names).iter().map(String::as_str).collect());
    let manifest = tauri_build::AppManifest::new().commands(commands);
    tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest))?;
    Ok(())
}
