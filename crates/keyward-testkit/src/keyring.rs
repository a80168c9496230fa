//! A real Secret Service on a private session bus.

use crate::{Home, signal, wait_for};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A D-Bus session with gnome-keyring-daemon on it, both of this test alone.
pub struct Keyring {
    bus: Child,
    daemon: Child,
    address: String,
    folder: PathBuf,
}

impl Keyring {
    /// Starts a bus without service activation and an unlocked keyring on it, whose files live in the home's folder.
    #[track_caller]
    pub fn start(home: &Home) -> Self {
        let folder = home.root.join("keyring");
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{e}"));
        let config = folder.join("bus.conf");
        let socket = home.runtime.join("bus");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
             <allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap_or_else(|e| panic!("{e}"));
        let mut bus = home.command("dbus-daemon");
        bus.arg(format!("--config-file={}", config.display())).args(["--nofork", "--print-address"]);
        let mut bus =
            bus.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap_or_else(|e| panic!("dbus-daemon: {e}"));
        let mut address = String::new();
        if let Some(out) = bus.stdout.take() {
            BufReader::new(out).read_line(&mut address).unwrap_or_else(|e| panic!("{e}"));
        }
        let address = address.trim().to_owned();
        let daemon = Self::daemon(home, &address, &folder);
        let keyring = Self { bus, daemon, address, folder };
        wait_for("the Secret Service", || keyring.answers(home));
        keyring
    }

    fn daemon(home: &Home, address: &str, folder: &std::path::Path) -> Child {
        let mut daemon = home.command("gnome-keyring-daemon");
        daemon.args(["--unlock", "--components=secrets", "--foreground"]);
        daemon.env("DBUS_SESSION_BUS_ADDRESS", address).env("XDG_DATA_HOME", folder);
        daemon.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().unwrap_or_else(|e| panic!("gnome-keyring-daemon: {e}"));
        if let Some(mut stdin) = daemon.stdin.take() {
            stdin.write_all(b"keyring\n").unwrap_or_else(|e| panic!("{e}"));
        }
        daemon
    }

    /// The address for `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Folder of the keyring's files.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Locks the keyring's collections, as a desktop does with its screen.
    #[track_caller]
    pub fn lock(&self, home: &Home) {
        let arguments = [
            "/org/freedesktop/secrets",
            "org.freedesktop.Secret.Service.Lock",
            "array:objpath:/org/freedesktop/secrets/collection/login",
        ];
        assert!(self.call(home, &arguments), "the keyring did not take the lock");
    }

    fn answers(&self, home: &Home) -> bool {
        let arguments = [
            "/org/freedesktop/secrets",
            "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Service",
            "string:Collections",
        ];
        self.call(home, &arguments)
    }

    fn call(&self, home: &Home, arguments: &[&str]) -> bool {
        let mut send: Command = home.command("dbus-send");
        send.args(["--session", "--print-reply", "--dest=org.freedesktop.secrets"]).args(arguments);
        send.env("DBUS_SESSION_BUS_ADDRESS", &self.address).stdout(Stdio::null()).stderr(Stdio::null());
        send.status().is_ok_and(|s| s.success())
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.bus] {
            signal(child.id().cast_signed(), Signal::TERM);
            // Both end at once on the signal.
            let _ = child.wait();
        }
    }
}
