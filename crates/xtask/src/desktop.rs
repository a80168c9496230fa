//! The program of the desktop, as a debug and as a release build.
//!
//! The feature `automation` lets WebDriver in; no package has it. The release build links thin, in a target folder of its
//! own, since it would otherwise build every crate anew for the command line's profile. Called by `app`, `demo`, `bench` and
//! `package`.

use crate::ui::{self, Bundle};
use crate::workspace::{Workspace, succeed};
use std::path::PathBuf;

/// Name of the package and of its binary.
pub(crate) const NAME: &str = "keyward-desktop";

/// Features of a build that WebDriver may drive.
const AUTOMATION: &str = "keyward-desktop/custom-protocol,keyward-desktop/automation";

/// Features of every other build.
const PLAIN: &str = "keyward-desktop/custom-protocol";

/// A debug build with the command line, the broker and the sandbox beside it; gives their folder.
pub(crate) fn debug(workspace: &Workspace) -> Result<PathBuf, String> {
    ui::build(workspace, Bundle::Desktop)?;
    let mut build = workspace.cargo(&["build", "--locked", "--features", PLAIN]);
    for (package, binary) in [
        (NAME, NAME),
        ("keyward-cli", "keyward"),
        ("keyward-broker", "keyward-broker"),
        ("keyward-sandbox", "keyward-sandbox"),
    ] {
        build.args(["--package", package, "--bin", binary]);
    }
    succeed(&mut build)?;
    Ok(workspace.target.join("debug"))
}

/// A debug build that WebDriver may drive; gives its file.
pub(crate) fn driven(workspace: &Workspace) -> Result<PathBuf, String> {
    ui::build(workspace, Bundle::Desktop)?;
    succeed(&mut workspace.cargo(&["build", "--locked", "--package", NAME, "--bin", NAME, "--features", AUTOMATION]))?;
    Ok(workspace.target.join("debug").join(NAME))
}

/// The release build, with `automation` or as it is packaged; gives its file, which the other kind overwrites.
pub(crate) fn release(workspace: &Workspace, automation: bool) -> Result<PathBuf, String> {
    ui::build(workspace, Bundle::Desktop)?;
    let target = target(workspace);
    let mut build = workspace.cargo(&["build", "--release", "--locked", "--package", NAME, "--bin", NAME]);
    build.args(["--features", if automation { AUTOMATION } else { PLAIN }]);
    build.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_RELEASE_LTO", "thin");
    succeed(build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"))?;
    Ok(target.join("release").join(NAME))
}

/// Target folder of the release build.
pub(crate) fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("desktop")
}
