//! `cargo xtask app`: the desktop as a debug build, for a person.
//!
//! On the person's own vault, or with `--demo` on a throw-away one with the sandbox and runs that hold credentials. Never
//! a build that WebDriver may drive; with `--demo` never touches the person's vault. Called by hand.

use crate::demo;
use crate::desktop;
use crate::home::Home;
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::screen;
use crate::setup::setup;
use crate::workspace::{Workspace, succeed};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program started by cargo has in its environment, and the desktop refuses.
const OF_CARGO: &str = "LD_LIBRARY_PATH";

/// How the sandbox of `--demo` serves.
const SERVE: [&str; 4] = ["--life", "5m", "--rotate", "30s"];

/// Profile of the demo that is exchanged.
const FEDERATED: &str = "demo-federated";

/// Builds the desktop with what belongs beside it, and starts it; ends with it.
pub(crate) fn app(workspace: &Workspace, demo: bool, hidden: bool) -> Result<(), String> {
    let Some(display) = screen::own() else {
        return Err("there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set): start it in a desktop \
                    session; `cargo xtask demo` opens the desktop without one"
            .into());
    };
    setup(workspace, &["build", "desktop"], false)?;
    let bin = desktop::debug(workspace)?;
    if demo {
        return on_demo_vault(&bin, &display, hidden);
    }
    let mut program = Command::new(bin.join(desktop::NAME));
    program.env_remove(OF_CARGO).stdin(Stdio::null());
    if hidden {
        program.arg("--hidden");
    }
    succeed(&mut program)
}

fn on_demo_vault(bin: &Path, display: &screen::Variables, hidden: bool) -> Result<(), String> {
    interrupt::watch();
    let home = Home::make(bin)?;
    let shown = show(&home, display, hidden);
    match (shown, home.close()) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(why), Ok(())) | (Ok(()), Err(why)) => Err(why),
        (Err(why), Err(besides)) => Err(format!("{why}; besides: {besides}")),
    }
}

fn show(home: &Home, display: &screen::Variables, hidden: bool) -> Result<(), String> {
    demo::furnish(home)?;
    let sandbox = Sandbox::start(home, &SERVE)?;
    demo::add_profile(home, FEDERATED, &sandbox.profile("")?)?;
    let program = home.binary("keyward-sandbox");
    let program = program.to_str().ok_or("the target folder is not UTF-8")?;
    let client = [program, "child", "--lifetimes", "1000"];
    let launch = [&["launcher", "add", "Sandbox client", "--no-terminal", "-p", FEDERATED, "--"][..], &client].concat();
    demo::step(home, &launch, "")?;
    let mut runs = Vec::new();
    for line in [
        [&["run", "-p", FEDERATED, "--"][..], &client].concat(),
        vec!["run", "-p", "demo-static", "-p", "demo-minted", "--", "sh", "-c", "cat"],
    ] {
        let mut command = home.command(home.binary("keyward"));
        command.args(&line).stdin(Stdio::piped());
        runs.push(home.start(command)?);
    }
    println!(
        "\n$ keyward-desktop\nThe passphrase of this vault is {}. It goes with the window's end, or with Ctrl-C.",
        home.passphrase
    );
    let mut command = home.command(home.binary(desktop::NAME));
    command.envs(display.iter().map(|(name, value)| (name, value)));
    command.envs(session_bus());
    if hidden {
        command.arg("--hidden");
    }
    let mut desktop = command.spawn().map_err(|e| format!("{}: {e}", desktop::NAME))?;
    let status = loop {
        if let Some(status) = desktop.try_wait().map_err(|e| format!("{}: {e}", desktop::NAME))? {
            break status;
        }
        if interrupt::seen() {
            // Its own child, which was not collected yet.
            let _ = desktop.kill();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    if status.success() || interrupt::seen() { Ok(()) } else { Err(format!("{}: {status}", desktop::NAME)) }
}

/// The person's session bus, on which the tray and the notifications are.
fn session_bus() -> Option<(&'static str, std::ffi::OsString)> {
    let address = "DBUS_SESSION_BUS_ADDRESS";
    let named = std::env::var_os(address);
    let usual = || {
        let socket = Path::new(&std::env::var_os("XDG_RUNTIME_DIR")?).join("bus");
        socket.exists().then(|| format!("unix:path={}", socket.display()).into())
    };
    Some((address, named.or_else(usual)?))
}
