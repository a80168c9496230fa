//! The web UI: its packages, its checks, and the bundles that the desktop and the development host show.
//!
//! Writes only what git ignores: `ui/node_modules`, `ui/dist` and `ui/dist-devhost`. Packages come by the lock file, and
//! none of their scripts runs. Does nothing a second time while nothing changed. Called by every task that builds or tests
//! the desktop.

use crate::node::Node;
use crate::workspace::{Workspace, output, read, succeed};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes that the files of the desktop's bundle may take together, each packed by gzip.
pub(crate) const MOST_PACKED: u64 = 250_000;

/// What is built from the sources of the UI.
#[derive(Clone, Copy)]
pub(crate) enum Bundle {
    /// For the web view of the desktop; the only one that is packaged.
    Desktop,
    /// For a plain browser in front of the development host.
    Devhost,
}

impl Bundle {
    fn folder(self) -> &'static str {
        match self {
            Self::Desktop => "dist",
            Self::Devhost => "dist-devhost",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Desktop => "build",
            Self::Devhost => "build:devhost",
        }
    }
}

/// Installs the packages of `ui/package-lock.json` unless they are there.
pub(crate) fn install(workspace: &Workspace) -> Result<Node, String> {
    let node = Node::find(workspace)?;
    let ui = workspace.root.join("ui");
    let wanted = hash(&ui, &["package.json".into(), "package-lock.json".into()], &node.version)?;
    let stamp = stamp(&ui, "installed");
    if !is(&stamp, &wanted) {
        succeed(&mut node.npm(&ui, &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))
            .map_err(|e| format!("{e}; npm needs a registry, as `npm config list` says"))?;
        keep(&stamp, &wanted)?;
    }
    Ok(node)
}

/// Types that match the commands, the checks of Svelte and TypeScript, and the tests of the UI's logic; gives how many of
/// these passed and were skipped.
pub(crate) fn check(workspace: &Workspace) -> Result<(u64, u64), String> {
    let node = install(workspace)?;
    let ui = workspace.root.join("ui");
    succeed(&mut node.npm(&ui, &["run", "--silent", "check"]))?;
    let results = workspace.target.join("vitest.json");
    let file = format!("--outputFile.json={}", results.display());
    succeed(&mut node.npm(&ui, &["test", "--silent", "--", "--reporter=dot", "--reporter=json", &file]))?;
    let said: Value = serde_json::from_str(&read(&results)?).map_err(|e| format!("{}: {e}", results.display()))?;
    let number = |key: &str| said[key].as_u64().ok_or_else(|| format!("{}: {key} expected", results.display()));
    Ok((number("numPassedTests")?, number("numPendingTests")?))
}

/// Builds a bundle unless it is there, made from the same sources, and gives its folder.
pub(crate) fn build(workspace: &Workspace, bundle: Bundle) -> Result<PathBuf, String> {
    let node = install(workspace)?;
    let ui = workspace.root.join("ui");
    let folder = ui.join(bundle.folder());
    let stamp = stamp(&ui, bundle.folder());
    let state = |node: &Node| -> Result<String, String> {
        let mut sources = workspace.files()?;
        sources.retain(|file| file.starts_with("ui/"));
        let made = below(&folder)?;
        Ok(format!("{} {}", hash(&workspace.root, &sources, &node.version)?, hash(&folder, &made, "")?))
    };
    if !is(&stamp, &state(&node)?) {
        succeed(&mut node.npm(&ui, &["run", "--silent", bundle.script()]))?;
        keep(&stamp, &state(&node)?)?;
    }
    Ok(folder)
}

/// Bytes of the desktop's bundle, each of its files packed by gzip.
pub(crate) fn packed(workspace: &Workspace) -> Result<u64, String> {
    let folder = workspace.root.join("ui").join(Bundle::Desktop.folder());
    let mut sum = 0;
    for file in below(&folder)? {
        let mut gzip = Command::new("gzip");
        let packed = gzip.args(["-9", "-n", "-c"]).arg(folder.join(&file)).stdin(Stdio::null()).output();
        let packed = packed.map_err(|e| format!("gzip: {e}"))?;
        if !packed.status.success() {
            return Err(format!("gzip {file}: {}", packed.status));
        }
        sum += packed.stdout.len() as u64;
    }
    if sum == 0 { Err(format!("{} is empty", folder.display())) } else { Ok(sum) }
}

/// Fails when the bundle of the desktop is larger than it may be.
pub(crate) fn limit(workspace: &Workspace) -> Result<(), String> {
    let packed = packed(workspace)?;
    println!("ui: {packed} bytes packed, at most {MOST_PACKED}");
    if packed <= MOST_PACKED { Ok(()) } else { Err(format!("the bundle has {packed} bytes packed")) }
}

/// Where it is noted from what something was made.
fn stamp(ui: &Path, of: &str) -> PathBuf {
    ui.join("node_modules/.keyward").join(of)
}

fn is(stamp: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|there| there == wanted)
}

fn keep(stamp: &Path, text: &str) -> Result<(), String> {
    let folder = stamp.parent().unwrap_or(stamp);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(stamp, text))
        .map_err(|e| format!("{}: {e}", stamp.display()))
}

/// The files below a folder, by their paths relative to it, sorted; none if it is absent.
fn below(folder: &Path) -> Result<Vec<String>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let list = output(Command::new("find").current_dir(folder).args([".", "-type", "f", "-print0"]))?;
    let mut files: Vec<String> = list.split_terminator('\0').map(str::to_owned).collect();
    files.sort_unstable();
    Ok(files)
}

/// SHA-256 of names and contents, in hex.
fn hash(folder: &Path, files: &[String], more: &str) -> Result<String, String> {
    let mut sum = Sha256::new();
    for file in files {
        let bytes = std::fs::read(folder.join(file)).map_err(|e| format!("{file}: {e}"))?;
        sum.update(format!("{file}\0{}\0", bytes.len()));
        sum.update(bytes);
    }
    sum.update(more);
    Ok(hex::encode(sum.finalize()))
}
