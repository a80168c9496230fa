//! A screen without a monitor, and the hands of a person on it.

use keyward_testkit::{Home, run, signal, wait_at_most};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

/// An X server of this test alone, with a window manager, which gives windows the keyboard and asks them to close.
pub(crate) struct Display {
    server: Child,
    manager: Child,
    name: String,
}

impl Display {
    #[track_caller]
    pub(crate) fn start(home: &Home) -> Self {
        let mut server = home.command("Xvfb");
        // Without `-noreset` it starts over when its first client goes, and the next one may find it closed.
        server.args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"]);
        let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb ended at once");
        let name = format!(":{}", number.trim());
        let mut manager = home.command("openbox");
        manager.env("DISPLAY", &name).stdout(Stdio::null()).stderr(Stdio::null());
        let manager = manager.spawn().unwrap();
        let display = Self { server, manager, name };
        wait_at_most(Duration::from_secs(20), "the window manager", || {
            let mut asked = home.command("wmctrl");
            asked.env("DISPLAY", &display.name).arg("-m");
            run(asked, b"").exit == 0
        });
        display
    }

    /// For `DISPLAY`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn xdotool(&self, home: &Home, args: &[&str]) -> keyward_testkit::Answer {
        let mut command = home.command("xdotool");
        // Titles are not read in the plain C locale when they are more than ASCII.
        command.env("DISPLAY", &self.name).env("LC_ALL", "C.UTF-8").args(args);
        run(command, b"")
    }

    /// Ids of the visible windows with this in their title.
    pub(crate) fn windows(&self, home: &Home, title: &str) -> Vec<String> {
        let found = self.xdotool(home, &["search", "--onlyvisible", "--name", title]);
        found.out.lines().map(str::to_owned).collect()
    }

    /// Waits for a window, and gives it the keyboard.
    #[track_caller]
    pub(crate) fn focus(&self, home: &Home, title: &str) -> String {
        let mut id = None;
        wait_at_most(Duration::from_secs(20), &format!("a window named {title}"), || {
            id = self.windows(home, title).into_iter().next();
            id.is_some()
        });
        let id = id.unwrap();
        self.xdotool(home, &["windowactivate", "--sync", &id]).exits(0);
        id
    }

    /// Gives a window the keyboard, which may be gone by then.
    pub(crate) fn turn_to(&self, home: &Home, id: &str) {
        self.xdotool(home, &["windowactivate", id]);
    }

    /// Types into the window that has the keyboard.
    #[track_caller]
    pub(crate) fn write(&self, home: &Home, text: &str) {
        self.xdotool(home, &["type", "--delay", "4", text]).exits(0);
    }

    /// Presses a key: `Return`, `Escape`, `Tab`, `ctrl+s`.
    #[track_caller]
    pub(crate) fn press(&self, home: &Home, key: &str) {
        self.xdotool(home, &["key", key]).exits(0);
    }

    /// Asks a window to close, as the button of its frame does.
    #[track_caller]
    pub(crate) fn close(&self, home: &Home, title: &str) {
        let id = self.focus(home, title);
        let mut close = home.command("wmctrl");
        close.env("DISPLAY", &self.name).args(["-i", "-c", &id]);
        run(close, b"").exits(0);
    }

    /// Text on the clipboard.
    pub(crate) fn clipboard(&self, home: &Home) -> String {
        let mut command = home.command("xclip");
        command.env("DISPLAY", &self.name).args(["-selection", "clipboard", "-o"]);
        run(command, b"").out
    }

    /// Waits until no window has this in its title.
    #[track_caller]
    pub(crate) fn gone(&self, home: &Home, title: &str) {
        wait_at_most(Duration::from_secs(20), &format!("the end of the window named {title}"), || {
            self.windows(home, title).is_empty()
        });
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        for child in [&mut self.manager, &mut self.server] {
            signal(child.id().cast_signed(), Signal::TERM);
            let _ = child.wait();
        }
    }
}
