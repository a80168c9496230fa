//! Names, licences and notices of the libraries of others that a package holds.
//!
//! Reads what cargo and npm have unpacked; never asks the network. Called by `package`.

use crate::workspace::{Workspace, output, read};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One library.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Library {
    name: String,
    licence: String,
    folder: PathBuf,
}

/// The text: a line a library, then each licence and notice once, under the names of those that carry it.
pub(crate) fn text(workspace: &Workspace, packages: &[&str], host: &str) -> Result<String, String> {
    let mut libraries = crates(workspace, packages, host)?;
    libraries.extend(modules(workspace)?);
    let mut page = String::from("Libraries of others in the programs of this package, with their licences.\n\n");
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for library in &libraries {
        page.push_str(&format!("{}: {}\n", library.name, library.licence));
        for text in notices(&library.folder)? {
            texts.entry(text).or_default().push(&library.name);
        }
    }
    for (text, names) in texts {
        page.push_str(&format!("\n{}\n{}\n\n{}\n", "-".repeat(72), names.join(", "), text.trim_end()));
    }
    Ok(page)
}

/// The crates that are linked into `packages` on this platform, without those of the workspace.
fn crates(workspace: &Workspace, packages: &[&str], host: &str) -> Result<BTreeSet<Library>, String> {
    let mut cargo = workspace.cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    let metadata: Value =
        serde_json::from_str(&output(&mut cargo)?).map_err(|e| format!("cargo metadata is not JSON: {e}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes: BTreeMap<String, Vec<Value>> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), list(&node["deps"]))).collect();
    let known: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let mut todo: Vec<String> = known
        .iter()
        .filter(|(_, package)| packages.iter().any(|name| package["name"] == **name))
        .map(|(id, _)| id.clone())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in nodes.get(&id).into_iter().flatten() {
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                todo.push(text(&dependency["pkg"]));
            }
        }
    }
    let outside = seen.iter().filter_map(|id| known.get(id)).filter(|package| !package["source"].is_null());
    let library = |package: &Value| Library {
        name: format!("{} {}", text(&package["name"]), text(&package["version"])),
        licence: package["license"].as_str().unwrap_or("as its file says").to_owned(),
        folder: Path::new(&text(&package["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default(),
    };
    Ok(outside.map(library).collect())
}

/// The npm packages that the bundle of the UI may hold: those of `ui/package-lock.json` that are not for development alone,
/// and the run-time of Svelte.
fn modules(workspace: &Workspace) -> Result<Vec<Library>, String> {
    let ui = workspace.root.join("ui");
    let lock: Value = serde_json::from_str(&read(&ui.join("package-lock.json"))?)
        .map_err(|e| format!("ui/package-lock.json: {e}"))?;
    let mut libraries = Vec::new();
    for (place, package) in lock["packages"].as_object().into_iter().flatten() {
        let Some(name) = place.strip_prefix("node_modules/") else { continue };
        if package["dev"] == Value::Bool(true) && !matches!(name, "svelte" | "clsx" | "esm-env") {
            continue;
        }
        libraries.push(Library {
            name: format!("{name} {}", package["version"].as_str().unwrap_or_default()),
            licence: package["license"].as_str().unwrap_or("as its file says").to_owned(),
            folder: ui.join(place),
        });
    }
    Ok(libraries)
}

/// The licences and notices at the top of a library's folder.
fn notices(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut texts = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let named =
            ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"].iter().any(|n| name.starts_with(n));
        if named && entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).map_err(|e| format!("{}: {e}", entry.path().display()))?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}
